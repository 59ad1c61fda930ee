//! Connects, works, and connects again: the life of a session from the first attempt to the last.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gureum_proto::Code;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::account::refuse_deleted;
use super::backoff::Backoff;
use super::error::ClientError;
use super::event::ClientEvent;
use super::life::{self, Proven};
use super::receiver::ReceiverLock;
use super::session::{Command, End, Session, SessionKind, mark_read};
use super::sync::Sync;
use super::vault_handle::VaultHandle;
use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX, BACKOFF_RESET, DISPLACED_MAX, DISPLACED_WINDOW};
use crate::link::{Dialer, LinkError};
use crate::vault::{Identity, Resolved, Vault};

/// How a session behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// Whether to take the inbox.
    pub inbox: Inbox,
    /// Whether to connect again after a failure that may pass.
    pub reconnect: bool,
}

/// Whether a session takes the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inbox {
    /// It does, or fails because another process of this home does.
    Take,
    /// It does, unless another process of this home does.
    TakeIfFree,
    /// It leaves it alone.
    Leave,
}

/// A session's task, before it runs.
pub(crate) struct Driver {
    pub(crate) home: PathBuf,
    pub(crate) vault: VaultHandle,
    pub(crate) identity: Arc<Identity>,
    pub(crate) dialer: Dialer,
    pub(crate) reconnect: bool,
    pub(crate) lock: Option<ReceiverLock>,
    pub(crate) out: mpsc::Sender<ClientEvent>,
    /// Changes when a person has decided something for all their devices.
    pub(crate) decided: watch::Receiver<()>,
    /// The caller is done; matters while no connection stands.
    pub(crate) quit: CancellationToken,
}

impl Driver {
    /// Takes the inbox's lock, if it is to be taken.
    pub(crate) fn lock(home: &Path, inbox: Inbox) -> Result<Option<ReceiverLock>, ClientError> {
        match inbox {
            Inbox::Leave => Ok(None),
            Inbox::Take => ReceiverLock::acquire(home).map(Some),
            Inbox::TakeIfFree => match ReceiverLock::acquire(home) {
                Ok(lock) => Ok(Some(lock)),
                Err(ClientError::Receiving(_)) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// Runs until the caller drops its commands, or something fails for good.
    pub(crate) async fn run(self, mut commands: mpsc::Receiver<Command>) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX, StdRng::from_os_rng());
        let (mut displaced, mut decided) = (Displaced::default(), self.decided.clone());
        loop {
            let started = Instant::now();
            let (error, asked) = match self.connection(&mut commands, &mut decided).await {
                End::Quit => return,
                End::Drain(wait) => (stopping(), wait),
                End::Failed(error) => {
                    let asked = error.retry_after();
                    (error, asked)
                }
            };
            let comes_back =
                error.is_temporary() || (error.code() == Some(Code::Displaced) && displaced.comes_back(Instant::now()));
            if !self.reconnect || !comes_back {
                let _ = self.out.send(ClientEvent::Stopped(error)).await;
                return;
            }
            if started.elapsed() > BACKOFF_RESET {
                backoff.reset();
            }
            let retry_in = backoff.wait(asked);
            let _ = self.out.send(ClientEvent::Disconnected { error, retry_in }).await;
            if self.offline(&mut commands, retry_in).await.is_none() {
                return;
            }
        }
    }

    async fn connection(&self, commands: &mut mpsc::Receiver<Command>, decided: &mut watch::Receiver<()>) -> End {
        let connected = tokio::select! {
            biased;
            () = self.quit.cancelled() => return End::Quit,
            connected = self.connect() => connected,
        };
        match connected {
            Ok(session) => session.run(commands, decided).await,
            Err(error) => End::Failed(error),
        }
    }

    async fn connect(&self) -> Result<Session<'_>, ClientError> {
        refuse_deleted(&self.vault).await?;
        let subscribe = self.lock.is_some();
        let unproven = self.dialer.connect().await?;
        let proven = life::prove(unproven, &self.vault, &self.identity, &self.home, subscribe).await?;
        let Proven { link, events, ready, seen } = proven;
        let sync = Sync::new(link, self.vault.clone(), Arc::clone(&self.identity));
        let (begun, taken_seq) = (sync.begin_session(&ready, seen).await?, seen.cursor.seq);
        let _ = self.out.send(ClientEvent::Connected).await;
        let kind = SessionKind { subscribed: subscribe, is_last: !self.reconnect };
        Ok(Session::new(sync, events, &self.out, (&ready, taken_seq), begun, kind))
    }

    /// Waits for the next attempt. What is to be sent meanwhile is kept, if its conversation is known; `None` when
    /// the caller is done.
    async fn offline(&self, commands: &mut mpsc::Receiver<Command>, wait: Duration) -> Option<()> {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => self.keep(command?).await,
                () = tokio::time::sleep_until(until) => return Some(()),
            }
        }
    }

    async fn keep(&self, command: Command) {
        let offline = || ClientError::Link(LinkError::Lost("not connected now".to_owned()));
        match command {
            Command::Send { to, text, reply } => {
                let queued = self.vault.call(move |vault: &mut Vault| {
                    let conversation = match vault.resolve_alone(&to)? {
                        Resolved::Id(known) | Resolved::Group(known) => Some(known),
                        Resolved::Contact(contact) => vault.conversation_with(contact.account)?,
                        Resolved::Unknown => None,
                    };
                    let Some(conversation) = conversation else { return Ok(None) };
                    Ok::<_, ClientError>(Some(vault.queue_text(conversation.id, &text)?))
                });
                let answer = match queued.await {
                    Ok(Some(_)) => ClientError::Kept(Box::new(offline())),
                    Ok(None) => offline(),
                    Err(error) => error,
                };
                let _ = reply.send(Err(answer));
            }
            Command::Find { reply, .. } => drop(reply.send(Err(offline()))),
            Command::Revoke { reply, .. } => drop(reply.send(Err(offline()))),
            // The receipts go out on the next connection.
            Command::Read { with, reply } => {
                let marked = mark_read(&self.vault, &with).await;
                drop(reply.map(|reply| reply.send(marked)));
            }
            // Nobody hears it, and later it is not true.
            Command::Typing { .. } => (),
            Command::Resolve { target, reply } => {
                let known = match self.vault.call(move |vault: &mut Vault| vault.resolve_alone(&target)).await {
                    Ok(Resolved::Unknown) => Err(offline()),
                    known => known,
                };
                drop(reply.send(known));
            }
            Command::Restart { reply, .. } => drop(reply.send(Err(offline()))),
            Command::Group { reply, .. } => drop(reply.send(Err(offline()))),
        }
    }
}

/// When newer connections took over.
#[derive(Debug, Default)]
struct Displaced {
    at: VecDeque<Instant>,
}

impl Displaced {
    /// Whether to come back once more: the newer one may be a connection of our own that was given up and arrived late.
    fn comes_back(&mut self, now: Instant) -> bool {
        self.at.retain(|at| now.duration_since(*at) < DISPLACED_WINDOW);
        let may = self.at.len() < DISPLACED_MAX;
        if may {
            self.at.push_back(now);
        }
        may
    }
}

fn stopping() -> ClientError {
    ClientError::Link(LinkError::Closed { code: Code::Stopping, reason: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_displaced_comes_back_a_few_times_an_hour() {
        let (mut displaced, start) = (Displaced::default(), Instant::now());
        let minute = Duration::from_secs(60);
        let came_back: Vec<_> = (0..6).map(|minutes| displaced.comes_back(start + minute * minutes)).collect();
        assert_eq!(came_back, [true, true, true, false, false, false]);
        assert!(displaced.comes_back(start + DISPLACED_WINDOW));
        assert!(!displaced.comes_back(start + DISPLACED_WINDOW));
    }
}
