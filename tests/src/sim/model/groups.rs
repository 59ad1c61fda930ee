//! Who goes out of groups: devices that are revoked, from that moment on, and accounts that somebody wants out, and no
//! other. One whose devices are all revoked has not left, and comes in again.

use std::collections::BTreeMap;

use gureum_client::vault::Message;
use gureum_proto::{AccountId, ConversationId};

use super::{Inner, Model, Seen, name_of};
use crate::sim::installation::Who;
use crate::sim::ledger::Exit;

/// When somebody wanted an account out of a group, by the changes that the server had written.
pub(super) type Wanted = BTreeMap<(ConversationId, AccountId), Vec<u64>>;

impl Model {
    /// Somebody is about to leave a group, or to remove this person from it.
    pub fn wants_out(&self, conversation: ConversationId, person: usize) {
        let mut inner = self.inner();
        let now = inner.ledger.now();
        if let Some(account) = inner.people.get(&person).map(|account| account.id) {
            inner.wanted_out.entry((conversation, account)).or_default().push(now);
        }
    }

    /// One of a person's devices that the account has revoked, if there is one.
    #[must_use]
    pub fn revoked_one(&self, person: usize) -> Option<Who> {
        let inner = self.inner();
        let is_revoked = |(who, seen): &(&Who, &Seen)| who.person == person && seen.revoked_ms.is_some();
        inner.devices.iter().find(is_revoked).map(|(who, _)| *who)
    }

    /// From the moment of a revocation on the device is told nothing that is accepted, and in no group that it has a leaf in
    /// is anything accepted.
    pub(super) fn check_revoked(&self, inner: &Inner, who: Who, message: &Message) {
        let Some(id) = message.message_id else { return };
        let name = || name_of(&message.text).to_owned();
        let device = inner.devices.get(&who).and_then(|seen| seen.device);
        let is_new = device.is_some_and(|device| inner.ledger.is_after_revocation(id, device));
        self.journal.check(!is_new, "a revoked device gets nothing new", || format!("{who} got {}", name()));
        let stays = inner.ledger.revoked_among(message.conversation, id);
        self.journal.check(stays.is_none(), "nothing is taken where a revoked device has a leaf", || {
            format!("{} was, in {}", name(), message.conversation)
        });
    }
}

/// Whoever has gone out of a group was wanted out, as often as it has gone.
pub(super) fn check(model: &Inner, open: &mut Vec<String>) {
    for Exit { conversation, account, .. } in unwanted(&model.ledger.exits(), &model.wanted_out) {
        let person = model.people.iter().find(|(_, known)| known.id == account).map(|(person, _)| *person);
        let name = person.map_or_else(|| account.to_string(), |person| format!("person{person}"));
        open.push(format!("{name} is out of the group {conversation}, and nobody wanted that"));
    }
}

/// Those for whom there is nothing that somebody wanted before, and by which the account has not gone before.
fn unwanted(exits: &[Exit], wanted: &Wanted) -> Vec<Exit> {
    let mut gone: BTreeMap<(ConversationId, AccountId), usize> = BTreeMap::new();
    let is_unwanted = |exit: &Exit| {
        let which = (exit.conversation, exit.account);
        let count = gone.entry(which).or_default();
        *count += 1;
        let before = wanted.get(&which).map_or(0, |times| times.iter().filter(|time| **time < exit.at).count());
        before < *count
    };
    exits.iter().copied().filter(is_unwanted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: ConversationId = ConversationId::from_bytes([9; 16]);
    const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);

    #[track_caller]
    fn check(wanted: &[u64], exits: &[u64], expected: &[u64]) {
        let exit = |at: &u64| Exit { conversation: GROUP, account: ACCOUNT, at: *at };
        let exits: Vec<_> = exits.iter().map(exit).collect();
        let wanted = [((GROUP, ACCOUNT), wanted.to_vec())].into();
        let found: Vec<_> = unwanted(&exits, &wanted).into_iter().map(|exit| exit.at).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_account_goes_out_of_a_group_no_more_often_than_somebody_wanted() {
        check(&[1], &[2], &[]);
        check(&[], &[2], &[2]);
        check(&[3], &[2], &[2]);
        check(&[1], &[2, 4], &[4]);
        check(&[1, 3], &[2, 4], &[]);
        check(&[1, 1], &[2, 4], &[]);
    }

    #[test]
    fn what_was_wanted_of_one_group_says_nothing_of_another() {
        let wanted = [((ConversationId::from_bytes([8; 16]), ACCOUNT), vec![1])].into();
        let exit = Exit { conversation: GROUP, account: ACCOUNT, at: 2 };
        assert_eq!(unwanted(&[exit], &wanted), [exit]);
    }
}
