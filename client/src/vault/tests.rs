//! Vaults talk to one another through a relay of values: real MLS, real SQLCipher, no network.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by a panic")]

mod attacks;
mod copies;
mod devices;
mod holds;
mod home;
mod key_packages;
mod link;
mod receipts;
mod relay;
mod restart;
mod talk;
mod typing;

use super::*;
use relay::{Person, Relay, texts};
