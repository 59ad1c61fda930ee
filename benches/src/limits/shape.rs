//! What the batches of a run were like, from what the server has counted.

use serde::{Deserialize, Serialize};

use super::metrics::Counts;
use super::writes::{BatchShape, Unit};

/// The writes of a run, all in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Pairs that sent.
    pub pairs: usize,
    /// Bytes of a message's ciphertext.
    pub sealed_bytes: usize,
    /// Messages.
    pub messages: u64,
    /// Batches with an fsync.
    pub batches: u64,
    /// Pairs that each batch had messages of, summed over all batches.
    pub senders: u64,
    /// Acks that moved a cursor, of one receiver in one batch counted once.
    pub cursors: u64,
}

impl Shape {
    /// Solves what was counted for what was not: how many pairs a batch had messages of. Of the acks, those that came while
    /// nothing else was to be written had batches of their own, without an fsync; they go with the others here, which can
    /// only make the bare writes cheaper.
    #[must_use]
    pub fn of(counts: &Counts, unit: Unit, pairs: usize, sealed_bytes: usize) -> Self {
        let of_pairs = counts.changes.saturating_sub(counts.accepted.saturating_mul(unit.message));
        let all_acked = of_pairs.checked_div(unit.sender.saturating_add(unit.cursor)).unwrap_or(0);
        // Either each pair of a batch has an ack in one as well, or there were not so many acks.
        let senders = if counts.acks >= all_acked {
            all_acked
        } else {
            let of_senders = of_pairs.saturating_sub(counts.acks.saturating_mul(unit.cursor));
            of_senders.checked_div(unit.sender).unwrap_or(0)
        };
        let senders = senders.clamp(1, counts.accepted.max(1));
        Self {
            pairs,
            sealed_bytes,
            messages: counts.accepted,
            batches: counts.batches,
            senders,
            cursors: counts.acks.min(senders),
        }
    }

    /// What the batch of that number holds: as much as any other, up to one.
    #[must_use]
    pub fn batch(&self, number: u64) -> BatchShape {
        let part = |total| part(total, self.batches, number);
        BatchShape { messages: part(self.messages), senders: part(self.senders), cursors: part(self.cursors) }
    }
}

/// The part of one of so many, all of which add up to the total.
fn part(total: u64, of: u64, number: u64) -> u64 {
    let until = |number: u64| u128::from(total) * u128::from(number) / u128::from(of.max(1));
    u64::try_from(until(number.saturating_add(1)) - until(number)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Unit = Unit { message: 2, sender: 3, cursor: 1 };

    #[track_caller]
    fn check(accepted: u64, batches: u64, senders: u64, acks: (u64, u64)) {
        let (acks, written) = acks;
        let changes = 2 * accepted + 3 * senders + written;
        let counts = Counts { accepted, delivered: accepted, batches, changes, acks };
        let shape = Shape::of(&counts, UNIT, 100, 256);
        assert_eq!((shape.messages, shape.senders, shape.cursors), (accepted, senders, written));
    }

    #[test]
    fn the_pairs_of_a_batch_follow_from_its_changes() {
        // Each receiver acks once a batch, more often than that, or less often.
        check(30_000, 100, 5_000, (5_000, 5_000));
        check(30_000, 100, 5_000, (20_000, 5_000));
        check(30_000, 100, 5_000, (2_000, 2_000));
        // One message a batch.
        check(1_000, 1_000, 1_000, (1_000, 1_000));
    }

    #[test]
    fn batches_add_up_to_the_run() {
        let shape = Shape { pairs: 3, sealed_bytes: 256, messages: 1_000, batches: 7, senders: 20, cursors: 3 };
        let batches: Vec<_> = (0..7).map(|number| shape.batch(number)).collect();
        assert_eq!(batches.iter().map(|batch| batch.messages).sum::<u64>(), 1_000);
        assert_eq!(batches.iter().map(|batch| batch.senders).sum::<u64>(), 20);
        assert_eq!(batches.iter().map(|batch| batch.cursors).sum::<u64>(), 3);
        assert!(batches.iter().all(|batch| (142..=143).contains(&batch.messages)), "{batches:?}");
    }

    #[test]
    fn a_server_that_counted_nothing_gives_no_division_by_zero() {
        let shape = Shape::of(&Counts::default(), Unit { message: 0, sender: 0, cursor: 0 }, 1, 256);
        assert_eq!(shape.batch(0), BatchShape { messages: 0, senders: 1, cursors: 0 });
    }
}
