//! What inboxes should hold and do not. Positions that an inbox lacks although not every device has taken them have gone
//! by their age; so whatever lives, and went to that account before or among them, has lost its place.
//!
//! To whom something went say: the header of a message, where its key is here; the commit log; what a device has sent.
//! Only conversations of two are judged, since their accounts never change.

use std::collections::HashMap;

use bytes::Bytes;
use gureum_proto::{AccountId, ConversationId, EnvelopeBody, MessageId, SharedEnvelope};

use super::database::Audit;
use super::report::{Kind, Report};
use crate::store::key::{self, ConversationTag, inbox_life};
use crate::store::record::{CommitRecord, ConversationHead, ConversationKind, InboxEntry, InboxHead, SenderWindow};
use crate::store::{Family, Record};

/// Inboxes, and conversations, that are remembered: at about 64 bytes each.
const REMEMBERED_MAX: usize = 100_000;

/// What is known of inboxes and conversations that were looked at.
#[derive(Default)]
pub(super) struct Places {
    inboxes: HashMap<AccountId, Option<Lack>>,
    talks: HashMap<ConversationId, Talk>,
}

/// Positions that an inbox does not have, or has expired, although not every device has taken them.
#[derive(Clone, Copy)]
struct Lack {
    first_seq: u64,
    last_seq: u64,
    /// What went to the account until this time has been taken.
    after_ms: u64,
    /// What went to the account before this time stood there, or before.
    before_ms: u64,
}

/// Whose inbox does not point to something.
struct Lost {
    reader: AccountId,
    lack: Lack,
}

impl Lost {
    fn what(&self) -> String {
        let Lack { first_seq, last_seq, .. } = self.lack;
        format!("it went to {}, whose inbox has nothing from position {first_seq} to {last_seq}", self.reader)
    }
}

/// What is known of a conversation.
#[derive(Clone, Copy)]
enum Talk {
    /// It is not there.
    Gone,
    /// It is not of two accounts, or does not read.
    Other,
    /// It is of two accounts, for ever.
    Direct { accounts: [AccountId; 2], created_ms: u64 },
}

impl Audit<'_> {
    /// A message that opens must have its place in the inbox of whom it went to, unless it was taken there.
    pub(super) fn place_of_message(&self, id: &MessageId, shared: Bytes, places: &mut Places, report: &mut Report) {
        let record_key = key::message(id);
        let Ok(envelope) = SharedEnvelope::decode(shared) else {
            return report.find(Kind::Body, "message", &record_key, "what is sealed is no envelope");
        };
        let accounts = match self.talk(&envelope.conversation, places) {
            Talk::Direct { accounts, .. } => accounts,
            Talk::Other => return,
            Talk::Gone => {
                let what = format!("its conversation {} is not there", envelope.conversation);
                return report.find(Kind::Orphan, "message", &record_key, what);
            }
        };
        // A Welcome lies in a family of its own, and whom it was for is written nowhere.
        if let EnvelopeBody::Message { .. } | EnvelopeBody::Silent(_) = envelope.body
            && let Some(lost) = self.lost_by(accounts, envelope.sender_account, id.time_ms(), places)
        {
            report.find(Kind::PointerMissing, "message", &record_key, lost.what());
        }
    }

    /// A commit likewise.
    pub(super) fn place_of_commit(
        &self,
        conversation: &ConversationId,
        commit: &CommitRecord,
        record_key: &[u8],
        places: &mut Places,
        report: &mut Report,
    ) {
        let Talk::Direct { accounts, .. } = self.talk(conversation, places) else { return };
        if let Some(lost) = self.lost_by(accounts, commit.account, commit.time_ms, places) {
            report.find(Kind::PointerMissing, "commit", record_key, lost.what());
        }
    }

    /// Without keys nobody knows to which of its conversations a device has sent: something is lost if it is in each.
    pub(super) fn places_of_sent(
        &self,
        account: &AccountId,
        window: &SenderWindow,
        places: &mut Places,
        report: &mut Report,
    ) {
        if self.keyring.is_some() {
            return;
        }
        // A commit has a result as well, and no message.
        let is_there = |id: &MessageId| self.times.lives(id.time_ms()) && self.has(Family::Message, &key::message(id));
        let living: Vec<_> = window.recent.iter().map(|sent| sent.id).filter(is_there).collect();
        if living.is_empty() {
            return;
        }
        let talks: Vec<_> =
            self.conversations_of(account).iter().map(|conversation| self.talk(conversation, places)).collect();
        for id in living {
            let mut lost = None;
            let is_lost = talks.iter().all(|talk| match talk {
                // What is younger than the message was not what it was sent to.
                Talk::Direct { created_ms, .. } if *created_ms > id.time_ms() => true,
                Talk::Direct { accounts, .. } => {
                    lost = self.lost_by(*accounts, *account, id.time_ms(), places);
                    lost.is_some()
                }
                Talk::Gone | Talk::Other => false,
            });
            if let Some(lost) = lost.filter(|_| is_lost) {
                report.find(Kind::PointerMissing, "message", &key::message(&id), lost.what());
            }
        }
    }

    /// An inbox all of whose conversations are younger than the retention has lost nothing to its age, except maybe
    /// what told of the account's own devices. An account that is no longer in some conversation may have had others.
    pub(super) fn young_inbox(&self, account: &AccountId, places: &mut Places, report: &mut Report) {
        let Some(lack) = self.lack(account, places) else { return };
        if self.has(Family::Directory, &key::left(account)) {
            return;
        }
        let is_young = |conversation: &ConversationId| {
            let head = key::conversation(conversation, ConversationTag::Head);
            self.get::<ConversationHead>(Family::Conversation, &head)
                .is_some_and(|head| self.times.lives(head.created_ms))
        };
        if !self.conversations_of(account).iter().all(is_young) {
            return;
        }
        let mut own_changes = 0;
        self.scan(Family::DeviceLog, &key::device_log_from(account, 1), |_, _| {
            own_changes += 1;
            true
        });
        if lack.last_seq - lack.first_seq >= own_changes {
            let (first, last) = (lack.first_seq, lack.last_seq);
            let what = format!("positions {first} to {last} are missing from the inbox, and cannot have expired");
            report.find(Kind::Sequence, "inbox_head", &key::inbox_head(account), what);
        }
    }

    /// The other account of a conversation, if its inbox has lost what went to it at a time.
    fn lost_by(&self, accounts: [AccountId; 2], sender: AccountId, time_ms: u64, places: &mut Places) -> Option<Lost> {
        if !self.times.lives(time_ms) {
            return None;
        }
        // After a crash the clock may have gone back by a round, and two entries may be as much out of order.
        let latest_ms = time_ms.saturating_add(self.times.round_ms());
        let reader = accounts.into_iter().find(|account| *account != sender)?;
        let lack = self.lack(&reader, places)?;
        (lack.after_ms < time_ms && latest_ms < lack.before_ms).then_some(Lost { reader, lack })
    }

    fn lack(&self, account: &AccountId, places: &mut Places) -> Option<Lack> {
        if places.inboxes.len() >= REMEMBERED_MAX {
            places.inboxes.clear();
        }
        *places.inboxes.entry(*account).or_insert_with(|| self.read_lack(account))
    }

    fn read_lack(&self, account: &AccountId) -> Option<Lack> {
        let head: InboxHead = self.get(Family::InboxHead, &key::inbox_head(account))?;
        let taken_seq = self.cursors(account).iter().map(|cursor| cursor.seq).min()?;
        let before_seq = taken_seq.max(head.overflow.seq);
        if before_seq >= head.seq {
            return None;
        }
        let last = self.last_entry(account, before_seq);
        let after_ms = last.map_or(0, |entry| entry.time_ms());
        let mut lack = Some(Lack { first_seq: before_seq + 1, last_seq: head.seq, after_ms, before_ms: u64::MAX });
        let is_read = self.scan(Family::Inbox, &key::inbox_after(account, before_seq), |record_key, value| {
            let entry = InboxEntry::decode(&Bytes::copy_from_slice(value)).ok();
            let (Some((_, seq)), Some(entry)) = (key::parse_inbox(record_key), entry) else {
                lack = None;
                return false;
            };
            if self.times.is_expired(entry.time_ms()) {
                return true;
            }
            lack = lack.and_then(|lack| {
                let last_seq = seq.checked_sub(1).filter(|last_seq| *last_seq >= lack.first_seq)?;
                Some(Lack { last_seq, before_ms: entry.time_ms(), ..lack })
            });
            false
        });
        // From what does not read nothing follows. Between two lives there are positions that nobody was ever given.
        lack.filter(|lack| is_read && inbox_life(before_seq) == inbox_life(lack.last_seq))
    }

    fn talk(&self, conversation: &ConversationId, places: &mut Places) -> Talk {
        if places.talks.len() >= REMEMBERED_MAX {
            places.talks.clear();
        }
        *places.talks.entry(*conversation).or_insert_with(|| self.read_talk(conversation))
    }

    fn read_talk(&self, conversation: &ConversationId) -> Talk {
        let head_key = key::conversation(conversation, ConversationTag::Head);
        let Some(head) = self.get::<ConversationHead>(Family::Conversation, &head_key) else {
            return if self.has(Family::Conversation, &head_key) { Talk::Other } else { Talk::Gone };
        };
        let mut accounts: Vec<_> = head.members.iter().map(|member| member.account).collect();
        accounts.sort_unstable();
        accounts.dedup();
        match <[AccountId; 2]>::try_from(accounts) {
            Ok(accounts) if head.kind == ConversationKind::Direct => {
                Talk::Direct { accounts, created_ms: head.created_ms }
            }
            _ => Talk::Other,
        }
    }

    /// The last entry of an inbox up to a position that is on the disk.
    fn last_entry(&self, account: &AccountId, seq: u64) -> Option<InboxEntry> {
        let (found, value) = self.last(Family::Inbox, &key::inbox(account, seq))?;
        let (owner, _) = key::parse_inbox(&found)?;
        InboxEntry::decode(&value).ok().filter(|_| owner == *account)
    }

    fn conversations_of(&self, account: &AccountId) -> Vec<ConversationId> {
        let mut conversations = Vec::new();
        self.scan(Family::Directory, &key::memberships(account), |record_key, _| {
            conversations.extend(key::parse_membership(record_key).map(|(_, conversation)| conversation));
            true
        });
        conversations
    }
}
