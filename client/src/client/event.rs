//! What a session tells whoever started it.

use std::time::Duration;

use super::error::ClientError;
use crate::vault::SentMessage;

/// Something that happened in a session. What the inbox brought is not in here but among the unreported events of
/// the database, where it survives a crash of whoever was to hear it.
#[derive(Debug)]
pub enum ClientEvent {
    /// The connection stands and has proven itself.
    Connected,
    /// There are unreported events.
    News,
    /// Everything that had waited in the inbox is taken and acked, everything that had waited in the outbox is sent, and
    /// changes of groups that were kept are made, as far as they can be now.
    CaughtUp,
    /// A message of this device is on the server's disk. A receipt for it may be among the unreported events already.
    Sent(SentMessage),
    /// The connection is gone; the next attempt follows by itself.
    Disconnected {
        /// Why.
        error: ClientError,
        /// When the next attempt begins.
        retry_in: Duration,
    },
    /// The session is over; nothing follows.
    Stopped(ClientError),
}
