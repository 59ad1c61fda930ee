//! The database, opened to be read only: every family is read whole, so that every checksum is verified.

use std::cell::Cell;
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;
use gureum_proto::{AccountId, DeviceId};
use rocksdb::{DB, DBRawIterator, InfoLogger, LogLevel, Options, ReadOptions};

use super::owners::Parts;
use super::places::Places;
use super::report::{Kind, Report};
use super::rules::{CommitRules, InboxRules, LogRules, Times};
use crate::limits::STORE_OPEN_FILES_MAX;
use crate::seal::{Keyring, SealError};
use crate::store::key::{self, ConversationTag, CursorTag, KeyRange};
use crate::store::record::{
    CommitRecord, ConversationHead, Cursor, InboxBody, InboxEntry, InboxHead, InviteRecord, KeyPackageRecord,
    LifeRecord, Removals, SealedMessage, SenderWindow, SentResult,
};
use crate::store::rocks::fence;
use crate::store::{Family, Record};

/// Read ahead of a scan that reads everything once.
const READ_AHEAD_BYTES: usize = 1024 * 1024;

pub(super) struct Audit<'a> {
    db: DB,
    is_backup: bool,
    pub(super) keyring: Option<&'a Keyring>,
    pub(super) times: &'a Times,
    /// The account that was looked for last, and whether it has a device log.
    pub(super) latest_log: Cell<Option<(AccountId, bool)>>,
}

/// Reads all families of a directory's database.
pub(super) fn check(directory: &Path, is_backup: bool, keyring: Option<&Keyring>, times: &Times, report: &mut Report) {
    let mut options = Options::default();
    options.set_paranoid_checks(true);
    // As the server does. Without, RocksDB 11 ends the process when it only reads a database that notes its logs.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_open_files(STORE_OPEN_FILES_MAX);
    // RocksDB writes its own log even into a database that it only reads: this keeps it from that.
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
    let there = match DB::list_cf(&options, directory.join("db")) {
        Ok(there) => there,
        Err(error) => return report.find(Kind::Database, "db", &[], error.to_string()),
    };
    let families = Family::ALL.iter().map(|family| (family.may_lack(), family.name()));
    let is_there = |(may_lack, name): &(bool, &str)| !may_lack || there.iter().any(|there| there == name);
    let names = std::iter::once("default").chain(families.filter(is_there).map(|(_, name)| name));
    let db = match DB::open_cf_for_read_only(&options, directory.join("db"), names, false) {
        Ok(db) => db,
        Err(error) => return report.find(Kind::Database, "db", &[], error.to_string()),
    };
    match fence::read(directory) {
        Ok(Some(had_come_to)) if had_come_to > db.latest_sequence_number() => {
            let what = "the newest changes are gone: its log or its list of files is cut or missing";
            report.find(Kind::Database, "db", &[], what);
        }
        Ok(_) => {}
        Err(error) => report.find(Kind::File, "sequence", &[], error.to_string()),
    }
    let audit = Audit { db, is_backup, keyring, times, latest_log: Cell::new(None) };
    let mut places = Places::default();
    audit.tables(&directory.join("db"), report);
    audit.inboxes(report);
    audit.messages(&mut places, report);
    audit.welcomes(report);
    audit.accounts(&mut places, report);
    audit.sent(&mut places, report);
    audit.conversations(&mut places, report);
    audit.rest(report);
    audit.directory(report);
    audit.push(report);
    audit.codes(report);
}

impl Audit<'_> {
    /// Visits every record of a family, in order. Damage ends the family, and is reported.
    pub(super) fn each(&self, family: Family, report: &mut Report, mut visit: impl FnMut(&[u8], &Bytes, &mut Report)) {
        let Some(handle) = self.db.cf_handle(family.name()) else { return };
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.fill_cache(false);
        options.set_readahead_size(READ_AHEAD_BYTES);
        options.set_total_order_seek(true);
        let mut iterator: DBRawIterator<'_> = self.db.raw_iterator_cf_opt(handle, options);
        iterator.seek_to_first();
        while let Some((record_key, value)) = iterator.item() {
            visit(record_key, &Bytes::copy_from_slice(value), report);
            report.count(family.name(), 1);
            iterator.next();
        }
        if let Err(error) = iterator.status() {
            report.find(Kind::Database, family.name(), &[], error.to_string());
        }
    }

    /// Visits the keys and values of a range, in order, while `visit` says so. Says whether all of it could be read; what
    /// could not is found where its family is.
    pub(super) fn scan(&self, family: Family, range: &KeyRange, mut visit: impl FnMut(&[u8], &[u8]) -> bool) -> bool {
        let Some(handle) = self.db.cf_handle(family.name()) else { return false };
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(range.end.as_slice());
        options.set_total_order_seek(true);
        let mut iterator = self.db.raw_iterator_cf_opt(handle, options);
        iterator.seek(range.start.as_slice());
        while let Some((record_key, value)) = iterator.item() {
            if !visit(record_key, value) {
                return true;
            }
            iterator.next();
        }
        iterator.status().is_ok()
    }

    /// The last record at or before a key.
    pub(super) fn last(&self, family: Family, record_key: &[u8]) -> Option<(Vec<u8>, Bytes)> {
        let handle = self.db.cf_handle(family.name())?;
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        let mut iterator = self.db.raw_iterator_cf_opt(handle, options);
        iterator.seek_for_prev(record_key);
        iterator.item().map(|(found, value)| (found.to_vec(), Bytes::copy_from_slice(value)))
    }

    /// A record by its key; what does not decode is found where its family is read.
    pub(super) fn get<R: Record>(&self, family: Family, record_key: &[u8]) -> Option<R> {
        let handle = self.db.cf_handle(family.name())?;
        let value = self.db.get_cf(handle, record_key).ok().flatten()?;
        R::decode(&value.into()).ok()
    }

    pub(super) fn has(&self, family: Family, record_key: &[u8]) -> bool {
        let Some(handle) = self.db.cf_handle(family.name()) else { return false };
        // What cannot be read is there, and is found where its family is read.
        self.db.get_pinned_cf(handle, record_key).map_or(true, |value| value.is_some())
    }

    /// Tables that the list of files does not name: a kill leaves some, and the next start removes them. One that was
    /// written before everything in it was due to be gone holds it still.
    fn tables(&self, database: &Path, report: &mut Report) {
        let Ok(live) = self.db.live_files() else { return };
        let named: HashSet<_> = live.iter().map(|file| file.name.trim_start_matches('/')).collect();
        for entry in std::fs::read_dir(database).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".sst") || named.contains(name.as_str()) {
                continue;
            }
            report.count("tables that the next start removes", 1);
            let written_s = entry.metadata().map_or(i64::MAX, |metadata| metadata.mtime());
            let written_ms = u64::try_from(written_s).unwrap_or_default().saturating_mul(1_000);
            if !self.is_backup && self.times.is_overdue(written_ms) {
                let what = "the list of files does not name this table, and what is in it has expired";
                report.find(Kind::LeftOver, format!("db/{name}"), &[], what);
            }
        }
    }

    fn inboxes(&self, report: &mut Report) {
        let mut rules: Option<InboxRules> = None;
        let mut overdue = Overdue::default();
        self.each(Family::Inbox, report, |record_key, value, report| {
            let Some((account, seq)) = key::parse_inbox(record_key) else {
                return report.find(Kind::Record, "inbox", record_key, "the key is none of an inbox");
            };
            let Some(entry) = record::<InboxEntry>("inbox", record_key, value, report) else { return };
            if rules.as_ref().is_none_or(|rules| rules.account != account)
                && let Some(done) = rules.replace(self.rules(account, report))
            {
                done.end(self.times, report);
            }
            if self.times.is_entry_overdue(entry.time_ms(), &entry.body) {
                overdue.add(entry.time_ms(), record_key);
            }
            self.pointer(record_key, &entry, report);
            if let Some(rules) = &mut rules {
                rules.entry(seq, entry, self.times, report);
            }
        });
        if let Some(rules) = rules {
            rules.end(self.times, report);
        }
        self.overdue(Family::Inbox, "inbox entries", &overdue, report);
    }

    fn rules(&self, account: AccountId, report: &mut Report) -> InboxRules {
        let head = self.get(Family::InboxHead, &key::inbox_head(&account));
        InboxRules::new(account, head, &self.cursors(&account), report)
    }

    /// How far the devices of an account have taken its inbox.
    pub(super) fn cursors(&self, account: &AccountId) -> Vec<Cursor> {
        let mut cursors = Vec::new();
        self.scan(Family::Cursor, &key::cursors(account), |record_key, value| {
            if let Some((_, _, CursorTag::Cursor)) = key::parse_cursor(record_key) {
                cursors.extend(Cursor::decode(&Bytes::copy_from_slice(value)));
            }
            true
        });
        cursors
    }

    /// What of a family should have left the disk. A backup keeps what it held: its keys go, and that is what counts.
    pub(super) fn overdue(&self, family: Family, what: &str, overdue: &Overdue, report: &mut Report) {
        if let Some((oldest_ms, oldest)) = &overdue.oldest
            && !self.is_backup
        {
            let age_s = self.times.now_ms.saturating_sub(*oldest_ms) / 1_000;
            let what = format!("{} expired {what} are still on the disk, the oldest {age_s} s old", overdue.count);
            report.find(Kind::Expired, family.name(), oldest, what);
        }
    }

    fn pointer(&self, record_key: &[u8], entry: &InboxEntry, report: &mut Report) {
        if !self.times.entry_lives(entry) {
            return;
        }
        let is_there = match entry.body {
            InboxBody::Message | InboxBody::Silent => self.has(Family::Message, &key::message(&entry.id)),
            InboxBody::Welcome | InboxBody::Leave => self.has(Family::Welcome, &key::message(&entry.id)),
            InboxBody::Commit { conversation, epoch } => self.has(Family::Commit, &key::commit(&conversation, epoch)),
            InboxBody::DeviceLog { account } => self.has(Family::DeviceLog, &key::device_log(&account, 0)),
        };
        if !is_there {
            let what = format!("it points to {:?} {}, which is not there", entry.body, entry.id);
            report.find(Kind::PointerWithoutBody, "inbox", record_key, what);
        }
    }

    fn messages(&self, places: &mut Places, report: &mut Report) {
        let (mut overdue, mut keyless) = (Overdue::default(), 0_u64);
        self.each(Family::Message, report, |record_key, value, report| {
            let Some(id) = gureum_proto::MessageId::try_from(record_key).ok() else {
                return report.find(Kind::Record, "message", record_key, "the key is no message id");
            };
            let Some(sealed) = record::<SealedMessage>("message", record_key, value, report) else { return };
            if self.times.is_overdue(id.time_ms()) {
                overdue.add(id.time_ms(), record_key);
            }
            if self.times.is_in_the_future(id.time_ms()) {
                report.find(Kind::Time, "message", record_key, "its time is to come");
            }
            match self.keyring.map(|keyring| keyring.open_message(&id, &sealed)) {
                Some(Ok(shared)) => {
                    report.count("messages that open", 1);
                    self.place_of_message(&id, shared, places, report);
                }
                Some(Err(SealError::KeyGone { .. })) if self.times.lives(id.time_ms()) => keyless += 1,
                Some(Err(SealError::Forged)) => {
                    report.find(Kind::Body, "message", record_key, "the sealed body is not what was stored");
                }
                Some(Err(_)) => report.count("expired messages without a key", 1),
                None => report.count("messages without a key here", 1),
            }
        });
        if keyless > 0 {
            let what = if keyless == 1 {
                "1 living message has no key".to_owned()
            } else {
                format!("{keyless} living messages have no key")
            };
            report.find(Kind::KeyMissing, "keys", &[], what);
        }
        self.overdue(Family::Message, "messages", &overdue, report);
    }

    fn welcomes(&self, report: &mut Report) {
        let mut overdue = Overdue::default();
        self.each(Family::Welcome, report, |record_key, value, report| {
            let Some(id) = gureum_proto::MessageId::try_from(record_key).ok() else {
                return report.find(Kind::Record, "welcome", record_key, "the key is no message id");
            };
            record::<Bytes>("welcome", record_key, value, report);
            if self.times.is_in_the_future(id.time_ms()) {
                report.find(Kind::Time, "welcome", record_key, "its time is to come");
            }
            if self.times.is_commit_overdue(id.time_ms()) {
                overdue.add(id.time_ms(), record_key);
            }
        });
        self.overdue(Family::Welcome, "Welcomes", &overdue, report);
    }

    fn accounts(&self, places: &mut Places, report: &mut Report) {
        self.each(Family::InboxHead, report, |record_key, value, report| {
            let Ok(account) = AccountId::try_from(record_key) else {
                return report.find(Kind::Record, "inbox_head", record_key, "the key is no account");
            };
            self.owned(&account, "inbox_head", record_key, report);
            let Some(head) = record::<InboxHead>("inbox_head", record_key, value, report) else { return };
            if head.floor.seq > head.seq || head.overflow.seq > head.seq {
                report.find(Kind::Sequence, "inbox_head", record_key, "its floor is beyond its head");
            }
            self.young_inbox(&account, places, report);
        });
        self.each(Family::Cursor, report, |record_key, value, report| match key::parse_cursor(record_key) {
            Some((account, _, CursorTag::Cursor)) => {
                self.owned(&account, "cursor", record_key, report);
                let Some(cursor) = record::<Cursor>("cursor", record_key, value, report) else { return };
                let head: InboxHead = self.get(Family::InboxHead, &key::inbox_head(&account)).unwrap_or_default();
                if cursor.seq > head.seq || cursor.count > head.count {
                    let what = format!("the device has taken {}, and the inbox ends at {}", cursor.seq, head.seq);
                    report.find(Kind::Cursor, "cursor", record_key, what);
                }
            }
            Some((account, _, CursorTag::SenderWindow)) => {
                let Some(window) = record::<SenderWindow>("cursor", record_key, value, report) else { return };
                self.places_of_sent(&account, &window, places, report);
            }
            Some((account, _, CursorTag::Seen)) => {
                self.owned(&account, "cursor", record_key, report);
                let Some(seen_ms) = record::<u64>("cursor", record_key, value, report) else { return };
                if self.times.is_in_the_future(seen_ms) {
                    report.find(Kind::Time, "cursor", record_key, "its time is to come");
                }
            }
            Some((account, _, CursorTag::Life)) => {
                self.owned(&account, "cursor", record_key, report);
                record::<LifeRecord>("cursor", record_key, value, report);
            }
            Some((account, _, CursorTag::LastResort)) => {
                self.owned(&account, "cursor", record_key, report);
                record::<()>("cursor", record_key, value, report);
            }
            None => report.find(Kind::Record, "cursor", record_key, "the key is none of a device"),
        });
        let mut logs = LogRules::default();
        self.each(Family::DeviceLog, report, |record_key, value, report| {
            let Some((account, index)) = key::parse_device_log(record_key) else {
                return report.find(Kind::Record, "device_log", record_key, "the key is none of an entry");
            };
            if let Some(entry) = record::<Bytes>("device_log", record_key, value, report)
                && let Some(log) = logs.entry(account, index, &entry, report)
            {
                self.devices(&log, report);
            }
        });
        if let Some(log) = logs.end() {
            self.devices(&log, report);
        }
    }

    /// The results of sends, device by device.
    fn sent(&self, places: &mut Places, report: &mut Report) {
        let mut last: Option<((AccountId, DeviceId), SenderWindow)> = None;
        self.each(Family::Sent, report, |record_key, value, report| {
            let Some(of) = key::parse_sent(record_key) else {
                return report.find(Kind::Record, "sent", record_key, "the key is none of a device's send");
            };
            let Some(result) = record::<SentResult>("sent", record_key, value, report) else { return };
            let goes_on = last.as_ref().is_some_and(|(device, _)| *device == of);
            if goes_on && let Some((_, window)) = &mut last {
                window.recent.push_back(result);
                return;
            }
            let window = SenderWindow { highest: result.counter, recent: [result].into() };
            if let Some(((account, _), whole)) = last.replace((of, window)) {
                self.places_of_sent(&account, &whole, places, report);
            }
        });
        if let Some(((account, _), whole)) = last {
            self.places_of_sent(&account, &whole, places, report);
        }
    }

    fn conversations(&self, places: &mut Places, report: &mut Report) {
        let mut rules = CommitRules::default();
        let mut overdue = Overdue::default();
        let ends_at_head = |(conversation, epoch), report: &mut Report| {
            let record_key = key::conversation(&conversation, ConversationTag::Head);
            let head: Option<ConversationHead> = self.get(Family::Conversation, &record_key);
            if head.as_ref().is_none_or(|head| head.epoch != epoch + 1) {
                let found =
                    head.map_or_else(|| "does not exist".to_owned(), |head| format!("is in epoch {}", head.epoch));
                let what = format!("the commit of epoch {epoch} is the last, and the conversation {found}");
                report.find(Kind::Epoch, "conversation", &record_key, what);
            }
        };
        self.each(Family::Commit, report, |record_key, value, report| {
            let Some((conversation, epoch)) = key::parse_commit(record_key) else {
                return report.find(Kind::Record, "commit", record_key, "the key is none of a commit");
            };
            let Some(commit) = record::<CommitRecord>("commit", record_key, value, report) else { return };
            if self.times.is_in_the_future(commit.time_ms) {
                report.find(Kind::Time, "commit", record_key, "its time is to come");
            }
            if self.times.is_commit_overdue(commit.time_ms) {
                overdue.add(commit.time_ms, record_key);
            }
            self.place_of_commit(&conversation, &commit, record_key, places, report);
            if let Some(done) = rules.commit(conversation, epoch, report) {
                ends_at_head(done, report);
            }
        });
        self.overdue(Family::Commit, "commits", &overdue, report);
        if let Some(done) = rules.end() {
            ends_at_head(done, report);
        }
        let mut parts = Parts::default();
        self.each(Family::Conversation, report, |record_key, value, report| {
            let Some((id, tag)) = key::parse_conversation(record_key) else {
                return report.find(Kind::Record, "conversation", record_key, "the key is none of a conversation");
            };
            match tag {
                ConversationTag::Head => {
                    if let Some(head) = record::<ConversationHead>("conversation", record_key, value, report) {
                        self.members(&id, &head, report);
                    }
                }
                ConversationTag::Number => {
                    record::<u64>("conversation", record_key, value, report);
                }
                ConversationTag::Epoch => {
                    let epoch = record::<u64>("conversation", record_key, value, report);
                    let head_key = key::conversation(&id, ConversationTag::Head);
                    let head: Option<ConversationHead> = self.get(Family::Conversation, &head_key);
                    if head.zip(epoch).is_some_and(|(head, epoch)| head.epoch != epoch) {
                        let what = "its epoch is not the one that its head has";
                        report.find(Kind::Epoch, "conversation", record_key, what);
                    }
                }
                ConversationTag::Removals => {
                    record::<Removals>("conversation", record_key, value, report);
                }
                ConversationTag::GroupInfo | ConversationTag::Tree => {
                    record::<Bytes>("conversation", record_key, value, report);
                }
            }
            parts.add(id, tag, report);
        });
        parts.end(report);
    }

    fn rest(&self, report: &mut Report) {
        self.each(Family::KeyPackage, report, |record_key, value, report| {
            let Some((account, _, _)) = key::parse_key_package(record_key) else {
                return report.find(Kind::Record, "key_package", record_key, "the key is none of a KeyPackage");
            };
            self.owned(&account, "key_package", record_key, report);
            record::<KeyPackageRecord>("key_package", record_key, value, report);
        });
        let mut overdue = Overdue::default();
        self.each(Family::Registration, report, |record_key, value, report| {
            let Some(invite) = record::<InviteRecord>("registration", record_key, value, report) else { return };
            if self.times.is_invite_overdue(invite.expires_ms) {
                overdue.add(invite.expires_ms, record_key);
            }
        });
        self.overdue(Family::Registration, "invites", &overdue, report);
        self.each(Family::Meta, report, |_, _, _| {});
    }
}

/// What should have left the disk: how much, and the oldest with its key.
#[derive(Default)]
pub(super) struct Overdue {
    count: u64,
    oldest: Option<(u64, Vec<u8>)>,
}

impl Overdue {
    pub(super) fn add(&mut self, time_ms: u64, record_key: &[u8]) {
        self.count = self.count.saturating_add(1);
        if self.oldest.as_ref().is_none_or(|(oldest_ms, _)| time_ms < *oldest_ms) {
            self.oldest = Some((time_ms, record_key.to_vec()));
        }
    }
}

/// A record that was read; what does not decode is found.
pub(super) fn record<R: Record>(
    place: &'static str,
    record_key: &[u8],
    value: &Bytes,
    report: &mut Report,
) -> Option<R> {
    match R::decode(value) {
        Ok(record) => Some(record),
        Err(error) => {
            report.find(Kind::Record, place, record_key, format!("the record {error}"));
            None
        }
    }
}
