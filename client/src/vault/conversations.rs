//! Conversations: beginning them, adopting those that others began, and comparing with the server's list.

use std::collections::BTreeMap;

use bytes::Bytes;
use gureum_proto::membership::{Leaf, judge_leaf};
use gureum_proto::{
    AccountId, ConversationId, ConversationKind, ConversationState, ConversationWith, CreateConversation, DeviceId,
};
use rusqlite::{OptionalExtension, params};

use super::judge::{Judged, Judging};
use super::key::random;
use super::outbox::{fail_all, forget_silent};
use super::work::{ABSENT, ACTIVE, REPLACED, ROW, Row, Work, kind_of, read_row};
use super::{BeginError, Conversation, ConversationStatus, Need, StoredEvent, Vault, VaultError};
use crate::e2ee::{Created, KeyPackage};
use crate::limits::EPOCH_MAX;

impl Vault {
    /// The conversation with an account; the most usable one if there are several.
    ///
    /// # Errors
    /// The database failed.
    pub fn conversation_with(&mut self, peer: AccountId) -> Result<Option<Conversation>, VaultError> {
        self.read(|connection, _| {
            // Active, being created, absent, forked, ahead of the server.
            let sql = format!(
                "{ROW} FROM conversation WHERE peer = ?1 AND state != {REPLACED}
                 ORDER BY CASE state WHEN {ACTIVE} THEN -1 ELSE state END, id LIMIT 1"
            );
            let row = connection.query_row(&sql, params![peer.as_bytes()], read_row).optional()?;
            Ok(row.map(shown))
        })
    }

    /// A conversation.
    ///
    /// # Errors
    /// The database failed.
    pub fn conversation(&mut self, id: ConversationId) -> Result<Option<Conversation>, VaultError> {
        self.write(|work| Ok(work.row(id)?.map(shown)))
    }

    /// All conversations, by id.
    ///
    /// # Errors
    /// The database failed.
    pub fn conversations(&mut self) -> Result<Vec<Conversation>, VaultError> {
        self.read(|connection, _| {
            let mut statement = connection.prepare(&format!("{ROW} FROM conversation ORDER BY id"))?;
            let rows = statement.query_map([], read_row)?;
            rows.map(|row| Ok(shown(row?))).collect()
        })
    }

    /// What would bring conversations forward that are behind, each as something to ask for: those in which messages
    /// wait to be encrypted for a later epoch, those from which a device is to be removed, those that were given up, and
    /// those that this device is not in, or has older keys of than it used before.
    ///
    /// # Errors
    /// The database failed.
    pub fn behind(&mut self) -> Result<Vec<Need>, VaultError> {
        self.write(|work| {
            let sql = format!(
                "{ROW}, EXISTS (SELECT 1 FROM outbox o WHERE o.conversation = conversation.id AND o.failed = 0
                 AND o.ciphertext IS NULL AND o.epoch >= conversation.epoch),
                 EXISTS (SELECT 1 FROM to_remove r WHERE r.conversation = conversation.id), must_rejoin
                 FROM conversation WHERE state IN ({ACTIVE}, {ABSENT}) ORDER BY id"
            );
            let mut statement = work.connection.prepare_cached(&sql)?;
            let rows = statement.query_map([], |row| Ok((read_row(row)?, row.get(7)?, row.get(8)?, row.get(9)?)))?;
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            let need = |(row, is_stale, has_removals, must_rejoin): (Row, bool, bool, bool)| match row.state {
                ConversationStatus::Absent => Some(Need::Rejoin { conversation: row.id }),
                _ if must_rejoin => Some(Need::Rejoin { conversation: row.id }),
                _ if has_removals => Some(Need::Removal { conversation: row.id }),
                _ if is_stale || work.asked.is_given_up(row.id) => {
                    Some(Need::Commits { conversation: row.id, from_epoch: row.epoch, to_epoch: None })
                }
                _ => None,
            };
            Ok(rows.into_iter().filter_map(need).collect())
        })
    }

    /// Begins a conversation with all devices of both accounts, whose logs must have been learned; one whose KeyPackage is
    /// not that of a device in its account's log is left out. To be ended by [`Self::conversation_created`],
    /// [`Self::conversation_existed`] or [`Self::abandon_conversation`].
    ///
    /// # Errors
    /// There is one already, or no device of the other account can be invited.
    pub fn begin_conversation(
        &mut self,
        peer: AccountId,
        peer_packages: &[(DeviceId, Bytes)],
        own_packages: &[(DeviceId, Bytes)],
    ) -> Result<CreateConversation, BeginError> {
        if let Some(conversation) = self.conversation_with(peer)? {
            return Err(BeginError::Exists(conversation.id));
        }
        self.write(|work| begin(work, peer, peer_packages, own_packages))
    }

    /// Conversations whose creation the server has not confirmed: to be asked for again after a restart.
    ///
    /// # Errors
    /// The database failed.
    pub fn pending_creations(&mut self) -> Result<Vec<CreateConversation>, VaultError> {
        let own = self.identity().account;
        self.read(|connection, _| {
            let sql = "SELECT id, peer, group_info, tree, welcome, kind FROM conversation WHERE state = 0 ORDER BY id";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| {
                let peer = row.get::<_, Option<[u8; 16]>>(1)?.map(AccountId::from_bytes);
                let with = match (kind_of(row.get(5)?), peer) {
                    (ConversationKind::Own, _) => ConversationWith::Own,
                    (_, Some(peer)) => ConversationWith::Peer(peer),
                    // A group begins with its creator alone.
                    (_, None) => ConversationWith::Group(vec![own]),
                };
                Ok(CreateConversation {
                    conversation: ConversationId::from_bytes(row.get(0)?),
                    with,
                    group_info: row.get::<_, Vec<u8>>(2)?.into(),
                    tree: row.get::<_, Vec<u8>>(3)?.into(),
                    welcome: row.get::<_, Vec<u8>>(4)?.into(),
                })
            })?;
            rows.map(|row| Ok(row?)).collect()
        })
    }

    /// The server has the conversation.
    ///
    /// # Errors
    /// The database failed.
    pub fn conversation_created(&mut self, id: ConversationId) -> Result<(), VaultError> {
        self.write(|work| {
            let sql =
                "UPDATE conversation SET state = 1, renewed_ms = ?2, group_info = NULL, tree = NULL, welcome = NULL
                       WHERE id = ?1 AND state = 0";
            let Some(row) = work.row(id)? else { return Ok(()) };
            if work.connection.execute(sql, params![id.as_bytes(), work.now_ms])? == 0 {
                return Ok(());
            }
            if !row.is_own() {
                work.accept(&row)?;
            }
            work.begin_numbers(id)
        })
    }

    /// The server had another conversation of this pair, or of this account: ours is dropped and its outbox moves to
    /// theirs, which this device joins by its Welcome ([`Self::take`]) or else by [`Self::rejoin`].
    ///
    /// # Errors
    /// The database failed.
    pub fn conversation_existed(&mut self, ours: ConversationId, theirs: ConversationId) -> Result<(), VaultError> {
        if ours == theirs {
            return self.conversation_created(ours);
        }
        self.write(|work| {
            let begun = work.row(ours)?.filter(|row| row.state == ConversationStatus::Creating);
            let existing = begun.and_then(|row| match row.peer {
                Some(peer) => Some(Row::direct(theirs, peer)),
                None => row.is_own().then(|| Row::own(theirs)),
            });
            let Some(existing) = existing else { return Ok(()) };
            move_outbox(work, ours, theirs)?;
            drop_conversation(work, ours)?;
            if work.row(theirs)?.is_none_or(|row| row.state == ConversationStatus::Replaced) {
                work.put_row(&existing)?;
            }
            // This account wanted one.
            if existing.is_own() { Ok(()) } else { work.accept(&existing) }
        })
    }

    /// The server refused the creation for good: what waited to be sent there has failed.
    ///
    /// # Errors
    /// The database failed.
    pub fn abandon_conversation(&mut self, id: ConversationId, why: &str) -> Result<Vec<StoredEvent>, VaultError> {
        self.write(|work| {
            if work.row(id)?.is_none_or(|row| row.state != ConversationStatus::Creating) {
                return Ok(Vec::new());
            }
            let failed = fail_all(work, id, why)?;
            drop_conversation(work, id)?;
            Ok(failed)
        })
    }

    /// Compares with what the server lists; to be called when the inbox has been taken, since a Welcome may be in it.
    /// Returns what must be fetched, if anything. An epoch that no conversation can have is passed over.
    ///
    /// # Errors
    /// The database failed.
    pub fn note_conversation(&mut self, state: &ConversationState) -> Result<Option<Need>, VaultError> {
        self.write(|work| {
            if state.epoch > EPOCH_MAX {
                return Ok(None);
            }
            let conversation = state.conversation;
            let own = work.identity.account;
            let peer = state.accounts.iter().find(|account| **account != own);
            let row = match (work.row(conversation)?, state.kind, peer) {
                (Some(row), ..) => row,
                _ if !state.accounts.contains(&own) => return Ok(None),
                (None, ConversationKind::Direct, Some(peer)) => Row::direct(conversation, *peer),
                (None, ConversationKind::Group, _) => Row::group(conversation, None),
                (None, ConversationKind::Own, None) => Row::own(conversation),
                (None, ..) => return Ok(None),
            };
            if row.state == ConversationStatus::Left {
                // A Welcome brings back. One that has expired, or that a newer copy of this home has taken, comes no more;
                // then the account may be listed in a later epoch, whose leaves show whether it was added again.
                let is_later = work.left_epoch(conversation)?.is_none_or(|left| state.epoch > left);
                if !is_later || !state.accounts.contains(&own) || work.rejoin_waits_ms(conversation)?.is_some() {
                    return Ok(None);
                }
                work.forget_joined(conversation)?;
                // The epoch is the server's word alone yet: a Welcome may still come that is older than it says.
                let absent = Row { state: ConversationStatus::Absent, epoch: 0, ..row };
                work.put_row(&absent)?;
                return work.need_rejoin(conversation);
            }
            work.put_row(&Row { epoch_seen: state.epoch, ..row.clone() })?;
            match row.state {
                ConversationStatus::Absent => work.need_rejoin(conversation),
                ConversationStatus::Active if row.epoch < state.epoch => {
                    Ok(Some(Need::Commits { conversation, from_epoch: row.epoch, to_epoch: None }))
                }
                _ => Ok(None),
            }
        })
    }
}

pub(super) fn shown(row: Row) -> Conversation {
    let Row { id, kind, peer, name, state, epoch, epoch_seen } = row;
    Conversation { id, kind, peer, name, epoch, epoch_seen, state }
}

/// What waits to be sent in one conversation goes out in another, but for what concerns the first alone.
pub(super) fn move_outbox(work: &Work<'_>, from: ConversationId, to: ConversationId) -> Result<(), VaultError> {
    forget_silent(work, from)?;
    let sql = "UPDATE outbox SET conversation = ?2 WHERE conversation = ?1";
    work.connection.execute(sql, params![from.as_bytes(), to.as_bytes()])?;
    Ok(())
}

pub(super) fn drop_conversation(work: &mut Work<'_>, id: ConversationId) -> Result<(), VaultError> {
    if let Some(group) = work.group(id)? {
        work.mls().delete(group)?;
    }
    work.connection.execute("DELETE FROM conversation WHERE id = ?1", params![id.as_bytes()])?;
    work.connection.execute("DELETE FROM name_asked WHERE conversation = ?1", params![id.as_bytes()])?;
    work.forget_preference(id)?;
    work.forget_intents(id)?;
    work.forget_holes(id)?;
    work.forget_removals(id)
}

pub(super) fn begin(
    work: &mut Work<'_>,
    peer: AccountId,
    peer_packages: &[(DeviceId, Bytes)],
    own_packages: &[(DeviceId, Bytes)],
) -> Result<CreateConversation, BeginError> {
    let own = work.identity.account;
    if peer == own {
        return Err(BeginError::Oneself);
    }
    let (mut packages, mut refused) = (BTreeMap::new(), None);
    let theirs = peer_packages.iter().map(|package| (peer, package));
    for (account, (device, bytes)) in theirs.chain(own_packages.iter().map(|package| (own, package))) {
        if !work.is_self(*device) {
            match check_package(work, account, *device, bytes) {
                Ok(checked) => {
                    packages.insert(*device, checked);
                }
                // The other devices are not to wait for it: it joins by itself, if it is one.
                Err(error @ BeginError::KeyPackage { .. }) => {
                    tracing::warn!(%error, %device, "a device is not invited");
                    refused = refused.or((account == peer).then_some(error));
                }
                Err(error) => return Err(error),
            }
        }
    }
    if !peer_packages.iter().any(|(device, _)| packages.contains_key(device)) {
        return Err(refused.unwrap_or(BeginError::NoDevice(peer)));
    }
    let id = ConversationId::from_bytes(*random()?);
    let created = work.mls().create(id, packages.into_values().collect(), None).map_err(VaultError::from)?;
    Ok(put_created(work, Row::direct(id, peer), ConversationWith::Peer(peer), created)?)
}

/// Keeps what was made, until the server has it.
pub(super) fn put_created(
    work: &mut Work<'_>,
    row: Row,
    with: ConversationWith,
    created: Created,
) -> Result<CreateConversation, VaultError> {
    let Created { group, group_info, tree, welcome } = created;
    let (conversation, epoch) = (row.id, group.epoch());
    work.put_row(&Row { state: ConversationStatus::Creating, epoch, epoch_seen: epoch, ..row })?;
    work.note_group(conversation, &group.leaves())?;
    work.note_joined(conversation, epoch)?;
    work.keep(conversation, group);
    let sql = "UPDATE conversation SET group_info = ?2, tree = ?3, welcome = ?4 WHERE id = ?1";
    work.connection.execute(sql, params![conversation.as_bytes(), group_info, tree, welcome])?;
    let (group_info, tree, welcome) = (group_info.into(), tree.into(), welcome.into());
    Ok(CreateConversation { conversation, with, group_info, tree, welcome })
}

/// A KeyPackage that a conversation may begin with.
pub(super) fn check_package(
    work: &mut Work<'_>,
    account: AccountId,
    device: DeviceId,
    bytes: &[u8],
) -> Result<KeyPackage, BeginError> {
    let read = work.mls().read_key_package(bytes);
    judge_package(work, account, device, read)
}

/// Holds a KeyPackage, as it was read, against the log of the account that it should be of.
pub(super) fn judge_package(
    work: &mut Work<'_>,
    account: AccountId,
    device: DeviceId,
    read: Result<(KeyPackage, Leaf), String>,
) -> Result<KeyPackage, BeginError> {
    let refused = |why: String| BeginError::KeyPackage { account, why };
    let (package, leaf) = read.map_err(refused)?;
    let named = leaf.identity.is_some_and(|leaf| leaf.account == account && leaf.device == device);
    if !named {
        return Err(refused("it names another device".into()));
    }
    match work.judge(Judging::Now, |logs| judge_leaf(&leaf, logs))? {
        Judged::Allowed => Ok(package),
        Judged::Needs(_) => Err(refused("its device is not in the log seen here".into())),
        Judged::Refused(why) => Err(refused(why)),
    }
}
