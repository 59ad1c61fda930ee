//! Gureum's reference client: a device's connection, its encrypted database, and what keeps the two in step.

mod client;
mod e2ee;
mod ground;
mod identity;
mod limits;
mod link;
pub mod load;
pub mod vault;
mod words;

pub use client::{
    Client, ClientError, ClientEvent, ClientSession, GroupAnswer, GroupCommand, Inbox, NewAccount, PendingSend,
    Registration, SessionCommands, SessionOptions,
};
pub use ground::{Clock, Ground, Work};
pub use limits::TEXT_BYTES_MAX;
pub use link::{Dialer, Link, LinkError, LinkEvent, LinkEvents, NetworkFuture, Sockets, Unproven};

/// Holds the example of the client's guide to the code.
#[cfg(doctest)]
#[doc = include_str!("../../docs/client.md")]
struct Guide;
