//! What callers want of a session, and how it is begun.

use gureum_proto::{ConversationKind, DeviceId, Handle};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::receipts::ReadReply;
use super::{Session, Waiting};
use crate::client::error::ClientError;
use crate::client::event::ClientEvent;
use crate::client::sync::{GroupAnswer, GroupCommand};
use crate::limits::WAITING_MAX;
use crate::vault::{Contact, Conversation, OutboxId, Resolved, SentMessage, Target, Vault};

/// What a caller wants of a session.
#[derive(Debug)]
pub(crate) enum Command {
    /// Send a text; answered when the server has it on disk.
    Send { to: Target, text: String, reply: Reply },
    /// Look somebody up.
    Find { handle: Handle, reply: oneshot::Sender<Result<Contact, ClientError>> },
    /// Revoke a device of this account.
    Revoke { device: DeviceId, reply: oneshot::Sender<Result<Revoked, ClientError>> },
    /// Note that everything was read that has come of somebody, or in a group; answered when the receipts for it are sent.
    Read { with: Target, reply: Option<ReadReply> },
    /// Say that this person types, or has stopped.
    Typing { with: Target, types: bool },
    /// Say what a target stands for, here or on the server.
    Resolve { target: Target, reply: oneshot::Sender<Result<Resolved, ClientError>> },
    /// Go on from where the server has gone back to.
    Restart { with: Target, reply: oneshot::Sender<Result<bool, ClientError>> },
    /// Make a group or change one; answered when the server has accepted it.
    Group { command: GroupCommand, reply: GroupReply },
}

/// What became of a device that was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Revoked {
    /// Conversations with others from which revoked devices were removed.
    pub removed_from: usize,
    /// Those from which this device could not remove them now, or has yet to take its inbox first: whoever comes first does.
    pub left_to_others: usize,
}

pub(crate) type Reply = oneshot::Sender<Result<SentMessage, ClientError>>;
pub(crate) type GroupReply = oneshot::Sender<Result<GroupAnswer, ClientError>>;

impl Command {
    /// Which conversation it concerns, as it was typed.
    pub(super) const fn target(&self) -> Option<&Target> {
        match self {
            Self::Send { to: target, .. }
            | Self::Read { with: target, .. }
            | Self::Typing { with: target, .. }
            | Self::Resolve { target, .. }
            | Self::Restart { with: target, .. } => Some(target),
            Self::Group { command, .. } => command.group(),
            Self::Find { .. } | Self::Revoke { .. } => None,
        }
    }

    /// Answers a command that was not begun.
    pub(crate) fn refuse(self, error: ClientError) {
        match self {
            Self::Send { reply, .. } => drop(reply.send(Err(error))),
            Self::Find { reply, .. } => drop(reply.send(Err(error))),
            Self::Revoke { reply, .. } => drop(reply.send(Err(error))),
            Self::Read { reply, .. } => drop(reply.map(|reply| reply.send(Err(error)))),
            Self::Typing { .. } => (),
            Self::Resolve { reply, .. } => drop(reply.send(Err(error))),
            Self::Restart { reply, .. } => drop(reply.send(Err(error))),
            Self::Group { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

impl Session<'_> {
    pub(super) async fn on_command(&mut self, command: Command) -> Result<(), ClientError> {
        match command {
            Command::Send { to, text, reply } => match self.queue(&to, text.clone()).await {
                Ok((outbox, conversation)) => {
                    self.typings.ended(&to);
                    let (to, conversation) = (conversation.with(), conversation.id);
                    self.outbox_due = true;
                    self.decisions_due();
                    self.waiting.insert(outbox, Waiting { to, conversation, text, reply });
                    // From here on it is in the outbox: what fails concerns the session, and not this message.
                    if self.caught_up || !self.options.subscribed {
                        self.expect_welcomes().await?;
                    }
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Find { handle, reply } => drop(reply.send(self.sync.find(&handle).await)),
            Command::Revoke { device, reply } => drop(reply.send(self.revoke(device).await)),
            Command::Read { with, reply } => self.read(&with, reply).await?,
            Command::Typing { with, types } => self.say_typing(with, types).await?,
            Command::Resolve { target, reply } => drop(reply.send(self.sync.resolve(&target).await)),
            Command::Restart { with, reply } => drop(reply.send(self.restart(&with).await)),
            Command::Group { command, reply } => match self.sync.begin_command(command).await {
                Ok(begun) => {
                    self.changing.wait_for(begun, reply);
                    self.outbox_due = true;
                }
                Err(error) => drop(reply.send(Err(error))),
            },
        }
        Ok(())
    }

    async fn queue(&mut self, to: &Target, text: String) -> Result<(OutboxId, Conversation), ClientError> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(ClientError::Busy);
        }
        let conversation = self.sync.conversation(to).await?;
        let id = conversation.id;
        let outbox = self.sync.vault.call(move |vault| vault.queue_text(id, &text)).await?;
        Ok((outbox, conversation))
    }

    async fn revoke(&mut self, device: DeviceId) -> Result<Revoked, ClientError> {
        self.sync.revoke(device).await?;
        let mut revoked = Revoked::default();
        if device == self.sync.identity.device {
            return Ok(revoked);
        }
        // The device is cut off already, and nothing is encrypted for it: its leaves wait for the inbox.
        let waits = self.is_behind();
        if waits {
            self.remove_at = Some(Instant::now());
        }
        for conversation in self.sync.vault.call(Vault::removals_due).await? {
            let known = self.sync.vault.call(move |vault| vault.conversation(conversation)).await?;
            // People know nothing of the conversation of their own devices.
            let counts = known.is_none_or(|known| known.kind != ConversationKind::Own);
            let is_removed = !waits && self.remove_now(conversation).await?;
            let count = if is_removed { &mut revoked.removed_from } else { &mut revoked.left_to_others };
            *count += usize::from(counts);
        }
        self.outbox_due = true;
        self.tell(ClientEvent::News).await;
        Ok(revoked)
    }

    async fn restart(&mut self, with: &Target) -> Result<bool, ClientError> {
        if !self.options.subscribed {
            return Err(ClientError::InboxNeeded);
        }
        let restarted = self.sync.restart(with).await;
        self.outbox_due = true;
        self.tell(ClientEvent::News).await;
        restarted
    }
}
