//! Gureum's reference client: a device's connection, its encrypted database, and what keeps the two in step.

mod client;
mod e2ee;
mod ground;
mod identity;
mod limits;
mod link;
pub mod load;
pub mod vault;
mod web_push;
mod words;

pub use client::{
    AddedDevice, Approval, Client, ClientError, ClientEvent, ClientSession, Device, GroupAnswer, GroupCommand, Inbox,
    LinkSession, LinkStep, NewAccount, NewDevice, NewPhone, PendingSend, Pin, PinError, Registration, Revoked,
    SessionCommands, SessionOptions,
};
pub use ground::{Clock, Ground, Work};
pub use limits::TEXT_BYTES_MAX;
pub use link::{Dialer, Link, LinkError, LinkEvent, LinkEvents, Linking, NetworkFuture, Sockets, Unproven};
pub use web_push::{PushReceiver, VapidError, WakeUp, WakeUpError, check_vapid, is_p256dh};
pub use words::WordsError;

/// Holds the example of the client's guide to the code.
#[cfg(doctest)]
#[doc = include_str!("../../docs/client.md")]
struct Guide;
