//! The Gureum server: stores end-to-end encrypted messages for three days, relays them at once to devices that are
//! connected, and keeps all of an account's devices in step.
//!
//! The pure parts (`session`, `router`'s plan, `store`'s records and memory backend) need no feature; everything
//! with a socket, a disk or MLS is behind `node`.

mod checked;
mod fault;
pub mod inbox;
pub mod limits;
pub mod phone_hash;
pub mod push;
pub mod router;
pub mod session;
pub mod store;
pub mod time;
pub mod wake;

#[cfg(feature = "node")]
pub mod account;
#[cfg(feature = "node")]
mod admin;
#[cfg(feature = "node")]
pub mod backup;
#[cfg(feature = "node")]
pub mod bare;
#[cfg(feature = "node")]
pub mod check;
#[cfg(feature = "node")]
pub mod config;
#[cfg(feature = "node")]
mod conn;
#[cfg(feature = "node")]
mod control;
#[cfg(feature = "node")]
mod directory;
#[cfg(feature = "node")]
mod files;
#[cfg(feature = "node")]
mod https;
#[cfg(feature = "node")]
pub mod invite;
#[cfg(feature = "node")]
mod linking;
#[cfg(feature = "node")]
mod listen;
#[cfg(feature = "node")]
mod metrics;
#[cfg(feature = "node")]
mod mls;
#[cfg(feature = "node")]
pub mod node;
#[cfg(feature = "node")]
mod numbers;
#[cfg(feature = "node")]
mod pace;
#[cfg(feature = "node")]
mod quota;
#[cfg(feature = "node")]
mod requests;
#[cfg(feature = "node")]
pub mod seal;
#[cfg(feature = "node")]
mod sms;
#[cfg(feature = "node")]
mod tls;
#[cfg(feature = "node")]
pub mod work;
