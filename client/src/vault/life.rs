//! Where this database stands in the life of its device: each connection leads to the next, so that the server tells an
//! older copy from the newest.

use gureum_proto::{Life, LifeToken};
use rusqlite::params;

use super::key::random;
use super::work::Work;
use super::{Vault, VaultError};
use crate::limits::NUMBER_MAX;

const FIRST: LifeToken = LifeToken::from_bytes([0; 16]);

impl Vault {
    /// The server goes on from what was claimed. Harmless when it comes late or twice. Returns false, and changes nothing,
    /// where the server has yet to confirm that this database goes on in the place of a newer one.
    ///
    /// # Errors
    /// The database failed.
    pub fn life_confirmed(&mut self, claimed: &Life) -> Result<bool, VaultError> {
        self.write(|work| {
            let is_taking_over: bool =
                work.connection.query_row("SELECT taking_over FROM profile", [], |row| row.get(0))?;
            if is_taking_over {
                return Ok(false);
            }
            let sql = "UPDATE profile SET life = ?1, life_token = life_next, life_next = NULL
                       WHERE life_next = ?2";
            let generation = claimed.generation.saturating_add(1).min(NUMBER_MAX);
            work.connection.execute(sql, params![generation, claimed.next.as_bytes()])?;
            Ok(true)
        })
    }
}

/// What the next Hello claims. The token of the next connection is made once, and the same until it is confirmed: if the
/// answer is lost, the server knows the claim again.
pub(super) fn claim(work: &Work<'_>) -> Result<Life, VaultError> {
    let (generation, token, next) = read(work)?;
    let next = match next {
        Some(next) => next,
        None => {
            let next = LifeToken::from_bytes(*random()?);
            work.connection.execute("UPDATE profile SET life_next = ?1", params![next.as_bytes()])?;
            next
        }
    };
    Ok(Life { generation, token, next })
}

/// Whether this database stands where it stood when it claimed that.
pub(super) fn stands_at(work: &Work<'_>, claimed: &Life) -> Result<bool, VaultError> {
    Ok(read(work)? == (claimed.generation, claimed.token, Some(claimed.next)))
}

fn read(work: &Work<'_>) -> Result<(u64, LifeToken, Option<LifeToken>), VaultError> {
    let sql = "SELECT life, life_token, life_next FROM profile";
    let token = |bytes: Option<[u8; 16]>| bytes.map(LifeToken::from_bytes);
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, token(row.get(1)?), token(row.get(2)?)));
    let (generation, token, next) = work.connection.query_row(sql, [], read)?;
    Ok((generation, token.unwrap_or(FIRST), next))
}
