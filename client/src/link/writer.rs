//! The way out of a session stream: frames pile up while a write is under way, and leave as one.

use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use gureum_proto::{Position, Send, put_ack, put_send};
use quinn::SendStream;
use tokio::sync::Notify;

use super::error::LinkError;
use crate::limits::OUTGOING_BYTES_MAX;

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    queue: Mutex<Queue>,
    grown: Notify,
    finished: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    frames: BytesMut,
    ack: Option<Position>,
    finish: bool,
}

impl Outgoing {
    /// Queues sends, all or none.
    pub(super) fn sends(&self, sends: &[Send]) -> Result<(), LinkError> {
        {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.frames.len() >= OUTGOING_BYTES_MAX {
                return Err(LinkError::Full);
            }
            for send in sends {
                put_send(send, &mut queue.frames);
            }
        }
        self.grown.notify_one();
        Ok(())
    }

    /// Queues an ack; acks are cumulative, so that only the furthest is written.
    pub(super) fn ack(&self, position: Position) {
        {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.ack = queue.ack.max(Some(position));
        }
        self.grown.notify_one();
    }

    /// Ends the stream once everything is written.
    pub(super) fn finish(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).finish = true;
        self.grown.notify_one();
    }

    /// Waits until the peer has everything, or the stream is gone.
    pub(super) async fn wait_until_finished(&self) {
        self.finished.notified().await;
    }

    fn take(&self) -> (Bytes, bool) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ack) = queue.ack.take() {
            put_ack(ack, &mut queue.frames);
        }
        (queue.frames.split().freeze(), queue.finish)
    }

    /// Writes whatever is queued until the stream ends.
    pub(super) async fn write(&self, mut stream: SendStream) {
        loop {
            let (frames, finish) = self.take();
            if !frames.is_empty() {
                if stream.write_chunk(frames).await.is_err() {
                    break;
                }
            } else if finish {
                if stream.finish().is_ok() {
                    let _ = stream.stopped().await;
                }
                break;
            } else {
                self.grown.notified().await;
            }
        }
        self.finished.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use gureum_proto::{ClientFrame, ConversationId};
    use gureum_wire::Decoder;

    use super::*;

    fn send(counter: u64, bytes: usize) -> Send {
        let conversation = ConversationId::from_bytes([1; 16]);
        Send { counter, conversation, epoch: 1, ciphertext: vec![0; bytes].into(), silent: false }
    }

    fn written(outgoing: &Outgoing) -> Vec<ClientFrame> {
        let mut decoder = Decoder::new();
        decoder.push(outgoing.take().0);
        std::iter::from_fn(|| decoder.next().unwrap()).map(|frame| ClientFrame::decode(frame).unwrap()).collect()
    }

    #[test]
    fn sends_leave_together_and_acks_as_the_furthest_one() {
        let outgoing = Outgoing::default();
        outgoing.sends(&[send(1, 10), send(2, 10)]).unwrap();
        for seq in [3, 9, 4] {
            outgoing.ack(Position { seq, count: seq });
        }
        let frames = written(&outgoing);
        let [ClientFrame::Send(first), ClientFrame::Send(second), ClientFrame::Ack(ack)] = frames.as_slice() else {
            panic!("{frames:?}")
        };
        assert_eq!((first.counter, second.counter, ack.seq), (1, 2, 9));
        assert!(written(&outgoing).is_empty());
    }

    #[test]
    fn takes_no_more_than_its_bound_until_it_is_written() {
        let outgoing = Outgoing::default();
        let mut counter = 0;
        while outgoing.sends(&[send(counter + 1, 60_000)]).is_ok() {
            counter += 1;
            assert!(counter < 1_000, "unbounded");
        }
        assert_eq!(outgoing.sends(&[send(counter + 1, 1)]), Err(LinkError::Full));
        outgoing.take();
        assert_eq!(outgoing.sends(&[send(counter + 1, 1)]), Ok(()));
    }
}
