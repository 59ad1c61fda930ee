//! Acks that wait for the writer's next batch. Nobody waits for an ack, so that it wakes the writer only where nothing
//! else does for a while.
//!
//! Nobody is told of one that waits: until its batch is written it counts as an ack that the network still holds.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gureum_proto::Position;
use tokio::sync::{Notify, mpsc};

use super::submit::Submission;
use crate::limits::{ACKS_AT_ONCE_MAX, ACKS_RETRY_MS, ACKS_WAIT_MS, ACKS_WAITING_MAX};
use crate::session::Authenticated;

/// The furthest ack of each device.
#[derive(Default)]
pub(super) struct Acks {
    waiting: Mutex<Waiting>,
    begun: Notify,
}

/// Invariant: `order` holds each device of `furthest` once.
#[derive(Default)]
struct Waiting {
    furthest: HashMap<Authenticated, Position>,
    /// In the order in which they came, so that none waits for ever.
    order: VecDeque<Authenticated>,
    /// A batch of theirs was not written, and none has been since.
    has_failed: bool,
}

impl Acks {
    /// Leaves an ack for the next batch. One that is further takes its device's earlier one along.
    pub(super) fn put(&self, from: Authenticated, position: Position) {
        let is_first = self.lock().put(from, position);
        if is_first {
            self.begun.notify_one();
        }
    }

    /// The oldest ones, as many as one batch takes. They are the caller's, to be written or put back.
    pub(super) fn take(&self) -> Vec<(Authenticated, Position)> {
        let mut waiting = self.lock();
        let Waiting { furthest, order, .. } = &mut *waiting;
        let count = order.len().min(ACKS_AT_ONCE_MAX);
        let acks = order.drain(..count);
        acks.filter_map(|from| Some((from, furthest.remove(&from)?))).collect()
    }

    /// Those of a batch that was not written: they wait on, and for longer.
    pub(super) fn put_back(&self, acks: Vec<(Authenticated, Position)>) {
        let mut waiting = self.lock();
        waiting.has_failed = true;
        for (from, position) in acks {
            waiting.put(from, position);
        }
        drop(waiting);
        self.begun.notify_one();
    }

    /// A batch of theirs was written.
    pub(super) fn note_written(&self) {
        self.lock().has_failed = false;
    }

    /// Whether an ack of this device waits for no disk, but for the next batch.
    pub(super) fn may_hasten(&self, from: Authenticated) -> bool {
        let waiting = self.lock();
        !waiting.has_failed && waiting.furthest.contains_key(&from)
    }

    /// Whether no ack waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().order.is_empty()
    }

    fn wait(&self) -> Duration {
        Duration::from_millis(if self.lock().has_failed { ACKS_RETRY_MS } else { ACKS_WAIT_MS })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no code panics while it holds the acks")
    }
}

impl Waiting {
    /// Whether it is the only one.
    fn put(&mut self, from: Authenticated, position: Position) -> bool {
        let is_full = self.order.len() >= ACKS_WAITING_MAX;
        match self.furthest.entry(from) {
            Entry::Occupied(mut furthest) => {
                let further = position.max(*furthest.get());
                furthest.insert(further);
                return false;
            }
            Entry::Vacant(_) if is_full => return false,
            Entry::Vacant(entry) => entry.insert(position),
        };
        self.order.push_back(from);
        self.order.len() == 1
    }
}

/// Wakes the writer for acks that no batch has taken for a while, until the writer has stopped.
pub(super) async fn nudge(acks: Arc<Acks>, queue: mpsc::WeakSender<Submission>) {
    loop {
        acks.begun.notified().await;
        loop {
            tokio::time::sleep(acks.wait()).await;
            if acks.is_empty() {
                break;
            }
            // Held no longer than this: the writer ends with the last of those who have something for it.
            let Some(queue) = queue.upgrade() else { return };
            if queue.send(Submission::Acks).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gureum_proto::{AccountId, DeviceId};

    use super::*;

    fn device(number: usize) -> Authenticated {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Authenticated::for_test(AccountId::from_bytes(bytes), DeviceId::from_bytes([1; 16]))
    }

    const fn position(seq: u64) -> Position {
        Position { seq, count: seq }
    }

    /// What one batch takes: which devices, how far.
    #[track_caller]
    fn check(acks: &Acks, expected: &[(usize, u64)]) {
        let expected: Vec<_> = expected.iter().map(|(number, seq)| (device(*number), position(*seq))).collect();
        assert_eq!(acks.take(), expected);
    }

    #[test]
    fn each_device_waits_once_with_its_furthest_ack_in_the_order_of_the_first() {
        let acks = Acks::default();
        for (number, seq) in [(1, 3), (2, 1), (1, 5), (1, 4)] {
            acks.put(device(number), position(seq));
        }
        check(&acks, &[(1, 5), (2, 1)]);
        check(&acks, &[]);
        assert!(acks.is_empty());
    }

    #[test]
    fn what_was_put_back_waits_on_and_is_overtaken_by_what_has_come_meanwhile() {
        let acks = Acks::default();
        acks.put(device(1), position(3));
        acks.put(device(2), position(3));
        let taken = acks.take();
        acks.put(device(2), position(4));
        acks.put_back(taken);
        check(&acks, &[(2, 4), (1, 3)]);
    }

    #[test]
    fn after_a_batch_that_failed_they_wait_for_longer_and_nobody_hastens_them() {
        let acks = Acks::default();
        acks.put(device(1), position(1));
        assert!(acks.may_hasten(device(1)) && !acks.may_hasten(device(2)));
        assert_eq!(acks.wait(), Duration::from_millis(ACKS_WAIT_MS));
        acks.put_back(acks.take());
        assert!(!acks.may_hasten(device(1)));
        assert_eq!(acks.wait(), Duration::from_millis(ACKS_RETRY_MS));
        acks.note_written();
        assert!(acks.may_hasten(device(1)));
        assert_eq!(acks.wait(), Duration::from_millis(ACKS_WAIT_MS));
    }

    #[test]
    fn they_are_bounded_and_one_too_many_counts_as_not_received() {
        let acks = Acks::default();
        for number in 0..=ACKS_WAITING_MAX {
            acks.put(device(number), position(1));
        }
        acks.put(device(0), position(2));
        let first = acks.take();
        assert_eq!((first.len(), first.first()), (ACKS_AT_ONCE_MAX, Some(&(device(0), position(2)))));
        let rest: usize = std::iter::from_fn(|| Some(acks.take().len()).filter(|taken| *taken > 0)).sum();
        assert_eq!(rest, ACKS_WAITING_MAX - ACKS_AT_ONCE_MAX);
    }
}
