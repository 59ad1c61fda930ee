//! A pair that sends opaque bodies straight over its connections: the server's cost and hardly any of the client's.

use std::collections::BTreeMap;
use std::time::Duration;

use gureum_proto::{DeliveryFrame, EnvelopeBody, Position, Send, Sent};
use tokio::sync::watch;
use tokio::time::Instant;

use super::body;
use super::meter::SharedLane;
use super::pace::Pace;
use super::patience;
use super::setup::Pair;
use crate::client::ClientError;
use crate::limits::LOAD_TAIL;
use crate::link::{Link, LinkError, LinkEvent, LinkEvents};
use crate::vault::Conversation;

/// Runs a pair to its end.
pub(super) async fn run(pair: Pair, pace: Pace, lane: SharedLane, bytes: usize) -> Result<(), ClientError> {
    let (receiver_link, receiver_events, _) = patience::in_time(|| pair.receiver.link(&pair.dialer, true)).await?;
    let (sender_link, sender_events, ready) = patience::in_time(|| pair.sender.link(&pair.dialer, false)).await?;
    let (accepted, expected) = watch::channel(None);
    let sender = Sender {
        link: &sender_link,
        events: sender_events,
        pace: pace.clone(),
        lane: lane.clone(),
        conversation: pair.conversation,
        bytes,
        counter: ready.accepted_counter,
        in_flight: BTreeMap::new(),
        accepted: 0,
    };
    let receiver = receive(&receiver_link, receiver_events, pace, lane, expected);
    let sending = async {
        let result = sender.run().await;
        let _ = accepted.send(Some(*result.as_ref().unwrap_or(&0)));
        result
    };
    let (sent, received) = tokio::join!(sending, receiver);
    sender_link.close().await;
    receiver_link.close().await;
    sent?;
    received
}

struct Sender<'a> {
    link: &'a Link,
    events: LinkEvents,
    pace: Pace,
    lane: SharedLane,
    conversation: Conversation,
    bytes: usize,
    counter: u64,
    /// When each message without an answer was due.
    in_flight: BTreeMap<u64, u64>,
    accepted: u64,
}

impl Sender<'_> {
    /// Sends until the end, waits for the answers, and says how many messages the receiver must get.
    async fn run(mut self) -> Result<u64, ClientError> {
        let give_up = self.pace.end() + LOAD_TAIL;
        loop {
            self.send()?;
            let over = self.pace.is_over(Instant::now());
            if over && self.in_flight.is_empty() {
                return Ok(self.accepted);
            }
            let wake = if over { give_up } else { self.pace.wake(self.in_flight.len()).unwrap_or(self.pace.end()) };
            let event = tokio::select! {
                biased;
                event = self.events.next() => event,
                () = tokio::time::sleep_until(wake) => {
                    if over {
                        return Ok(self.accepted);
                    }
                    continue;
                }
            };
            self.on_event(event)?;
            while let Some(event) = self.events.ready() {
                self.on_event(event)?;
            }
        }
    }

    /// Everything that is due, in one write.
    fn send(&mut self) -> Result<(), LinkError> {
        let due = self.pace.due(Instant::now(), self.in_flight.len());
        if due.is_empty() {
            return Ok(());
        }
        let Conversation { id, epoch, .. } = self.conversation;
        let mut sends = Vec::with_capacity(due.len());
        for due_ns in due {
            self.counter += 1;
            self.in_flight.insert(self.counter, due_ns);
            let ciphertext = body::sealed(id, epoch, due_ns, self.bytes);
            sends.push(Send { counter: self.counter, conversation: id, epoch, ciphertext, silent: false });
        }
        self.lane.lock().sent += u64::try_from(sends.len()).unwrap_or(0);
        self.link.send(&sends)
    }

    fn on_event(&mut self, event: LinkEvent) -> Result<(), LinkError> {
        match event {
            LinkEvent::Sent(results) => {
                let now_ns = self.pace.since_start_ns(Instant::now());
                let mut lane = self.lane.lock();
                for Sent { counter, result } in results {
                    match (self.in_flight.remove(&counter), result) {
                        (Some(due_ns), Ok(_)) => {
                            self.accepted += 1;
                            lane.accepted(due_ns, now_ns);
                        }
                        (Some(_), Err(refusal)) => lane.refused(refusal.code),
                        (None, _) => (),
                    }
                }
                Ok(())
            }
            LinkEvent::Closed(error) => Err(error),
            LinkEvent::Drain { .. } => Err(LinkError::Lost("the server is stopping".to_owned())),
            LinkEvent::Delivery(_) | LinkEvent::Notice(_) | LinkEvent::Phone(_) | LinkEvent::Typing(_) => Ok(()),
        }
    }
}

/// Receives and acks until everything that was accepted has come, or some time after the end.
async fn receive(
    link: &Link,
    mut events: LinkEvents,
    pace: Pace,
    lane: SharedLane,
    mut expected: watch::Receiver<Option<u64>>,
) -> Result<(), ClientError> {
    let give_up = pace.end() + LOAD_TAIL + Duration::from_secs(1);
    let mut received = 0_u64;
    loop {
        if expected.borrow().is_some_and(|expected| received >= expected) {
            return Ok(());
        }
        let event = tokio::select! {
            biased;
            event = events.next() => event,
            Ok(()) = expected.changed() => continue,
            () = tokio::time::sleep_until(give_up) => return Ok(()),
        };
        match event {
            LinkEvent::Delivery(mut frames) => {
                // One clock reading and one ack for everything that came together.
                while let Some(LinkEvent::Delivery(more)) = events.ready() {
                    frames.extend(more);
                }
                let position = take(&frames, &pace, &lane, &mut received);
                if let Some(position) = position {
                    link.ack(position);
                }
            }
            LinkEvent::Closed(error) => return Err(error.into()),
            LinkEvent::Sent(_)
            | LinkEvent::Drain { .. }
            | LinkEvent::Notice(_)
            | LinkEvent::Phone(_)
            | LinkEvent::Typing(_) => (),
        }
    }
}

fn take(frames: &[DeliveryFrame], pace: &Pace, lane: &SharedLane, received: &mut u64) -> Option<Position> {
    let now_ns = pace.since_start_ns(Instant::now());
    let mut lane = lane.lock();
    let mut position = None;
    for frame in frames {
        match frame {
            DeliveryFrame::Envelope(envelope) => {
                position = Some(envelope.position);
                if let EnvelopeBody::Message { ciphertext, .. } = &envelope.shared.body
                    && let Some(due_ns) = body::sealed_due_ns(ciphertext)
                {
                    *received += 1;
                    lane.delivered(due_ns, now_ns);
                }
            }
            DeliveryFrame::Gap(gap) => position = Some(gap.to),
            DeliveryFrame::CaughtUp { .. } => (),
        }
    }
    position
}
