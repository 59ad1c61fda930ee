//! Changes of groups, carried out while a session lasts: a commit that loses against another's is made again.

use std::collections::BTreeMap;
use std::time::Duration;

use gureum_proto::{ConversationId, Handle};
use rand::Rng;
use tokio::time::Instant;

use super::{GroupReply, Session};
use crate::client::error::ClientError;
use crate::client::event::ClientEvent;
use crate::client::sync::{Begun, GroupAnswer, Pursued};
use crate::limits::{CHANGE_AGAIN_FIRST, CHANGE_AGAIN_MAX, CHANGE_LOSSES_FAIR, CHANGE_TRIES_MAX, CHANGE_TURNS_MAX};
use crate::vault::{IntentId, IntentOutcome, Vault};

/// What is to be changed in groups, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Changing {
    /// When to go on with it.
    pub(super) at: Option<Instant>,
    waiting: Vec<WaitingChange>,
    /// Where a commit lost, and in which epoch.
    lost: BTreeMap<ConversationId, u64>,
    /// How often, less what was won since: how many others seem to be at it.
    losses: u32,
    /// How often since the last win.
    losses_in_a_row: u32,
    /// How long the last attempt took: so long another one can come first.
    took: Duration,
    /// How often in a row nothing could be done.
    idles: u32,
}

/// Somebody who waits until a change is made.
#[derive(Debug)]
struct WaitingChange {
    conversation: ConversationId,
    open: Vec<(Option<Handle>, IntentId)>,
    done: Vec<Handle>,
    failed: Vec<(Handle, String)>,
    refused: Option<String>,
    reply: GroupReply,
}

impl Changing {
    pub(super) fn wait_for(&mut self, begun: Begun, reply: GroupReply) {
        let Begun { conversation, intents, failed } = begun;
        let (done, refused) = (Vec::new(), None);
        self.waiting.push(WaitingChange { conversation, open: intents, done, failed, refused, reply });
        // Who has just won against others does not go before them again.
        let at = Instant::now() + if self.losses == 0 { Duration::ZERO } else { self.again_in(self.losses) };
        self.at = Some(self.at.map_or(at, |planned| planned.min(at)));
    }

    /// Whether anybody waits for a change.
    pub(super) const fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Tells everybody who waits that the change is kept.
    pub(super) fn keep_all(&mut self, why: impl Fn() -> ClientError) {
        for WaitingChange { reply, .. } in std::mem::take(&mut self.waiting) {
            let _ = reply.send(Err(ClientError::ChangeKept(Box::new(why()))));
        }
    }

    /// Tells those who wait for a change in one group that it is kept.
    fn keep(&mut self, conversation: ConversationId, why: &str) {
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.conversation == conversation {
                let error = ClientError::Stuck(why.to_owned());
                let _ = waiting.reply.send(Err(ClientError::ChangeKept(Box::new(error))));
            } else {
                self.waiting.push(waiting);
            }
        }
    }

    /// Where somebody waits and nothing is planned, what is needed for it may come in a while: a KeyPackage in the place
    /// of one that is too old, an answer that frees a counter, a Welcome.
    fn go_on_or_keep(&mut self) {
        if self.at.is_some() || self.waiting.is_empty() {
            return;
        }
        if self.idles < CHANGE_TRIES_MAX {
            self.at = Some(Instant::now() + self.again_in(self.idles));
            self.idles = self.idles.saturating_add(1);
        } else {
            self.idles = 0;
            self.keep_all(|| ClientError::Stuck("the group cannot be changed now".to_owned()));
        }
    }

    /// When to try again after another loss: the more of them, the later. But whoever has lost far more often in a row than
    /// its share comes sooner and sooner, before those who have had their turn.
    fn after_loss(&mut self) -> Duration {
        let wait = self.again_in(self.losses) / (1 << (self.losses_in_a_row / CHANGE_LOSSES_FAIR).min(16));
        self.losses = self.losses.saturating_add(1);
        self.losses_in_a_row = self.losses_in_a_row.saturating_add(1);
        wait
    }

    /// When to go on after a change was made: at once, unless others wait for their turn.
    fn after_win(&mut self) -> Duration {
        self.losses /= 2;
        self.losses_in_a_row = 0;
        if self.losses == 0 { Duration::ZERO } else { self.again_in(self.losses) }
    }

    /// A wait that is never that of others. An attempt is lost if another one is made while it takes: with as many at it as
    /// there can be turns within the wait, most are won, and a longer wait would leave the group idle.
    fn again_in(&self, times: u32) -> Duration {
        let first = self.took.max(CHANGE_AGAIN_FIRST);
        let most = first.saturating_mul(CHANGE_TURNS_MAX).min(CHANGE_AGAIN_MAX);
        let longest = first.saturating_mul(1_u32 << times.min(16)).min(most);
        longest.mul_f64(rand::rng().random_range(0.5..1.5))
    }
}

impl WaitingChange {
    fn note(&mut self, id: IntentId, outcome: IntentOutcome) {
        let index = self.open.iter().position(|(_, open)| *open == id);
        let (Some(index), true) = (index, outcome != IntentOutcome::Open) else { return };
        match (outcome, self.open.remove(index).0) {
            (IntentOutcome::Done, Some(handle)) => self.done.push(handle),
            (IntentOutcome::Refused(why), Some(handle)) => self.failed.push((handle, why)),
            (IntentOutcome::Refused(why), None) => self.refused = Some(why),
            (IntentOutcome::Done | IntentOutcome::Open, _) => (),
        }
    }
}

impl Session<'_> {
    /// Whether something is to be changed that an earlier connection, or process, did not come to.
    pub(super) async fn expect_changes(&mut self) -> Result<(), ClientError> {
        if self.changing.at.is_none() && !self.sync.vault.call(Vault::intents_due).await?.is_empty() {
            self.changing.at = Some(Instant::now());
        }
        Ok(())
    }

    /// Makes one commit in each group that is to be changed.
    pub(super) async fn change_groups(&mut self) -> Result<(), ClientError> {
        self.changing.at = None;
        let (mut has_lost, mut goes_on, mut failed) = (false, false, Vec::new());
        for conversation in self.sync.vault.call(Vault::intents_due).await? {
            let began = Instant::now();
            let pursued = self.change_group(conversation).await;
            self.changing.took = began.elapsed();
            match pursued {
                Ok(Pursued::Idle) => (),
                Ok(Pursued::Accepted | Pursued::Divided) => goes_on = true,
                Ok(Pursued::Lost { epoch }) => {
                    self.changing.lost.insert(conversation, epoch);
                    has_lost = true;
                }
                Err(error) => {
                    let error = error.confined()?;
                    tracing::warn!(%error, %conversation, "cannot change a group");
                    self.mend_later(error.retry_after());
                    failed.push((conversation, error.to_string()));
                }
            }
        }
        if has_lost || goes_on {
            self.changing.idles = 0;
            let wait = if has_lost { self.changing.after_loss() } else { self.changing.after_win() };
            self.changing.at = Some(Instant::now() + wait);
        }
        self.outbox_due = true;
        // What was refused for good has its answer; the rest stays.
        self.answer_changes().await?;
        for (conversation, why) in failed {
            self.changing.keep(conversation, &why);
        }
        self.changing.go_on_or_keep();
        Ok(())
    }

    async fn change_group(&mut self, conversation: ConversationId) -> Result<Pursued, ClientError> {
        if let Some(lost) = self.changing.lost.remove(&conversation) {
            let held = self.sync.vault.call(move |vault| vault.conversation(conversation)).await?;
            // The inbox brings whoever was faster, mostly: from elsewhere it is fetched only where it does not.
            if held.is_some_and(|held| held.epoch <= lost) {
                self.sync.fetch_commits(conversation, lost, None).await?;
                self.tell(ClientEvent::News).await;
            }
        }
        self.sync.pursue(conversation).await
    }

    /// Answers those whose change is made, or never will be.
    async fn answer_changes(&mut self) -> Result<(), ClientError> {
        for mut waiting in std::mem::take(&mut self.changing.waiting) {
            let ids: Vec<_> = waiting.open.iter().map(|(_, id)| *id).collect();
            for (id, outcome) in self.sync.vault.call(move |vault| vault.take_outcomes(&ids)).await? {
                waiting.note(id, outcome);
            }
            if !waiting.open.is_empty() {
                self.changing.waiting.push(waiting);
                continue;
            }
            let WaitingChange { conversation, done, failed, refused, reply, .. } = waiting;
            let group = self.sync.vault.call(move |vault| vault.group(conversation)).await;
            let answer = group.map(|group| GroupAnswer { conversation, name: group.name, done, failed, refused });
            let _ = reply.send(answer);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wait without its jitter is between these.
    fn is_about(wait: Duration, about: Duration) -> bool {
        (about / 2..=about * 3 / 2).contains(&wait)
    }

    #[test]
    fn who_loses_waits_as_long_as_so_many_others_need_and_no_longer() {
        let mut changing = Changing::default();
        let waits: Vec<_> = (0..40).map(|_| changing.after_loss()).collect();
        let most = (0..40).map(|times| CHANGE_AGAIN_FIRST * (1 << times.min(6)));
        let sooner = (0..40).map(|times| 1 << (times / CHANGE_LOSSES_FAIR));
        let mut expected = most.zip(sooner).map(|(most, sooner)| most / sooner);
        assert!(waits.iter().all(|wait| is_about(*wait, expected.next().unwrap())), "{waits:?}");
        changing.losses_in_a_row = 0;
        changing.took = Duration::from_millis(50);
        assert!(is_about(changing.after_loss(), 64 * changing.took), "turns are as long as attempts are");
        changing.took = Duration::from_secs(1);
        assert!(is_about(changing.after_loss(), CHANGE_AGAIN_MAX));
    }

    #[test]
    fn who_wins_goes_on_at_once_but_not_before_all_who_lost_as_it_did() {
        let mut changing = Changing::default();
        assert_eq!(changing.after_win(), Duration::ZERO);
        for _ in 0..5 {
            changing.after_loss();
        }
        assert!(is_about(changing.after_win(), CHANGE_AGAIN_FIRST * 4));
        assert!(is_about(changing.after_win(), CHANGE_AGAIN_FIRST * 2));
        assert_eq!(changing.after_win(), Duration::ZERO);
    }
}
