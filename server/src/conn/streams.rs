//! The two sides of a stream: what has come is read at once; frames that leave are gathered, and written as far as the
//! client takes them.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use gureum_proto::{Code, DeliveryFrame, put_envelope};
use gureum_wire::Decoder;
use quinn::{ReadError, RecvStream, SendStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Closing;
use crate::limits::{READ_BYTES_MAX, READ_CHUNKS_MAX};
use crate::session::{Item, Page};
use crate::store::StoreError;

#[cfg(test)]
mod tests;

pub(super) struct Outgoing {
    stream: SendStream,
    /// Frames gathered since the last write began.
    buffer: BytesMut,
    /// What the client has not taken yet of those before. The transport keeps pieces of it until they have arrived, and
    /// copies nothing.
    leaving: Bytes,
    /// When the client last took something, or the buffer began to fill.
    progress_at: Instant,
}

impl Outgoing {
    pub(super) fn new(stream: SendStream) -> Self {
        Self { stream, buffer: BytesMut::new(), leaving: Bytes::new(), progress_at: Instant::now() }
    }

    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        if self.buffered() == 0 {
            self.progress_at = Instant::now();
        }
        &mut self.buffer
    }

    /// Since when the client has taken nothing of what is there for it.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        (self.buffered() > 0).then_some(self.progress_at)
    }

    pub(super) fn buffered(&self) -> usize {
        self.buffer.len() + self.leaving.len()
    }

    /// Writes as much as the client takes now.
    ///
    /// Cancel safety: what was not written is still there.
    pub(super) async fn write(&mut self) -> Result<(), Closing> {
        if self.leaving.is_empty() {
            // The whole buffer, not a part split off: an idle connection holds no memory for what it wrote once.
            self.leaving = std::mem::take(&mut self.buffer).freeze();
        }
        let leaving = std::slice::from_mut(&mut self.leaving);
        self.stream.write_chunks(leaving).await.map_err(|_| Closing(Code::Done, String::new()))?;
        self.progress_at = Instant::now();
        Ok(())
    }

    /// Writes what the client takes just now, without waiting for more room; says whether it took anything.
    pub(super) async fn write_now(&mut self) -> Result<bool, Closing> {
        if self.buffered() == 0 {
            return Ok(false);
        }
        poll_fn(|context| match pin!(self.write()).poll(context) {
            Poll::Ready(written) => Poll::Ready(written.map(|()| true)),
            Poll::Pending => Poll::Ready(Ok(false)),
        })
        .await
    }
}

/// Hands a decoder what has come of a stream, and says how many bytes; `None` at its end. A packet brings a piece of its own,
/// and what is read together is submitted, answered and acked together.
///
/// Cancel safety: a cancelled call has taken nothing.
pub(super) async fn read(input: &mut RecvStream, decoder: &mut Decoder) -> Result<Option<usize>, ReadError> {
    poll_fn(|context| {
        let mut bytes = 0;
        for _ in 0..READ_CHUNKS_MAX {
            match pin!(input.read_chunk(READ_BYTES_MAX - bytes, true)).poll(context) {
                Poll::Ready(Ok(Some(chunk))) => {
                    bytes += chunk.bytes.len();
                    decoder.push(chunk.bytes);
                    if bytes >= READ_BYTES_MAX {
                        break;
                    }
                }
                // How the stream has ended, the next call is told again.
                _ if bytes > 0 => break,
                Poll::Ready(end) => return Poll::Ready(end.map(|_| None)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(Some(bytes)))
    })
    .await
}

/// Whether there is something to deliver.
pub(super) fn has_output(delivery: Option<&Outgoing>) -> bool {
    delivery.is_some_and(|delivery| delivery.buffered() > 0)
}

/// Writes to the delivery stream; says whether everything is written.
///
/// Cancel safety: as [`Outgoing::write`].
pub(super) async fn write(delivery: Option<&mut Outgoing>) -> Result<bool, Closing> {
    let Some(delivery) = delivery else { return Ok(false) };
    delivery.write().await?;
    Ok(delivery.buffered() == 0)
}

/// The result of a read of the store; `None` when it panicked.
///
/// Cancel safety: the read goes on and can be joined again.
pub(super) async fn join(
    reading: Option<&mut JoinHandle<Result<Page, StoreError>>>,
) -> Option<Result<Page, StoreError>> {
    reading?.await.ok()
}

/// Writes what goes to a delivery stream.
pub(super) fn put_items(items: &[Item], out: &mut BytesMut) {
    let bytes: usize =
        items.iter().map(|item| if let Item::Envelope { shared, .. } = item { shared.len() + 24 } else { 48 }).sum();
    out.reserve(bytes);
    for item in items {
        match item {
            Item::Envelope { position, shared } => put_envelope(*position, shared, out),
            Item::Gap(gap) => DeliveryFrame::Gap(*gap).put(out),
            Item::CaughtUp { seq } => DeliveryFrame::CaughtUp { seq: *seq }.put(out),
        }
    }
}
