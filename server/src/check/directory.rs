//! What the directory holds: names and numbers that lead to each other, and decisions of accounts that are there.

use bytes::Bytes;
use gureum_proto::{AccountId, ConversationId, Relation};

use super::database::{Audit, record};
use super::report::{Kind, Report};
use crate::store::key::{self, ConversationTag};
use crate::store::record::{LockRecord, NumberRecord, PhoneRecord, PreferenceRecord};
use crate::store::{Family, Record};

/// The place of all findings here.
const PLACE: &str = "directory";

impl Audit<'_> {
    pub(super) fn directory(&self, report: &mut Report) {
        self.each(Family::Directory, report, |name, value, report| {
            let is_sound = match name.split_first() {
                Some((b'h' | b'a' | b'r' | b'l' | b'x', _)) => self.names_an_account(name, value, report),
                Some((b'c' | b'p', _)) => self.names_a_conversation(name, value, report),
                Some((b'n' | b'o' | b'k', _)) => self.is_of_a_phone(name, value, report),
                Some((b'b' | b'w', _)) => self.is_decided(name, value, report),
                _ => false,
            };
            if !is_sound {
                report.find(Kind::Directory, PLACE, name, "the name leads nowhere");
            }
        });
    }

    fn names_an_account(&self, name: &[u8], value: &Bytes, report: &mut Report) -> bool {
        match name.split_first() {
            Some((b'h', handle)) => record::<AccountId>(PLACE, name, value, report).is_none_or(|account| {
                let back: Option<String> = self.get(Family::Directory, &key::handle_of(&account));
                back.is_some_and(|back| back.as_bytes() == handle) && self.has_log(&account)
            }),
            Some((b'a', account)) => record::<String>(PLACE, name, value, report).is_none_or(|handle| {
                let has_it: Option<AccountId> = self.get(Family::Directory, &key::handle(&handle));
                // Whoever has proven the number of an account that has gone may have its handle as well.
                let may_be_lost = || AccountId::try_from(account).is_ok_and(|account| self.is_gone(&account));
                has_it.is_some_and(|has_it| has_it.as_bytes() == account || may_be_lost())
            }),
            // Whether it is the account's key stands in its log, which is read elsewhere.
            Some((b'r', recovery_key)) => record::<AccountId>(PLACE, name, value, report)
                .is_none_or(|account| recovery_key.len() == 32 && self.has_log(&account)),
            Some((_, account)) => AccountId::try_from(account)
                .is_ok_and(|account| record::<u64>(PLACE, name, value, report).is_none() || self.has_log(&account)),
            None => false,
        }
    }

    fn names_a_conversation(&self, name: &[u8], value: &Bytes, report: &mut Report) -> bool {
        let is_there =
            |id: &ConversationId| self.has(Family::Conversation, &key::conversation(id, ConversationTag::Head));
        if name.first() == Some(&b'c') {
            return key::parse_membership(name).is_some_and(|(_, conversation)| is_there(&conversation));
        }
        record::<ConversationId>(PLACE, name, value, report).is_none_or(|id| is_there(&id))
    }

    fn is_of_a_phone(&self, name: &[u8], value: &Bytes, report: &mut Report) -> bool {
        if name.first() == Some(&b'n') {
            report.count("phone numbers", 1);
            return key::parse_number(name).is_some_and(|number| {
                record::<NumberRecord>(PLACE, name, value, report).is_none_or(|found| {
                    let phone: Option<PhoneRecord> = self.get(Family::Directory, &key::phone_of(&found.account));
                    phone.is_some_and(|phone| phone.number == Some(number)) && self.is_in_use(&found.account)
                })
            });
        }
        let Some(account) = name.split_first().and_then(|(_, account)| AccountId::try_from(account).ok()) else {
            return false;
        };
        if name.first() == Some(&b'k') {
            return reads::<LockRecord>(name, value, report, || self.is_in_use(&account));
        }
        record::<PhoneRecord>(PLACE, name, value, report).is_none_or(|phone| {
            let leads_back = |number| {
                let found: Option<NumberRecord> = self.get(Family::Directory, &key::number(&number));
                found.is_some_and(|found| found.account == account)
            };
            phone.number.is_none_or(leads_back) && self.is_in_use(&account)
        })
    }

    fn is_decided(&self, name: &[u8], value: &Bytes, report: &mut Report) -> bool {
        if let Some((owner, _)) = key::parse_relation(name) {
            return reads::<Relation>(name, value, report, || self.is_in_use(&owner));
        }
        key::parse_preference(name).is_some_and(|(owner, conversation)| {
            let membership = key::membership(&owner, &conversation);
            reads::<PreferenceRecord>(name, value, report, || {
                self.is_in_use(&owner) && self.has(Family::Directory, &membership)
            })
        })
    }

    /// Whether an account is there and was not deleted.
    fn is_in_use(&self, account: &AccountId) -> bool {
        self.has_log(account) && !self.is_gone(account)
    }

    fn is_gone(&self, account: &AccountId) -> bool {
        self.has(Family::Directory, &key::gone(account))
    }
}

/// Whether what stands under a name is sound, of what reads; what does not read is another finding.
fn reads<R: Record>(name: &[u8], value: &Bytes, report: &mut Report, is_sound: impl FnOnce() -> bool) -> bool {
    record::<R>(PLACE, name, value, report).is_none() || is_sound()
}
