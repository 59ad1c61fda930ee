//! A device that talks as people's clients do: encryption, databases and all.

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::body;
use super::patience;
use super::stage::Part;
use crate::client::{Client, ClientError, ClientEvent, ClientSession, Inbox, SessionOptions};
use crate::limits::{LOAD_LOOK_EVERY, LOAD_TAIL, LOAD_TRIES_MAX};
use crate::vault::Event;

/// Unreported events read at once.
const EVENTS_AT_ONCE: usize = 256;
/// Everybody takes their inbox: what others change in a group comes there.
const OPTIONS: SessionOptions = SessionOptions { inbox: Inbox::Take, reconnect: false };

/// A device whose session stands.
#[derive(Debug)]
pub(super) struct Connected {
    client: Client,
    session: ClientSession,
}

/// Connects, patiently; where it `settles`, everything that waited is taken first.
pub(super) async fn connect(client: Client, settles: bool) -> Result<Connected, ClientError> {
    let mut session = session(&client).await?;
    if settles {
        settle(&mut session).await?;
    }
    Ok(Connected { client, session })
}

async fn settle(session: &mut ClientSession) -> Result<(), ClientError> {
    loop {
        match session.next().await {
            Some(ClientEvent::CaughtUp) => return Ok(()),
            Some(ClientEvent::Stopped(error)) => return Err(error),
            Some(_) => (),
            None => return Err(ClientError::Ended),
        }
    }
}

/// A session whose connection stands. The one before it may still be letting go of the inbox.
async fn session(client: &Client) -> Result<ClientSession, ClientError> {
    for _ in 0..LOAD_TRIES_MAX {
        match patience::session(client, OPTIONS).await {
            Err(ClientError::Receiving(_)) => tokio::time::sleep(LOAD_LOOK_EVERY).await,
            session => return session,
        }
    }
    patience::session(client, OPTIONS).await
}

/// Why a session is left.
enum After {
    Quit,
    Away,
}

/// The answer to a message: when it was due, and how many are to get it.
type Answer = (u64, u64, Result<(), ClientError>);

struct Actor {
    client: Client,
    part: Part,
    in_flight: JoinSet<Answer>,
    there_ns: u64,
    goes_at: Option<Instant>,
    answered: Instant,
}

/// Plays a device's part to its end.
pub(super) async fn run(connected: Connected, part: Part) -> Result<(), ClientError> {
    let Connected { client, mut session } = connected;
    let goes_at = part.habits.away.map(|away| part.stage.start() + away.first);
    let (in_flight, answered) = (JoinSet::new(), Instant::now());
    let mut actor = Actor { client, part, in_flight, there_ns: 0, goes_at, answered };
    loop {
        let after = Box::pin(actor.talk(&mut session)).await;
        session.close().await;
        let (After::Away, Some(away)) = (after?, actor.part.habits.away) else { return Ok(()) };
        tokio::time::sleep(away.lasts).await;
        session = tokio::select! {
            biased;
            () = actor.part.stage.quit.cancelled() => return Ok(()),
            again = self::session(&actor.client) => again?,
        };
        actor.goes_at = Some(Instant::now() + away.every);
        actor.there_ns = actor.part.stage.now_ns();
        actor.part.lane.lock().reconnects += 1;
        if let Some(says) = &mut actor.part.says {
            says.pace.skip(Instant::now());
        }
    }
}

impl Actor {
    async fn talk(&mut self, session: &mut ClientSession) -> Result<After, ClientError> {
        let quit = self.part.stage.quit.clone();
        // What came while it connected is there already.
        let mut has_news = true;
        loop {
            if std::mem::take(&mut has_news) {
                self.take().await?;
            }
            let now = Instant::now();
            has_news |= self.say(session, now).await?;
            if self.has_said_all(now) && !self.part.habits.hears {
                return Ok(After::Quit);
            }
            if self.goes_at.is_some_and(|at| at <= now) && self.in_flight.is_empty() && self.part.says.is_some() {
                return Ok(After::Away);
            }
            let wake = self.wake(now);
            tokio::select! {
                biased;
                Some(answer) = self.in_flight.join_next() => {
                    let (due_ns, hearers, result) = answer.map_err(|error| ClientError::Thread(error.to_string()))?;
                    result?;
                    self.answered = Instant::now();
                    self.part.accepted(due_ns, self.part.stage.now_ns(), hearers);
                }
                event = session.next(), if !has_news => match event {
                    Some(ClientEvent::News) => has_news = true,
                    Some(ClientEvent::Stopped(error)) => return Err(error),
                    Some(_) => (),
                    None => return Err(ClientError::Ended),
                },
                () = quit.cancelled() => {
                    self.take().await?;
                    return Ok(After::Quit);
                }
                () = tokio::time::sleep_until(wake), if !has_news => (),
                () = std::future::ready(()), if has_news => (),
            }
        }
    }

    /// Hands over what is due. Events that come meanwhile are lost, so that whoever hears looks for news then.
    async fn say(&mut self, session: &mut ClientSession, now: Instant) -> Result<bool, ClientError> {
        // Who is about to go lets its answers come first.
        if self.goes_at.is_some_and(|at| at <= now) {
            return Ok(false);
        }
        let Some(says) = &mut self.part.says else { return Ok(false) };
        let due = says.due(now, self.in_flight.len(), &self.part.stage);
        let commands = session.commands();
        let has_said = !due.is_empty();
        for due_ns in due {
            let Some(post) = says.next_post() else { break };
            let text = body::text(due_ns, self.part.bytes);
            let pending = session.finish(commands.hand_over(post.conversation, text)).await?;
            self.part.lane.lock().sent += 1;
            self.in_flight.spawn(async move { (due_ns, post.hearers, pending.result().await.map(drop)) });
        }
        Ok(has_said && self.part.habits.hears)
    }

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
        next.min(self.goes_at.unwrap_or(late)).min(late)
    }

    /// Reads what has come.
    async fn take(&self) -> Result<(), ClientError> {
        if !self.part.habits.hears {
            return Ok(());
        }
        loop {
            let events = self.client.unreported_events(EVENTS_AT_ONCE).await?;
            if events.is_empty() {
                return Ok(());
            }
            let (mut ids, mut heard) = (Vec::with_capacity(events.len()), Vec::new());
            for stored in events {
                ids.push(stored.id);
                match stored.event {
                    Event::Message(message) if !message.own => heard.extend(body::text_due_ns(&message.text)),
                    // Who has set receipts to be sent hears them: one for each message that was confirmed.
                    Event::Receipt { .. } => self.part.lane.lock().receipts += 1,
                    _ => (),
                }
            }
            self.part.heard(&heard, self.there_ns);
            self.client.mark_reported(ids).await?;
        }
    }
}
