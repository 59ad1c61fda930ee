//! Where a device's state stands in its life, so that of two copies of it one alone goes on.

use bytes::Bytes;
use gureum_proto::LifeToken;

use super::{RECORD_VERSION, Reader, Record, RecordError};
use crate::limits::LIVES_LOST_KEPT;

/// What the server knows of a device's life. Before its first connection: zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifeRecord {
    /// How many connections have led to the newest state.
    pub generation: u64,
    /// What the last of them was given.
    pub token: LifeToken,
    /// The tokens of states that another copy has taken over from, oldest first; at most [`LIVES_LOST_KEPT`].
    pub lost: Vec<LifeToken>,
}

impl Default for LifeRecord {
    fn default() -> Self {
        Self { generation: 0, token: LifeToken::from_bytes([0; 16]), lost: Vec::new() }
    }
}

impl LifeRecord {
    /// The device has connected once more.
    pub fn go_on(&mut self, claimed_generation: u64, next: LifeToken) {
        self.generation = self.generation.max(claimed_generation).saturating_add(1);
        self.token = next;
    }

    /// An older copy goes on, and the newest state no longer. Returns whether anything changed: the same copy may ask
    /// twice.
    pub fn take_over(&mut self, next: LifeToken) -> bool {
        if self.token == next {
            return false;
        }
        if self.lost.len() >= LIVES_LOST_KEPT {
            self.lost.remove(0);
        }
        self.lost.push(self.token);
        self.go_on(0, next);
        true
    }
}

impl Record for LifeRecord {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(self.token.as_bytes());
        let kept = self.lost.len().min(LIVES_LOST_KEPT);
        out.push(u8::try_from(kept).expect("LIVES_LOST_KEPT fits a byte, as limits.rs asserts"));
        for token in self.lost.iter().skip(self.lost.len().saturating_sub(kept)) {
            out.extend_from_slice(token.as_bytes());
        }
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let (generation, token) = (reader.u64()?, LifeToken::from_bytes(reader.array()?));
        let found = usize::from(reader.u8()?);
        if found > LIVES_LOST_KEPT {
            return Err(RecordError::TooMany { found, max: LIVES_LOST_KEPT });
        }
        let mut lost = Vec::with_capacity(found);
        for _ in 0..found {
            lost.push(LifeToken::from_bytes(reader.array()?));
        }
        reader.finish(Self { generation, token, lost })
    }
}
