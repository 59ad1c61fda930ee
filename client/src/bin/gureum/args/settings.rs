//! The arguments of `gureum settings`.

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum settings
  gureum settings receipts off

In a group of more than 32 people there are no receipts, and in one of more than 64 nobody sees who types.")]
pub(crate) struct SettingsArgs {
    #[command(subcommand)]
    pub(crate) change: Option<Setting>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Setting {
    /// Whether others are told what has come and what you have read, and you of them [default: on]
    Receipts {
        /// On or off
        value: Switch,
    },
    /// Whether others see that you type, and you that they do [default: on]
    Typing {
        /// On or off
        value: Switch,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}
