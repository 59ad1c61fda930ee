//! What a device has taken, and what it has sent.

use std::collections::VecDeque;

use bytes::Bytes;
use gureum_proto::MessageId;

use super::{RECORD_VERSION, Reader, Record, RecordError};
use crate::limits::SENT_RESULTS_KEPT;

/// How far a device has taken its inbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The last position taken.
    pub seq: u64,
    /// The running count of application messages there.
    pub count: u64,
}

impl Record for Cursor {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let cursor = Self { seq: reader.u64()?, count: reader.u64()? };
        reader.finish(cursor)
    }
}

/// What a send got for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentResult {
    /// The device's own counter.
    pub counter: u64,
    /// The id that the message got.
    pub id: MessageId,
    /// Its number in its conversation.
    pub number: u64,
}

impl Record for SentResult {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        out.extend_from_slice(&self.counter.to_be_bytes());
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let result = Self { counter: reader.u64()?, id: MessageId::from_bytes(reader.array()?), number: reader.u64()? };
        reader.finish(result)
    }
}

/// The latest sends of a device: what makes a repeated send an answer and not a second message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SenderWindow {
    /// The highest counter accepted.
    pub highest: u64,
    /// The latest results, by their counters; at most [`SENT_RESULTS_KEPT`].
    pub recent: VecDeque<SentResult>,
}

impl SenderWindow {
    /// The result of a counter, while it is remembered.
    #[must_use]
    pub fn find(&self, counter: u64) -> Option<&SentResult> {
        // A new send, as nearly all are, is looked for nowhere.
        if counter > self.highest {
            return None;
        }
        self.recent.iter().rev().find(|result| result.counter == counter)
    }

    /// Remembers a result, and forgets those that are too far behind the highest to be asked for again.
    pub fn record(&mut self, result: SentResult) {
        self.highest = self.highest.max(result.counter);
        let oldest = self.oldest_kept();
        while self.recent.front().is_some_and(|first| first.counter < oldest) {
            self.recent.pop_front();
        }
        // A device counts up: only what was refused first and is sent again has its place before others.
        let is_last = self.recent.back().is_none_or(|last| last.counter < result.counter);
        let place = match is_last {
            true => self.recent.len(),
            false => self.recent.partition_point(|kept| kept.counter < result.counter),
        };
        self.recent.insert(place, result);
    }

    /// The same with results that were written one by one since. Those that nobody can ask for any more, but whose places
    /// no other has taken, are left out.
    #[must_use]
    pub fn with(mut self, mut results: Vec<SentResult>) -> Self {
        results.sort_unstable_by_key(|result| result.counter);
        self.recent.make_contiguous().sort_unstable_by_key(|result| result.counter);
        for result in results {
            if self.find(result.counter).is_none() {
                self.record(result);
            }
        }
        let oldest = self.oldest_kept();
        self.recent.retain(|kept| kept.counter >= oldest);
        self
    }

    /// The lowest counter that is still told apart: whatever is below it counts as accepted.
    ///
    /// `recent` holds every accepted counter from here to `highest`, which are at most [`SENT_RESULTS_KEPT`].
    #[must_use]
    pub fn oldest_kept(&self) -> u64 {
        let kept = u64::try_from(SENT_RESULTS_KEPT).unwrap_or(u64::MAX);
        self.highest.saturating_sub(kept).saturating_add(1)
    }
}

impl Record for SenderWindow {
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.reserve(10 + self.recent.len().saturating_mul(32));
        out.push(RECORD_VERSION);
        out.extend_from_slice(&self.highest.to_be_bytes());
        let kept = self.recent.len().min(SENT_RESULTS_KEPT);
        out.push(u8::try_from(kept).expect("SENT_RESULTS_KEPT fits a byte, as limits.rs asserts"));
        for result in self.recent.iter().skip(self.recent.len().saturating_sub(kept)) {
            out.extend_from_slice(&result.counter.to_be_bytes());
            out.extend_from_slice(result.id.as_bytes());
            out.extend_from_slice(&result.number.to_be_bytes());
        }
    }

    fn decode(value: &Bytes) -> Result<Self, RecordError> {
        let mut reader = Reader::new(value)?;
        let highest = reader.u64()?;
        let found = usize::from(reader.u8()?);
        if found > SENT_RESULTS_KEPT {
            return Err(RecordError::TooMany { found, max: SENT_RESULTS_KEPT });
        }
        let mut recent = VecDeque::with_capacity(found);
        for _ in 0..found {
            recent.push_back(SentResult {
                counter: reader.u64()?,
                id: MessageId::from_bytes(reader.array()?),
                number: reader.u64()?,
            });
        }
        reader.finish(Self { highest, recent })
    }
}
