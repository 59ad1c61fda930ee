//! A device's QUIC connection to its server: dial, register, prove, then frames in and out.

mod bounds;
mod dial;
mod error;
mod session;
mod sockets;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use gureum_proto::{
    Code, DeliveryFrame, FrameContentError, Notice, PhoneNotice, Position, Request, Response, Send, Sent, Typing,
};
use gureum_wire::{Decoder, Frame};
use quinn::{Connection, Endpoint, RecvStream, VarInt};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

pub use dial::{Dialer, Linking, Unproven};
pub use error::LinkError;
pub use sockets::{NetworkFuture, Sockets};
pub(crate) use sockets::{SystemSockets, any_port};

use crate::limits::{CLOSE_TIMEOUT, REQUEST_TIMEOUT};
use writer::Outgoing;

/// A proven connection. Dropping it closes the connection at once; [`Link::close`] lets what is written arrive.
#[derive(Debug)]
pub struct Link {
    connection: Connection,
    endpoint: Endpoint,
    outgoing: Arc<Outgoing>,
    tasks: TaskTracker,
}

/// What the server says on a [`Link`].
#[derive(Debug)]
pub enum LinkEvent {
    /// Entries of the inbox, as many as had come.
    Delivery(Vec<DeliveryFrame>),
    /// Results of sends.
    Sent(Vec<Sent>),
    /// The server is about to stop.
    Drain {
        /// How long to stay away.
        come_back: Duration,
    },
    /// Others have claimed KeyPackages of this device.
    Notice(Notice),
    /// The account's phone number has moved, or somebody has tried.
    Phone(PhoneNotice),
    /// Somebody types. Only of a link that subscribes, and one that finds no room is dropped.
    Typing(Typing),
    /// The connection is gone; nothing follows.
    Closed(LinkError),
}

/// The receiving half of a [`Link`]; bounded, so that one who does not read slows the server down.
#[derive(Debug)]
pub struct LinkEvents {
    events: mpsc::Receiver<LinkEvent>,
}

impl LinkEvents {
    /// The next event; [`LinkEvent::Closed`] again and again once the connection is gone.
    ///
    /// Cancel safety: an event is either returned or still queued.
    pub async fn next(&mut self) -> LinkEvent {
        self.events.recv().await.unwrap_or_else(|| LinkEvent::Closed(LinkError::Lost("it has ended".to_owned())))
    }

    /// An event that has come already, if there is one.
    pub fn ready(&mut self) -> Option<LinkEvent> {
        self.events.try_recv().ok()
    }
}

impl Link {
    /// Queues sends; they leave together in as few packets as they fit in.
    ///
    /// # Errors
    /// [`LinkError::Full`] when more is queued than a server lets be in flight; the caller waits for answers first.
    pub fn send(&self, sends: &[Send]) -> Result<(), LinkError> {
        self.outgoing.sends(sends)
    }

    /// Tells the server that everything up to a position is stored. A later one replaces one not yet written.
    pub fn ack(&self, position: Position) {
        self.outgoing.ack(position);
    }

    /// Says that this device's person types, or has stopped. It may be lost on the way.
    pub fn typing(&self, typing: &Typing) {
        let _ = self.connection.send_datagram(typing.encode());
    }

    /// Asks on a stream of its own.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with the server's reason, a time-out, or the end of the connection.
    pub async fn request(&self, request: &Request) -> Result<Response, LinkError> {
        self.request_within(request, REQUEST_TIMEOUT).await
    }

    /// As [`Self::request`], where the server may take longer than usual.
    pub(crate) async fn request_within(&self, request: &Request, within: Duration) -> Result<Response, LinkError> {
        match tokio::time::timeout(within, self.exchange(request)).await {
            Ok(Ok(Response::Refused(refusal))) => Err(LinkError::Refused(refusal)),
            Ok(answer) => answer,
            Err(_) => Err(LinkError::Timeout("the answer to a request")),
        }
    }

    async fn exchange(&self, request: &Request) -> Result<Response, LinkError> {
        let (mut send, mut recv) = self.connection.open_bi().await?;
        let mut out = BytesMut::new();
        request.put(&mut out);
        send.write_chunk(out.freeze()).await?;
        // A server that has answered already may have stopped reading: its answer counts.
        let _ = send.finish();
        let frame = read_frame(&mut recv, &mut Decoder::new()).await?;
        Ok(Response::decode(frame)?)
    }

    /// Ends the connection after everything written has arrived, or after a moment.
    pub async fn close(self) {
        self.outgoing.finish();
        self.tasks.close();
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.outgoing.wait_until_finished()).await;
        self.connection.close(VarInt::from_u32(Code::Done.number()), b"");
        // The close leaves with the endpoint's next turn; the draining period after it needs no witness.
        let _ = tokio::time::timeout(Duration::from_millis(5), self.endpoint.wait_idle()).await;
    }
}

/// The streams' own handles keep a connection alive: closing must not depend on them. The writer looks at its queue
/// alone, and has to be told.
impl Drop for Link {
    fn drop(&mut self) {
        self.outgoing.finish();
        self.connection.close(VarInt::from_u32(Code::Done.number()), b"");
    }
}

/// The next frame of a stream.
async fn read_frame(stream: &mut RecvStream, decoder: &mut Decoder) -> Result<Frame, LinkError> {
    loop {
        if let Some(frame) = decoder.next()? {
            return Ok(frame);
        }
        match stream.read_chunk(crate::limits::READ_BYTES, true).await? {
            Some(chunk) => decoder.push(chunk.bytes),
            // A process that ends lets go of its streams, and they end wherever they stand.
            None => return Err(LinkError::Lost("a stream ended before its answer".to_owned())),
        }
    }
}

impl From<FrameContentError> for LinkError {
    fn from(error: FrameContentError) -> Self {
        Self::Malformed(error.to_string())
    }
}
