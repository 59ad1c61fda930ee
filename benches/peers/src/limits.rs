//! The bounds of the driver, each with its reason.

use std::time::Duration;

/// Room for one read: a few records of TLS.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// Accepted messages of one pair that its receiver has not seen: the sender waits beyond it, so that no peer is
/// charged for a queue that only its own client makes.
pub(crate) const LAG_MAX: u64 = 4_096;

/// How long a sender that waits for its receiver sleeps: no peer is held up by that, since its queue is full then.
pub(crate) const LAG_PAUSE: Duration = Duration::from_millis(1);

/// How long the last answers and messages may take after the last send.
pub(crate) const TAIL: Duration = Duration::from_secs(20);

/// How long a server may take to answer on its port. ejabberd takes seconds.
pub(crate) const START: Duration = Duration::from_secs(60);

/// How long a server may take to end by itself.
pub(crate) const STOP: Duration = Duration::from_secs(15);

/// How long a connection may take to be ready.
pub(crate) const LOGIN: Duration = Duration::from_secs(30);

/// Connections that are made at the same time.
pub(crate) const DIALS_MAX: usize = 16;

/// How long an absent receiver's store and drain may take, each.
pub(crate) const DRAIN: Duration = Duration::from_secs(600);

/// Messages that ejabberd stores for an absent receiver: Mnesia keeps those of an account in one bag, where each costs
/// more than the one before (1.4 ms of processor at 5,000, so that 100,000 would take most of an hour).
pub(crate) const XMPP_ABSENT_MAX: u64 = 10_000;

/// Unanswered messages while the store for an absent receiver is filled.
pub(crate) const STORE_WINDOW: u64 = 256;

/// Entries of a Redis stream: more than its receiver can lag behind.
pub(crate) const REDIS_ENTRIES_MAX: u64 = 4 * LAG_MAX;

/// Messages that Redis gives at once.
pub(crate) const REDIS_READ_COUNT: u64 = 256;

/// Messages that JetStream sends without an ack.
pub(crate) const NATS_ACK_PENDING_MAX: u64 = 4 * LAG_MAX;

/// Bytes of the JetStream stream, the oldest go first.
pub(crate) const NATS_STREAM_BYTES_MAX: u64 = 4 << 30;

/// Packet size of MQTT: far above any body here.
pub(crate) const MQTT_BYTES_MAX: usize = 1 << 20;
