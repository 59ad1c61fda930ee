//! A server without its network: the store, the keyring and the planner of a data directory, put together as a server does it.

use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use gureum_server::router::{Op, Plan, PlanConfig, Planner, Seal};
use gureum_server::seal::Keyring;
use gureum_server::store::rocks::RocksStore;
use gureum_server::store::{Batch, Change, Durability, Expiry, Family, Footprint, Store, TakenFloors};
use gureum_server::time::{Clock, WallClock, load_last_known_ms, save_last_known_ms};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use crate::proven::{COMMIT_RETENTION_MS, RETENTION_MS};

/// The server's defaults.
const INBOX_ENTRIES_MAX: u64 = 100_000;
const INBOX_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What the store was handed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Messages.
    pub messages: u64,
    /// Keys and values of everything.
    pub bytes: u64,
    /// Of them, those of bodies.
    pub body_bytes: u64,
    /// And those of entries of inboxes.
    pub pointer_bytes: u64,
}

/// The storing half of a server.
pub struct Machine {
    directory: PathBuf,
    clock: Arc<Clock>,
    store: Arc<RocksStore>,
    keyring: Arc<Keyring>,
    floors: Arc<TakenFloors>,
    planner: Planner,
    plan: Plan,
}

impl Machine {
    /// Opens a data directory, or makes one, with the server's default settings.
    ///
    /// # Errors
    /// What the disk says, or the clock.
    pub fn open(directory: &Path, source: Arc<dyn WallClock>) -> Result<Self> {
        let clock = Arc::new(Clock::resume(source, RETENTION_MS, load_last_known_ms(directory)?)?);
        let floors = Arc::new(TakenFloors::default());
        let expiry = Expiry {
            clock: Arc::clone(&clock),
            retention_ms: RETENTION_MS,
            commit_retention_ms: COMMIT_RETENTION_MS,
            floors: Arc::clone(&floors),
        };
        let store = Arc::new(RocksStore::open(directory, expiry)?);
        let keyring = Arc::new(Keyring::open(&directory.join("keys"), None, RETENTION_MS)?);
        keyring.tick(clock.now_ms())?;
        let config = PlanConfig {
            retention_ms: RETENTION_MS,
            inbox_entries_max: INBOX_ENTRIES_MAX,
            inbox_bytes_max: INBOX_BYTES_MAX,
        };
        let mut random = StdRng::seed_from_u64(clock.now_ms());
        let entropy = Box::new(move || random.random::<u128>());
        let seal = Arc::clone(&keyring) as Arc<dyn Seal>;
        let planner = Planner::new(Arc::clone(&store) as Arc<dyn Store>, seal, config, entropy);
        let directory = directory.to_owned();
        Ok(Self { directory, clock, store, keyring, floors, planner, plan: Plan::default() })
    }

    /// The server's time.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Writes records beside the planner, which must not know of them yet.
    ///
    /// # Errors
    /// What the disk says.
    pub fn begin(&self, records: &Batch) -> Result<()> {
        Ok(self.store.write(records, Durability::Lazy)?)
    }

    /// Adds to the batch in hand.
    ///
    /// # Errors
    /// It cannot be planned.
    pub fn add(&mut self, op: Op) -> Result<()> {
        let now_ms = self.clock.now_ms();
        Ok(self.planner.add(op, now_ms, &mut self.plan)?)
    }

    /// Writes the batch in hand.
    ///
    /// # Errors
    /// A message is refused, or the disk refuses.
    pub fn commit(&mut self, durability: Durability) -> Result<Written> {
        self.planner.finish(&mut self.plan);
        let refused = self.plan.sent.iter().find_map(|sent| sent.result.as_ref().err());
        ensure!(refused.is_none(), "the planner refuses a message: {refused:?}");
        self.store.write(&self.plan.batch, durability)?;
        for (account, seq) in &self.plan.floors {
            self.floors.raise(account, *seq);
        }
        let written = Written::of(&self.plan.batch);
        self.plan.clear();
        Ok(written)
    }

    /// A round of maintenance, as a server makes it, and what the database makes of it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn round(&self) -> Result<()> {
        let now_ms = self.clock.now_ms();
        self.keyring.tick(now_ms)?;
        self.keyring.destroy_expired(now_ms)?;
        self.store.reclaim()?;
        Ok(self.store.settle()?)
    }

    /// What the store takes and has done.
    ///
    /// # Errors
    /// What the disk says.
    pub fn footprint(&self) -> Result<Footprint> {
        Ok(self.store.footprint()?)
    }

    /// Leaves everything in tables, with nothing to rewrite, for a server to go on with.
    ///
    /// # Errors
    /// What the disk says.
    pub fn close(self) -> Result<()> {
        self.store.close()?;
        self.store.settle()?;
        Ok(save_last_known_ms(&self.directory, self.clock.now_ms())?)
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Written {
    fn of(batch: &Batch) -> Self {
        let mut written = Self { bytes: bytes(batch.bytes()), ..Self::default() };
        for change in batch.changes() {
            match change {
                Change::Put { family: Family::Message, key, value } => {
                    written.messages += 1;
                    written.body_bytes += bytes(key.len() + value.len());
                }
                Change::Put { family: Family::Inbox, key, value } => {
                    written.pointer_bytes += bytes(key.len() + value.len());
                }
                Change::Put { .. } | Change::Delete { .. } => {}
            }
        }
        written
    }

    /// What came after an earlier count.
    #[must_use]
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(before.messages),
            bytes: self.bytes.saturating_sub(before.bytes),
            body_bytes: self.body_bytes.saturating_sub(before.body_bytes),
            pointer_bytes: self.pointer_bytes.saturating_sub(before.pointer_bytes),
        }
    }

    /// Those of everything but bodies and entries: heads, cursors, numbers, results of sends.
    #[must_use]
    pub const fn state_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.body_bytes).saturating_sub(self.pointer_bytes)
    }
}

impl AddAssign for Written {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.body_bytes += other.body_bytes;
        self.pointer_bytes += other.pointer_bytes;
    }
}

fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_keys_and_values() {
        let mut batch = Batch::new();
        batch.put(Family::Message, [1_u8; 16], [2_u8; 300]);
        batch.put(Family::Inbox, [3_u8; 24], [4_u8; 34]);
        batch.put(Family::Cursor, [5_u8; 33], [6_u8; 17]);
        batch.delete(Family::Meta, [7_u8; 4]);
        let mut written = Written::of(&batch);
        let expected = Written { messages: 1, bytes: 316 + 58 + 50 + 4, body_bytes: 316, pointer_bytes: 58 };
        assert_eq!((written, written.state_bytes()), (expected, 54));
        written += expected;
        assert_eq!(written.since(&expected), expected);
    }
}
