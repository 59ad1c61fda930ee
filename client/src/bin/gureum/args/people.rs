//! The arguments of the commands about whom one hears of, and about the account's end.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use gureum_client::vault::{NoTarget, Target};
use gureum_proto::{ConversationId, Handle};

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum requests
  gureum requests accept bob
  gureum requests block bob

Who writes to you for the first time comes as a request: you see it, and it wakes none of your devices until you accept it. \
Whoever you write to, you accept by that.")]
pub(crate) struct RequestsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<RequestsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RequestsCommand {
    /// Be woken by what comes from somebody, or in a group
    Accept {
        /// A handle, a phone number, or a group's name or id
        who: Target,
    },
    /// See and hear nothing more of somebody, who is not told
    Block {
        /// A handle or a phone number
        who: Target,
    },
    /// List whom you have blocked
    Blocked,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum mute
  gureum mute bob --for 8h
  gureum mute 'Book club'

What comes is shown as before, and wakes none of your devices. Without WITH, lists what is muted.")]
pub(crate) struct MuteArgs {
    /// A handle, a phone number, or a group's name or id
    pub(crate) with: Option<Target>,

    /// For how long, as 30m, 8h or 7days [default: until you unmute it]
    #[arg(long = "for", value_name = "TIME", requires = "with", value_parser = how_long)]
    pub(crate) how_long: Option<Duration>,
}

fn how_long(text: &str) -> Result<Duration, &'static str> {
    let time = humantime::parse_duration(text).ok().filter(|time| !time.is_zero());
    time.ok_or("a time is written like 30m, 8h or 7days")
}

#[derive(Debug, ClapArgs)]
pub(crate) struct WhoArgs {
    /// A handle or a phone number
    #[arg(value_parser = somebody)]
    pub(crate) who: Target,
}

/// A group is nobody; by the id of their conversation somebody can be meant.
fn somebody(text: &str) -> Result<Target, String> {
    let target: Target = text.parse().map_err(|error: NoTarget| error.to_string())?;
    if target.may_be_somebody() || text.parse::<ConversationId>().is_ok() {
        Ok(target)
    } else {
        Err("that is neither a handle nor a phone number".to_owned())
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct AccountArgs {
    #[command(subcommand)]
    pub(crate) command: AccountCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Delete everything that the server holds of this account. It cannot be undone
    #[command(after_help = "\
Example:
  gureum account delete --yes alice

All devices of the account are cut off, and those who write to it are told. Its handle stays taken. This home keeps its \
history; the recovery words are worth nothing any more.")]
    Delete {
        /// The account's own handle: agrees, where nobody can be asked
        #[arg(long, value_name = "HANDLE")]
        yes: Option<Handle>,
    },
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::args::Args;

    #[track_caller]
    fn check(words: &[&str], fits: bool) {
        let line = Args::try_parse_from([&["gureum"][..], words].concat());
        assert_eq!(line.is_ok(), fits, "{words:?}: {line:?}");
    }

    #[test]
    fn takes_what_the_help_shows_and_refuses_what_makes_no_sense() {
        check(&["requests"], true);
        check(&["requests", "accept", "bob"], true);
        check(&["requests", "block", "+82 10-1234-5678"], true);
        check(&["requests", "blocked"], true);
        check(&["requests", "bob"], false);
        check(&["requests", "accept"], false);
        check(&["mute"], true);
        check(&["mute", "Book club"], true);
        check(&["mute", "bob", "--for", "8h"], true);
        check(&["mute", "--for", "8h"], false);
        check(&["mute", "bob", "--for", "soon"], false);
        check(&["mute", "bob", "--for", "0s"], false);
        check(&["unmute", "Book club"], true);
        check(&["unmute"], false);
        check(&["block", "bob"], true);
        check(&["block"], false);
        check(&["account", "delete"], true);
        check(&["account", "delete", "--yes", "alice"], true);
        check(&["account", "delete", "--yes", "Alice"], false);
        check(&["account"], false);
    }
}
