//! Hears what a session tells, and passes it on to the model.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gureum_client::vault::StoredEvent;
use gureum_client::{Client, ClientError, ClientEvent, ClientSession};
use gureum_proto::Code;
use tokio::sync::oneshot;

use super::{Flags, Leave, Parts, Who};

/// Events taken at once.
const EVENTS_MAX: usize = 500;

/// Who hears a session.
pub(super) struct Listener {
    pub(super) who: Who,
    pub(super) parts: Parts,
    pub(super) client: Client,
    pub(super) flags: Arc<Flags>,
}

impl Listener {
    pub(super) async fn run(self, mut session: ClientSession, mut ended: oneshot::Receiver<Leave>) {
        loop {
            let event = tokio::select! {
                biased;
                how = &mut ended => {
                    return match how {
                        Ok(Leave::Closed) => session.close().await,
                        _ => session.abort().await,
                    };
                }
                event = session.next() => event,
            };
            match event {
                Some(ClientEvent::News) => self.take_news().await,
                Some(ClientEvent::Connected) => self.is_in_step(false),
                Some(ClientEvent::CaughtUp) => {
                    self.is_in_step(true);
                    self.take_news().await;
                    self.parts.model.in_step(self.who);
                }
                Some(ClientEvent::Sent(_) | ClientEvent::Typing { .. }) => {}
                Some(ClientEvent::Disconnected { error, .. }) => {
                    self.is_in_step(false);
                    self.note(&format!("lost its connection: {error}"));
                }
                Some(ClientEvent::Stopped(error)) => self.stopped(&error),
                None => {
                    // Nothing more comes; the end is told by whoever started this.
                    let _ = ended.await;
                    return;
                }
            }
        }
    }

    fn is_in_step(&self, is_in_step: bool) {
        self.flags.is_in_step.store(is_in_step, Ordering::Relaxed);
    }

    /// A revoked device is told so; no other one stops.
    fn stopped(&self, error: &ClientError) {
        self.is_in_step(false);
        self.flags.has_stopped.store(true, Ordering::Relaxed);
        let is_due = error.code() == Some(Code::DeviceRevoked) && self.parts.model.may_be_revoked(self.who);
        self.parts.journal.check(is_due, "a session goes on", || format!("{}: {error}", self.who));
        self.note(&format!("stops: {error}"));
    }

    async fn take_news(&self) {
        loop {
            let stored = match self.client.unreported_events(EVENTS_MAX).await {
                Ok(stored) => stored,
                Err(error) => return self.parts.journal.violate("events can be read", error.to_string()),
            };
            if stored.is_empty() {
                return;
            }
            self.note(&format!("hears {} events", stored.len()));
            stored.iter().for_each(|event| self.tell(event));
            let ids = stored.iter().map(|event| event.id).collect();
            if let Err(error) = self.client.mark_reported(ids).await {
                return self.parts.journal.violate("events can be marked", error.to_string());
            }
        }
    }

    fn tell(&self, event: &StoredEvent) {
        match self.parts.sabotage {
            Some(bug) => {
                bug.told(event).iter().for_each(|told| self.parts.model.told(self.who, told));
                let revoked = self.parts.model.revoked_one(self.who.person);
                if let Some((other, told)) = bug.overheard(event, revoked) {
                    self.parts.model.told(other, &told);
                }
            }
            None => self.parts.model.told(self.who, event),
        }
    }

    fn note(&self, what: &str) {
        self.parts.journal.note(format!("{}: {what}", self.who));
    }
}
