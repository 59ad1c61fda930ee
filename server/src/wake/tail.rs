//! The newest entries of one inbox, dense and ascending, up to its head.

use std::collections::VecDeque;

use super::Delivery;
use crate::limits::{TAIL_ENTRIES_MAX, TAIL_ENTRY_OVERHEAD_BYTES};

/// Invariant: the positions are dense, and the last one is the inbox's head as long as anybody reads the tail.
#[derive(Debug, Default)]
pub(super) struct Tail {
    entries: VecDeque<Delivery>,
}

impl Tail {
    /// Adds the next entry; returns the bytes that the tail has grown by.
    pub(super) fn push(&mut self, delivery: Delivery) -> usize {
        let bytes = weight(&delivery);
        self.entries.push_back(delivery);
        bytes
    }

    /// Whether this is the entry that follows the last.
    pub(super) fn continues_with(&self, delivery: &Delivery) -> bool {
        self.entries.back().is_none_or(|last| last.position.seq + 1 == delivery.position.seq)
    }

    /// Whether it has come to this entry or further.
    pub(super) fn holds_past(&self, delivery: &Delivery) -> bool {
        self.entries.back().is_some_and(|last| last.position.seq >= delivery.position.seq)
    }

    #[cfg(test)]
    pub(super) fn entries_weight(&self) -> usize {
        self.entries.iter().map(weight).sum()
    }

    /// Drops the oldest past the bound; returns the bytes that it has shrunk by.
    pub(super) fn trim(&mut self) -> usize {
        let surplus = self.entries.len().saturating_sub(TAIL_ENTRIES_MAX);
        self.entries.drain(..surplus).map(|entry| weight(&entry)).sum()
    }

    /// Drops everything; returns the bytes freed.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(&mut self.entries).iter().map(weight).sum()
    }

    /// The entries after a position, if the tail begins at or before it.
    pub(super) fn after(&self, after_seq: u64, entries_max: usize, bytes_max: usize) -> Option<Vec<Delivery>> {
        let first = self.entries.front()?.position.seq;
        let skip = usize::try_from((after_seq + 1).checked_sub(first)?).ok()?;
        let mut bytes = 0;
        let page = self.entries.iter().skip(skip).take(entries_max).take_while(|entry| {
            let fits = bytes < bytes_max;
            bytes += entry.shared.len();
            fits
        });
        Some(page.cloned().collect())
    }
}

fn weight(delivery: &Delivery) -> usize {
    delivery.shared.len() + TAIL_ENTRY_OVERHEAD_BYTES
}
