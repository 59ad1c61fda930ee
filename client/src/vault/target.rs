//! Whom or what somebody means by what they type: a handle, a phone number, a group's name, or a conversation's id.

use std::fmt;
use std::str::FromStr;

use gureum_proto::limits::GROUP_NAME_BYTES_MAX;
use gureum_proto::{AccountId, ConversationId, ConversationKind, Handle, Phone};
use rusqlite::{OptionalExtension, params};

use super::conversations::shown;
use super::work::{ROW, read_row};
use super::{Contact, Conversation, ConversationStatus, TargetError, Vault, VaultError, With};

/// Whom or what a message or a command is for, as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(String);

/// Text that can be neither a handle, nor a phone number, nor a group's name, nor an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "that is neither a handle, nor a phone number, nor the name of a group (1 to 128 bytes on one line), nor an id"
)]
pub struct NoTarget;

impl FromStr for Target {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let fits = !text.is_empty() && text.len() <= GROUP_NAME_BYTES_MAX && !text.chars().any(char::is_control);
        if fits { Ok(Self(text.to_owned())) } else { Err(NoTarget) }
    }
}

impl From<Handle> for Target {
    fn from(handle: Handle) -> Self {
        Self(handle.to_string())
    }
}

impl From<ConversationId> for Target {
    fn from(id: ConversationId) -> Self {
        Self(id.to_string())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Target {
    /// As it was typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The handle that it may be.
    #[must_use]
    pub fn handle(&self) -> Option<Handle> {
        self.0.parse().ok()
    }

    /// The handle that a person may mean by it: whatever the case of its letters.
    #[must_use]
    pub fn handle_meant(&self) -> Option<Handle> {
        self.0.to_lowercase().parse().ok()
    }

    /// The phone number that it is.
    #[must_use]
    pub fn phone(&self) -> Option<Phone> {
        self.0.parse().ok()
    }

    /// Whether it may be somebody who is not known here, whom the server is to be asked for.
    #[must_use]
    pub fn may_be_somebody(&self) -> bool {
        self.handle().is_some() || self.phone().is_some()
    }

    fn id(&self) -> Option<ConversationId> {
        self.0.parse().ok()
    }
}

/// What a target stands for, as far as it is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// The conversation of this id.
    Id(Conversation),
    /// Somebody who is known here.
    Contact(Box<Contact>),
    /// A group by its name. Where the name could be a handle as well, it may be that of somebody who is not known here.
    Group(Conversation),
    /// Nothing that is known here.
    Unknown,
}

impl Vault {
    /// Finds what a target stands for: an id that is known, the handle or phone number of somebody known, or the name of a
    /// group, exactly or else whatever its case. Handles and numbers come first: anybody may give a group anybody's name.
    ///
    /// # Errors
    /// Several groups are called that, or a group and, in another case, somebody.
    pub fn resolve(&mut self, target: &Target) -> Result<Resolved, TargetError> {
        if let Some(known) = self.conversation_of(target)? {
            return Ok(Resolved::Id(known));
        }
        if let Some(phone) = target.phone() {
            let found = self.contact_by_phone(&phone)?;
            return Ok(found.map_or(Resolved::Unknown, |contact| Resolved::Contact(Box::new(contact))));
        }
        if let Some(handle) = target.handle() {
            if let Some(contact) = self.contact_by_handle(&handle)? {
                return Ok(Resolved::Contact(Box::new(contact)));
            }
            // Another device has told of somebody of that name, whose log is yet to be learned; or the handle has moved to an
            // account that is yet to be looked up.
            if self.has_heard_of(&handle)? {
                return Ok(Resolved::Unknown);
            }
        }
        let Some(group) = self.group_called(target)? else { return Ok(Resolved::Unknown) };
        if target.handle().is_none()
            && let Some(handle) = target.handle_meant()
            && self.has_heard_of(&handle)?
        {
            return Err(TargetError::LikeHandle { name: target.to_string(), id: group.id, handle });
        }
        Ok(Resolved::Group(group))
    }

    /// As [`Self::resolve`], where the server cannot be asked whether a group's name is somebody's handle as well: what it
    /// has said before holds on ([`Self::note_name_asked`]).
    ///
    /// # Errors
    /// As there, and where it has never been asked.
    pub fn resolve_alone(&mut self, target: &Target) -> Result<Resolved, TargetError> {
        let resolved = self.resolve(target)?;
        if let (Resolved::Group(group), Some(handle)) = (&resolved, target.handle_meant())
            && !self.is_nobodys(group.id, &handle)?
        {
            return Err(TargetError::Unasked { name: target.to_string(), id: group.id, handle });
        }
        Ok(resolved)
    }

    /// The server has said whether somebody has a group's name for a handle.
    ///
    /// # Errors
    /// The database failed.
    pub fn note_name_asked(
        &mut self,
        group: ConversationId,
        handle: &Handle,
        is_somebodys: bool,
    ) -> Result<(), VaultError> {
        self.write(|work| {
            if is_somebodys {
                let sql = "DELETE FROM name_asked WHERE conversation = ?1";
                work.connection.prepare_cached(sql)?.execute(params![group.as_bytes()])?;
            } else {
                // What is known is not written again: each message to the group by its name asks.
                let sql = "INSERT INTO name_asked (conversation, handle) VALUES (?1, ?2)
                           ON CONFLICT (conversation) DO UPDATE SET handle = ?2 WHERE handle != ?2";
                work.connection.prepare_cached(sql)?.execute(params![group.as_bytes(), handle.as_str()])?;
            }
            Ok(())
        })
    }

    fn is_nobodys(&mut self, group: ConversationId, handle: &Handle) -> Result<bool, VaultError> {
        self.read(|connection, _| {
            let sql = "SELECT EXISTS (SELECT 1 FROM name_asked WHERE conversation = ?1 AND handle = ?2)";
            let key = params![group.as_bytes(), handle.as_str()];
            Ok(connection.prepare_cached(sql)?.query_row(key, |row| row.get(0))?)
        })
    }

    /// Finds a group where nothing else can be meant: by its id, or by its name, whoever has it for a handle. An id may be
    /// that of a conversation of two.
    ///
    /// # Errors
    /// Several groups are called that.
    pub fn resolve_group(&mut self, target: &Target) -> Result<Option<Conversation>, TargetError> {
        match self.conversation_of(target)? {
            Some(known) => Ok(Some(known)),
            None => self.group_called(target),
        }
    }

    /// What the id names that a target may be.
    fn conversation_of(&mut self, target: &Target) -> Result<Option<Conversation>, VaultError> {
        let Some(id) = target.id() else { return Ok(None) };
        Ok(self.conversation(id)?.filter(|known| known.kind != ConversationKind::Own))
    }

    fn group_called(&mut self, target: &Target) -> Result<Option<Conversation>, TargetError> {
        let groups = self.named_groups()?;
        let named = |is_named: &dyn Fn(&str) -> bool| -> Vec<_> {
            groups.iter().filter(|group| group.name.as_deref().is_some_and(is_named)).cloned().collect()
        };
        let lower = target.as_str().to_lowercase();
        let exact = named(&|name| name == target.as_str());
        let found = if exact.is_empty() { named(&|name| name.to_lowercase() == lower) } else { exact };
        // One that was left gives way to one of the same name that was not.
        let present: Vec<_> = found.iter().filter(|group| group.state != ConversationStatus::Left).cloned().collect();
        let named = if present.is_empty() { found } else { present };
        match named.as_slice() {
            [] => Ok(None),
            [group] => Ok(Some(group.clone())),
            several => Err(TargetError::Ambiguous {
                name: target.to_string(),
                ids: several.iter().map(|group| group.id.to_string()).collect(),
            }),
        }
    }

    /// What a target stands for in the history alone: whoever this account has talked with, and what groups it was in, as
    /// another device has handed it over.
    ///
    /// # Errors
    /// The database failed.
    pub fn resolve_past(&mut self, target: &Target) -> Result<Option<With>, VaultError> {
        let handle = target.handle().map(|handle| handle.to_string());
        let id = target.id().map(|id| *id.as_bytes());
        self.read(|connection, _| {
            let sql = "SELECT p.id, p.peer FROM past_conversation p LEFT JOIN contact c ON c.account = p.peer
                       AND c.former = 0 WHERE p.id = ?1 OR c.handle = ?2 OR (p.peer IS NULL AND p.name = ?3)
                       ORDER BY p.id = ?1 DESC, c.handle = ?2 DESC, p.id LIMIT 1";
            let mut statement = connection.prepare_cached(sql)?;
            let read = |row: &rusqlite::Row<'_>| {
                let peer = row.get::<_, Option<[u8; 16]>>(1)?.map(AccountId::from_bytes);
                Ok(peer.map_or(With::Group(ConversationId::from_bytes(row.get(0)?)), With::Account))
            };
            Ok(statement.query_row(params![id, handle, target.as_str()], read).optional()?)
        })
    }

    fn has_heard_of(&mut self, handle: &Handle) -> Result<bool, VaultError> {
        self.read(|connection, _| {
            let sql = "SELECT EXISTS (SELECT 1 FROM contact WHERE handle = ?1)";
            Ok(connection.prepare_cached(sql)?.query_row(params![handle.as_str()], |row| row.get(0))?)
        })
    }

    fn named_groups(&mut self) -> Result<Vec<Conversation>, VaultError> {
        self.read(|connection, _| {
            let sql = format!("{ROW} FROM conversation WHERE name IS NOT NULL ORDER BY id");
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map([], read_row)?;
            rows.map(|row| Ok(shown(row?))).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_one_line_of_some_length() {
        let fits = |text: &str| text.parse::<Target>().is_ok();
        assert!(fits("bob") && fits("Book club") && fits("구름") && fits(&"x".repeat(GROUP_NAME_BYTES_MAX)));
        assert!(!fits("") && !fits("a\nb") && !fits(&"x".repeat(GROUP_NAME_BYTES_MAX + 1)));
    }

    #[test]
    fn a_number_with_its_country_code_is_one_and_nothing_else_is() {
        let is_number = |text: &str| text.parse::<Target>().is_ok_and(|target| target.phone().is_some());
        assert!(is_number("+82 10-1234-5678") && is_number("+821012345678"));
        assert!(!is_number("821012345678") && !is_number("bob") && !is_number("+bob"));
    }
}
