//! The command line.

mod devices;
mod group;
mod load;
mod people;
mod phone;
mod push;
mod settings;
mod talk;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
pub(crate) use devices::{ApproveArgs, DevicesArgs, DevicesCommand, LinkArgs, RecoverArgs, RevokeArgs};
pub(crate) use group::{GroupAction, GroupArgs};
pub(crate) use load::LoadArgs;
pub(crate) use people::{AccountArgs, AccountCommand, MuteArgs, RequestsArgs, RequestsCommand, WhoArgs};
pub(crate) use phone::{PhoneArgs, PhoneCommand, ProofArgs};
pub(crate) use push::{ListenArgs, PushArgs, PushCommand, PushSet};
pub(crate) use settings::{Setting, SettingsArgs, Switch};
pub(crate) use talk::{ChatArgs, HistoryArgs, ReadArgs, ReceiveArgs, RegisterArgs, RestartArgs, SendArgs, WithArgs};

/// Talk through a Gureum server: end-to-end encrypted, kept for you while you are away.
///
/// Messages are readable by those alone who are in the conversation. The server keeps them for 3 days; what you have
/// received stays in your own encrypted database.
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
  gureum devices
  gureum group create 'Book club' bob carol
  gureum --home /tmp/second register 'gureum://…' --handle bob

Exit codes: 0 done, 1 failed (a sentence on standard error says what to do), 2 wrong usage, 3 not sent because the \
server has gone back in this conversation (see gureum restart --help).";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an account from an invite, and show its recovery words once
    Register(RegisterArgs),
    /// Make this home another device of an account, which one of its devices approves
    Link(LinkArgs),
    /// List this account's devices; approve or revoke one
    Devices(DevicesArgs),
    /// Bring an account back whose devices are all lost, by its recovery words
    Recover(RecoverArgs),
    /// Send a message
    Send(SendArgs),
    /// Take what came, print it, and end when there is no more (or follow)
    Receive(ReceiveArgs),
    /// Print the conversation from the local database, oldest first
    History(HistoryArgs),
    /// Talk: type, and see what comes
    Chat(ChatArgs),
    /// Note that you have read what came from somebody, and tell them
    Read(ReadArgs),
    /// Print what is decided for all devices of the account, or change it
    Settings(SettingsArgs),
    /// Make groups, change them, and see who is in them
    Group(GroupArgs),
    /// Say where this device is woken while it is away, or wait for wake-ups here
    Push(PushArgs),
    /// The account's phone number: by which others may find you, and its registration lock
    Phone(PhoneArgs),
    /// List those who have written to you and whom you don't know; accept or block one
    Requests(RequestsArgs),
    /// Be woken no more by what comes from somebody, or in a group
    Mute(MuteArgs),
    /// Be woken by them again
    Unmute(WithArgs),
    /// See and hear nothing more of somebody, who is not told
    Block(WhoArgs),
    /// Take somebody's block away
    Unblock(WhoArgs),
    /// Delete this account from its server
    Account(AccountArgs),
    /// Print who this home belongs to
    Whoami,
    /// Print the digits to compare with somebody, on the phone or in person
    SafetyNumber(WhoArgs),
    /// Go on with somebody although the server has gone back to an older state of the conversation
    Restart(RestartArgs),
    /// Load a server and measure it
    Load(LoadArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const CODE: &str = "GLAEIRCEIRCEIRCEIRCEIRCEIRCEIRCEIRCEIRCEIRCEIRCEIRCEIRCIRCEIRCEIRCEIRCEIRCEIRCEIQ";

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
        check("gureum register --server gureum://127.0.0.1:1 --phone +821012345678 --handle alice", true);
        check("gureum register --server chat.example.org --phone +821012345678 --handle alice", true);
        let pinned = format!("127.0.0.1:4433#{}", "A".repeat(43));
        check(&format!("gureum register --server {pinned} --phone +821012345678 --handle alice --code 012345"), true);
        check("gureum register gureum://127.0.0.1:1/invite/Zm9v --phone +821012345678 --handle alice --findable", true);
        check("gureum register --server gureum://127.0.0.1:1 --phone +821012345678 --code 012345 --handle alice", true);
        check("gureum register --server gureum://127.0.0.1:1 --handle alice", true);
        check("gureum register gureum://127.0.0.1:1 --server gureum://127.0.0.1:1 --phone +8210123 --handle al", false);
        check("gureum register gureum://127.0.0.1:1 --handle alice --code 012345", false);
        check("gureum register --phone +821012345678 --handle alice", false);
        check("gureum unmute bob", true);
        check("gureum unblock +821012345678", true);
        check("gureum --home /tmp/a --json send bob -", true);
        check("gureum send bob", false);
        check("gureum receive --follow --json", true);
        check("gureum history bob --limit 3", true);
        check("gureum read bob --json", true);
        check("gureum read", false);
        check("gureum settings", true);
        check("gureum settings receipts off --json", true);
        check("gureum settings receipts perhaps", false);
        check("gureum settings receipts", false);
        check("gureum settings typing off", true);
        let p256dh = "BLn9b-VR0ca83knDNZ32dCHGyjJp-1riX9ZTN40MqV8K_LpQmLqxC_DoHvqvFXO_nGdAB4W9dogZb_sM-uV4JbY";
        let web =
            format!("gureum push set web https://push.example.org/a --p256dh {p256dh} --auth _ordMnz7uTCmrpBTeUV4Bw");
        check(&web, true);
        check(&format!("{web} --silent --json"), true);
        check(&web.replace("https", "http"), false);
        check(&web.replace("BLn9", "ALn9"), false);
        check(&web.replace("_ordMn", "_ord"), false);
        check("gureum push set web https://push.example.org/a", false);
        check("gureum push set apns 00112233445566778899aabbccddeeff --sandbox --silent", true);
        check("gureum push set apns 00112233", false);
        check("gureum push set apns 0011223344556677z", false);
        check("gureum push set fcm APA91b:c-_ --silent", true);
        check("gureum push set fcm APA91b --sandbox", false);
        check("gureum push clear", true);
        check("gureum push show --json", true);
        check("gureum push listen", true);
        check("gureum push listen --listen 127.0.0.1:8123 --once --silent --json", true);
        check("gureum push listen --cert a.pem", false);
        check("gureum push listen --cert a.pem --key b.pem --url https://example.org/push/", true);
        check("gureum push listen --url ftp://example.org", false);
        check("gureum push", false);
        check("gureum restart bob --json", true);
        check("gureum link gureum://127.0.0.1:1 --device-name tablet", true);
        check("gureum link", false);
        check("gureum devices --json", true);
        check(&format!("gureum devices approve {CODE} --name tablet"), true);
        check(&format!("gureum devices approve {}", CODE.to_lowercase()), true);
        check("gureum devices approve GLAEIR", false);
        check("gureum devices revoke tablet", true);
        check("gureum devices revoke", false);
        check("gureum devices tablet", false);
        check("gureum recover gureum://127.0.0.1:1", true);
        check("gureum restart", false);
        check("gureum send Book text", true);
        check("gureum group create club bob carol", true);
        check("gureum group create club", false);
        check("gureum group create club Bob", false);
        check("gureum group add club", false);
        check("gureum group admin club bob --revoke", true);
        check("gureum group leave club", true);
        check("gureum group rename club books", true);
        check("gureum group rename club", false);
        check("gureum --json group list", true);
        check("gureum group show club", true);
        check("gureum group", false);
        check("gureum load pairs --server a --pairs 2 --rate 100 --duration 5s --sealed-size 256 --json", true);
        check("gureum load pairs --server a --pairs 5000 --size 49152 --threads 2", true);
        check("gureum load pairs --server a --metrics http://127.0.0.1:9100/metrics", true);
        check("gureum load pairs --server a --metrics 127.0.0.1:9100", false);
        check("gureum load pairs --server a --rate 0", false);
        check("gureum load pairs --server a --rate 5 --window 5", false);
        check("gureum load pairs --server a --window 65", false);
        check("gureum load pairs --server a --pairs 5001", false);
        check("gureum load pairs --server a --pairs 0", false);
        check("gureum load pairs --server a --size 15", false);
        check("gureum load pairs --server a --sealed-size 44", false);
        check("gureum load pairs --server a --sealed-size 65537", false);
        check("gureum load pairs --server a --threads 0", false);
        check("gureum load pairs --server a --duration 25h", false);
        check("gureum load pairs", false);
        check("gureum load --server a", false);
        check("gureum load fanout --server a --groups 2 --members 100 --connected 0 --window 4", true);
        check("gureum load fanout --server a --members 1", false);
        check("gureum load fanout --server a --members 1001", false);
        check("gureum load offline --server a --devices 2 --messages 100000 --sealed-size 256", true);
        check("gureum load offline --server a --messages 0", false);
        check("gureum load offline --server a --rate 5", false);
        check("gureum load idle --server a --devices 60000 --duration 1m", true);
        check("gureum load idle --server a --devices 60001", false);
        check("gureum load storm --server a --devices 5000 --pairs 5 --rate 100 --at-once 500", true);
        check("gureum load storm --server a --at-once 501", false);
        check("gureum load storm --server a --size 256", false);
        check("gureum load mixed --server a --people 50 --members 10 --rate 5 --away-every 0s", true);
        check("gureum load mixed --server a --away-for 6s", false);
        check("gureum load mixed --server a --people 1", false);
    }
}
