//! When a stored record has expired: the rules, the same for every backend.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use gureum_proto::AccountId;

use super::record::{CommitRecord, InboxBody, InboxEntry, InviteRecord, peek_code_end};
use super::{Family, key};
use crate::limits::TAKEN_FLOORS_MAX;
use crate::time::{Clock, is_expired};

/// When the records of a family expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryRule {
    /// Not by themselves.
    Never,
    /// At the retention after the time in the message id.
    MessageAge,
    /// At the commit retention after the time in the message id.
    WelcomeAge,
    /// At the time in the entry's message id and [`Retentions::of`] its body, or when every device has taken it.
    InboxAgeOrTaken,
    /// At the commit retention after the commit's time.
    CommitAge,
    /// At the invite's end.
    InviteEnd,
    /// At the end that a code, or what counts codes, says.
    CodeEnd,
}

/// How long what the server keeps stays, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retentions {
    /// Messages.
    pub message_ms: u64,
    /// Commits, and the Welcomes without which those who were welcomed could make nothing of them.
    pub commit_ms: u64,
}

impl Retentions {
    /// How long an inbox entry stays. A Welcome stays as long as commits do: whoever was away longer than messages live
    /// reads with it what came after those that are gone. For a commit itself the commit log stands in.
    #[must_use]
    pub const fn of(&self, body: &InboxBody) -> u64 {
        match body {
            InboxBody::Welcome => self.commit_ms,
            InboxBody::Message
            | InboxBody::Silent
            | InboxBody::Commit { .. }
            | InboxBody::DeviceLog { .. }
            | InboxBody::Leave => self.message_ms,
        }
    }

    /// Whether an inbox entry has expired.
    #[must_use]
    pub fn is_expired(&self, entry: &InboxEntry, now_ms: u64) -> bool {
        is_expired(entry.time_ms(), self.of(&entry.body), now_ms)
    }
}

/// What decides on expiry: the clock, the retentions, and what every device has taken.
#[derive(Debug, Clone)]
pub struct Expiry {
    /// The server's time.
    pub clock: Arc<Clock>,
    /// How long messages live.
    pub retention_ms: u64,
    /// How long commits live.
    pub commit_retention_ms: u64,
    /// Up to where every device has taken its inbox.
    pub floors: Arc<TakenFloors>,
}

impl Expiry {
    /// A judge for one pass: now is read once, so that one pass has one opinion.
    #[must_use]
    pub fn judge(&self, rule: ExpiryRule) -> Judge {
        Judge {
            rule,
            now_ms: self.clock.now_ms(),
            retentions: self.retentions(),
            floors: Arc::clone(&self.floors),
            latest_floor: None,
            oldest_kept_ms: None,
        }
    }

    /// Both retentions.
    #[must_use]
    pub const fn retentions(&self) -> Retentions {
        Retentions { message_ms: self.retention_ms, commit_ms: self.commit_retention_ms }
    }

    /// The time before which (itself included) messages have expired, if there is any.
    #[must_use]
    pub fn expired_until_ms(&self) -> Option<u64> {
        self.clock.now_ms().checked_sub(self.retention_ms)
    }

    /// How often the physical work is due.
    #[must_use]
    pub const fn periods(&self) -> ReclaimPeriods {
        ReclaimPeriods::new(self.retention_ms, self.commit_retention_ms)
    }
}

/// Decides, record by record, in one pass over a family.
#[derive(Debug)]
pub struct Judge {
    rule: ExpiryRule,
    now_ms: u64,
    retentions: Retentions,
    floors: Arc<TakenFloors>,
    latest_floor: Option<(AccountId, u64)>,
    oldest_kept_ms: Option<u64>,
}

impl Judge {
    /// Whether a record has expired. One that can't be read has not: it is for the reader to report.
    pub fn is_expired(&mut self, key: &[u8], value: &[u8]) -> bool {
        let Retentions { message_ms, commit_ms } = self.retentions;
        let (time_ms, retention_ms) = match self.rule {
            ExpiryRule::Never => return false,
            ExpiryRule::MessageAge => (key::message_time_ms(key), message_ms),
            ExpiryRule::WelcomeAge => (key::message_time_ms(key), commit_ms),
            ExpiryRule::InboxAgeOrTaken if InboxEntry::is_welcome(value) => {
                // Its age is none of a message: it is not among the oldest that were kept.
                let is_over = InboxEntry::peek_time_ms(value).is_some_and(|at| is_expired(at, commit_ms, self.now_ms));
                return is_over || self.is_taken(key);
            }
            ExpiryRule::InboxAgeOrTaken => (InboxEntry::peek_time_ms(value), message_ms),
            ExpiryRule::CommitAge => (CommitRecord::peek_time_ms(value), commit_ms),
            ExpiryRule::InviteEnd => {
                return InviteRecord::peek_expires_ms(value).is_some_and(|end| end <= self.now_ms);
            }
            ExpiryRule::CodeEnd => return peek_code_end(value).is_some_and(|end| end <= self.now_ms),
        };
        let is_over = time_ms.is_some_and(|time_ms| is_expired(time_ms, retention_ms, self.now_ms))
            || self.rule == ExpiryRule::InboxAgeOrTaken && self.is_taken(key);
        if !is_over && let Some(time_ms) = time_ms {
            self.oldest_kept_ms = Some(self.oldest_kept_ms.map_or(time_ms, |oldest_ms| oldest_ms.min(time_ms)));
        }
        is_over
    }

    /// The time of the oldest record that has not expired, of those that have a time.
    #[must_use]
    pub const fn oldest_kept_ms(&self) -> Option<u64> {
        self.oldest_kept_ms
    }

    fn is_taken(&mut self, key: &[u8]) -> bool {
        let Some((account, seq)) = key::parse_inbox(key) else { return false };
        // An inbox's entries follow each other: one look-up serves them all.
        let floor = match self.latest_floor {
            Some((latest, floor)) if latest == account => floor,
            _ => self.floors.floor(&account),
        };
        self.latest_floor = Some((account, floor));
        seq <= floor
    }
}

/// Up to which seq every device of an account has taken its inbox. Raise it only after the cursors that it
/// stands on are durable: what lies at or below it may be dropped at any time.
#[derive(Debug, Default)]
pub struct TakenFloors {
    floors: Mutex<HashMap<AccountId, u64>>,
}

impl TakenFloors {
    /// Raises an account's floor; never lowers it.
    pub fn raise(&self, account: &AccountId, seq: u64) {
        let mut floors = self.floors.lock().unwrap_or_else(PoisonError::into_inner);
        if floors.len() >= TAKEN_FLOORS_MAX && !floors.contains_key(account) {
            // An account that is forgotten keeps its entries until they are too old: no harm but the room.
            let other = floors.keys().next().copied();
            if let Some(other) = other {
                floors.remove(&other);
            }
        }
        let floor = floors.entry(*account).or_default();
        *floor = (*floor).max(seq);
    }

    /// An account's floor: zero when unknown.
    #[must_use]
    pub fn floor(&self, account: &AccountId) -> u64 {
        self.floors.lock().unwrap_or_else(PoisonError::into_inner).get(account).copied().unwrap_or(0)
    }
}

/// How often the parts of physical expiry are due; all scale with the retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReclaimPeriods {
    /// Between two calls of [`super::Store::reclaim`].
    pub round_ms: u64,
    /// The oldest that a write may be in the log: then everything is flushed and the log goes.
    pub flush_ms: u64,
    /// How long a table may hold expired messages beside living ones before it is rewritten.
    pub rewrite_ms: u64,
    /// How long the tables of inboxes may hold expired entries before they are rewritten.
    pub pointer_ms: u64,
    /// The longest time between two compactions of the inboxes, whatever has expired: entries that were taken go then.
    pub inbox_ms: u64,
    /// Between two compactions of the commit log, and of the Welcomes.
    pub commit_ms: u64,
    /// Between two compactions of the invites, and of the codes.
    pub invite_ms: u64,
}

impl ReclaimPeriods {
    /// The periods for these retentions.
    #[must_use]
    pub const fn new(retention_ms: u64, commit_retention_ms: u64) -> Self {
        const SECOND_MS: u64 = 1_000;
        const HOUR_MS: u64 = 3_600 * SECOND_MS;
        Self {
            // Minutes are fine enough for three days, and a round that finds nothing costs microseconds.
            round_ms: clamp(retention_ms / 24, SECOND_MS / 4, 300 * SECOND_MS),
            flush_ms: clamp(retention_ms / 24, SECOND_MS / 4, HOUR_MS),
            rewrite_ms: clamp(retention_ms / 24, SECOND_MS / 4, HOUR_MS),
            // Each pass rewrites every entry that lives: four hours at three days, so that with the log, the
            // round and the pass itself nothing is left six hours after its retention.
            pointer_ms: clamp(retention_ms / 18, SECOND_MS / 4, 4 * HOUR_MS),
            // A quarter of the retention bounds the waste of room to a quarter.
            inbox_ms: clamp(retention_ms / 4, SECOND_MS, 24 * HOUR_MS),
            commit_ms: clamp(commit_retention_ms / 16, SECOND_MS, 48 * HOUR_MS),
            invite_ms: clamp(retention_ms / 4, SECOND_MS, 24 * HOUR_MS),
        }
    }

    /// How often a family is compacted whole; `None` for those that are not, or by other means.
    #[must_use]
    pub const fn compaction_ms(&self, family: Family) -> Option<u64> {
        match family {
            Family::Inbox => Some(self.inbox_ms),
            Family::Commit | Family::Welcome => Some(self.commit_ms),
            Family::Registration | Family::Code => Some(self.invite_ms),
            _ => None,
        }
    }
}

const fn clamp(value: u64, low: u64, high: u64) -> u64 {
    if value < low {
        low
    } else if value > high {
        high
    } else {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_rise_and_never_fall() {
        let floors = TakenFloors::default();
        let account = AccountId::from_bytes([1; 16]);
        assert_eq!(floors.floor(&account), 0);
        floors.raise(&account, 7);
        floors.raise(&account, 3);
        assert_eq!(floors.floor(&account), 7);
    }

    #[test]
    fn floors_are_bounded() {
        let floors = TakenFloors::default();
        for index in 0..u128::try_from(TAKEN_FLOORS_MAX).expect("small") + 10 {
            floors.raise(&AccountId::from_bytes(index.to_be_bytes()), 1);
        }
        assert_eq!(floors.floors.lock().expect("whole").len(), TAKEN_FLOORS_MAX);
    }

    #[test]
    fn periods_scale_with_the_retention() {
        let days = ReclaimPeriods::new(3 * 86_400_000, 30 * 86_400_000);
        assert_eq!((days.round_ms, days.flush_ms, days.inbox_ms), (300_000, 3_600_000, 64_800_000));
        let seconds = ReclaimPeriods::new(6_000, 60_000);
        assert_eq!((seconds.round_ms, seconds.flush_ms, seconds.inbox_ms), (250, 250, 1_500));
    }

    #[test]
    fn what_cannot_be_read_is_kept() {
        let source = Arc::new(crate::time::ManualClock::at(u64::MAX / 2));
        let expiry = Expiry {
            clock: Arc::new(Clock::resume(source, 1, None).expect("first start")),
            retention_ms: 1,
            commit_retention_ms: 1,
            floors: Arc::default(),
        };
        for family in Family::ALL {
            assert!(!expiry.judge(family.options().expiry).is_expired(b"odd", b"bytes"), "{}", family.name());
        }
    }
}
