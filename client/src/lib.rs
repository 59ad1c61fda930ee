//! Gureum's reference client: a device's connection, its encrypted database, and what keeps the two in step.

mod client;
mod limits;
mod link;

pub use link::{Dialer, Link, LinkError, LinkEvent, LinkEvents, Unproven};
