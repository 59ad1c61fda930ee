//! A device that sends opaque bodies straight over its connection, and takes them: the server's cost and hardly any of the
//! client's.

use std::collections::BTreeMap;

use gureum_proto::limits::SENDS_IN_FLIGHT_MAX;
use gureum_proto::{DeliveryFrame, Envelope, EnvelopeBody, Send, Sent};
use tokio::time::Instant;

use super::body;
use super::device::Device;
use super::patience;
use super::stage::{Owed, Part, Post};
use crate::client::ClientError;
use crate::limits::{LOAD_RECEIPTS_EVERY, LOAD_TAIL};
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
    Quit,
    Away,
    Lost(LinkError),
}

struct Actor {
    device: Device,
    part: Part,
    counter: u64,
    in_flight: BTreeMap<u64, Flight>,
    owed: Owed,
    /// Since when it is there, in nanoseconds since the start.
    there_ns: u64,
    goes_at: Option<Instant>,
    /// When the last answer came, once everything was said.
    answered: Instant,
}

/// Plays a device's part to its end.
pub(super) async fn run(connected: Connected, part: Part) -> Result<(), ClientError> {
    let Connected { device, mut link, mut events, counter } = connected;
    let owed = Owed::of(part.says.as_ref().filter(|_| part.habits.confirms));
    let goes_at = part.habits.away.map(|away| part.stage.start() + away.first);
    let (there_ns, answered) = (0, Instant::now());
    let mut actor = Actor { device, part, counter, in_flight: BTreeMap::new(), owed, there_ns, goes_at, answered };
    loop {
        match actor.talk(&link, &mut events).await? {
            After::Quit => {
                link.close().await;
                return Ok(());
            }
            After::Away => {
                link.close().await;
                let Some(away) = actor.part.habits.away else { return Ok(()) };
                tokio::time::sleep(away.lasts).await;
                actor.goes_at = Some(Instant::now() + away.every);
            }
            After::Lost(error) if actor.part.habits.returns => {
                tracing::debug!(%error, "coming back");
                drop(link);
            }
            After::Lost(error) => return Err(error.into()),
        }
        let again = tokio::select! {
            biased;
            () = actor.part.stage.quit.cancelled() => return Ok(()),
            again = connect(actor.device.clone(), actor.part.habits.hears) => again?,
        };
        (link, events) = (again.link, again.events);
        actor.is_back(&link)?;
    }
}

impl Actor {
    /// Sends and takes until there is a reason to leave the connection.
    async fn talk(&mut self, link: &Link, events: &mut LinkEvents) -> Result<After, ClientError> {
        let quit = self.part.stage.quit.clone();
        loop {
            let now = Instant::now();
            self.say(link, now)?;
            self.confirm(link, now)?;
            if self.has_said_all(now) && !self.part.habits.hears {
                return Ok(After::Quit);
            }
            if self.goes_at.is_some_and(|at| at <= now) && self.in_flight.is_empty() && self.part.says.is_some() {
                return Ok(After::Away);
            }
            let wake = self.wake(now);
            let event = tokio::select! {
                biased;
                event = events.next() => event,
                () = quit.cancelled() => return Ok(After::Quit),
                () = tokio::time::sleep_until(wake) => continue,
            };
            if let Some(lost) = self.take(event, link, events) {
                return Ok(After::Lost(lost));
            }
        }
    }

    /// Everything that is due, in one write.
    fn say(&mut self, link: &Link, now: Instant) -> Result<(), LinkError> {
        // Who is about to go lets its answers come first.
        if self.goes_at.is_some_and(|at| at <= now) {
            return Ok(());
        }
        let Some(says) = &mut self.part.says else { return Ok(()) };
        let due = says.due(now, self.in_flight.len(), &self.part.stage);
        if due.is_empty() {
            return Ok(());
        }
        let mut sends = Vec::with_capacity(due.len());
        for due_ns in due {
            let Some(post) = says.next_post() else { break };
            self.counter += 1;
            let flight = Flight { post, due_ns, silent: false };
            self.in_flight.insert(self.counter, flight);
            sends.push(flight.send(self.counter, self.part.bytes));
        }
        self.part.lane.lock().sent += u64::try_from(sends.len()).unwrap_or(0);
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
            let flight = Flight { post, due_ns: self.part.stage.now_ns(), silent: true };
            self.in_flight.insert(self.counter, flight);
            sends.push(flight.send(self.counter, body::SEALED_BYTES_MIN));
        }
        link.send(&sends)
    }

    /// Whether nothing more is to be said and every answer has come, or is not waited for any more.
    fn has_said_all(&mut self, now: Instant) -> bool {
        let Some(says) = &mut self.part.says else { return true };
        if !says.pace.is_over(now) {
            self.answered = now;
            return false;
        }
        let is_through = self.in_flight.is_empty() || now - self.answered >= LOAD_TAIL;
        if is_through {
            self.part.lane.lock().unsent += says.pace.unsent();
            says.is_through();
            self.part.says = None;
        }
        is_through
    }

    fn wake(&self, now: Instant) -> Instant {
        let late = now + LOAD_TAIL;
        if self.goes_at.is_some_and(|at| at <= now) {
            return late;
        }
        let next = match &self.part.says {
            Some(says) if !says.pace.is_over(now) => says.pace.wake(self.in_flight.len()),
            _ => late,
        };
        let goes_at = self.goes_at.unwrap_or(late);
        next.min(goes_at).min(self.owed.at.filter(|at| *at > now).unwrap_or(late)).min(late)
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
                LinkEvent::Drain { .. } if !self.part.habits.returns => {
                    lost = Some(LinkError::Lost("the server is stopping".to_owned()));
                    break;
                }
                LinkEvent::Drain { .. } | LinkEvent::Notice(_) | LinkEvent::Phone(_) | LinkEvent::Typing(_) => (),
            }
            next = events.ready();
        }
        self.part.heard(&heard, self.there_ns);
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
        let now_ns = self.part.stage.now_ns();
        self.answered = Instant::now();
        let (mut lane, mut expected) = (self.part.lane.lock(), 0);
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
        self.part.stage.expect(expected);
    }

    /// A new connection stands: what was not answered on the last one is sent again under its counter, so that it is stored
    /// once; what was due meanwhile is left out.
    fn is_back(&mut self, link: &Link) -> Result<(), LinkError> {
        self.there_ns = self.part.stage.now_ns();
        self.part.lane.lock().reconnects += 1;
        if let Some(says) = &mut self.part.says {
            says.pace.skip(Instant::now());
        }
        let bytes = |flight: &Flight| if flight.silent { body::SEALED_BYTES_MIN } else { self.part.bytes };
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
