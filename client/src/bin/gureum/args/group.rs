//! The arguments of `gureum group`.

use clap::{Args as ClapArgs, Subcommand};
use gureum_client::vault::{NoTarget, Target};
use gureum_proto::Handle;

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum group create 'Book club' bob carol
  gureum send 'Book club' 'Chapter 3 by Sunday'
  gureum group add 'Book club' dave
  gureum group show 'Book club'

GROUP is a group's name or its id. Each command ends when the server has accepted it. What cannot be done for one of \
WHO is said, with exit code 1, and the rest is done.")]
pub(crate) struct GroupArgs {
    #[command(subcommand)]
    pub(crate) action: GroupAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupAction {
    /// Make a group, and be its admin
    Create {
        /// What it is called: 1 to 128 bytes on one line
        #[arg(value_parser = group_name)]
        name: String,
        /// The handles of whom to add
        #[arg(required = true)]
        who: Vec<Handle>,
    },
    /// Add people to a group, which its admins may: they read what is said from then on
    Add {
        /// Which group
        group: Target,
        /// The handles of whom to add
        #[arg(required = true)]
        who: Vec<Handle>,
    },
    /// Remove people from a group, which its admins may: they read nothing that is said from then on
    Remove {
        /// Which group
        group: Target,
        /// The handles of whom to remove
        #[arg(required = true)]
        who: Vec<Handle>,
    },
    /// Leave a group. When no admin is left, everybody in it is one
    Leave {
        /// Which group
        group: Target,
    },
    /// Give a group another name, which its admins may
    Rename {
        /// Which group
        group: Target,
        /// What it is to be called: 1 to 128 bytes on one line
        #[arg(value_parser = group_name)]
        name: String,
    },
    /// Make people admins of a group, which its admins may
    Admin {
        /// Which group
        group: Target,
        /// The handles of whom
        #[arg(required = true)]
        who: Vec<Handle>,
        /// They are to be admins no more
        #[arg(long)]
        revoke: bool,
    },
    /// Print the groups of this account
    List,
    /// Print who is in a group
    Show {
        /// Which group
        group: Target,
    },
}

fn group_name(text: &str) -> Result<String, NoTarget> {
    text.parse::<Target>().map(|name| name.to_string())
}
