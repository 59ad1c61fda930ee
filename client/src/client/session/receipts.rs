//! Receipts: sent together after a while, and how far a person has read. What the other devices of the account are to be
//! told goes out with them.

use std::time::Duration;

use rand::Rng;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Session;
use crate::client::error::ClientError;
use crate::client::vault_handle::VaultHandle;
use crate::limits::{HISTORY_AGAIN, RECEIPTS_PATIENCE, RECEIPTS_TOGETHER, WAITING_MAX};
use crate::vault::{Event, ReadMark, Resolved, StoredEvent, Target, Vault};

/// Who waits until it is known how far a conversation was read, and those who wrote in it are told.
pub(crate) type ReadReply = oneshot::Sender<Result<ReadMark, ClientError>>;

/// Somebody who has read and waits.
pub(super) struct Reading {
    mark: ReadMark,
    reply: ReadReply,
    /// The highest counter handed over since then.
    until: Option<u64>,
}

/// Notes that everything was read that has come of somebody, or in a group.
pub(crate) async fn mark_read(vault: &VaultHandle, with: &Target) -> Result<ReadMark, ClientError> {
    let target = with.clone();
    let marked = vault.call(move |vault: &mut Vault| {
        let conversation = match vault.resolve(&target)? {
            Resolved::Id(known) | Resolved::Group(known) => Some(known),
            Resolved::Contact(contact) => vault.conversation_with(contact.account)?,
            Resolved::Unknown => None,
        };
        let Some(conversation) = conversation else { return Ok(None) };
        Ok::<_, ClientError>(Some(vault.mark_read(conversation.id)?))
    });
    marked.await?.ok_or_else(|| ClientError::NoConversation(with.to_string()))
}

/// Whether somebody may be owed a receipt for it.
pub(super) fn asks_for_receipt(stored: &StoredEvent) -> bool {
    matches!(&stored.event, Event::Message(message) if !message.own)
}

impl Session<'_> {
    /// Leaves receipts some time for others that can go with them, and for a sibling to send them.
    pub(super) fn receipts_later(&mut self) {
        let patience = if self.has_siblings {
            RECEIPTS_PATIENCE.mul_f64(rand::rng().random_range(0.0..1.0))
        } else {
            Duration::ZERO
        };
        self.receipts_at.get_or_insert_with(|| Instant::now() + RECEIPTS_TOGETHER + patience);
    }

    /// Puts what is owed into the outbox: to others, and to the other devices of this account.
    pub(super) async fn send_receipts(&mut self) -> Result<(), ClientError> {
        self.receipts_at = None;
        self.outbox_due |= self.sync.vault.call(Vault::queue_receipts).await?;
        self.outbox_due |= self.sync.vault.call(Vault::queue_records).await?;
        Ok(())
    }

    /// A person has decided something for all their devices: these are told at once. Before the inbox is taken others may be yet
    /// to be heard, and what is owed goes out after that.
    pub(super) async fn tell_decided(&mut self) -> Result<(), ClientError> {
        self.decisions_due();
        if self.caught_up || !self.options.subscribed {
            self.send_receipts().await?;
        }
        Ok(())
    }

    /// Puts what is due of histories that are handed over into the outbox. Nobody tells when the waits for more are over.
    pub(super) async fn hand_over_history(&mut self) -> Result<(), ClientError> {
        self.outbox_due |= self.sync.vault.call(Vault::queue_history).await?;
        let waits = self.sync.vault.call(Vault::history_waits).await?;
        self.history_at = waits.then(|| Instant::now() + HISTORY_AGAIN);
        Ok(())
    }

    /// A person has read. Somebody who waits for the end of it, waits for the receipts as well.
    pub(super) async fn read(&mut self, with: &Target, reply: Option<ReadReply>) -> Result<(), ClientError> {
        let marked = mark_read(&self.sync.vault, with).await;
        match (reply, marked) {
            (Some(reply), Ok(mark)) => {
                self.send_receipts().await?;
                if self.reads.len() >= WAITING_MAX {
                    self.answer_reads();
                }
                self.reads.push(Reading { mark, reply, until: None });
            }
            (Some(reply), Err(error)) => drop(reply.send(Err(error))),
            (None, Ok(_)) => self.receipts_later(),
            (None, Err(error)) => tracing::debug!(%error, "nothing is marked as read"),
        }
        Ok(())
    }

    /// Answers those who have read whose receipts have arrived: what was handed over since then has its answers. To be
    /// called when the outbox has been handed over.
    pub(super) fn answer_sent_reads(&mut self) {
        let (handed_over, unanswered) = (self.handed_over, self.in_flight.first().copied());
        let has_arrived = |reading: &Reading| match (unanswered, reading.until) {
            (None, _) => true,
            (Some(unanswered), Some(until)) => until < unanswered,
            (Some(_), None) => false,
        };
        let (arrived, waiting) = std::mem::take(&mut self.reads).into_iter().partition(has_arrived);
        self.reads = arrived;
        self.answer_reads();
        self.reads = waiting;
        for reading in &mut self.reads {
            reading.until.get_or_insert(handed_over);
        }
    }

    /// Answers all who have read: what has not arrived goes out by itself.
    pub(super) fn answer_reads(&mut self) {
        for Reading { mark, reply, .. } in self.reads.drain(..) {
            // Who asked may have gone.
            let _ = reply.send(Ok(mark));
        }
    }

    /// Hands over what is owed before an end in order. Nobody waits for the answers: without them it goes out again, once,
    /// on the next connection.
    pub(super) async fn last_receipts(&mut self) -> Result<(), ClientError> {
        if self.receipts_at.is_some() {
            self.send_receipts().await?;
            self.flush().await?;
        }
        Ok(())
    }
}
