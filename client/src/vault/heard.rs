//! What the server says of what was decided about people and conversations: taken on a device that comes to an account which
//! others were in before, since all that knew may be lost. What a person has decided here meanwhile is their last word.

use gureum_proto::{AccountId, ConversationId, DeviceId, Relation};
use rusqlite::{Connection, params};

use super::relations::{Kept, Preference};
use super::work::Work;
use super::{Vault, VaultError};
use crate::e2ee::content::record::PREFERENCE;
use crate::limits::{DECISIONS_AGAIN_MS, NUMBER_MAX, TOLD_MAX};

/// What stands for whoever has decided what no device has said: it was so before, or the server says it.
const NOBODY: DeviceId = DeviceId::from_bytes([0; 16]);

/// The server was not asked yet.
const UNASKED: u64 = 0;

/// The server has said what it knows. Any greater number is when it was asked and was older than such requests, in
/// milliseconds since 1970.
const HEARD: u64 = 1;

impl Vault {
    /// Whether this account may have decided on a device that is lost what the server alone knows, and was not asked for yet.
    ///
    /// # Errors
    /// The database failed.
    pub fn lacks_decisions(&mut self) -> Result<bool, VaultError> {
        let is_first = self.identity().log_entry == 0;
        self.read(|connection, _| Ok(!is_first && heard(connection)? == UNASKED))
    }

    /// Whether the server is to be asked: it has not said what it knows, and if it was older than such requests, that is a
    /// while ago.
    ///
    /// # Errors
    /// The database failed.
    pub fn asks_for_decisions(&mut self) -> Result<bool, VaultError> {
        let is_first = self.identity().log_entry == 0;
        self.read(|connection, now_ms| {
            Ok(!is_first
                && match heard(connection)? {
                    UNASKED => true,
                    HEARD => false,
                    // Where the clock was put back, too.
                    asked_ms => now_ms.abs_diff(asked_ms) >= DECISIONS_AGAIN_MS,
                })
        })
    }

    /// The server has said all that it knows of what was decided.
    ///
    /// # Errors
    /// The database failed.
    pub fn hear_decisions(&mut self) -> Result<(), VaultError> {
        self.write(|work| set_heard(work, HEARD))
    }

    /// The server is older than such requests, and is asked again after a while.
    ///
    /// # Errors
    /// The database failed.
    pub fn ask_for_decisions_later(&mut self) -> Result<(), VaultError> {
        self.write(|work| set_heard(work, work.now_ms.clamp(HEARD + 1, NUMBER_MAX)))
    }

    /// Takes what the server says of how this account stands to others, where nothing else is known.
    ///
    /// # Errors
    /// The database failed.
    pub fn learn_relations(&mut self, relations: &[(AccountId, Relation)]) -> Result<(), VaultError> {
        self.write(|work| {
            for (account, relation) in relations.iter().filter(|(account, _)| *account != work.identity.account) {
                if work.kept_relation(*account)?.is_none() && work.count_of("relation")? < TOLD_MAX {
                    let kept = Kept { stamp: 0, device: NOBODY, value: *relation };
                    work.put_relation(*account, &kept, true)?;
                }
            }
            Ok(())
        })
    }

    /// The same of how it takes its conversations. What was decided here before the server was heard is joined with it: who
    /// mutes a conversation, or writes there, takes nothing else back that they were not shown.
    ///
    /// # Errors
    /// The database failed.
    pub fn learn_preferences(
        &mut self,
        preferences: &[(ConversationId, gureum_proto::Preference)],
    ) -> Result<(), VaultError> {
        self.write(|work| {
            for (conversation, said) in preferences {
                let muted_until_ms = said.muted_until_ms.min(NUMBER_MAX);
                work.learn_preference(*conversation, Preference { accepted: said.accepted, muted_until_ms })?;
            }
            Ok(())
        })
    }
}

impl Work<'_> {
    /// Whether nothing was decided that this device has had no chance to hear of.
    pub(super) fn has_heard_decisions(&self) -> Result<bool, VaultError> {
        Ok(self.identity.log_entry == 0 || heard(self.connection)? == HEARD)
    }

    fn learn_preference(&self, conversation: ConversationId, said: Preference) -> Result<(), VaultError> {
        let Some(held) = self.preference(conversation)? else {
            if self.count_of("preference")? < TOLD_MAX {
                self.put_preference(conversation, &Kept { stamp: 0, device: NOBODY, value: said }, true)?;
            }
            return Ok(());
        };
        let value = Preference {
            accepted: held.value.accepted || said.accepted,
            // 0 is what nobody has decided.
            muted_until_ms: if held.value.muted_until_ms == 0 {
                said.muted_until_ms
            } else {
                held.value.muted_until_ms
            },
        };
        // What another device has decided, it has decided knowing more.
        if held.device == self.identity.device && value != held.value {
            self.put_preference(conversation, &Kept { value, ..held }, value == said)?;
            self.owe_record(PREFERENCE, conversation.as_bytes())?;
        }
        Ok(())
    }
}

fn heard(connection: &Connection) -> Result<u64, VaultError> {
    Ok(connection.prepare_cached("SELECT decisions_heard FROM profile")?.query_row([], |row| row.get(0))?)
}

fn set_heard(work: &Work<'_>, heard: u64) -> Result<(), VaultError> {
    work.connection.execute("UPDATE profile SET decisions_heard = ?1", params![heard])?;
    Ok(())
}
