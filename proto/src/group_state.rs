//! What a group says of itself: its name and its admins. It stands in the GroupContext, so that whoever is in the group
//! agrees on it, and whoever joins gets it with the group's signature.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;

use crate::AccountId;
use crate::convert::{PayloadError, id, raw, schema};
use crate::limits::{GROUP_ADMINS_MAX, GROUP_NAME_BYTES_MAX, GROUP_STATE_BYTES_MAX};

/// The GroupContext extension that holds a [`GroupState`], of RFC 9420's private range. A group's context has it and
/// the required capabilities that name it, and no other extension; every leaf lists it among its capabilities.
pub const GROUP_EXTENSION: u16 = 0xFF47;

const VERSION: u32 = 1;

/// What kind of conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ConversationKind {
    /// Of two accounts, one for each pair; its context has no extension.
    #[default]
    Direct,
    /// Of any accounts; its context has a [`GroupState`].
    Group,
    /// Of one account's devices, one for each account; its context has no extension.
    Own,
}

impl ConversationKind {
    pub(crate) fn write(self) -> i32 {
        match self {
            // Left out, as by clients that know of no other kind.
            Self::Direct => schema::ConversationKind::Unspecified.into(),
            Self::Group => schema::ConversationKind::Group.into(),
            Self::Own => schema::ConversationKind::Own.into(),
        }
    }

    pub(crate) fn read(kind: i32) -> Result<Self, PayloadError> {
        match schema::ConversationKind::try_from(kind) {
            Ok(schema::ConversationKind::Unspecified | schema::ConversationKind::Direct) => Ok(Self::Direct),
            Ok(schema::ConversationKind::Group) => Ok(Self::Group),
            Ok(schema::ConversationKind::Own) => Ok(Self::Own),
            Err(_) => Err(PayloadError::Invalid("kind of conversation")),
        }
    }
}

/// A group's name and admins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupState {
    name: String,
    admins: BTreeSet<AccountId>,
}

impl GroupState {
    /// A group's state.
    ///
    /// # Errors
    /// The name is empty, longer than [`GROUP_NAME_BYTES_MAX`] or holds a control character; there are more admins than
    /// [`GROUP_ADMINS_MAX`].
    pub fn new(name: impl Into<String>, admins: impl IntoIterator<Item = AccountId>) -> Result<Self, PayloadError> {
        let (name, admins) = (name.into(), admins.into_iter().collect::<BTreeSet<_>>());
        if name.is_empty() {
            return Err(PayloadError::Missing("name of a group"));
        }
        if name.len() > GROUP_NAME_BYTES_MAX {
            return Err(PayloadError::TooLong("name of a group"));
        }
        if name.chars().any(char::is_control) {
            return Err(PayloadError::Invalid("name of a group"));
        }
        if admins.len() > GROUP_ADMINS_MAX {
            return Err(PayloadError::TooLong("list of admins"));
        }
        Ok(Self { name, admins })
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The accounts that it names as admins, whether they are still in it or not.
    #[must_use]
    pub const fn admins(&self) -> &BTreeSet<AccountId> {
        &self.admins
    }

    /// Who may change who is in the group, and its state, while these accounts are in it: the admins among them, and
    /// everybody where there is none, so that no group is left without.
    #[must_use]
    pub fn effective_admins(&self, accounts: &BTreeSet<AccountId>) -> BTreeSet<AccountId> {
        let admins: BTreeSet<_> = self.admins.intersection(accounts).copied().collect();
        if admins.is_empty() { accounts.clone() } else { admins }
    }

    /// The data of the extension.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        schema::GroupState {
            version: VERSION,
            kind: ConversationKind::Group.write(),
            name: self.name.clone(),
            admins: self.admins.iter().map(raw).collect(),
        }
        .encode_to_vec()
        .into()
    }

    /// Reads the data of the extension.
    ///
    /// # Errors
    /// It is no state of a group, of another version, or breaks a bound.
    pub fn decode(data: &[u8]) -> Result<Self, PayloadError> {
        if data.len() > GROUP_STATE_BYTES_MAX {
            return Err(PayloadError::TooLong("state of a group"));
        }
        let state = schema::GroupState::decode(data)?;
        if state.version != VERSION {
            return Err(PayloadError::Invalid("version"));
        }
        if ConversationKind::read(state.kind)? != ConversationKind::Group {
            return Err(PayloadError::Invalid("kind of conversation"));
        }
        let admins = state.admins.iter().map(|admin| id(admin, "admin")).collect::<Result<Vec<AccountId>, _>>()?;
        if !admins.is_sorted_by(|a, b| a < b) {
            return Err(PayloadError::Invalid("order of admins"));
        }
        Self::new(state.name, admins)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

    use super::*;

    fn account(byte: u8) -> AccountId {
        AccountId::from_bytes([byte; 16])
    }

    fn wire(state: &GroupState) -> schema::GroupState {
        schema::GroupState::decode(state.encode()).unwrap()
    }

    #[test]
    fn a_state_has_these_bytes_and_comes_back() {
        let state = GroupState::new("구름", [account(0xa2), account(0xa1)]).unwrap();
        let bytes = state.encode();
        let expected =
            "080110021a06eab5aceba6842210a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a12210a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2";
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes), expected);
        assert_eq!(GroupState::decode(&bytes), Ok(state));
    }

    #[test]
    fn a_state_keeps_its_bounds() {
        let named = |name: &str| GroupState::new(name, []).map(|_| ());
        assert_eq!(named(&"n".repeat(GROUP_NAME_BYTES_MAX)), Ok(()));
        assert_eq!(named(&"n".repeat(GROUP_NAME_BYTES_MAX + 1)), Err(PayloadError::TooLong("name of a group")));
        assert_eq!(named(""), Err(PayloadError::Missing("name of a group")));
        assert_eq!(named("a\nb"), Err(PayloadError::Invalid("name of a group")));
        let admins = |count: u8| GroupState::new("n", (0..count).map(account)).map(|_| ());
        assert_eq!(admins(64), Ok(()));
        assert_eq!(admins(65), Err(PayloadError::TooLong("list of admins")));
        let full = GroupState::new("n".repeat(GROUP_NAME_BYTES_MAX), (0..64).map(account)).unwrap();
        assert!(full.encode().len() <= GROUP_STATE_BYTES_MAX);
    }

    #[test]
    fn another_version_kind_or_order_is_refused() {
        let good = wire(&GroupState::new("n", [account(1), account(2)]).unwrap());
        let read = |state: &schema::GroupState| GroupState::decode(&state.encode_to_vec()).map(|_| ());
        assert_eq!(read(&good), Ok(()));
        assert_eq!(read(&schema::GroupState { version: 2, ..good.clone() }), Err(PayloadError::Invalid("version")));
        for kind in [0, 1, 3, 4] {
            let expected = Err(PayloadError::Invalid("kind of conversation"));
            assert_eq!(read(&schema::GroupState { kind, ..good.clone() }), expected, "{kind}");
        }
        for admins in [vec![2, 1], vec![1, 1]] {
            let admins = admins.into_iter().map(|byte| raw(account(byte))).collect();
            let expected = Err(PayloadError::Invalid("order of admins"));
            assert_eq!(read(&schema::GroupState { admins, ..good.clone() }), expected);
        }
        assert_eq!(GroupState::decode(&[0; GROUP_STATE_BYTES_MAX + 1]), Err(PayloadError::TooLong("state of a group")));
    }

    #[test]
    fn a_group_without_an_admin_in_it_belongs_to_everybody() {
        let accounts = BTreeSet::from([account(1), account(2)]);
        let admins = |named: &[u8]| {
            let state = GroupState::new("n", named.iter().copied().map(account)).unwrap();
            state.effective_admins(&accounts)
        };
        assert_eq!(admins(&[1]), BTreeSet::from([account(1)]));
        assert_eq!(admins(&[1, 3]), BTreeSet::from([account(1)]), "who is not in it has no say");
        assert_eq!(admins(&[3]), accounts);
        assert_eq!(admins(&[]), accounts);
    }
}
