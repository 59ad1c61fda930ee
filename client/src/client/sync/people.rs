//! What was decided about people and conversations, told to the server, which wakes by it.

use gureum_proto::{AccountId, Code, ConversationId, Request, Response};

use super::{ClientError, Sync};
use crate::limits::{DECISIONS_AT_ONCE, LISTING_PAGES_MAX};
use crate::link::LinkError;
use crate::vault::Vault;

/// How far the server was told.
#[derive(Debug)]
pub(crate) enum Told {
    /// It has heard everything, or knows no such requests.
    All,
    /// There is more.
    More,
    /// It wants to be left alone for now.
    Later(LinkError),
}

impl Sync {
    /// Tells the server some of what was decided and it has not heard. What it refuses for good is not told again: it knows
    /// nothing of that conversation, or is told of more people than it remembers.
    pub(crate) async fn tell_decisions(&self) -> Result<Told, ClientError> {
        let untold = self.vault.call(|vault| vault.untold(DECISIONS_AT_ONCE)).await?;
        let is_all = untold.len() < DECISIONS_AT_ONCE;
        for decision in untold {
            match self.link.request(&decision.request()).await {
                Ok(Response::Done) => (),
                Ok(_) => return Err(ClientError::Mismatched),
                Err(error) if error.is_final() => tracing::warn!(%error, ?decision, "the server does not keep this"),
                Err(error @ LinkError::Refused(_)) => return Ok(Told::Later(error)),
                Err(error) if is_unknown(&error) => return Ok(Told::All),
                Err(error) => return Err(error.into()),
            }
            self.vault.call(move |vault| vault.told(&decision)).await?;
        }
        Ok(if is_all { Told::All } else { Told::More })
    }

    /// Asks the server how this account stands to others and takes its conversations, once on a device that others were
    /// before: all that knew may be lost. An older server, which does not say so, is asked again by a later session, when it
    /// may be a newer one.
    pub(crate) async fn read_decisions(&self) -> Result<(), ClientError> {
        if !self.vault.call(Vault::asks_for_decisions).await? {
            return Ok(());
        }
        if self.read_relations().await? && self.read_preferences().await? {
            self.vault.call(Vault::hear_decisions).await
        } else {
            self.vault.call(Vault::ask_for_decisions_later).await
        }
    }

    /// Says whether the server knows such requests; if not, the connection is over.
    async fn read_relations(&self) -> Result<bool, ClientError> {
        let mut after: Option<AccountId> = None;
        for _ in 0..LISTING_PAGES_MAX {
            let (relations, more) = match self.link.request(&Request::ReadRelations { after }).await {
                Ok(Response::Relations { relations, more }) => (relations, more),
                Ok(_) => return Err(ClientError::Mismatched),
                Err(error) if is_unknown(&error) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            let last = relations.last().map(|(account, _)| *account);
            self.vault.call(move |vault| vault.learn_relations(&relations)).await?;
            if !more || last <= after {
                return Ok(true);
            }
            after = last;
        }
        Err(ClientError::Stuck("a list of relations without end".to_owned()))
    }

    /// As [`Self::read_relations`].
    async fn read_preferences(&self) -> Result<bool, ClientError> {
        let mut after: Option<ConversationId> = None;
        for _ in 0..LISTING_PAGES_MAX {
            let (preferences, more) = match self.link.request(&Request::ReadPreferences { after }).await {
                Ok(Response::Preferences { preferences, more }) => (preferences, more),
                Ok(_) => return Err(ClientError::Mismatched),
                Err(error) if is_unknown(&error) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            let last = preferences.last().map(|(conversation, _)| *conversation);
            self.vault.call(move |vault| vault.learn_preferences(&preferences)).await?;
            if !more || last <= after {
                return Ok(true);
            }
            after = last;
        }
        Err(ClientError::Stuck("a list of preferences without end".to_owned()))
    }
}

/// Whether it is the answer of a server that is older than such requests.
fn is_unknown(error: &LinkError) -> bool {
    matches!(error, LinkError::Closed { code: Code::PayloadMalformed, .. })
}
