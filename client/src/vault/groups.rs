//! Groups: made here, changed as a person wants it, looked at; and what others change, told.

use std::collections::{BTreeMap, BTreeSet};

use gureum_proto::membership::Change;
use gureum_proto::{AccountId, ConversationId, ConversationWith, CreateConversation, GroupState};

use super::conversations::put_created;
use super::intents::{Intent, IntentId};
use super::key::random;
use super::work::{ROW, Row, Work, read_row};
use super::{ConversationStatus, Event, GroupChange, GroupError, StoredEvent, Vault, VaultError};
use crate::e2ee::View;

/// A group and who is in it, as far as this device knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// Its id.
    pub conversation: ConversationId,
    /// What it is called.
    pub name: String,
    /// How it stands; one that was left has nobody in it here.
    pub state: ConversationStatus,
    /// The accounts in it, by handle.
    pub people: Vec<GroupPerson>,
}

/// An account in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPerson {
    /// The account.
    pub account: AccountId,
    /// Its handle.
    pub handle: String,
    /// Whether it may change the group.
    pub is_admin: bool,
    /// How many of its devices are in it.
    pub devices: usize,
}

impl Vault {
    /// Begins a group of which this account is the admin, and keeps what else is wanted of it. To be ended by
    /// [`Self::conversation_created`] or [`Self::abandon_conversation`].
    ///
    /// # Errors
    /// It cannot be called that.
    pub fn begin_group(
        &mut self,
        name: &str,
        intents: &[Intent],
    ) -> Result<(CreateConversation, Vec<IntentId>), GroupError> {
        self.write(|work| {
            let own = work.identity.account;
            let state = GroupState::new(name, [own])?;
            let id = ConversationId::from_bytes(*random()?);
            let created = work.mls().create(id, Vec::new(), Some(&state)).map_err(VaultError::from)?;
            let row = Row::group(id, Some(name.to_owned()));
            let create = put_created(work, row, ConversationWith::Group(vec![own]), created)?;
            let kept = intents.iter().map(|intent| work.put_intent(id, intent)).collect::<Result<_, _>>()?;
            Ok((create, kept))
        })
    }

    /// Keeps what a person wants to change in a group, until a commit has done it.
    ///
    /// # Errors
    /// It is no group, this device is not in it, or the account may not change it.
    pub fn intend(&mut self, conversation: ConversationId, intents: &[Intent]) -> Result<Vec<IntentId>, GroupError> {
        self.write(|work| {
            let row = work.group_row(conversation)?;
            let view = work.view(&row)?;
            let (own, admins) = (work.identity.account, view.roster().admins());
            if !admins.contains(&own) {
                let admins = admins.into_iter().map(|admin| work.handle_or_id(admin)).collect::<Result<_, _>>()?;
                return Err(GroupError::NotAdmin { name: work.title(&row)?, admins });
            }
            for intent in intents {
                if let Intent::Rename(name) = intent {
                    GroupState::new(name.as_str(), [])?;
                }
            }
            Ok(intents.iter().map(|intent| work.put_intent(conversation, intent)).collect::<Result<_, _>>()?)
        })
    }

    /// The groups that are known here, by name.
    ///
    /// # Errors
    /// The database failed.
    pub fn groups(&mut self) -> Result<Vec<GroupView>, VaultError> {
        self.write(|work| {
            let rows = {
                let sql = format!("{ROW} FROM conversation WHERE kind = 1 ORDER BY name, id");
                let mut statement = work.connection.prepare_cached(&sql)?;
                let rows = statement.query_map([], read_row)?;
                rows.collect::<Result<Vec<_>, _>>()?
            };
            rows.iter().map(|row| shown(work, row)).collect()
        })
    }

    /// A group.
    ///
    /// # Errors
    /// There is none of this id.
    pub fn group(&mut self, conversation: ConversationId) -> Result<GroupView, GroupError> {
        self.write(|work| match work.row(conversation)? {
            Some(row) if row.is_group() => Ok(shown(work, &row)?),
            Some(row) => Err(GroupError::NoGroup(work.title(&row)?)),
            None => Err(VaultError::NoConversation(conversation).into()),
        })
    }

    /// The epoch that this device is in, and what all who are in it have in common and nobody else (RFC 9420 §8.7): two
    /// devices that show the same have the same tree, roster, state and keys. `None` where this device is not in.
    ///
    /// # Errors
    /// The database failed.
    pub fn epoch_authenticator(&mut self, conversation: ConversationId) -> Result<Option<(u64, Vec<u8>)>, VaultError> {
        self.write(|work| {
            let is_in = work.row(conversation)?.is_some_and(|row| row.state == ConversationStatus::Active);
            let group = if is_in { work.group(conversation)? } else { None };
            let Some(group) = group else { return Ok(None) };
            let shared = (group.epoch(), group.authenticator());
            work.keep(conversation, group);
            Ok(Some(shared))
        })
    }
}

fn shown(work: &mut Work<'_>, row: &Row) -> Result<GroupView, VaultError> {
    let mut people = Vec::new();
    if row.state != ConversationStatus::Left
        && let Some(group) = work.group(row.id)?
    {
        let view = group.view(row.id);
        work.keep(row.id, group);
        let mut devices = BTreeMap::<_, usize>::new();
        for identity in view.leaves.iter().filter_map(|leaf| leaf.identity) {
            *devices.entry(identity.account).or_default() += 1;
        }
        let admins = view.roster().admins();
        for (account, devices) in devices {
            let (handle, is_admin) = (work.handle_or_id(account)?, admins.contains(&account));
            people.push(GroupPerson { account, handle, is_admin, devices });
        }
        people.sort_by(|one, other| one.handle.cmp(&other.handle));
    }
    Ok(GroupView { conversation: row.id, name: work.title(row)?, state: row.state, people })
}

impl Work<'_> {
    /// The row of a group that this device is in.
    pub(super) fn group_row(&self, conversation: ConversationId) -> Result<Row, GroupError> {
        let row = self.row(conversation)?.ok_or(VaultError::NoConversation(conversation))?;
        if !row.is_group() {
            return Err(GroupError::NoGroup(self.title(&row)?));
        }
        if row.state == ConversationStatus::Active { Ok(row) } else { Err(GroupError::NotIn(self.title(&row)?)) }
    }

    /// A group, of which this device has the state.
    pub(super) fn view(&mut self, row: &Row) -> Result<View, VaultError> {
        let group = self.group(row.id)?.ok_or(VaultError::Damaged("group"))?;
        let view = group.view(row.id);
        self.keep(row.id, group);
        Ok(view)
    }

    /// What people know an account by.
    pub(super) fn handle_or_id(&self, account: AccountId) -> Result<String, VaultError> {
        Ok(if self.knows(account)? { self.handle(account)?.to_string() } else { account.to_string() })
    }

    /// Tells of a change of a group.
    pub(super) fn tell_group(
        &self,
        row: &Row,
        change: GroupChange,
        by: Option<AccountId>,
        who: Vec<String>,
    ) -> Result<StoredEvent, VaultError> {
        let by = by.map(|account| self.handle_or_id(account)).transpose()?;
        self.event(Event::Group { conversation: row.id, name: self.title(row)?, change, by, who })
    }

    /// Tells of what somebody's commit has changed in a group; `row` is that of afterwards.
    pub(super) fn tell_changes(
        &self,
        row: &Row,
        change: &Change,
        before: &View,
        after: &View,
    ) -> Result<Vec<StoredEvent>, VaultError> {
        let (was, is) = (before.roster().accounts(), after.roster().accounts());
        let by = change.committer.map(|committer| committer.account);
        let leavers: BTreeSet<_> = change.leaves.iter().map(|signed| signed.leave().account).collect();
        let (left, removed): (Vec<&AccountId>, Vec<&AccountId>) =
            was.difference(&is).partition(|account| leavers.contains(*account));
        let mut told = Vec::new();
        let mut tell = |change, by, accounts: Vec<&AccountId>| -> Result<(), VaultError> {
            if !accounts.is_empty() {
                told.push(self.tell_group(row, change, by, self.named(accounts.into_iter().copied())?)?);
            }
            Ok(())
        };
        let mut untold = Vec::new();
        for account in left {
            // Their statement came before, mostly.
            if !self.is_leaving(row.id, *account)? {
                untold.push(account);
            }
        }
        tell(GroupChange::Left, None, untold)?;
        tell(GroupChange::Removed, by, removed)?;
        tell(GroupChange::Added, by, is.difference(&was).collect())?;
        let (old, new) = (before.state.as_ref(), after.state.as_ref());
        if old.map(GroupState::name) != new.map(GroupState::name) {
            told.push(self.tell_group(row, GroupChange::Renamed, by, Vec::new())?);
        }
        if old.map(GroupState::admins) != new.map(GroupState::admins) {
            let admins = new.map(|state| state.admins().intersection(&is).copied().collect::<Vec<_>>());
            told.push(self.tell_group(row, GroupChange::Admins, by, self.named(admins.unwrap_or_default())?)?);
        }
        Ok(told)
    }

    /// What accounts are called, in the order of that.
    fn named(&self, accounts: impl IntoIterator<Item = AccountId>) -> Result<Vec<String>, VaultError> {
        let mut named =
            accounts.into_iter().map(|account| self.handle_or_id(account)).collect::<Result<Vec<_>, _>>()?;
        named.sort_unstable();
        Ok(named)
    }
}
