//! What a session tells the server of people and conversations, and hears of it about the account's phone number.

use std::time::Duration;

use gureum_proto::PhoneNotice;
use tokio::time::Instant;

use super::Session;
use crate::client::error::ClientError;
use crate::client::event::ClientEvent;
use crate::client::sync::Told;
use crate::limits::MEND_FIRST;

impl Session<'_> {
    /// Tells the server what was decided and it has not heard: so much that nobody waits for it.
    pub(super) async fn tell_decisions(&mut self) -> Result<(), ClientError> {
        self.decisions_at = match self.sync.tell_decisions().await? {
            Told::All => None,
            Told::More => Some(Instant::now()),
            Told::Later(error) => {
                let wait = Duration::from_millis(error.retry_after_ms()).max(MEND_FIRST);
                Some(Instant::now() + wait)
            }
        };
        Ok(())
    }

    /// Something was decided: by a person, by writing to somebody, or on another device. The inbox waits for no answer to
    /// that: after it, whatever is owed is told.
    pub(super) fn decisions_due(&mut self) {
        if self.caught_up || !self.options.subscribed {
            self.decisions_at.get_or_insert_with(Instant::now);
        }
    }

    /// The account's number has moved, or somebody has tried.
    pub(super) async fn note_phone(&mut self, notice: PhoneNotice) -> Result<(), ClientError> {
        if self.sync.vault.call(move |vault| vault.note_phone(notice)).await? {
            self.tell(ClientEvent::News).await;
        }
        Ok(())
    }
}
