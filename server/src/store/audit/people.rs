//! The invariants of push targets, of phone numbers, and of accounts that have gone with all that was theirs.

use std::collections::BTreeSet;

use bytes::Bytes;
use gureum_proto::{AccountId, DeviceId, Relation};

use super::{Audit, Violation, all};
use crate::limits::SCAN_ENTRIES_MAX;
use crate::store::key::{self, KeyRange, NumberHash};
use crate::store::record::{
    CodeRecord, InboxHead, LockRecord, NumberRecord, PhoneRecord, PreferenceRecord, PushStateRecord, PushTargetRecord,
    SpentRecord,
};
use crate::store::{Family, StoreError};

impl Audit<'_> {
    /// What a batch does to push targets, numbers, codes, and accounts that end.
    pub(super) fn people(&mut self) -> Result<(), StoreError> {
        let changed = self.changed(Family::Push);
        let parsed = changed.iter().filter_map(|changed| key::parse_push(changed));
        let devices: BTreeSet<_> = parsed.map(|(account, device, _)| (account, device)).collect();
        for (account, device) in devices {
            self.push_of(account, device)?;
        }
        let changed = self.changed(Family::Directory);
        for number in changed.iter().filter_map(|changed| key::parse_number(changed)) {
            self.number(&number)?;
        }
        for account in changed.iter().filter_map(|changed| owner(b'o', changed)) {
            self.phone(account)?;
        }
        self.decisions();
        self.codes();
        self.ended()
    }

    /// The same of a store as it stands.
    pub(super) fn people_of_store(&mut self) -> Result<(), StoreError> {
        let mut devices = BTreeSet::new();
        for (push_key, _) in all(self.before, Family::Push)? {
            devices.extend(key::parse_push(&push_key).map(|(account, device, _)| (account, device)));
        }
        for (account, device) in devices {
            self.push_of(account, device)?;
        }
        for (name, _) in all(self.before, Family::Directory)? {
            if let Some(number) = key::parse_number(&name) {
                self.number(&number)?;
            } else if let Some(account) = owner(b'o', &name) {
                self.phone(account)?;
            } else if let Some(account) = owner(b'x', &name)
                && self.has_left_something(&account)?
            {
                self.found.push(Violation::AccountGone { account });
            }
        }
        Ok(())
    }

    /// The keys that a batch sets or removes in a family.
    fn changed(&self, family: Family) -> Vec<Bytes> {
        let of_family = self.after.keys().filter(|(of, _)| *of == family);
        of_family.map(|(_, changed)| changed.clone()).collect()
    }

    /// Whoever is on record as woken, or as to be woken, has a target, and was woken for what was there.
    fn push_of(&mut self, account: AccountId, device: DeviceId) -> Result<(), StoreError> {
        let target: Option<PushTargetRecord> = self.after(Family::Push, &key::push_target(&account, &device))?;
        let state: Option<PushStateRecord> = self.after(Family::Push, &key::push_state(&account, &device))?;
        let alarm: Option<u64> = self.after(Family::Push, &key::push_alarm(&account, &device))?;
        let head: InboxHead = self.after(Family::InboxHead, &key::inbox_head(&account))?.unwrap_or_default();
        let is_owed_nowhere = target.is_none() && (state.is_some() || alarm.is_some());
        if is_owed_nowhere || state.is_some_and(|state| state.woken_seq > head.seq) {
            self.found.push(Violation::PushWrong { account, device });
        }
        Ok(())
    }

    /// A number leads to the account that says it has it, and nobody else who was said to have it still says so.
    fn number(&mut self, number: &NumberHash) -> Result<(), StoreError> {
        let number_key = key::number(number);
        let before: Option<NumberRecord> = self.before(Family::Directory, &number_key)?;
        let after: Option<NumberRecord> = self.after(Family::Directory, &number_key)?;
        let accounts: BTreeSet<_> = before.iter().chain(&after).map(|record| record.account).collect();
        for account in accounts {
            let phone: Option<PhoneRecord> = self.after(Family::Directory, &key::phone_of(&account))?;
            let says_so = phone.is_some_and(|phone| phone.number.as_ref() == Some(number));
            if says_so != after.is_some_and(|after| after.account == account) {
                self.found.push(Violation::NumberWrong { account });
            }
        }
        Ok(())
    }

    /// The number of an account leads back to it.
    fn phone(&mut self, account: AccountId) -> Result<(), StoreError> {
        let phone: Option<PhoneRecord> = self.after(Family::Directory, &key::phone_of(&account))?;
        let Some(number) = phone.and_then(|phone| phone.number) else { return Ok(()) };
        let back: Option<NumberRecord> = self.after(Family::Directory, &key::number(&number))?;
        if back.is_none_or(|back| back.account != account) {
            self.found.push(Violation::NumberWrong { account });
        }
        Ok(())
    }

    /// What accounts decide can be read.
    fn decisions(&mut self) {
        for (name, value) in self.puts(Family::Directory) {
            match name.first() {
                Some(b'k') => {
                    let _: Option<LockRecord> = self.decode(Family::Directory, &value);
                }
                Some(b'b') => {
                    let _: Option<Relation> = self.decode(Family::Directory, &value);
                }
                Some(b'w') => {
                    let _: Option<PreferenceRecord> = self.decode(Family::Directory, &value);
                }
                _ => {}
            }
        }
    }

    /// Codes can be read, and were sent in the past.
    fn codes(&mut self) {
        for (code_key, value) in self.puts(Family::Code) {
            if code_key.first() == Some(&b's') {
                let _: Option<SpentRecord> = self.decode(Family::Code, &value);
            } else if let Some(code) = self.decode::<CodeRecord>(Family::Code, &value) {
                self.not_future(Family::Code, code.sent_ms);
            }
        }
    }

    /// An account that has gone gets none of all this, and one that goes leaves none of it.
    fn ended(&mut self) -> Result<(), StoreError> {
        let mut accounts = BTreeSet::new();
        for (push_key, _) in self.puts(Family::Push) {
            accounts.extend(key::parse_push(&push_key).map(|(account, _, _)| account));
        }
        for (name, _) in self.puts(Family::Directory) {
            let owners = [b'o', b'k', b'x'].into_iter().filter_map(|prefix| owner(prefix, &name));
            accounts.extend(owners);
            accounts.extend(key::parse_relation(&name).map(|(owner, _)| owner));
            accounts.extend(key::parse_preference(&name).map(|(owner, _)| owner));
        }
        for account in accounts {
            let is_gone: Option<u64> = self.after(Family::Directory, &key::gone(&account))?;
            if is_gone.is_some() && self.has_left_something(&account)? {
                self.found.push(Violation::AccountGone { account });
            }
        }
        Ok(())
    }

    /// Whether there is a target, a result of a send, a number, a lock or a decision of an account.
    fn has_left_something(&self, account: &AccountId) -> Result<bool, StoreError> {
        Ok(self.is_there(key::phone_of(account))?
            || self.is_there(key::lock_of(account))?
            || self.holds(Family::Push, &key::push_of(account))?
            || self.holds(Family::Sent, &key::all_sent(account))?
            || self.holds(Family::Directory, &key::relations(account))?
            || self.holds(Family::Directory, &key::preferences(account))?)
    }

    fn is_there(&self, name: key::Key) -> Result<bool, StoreError> {
        match self.after.get(&(Family::Directory, Bytes::copy_from_slice(&name))) {
            Some(value) => Ok(value.is_some()),
            None => Ok(self.before.get(Family::Directory, &name)?.is_some()),
        }
    }

    /// Whether a range holds anything after the batch.
    fn holds(&self, family: Family, range: &KeyRange) -> Result<bool, StoreError> {
        let bound = |end: &key::Key| (family, Bytes::copy_from_slice(end));
        let mut changed = self.after.range(bound(&range.start)..bound(&range.end));
        if changed.any(|(_, value)| value.is_some()) {
            return Ok(true);
        }
        let mut start = range.start.as_slice().to_vec();
        loop {
            let page = self.before.scan(family, start.as_slice()..range.end.as_slice(), SCAN_ENTRIES_MAX)?;
            let Some((last, _)) = page.last() else { return Ok(false) };
            start = last.to_vec();
            start.push(0);
            if page.iter().any(|(there, _)| !self.after.contains_key(&(family, there.clone()))) {
                return Ok(true);
            }
        }
    }
}

/// The account of a directory's key that is a prefix and an account.
fn owner(prefix: u8, name: &[u8]) -> Option<AccountId> {
    AccountId::try_from(name.strip_prefix(&[prefix])?).ok()
}
