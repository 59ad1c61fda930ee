//! How an account stands to others: whom it has accepted, and whom it has blocked.

use crate::convert::{PayloadError, id, raw, schema};
use crate::ids::AccountId;
use crate::limits::RELATIONS_PAGE;

/// How an account stands to another, by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relation {
    /// It has said nothing: what comes of the other is a request, and wakes nobody.
    None,
    /// What comes of the other wakes.
    Accepted,
    /// Nothing of the other wakes.
    Blocked,
}

impl Relation {
    pub(super) fn write(self) -> i32 {
        match self {
            Self::None => schema::Relation::None,
            Self::Accepted => schema::Relation::Accepted,
            Self::Blocked => schema::Relation::Blocked,
        }
        .into()
    }

    pub(super) fn read(relation: i32) -> Result<Self, PayloadError> {
        match schema::Relation::try_from(relation) {
            Ok(schema::Relation::None) => Ok(Self::None),
            Ok(schema::Relation::Accepted) => Ok(Self::Accepted),
            Ok(schema::Relation::Blocked) => Ok(Self::Blocked),
            Ok(schema::Relation::Unspecified) | Err(_) => Err(PayloadError::Invalid("relation")),
        }
    }

    pub(super) fn write_page(relations: &[(AccountId, Self)], more: bool) -> schema::Relations {
        let state = |(account, relation): &(AccountId, Self)| schema::RelationState {
            account: raw(account),
            relation: relation.write(),
        };
        schema::Relations { relations: relations.iter().map(state).collect(), more }
    }

    pub(super) fn read_page(page: &schema::Relations) -> Result<(Vec<(AccountId, Self)>, bool), PayloadError> {
        if page.relations.len() > RELATIONS_PAGE {
            return Err(PayloadError::TooLong("page of relations"));
        }
        let state = |state: &schema::RelationState| -> Result<_, PayloadError> {
            let relation = Self::read(state.relation)?;
            if relation == Self::None {
                return Err(PayloadError::Invalid("relation"));
            }
            Ok((id(&state.account, "account")?, relation))
        };
        let relations = page.relations.iter().map(state).collect::<Result<Vec<(AccountId, Self)>, _>>()?;
        if !relations.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(PayloadError::Invalid("order of accounts"));
        }
        Ok((relations, page.more))
    }
}
