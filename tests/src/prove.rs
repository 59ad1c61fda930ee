//! Proofs at scale, each a function that returns what it saw or panics with what broke. The tests run them small, the
//! program `prove` runs them as large as one likes.

pub mod books;
pub mod contention;
pub mod cost;
pub mod crash;
pub mod crowd;
pub mod devices;
pub mod disk;
pub mod expiry;
pub mod fleet;
mod good;
pub mod groups;
pub mod homes;
pub mod keys;
pub mod kill;
pub mod network;
pub mod peers;
pub mod power;
pub mod process;
pub mod push;
pub mod raw;
pub mod reclaim;
pub mod soak;
