//! Every bound of the client, with the reason for each.

use std::time::Duration;

use gureum_proto::limits::{CIPHERTEXT_BYTES_MAX, SENDS_IN_FLIGHT_MAX};

// ---- connection -----------------------------------------------------------------------------------------

/// Time to resolve, dial and finish the handshake: several round trips of the slowest mobile network.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the first answer on a new connection.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the answer to a request.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for what is written to arrive when a connection is closed.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_millis(100);
/// NAT bindings for UDP die at about 30 s.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Three keep-alives lost in a row are a lost connection.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Addresses of one host name that are tried.
pub(crate) const ADDRESSES_MAX: usize = 4;
/// Unread bytes of one stream: the largest frame needs more, and gets it as it is read.
pub(crate) const STREAM_RECEIVE_BYTES: u32 = 256 * 1024;
/// Unread bytes of all streams.
pub(crate) const CONNECTION_RECEIVE_BYTES: u32 = 1024 * 1024;
/// Bytes sent and not yet acknowledged.
pub(crate) const CONNECTION_SEND_BYTES: u64 = 1024 * 1024;
/// Unidirectional streams that a server may open; it needs one.
pub(crate) const DELIVERY_STREAMS_MAX: u32 = 4;
/// Bytes taken from a stream at once where one frame is expected.
pub(crate) const READ_BYTES: usize = 64 * 1024;
/// Chunks taken from a stream at once; below the decoder's own bound of 64.
pub(crate) const READ_CHUNKS: usize = 32;
/// Events of a connection that wait for their reader; each holds at most [`READ_CHUNKS`] packets' frames.
pub(crate) const LINK_EVENTS_MAX: usize = 16;
/// Bytes that wait to be written: as many sends as may be in flight, at their longest.
pub(crate) const OUTGOING_BYTES_MAX: usize = SENDS_IN_FLIGHT_MAX as usize * CIPHERTEXT_BYTES_MAX;
/// The longest that a stopping server may send its clients away for.
pub(crate) const COME_BACK_MAX: Duration = Duration::from_secs(300);

const _: () = assert!(READ_CHUNKS <= gureum_wire::limits::UNREAD_CHUNKS_MAX);

// ---- reconnecting ---------------------------------------------------------------------------------------

/// The first wait before connecting again, before jitter.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// The longest wait before connecting again, before jitter.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A connection that lasted this long was a good one: the next wait is the first one again.
pub(crate) const BACKOFF_RESET: Duration = Duration::from_secs(10);
