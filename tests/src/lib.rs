//! A world to test Gureum in: the real binaries on loopback, people with homes, and a client that breaks every rule.
//!
//! Everything panics with what it saw when the world is not as a test needs it: a test that cannot go on has failed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "only tests use this crate"
)]

pub mod admin;
pub mod alarm;
mod altered;
pub mod child;
pub mod device;
pub mod disk;
pub mod liar;
pub mod linking;
pub mod netns;
pub mod operator;
pub mod outside;
pub mod person;
pub mod prove;
pub mod push;
pub mod raw;
pub mod relay;
pub mod sim;
mod skip;
pub mod wait;
pub mod world;

pub use person::Person;
pub use world::{Options, World};
