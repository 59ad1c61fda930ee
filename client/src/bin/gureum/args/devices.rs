//! The arguments of the commands by which a person's devices come and go.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::{LinkCode, ServerUrl};

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  gureum link 'gureum://127.0.0.1:4433#AAAA…' --device-name tablet

Shows a code, as a picture and as text, and waits until `gureum devices approve CODE` is run on a device that the \
account has. Both then show the same six digits: compare them. The code serves once, and whoever sees it can offer this \
device another account. After an interruption the same command goes on with the same code.

With --history the other device also hands over what was said before, encrypted. That takes as long as both are connected; \
Ctrl-C ends the wait, and later commands take the rest.")]
pub(crate) struct LinkArgs {
    /// The account's server: gureum://HOST:PORT#PIN
    #[arg(value_name = "SERVER_URL")]
    pub(crate) server: ServerUrl,

    /// A name for this device [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) device_name: Option<String>,

    /// Ask for what was said before, and wait until it is here
    #[arg(long)]
    pub(crate) history: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum devices
  gureum devices approve GLAEIR…
  gureum devices revoke tablet")]
pub(crate) struct DevicesArgs {
    #[command(subcommand)]
    pub(crate) command: Option<DevicesCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DevicesCommand {
    /// Add the device that shows this code to the account
    Approve(ApproveArgs),
    /// Cut a device off, and remove it from every conversation
    Revoke(RevokeArgs),
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Shows six digits, and on a terminal asks whether the new device shows the same. If it shows others, say no.

Where the history is handed over, because the new device asks for it or by --history, this command waits until it is there; \
Ctrl-C ends the wait, and later commands of the two go on with it.")]
pub(crate) struct ApproveArgs {
    /// What the new device shows
    pub(crate) code: LinkCode,

    /// A name for the new device [default: the one that it has]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Hand over what was said before, also where the new device has not asked for it, and wait until it is there
    #[arg(long)]
    pub(crate) history: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Whatever is said from then on, the device cannot read. It keeps what it has. It does not come back: to use it again, link \
it from a new home.")]
pub(crate) struct RevokeArgs {
    /// Its name, its id, or how its id begins
    #[arg(value_name = "NAME|ID")]
    pub(crate) device: String,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  gureum --home ~/new recover 'gureum://127.0.0.1:4433#AAAA…'

Asks for the twelve recovery words (one line on standard input). All devices that the account had are revoked, this one is \
added, and it joins the account's conversations. What was said before stays with the devices that are lost.")]
pub(crate) struct RecoverArgs {
    /// The account's server: gureum://HOST:PORT#PIN
    #[arg(value_name = "SERVER_URL")]
    pub(crate) server: ServerUrl,

    /// A name for this device [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) device_name: Option<String>,
}
