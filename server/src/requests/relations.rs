//! What an account decides: whom it hears of while it is away, and that it exists no longer.

use std::sync::Arc;

use gureum_proto::limits::RELATIONS_PAGE;
use gureum_proto::{AccountId, Code, ConversationId, Handle, Refusal, Relation, Response};

use super::{Answer, Requests};
use crate::router::{Change, Changed};
use crate::session::Authenticated;
use crate::store::record::PreferenceRecord;
use crate::store::{Family, Store, StoreError, decode, key};

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
            let (relations, more) = page(this.store.as_ref(), from.account(), after)?;
            Ok(Response::Relations { relations, more })
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
fn page(
    store: &dyn Store,
    account: AccountId,
    after: Option<AccountId>,
) -> Result<(Vec<(AccountId, Relation)>, bool), StoreError> {
    let range = key::relations(&account);
    let mut start = after.map_or(range.start, |after| key::relation(&account, &after)).to_vec();
    if after.is_some() {
        // The first key behind that one.
        start.push(0);
    }
    let found = store.scan(Family::Directory, start.as_slice()..range.end.as_slice(), RELATIONS_PAGE + 1)?;
    let more = found.len() > RELATIONS_PAGE;
    let mut relations = Vec::with_capacity(found.len().min(RELATIONS_PAGE));
    for (entry, value) in found.iter().take(RELATIONS_PAGE) {
        if let Some((_, other)) = key::parse_relation(entry) {
            relations.push((other, decode(Family::Directory, value)?));
        }
    }
    Ok((relations, more))
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
            let (relations, more) = page(&store, OWNER, after).unwrap();
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
        assert_eq!(page(&store, OWNER, after).unwrap(), (Vec::new(), false));
    }
}
