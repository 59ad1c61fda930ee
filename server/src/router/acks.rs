//! Acks that wait for the writer's next batch. Nobody waits for an ack, so that it wakes the writer only where nothing
//! else does for a while.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gureum_proto::{AccountId, DeviceId, Position};
use tokio::sync::{Notify, mpsc};

use super::submit::Submission;
use crate::limits::{ACKS_AT_ONCE_MAX, ACKS_WAIT_MS};
use crate::session::Authenticated;

/// The furthest ack of each device. Bounded by the connections: each has one device.
#[derive(Default)]
pub(super) struct Acks {
    waiting: Mutex<Waiting>,
    begun: Notify,
}

#[derive(Default)]
struct Waiting {
    furthest: HashMap<(AccountId, DeviceId), Position>,
    /// In the order in which they came, so that none waits for ever.
    order: VecDeque<Authenticated>,
}

impl Acks {
    /// Leaves an ack for the next batch. One that is further takes its device's earlier one along.
    pub(super) fn put(&self, from: Authenticated, position: Position) {
        let mut waiting = self.lock();
        let is_first = waiting.order.is_empty();
        match waiting.furthest.entry((from.account(), from.device())) {
            Entry::Occupied(mut furthest) => {
                let further = position.max(*furthest.get());
                furthest.insert(further);
                return;
            }
            Entry::Vacant(entry) => entry.insert(position),
        };
        waiting.order.push_back(from);
        drop(waiting);
        if is_first {
            self.begun.notify_one();
        }
    }

    /// The oldest ones, as many as one batch takes.
    pub(super) fn take(&self) -> Vec<(Authenticated, Position)> {
        let mut waiting = self.lock();
        let Waiting { furthest, order } = &mut *waiting;
        let count = order.len().min(ACKS_AT_ONCE_MAX);
        let acks = order.drain(..count);
        acks.filter_map(|from| Some((from, furthest.remove(&(from.account(), from.device()))?))).collect()
    }

    /// The ack of a device that no batch has taken yet.
    pub(super) fn of(&self, account: AccountId, device: DeviceId) -> Option<Position> {
        self.lock().furthest.get(&(account, device)).copied()
    }

    /// Whether no ack waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().order.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no code panics while it holds the acks")
    }
}

/// Wakes the writer for acks that no batch has taken for a while, until the writer has stopped.
pub(super) async fn nudge(acks: Arc<Acks>, queue: mpsc::WeakSender<Submission>) {
    loop {
        acks.begun.notified().await;
        loop {
            tokio::time::sleep(Duration::from_millis(ACKS_WAIT_MS)).await;
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
