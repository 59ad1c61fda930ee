//! The arguments of the commands by which people talk.

use clap::Args as ClapArgs;
use gureum_client::vault::Target;
use gureum_proto::{Handle, Phone, ServerUrl};

use super::phone::ProofArgs;

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum register 'gureum://127.0.0.1:4433/invite/Zm9v#AAAA…' --handle alice --device-name laptop
  gureum register --server 'gureum://127.0.0.1:4433#AAAA…' --phone '+82 10 1234 5678' --handle alice

Quote the address: the shell would take # for a comment. The recovery words are shown once and kept nowhere: write \
them down. After a failure the same command goes on where it stopped.

With --phone a code is sent to the number and asked for (one line of standard input), unless --code has it. The number moves \
to the new account, whoever had it before; with the handle of that account as well, that one ends.")]
pub(crate) struct RegisterArgs {
    /// The invite: gureum://HOST:PORT/invite/TOKEN#PIN; of a server that is open to anybody, its address
    #[arg(value_name = "INVITE_URL", required_unless_present = "server")]
    pub(crate) invite: Option<ServerUrl>,

    /// Instead of an invite, the server that is open to anybody, or where a phone number is enough: HOST:PORT#PIN, with
    /// gureum:// before it or without
    #[arg(long, value_name = "ADDRESS[#PIN]", conflicts_with = "invite")]
    pub(crate) server: Option<ServerUrl>,

    /// The phone number that the account is to have, with + and its country code
    #[arg(long, value_name = "NUMBER")]
    pub(crate) phone: Option<Phone>,

    #[command(flatten)]
    pub(crate) proof: ProofArgs,

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
  gureum send 'Book club' 'Chapter 3 by Sunday'
  date | gureum send bob -

Succeeds when the server has the message on disk.")]
pub(crate) struct SendArgs {
    /// Whom it is for: a handle, a phone number, or a group's name or id
    pub(crate) to: Target,

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
    /// Only the conversation with this handle or phone number, or of this group
    pub(crate) with: Option<Target>,

    /// The newest so many entries
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) limit: u32,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  gureum chat bob

Ends with Ctrl-D or Ctrl-C. What is typed while the server is away goes out when it is back. On a terminal the others \
see that you type: see gureum settings.")]
pub(crate) struct ChatArgs {
    /// Whom to talk to: a handle, a phone number, or a group's name or id
    pub(crate) with: Target,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  gureum read bob

Takes what waits in the inbox first (`gureum receive` prints it later). Whoever wrote to you is told, unless receipts \
are off: see gureum settings. `gureum chat` does the same for what it shows.")]
pub(crate) struct ReadArgs {
    /// The other one's handle or phone number, or a group's name or id
    pub(crate) with: Target,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  gureum restart bob

The server has gone back to before what this device has seen: either its operator restored a backup, or somebody \
tampers with it, who may have stolen older keys of one of you. Ask the operator, and compare `gureum safety-number bob` \
with bob, before you run this. It takes what came and prints it, makes new keys for this device on top of the server's \
state, and goes on from there; what you had sent and the server has lost is not sent again. The other one decides for \
their own devices, by the same command: until then they may not be able to read what you send.")]
pub(crate) struct RestartArgs {
    /// The other one's handle, or the group's name or id
    pub(crate) with: Target,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct WithArgs {
    /// A handle, a phone number, or a group's name or id
    pub(crate) with: Target,
}
