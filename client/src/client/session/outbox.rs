//! The way out: what is due is handed over, and answers are settled.

use std::collections::BTreeSet;
use std::time::Duration;

use gureum_proto::{Code, ConversationId, Send, Sent};
use tokio::time::Instant;

use super::{Session, Waiting};
use crate::client::error::ClientError;
use crate::client::event::ClientEvent;
use crate::limits::HISTORY_SEARCHED;
use crate::link::LinkError;
use crate::vault::{Event, HistoryItem, Need, QueueError, SentMessage, Settled, Vault, VaultError, With};

impl Session<'_> {
    /// Hands over what is due. What the vault gives is on its disk already, encrypted and counted.
    pub(super) async fn flush(&mut self) -> Result<(), ClientError> {
        while std::mem::take(&mut self.outbox_due) {
            self.renew_before_sending().await?;
            let after = self.handed_over;
            let limit = usize::try_from(gureum_proto::limits::SENDS_IN_FLIGHT_MAX).unwrap_or(1);
            let (sends, held_up) = self
                .sync
                .vault
                .call(move |vault| {
                    let sends = vault.next_sends(after, limit)?;
                    let held_up = sends.is_empty() && vault.removals_hold_up_messages()?;
                    Ok::<_, VaultError>((sends, held_up))
                })
                .await?;
            self.held_up = held_up;
            // Taking commits from elsewhere than the inbox makes what waits in it harder to read: the inbox comes first.
            if held_up && self.mend_at.is_none() && (self.caught_up || !self.options.subscribed) {
                self.remove_at = Some(Instant::now());
            }
            let Some(highest) = sends.iter().map(|send| send.counter).max() else { return Ok(()) };
            let sends = not_in_flight(sends, &self.in_flight);
            let handed = if sends.is_empty() { Ok(()) } else { self.sync.link.send(&sends) };
            match handed {
                // The answers to those before make it due again.
                Err(LinkError::Full) => return Ok(()),
                result => result?,
            }
            self.handed_over = highest.max(self.handed_over);
            self.in_flight.extend(sends.iter().map(|send| send.counter));
            self.outbox_due = true;
        }
        Ok(())
    }

    /// What a KeyPackage came with lay in a directory, for weeks perhaps: it is renewed before anything is said by it. Once in
    /// a session, for others may commit faster all the time.
    async fn renew_before_sending(&mut self) -> Result<(), ClientError> {
        // Taking commits from elsewhere than the inbox makes what waits in it harder to read: the inbox comes first.
        if !self.may_owe_renewals || (self.options.subscribed && !self.caught_up) {
            return Ok(());
        }
        let (due, may_follow) = self.sync.vault.call(Vault::first_renewals).await?;
        self.may_owe_renewals = may_follow;
        for conversation in due {
            if self.renewed_first.insert(conversation)
                && let Err(error) = self.sync.renew_first(conversation).await
            {
                let error = error.confined()?;
                tracing::warn!(%error, %conversation, "sending by the keys of a KeyPackage");
                self.tell(ClientEvent::News).await;
            }
        }
        Ok(())
    }

    pub(super) async fn settle(&mut self, results: Vec<Sent>) -> Result<(), ClientError> {
        // Those that cannot be brought forward now: one attempt for all of their messages.
        let mut behind = BTreeSet::new();
        for sent in results {
            self.in_flight.remove(&sent.counter);
            let is_gone = matches!(&sent.result, Err(refusal) if refusal.code == Code::AccountGone);
            let refused = sent.result.as_ref().err().map(ToString::to_string).unwrap_or_default();
            let settled = self.sync.vault.call(move |vault| vault.settle(&sent)).await?;
            match settled {
                Settled::Sent(message) => {
                    if let Some(waiting) = self.waiting.remove(&message.outbox) {
                        let _ = waiting.reply.send(Ok(message.clone()));
                    }
                    let has_news = !message.gone.is_empty();
                    self.tell(ClientEvent::Sent(message)).await;
                    if has_news {
                        self.tell(ClientEvent::News).await;
                    }
                }
                Settled::Again { conversation, epoch } => {
                    self.bring_forward(conversation, epoch, &mut behind).await?;
                }
                // It is held up by that now, and looked after when nothing else is left to be sent.
                Settled::Removal { .. } => (),
                Settled::Later { retry_after_ms } => {
                    let wait = Duration::from_millis(retry_after_ms.max(100));
                    self.outbox_again = Some(Instant::now() + wait);
                    if self.options.is_last {
                        self.keep_waiting_out(|_| true, &refused);
                    }
                }
                Settled::Failed(Event::SendFailed { outbox, why, .. }) => {
                    if let Some(waiting) = self.waiting.remove(&outbox) {
                        let taken_over = match waiting.to {
                            With::Account(ended) if is_gone => Box::pin(self.sync.taken_over(ended)).await?,
                            _ => None,
                        };
                        let moved = taken_over.map(|handle| ClientError::from(QueueError::HandleMoved(handle)));
                        let _ = waiting.reply.send(Err(moved.unwrap_or(ClientError::NotSent(why))));
                    }
                    self.tell(ClientEvent::News).await;
                }
                Settled::Failed(_) => self.tell(ClientEvent::News).await,
                // There may be more than could wait at once.
                Settled::Silent => self.receipts_later(),
                Settled::Nothing => self.settled_elsewhere = true,
            }
        }
        self.outbox_due = true;
        Ok(())
    }

    /// A message is to be encrypted for a later epoch than the one that it was refused for. `behind`: where that cannot be
    /// reached now.
    async fn bring_forward(
        &mut self,
        conversation: ConversationId,
        from_epoch: u64,
        behind: &mut BTreeSet<ConversationId>,
    ) -> Result<(), ClientError> {
        if self.is_behind() {
            // The inbox brings it there; where it does not, that is looked for behind it.
            self.mend_later(Duration::ZERO);
        } else if !behind.contains(&conversation) {
            let need = Need::Commits { conversation, from_epoch, to_epoch: None };
            let Err(error) = self.sync.meet(need).await else { return Ok(()) };
            let error = error.confined()?;
            behind.insert(conversation);
            if error.is_gone_back() {
                self.answer_gone_back().await?;
                self.tell(ClientEvent::News).await;
            }
            self.keep_waiting_out(|waiting| waiting.conversation == conversation, &error.to_string());
            self.mend_later(error.retry_after());
        }
        self.sync.vault.call(move |vault| vault.release_counters(conversation)).await
    }

    /// Answers those whose message another process of this home has sent and settled: it is in the history.
    pub(super) async fn answer_settled_elsewhere(&mut self) -> Result<(), ClientError> {
        if self.waiting.is_empty() || !self.in_flight.is_empty() {
            return Ok(());
        }
        let emptied = self.sync.vault.call(Vault::outbox_len).await? == 0;
        if !std::mem::take(&mut self.settled_elsewhere) && !emptied {
            return Ok(());
        }
        for (outbox, waiting) in std::mem::take(&mut self.waiting) {
            let to = waiting.to;
            let history = self.sync.vault.call(move |vault| vault.history(Some(to), HISTORY_SEARCHED)).await?;
            let sent = history.into_iter().rev().find_map(|item| match item {
                HistoryItem::Message(message) if message.own && message.text == waiting.text => Some(SentMessage {
                    outbox,
                    to,
                    conversation: message.conversation,
                    message_id: message.message_id,
                    server_time_ms: message.server_time_ms,
                    gone: Vec::new(),
                    gone_more: 0,
                }),
                _ => None,
            });
            match sent {
                Some(sent) => drop(waiting.reply.send(Ok(sent))),
                None if emptied => {
                    let why = "the server refused it".to_owned();
                    drop(waiting.reply.send(Err(ClientError::NotSent(why))));
                }
                None => drop(self.waiting.insert(outbox, waiting)),
            }
        }
        Ok(())
    }

    /// Tells those who wait for a message where the server has gone back that it was not sent, and takes it back.
    pub(super) async fn answer_gone_back(&mut self) -> Result<(), ClientError> {
        for (outbox, waiting) in std::mem::take(&mut self.waiting) {
            let conversation = waiting.conversation;
            match self.sync.vault.call(move |vault| vault.gone_back(conversation)).await? {
                Some(gone_back) => {
                    self.sync.vault.call(move |vault| vault.take_back(outbox)).await?;
                    let _ = waiting.reply.send(Err(QueueError::GoneBack(gone_back).into()));
                }
                None => drop(self.waiting.insert(outbox, waiting)),
            }
        }
        Ok(())
    }

    /// Tells those who wait for some messages that these stay in the outbox for now.
    pub(super) fn keep_waiting_out(&mut self, which: impl Fn(&Waiting) -> bool, why: &str) {
        for (outbox, waiting) in std::mem::take(&mut self.waiting) {
            if which(&waiting) {
                let error = ClientError::Stuck(why.to_owned());
                let _ = waiting.reply.send(Err(ClientError::Kept(Box::new(error))));
            } else {
                self.waiting.insert(outbox, waiting);
            }
        }
    }
}

/// Leaves out what this connection still owes an answer for: twice in flight, it would count twice.
pub(super) fn not_in_flight(mut sends: Vec<Send>, in_flight: &BTreeSet<u64>) -> Vec<Send> {
    sends.retain(|send| !in_flight.contains(&send.counter));
    sends
}
