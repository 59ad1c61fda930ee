//! The arguments of `gureum phone`, and those by which an account is made for a phone number.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::{Otp, Phone};

use super::settings::Switch;

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum phone
  gureum phone set '+82 10 1234 5678' --findable
  gureum phone lock --pin-file ~/pin
  gureum phone findable off

A number has one account: whoever proves it by a code takes it over. A lock keeps it from moving without its PIN, as long as \
one of the account's devices is in use and for 7 days after.")]
pub(crate) struct PhoneArgs {
    #[command(subcommand)]
    pub(crate) command: Option<PhoneCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PhoneCommand {
    /// Print the account's number, as far as this device knows
    Show,
    /// Give the account a number, in the place of the one that it has
    Set {
        /// The number, with + and its country code
        phone: Phone,
        #[command(flatten)]
        proof: ProofArgs,
    },
    /// Take the account's number away
    Remove,
    /// Whether others may find the account by its number [default: off]
    Findable {
        /// On or off
        value: Switch,
    },
    /// Lock the number with a PIN
    Lock {
        /// File with the PIN, 4 to 64 bytes on one line; - reads a line of standard input
        #[arg(long, value_name = "FILE")]
        pin_file: PathBuf,
    },
    /// Take the lock away
    Unlock,
}

/// How a number is proven, and what becomes of it.
#[derive(Debug, ClapArgs)]
pub(crate) struct ProofArgs {
    /// The code, if it is there already: none is asked for then
    #[arg(long, value_name = "CODE", requires = "phone")]
    pub(crate) code: Option<Otp>,

    /// File with the PIN of the number's registration lock (- reads a line of standard input): it opens the lock of the
    /// account that has the number now, and locks it for this one
    #[arg(long, value_name = "FILE", requires = "phone")]
    pub(crate) pin_file: Option<PathBuf>,

    /// Let others find the account by the number [default: as before; at first they don't]
    #[arg(long, requires = "phone")]
    pub(crate) findable: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::args::Args;

    #[track_caller]
    fn check(words: &[&str], fits: bool) {
        let line = Args::try_parse_from([&["gureum", "phone"][..], words].concat());
        assert_eq!(line.is_ok(), fits, "{words:?}: {line:?}");
    }

    #[test]
    fn takes_what_the_help_shows_and_refuses_what_makes_no_sense() {
        check(&[], true);
        check(&["show"], true);
        check(&["set", "+82 10-1234-5678", "--findable"], true);
        check(&["set", "+821012345678", "--code", "012345", "--pin-file", "-"], true);
        check(&["set", "821012345678"], false);
        check(&["set", "+821012345678", "--code", "12345"], false);
        check(&["set"], false);
        check(&["findable", "on"], true);
        check(&["findable"], false);
        check(&["lock", "--pin-file", "pin"], true);
        check(&["lock"], false);
        check(&["unlock"], true);
        check(&["remove", "+821012345678"], false);
    }
}
