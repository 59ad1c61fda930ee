//! The rules that the records of a store keep, checked over ordered streams with the state of one account or one
//! conversation at a time.

use bytes::Bytes;
use gureum_proto::{AccountId, ConversationId, DeviceLog};

use super::report::{Kind, Report};
use crate::limits::MAINTENANCE_MS_MAX;
use crate::router::counts;
use crate::seal;
use crate::store::Retentions;
use crate::store::expiry::ReclaimPeriods;
use crate::store::key::{self, inbox_life};
use crate::store::record::{Cursor, InboxBody, InboxEntry, InboxHead};
use crate::time::is_expired;

/// How far a time may be ahead of now: two clocks of one house differ by less.
const AHEAD_MS_MAX: u64 = 60 * 60 * 1_000;

/// How late whatever is due may be: of retentions of seconds a disk that is busy is the longest part.
const LATE_MS_MIN: u64 = 30_000;

/// When, and how long things live.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// By the system's clock.
    pub(super) now_ms: u64,
    /// The latest that the server may have gone by: its clock never goes back, and the system's does.
    pub(super) server_ms: u64,
    pub(super) retention_ms: u64,
    pub(super) commit_retention_ms: u64,
}

impl Times {
    pub(super) const fn is_expired(&self, time_ms: u64) -> bool {
        is_expired(time_ms, self.retention_ms, self.server_ms)
    }

    /// Whether it lives beyond doubt: a crash may take a round's worth of time back from the server's clock.
    pub(super) fn lives(&self, time_ms: u64) -> bool {
        self.lives_for(time_ms, self.retention_ms)
    }

    /// Whether a position of an inbox does.
    pub(super) fn entry_lives(&self, entry: &InboxEntry) -> bool {
        self.lives_for(entry.time_ms(), self.retentions().of(&entry.body))
    }

    fn lives_for(&self, time_ms: u64, retention_ms: u64) -> bool {
        !is_expired(time_ms, retention_ms.saturating_sub(self.round_ms()), self.server_ms)
    }

    pub(super) const fn retentions(&self) -> Retentions {
        Retentions { message_ms: self.retention_ms, commit_ms: self.commit_retention_ms }
    }

    /// Whether it should have left the disk: the retention and a twelfth, which is 6 hours at 3 days, and some
    /// seconds for a short one.
    pub(super) const fn is_overdue(&self, time_ms: u64) -> bool {
        self.is_past(time_ms, self.retention_ms, self.retention_ms / 12)
    }

    /// Whether a position of an inbox should have left the disk. A Welcome is of use for as long as the commits are
    /// that lead on from it.
    pub(super) const fn is_entry_overdue(&self, time_ms: u64, body: &InboxBody) -> bool {
        let retention_ms = self.retentions().of(body);
        self.is_past(time_ms, retention_ms, retention_ms / 12)
    }

    /// Whether a commit or a Welcome should have left the disk: its family is compacted every sixteenth of its retention.
    pub(super) const fn is_commit_overdue(&self, time_ms: u64) -> bool {
        self.is_past(time_ms, self.commit_retention_ms, self.commit_retention_ms / 4)
    }

    /// Whether what counts the uses of an invite that ended then should have left the disk: two compactions may be
    /// needed until it lies where the filter sees it.
    pub(super) const fn is_invite_overdue(&self, end_ms: u64) -> bool {
        self.is_past(end_ms, 0, self.periods().invite_ms.saturating_mul(2))
    }

    /// Whether the key of a period that ended then should have been destroyed: it goes in the first round after its
    /// last message has expired, which makes the period and a round since its first.
    pub(super) fn is_key_overdue(&self, end_ms: u64) -> bool {
        let late_ms = self.round_ms().saturating_add(LATE_MS_MIN);
        is_expired(end_ms, self.retention_ms.saturating_add(late_ms), self.now_ms)
    }

    /// The time between two rounds of maintenance.
    pub(super) fn round_ms(&self) -> u64 {
        let tick_ms = seal::period_ms(self.retention_ms) / 4;
        self.periods().round_ms.min(tick_ms).min(MAINTENANCE_MS_MAX)
    }

    const fn periods(&self) -> ReclaimPeriods {
        ReclaimPeriods::new(self.retention_ms, self.commit_retention_ms)
    }

    const fn is_past(&self, time_ms: u64, retention_ms: u64, late_ms: u64) -> bool {
        let late_ms = if late_ms < LATE_MS_MIN { LATE_MS_MIN } else { late_ms };
        is_expired(time_ms, retention_ms.saturating_add(late_ms), self.now_ms)
    }

    pub(super) const fn is_in_the_future(&self, time_ms: u64) -> bool {
        time_ms > self.now_ms.saturating_add(AHEAD_MS_MAX)
    }
}

/// One inbox, entry by entry in the order of its positions.
pub(super) struct InboxRules {
    pub(super) account: AccountId,
    head: Option<InboxHead>,
    /// Up to here every device has taken everything.
    floor: u64,
    last: Option<(u64, InboxEntry)>,
}

impl InboxRules {
    /// An inbox with this head, and these cursors of its devices.
    pub(super) fn new(account: AccountId, head: Option<InboxHead>, cursors: &[Cursor], report: &mut Report) -> Self {
        // Of an account without a cursor nobody knows what was taken.
        let floor = cursors.iter().map(|cursor| cursor.seq).min().unwrap_or(u64::MAX);
        if head.is_none() {
            report.find(Kind::Sequence, "inbox_head", account.as_bytes(), "an inbox has entries and no head");
        }
        Self { account, head, floor, last: None }
    }

    /// The next entry.
    pub(super) fn entry(&mut self, seq: u64, entry: InboxEntry, times: &Times, report: &mut Report) {
        let record_key = key::inbox(&self.account, seq);
        let mut find = |kind, what: String| report.find(kind, "inbox", &record_key, what);
        if let Some(head) = &self.head
            && seq > head.seq
        {
            find(Kind::Sequence, format!("position {seq} is beyond the head {}", head.seq));
        }
        if times.is_in_the_future(entry.time_ms()) {
            find(Kind::Time, format!("its time is {} s ahead", (entry.time_ms() - times.now_ms) / 1_000));
        }
        if let Some((before, previous)) = &self.last {
            if before + 1 == seq {
                let expected = previous.count + u64::from(counts(&entry.body));
                if entry.count != expected {
                    find(
                        Kind::Count,
                        format!("{} messages up to position {seq}, but {expected} were there", entry.count),
                    );
                }
            } else if self.may_not_lack(*before, previous, seq, times) {
                find(Kind::Sequence, format!("positions {} to {} are missing", before + 1, seq - 1));
            }
            if entry.count < previous.count || entry.bytes_total < previous.bytes_total {
                find(Kind::Count, format!("the running sums go back at position {seq}"));
            }
        }
        self.last = Some((seq, entry));
    }

    /// The inbox is through.
    pub(super) fn end(self, times: &Times, report: &mut Report) {
        let (Some(head), Some((seq, entry))) = (self.head, self.last.as_ref()) else { return };
        let record_key = key::inbox_head(&self.account);
        if *seq == head.seq && entry.count != head.count {
            let what = format!("the head counts {} messages, and its last entry {}", head.count, entry.count);
            report.find(Kind::Count, "inbox_head", &record_key, what);
        }
        if *seq < head.seq && self.may_not_lack(*seq, entry, head.seq.saturating_add(1), times) {
            let what = format!("the newest positions are missing: {} to {}", seq + 1, head.seq);
            report.find(Kind::Sequence, "inbox", &record_key, what);
        }
    }

    /// Whether positions between two may not be missing: neither taken, nor over the bound, nor expired, nor of the
    /// seam of two lives.
    fn may_not_lack(&self, before: u64, previous: &InboxEntry, seq: u64, times: &Times) -> bool {
        let overflow = self.head.map_or(0, |head| head.overflow.seq);
        seq - 1 > self.floor.max(overflow) && times.lives(previous.time_ms()) && inbox_life(before) == inbox_life(seq)
    }
}

/// The commits of one conversation, in the order of epochs.
#[derive(Default)]
pub(super) struct CommitRules {
    last: Option<(ConversationId, u64)>,
}

impl CommitRules {
    /// The next commit. Returns the conversation before it with its last epoch, if this begins another.
    pub(super) fn commit(
        &mut self,
        conversation: ConversationId,
        epoch: u64,
        report: &mut Report,
    ) -> Option<(ConversationId, u64)> {
        let before = self.last.replace((conversation, epoch))?;
        if before.0 != conversation {
            return Some(before);
        }
        if before.1 + 1 != epoch {
            let what = format!("the commits of epochs {} to {} are missing", before.1 + 1, epoch - 1);
            report.find(Kind::Epoch, "commit", &key::commit(&conversation, epoch), what);
        }
        None
    }

    /// The last conversation.
    pub(super) fn end(self) -> Option<(ConversationId, u64)> {
        self.last
    }
}

/// A device log, entry by entry.
#[derive(Default)]
pub(super) struct LogRules {
    log: Option<(AccountId, DeviceLog)>,
    broken: Option<AccountId>,
}

impl LogRules {
    /// The next entry. Returns the log before it, if this begins another account's and that one was whole.
    pub(super) fn entry(
        &mut self,
        account: AccountId,
        index: u64,
        entry: &Bytes,
        report: &mut Report,
    ) -> Option<DeviceLog> {
        let before = self.log.take_if(|(known, _)| *known != account).map(|(_, log)| log);
        if self.broken != Some(account)
            && let Err(what) = self.follow(account, index, entry)
        {
            (self.broken, self.log) = (Some(account), None);
            report.find(Kind::DeviceLog, "device_log", &key::device_log(&account, index), what);
        }
        before
    }

    /// The last log, if it was whole.
    pub(super) fn end(self) -> Option<DeviceLog> {
        self.log.map(|(_, log)| log)
    }

    fn follow(&mut self, account: AccountId, index: u64, entry: &Bytes) -> Result<(), String> {
        match self.log.as_mut().filter(|(known, _)| *known == account) {
            None if index != 0 => Err(format!("the log begins at entry {index}")),
            None => {
                let log = DeviceLog::from_root(entry).map_err(|error| error.to_string())?;
                if log.account() != account {
                    return Err("the root entry is another account's".to_owned());
                }
                self.log = Some((account, log));
                Ok(())
            }
            Some((_, log)) if log.length() != index => Err(format!("entry {} is missing", log.length())),
            Some((_, log)) => log.append(entry).map(drop).map_err(|error| error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use gureum_proto::MessageId;

    use super::*;
    use crate::store::record::InboxBody;

    const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);
    const NOW_MS: u64 = 1_000_000;
    const TIMES: Times = Times { now_ms: NOW_MS, server_ms: NOW_MS, retention_ms: 1_000, commit_retention_ms: 10_000 };

    fn entry(time_ms: u64, count: u64) -> InboxEntry {
        InboxEntry { id: MessageId::new(time_ms, 0), count, bytes_total: count * 10, body: InboxBody::Message }
    }

    /// The kinds of findings in an inbox of these entries (position, time, count) with a head and a cursor.
    fn judge(entries: &[(u64, u64, u64)], head: (u64, u64), taken: u64) -> Vec<Kind> {
        let mut report = Report::new();
        let head = InboxHead { seq: head.0, count: head.1, ..InboxHead::default() };
        let cursors = [Cursor { seq: taken, count: 0 }];
        let mut rules = InboxRules::new(ACCOUNT, Some(head), &cursors, &mut report);
        for (seq, time_ms, count) in entries {
            rules.entry(*seq, entry(*time_ms, *count), &TIMES, &mut report);
        }
        rules.end(&TIMES, &mut report);
        report.found.into_keys().collect()
    }

    const FRESH: u64 = 999_500;
    const OLD: u64 = 900_000;

    #[test]
    fn a_dense_inbox_is_clean_wherever_it_begins() {
        assert_eq!(judge(&[(1, FRESH, 1), (2, FRESH, 2)], (2, 2), 0), []);
        assert_eq!(judge(&[(7, FRESH, 3), (8, FRESH, 4)], (8, 4), 2), []);
    }

    #[test]
    fn holes_are_found_unless_what_is_missing_was_taken_or_has_expired() {
        assert_eq!(judge(&[(1, FRESH, 1), (3, FRESH, 3)], (3, 3), 0), [Kind::Sequence]);
        assert_eq!(judge(&[(1, FRESH, 1), (3, FRESH, 3)], (3, 3), 2), []);
        assert_eq!(judge(&[(1, OLD, 1), (3, FRESH, 3)], (3, 3), 0), []);
        assert_eq!(judge(&[(1, FRESH, 1)], (2, 2), 0), [Kind::Sequence]);
    }

    #[test]
    fn a_new_life_after_a_restore_is_no_hole() {
        let next = key::next_life(2);
        assert_eq!(judge(&[(1, FRESH, 1), (2, FRESH, 2), (next + 1, FRESH, 3)], (next + 1, 3), 0), []);
        assert_eq!(judge(&[(1, FRESH, 1), (2, FRESH, 2)], (next, 2), 0), []);
    }

    #[test]
    fn positions_beyond_the_head_wrong_counts_and_times_to_come_are_found() {
        assert_eq!(judge(&[(1, FRESH, 1), (2, FRESH, 2)], (1, 1), 0), [Kind::Sequence]);
        assert_eq!(judge(&[(1, FRESH, 1), (2, FRESH, 5)], (2, 5), 0), [Kind::Count]);
        assert_eq!(judge(&[(1, FRESH, 1)], (1, 4), 0), [Kind::Count]);
        assert_eq!(judge(&[(1, u64::from(u32::MAX), 1)], (1, 1), 0), [Kind::Time]);
    }

    #[test]
    fn a_silent_message_has_a_position_and_does_not_count() {
        let found = |count| {
            let mut report = Report::new();
            let head = InboxHead { seq: 2, count, ..InboxHead::default() };
            let mut rules = InboxRules::new(ACCOUNT, Some(head), &[], &mut report);
            rules.entry(1, entry(FRESH, 1), &TIMES, &mut report);
            let silent = InboxEntry { body: InboxBody::Silent, count, bytes_total: 20, ..entry(FRESH, 1) };
            rules.entry(2, silent, &TIMES, &mut report);
            rules.end(&TIMES, &mut report);
            report.found.into_keys().collect::<Vec<_>>()
        };
        assert_eq!((found(1), found(2)), (vec![], vec![Kind::Count]));
    }

    /// From which age on something is found to be there too long.
    fn found_from(is_found: impl Fn(u64) -> bool, age_ms: u64) -> bool {
        is_found(MUCH_LATER_MS - age_ms) && !is_found(MUCH_LATER_MS - age_ms + 1)
    }

    const HOUR_MS: u64 = 3_600_000;
    const MUCH_LATER_MS: u64 = 10_000 * HOUR_MS;

    #[test]
    fn what_has_expired_may_stay_for_a_twelfth_or_some_seconds_and_a_commit_for_a_quarter() {
        let times = |retention_ms, commit_retention_ms| Times {
            now_ms: MUCH_LATER_MS,
            server_ms: MUCH_LATER_MS,
            retention_ms,
            commit_retention_ms,
        };
        let days = times(72 * HOUR_MS, 720 * HOUR_MS);
        assert!(found_from(|time_ms| days.is_overdue(time_ms), 78 * HOUR_MS));
        assert!(found_from(|time_ms| days.is_entry_overdue(time_ms, &InboxBody::Message), 78 * HOUR_MS));
        assert!(found_from(|time_ms| days.is_entry_overdue(time_ms, &InboxBody::Welcome), 780 * HOUR_MS));
        assert!(found_from(|time_ms| days.is_commit_overdue(time_ms), 900 * HOUR_MS));
        assert!(found_from(|end_ms| days.is_invite_overdue(end_ms), 36 * HOUR_MS));
        assert!(found_from(|end_ms| days.is_key_overdue(end_ms), 72 * HOUR_MS + 35_000));
        let seconds = times(1_000, 10_000);
        assert!(found_from(|time_ms| seconds.is_overdue(time_ms), 31_000));
        assert!(found_from(|time_ms| seconds.is_entry_overdue(time_ms, &InboxBody::Message), 31_000));
        assert!(found_from(|time_ms| seconds.is_entry_overdue(time_ms, &InboxBody::Welcome), 40_000));
        assert!(found_from(|time_ms| seconds.is_commit_overdue(time_ms), 40_000));
    }

    #[test]
    fn missing_commits_are_found() {
        let mut report = Report::new();
        let mut rules = CommitRules::default();
        let conversation = ConversationId::from_bytes([2; 16]);
        for epoch in [3, 4, 6] {
            assert_eq!(rules.commit(conversation, epoch, &mut report), None);
        }
        assert_eq!(report.found.get(&Kind::Epoch), Some(&1));
        assert_eq!(rules.end(), Some((conversation, 6)));
    }
}
