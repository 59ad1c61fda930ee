//! What an account decides: whom it hears of while it is away, and that it exists no longer.

use std::sync::Arc;

use bytes::Bytes;
use gureum_proto::limits::{PREFERENCES_PAGE, RELATIONS_PAGE};
use gureum_proto::{AccountId, Code, ConversationId, Handle, Preference, Refusal, Relation, Response};

use super::{Answer, Requests};
use crate::router::{Change, Changed};
use crate::session::Authenticated;
use crate::store::key::{Key, KeyRange};
use crate::store::record::PreferenceRecord;
use crate::store::{Family, Record, Store, StoreError, decode, key};

impl Requests {
    pub(super) async fn set_conversation(
        self: &Arc<Self>,
        from: Authenticated,
        conversation: ConversationId,
        accepted: bool,
        muted_until_ms: u64,
    ) -> Answer {
        let preference = PreferenceRecord { accepted, muted_until_ms };
        self.decide(from, Change::SetConversation { from, conversation, preference }).await
    }

    pub(super) async fn set_relation(
        self: &Arc<Self>,
        from: Authenticated,
        other: AccountId,
        relation: Relation,
    ) -> Answer {
        self.decide(from, Change::SetRelation { from, other, relation }).await
    }

    async fn decide(&self, from: Authenticated, change: Change) -> Answer {
        self.quotas.decision(from.account())?;
        match self.router.change(change).await? {
            Changed::Done => Ok(Response::Done),
            _ => Err(Refusal::new(Code::Internal)),
        }
    }

    pub(super) async fn relations(self: &Arc<Self>, from: Authenticated, after: Option<AccountId>) -> Answer {
        self.blocking(move |this| {
            let (relations, more) = relations(this.store.as_ref(), from.account(), after)?;
            Ok(Response::Relations { relations, more })
        })
        .await
    }

    pub(super) async fn preferences(self: &Arc<Self>, from: Authenticated, after: Option<ConversationId>) -> Answer {
        self.blocking(move |this| {
            let (preferences, more) = preferences(this.store.as_ref(), from.account(), after)?;
            Ok(Response::Preferences { preferences, more })
        })
        .await
    }

    /// The devices of the account are cut off by this, the asking one too: it may hear of that before it has the answer.
    pub(super) async fn delete_account(self: &Arc<Self>, from: Authenticated, handle: Handle) -> Answer {
        match self.router.change(Change::DeleteOwn { from, handle }).await? {
            Changed::Deleted { devices, .. } => {
                tracing::info!(devices, "an account was deleted by its owner");
                Ok(Response::Done)
            }
            _ => Err(Refusal::new(Code::Internal)),
        }
    }
}

/// What an account has decided about others, ascending, after one of them; and whether there is more.
fn relations(
    store: &dyn Store,
    account: AccountId,
    after: Option<AccountId>,
) -> Result<(Vec<(AccountId, Relation)>, bool), StoreError> {
    let after = after.map(|after| key::relation(&account, &after));
    let (found, more) = page::<Relation>(store, &key::relations(&account), after, RELATIONS_PAGE)?;
    let other = |(name, relation): (Bytes, Relation)| Some((key::parse_relation(&name)?.1, relation));
    Ok((found.into_iter().filter_map(other).collect(), more))
}

/// The same of what it has decided about its conversations.
fn preferences(
    store: &dyn Store,
    account: AccountId,
    after: Option<ConversationId>,
) -> Result<(Vec<(ConversationId, Preference)>, bool), StoreError> {
    let after = after.map(|after| key::preference(&account, &after));
    let (found, more) = page::<PreferenceRecord>(store, &key::preferences(&account), after, PREFERENCES_PAGE)?;
    let conversation = |(name, PreferenceRecord { accepted, muted_until_ms }): (Bytes, PreferenceRecord)| {
        Some((key::parse_preference(&name)?.1, Preference { accepted, muted_until_ms }))
    };
    Ok((found.into_iter().filter_map(conversation).collect(), more))
}

/// So many of the directory's records in a range, behind one of its keys; and whether there are more.
fn page<R: Record>(
    store: &dyn Store,
    range: &KeyRange,
    after: Option<Key>,
    records_max: usize,
) -> Result<(Vec<(Bytes, R)>, bool), StoreError> {
    let mut start = after.unwrap_or(range.start).to_vec();
    if after.is_some() {
        // The first key behind that one.
        start.push(0);
    }
    let range = start.as_slice()..range.end.as_slice();
    let mut found = store.scan(Family::Directory, range, records_max.saturating_add(1))?;
    let more = found.len() > records_max;
    found.truncate(records_max);
    let read = |(name, value): (Bytes, Bytes)| -> Result<(Bytes, R), StoreError> {
        Ok((name, decode(Family::Directory, &value)?))
    };
    Ok((found.into_iter().map(read).collect::<Result<Vec<_>, _>>()?, more))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

    use super::*;
    use crate::store::conformance::expiry;
    use crate::store::memory::MemoryStore;
    use crate::store::{Batch, Durability};

    const OWNER: AccountId = AccountId::from_bytes([0xa1; 16]);

    fn other(number: usize) -> AccountId {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&(number as u64).to_be_bytes());
        AccountId::from_bytes(id)
    }

    #[test]
    fn all_relations_come_in_pages_once_each_and_none_of_others() {
        let store = MemoryStore::new(expiry().1);
        let mut batch = Batch::new();
        let count = 2 * RELATIONS_PAGE + 1;
        for number in 0..count {
            let relation = if number % 2 == 0 { Relation::Accepted } else { Relation::Blocked };
            batch.put_record(Family::Directory, key::relation(&OWNER, &other(number)), &relation);
        }
        for neighbour in [[0xa0; 16], [0xa2; 16]].map(AccountId::from_bytes) {
            batch.put_record(Family::Directory, key::relation(&neighbour, &OWNER), &Relation::Accepted);
        }
        store.write(&batch, Durability::Synced).unwrap();

        let (mut all, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let (relations, more) = relations(&store, OWNER, after).unwrap();
            after = relations.last().map(|(account, _)| *account);
            all.extend(relations);
            pages += 1;
            if !more {
                break;
            }
        }
        assert_eq!(pages, 3);
        assert_eq!(all.len(), count);
        assert!(all.iter().enumerate().all(|(number, (account, relation))| {
            *account == other(number) && (*relation == Relation::Accepted) == (number % 2 == 0)
        }));
        assert_eq!(relations(&store, OWNER, after).unwrap(), (Vec::new(), false));
    }

    #[test]
    fn all_preferences_come_in_pages_once_each_and_none_of_others() {
        let store = MemoryStore::new(expiry().1);
        let mut batch = Batch::new();
        let count = 2 * PREFERENCES_PAGE;
        let conversation = |number| ConversationId::from_bytes(other(number).to_bytes());
        let until_ms = |number: usize| number as u64 + 1;
        for number in 0..count {
            let preference = PreferenceRecord { accepted: number % 2 == 0, muted_until_ms: until_ms(number) };
            batch.put_record(Family::Directory, key::preference(&OWNER, &conversation(number)), &preference);
        }
        for neighbour in [[0xa0; 16], [0xa2; 16]].map(AccountId::from_bytes) {
            let preference = PreferenceRecord { accepted: true, muted_until_ms: 0 };
            batch.put_record(Family::Directory, key::preference(&neighbour, &conversation(1)), &preference);
        }
        store.write(&batch, Durability::Synced).unwrap();

        let (first, more) = preferences(&store, OWNER, None).unwrap();
        assert_eq!((first.len(), more), (PREFERENCES_PAGE, true));
        let (second, more) = preferences(&store, OWNER, first.last().map(|(last, _)| *last)).unwrap();
        assert_eq!((second.len(), more), (PREFERENCES_PAGE, false));
        for (number, found) in first.iter().chain(&second).enumerate() {
            let preference = Preference { accepted: number % 2 == 0, muted_until_ms: until_ms(number) };
            assert_eq!(*found, (conversation(number), preference));
        }
    }
}
