//! The heads of inboxes as they were a while ago.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gureum_server::store::StoreError;

use crate::sim::faults::MINUTE_MS;

/// How long a head that was written is not seen.
const UNSEEN_MS: u64 = 20 * MINUTE_MS;

/// What each head was, and since when.
type Heads = BTreeMap<Bytes, VecDeque<(u64, Option<Bytes>)>>;

/// Heads that were written since the start.
#[derive(Default)]
pub(super) struct Stale(Mutex<Heads>);

impl Stale {
    /// A head is about to be written: before the first time, what it was.
    pub(super) fn begin(
        &self,
        key: &[u8],
        was: impl FnOnce() -> Result<Option<Bytes>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut heads = self.heads();
        if !heads.contains_key(key) {
            heads.insert(Bytes::copy_from_slice(key), VecDeque::from([(0, was()?)]));
        }
        Ok(())
    }

    /// A head was written.
    pub(super) fn note(&self, key: &[u8], value: &[u8], now_ms: u64) {
        if let Some(head) = self.heads().get_mut(key) {
            head.push_back((now_ms, Some(Bytes::copy_from_slice(value))));
        }
    }

    /// What is seen of a head; `None`: what is there.
    pub(super) fn read(&self, key: &[u8], now_ms: u64) -> Option<Option<Bytes>> {
        let mut heads = self.heads();
        let head = heads.get_mut(key)?;
        while head.get(1).is_some_and(|(since_ms, _)| since_ms + UNSEEN_MS <= now_ms) {
            head.pop_front();
        }
        head.front().map(|(_, value)| value.clone())
    }

    fn heads(&self) -> MutexGuard<'_, Heads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
