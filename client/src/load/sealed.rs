//! A device that sends opaque bodies straight over its connection, and takes them: the server's cost and hardly any of the
//! client's.

use std::collections::BTreeMap;

use gureum_proto::limits::SENDS_IN_FLIGHT_MAX;
use gureum_proto::{DeliveryFrame, Envelope, EnvelopeBody, Send, Sent};
use tokio::time::Instant;

use super::body;
use super::device::Device;
use super::patience;
use super::player::{Leave, Player};
use super::stage::{Owed, Part, Post};
use crate::client::ClientError;
use crate::limits::LOAD_RECEIPTS_EVERY;
use crate::link::{Link, LinkError, LinkEvent, LinkEvents};

/// A device that stands before the server.
#[derive(Debug)]
pub(super) struct Connected {
    device: Device,
    link: Link,
    events: LinkEvents,
    /// The highest send counter that the server has accepted.
    counter: u64,
}

/// Connects, patiently.
pub(super) async fn connect(device: Device, subscribe: bool) -> Result<Connected, ClientError> {
    let (link, events, ready) = patience::in_time(|| async { Ok(Box::pin(device.connect(subscribe)).await?) }).await?;
    Ok(Connected { device, link, events, counter: ready.accepted_counter })
}

/// A message without an answer.
#[derive(Debug, Clone, Copy)]
struct Flight {
    post: Post,
    due_ns: u64,
    silent: bool,
}

/// Why a connection is left.
enum After {
    Leaves(Leave),
    Lost(LinkError),
}

struct Actor {
    device: Device,
    player: Player,
    counter: u64,
    in_flight: BTreeMap<u64, Flight>,
    owed: Owed,
}

/// Plays a device's part to its end.
pub(super) async fn run(connected: Connected, part: Part) -> Result<(), ClientError> {
    let Connected { device, mut link, mut events, counter } = connected;
    let owed = Owed::of(part.says.as_ref().filter(|_| part.habits.confirms));
    let mut actor = Actor { device, player: Player::new(part), counter, in_flight: BTreeMap::new(), owed };
    loop {
        match actor.talk(&link, &mut events).await? {
            After::Leaves(leave) => {
                link.close().await;
                if !actor.player.stays_away(leave).await {
                    return Ok(());
                }
            }
            After::Lost(error) if actor.player.part.habits.returns => {
                tracing::debug!(%error, "coming back");
                drop(link);
            }
            After::Lost(error) => return Err(error.into()),
        }
        let connecting = connect(actor.device.clone(), actor.player.part.habits.hears);
        let Some(again) = actor.player.comes_back(connecting).await? else { return Ok(()) };
        (link, events) = (again.link, again.events);
        actor.is_back(&link)?;
    }
}

impl Actor {
    /// Sends and takes until there is a reason to leave the connection.
    async fn talk(&mut self, link: &Link, events: &mut LinkEvents) -> Result<After, ClientError> {
        let quit = self.player.part.stage.quit.clone();
        loop {
            let now = Instant::now();
            self.say(link, now)?;
            self.confirm(link, now)?;
            if let Some(leave) = self.player.leaves(now, self.in_flight.len()) {
                return Ok(After::Leaves(leave));
            }
            let wake = self.player.wake(now, self.owed.at);
            let event = tokio::select! {
                biased;
                event = events.next() => event,
                () = quit.cancelled() => return Ok(After::Leaves(Leave::Quit)),
                () = self.player.next_due(now, self.in_flight.len()) => continue,
                () = tokio::time::sleep_until(wake) => continue,
            };
            if let Some(lost) = self.take(event, link, events) {
                return Ok(After::Lost(lost));
            }
        }
    }

    /// Everything that is due, in one write.
    fn say(&mut self, link: &Link, now: Instant) -> Result<(), LinkError> {
        let said = self.player.says(now, self.in_flight.len());
        if said.is_empty() {
            return Ok(());
        }
        let part = &self.player.part;
        let mut sends = Vec::with_capacity(said.len());
        for (due, post) in &said {
            self.counter += 1;
            let flight = Flight { post: *post, due_ns: due.at_ns, silent: false };
            self.in_flight.insert(self.counter, flight);
            sends.push(flight.send(self.counter, part.bytes));
        }
        {
            let (now_ns, mut lane) = (part.stage.now_ns(), part.lane.lock());
            said.iter().for_each(|(due, _)| lane.sent(*due, now_ns));
        }
        link.send(&sends)
    }

    /// Confirms what came a while ago, as receipts do: one silent message for each conversation.
    fn confirm(&mut self, link: &Link, now: Instant) -> Result<(), LinkError> {
        let room = usize::try_from(SENDS_IN_FLIGHT_MAX).unwrap_or(0).saturating_sub(self.in_flight.len());
        let due = self.owed.take(now, room);
        if due.is_empty() {
            return Ok(());
        }
        let mut sends = Vec::with_capacity(due.len());
        for (conversation, epoch) in due {
            self.counter += 1;
            let post = Post { conversation, epoch, hearers: 0 };
            let flight = Flight { post, due_ns: self.player.part.stage.now_ns(), silent: true };
            self.in_flight.insert(self.counter, flight);
            sends.push(flight.send(self.counter, body::SEALED_BYTES_MIN));
        }
        link.send(&sends)
    }

    /// What has come, all at once: one reading of the clock, one lock and one ack.
    fn take(&mut self, event: LinkEvent, link: &Link, events: &mut LinkEvents) -> Option<LinkError> {
        let (mut next, mut heard, mut lost) = (Some(event), Vec::new(), None);
        let taken = self.device.taken;
        while let Some(event) = next {
            match event {
                LinkEvent::Delivery(frames) => frames.iter().for_each(|frame| self.hear(frame, &mut heard)),
                LinkEvent::Sent(results) => self.answered(results),
                LinkEvent::Closed(error) => {
                    lost = Some(error);
                    break;
                }
                LinkEvent::Drain { .. } if !self.player.part.habits.returns => {
                    lost = Some(LinkError::Lost("the server is stopping".to_owned()));
                    break;
                }
                LinkEvent::Drain { .. } | LinkEvent::Notice(_) | LinkEvent::Phone(_) | LinkEvent::Typing(_) => (),
            }
            next = events.ready();
        }
        self.player.heard(&heard);
        if self.device.taken > taken {
            link.ack(self.device.taken);
        }
        lost
    }

    fn hear(&mut self, frame: &DeliveryFrame, heard: &mut Vec<u64>) {
        match frame {
            // After a connection that broke, what was not acked on it comes again.
            DeliveryFrame::Envelope(Envelope { position, .. }) if position.seq <= self.device.taken.seq => (),
            DeliveryFrame::Envelope(Envelope { position, shared }) => {
                self.device.taken = *position;
                if let EnvelopeBody::Message { ciphertext, .. } = &shared.body
                    && let Some(due_ns) = body::sealed_due_ns(ciphertext)
                {
                    heard.push(due_ns);
                    self.owed.note(shared.conversation, LOAD_RECEIPTS_EVERY);
                }
            }
            DeliveryFrame::Gap(gap) => self.device.taken = gap.to,
            DeliveryFrame::CaughtUp { .. } => (),
        }
    }

    fn answered(&mut self, results: Vec<Sent>) {
        self.player.is_answered();
        let part = &self.player.part;
        let now_ns = part.stage.now_ns();
        let (mut lane, mut expected) = (part.lane.lock(), 0);
        for Sent { counter, result } in results {
            match (self.in_flight.remove(&counter), result) {
                (Some(Flight { silent: true, .. }), Ok(_)) => lane.receipts += 1,
                (Some(Flight { due_ns, post, .. }), Ok(_)) => {
                    lane.accepted(due_ns, now_ns);
                    expected += post.hearers;
                }
                (Some(_), Err(refusal)) => lane.refused(refusal.code),
                (None, _) => (),
            }
        }
        part.stage.expect(expected);
    }

    /// A new connection stands: what was not answered on the last one is sent again under its counter, so that it is stored
    /// once.
    fn is_back(&mut self, link: &Link) -> Result<(), LinkError> {
        self.player.is_back();
        let bytes = |flight: &Flight| if flight.silent { body::SEALED_BYTES_MIN } else { self.player.part.bytes };
        let sends: Vec<_> =
            self.in_flight.iter().map(|(counter, flight)| flight.send(*counter, bytes(flight))).collect();
        if sends.is_empty() { Ok(()) } else { link.send(&sends) }
    }
}

impl Flight {
    fn send(&self, counter: u64, bytes: usize) -> Send {
        let Post { conversation, epoch, .. } = self.post;
        let ciphertext = body::sealed(conversation, epoch, self.due_ns, bytes);
        Send { counter, conversation, epoch, ciphertext, silent: self.silent }
    }
}
