//! What a device has seen goes back with its home, when an older copy of that is put in its place.

use gureum_client::vault::HistoryItem;

use super::{Model, Seen};
use crate::sim::installation::Who;

/// What a device had seen when its home was copied.
#[derive(Debug)]
pub(super) struct Kept {
    seen: Seen,
    /// How often the server had forgotten by then.
    forgets: u64,
}

impl Model {
    /// Something has let the server forget what was not synced, or may have kept it from writing that.
    pub fn server_forgets(&self) {
        self.inner().forgets += 1;
    }

    /// A home was copied.
    pub fn copied(&self, who: Who) {
        let mut inner = self.inner();
        let forgets = inner.forgets;
        let seen = inner.seen(who);
        seen.was_in_step = false;
        let kept = Kept { seen: seen.clone(), forgets };
        inner.copies.insert(who, kept);
    }

    /// The copy of a home is in its place, and the home is gone that had this history. `is_sure`: nothing keeps the server
    /// from knowing of the newer one.
    pub fn put_back(&self, who: Who, history: &[HistoryItem], is_sure: bool) {
        let mut inner = self.inner();
        let Some(Kept { seen: before, forgets }) = inner.copies.remove(&who) else { return };
        let is_known = is_sure && forgets == inner.forgets;
        let seen = inner.seen(who);
        let device = seen.device;
        let own = history.iter().filter_map(|item| match item {
            HistoryItem::Message(message) if Some(message.device) == device => Some(message.clone()),
            _ => None,
        });
        seen.written_before.extend(own);
        seen.had_before.append(&mut seen.texts);
        let newer = std::mem::take(seen);
        *seen = Seen {
            failed: newer.failed,
            life: newer.life,
            may_be_revoked: newer.may_be_revoked,
            revoked_ms: newer.revoked_ms,
            put_back_life: Some(newer.life),
            must_be_told: (is_known && newer.was_in_step).then_some(forgets),
            written_before: newer.written_before,
            had_before: newer.had_before,
            ..before
        };
    }

    /// A device says that it is in step.
    pub fn in_step(&self, who: Who) {
        let mut inner = self.inner();
        let forgets = inner.forgets;
        let seen = inner.seen(who);
        seen.was_in_step = true;
        let is_unnoticed = seen.must_be_told.take() == Some(forgets);
        self.journal.check(!is_unnoticed, "an older copy is told that it is one", || who.to_string());
    }
}
