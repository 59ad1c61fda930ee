//! What a client says to a peer, without the connection: bytes in, bytes out. The loops around it are the same for
//! all peers, so that what differs is the peer.

pub(crate) mod mqtt;
pub(crate) mod nats;
pub(crate) mod redis;
pub(crate) mod xmpp;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use crate::limits::LOGIN;
use crate::line::{Dial, Line};
use crate::peer::Protocol;

/// Which of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Sender,
    Receiver,
}

/// What came in.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Messages that the server took over since the last look.
    pub(crate) accepted: u64,
    /// Messages that came.
    pub(crate) bodies: Vec<Bytes>,
}

/// One side of a protocol, logged in.
pub(crate) trait Wire: Send {
    /// Writes one message.
    fn send(&mut self, body: &[u8], output: &mut BytesMut) -> anyhow::Result<()>;

    /// After the messages that go out together.
    fn sent(&mut self, _output: &mut BytesMut) {}

    /// Takes all that is complete from the input, and answers what wants an answer: what came together is acked
    /// together.
    fn take(&mut self, input: &mut BytesMut, output: &mut BytesMut, seen: &mut Seen) -> anyhow::Result<()>;

    /// So many messages must be kept, where the sender says how many are.
    fn keep(&mut self, _messages: u64) {}

    /// Leaves so that the server knows it.
    fn leave(&mut self, _output: &mut BytesMut) {}
}

/// A connection that is ready to send or to receive.
pub(crate) struct Link {
    pub(crate) line: Line,
    pub(crate) wire: Box<dyn Wire>,
}

impl Link {
    /// Connects and logs in. A receiver is one that the server keeps messages for from then on.
    pub(crate) async fn open(dial: &Dial, protocol: Protocol, role: Role, pair: usize) -> anyhow::Result<Self> {
        timeout(LOGIN, Box::pin(open(dial, protocol, role, pair))).await?
    }

    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        self.wire.leave(&mut self.line.output);
        timeout(LOGIN, self.line.close()).await?
    }
}

async fn open(dial: &Dial, protocol: Protocol, role: Role, pair: usize) -> anyhow::Result<Link> {
    let mut line = dial.connect().await?;
    let wire: Box<dyn Wire> = match protocol {
        Protocol::Mqtt => Box::new(mqtt::login(&mut line, role, pair).await?),
        Protocol::Nats => Box::new(nats::login(&mut line, role, pair).await?),
        Protocol::Redis => Box::new(redis::login(&mut line, role, pair).await?),
        Protocol::Xmpp => Box::new(xmpp::login(&mut line, role, pair).await?),
    };
    Ok(Link { line, wire })
}
