//! What a session does by the clock: joining, renewing keys, and trying again what was refused.

use std::time::Duration;

use gureum_proto::{ConversationId, Notice};
use rand::Rng;
use tokio::time::Instant;

use super::Session;
use crate::client::error::ClientError;
use crate::client::event::ClientEvent;
use crate::client::sync::Left;
use crate::limits::{
    GROUP_REMOVAL_PATIENCE, HOLE_AGAIN, MEND_FIRST, REFILL_PAUSE, REMOVAL_PATIENCE, UPKEEP_EVERY, UPKEEP_RETRY,
    WELCOME_PATIENCE,
};
use crate::vault::{Removals, Vault};

impl Session<'_> {
    /// What waits until everything readable is read: state that no inbox entry brings any more.
    pub(super) async fn after_catching_up(&mut self) -> Result<(), ClientError> {
        self.tell_withheld().await?;
        // A server that hides a conversation says that nothing differs.
        self.must_compare |= self.sync.vault.call(Vault::awaits_conversations).await?;
        self.must_compare |= self.still_differs().await?;
        self.compare().await?;
        let resubmitted = self.sync.resubmit_commits().await?;
        self.mend_unless_done(resubmitted);
        self.keep_in_step().await?;
        self.keep_push().await?;
        self.expect_welcomes().await?;
        // That makes nobody wait who wants to read. But it comes before anything is said, and before whoever waits goes away
        // where no next connection follows.
        self.may_renew = true;
        let waits = !self.deferred.is_empty() || self.sync.vault.call(Vault::outbox_len).await? > 0;
        if waits || self.options.is_last {
            self.renew_keys().await?;
        }
        self.expect_changes().await?;
        self.hand_over_history().await?;
        self.outbox_due = true;
        // What was owed before this connection is owed still; where no next one follows, nothing more comes to wait for.
        if self.options.is_last {
            self.tell_decisions().await?;
            self.send_receipts().await
        } else {
            self.decisions_due();
            self.receipts_later();
            Ok(())
        }
    }

    /// Whether the server's list may say more than the inbox has, where the digest of the Hello was not the server's.
    ///
    /// It says nothing more where this device now has what the digest in Ready was made from. The server reads the head of the
    /// inbox before the epochs, and writes a commit or Welcome with its entry in the inbox at once: what is not in that
    /// digest comes behind that head, to this connection. A device that is beyond the digest has taken some of that already,
    /// or made a commit itself, and lists once too often.
    async fn still_differs(&mut self) -> Result<bool, ClientError> {
        match self.differs_from.take() {
            Some(servers) => Ok(self.sync.vault.call(Vault::epochs_digest).await? != servers),
            None => Ok(false),
        }
    }

    /// Renews this device's keys where that is due.
    pub(super) async fn renew_keys(&mut self) -> Result<(), ClientError> {
        self.may_renew = false;
        let renewed = self.sync.renew_keys().await?;
        self.mend_unless_done(renewed);
        Ok(())
    }

    /// The devices of an account have a conversation of their own as soon as there are two.
    async fn keep_in_step(&mut self) -> Result<(), ClientError> {
        if self.has_siblings {
            let begun = self.sync.begin_own().await?;
            self.mend_unless_done(begun);
        }
        Ok(())
    }

    /// Compares with what the server lists, if anything may differ.
    pub(super) async fn compare(&mut self) -> Result<(), ClientError> {
        if std::mem::take(&mut self.must_compare) {
            let compared = self.sync.compare_conversations().await?;
            self.mend_unless_done(compared);
            self.answer_gone_back().await?;
        }
        Ok(())
    }

    /// A conversation begun elsewhere comes as a Welcome, soon; else this device joins without one.
    pub(super) async fn expect_welcomes(&mut self) -> Result<(), ClientError> {
        if self.join_at.is_none() && !self.to_join().await?.is_empty() {
            self.join_at = Some(Instant::now() + WELCOME_PATIENCE);
        }
        Ok(())
    }

    /// Conversations that this device is not in, and those that it has older keys of than it has used before: what these
    /// open in the inbox is read first.
    async fn to_join(&self) -> Result<Vec<ConversationId>, ClientError> {
        let mut conversations = self.sync.absent().await?;
        if self.options.subscribed && self.caught_up {
            conversations.extend(self.sync.vault.call(Vault::rejoins_due).await?);
        }
        Ok(conversations)
    }

    pub(super) async fn join_absent(&mut self) -> Result<(), ClientError> {
        self.join_at = None;
        for conversation in self.to_join().await? {
            if let Err(error) = self.sync.rejoin(conversation).await {
                let error = error.confined()?;
                tracing::warn!(%error, %conversation, "cannot join a conversation");
                self.keep_waiting_out(|waiting| waiting.conversation == conversation, &error.to_string());
                self.mend_later(error.retry_after());
            } else if self.sync.vault.call(Vault::removals_due).await?.contains(&conversation) {
                // Who has just come in is up to date, and the other devices of an account that was brought back are gone.
                self.remove_now(conversation).await?;
            }
        }
        self.expect_changes().await?;
        // Who comes into the conversation of the own devices has something to ask there.
        self.receipts_later();
        self.hand_over_history().await?;
        self.outbox_due = true;
        self.tell(ClientEvent::News).await;
        Ok(())
    }

    /// Leaves removals to others for a while: one is enough, and who comes later has lost a race.
    pub(super) fn remove_later(&mut self, removals: Removals) {
        let longest = match removals {
            Removals::Nothing => return,
            Removals::FromPairs => REMOVAL_PATIENCE,
            Removals::FromGroups => GROUP_REMOVAL_PATIENCE,
        };
        // What failed is tried again when the rest is.
        if self.mend_at.is_none() {
            let patience = longest.mul_f64(rand::rng().random_range(0.0..1.0));
            self.remove_at.get_or_insert_with(|| Instant::now() + patience);
        }
    }

    pub(super) async fn remove_revoked(&mut self) -> Result<(), ClientError> {
        self.remove_at = None;
        for conversation in self.sync.vault.call(Vault::removals_due).await? {
            self.remove_now(conversation).await?;
        }
        self.answer_gone_back().await?;
        self.outbox_due = true;
        self.tell(ClientEvent::News).await;
        Ok(())
    }

    /// Removes the revoked devices of a conversation; `false` where that has to wait.
    pub(super) async fn remove_now(&mut self, conversation: ConversationId) -> Result<bool, ClientError> {
        let Err(error) = self.sync.remove_revoked(conversation).await else { return Ok(true) };
        let error = error.confined()?;
        tracing::warn!(%error, %conversation, "cannot remove a revoked device");
        self.keep_waiting_out(|waiting| waiting.conversation == conversation, &error.to_string());
        self.sync.vault.call(move |vault| vault.release_counters(conversation)).await?;
        self.mend_later(error.retry_after());
        Ok(false)
    }

    /// Tries again what was refused, and says when to try once more what still is.
    pub(super) async fn mend(&mut self) -> Result<(), ClientError> {
        self.mend_at = None;
        if self.is_behind() || (self.options.subscribed && !self.tidied) {
            // Joining makes what was sent before it unreadable: the inbox comes first. Nothing was tried, and so the next
            // attempt comes no later for it.
            self.mend_at = Some(Instant::now() + MEND_FIRST);
            return Ok(());
        }
        // A Welcome may be on its way, or in an inbox that another process takes: it makes more readable than joining does.
        let joins = self.options.subscribed && self.join_at.is_none();
        let mut left = self.sync.mend(joins).await?;
        left.add(self.try_push().await?);
        self.answer_gone_back().await?;
        if self.has_siblings && self.caught_up {
            left.add(self.sync.begin_own().await?);
            self.expect_welcomes().await?;
        }
        self.expect_changes().await?;
        match left.refused {
            Some(asked) => self.mend_later(asked),
            None => self.mend_wait.reset(),
        }
        if left.tried {
            self.hand_over_history().await?;
            self.outbox_due = true;
            self.tell(ClientEvent::News).await;
        }
        Ok(())
    }

    /// Plans the next attempt, no sooner than the server asks for.
    pub(super) fn mend_later(&mut self, asked: Duration) {
        if self.mend_at.is_none() {
            self.mend_at = Some(Instant::now() + self.mend_wait.wait(asked));
        }
    }

    pub(super) fn mend_unless_done(&mut self, left: Left) {
        if let Some(asked) = left.refused {
            self.mend_later(asked);
        }
    }

    /// What a connection that lasts for weeks must not leave to the next one.
    pub(super) async fn upkeep(&mut self) -> Result<(), ClientError> {
        let kept = self.sync.keep_up().await?;
        self.upkeep_at = Instant::now() + wait(kept);
        if self.caught_up {
            // Whoever had no KeyPackage when it was begun has not heard of it.
            self.keep_in_step().await?;
            self.expect_welcomes().await?;
            self.hand_over_history().await?;
        }
        self.renew_keys().await?;
        // Another process of this home may have something to tell and no connection.
        self.receipts_later();
        self.outbox_due = true;
        Ok(())
    }

    /// Tells of messages that are missing for so long that the server must withhold them.
    pub(super) async fn tell_withheld(&mut self) -> Result<(), ClientError> {
        let told = self.sync.vault.call(Vault::tell_withheld).await?;
        if !told.is_empty() {
            self.tell(ClientEvent::News).await;
        }
        let due = self.sync.vault.call(Vault::withheld_due_ms).await?;
        // One that is due and was not told waits for the answer to an own message.
        self.withheld_at = due.map(|wait_ms| Instant::now() + Duration::from_millis(wait_ms).max(HOLE_AGAIN));
        Ok(())
    }

    /// Puts KeyPackages in the place of those that others have claimed.
    pub(super) async fn refill(&mut self) -> Result<(), ClientError> {
        let Some(notice) = self.refill.take(Instant::now()) else { return Ok(()) };
        let filled = self.sync.refill(notice.last_resort_used).await?;
        if filled.refused.is_some() {
            self.refill.postpone(notice, Instant::now() + wait(filled));
        }
        Ok(())
    }
}

/// What the server has said of this device's KeyPackages and nothing was done about yet.
#[derive(Debug, Default)]
pub(super) struct Refill {
    noticed: Option<Notice>,
    /// Notices that come fast, or without end, are answered at a pace.
    not_before: Option<Instant>,
}

impl Refill {
    pub(super) fn note(&mut self, notice: Notice) {
        let last_resort_used = notice.last_resort_used || self.noticed.is_some_and(|before| before.last_resort_used);
        self.noticed = Some(Notice { last_resort_used, ..notice });
    }

    /// Nothing could be done; what comes meanwhile waits as well.
    pub(super) fn postpone(&mut self, notice: Notice, until: Instant) {
        self.note(notice);
        self.not_before = Some(until);
    }

    /// When something is to be done.
    pub(super) fn at(&self) -> Option<Instant> {
        self.noticed.map(|_| self.not_before.unwrap_or_else(Instant::now))
    }

    pub(super) fn take(&mut self, now: Instant) -> Option<Notice> {
        let noticed = self.noticed.take()?;
        self.not_before = Some(now + REFILL_PAUSE);
        Some(noticed)
    }
}

/// Until the next upkeep: jittered, so that those who came together do not come back together.
pub(super) fn wait(left: Left) -> Duration {
    let whole = left.refused.map_or(UPKEEP_EVERY, |asked| asked.max(UPKEEP_RETRY));
    whole.mul_f64(rand::rng().random_range(0.5..=1.0))
}
