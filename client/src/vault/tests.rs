//! Vaults talk to one another through a relay of values: real MLS, real SQLCipher, no network.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by a panic")]

mod account;
mod attacks;
mod copies;
mod devices;
mod gone;
mod groups;
mod handed_over;
mod holds;
mod home;
mod in_step;
mod key_packages;
mod leaves;
mod link;
mod offered;
mod phone;
mod push;
mod receipts;
mod relations;
mod relay;
mod restart;
mod talk;
mod trust;
mod typing;
mod withheld;

use super::*;
use relay::{DIRECT, Person, Relay, texts};
