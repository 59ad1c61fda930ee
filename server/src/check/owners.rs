//! Who records belong to: accounts have a device log, devices stand in it, conversations are whole.

use std::collections::BTreeSet;

use gureum_proto::{AccountId, ConversationId, DeviceLog};

use super::database::Audit;
use super::report::{Kind, Report};
use crate::directory::RECOVERY_INDEX;
use crate::store::Family;
use crate::store::key::{self, ConversationTag, CursorTag};
use crate::store::record::{ConversationHead, Removals};

impl Audit<'_> {
    /// A record is an account's, which must be there.
    pub(super) fn owned(&self, account: &AccountId, place: &'static str, record_key: &[u8], report: &mut Report) {
        if !self.has_log(account) {
            report.find(Kind::Orphan, place, record_key, format!("the account {account} has no device log"));
        }
    }

    /// Whether an account has a device log.
    pub(super) fn has_log(&self, account: &AccountId) -> bool {
        // The records of an account follow each other: one look serves them all.
        match self.latest_log.get() {
            Some((latest, has_log)) if latest == *account => has_log,
            _ => {
                let has_log = self.has(Family::DeviceLog, &key::device_log(account, 0));
                self.latest_log.set(Some((*account, has_log)));
                has_log
            }
        }
    }

    /// What belongs to an account and to the devices of its log: a head, a handle, a cursor of each active device, and
    /// nothing of any other device. One that was deleted has neither cursors nor KeyPackages.
    pub(super) fn devices(&self, log: &DeviceLog, report: &mut Report) {
        let account = log.account();
        let head = key::inbox_head(&account);
        if !self.has(Family::InboxHead, &head) {
            report.find(Kind::Orphan, "inbox_head", &head, "the account has no head of its inbox");
        }
        let handle = key::handle_of(&account);
        if !self.has(Family::Directory, &handle) {
            report.find(Kind::Orphan, "directory", &handle, "the account has no handle");
        }
        let recovery = key::recovery(log.recovery_key().as_bytes());
        if self.has(Family::Meta, &key::meta(RECOVERY_INDEX)) && !self.has(Family::Directory, &recovery) {
            report.find(Kind::Orphan, "directory", &recovery, "the account's recovery key leads to no account");
        }
        let is_gone = self.has(Family::Directory, &key::gone(&account));
        for (device, _) in log.active() {
            let cursor = key::cursor(&account, &device, CursorTag::Cursor);
            match (self.has(Family::Cursor, &cursor), is_gone) {
                (false, false) => {
                    report.find(Kind::Cursor, "cursor", &cursor, "the device is active and has no cursor");
                }
                (true, true) => {
                    report.find(Kind::Cursor, "cursor", &cursor, "the account was deleted and its device has a cursor");
                }
                _ => {}
            }
        }
        let what = "the device is in no entry of its account's log";
        self.scan(Family::Cursor, &key::cursors(&account), |record_key, _| {
            if key::parse_cursor(record_key).is_some_and(|(_, device, _)| log.device(device).is_none()) {
                report.find(Kind::Orphan, "cursor", record_key, what);
            }
            true
        });
        self.scan(Family::KeyPackage, &key::account_key_packages(&account), |record_key, _| {
            if is_gone {
                report.find(Kind::Orphan, "key_package", record_key, "its account was deleted");
            } else if key::parse_key_package(record_key).is_some_and(|(_, device, _)| log.device(device).is_none()) {
                report.find(Kind::Orphan, "key_package", record_key, what);
            }
            true
        });
    }

    /// Whoever has a leaf in a conversation finds it among its own, unless it has left.
    pub(super) fn members(&self, conversation: &ConversationId, head: &ConversationHead, report: &mut Report) {
        let removals_key = key::conversation(conversation, ConversationTag::Removals);
        let removals: Removals = self.get(Family::Conversation, &removals_key).unwrap_or_default();
        let accounts: BTreeSet<_> = head.members.iter().map(|member| member.account).collect();
        for account in accounts {
            let membership = key::membership(&account, conversation);
            if self.has(Family::Directory, &membership) == removals.is_leaving(account) {
                let what = "who has a leaf is no member, or who has left is one";
                report.find(Kind::Directory, "directory", &membership, what);
            }
        }
    }
}

/// The parts of one conversation at a time, in the order of keys.
#[derive(Default)]
pub(super) struct Parts {
    of: Option<ConversationId>,
    tags: Vec<ConversationTag>,
}

impl Parts {
    /// The next part.
    pub(super) fn add(&mut self, of: ConversationId, tag: ConversationTag, report: &mut Report) {
        if self.of != Some(of) {
            std::mem::take(self).end(report);
            self.of = Some(of);
        }
        self.tags.push(tag);
    }

    /// The conversation is through.
    pub(super) fn end(self, report: &mut Report) {
        let Some(conversation) = self.of else { return };
        let mut find = |tag, what| {
            report.find(Kind::Orphan, "conversation", &key::conversation(&conversation, tag), what);
        };
        if !self.tags.contains(&ConversationTag::Head) {
            return find(ConversationTag::Head, "parts of a conversation are there, and its head is not");
        }
        if !self.tags.contains(&ConversationTag::GroupInfo) {
            find(ConversationTag::GroupInfo, "the conversation has no GroupInfo");
        }
        if !self.tags.contains(&ConversationTag::Tree) {
            find(ConversationTag::Tree, "the conversation has no tree");
        }
    }
}
