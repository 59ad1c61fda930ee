//! A device that talks as people's clients do: encryption, databases and all.

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::body;
use super::patience;
use super::player::{Leave, Player};
use super::stage::Part;
use crate::client::{Client, ClientError, ClientEvent, ClientSession, Inbox, SessionOptions};
use crate::limits::{LOAD_LOOK_EVERY, LOAD_TRIES_MAX};
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

/// The answer to a message: when it was due, and how many are to get it.
type Answer = (u64, u64, Result<(), ClientError>);

struct Actor {
    client: Client,
    player: Player,
    in_flight: JoinSet<Answer>,
}

/// Plays a device's part to its end.
pub(super) async fn run(connected: Connected, part: Part) -> Result<(), ClientError> {
    let Connected { client, mut session } = connected;
    let mut actor = Actor { client, player: Player::new(part), in_flight: JoinSet::new() };
    loop {
        let leave = Box::pin(actor.talk(&mut session)).await;
        session.close().await;
        if !actor.player.stays_away(leave?).await {
            return Ok(());
        }
        let connecting = Box::pin(self::session(&actor.client));
        let Some(again) = actor.player.comes_back(connecting).await? else { return Ok(()) };
        session = again;
        actor.player.is_back();
    }
}

impl Actor {
    /// Sends and takes until there is a reason to leave the session.
    async fn talk(&mut self, session: &mut ClientSession) -> Result<Leave, ClientError> {
        let quit = self.player.part.stage.quit.clone();
        // What came while it connected is there already.
        let mut has_news = true;
        loop {
            if std::mem::take(&mut has_news) {
                self.take().await?;
            }
            let now = Instant::now();
            has_news |= self.say(session, now).await?;
            if let Some(leave) = self.player.leaves(now, self.in_flight.len()) {
                return Ok(leave);
            }
            let (wake, in_flight) = (self.player.wake(now, None), self.in_flight.len());
            tokio::select! {
                biased;
                Some(answer) = self.in_flight.join_next() => {
                    let (due_ns, hearers, result) = answer.map_err(|error| ClientError::Thread(error.to_string()))?;
                    result?;
                    self.player.is_answered();
                    let part = &self.player.part;
                    part.accepted(due_ns, part.stage.now_ns(), hearers);
                }
                event = session.next(), if !has_news => match event {
                    Some(ClientEvent::News) => has_news = true,
                    Some(ClientEvent::Stopped(error)) => return Err(error),
                    Some(_) => (),
                    None => return Err(ClientError::Ended),
                },
                () = quit.cancelled() => {
                    self.take().await?;
                    return Ok(Leave::Quit);
                }
                () = self.player.next_due(now, in_flight), if !has_news => (),
                () = tokio::time::sleep_until(wake), if !has_news => (),
                () = std::future::ready(()), if has_news => (),
            }
        }
    }

    /// Hands over what is due. Events that come meanwhile are lost, so that whoever hears looks for news then.
    async fn say(&mut self, session: &mut ClientSession, now: Instant) -> Result<bool, ClientError> {
        let said = self.player.says(now, self.in_flight.len());
        let (part, commands, has_said) = (&self.player.part, session.commands(), !said.is_empty());
        for (due, post) in said {
            let (text, now_ns) = (body::text(due.at_ns, part.bytes), part.stage.now_ns());
            let pending = session.finish(commands.hand_over(post.conversation, text)).await?;
            part.lane.lock().sent(due, now_ns);
            self.in_flight.spawn(async move { (due.at_ns, post.hearers, pending.result().await.map(drop)) });
        }
        Ok(has_said && part.habits.hears)
    }

    /// Reads what has come.
    async fn take(&self) -> Result<(), ClientError> {
        if !self.player.part.habits.hears {
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
                    Event::Receipt { .. } => self.player.part.lane.lock().receipts += 1,
                    _ => (),
                }
            }
            self.player.heard(&heard);
            self.client.mark_reported(ids).await?;
        }
    }
}
