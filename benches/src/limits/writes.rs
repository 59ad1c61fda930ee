//! The batches that the server writes: made by its own planner, of devices that it has let in, over a store in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use gureum_proto::{AccountId, ConversationId, ConversationKind, DeviceId, MessageId, Position, Send};
use gureum_server::router::{Op, Plan, PlanConfig, Planner, Seal};
use gureum_server::seal::SEAL_OVERHEAD_BYTES;
use gureum_server::session::Authenticated;
use gureum_server::store::key::{self, ConversationTag, CursorTag};
use gureum_server::store::memory::MemoryStore;
use gureum_server::store::record::{ConversationHead, Cursor, Member, SealedMessage};
use gureum_server::store::{Batch, Durability, Expiry, Family, Store, StoreError, TakenFloors};
use gureum_server::time::{Clock, SystemClock};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::proven::{COMMIT_RETENTION_MS, RETENTION_MS, session};

/// The epoch of every conversation.
pub(crate) const EPOCH: u64 = 1;

/// What decides on expiry in a fresh store.
///
/// # Errors
/// The system's clock is of no use.
pub fn expiry() -> Result<Expiry> {
    let clock = Clock::resume(Arc::new(SystemClock::new()), RETENTION_MS, None)?;
    Ok(Expiry {
        clock: Arc::new(clock),
        retention_ms: RETENTION_MS,
        commit_retention_ms: COMMIT_RETENTION_MS,
        floors: Arc::new(TakenFloors::default()),
    })
}

/// What one batch is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchShape {
    /// Messages.
    pub messages: u64,
    /// Pairs that they are of.
    pub senders: u64,
    /// Receivers that ack what earlier batches brought, as far as there are so many.
    pub cursors: u64,
}

/// Changes that a batch has for each thing in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// For a message.
    pub message: u64,
    /// For a pair that has messages in it.
    pub sender: u64,
    /// For an ack.
    pub cursor: u64,
}

struct Pair {
    sender: Authenticated,
    receiver: Authenticated,
    conversation: ConversationId,
    sent: u64,
    /// Whether it is among those that have something to ack.
    is_due: bool,
}

/// Makes batches.
pub struct Writes {
    expiry: Expiry,
    planner: Planner,
    plan: Plan,
    pairs: Vec<Pair>,
    body: Bytes,
    /// Which pair sends next.
    next: usize,
    due: VecDeque<usize>,
}

impl Writes {
    /// For so many pairs, whose messages have so many bytes.
    ///
    /// # Errors
    /// A device is not let in.
    pub fn new(expiry: Expiry, pairs: usize, sealed_bytes: usize) -> Result<Self> {
        // Always the same ids, without an order among them.
        let mut random = StdRng::seed_from_u64(1);
        let store = Arc::new(MemoryStore::new(expiry.clone()));
        let mut batch = Batch::new();
        let pairs = (0..pairs)
            .map(|_| {
                let pair = Pair {
                    sender: let_in(&mut random)?,
                    receiver: let_in(&mut random)?,
                    conversation: ConversationId::from_bytes(random.random()),
                    sent: 0,
                    is_due: false,
                };
                pair.begin(&mut batch);
                Ok(pair)
            })
            .collect::<Result<Vec<_>>>()?;
        store.write(&batch, Durability::Lazy)?;
        let config = PlanConfig { retention_ms: RETENTION_MS, inbox_entries_max: u64::MAX, inbox_bytes_max: u64::MAX };
        let entropy = Box::new(move || random.random::<u128>());
        Ok(Self {
            expiry,
            planner: Planner::new(store, Arc::new(Padding), config, entropy),
            plan: Plan::default(),
            pairs,
            body: Bytes::from(vec![0x5a; sealed_bytes]),
            next: 0,
            due: VecDeque::new(),
        })
    }

    /// Changes that this server's batches have for each thing in them.
    ///
    /// # Errors
    /// A batch cannot be made.
    pub fn unit() -> Result<Unit> {
        let mut writes = Self::new(expiry()?, 2, 256)?;
        let mut changes = |messages, cursors| -> Result<u64> {
            Ok(u64::try_from(writes.batch(BatchShape { messages, senders: 1, cursors })?.len())?)
        };
        let (one, two, acked) = (changes(1, 0)?, changes(2, 0)?, changes(1, 1)?);
        let message = two.saturating_sub(one);
        Ok(Unit { message, sender: one.saturating_sub(message), cursor: acked.saturating_sub(one) })
    }

    /// The next batch.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn batch(&mut self, shape: BatchShape) -> Result<Batch> {
        let now_ms = self.expiry.clock.now_ms();
        self.plan.clear();
        for _ in 0..shape.cursors {
            let Some(index) = self.due.pop_front() else { break };
            let pair = self.pairs.get_mut(index).context("there is no pair")?;
            pair.is_due = false;
            let position = Position { seq: pair.sent, count: pair.sent };
            self.planner.add(Op::Ack { from: pair.receiver, position }, now_ms, &mut self.plan)?;
        }
        let senders = usize::try_from(shape.senders.clamp(1, shape.messages.max(1)))?.min(self.pairs.len());
        for turn in (0..senders).cycle().take(usize::try_from(shape.messages)?) {
            let index = (self.next + turn) % self.pairs.len();
            let pair = self.pairs.get_mut(index).context("there is no pair")?;
            pair.sent += 1;
            if !std::mem::replace(&mut pair.is_due, true) {
                self.due.push_back(index);
            }
            let (counter, conversation, ciphertext) = (pair.sent, pair.conversation, self.body.clone());
            let send = Send { counter, conversation, epoch: EPOCH, ciphertext, silent: false };
            self.planner.add(Op::Send { from: pair.sender, send }, now_ms, &mut self.plan)?;
        }
        self.next = self.next.wrapping_add(senders) % self.pairs.len().max(1);
        self.planner.finish(&mut self.plan);
        for (account, seq) in &self.plan.floors {
            self.expiry.floors.raise(account, *seq);
        }
        let refused = self.plan.sent.iter().find_map(|sent| sent.result.as_ref().err());
        anyhow::ensure!(refused.is_none(), "the planner refuses a message: {refused:?}");
        Ok(std::mem::take(&mut self.plan.batch))
    }
}

impl std::fmt::Debug for Writes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writes").field("pairs", &self.pairs.len()).finish_non_exhaustive()
    }
}

impl Pair {
    /// What a conversation of the two has left in the store.
    fn begin(&self, batch: &mut Batch) {
        let devices = [self.sender, self.receiver];
        let member =
            |(leaf, device): (u32, &Authenticated)| Member { account: device.account(), device: device.device(), leaf };
        let head = ConversationHead {
            epoch: EPOCH,
            created_ms: 0,
            kind: ConversationKind::Direct,
            members: (0..).zip(&devices).map(member).collect(),
        };
        batch.put_record(Family::Conversation, key::conversation(&self.conversation, ConversationTag::Head), &head);
        for device in devices {
            let cursor = key::cursor(&device.account(), &device.device(), CursorTag::Cursor);
            batch.put_record(Family::Cursor, cursor, &Cursor::default());
        }
    }
}

/// Lets a new device in, as the server does: by its proof.
pub(crate) fn let_in(random: &mut StdRng) -> Result<Authenticated> {
    let key = SigningKey::from_bytes(&random.random());
    let ids = (AccountId::from_bytes(random.random()), DeviceId::from_bytes(random.random()));
    session(&key, ids, false, 0).authority().context("a device was not let in")
}

/// Makes bodies as long as sealing does, at the cost of a copy.
struct Padding;

impl Seal for Padding {
    fn seal(&self, _id: MessageId, plain: &[u8], _now_ms: u64) -> Result<SealedMessage, StoreError> {
        let ciphertext = [plain, &[0; SEAL_OVERHEAD_BYTES]].concat();
        Ok(SealedMessage { key_id: 0, nonce: [0; 12], ciphertext: ciphertext.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_body_an_entry_and_a_result_and_its_pair_has_its_state_once() {
        assert_eq!(Writes::unit().unwrap(), Unit { message: 3, sender: 2, cursor: 1 });
    }

    #[test]
    fn batches_have_the_shape_that_was_asked_for() {
        let unit = Writes::unit().unwrap();
        let mut writes = Writes::new(expiry().unwrap(), 7, 256).unwrap();
        for (messages, senders, acked, cursors) in [(10, 5, 0, 3), (3, 3, 3, 3), (1, 1, 5, 9), (0, 0, 1, 4)] {
            let batch = writes.batch(BatchShape { messages, senders, cursors }).unwrap();
            let expected = messages * unit.message + senders * unit.sender + acked * unit.cursor;
            assert_eq!(u64::try_from(batch.len()).unwrap(), expected, "{messages} {senders} {cursors}");
        }
    }

    #[test]
    fn a_body_weighs_as_much_as_when_it_is_sealed() {
        let bytes = |sealed_bytes| {
            let mut writes = Writes::new(expiry().unwrap(), 1, sealed_bytes).unwrap();
            writes.batch(BatchShape { messages: 1, senders: 1, cursors: 0 }).unwrap().bytes()
        };
        let overhead = bytes(256) - 256;
        assert_eq!(bytes(1_256) - 1_256, overhead);
        assert!(overhead > SEAL_OVERHEAD_BYTES);
    }
}
