//! What a session does by the clock: joining, renewing keys, and trying again what was refused.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::Session;
use crate::client::error::ClientError;
use crate::client::event::ClientEvent;
use crate::client::sync::Left;
use crate::limits::{GROUP_REMOVAL_PATIENCE, REMOVAL_PATIENCE, UPKEEP_EVERY, UPKEEP_RETRY, WELCOME_PATIENCE};
use crate::vault::{Removals, Vault};

impl Session<'_> {
    /// What waits until everything readable is read: state that no inbox entry brings any more.
    pub(super) async fn after_catching_up(&mut self) -> Result<(), ClientError> {
        self.compare().await?;
        let resubmitted = self.sync.resubmit_commits().await?;
        self.mend_unless_done(resubmitted);
        self.expect_welcomes().await?;
        let renewed = self.sync.renew_keys().await?;
        self.mend_unless_done(renewed);
        self.expect_changes().await?;
        self.outbox_due = true;
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
        if self.join_at.is_none() && !self.sync.absent().await?.is_empty() {
            self.join_at = Some(Instant::now() + WELCOME_PATIENCE);
        }
        Ok(())
    }

    pub(super) async fn join_absent(&mut self) -> Result<(), ClientError> {
        self.join_at = None;
        for conversation in self.sync.absent().await? {
            if let Err(error) = self.sync.rejoin(conversation).await {
                let error = error.confined()?;
                tracing::warn!(%error, %conversation, "cannot join a conversation");
                self.keep_waiting_out(|waiting| waiting.conversation == conversation, &error.to_string());
                self.mend_later(error.retry_after());
            }
        }
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
            if let Err(error) = self.sync.remove_revoked(conversation).await {
                let error = error.confined()?;
                tracing::warn!(%error, %conversation, "cannot remove a revoked device");
                self.keep_waiting_out(|waiting| waiting.conversation == conversation, &error.to_string());
                self.sync.vault.call(move |vault| vault.release_counters(conversation)).await?;
                self.mend_later(error.retry_after());
            }
        }
        self.answer_gone_back().await?;
        self.outbox_due = true;
        self.tell(ClientEvent::News).await;
        Ok(())
    }

    /// Tries again what was refused, and says when to try once more what still is.
    pub(super) async fn mend(&mut self) -> Result<(), ClientError> {
        self.mend_at = None;
        if self.options.subscribed && !self.tidied {
            // Joining makes what was sent before it unreadable: the inbox comes first.
            self.mend_later(Duration::ZERO);
            return Ok(());
        }
        // A Welcome may be on its way, or in an inbox that another process takes: it makes more readable than joining does.
        let joins = self.options.subscribed && self.join_at.is_none();
        let left = self.sync.mend(joins).await?;
        self.answer_gone_back().await?;
        self.expect_changes().await?;
        match left.refused {
            Some(asked) => self.mend_later(asked),
            None => self.mend_wait.reset(),
        }
        if left.tried {
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
        let renewed = self.sync.renew_keys().await?;
        self.mend_unless_done(renewed);
        self.outbox_due = true;
        Ok(())
    }
}

/// Until the next upkeep: jittered, so that those who came together do not come back together.
pub(super) fn wait(left: Left) -> Duration {
    let whole = left.refused.map_or(UPKEEP_EVERY, |asked| asked.max(UPKEEP_RETRY));
    whole.mul_f64(rand::rng().random_range(0.5..=1.0))
}
