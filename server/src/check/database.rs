//! The database, opened to be read only: every family is read whole, so that every checksum is verified.

use std::collections::HashSet;
use std::path::Path;

use bytes::Bytes;
use gureum_proto::AccountId;
use rocksdb::{DB, DBRawIterator, InfoLogger, LogLevel, Options, ReadOptions};

use super::report::{Kind, Report};
use super::rules::{CommitRules, InboxRules, LogRules, Times};
use crate::limits::STORE_OPEN_FILES_MAX;
use crate::seal::{Keyring, SealError};
use crate::store::key::{self, ConversationTag, CursorTag};
use crate::store::record::{
    CommitRecord, ConversationHead, Cursor, InboxBody, InboxEntry, InboxHead, InviteRecord, KeyPackageRecord,
    SealedMessage, SenderWindow,
};
use crate::store::rocks::fence;
use crate::store::{Family, Record};

/// Read ahead of a scan that reads everything once.
const READ_AHEAD_BYTES: usize = 1024 * 1024;

/// Message ids that are remembered to count those that nobody points to: past it they are not counted.
const POINTERS_MAX: usize = 4_000_000;

struct Audit<'a> {
    db: DB,
    is_backup: bool,
    keyring: Option<&'a Keyring>,
    times: &'a Times,
    /// The ends of the ids that inboxes point to, which are random; `None` once there are too many.
    pointers: Option<HashSet<u64>>,
}

/// Reads all families of a directory's database.
pub(super) fn check(directory: &Path, is_backup: bool, keyring: Option<&Keyring>, times: &Times, report: &mut Report) {
    let mut options = Options::default();
    options.set_paranoid_checks(true);
    options.set_max_open_files(STORE_OPEN_FILES_MAX);
    // RocksDB writes its own log even into a database that it only reads: this keeps it from that.
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
    let names = std::iter::once("default").chain(Family::ALL.iter().map(|family| family.name()));
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
    let mut audit = Audit { db, is_backup, keyring, times, pointers: Some(HashSet::new()) };
    audit.inboxes(report);
    audit.messages(report);
    audit.welcomes(report);
    audit.accounts(report);
    audit.conversations(report);
    audit.rest(report);
}

impl Audit<'_> {
    /// Visits every record of a family, in order. Damage ends the family, and is reported.
    fn each(&self, family: Family, report: &mut Report, mut visit: impl FnMut(&[u8], &Bytes, &mut Report)) {
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

    /// A record by its key; what does not decode is found where its family is read.
    fn get<R: Record>(&self, family: Family, record_key: &[u8]) -> Option<R> {
        let handle = self.db.cf_handle(family.name())?;
        let value = self.db.get_cf(handle, record_key).ok().flatten()?;
        R::decode(&value.into()).ok()
    }

    fn has(&self, family: Family, record_key: &[u8]) -> bool {
        let Some(handle) = self.db.cf_handle(family.name()) else { return false };
        // What cannot be read is there, and is found where its family is read.
        self.db.get_pinned_cf(handle, record_key).map_or(true, |value| value.is_some())
    }

    fn inboxes(&mut self, report: &mut Report) {
        let mut rules: Option<InboxRules> = None;
        let mut pointers = self.pointers.take();
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
            if pointers.as_ref().is_some_and(|pointers| pointers.len() >= POINTERS_MAX) {
                pointers = None;
            }
            if let Some(pointers) = &mut pointers {
                pointers.insert(ending(entry.id.as_bytes()));
            }
            self.pointer(record_key, &entry, report);
            if let Some(rules) = &mut rules {
                rules.entry(seq, entry, self.times, report);
            }
        });
        if let Some(rules) = rules {
            rules.end(self.times, report);
        }
        self.pointers = pointers;
    }

    fn rules(&self, account: AccountId, report: &mut Report) -> InboxRules {
        let head = self.get(Family::InboxHead, &key::inbox_head(&account));
        let mut cursors = Vec::new();
        if let Some(handle) = self.db.cf_handle(Family::Cursor.name()) {
            let range = key::cursors(&account);
            let mut options = ReadOptions::default();
            options.set_iterate_upper_bound(range.end.as_slice());
            let mut iterator = self.db.raw_iterator_cf_opt(handle, options);
            iterator.seek(range.start.as_slice());
            while let Some((record_key, value)) = iterator.item() {
                if let Some((_, _, CursorTag::Cursor)) = key::parse_cursor(record_key) {
                    cursors.extend(Cursor::decode(&Bytes::copy_from_slice(value)));
                }
                iterator.next();
            }
        }
        InboxRules::new(account, head, &cursors, report)
    }

    fn pointer(&self, record_key: &[u8], entry: &InboxEntry, report: &mut Report) {
        if self.times.retentions().is_expired(entry, self.times.now_ms) {
            return;
        }
        let is_there = match entry.body {
            InboxBody::Message => self.has(Family::Message, &key::message(&entry.id)),
            InboxBody::Welcome => self.has(Family::Welcome, &key::message(&entry.id)),
            InboxBody::Commit { conversation, epoch } => self.has(Family::Commit, &key::commit(&conversation, epoch)),
            InboxBody::DeviceLog { account } => self.has(Family::DeviceLog, &key::device_log(&account, 0)),
        };
        if !is_there {
            let what = format!("it points to {:?} {}, which is not there", entry.body, entry.id);
            report.find(Kind::PointerWithoutBody, "inbox", record_key, what);
        }
    }

    fn messages(&self, report: &mut Report) {
        let (mut overdue, mut oldest_ms, mut keyless) = (0_u64, u64::MAX, 0_u64);
        self.each(Family::Message, report, |record_key, value, report| {
            let Some(id) = gureum_proto::MessageId::try_from(record_key).ok() else {
                return report.find(Kind::Record, "message", record_key, "the key is no message id");
            };
            let Some(sealed) = record::<SealedMessage>("message", record_key, value, report) else { return };
            oldest_ms = oldest_ms.min(id.time_ms());
            overdue += u64::from(self.times.is_overdue(id.time_ms()));
            if self.times.is_in_the_future(id.time_ms()) {
                report.find(Kind::Time, "message", record_key, "its time is to come");
            }
            if self.pointers.as_ref().is_some_and(|pointers| !pointers.contains(&ending(id.as_bytes()))) {
                report.count("messages that every device has taken, or that nobody points to", 1);
            }
            match self.keyring.map(|keyring| keyring.open_message(&id, &sealed)) {
                Some(Ok(_)) => report.count("messages that open", 1),
                Some(Err(SealError::KeyGone { .. })) if !self.times.is_expired(id.time_ms()) => keyless += 1,
                Some(Err(SealError::Forged)) => {
                    report.find(Kind::Body, "message", record_key, "the sealed body is not what was stored");
                }
                Some(Err(_)) => report.count("expired messages without a key", 1),
                None => report.count("messages without a key here", 1),
            }
        });
        if keyless > 0 {
            report.find(Kind::KeyMissing, "keys", &[], format!("{keyless} living messages have no key"));
        }
        // A backup keeps what it held: its keys go, and that is what counts.
        if overdue > 0 && !self.is_backup {
            let age_s = self.times.now_ms.saturating_sub(oldest_ms) / 1_000;
            let what = format!("{overdue} expired messages are still on the disk, the oldest {age_s} s old");
            report.find(Kind::Expired, "message", &[], what);
        }
    }

    fn welcomes(&self, report: &mut Report) {
        let mut overdue = 0_u64;
        self.each(Family::Welcome, report, |record_key, value, report| {
            let Some(id) = gureum_proto::MessageId::try_from(record_key).ok() else {
                return report.find(Kind::Record, "welcome", record_key, "the key is no message id");
            };
            record::<Bytes>("welcome", record_key, value, report);
            if self.times.is_in_the_future(id.time_ms()) {
                report.find(Kind::Time, "welcome", record_key, "its time is to come");
            }
            overdue += u64::from(self.times.is_commit_overdue(id.time_ms()));
            if self.pointers.as_ref().is_some_and(|pointers| !pointers.contains(&ending(id.as_bytes()))) {
                report.count("Welcomes that every device has taken, or that nobody points to", 1);
            }
        });
        if overdue > 0 && !self.is_backup {
            report.find(Kind::Expired, "welcome", &[], format!("{overdue} expired Welcomes are still on the disk"));
        }
    }

    fn accounts(&self, report: &mut Report) {
        self.each(Family::InboxHead, report, |record_key, value, report| {
            if record_key.len() != 16 {
                report.find(Kind::Record, "inbox_head", record_key, "the key is no account");
            }
            let Some(head) = record::<InboxHead>("inbox_head", record_key, value, report) else { return };
            if head.floor.seq > head.seq || head.overflow.seq > head.seq {
                report.find(Kind::Sequence, "inbox_head", record_key, "its floor is beyond its head");
            }
        });
        self.each(Family::Cursor, report, |record_key, value, report| match key::parse_cursor(record_key) {
            Some((account, _, CursorTag::Cursor)) => {
                let Some(cursor) = record::<Cursor>("cursor", record_key, value, report) else { return };
                let head: InboxHead = self.get(Family::InboxHead, &key::inbox_head(&account)).unwrap_or_default();
                if cursor.seq > head.seq || cursor.count > head.count {
                    let what = format!("the device has taken {}, and the inbox ends at {}", cursor.seq, head.seq);
                    report.find(Kind::Cursor, "cursor", record_key, what);
                }
            }
            Some((_, _, CursorTag::SenderWindow)) => {
                record::<SenderWindow>("cursor", record_key, value, report);
            }
            None => report.find(Kind::Record, "cursor", record_key, "the key is none of a device"),
        });
        let mut logs = LogRules::default();
        self.each(Family::DeviceLog, report, |record_key, value, report| {
            let Some((account, index)) = key::parse_device_log(record_key) else {
                return report.find(Kind::Record, "device_log", record_key, "the key is none of an entry");
            };
            if let Some(entry) = record::<Bytes>("device_log", record_key, value, report) {
                logs.entry(account, index, &entry, report);
            }
        });
    }

    fn conversations(&self, report: &mut Report) {
        let mut rules = CommitRules::default();
        let mut overdue = 0_u64;
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
            overdue += u64::from(self.times.is_commit_overdue(commit.time_ms));
            if let Some(done) = rules.commit(conversation, epoch, report) {
                ends_at_head(done, report);
            }
        });
        if overdue > 0 && !self.is_backup {
            report.find(Kind::Expired, "commit", &[], format!("{overdue} expired commits are still on the disk"));
        }
        if let Some(done) = rules.end() {
            ends_at_head(done, report);
        }
        self.each(Family::Conversation, report, |record_key, value, report| match record_key.get(16..) {
            Some([tag]) if *tag == ConversationTag::Head as u8 => {
                record::<ConversationHead>("conversation", record_key, value, report);
            }
            Some([tag]) if *tag == ConversationTag::Number as u8 => {
                record::<u64>("conversation", record_key, value, report);
            }
            Some([tag]) if [ConversationTag::GroupInfo as u8, ConversationTag::Tree as u8].contains(tag) => {
                record::<Bytes>("conversation", record_key, value, report);
            }
            _ => report.find(Kind::Record, "conversation", record_key, "the key is none of a conversation"),
        });
    }

    fn rest(&self, report: &mut Report) {
        self.each(Family::KeyPackage, report, |record_key, value, report| {
            if key::key_package_kind(record_key).is_none() {
                report.find(Kind::Record, "key_package", record_key, "the key is none of a KeyPackage");
            }
            record::<KeyPackageRecord>("key_package", record_key, value, report);
        });
        self.each(Family::Registration, report, |record_key, value, report| {
            record::<InviteRecord>("registration", record_key, value, report);
        });
        self.each(Family::Directory, report, |record_key, value, report| {
            let is_sound = match record_key.split_first() {
                Some((b'h', handle)) => {
                    record::<AccountId>("directory", record_key, value, report).is_none_or(|account| {
                        let back: Option<String> = self.get(Family::Directory, &key::handle_of(&account));
                        back.is_some_and(|back| back.as_bytes() == handle)
                    })
                }
                Some((b'a', account)) => {
                    record::<String>("directory", record_key, value, report).is_none_or(|handle| {
                        let back: Option<AccountId> = self.get(Family::Directory, &key::handle(&handle));
                        back.is_some_and(|back| back.as_bytes() == account)
                    })
                }
                Some((b'c', _)) => key::parse_membership(record_key).is_some_and(|(_, conversation)| {
                    self.has(Family::Conversation, &key::conversation(&conversation, ConversationTag::Head))
                }),
                Some((b'p', _)) => record::<gureum_proto::ConversationId>("directory", record_key, value, report)
                    .is_none_or(|id| self.has(Family::Conversation, &key::conversation(&id, ConversationTag::Head))),
                _ => false,
            };
            if !is_sound {
                report.find(Kind::Directory, "directory", record_key, "the name leads nowhere");
            }
        });
        self.each(Family::Meta, report, |_, _, _| {});
    }
}

fn record<R: Record>(place: &'static str, record_key: &[u8], value: &Bytes, report: &mut Report) -> Option<R> {
    match R::decode(value) {
        Ok(record) => Some(record),
        Err(error) => {
            report.find(Kind::Record, place, record_key, format!("the record {error}"));
            None
        }
    }
}

/// The last 8 bytes of an id.
fn ending(id: &[u8; 16]) -> u64 {
    id.last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
