//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand};
use gureum_client::load::{
    LOAD_IDLE_MAX, LOAD_PAIRS_MAX, SEALED_BYTES_MAX, SEALED_BYTES_MIN, TEXT_BYTES_MAX, TEXT_BYTES_MIN,
};
use gureum_proto::{Handle, ServerUrl};

/// Talk through a Gureum server: end-to-end encrypted, kept for you while you are away.
///
/// Messages are readable by the two of you alone. The server keeps them for 3 days; what you have received stays
/// in your own encrypted database.
#[derive(Debug, Parser)]
#[command(name = "gureum", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Directory of this account's keys and messages [default: ~/.local/share/gureum]
    #[arg(long, value_name = "DIR", env = "GUREUM_HOME", global = true)]
    pub(crate) home: Option<PathBuf>,

    /// Print one JSON object a line instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// File with the passphrase that protects the home; without one, a key file in the home does
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) passphrase_file: Option<PathBuf>,

    /// The passphrase itself
    #[arg(long, env = "GUREUM_PASSPHRASE", hide_env_values = true, hide = true, global = true)]
    pub(crate) passphrase: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  gureum register 'gureum://HOST:4433/invite/TOKEN#PIN' --handle alice
  gureum send bob 'Are you there?'
  gureum receive --follow
  gureum chat bob
  gureum --home /tmp/second register 'gureum://…' --handle bob

Exit codes: 0 done, 1 failed (a sentence on standard error says what to do), 2 wrong usage, 3 not sent because the
server has gone back in this conversation (see gureum restart --help).";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an account from an invite, and show its recovery words once
    Register(RegisterArgs),
    /// Send a message
    Send(SendArgs),
    /// Take what came, print it, and end when there is no more (or follow)
    Receive(ReceiveArgs),
    /// Print the conversation from the local database, oldest first
    History(HistoryArgs),
    /// Talk: type, and see what comes
    Chat(ChatArgs),
    /// Print who this home belongs to
    Whoami,
    /// Print the digits to compare with somebody, on the phone or in person
    SafetyNumber(WithArgs),
    /// Go on with somebody although the server has gone back to an older state of the conversation
    Restart(RestartArgs),
    /// Load a server with many pairs of devices and measure it
    Load(LoadArgs),
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  gureum register 'gureum://127.0.0.1:4433/invite/Zm9v#AAAA…' --handle alice --device-name laptop

Quote the address: the shell would take # for a comment. The recovery words are shown once and kept nowhere: write
them down. After a failure the same command goes on where it stopped.")]
pub(crate) struct RegisterArgs {
    /// The invite: gureum://HOST:PORT/invite/TOKEN#PIN
    #[arg(value_name = "INVITE_URL")]
    pub(crate) invite: ServerUrl,

    /// The name by which others find you: 2 to 32 of a-z 0-9 . _ - beginning with a letter
    #[arg(long)]
    pub(crate) handle: Handle,

    /// A name for this device [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) device_name: Option<String>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum send bob 'See you at nine'
  date | gureum send bob -

Succeeds when the server has the message on disk.")]
pub(crate) struct SendArgs {
    /// The handle of whom it is for
    pub(crate) to: Handle,

    /// The message; - reads standard input
    #[arg(allow_hyphen_values = true)]
    pub(crate) text: String,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum receive
  gureum --json receive --follow | jq .text")]
pub(crate) struct ReceiveArgs {
    /// Stay connected and print what comes, until interrupted
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum history
  gureum history bob --limit 20")]
pub(crate) struct HistoryArgs {
    /// Only the conversation with this handle
    pub(crate) with: Option<Handle>,

    /// The newest so many entries
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) limit: u32,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  gureum chat bob

Ends with Ctrl-D or Ctrl-C. What is typed while the server is away goes out when it is back.")]
pub(crate) struct ChatArgs {
    /// The handle of whom to talk to
    pub(crate) with: Handle,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  gureum restart bob

The server has gone back to before what this device has seen: either its operator restored a backup, or somebody
tampers with it, who may have stolen older keys of one of you. Ask the operator, and compare `gureum safety-number bob`
with bob, before you run this. It takes what came and prints it, makes new keys for this device on top of the server's
state, and goes on from there; what you had sent and the server has lost is not sent again. The other one decides for
their own devices, by the same command: until then they may not be able to read what you send.")]
pub(crate) struct RestartArgs {
    /// The other one's handle
    pub(crate) with: Handle,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct WithArgs {
    /// The other one's handle
    pub(crate) with: Handle,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureumd invite --data-dir DIR --uses 100
  gureum load --server 'gureum://…' --pairs 50 --window 64 --duration 10s --sealed-size 256
  gureum load --server 'gureum://…' --pairs 50 --rate 20000 --duration 30s --sealed-size 256 --json
  gureum load --server 'gureum://…' --pairs 4 --window 16 --duration 10s
  gureum load --server 'gureum://…' --idle 1000 --duration 60s

Each pair is two accounts with keys of their own, so that an invite needs two uses a pair (one for each idle
connection). With --rate, latencies count from the moment a message was due, not from when it left. A server takes
1,000 messages a second from one device; to load it with more, start it with --sends-per-second 1000000.")]
pub(crate) struct LoadArgs {
    /// The server: an invite with enough uses, or its address where registration is open
    #[arg(long, value_name = "URL")]
    pub(crate) server: ServerUrl,

    /// Pairs of devices, one sending to the other
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = within::<1, LOAD_PAIRS_MAX>)]
    pub(crate) pairs: usize,

    /// Closed loop: so many messages of each pair without an answer, at most 64
    #[arg(long, value_name = "W", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=64), conflicts_with = "rate")]
    pub(crate) window: u32,

    /// Open loop: so many messages a second, of all pairs together
    #[arg(long, value_name = "R", value_parser = positive)]
    pub(crate) rate: Option<f64>,

    /// How long to send
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,

    /// Bytes of text a message, encrypted as a conversation is
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = within::<TEXT_BYTES_MIN, TEXT_BYTES_MAX>)]
    pub(crate) size: usize,

    /// Opaque bodies of so many bytes instead, without encryption: loads the server alone
    #[arg(long, value_name = "BYTES", conflicts_with = "size", value_parser = within::<SEALED_BYTES_MIN, SEALED_BYTES_MAX>)]
    pub(crate) sealed_size: Option<usize>,

    /// Instead of pairs: so many connections that are subscribed and silent
    #[arg(long, value_name = "N", conflicts_with_all = ["pairs", "rate", "window", "size", "sealed_size"],
        value_parser = within::<1, LOAD_IDLE_MAX>)]
    pub(crate) idle: Option<usize>,

    /// Threads of the load tester
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = within::<1, LOAD_THREADS_MAX>)]
    pub(crate) threads: usize,
}

/// Threads of a load tester: more than any machine on which one makes sense has processors.
const LOAD_THREADS_MAX: usize = 256;

fn within<const LEAST: usize, const MOST: usize>(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(number) if (LEAST..=MOST).contains(&number) => Ok(number),
        _ => Err(format!("from {LEAST} to {MOST}")),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("a number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[track_caller]
    fn check(line: &str, fits: bool) {
        assert_eq!(Args::try_parse_from(line.split(' ')).is_ok(), fits, "{line}");
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn takes_what_the_help_shows_and_refuses_what_makes_no_sense() {
        check("gureum register gureum://127.0.0.1:1/invite/Zm9v --handle alice", true);
        check("gureum register gureum://127.0.0.1:1 --handle Alice", false);
        check("gureum register elsewhere:x --handle alice", false);
        check("gureum --home /tmp/a --json send bob -", true);
        check("gureum send bob", false);
        check("gureum receive --follow --json", true);
        check("gureum history bob --limit 3", true);
        check("gureum restart bob --json", true);
        check("gureum restart", false);
        check("gureum load --server a --pairs 2 --rate 100 --duration 5s --sealed-size 256", true);
        check("gureum load --server a --rate 0", false);
        check("gureum load --server a --window 65", false);
        check("gureum load --server a --idle 3 --pairs 2", false);
        check("gureum load --server a --pairs 5000 --size 49152 --threads 2", true);
        check("gureum load --server a --pairs 5001", false);
        check("gureum load --server a --pairs 0", false);
        check("gureum load --server a --idle 60001", false);
        check("gureum load --server a --size 15", false);
        check("gureum load --server a --sealed-size 44", false);
        check("gureum load --server a --sealed-size 65537", false);
        check("gureum load --server a --threads 0", false);
    }
}
