//! The integration tests: the story that must hold, told by the real programs, and everything that may not break it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails may panic")]

mod abuse;
mod alarms;
mod away;
mod backup;
mod check;
mod cli;
mod clock;
mod commits;
mod compaction;
mod crash;
mod damage;
mod delivery;
mod disk;
mod expiry;
mod expiry_scale;
mod gone_back;
mod groups;
mod keys;
mod kill;
mod metrics;
mod network;
mod papers;
mod peers;
mod power;
mod proof;
mod restart;
mod retention;
mod revoke;
mod secrecy;
mod simulation;
mod soak;
mod start;
mod talk;
mod tidy;
mod wakes;
