//! One transaction's view of the database: what every operation reads and writes by.

use std::collections::{HashMap, HashSet};

use gureum_proto::limits::ADDS_PER_COMMIT_MAX;
use gureum_proto::{AccountId, ConversationId, ConversationKind, DeviceId, DeviceLog, Handle, LeafIdentity, Position};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::RustCrypto;
use rusqlite::{Connection, OptionalExtension, params};

use super::key::random;
use super::{ConversationStatus, Event, Identity, Need, StoredEvent, VaultError};
use crate::e2ee::{self, Group, Mls, ReadPackages, RestoreError};
use crate::limits::{
    COUNTERS_UNRESOLVED_MAX, EVENTS_MAX, FIRST_RENEWAL_WITHIN_MS, HISTORY_ASK_MAX_MS, HISTORY_ASK_MS,
    NEEDS_REMEMBERED_MAX, REJOIN_WINDOW_MS, REJOINS_MAX, RENEWED_AT_ONCE_MAX, SELF_UPDATE_MS, UNOPENED_MAX,
};

/// What was asked of the caller, and whether it was answered: what an answer did not mend is not asked for again.
#[derive(Debug, Default)]
pub(super) struct Asked {
    accounts: HashMap<AccountId, bool>,
    members: HashSet<ConversationId>,
    commits: HashMap<ConversationId, Commits>,
    /// Messages in a row that a conversation's present keys do not open.
    unopened: HashMap<ConversationId, u32>,
    /// How many intents one commit may carry out, where one of more was refused.
    together: HashMap<ConversationId, usize>,
    /// Histories that this device hands over and of which it hears nothing, by the device.
    offers: HashMap<DeviceId, Offering>,
    /// That a copy of this home is in use has been told.
    pub(super) has_told_of_a_copy: bool,
}

/// A history of which nothing is heard.
#[derive(Debug, Clone, Copy)]
struct Offering {
    /// How many parts its device had taken by its last word.
    taken: u64,
    since_ms: u64,
    wait_ms: u64,
}

/// How far the fetching of a conversation's commits has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commits {
    /// They were asked for.
    Asked,
    /// This device has the conversation's current epoch.
    UpToDate,
    /// They cannot bring it there.
    Insufficient,
    /// Nothing can, for now: what waits for it is passed.
    GivenUp,
}

impl Asked {
    /// The caller has asked the server for an account's log; `grew`: and it had more than was known.
    pub(super) fn account_answered(&mut self, account: AccountId, grew: bool) {
        if grew {
            self.accounts.remove(&account);
        } else if let Some(answered) = self.accounts.get_mut(&account) {
            *answered = true;
        }
    }

    /// An entry is dealt with: answers that concerned it are used up.
    pub(super) fn entry_done(&mut self) {
        self.accounts.retain(|_, answered| !*answered);
        self.members.clear();
        self.commits.retain(|_, state| matches!(state, Commits::Insufficient | Commits::GivenUp));
    }

    /// The commit log has been applied to its end: that answers whoever waits for it, and nobody who comes later.
    pub(super) fn commits_applied(&mut self, conversation: ConversationId) {
        match self.commits.get_mut(&conversation) {
            Some(state @ Commits::Asked) => *state = Commits::UpToDate,
            Some(Commits::UpToDate) | None => {}
            Some(Commits::Insufficient | Commits::GivenUp) => self.forget_commits(conversation),
        }
    }

    pub(super) fn commits(&self, conversation: ConversationId) -> Option<Commits> {
        self.commits.get(&conversation).copied()
    }

    pub(super) fn is_given_up(&self, conversation: ConversationId) -> bool {
        self.commits(conversation) == Some(Commits::GivenUp)
    }

    pub(super) fn note_commits(&mut self, conversation: ConversationId, state: Commits) {
        if self.commits.len() >= NEEDS_REMEMBERED_MAX {
            self.commits.clear();
        }
        self.commits.insert(conversation, state);
    }

    pub(super) fn forget_commits(&mut self, conversation: ConversationId) {
        self.commits.remove(&conversation);
        self.unopened.remove(&conversation);
    }

    /// A conversation's keys have opened a message.
    pub(super) fn opened(&mut self, conversation: ConversationId) {
        self.unopened.remove(&conversation);
    }

    /// They have not, though they should; whether that happened so often that they must be broken.
    pub(super) fn unopened(&mut self, conversation: ConversationId) -> bool {
        if self.unopened.len() >= NEEDS_REMEMBERED_MAX {
            self.unopened.clear();
        }
        let count = self.unopened.entry(conversation).or_default();
        *count = count.saturating_add(1);
        *count >= UNOPENED_MAX
    }

    /// The most intents that the next commit of a conversation carries out.
    pub(super) fn together(&self, conversation: ConversationId) -> usize {
        self.together.get(&conversation).copied().unwrap_or(usize::MAX)
    }

    /// A commit with so many of them is not valid: one with half as many may be.
    pub(super) fn divide(&mut self, conversation: ConversationId, intents: usize) {
        if self.together.len() >= NEEDS_REMEMBERED_MAX {
            self.together.clear();
        }
        self.together.insert(conversation, (intents / 2).max(1));
    }

    /// A commit was accepted: one with twice as many may be.
    pub(super) fn passed(&mut self, conversation: ConversationId) {
        if let Some(most) = self.together.get_mut(&conversation) {
            *most = most.saturating_mul(2);
            if *most >= ADDS_PER_COMMIT_MAX {
                self.together.remove(&conversation);
            }
        }
    }

    /// Whether nothing was heard for long of a device that has taken so many parts of a history. Each time that is waited for
    /// longer: it may never come back.
    pub(super) fn is_offer_due(&mut self, device: DeviceId, taken: u64, now_ms: u64) -> bool {
        if self.offers.len() >= NEEDS_REMEMBERED_MAX {
            self.offers.clear();
        }
        let begun = Offering { taken, since_ms: now_ms, wait_ms: HISTORY_ASK_MS };
        let offering = self.offers.entry(device).or_insert(begun);
        if offering.taken != taken || offering.since_ms > now_ms {
            *offering = begun;
        }
        let is_due = now_ms.saturating_sub(offering.since_ms) >= offering.wait_ms;
        if is_due {
            let wait_ms = offering.wait_ms.saturating_mul(2).min(HISTORY_ASK_MAX_MS);
            *offering = Offering { taken, since_ms: now_ms, wait_ms };
        }
        is_due
    }

    /// The need for the logs of all members of a group, once for each entry.
    pub(super) fn members(&mut self, conversation: ConversationId) -> Option<Need> {
        if self.members.len() >= NEEDS_REMEMBERED_MAX {
            self.members.clear();
        }
        self.members.insert(conversation).then_some(Need::Members { conversation })
    }

    /// The need for a log, unless it was met since it was last asked for.
    pub(super) fn log(&mut self, account: AccountId, log_from: u64) -> Option<Need> {
        if self.accounts.remove(&account) == Some(true) {
            return None;
        }
        if self.accounts.len() >= NEEDS_REMEMBERED_MAX {
            self.accounts.clear();
        }
        self.accounts.insert(account, false);
        Some(Need::Account { account, log_from })
    }
}

/// A conversation's row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: ConversationId,
    pub(super) kind: ConversationKind,
    /// The other account of a direct conversation.
    pub(super) peer: Option<AccountId>,
    /// The name of a group, as far as it is known here.
    pub(super) name: Option<String>,
    pub(super) state: ConversationStatus,
    pub(super) epoch: u64,
    pub(super) epoch_seen: u64,
}

impl Row {
    /// A conversation of two that this device is not in.
    pub(super) const fn direct(id: ConversationId, peer: AccountId) -> Self {
        let (kind, peer) = (ConversationKind::Direct, Some(peer));
        Self { id, kind, peer, name: None, state: ConversationStatus::Absent, epoch: 0, epoch_seen: 0 }
    }

    /// A group that this device is not in.
    pub(super) const fn group(id: ConversationId, name: Option<String>) -> Self {
        let kind = ConversationKind::Group;
        Self { id, kind, peer: None, name, state: ConversationStatus::Absent, epoch: 0, epoch_seen: 0 }
    }

    /// That of this account's own devices, which this device is not in.
    pub(super) const fn own(id: ConversationId) -> Self {
        let kind = ConversationKind::Own;
        Self { id, kind, peer: None, name: None, state: ConversationStatus::Absent, epoch: 0, epoch_seen: 0 }
    }

    pub(super) const fn is_group(&self) -> bool {
        matches!(self.kind, ConversationKind::Group)
    }

    /// Whether it is that of this account's own devices, of which nobody is told anything.
    pub(super) const fn is_own(&self) -> bool {
        matches!(self.kind, ConversationKind::Own)
    }

    /// Whether the server has gone back behind this device.
    pub(super) const fn is_ahead(&self) -> bool {
        matches!(self.state, ConversationStatus::Ahead)
    }

    /// Whether nothing goes on by itself here.
    pub(super) const fn is_stopped(&self) -> bool {
        matches!(
            self.state,
            ConversationStatus::Forked
                | ConversationStatus::Ahead
                | ConversationStatus::Replaced
                | ConversationStatus::Left
        )
    }
}

pub(super) struct Work<'a> {
    pub(super) connection: &'a Connection,
    pub(super) crypto: &'a RustCrypto,
    pub(super) signer: &'a SignatureKeyPair,
    pub(super) identity: &'a Identity,
    pub(super) asked: &'a mut Asked,
    pub(super) packages: &'a mut ReadPackages,
    pub(super) now_ms: u64,
    /// Groups loaded in this transaction; a change that is rolled back drops them.
    pub(super) groups: HashMap<ConversationId, Group>,
}

impl<'a> Work<'a> {
    pub(super) fn mls(&self) -> Mls<'a> {
        let Identity { account, device, log_entry, .. } = *self.identity;
        Mls::new(self.connection, self.crypto, self.signer, LeafIdentity { account, device, log_entry })
    }

    /// A group, out of the cache or the database; to be put back with [`Self::keep`] while it is good.
    pub(super) fn group(&mut self, id: ConversationId) -> Result<Option<Group>, VaultError> {
        if let Some(group) = self.groups.remove(&id) {
            return Ok(Some(group));
        }
        let group = self.mls().load(id)?;
        if group.is_none() {
            // One whose records are gone or damaged is one that this device is not in: it joins again.
            let sql = format!(
                "UPDATE conversation SET state = {ABSENT}, epoch = 0 WHERE id = ?1 AND state = {ACTIVE} AND epoch > 0"
            );
            self.connection.prepare_cached(&sql)?.execute(params![id.as_bytes()])?;
        }
        Ok(group)
    }

    pub(super) fn keep(&mut self, id: ConversationId, group: Group) {
        self.groups.insert(id, group);
    }

    /// Runs a step whose changes stay only if it says so.
    pub(super) fn step<T, E: From<VaultError>>(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<(T, bool), E>,
    ) -> Result<T, E> {
        self.connection.execute_batch("SAVEPOINT step").map_err(VaultError::from)?;
        let outcome = step(self);
        let keeps = matches!(outcome, Ok((_, true)));
        if !keeps {
            self.groups.clear();
            self.connection.execute_batch("ROLLBACK TO step").map_err(VaultError::from)?;
        }
        self.connection.execute_batch("RELEASE step").map_err(VaultError::from)?;
        outcome.map(|(value, _)| value)
    }

    pub(super) fn log(&self, account: AccountId) -> Result<Option<DeviceLog>, VaultError> {
        load_log(self.connection, account)
    }

    pub(super) fn row(&self, id: ConversationId) -> Result<Option<Row>, VaultError> {
        let sql = format!("{ROW} FROM conversation WHERE id = ?1");
        Ok(self.connection.prepare_cached(&sql)?.query_row(params![id.as_bytes()], read_row).optional()?)
    }

    /// Writes what has changed of a conversation, or makes its row.
    pub(super) fn put_row(&self, row: &Row) -> Result<(), VaultError> {
        let sql = "INSERT INTO conversation (id, kind, peer, name, state, epoch, epoch_seen, renewed_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0) ON CONFLICT (id)
             DO UPDATE SET kind = ?2, peer = ?3, name = ?4, state = ?5, epoch = ?6, epoch_seen = max(epoch_seen, ?7)";
        self.connection.prepare_cached(sql)?.execute(params![
            row.id.as_bytes(),
            kind_number(row.kind),
            row.peer.map(|peer| *peer.as_bytes()),
            row.name,
            state_number(row.state),
            row.epoch,
            row.epoch_seen.max(row.epoch),
        ])?;
        Ok(())
    }

    /// This device has come into a conversation; the first time counts.
    pub(super) fn note_joined(&self, id: ConversationId, epoch: u64) -> Result<(), VaultError> {
        let sql = "UPDATE conversation SET joined_epoch = ?2 WHERE id = ?1 AND joined_epoch = 0";
        self.connection.execute(sql, params![id.as_bytes(), epoch])?;
        // From here on it sees for itself.
        self.connection.execute("DELETE FROM foretold WHERE conversation = ?1", params![id.as_bytes()])?;
        Ok(())
    }

    /// Whether this device has ever been in a conversation.
    pub(super) fn has_joined(&self, id: ConversationId) -> Result<bool, VaultError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM conversation WHERE id = ?1 AND joined_epoch > 0)";
        Ok(self.connection.prepare_cached(sql)?.query_row(params![id.as_bytes()], |row| row.get(0))?)
    }

    /// The account was out of a group: from its next coming on it is in it anew.
    pub(super) fn forget_joined(&self, id: ConversationId) -> Result<(), VaultError> {
        let sql = "UPDATE conversation SET joined_epoch = 0 WHERE id = ?1";
        self.connection.prepare_cached(sql)?.execute(params![id.as_bytes()])?;
        Ok(())
    }

    /// Whether a message of an epoch was encrypted before this device came into the conversation: for the devices that the
    /// account had then, or for a group in which it was not, or for the own devices that were in their conversation.
    pub(super) fn was_for_others(&self, id: ConversationId, epoch: u64) -> Result<bool, VaultError> {
        let sql = "SELECT joined_epoch, kind != 0 FROM conversation WHERE id = ?1";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, u64>(0)?, row.get::<_, bool>(1)?));
        let found = self.connection.prepare_cached(sql)?.query_row(params![id.as_bytes()], read).optional()?;
        let is_linked = self.identity.log_entry > 0;
        Ok(found.is_some_and(|(joined, is_of_many)| (is_linked || is_of_many) && epoch < joined))
    }

    pub(super) fn note_renewed(&self, id: ConversationId) -> Result<(), VaultError> {
        let sql = "UPDATE conversation SET renewed_ms = ?2 WHERE id = ?1";
        self.connection.execute(sql, params![id.as_bytes(), self.now_ms])?;
        Ok(())
    }

    /// This device has come into a group by a Welcome, and is to renew its keys: at once, or where many may have come with
    /// it, some time within a day.
    pub(super) fn plan_renewal(&self, id: ConversationId, leaves: usize) -> Result<(), VaultError> {
        let due_ms = if leaves > RENEWED_AT_ONCE_MAX {
            let wait_ms = u64::from_le_bytes(*random::<8>()?) % FIRST_RENEWAL_WITHIN_MS;
            self.now_ms.saturating_add(wait_ms).saturating_sub(SELF_UPDATE_MS)
        } else {
            0
        };
        let sql = "UPDATE conversation SET renewed_ms = ?2 WHERE id = ?1";
        self.connection.execute(sql, params![id.as_bytes(), due_ms])?;
        Ok(())
    }

    pub(super) fn cursor(&self) -> Result<Position, VaultError> {
        let sql = "SELECT cursor_seq, cursor_count FROM profile";
        let read = |row: &rusqlite::Row<'_>| Ok(Position { seq: row.get(0)?, count: row.get(1)? });
        Ok(self.connection.prepare_cached(sql)?.query_row([], read)?)
    }

    pub(super) fn put_cursor(&self, cursor: Position) -> Result<(), VaultError> {
        let sql = "UPDATE profile SET cursor_seq = ?1, cursor_count = ?2";
        self.connection.prepare_cached(sql)?.execute(params![cursor.seq, cursor.count])?;
        Ok(())
    }

    /// The next counter for a send or a commit, unless too many are without an answer.
    pub(super) fn next_counter(&self) -> Result<Option<u64>, VaultError> {
        let sql = "SELECT send_counter, min((SELECT min(counter) FROM outbox WHERE counter IS NOT NULL),
                   ifnull((SELECT min(counter) FROM pending_commit), send_counter + 1)),
                   (SELECT min(counter) FROM pending_commit) FROM profile";
        let (highest, both, commits): (u64, Option<u64>, Option<u64>) =
            self.connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let next = highest.saturating_add(1);
        let lowest = both.or(commits).unwrap_or(next);
        if next.saturating_sub(lowest) >= COUNTERS_UNRESOLVED_MAX {
            return Ok(None);
        }
        self.connection.prepare_cached("UPDATE profile SET send_counter = ?1")?.execute(params![next])?;
        Ok(Some(next))
    }

    /// The need to rejoin, unless that was tried too often.
    pub(super) fn need_rejoin(&self, conversation: ConversationId) -> Result<Option<Need>, VaultError> {
        let waits = self.rejoin_waits_ms(conversation)?;
        Ok(waits.is_none().then_some(Need::Rejoin { conversation }))
    }

    /// How long until the next attempt to rejoin may be made; `None`: now.
    pub(super) fn rejoin_waits_ms(&self, conversation: ConversationId) -> Result<Option<u64>, VaultError> {
        let since = self.now_ms.saturating_sub(REJOIN_WINDOW_MS);
        // An attempt ahead of now is one by a clock which has been put right since.
        let sql =
            "SELECT count(*), min(at_ms) FROM rejoin_attempt WHERE conversation = ?1 AND at_ms > ?2 AND at_ms <= ?3";
        let (attempts, first): (u32, Option<u64>) =
            self.connection.query_row(sql, params![conversation.as_bytes(), since, self.now_ms], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let until = first.unwrap_or(0).saturating_add(REJOIN_WINDOW_MS);
        Ok((attempts >= REJOINS_MAX).then(|| until.saturating_sub(self.now_ms).max(1)))
    }

    pub(super) fn note_rejoin_attempt(&self, conversation: ConversationId) -> Result<(), VaultError> {
        let since = self.now_ms.saturating_sub(REJOIN_WINDOW_MS);
        let sql = "DELETE FROM rejoin_attempt WHERE at_ms <= ?1 OR at_ms > ?2";
        self.connection.execute(sql, params![since, self.now_ms])?;
        let sql = "INSERT INTO rejoin_attempt (conversation, at_ms) VALUES (?1, ?2)";
        self.connection.execute(sql, params![conversation.as_bytes(), self.now_ms])?;
        Ok(())
    }

    /// Keeps an event that is not a message until it is reported.
    pub(super) fn event(&self, event: Event) -> Result<StoredEvent, VaultError> {
        let detail = serde_json::to_string(&event).map_err(|_| VaultError::Damaged("event"))?;
        self.connection.prepare_cached("INSERT INTO event (detail) VALUES (?1)")?.execute(params![detail])?;
        self.stored(event)
    }

    /// Keeps a message's event.
    pub(super) fn message_event(&self, row: i64, event: Event) -> Result<StoredEvent, VaultError> {
        self.connection.prepare_cached("INSERT INTO event (message) VALUES (?1)")?.execute(params![row])?;
        self.stored(event)
    }

    fn stored(&self, event: Event) -> Result<StoredEvent, VaultError> {
        let id = self.connection.last_insert_rowid();
        let kept = i64::try_from(EVENTS_MAX).expect("the bound is small");
        self.connection
            .prepare_cached("DELETE FROM event WHERE id <= ?1")?
            .execute(params![id.saturating_sub(kept)])?;
        Ok(StoredEvent { id, event })
    }

    pub(super) fn knows(&self, account: AccountId) -> Result<bool, VaultError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM contact WHERE account = ?1)";
        Ok(self.connection.query_row(sql, params![account.as_bytes()], |row| row.get(0))?)
    }

    /// The handle of an account that is known here.
    pub(super) fn handle(&self, account: AccountId) -> Result<Handle, VaultError> {
        let sql = "SELECT handle FROM contact WHERE account = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let handle: String = statement.query_row(params![account.as_bytes()], |row| row.get(0))?;
        handle.parse().map_err(|_| VaultError::Damaged("handle"))
    }

    /// What a person calls a conversation: the other's handle, or the group's name.
    pub(super) fn title(&self, row: &Row) -> Result<String, VaultError> {
        Ok(match (row.peer, &row.name) {
            (Some(peer), _) => self.handle(peer)?.to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => row.id.to_string(),
        })
    }

    /// The same of a conversation that people know of.
    pub(super) fn title_of(&self, conversation: ConversationId) -> Result<Option<String>, VaultError> {
        let Some(row) = self.row(conversation)?.filter(|row| !row.is_own()) else { return Ok(None) };
        match row.peer {
            Some(peer) => self.handle_or_id(peer).map(Some),
            None => Ok(row.name),
        }
    }

    /// Whether a device is this one.
    pub(super) fn is_self(&self, device: DeviceId) -> bool {
        device == self.identity.device
    }
}

/// An account's log. One that is not here as far as another device of this account has seen it is not known yet: what
/// is missing may be who was revoked.
pub(super) fn load_log(connection: &Connection, account: AccountId) -> Result<Option<DeviceLog>, VaultError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM log_pin WHERE account = ?1)";
    let is_short: bool = connection.prepare_cached(sql)?.query_row(params![account.as_bytes()], |row| row.get(0))?;
    if is_short { Ok(None) } else { held_log(connection, account) }
}

/// Replays an account's log from its stored entries, however far they go.
pub(super) fn held_log(connection: &Connection, account: AccountId) -> Result<Option<DeviceLog>, VaultError> {
    let mut statement = connection.prepare_cached("SELECT entry FROM log_entry WHERE account = ?1 ORDER BY number")?;
    let entries = statement
        .query_map(params![account.as_bytes()], |row| row.get::<_, Vec<u8>>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    if entries.is_empty() {
        return Ok(None);
    }
    let log = DeviceLog::replay(entries.iter().map(Vec::as_slice));
    log.map(Some).map_err(|_| VaultError::Damaged("device log"))
}

/// The columns of a [`Row`].
pub(super) const ROW: &str = "SELECT id, kind, peer, name, state, epoch, epoch_seen";

pub(super) fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        id: ConversationId::from_bytes(row.get(0)?),
        kind: kind_of(row.get(1)?),
        peer: row.get::<_, Option<[u8; 16]>>(2)?.map(AccountId::from_bytes),
        name: row.get(3)?,
        state: state_of(row.get(4)?),
        epoch: row.get(5)?,
        epoch_seen: row.get(6)?,
    })
}

pub(super) const DIRECT: i64 = 0;
pub(super) const GROUP: i64 = 1;
pub(super) const OWN: i64 = 2;

const fn kind_number(kind: ConversationKind) -> i64 {
    match kind {
        ConversationKind::Direct => DIRECT,
        ConversationKind::Group => GROUP,
        ConversationKind::Own => OWN,
    }
}

pub(super) const fn kind_of(number: i64) -> ConversationKind {
    match number {
        GROUP => ConversationKind::Group,
        OWN => ConversationKind::Own,
        _ => ConversationKind::Direct,
    }
}

pub(super) const ACTIVE: i64 = 1;
pub(super) const ABSENT: i64 = 2;
pub(super) const AHEAD: i64 = 4;
pub(super) const REPLACED: i64 = 5;
pub(super) const LEFT: i64 = 6;

const fn state_number(state: ConversationStatus) -> i64 {
    match state {
        ConversationStatus::Creating => 0,
        ConversationStatus::Active => ACTIVE,
        ConversationStatus::Absent => ABSENT,
        ConversationStatus::Forked => 3,
        ConversationStatus::Ahead => AHEAD,
        ConversationStatus::Replaced => REPLACED,
        ConversationStatus::Left => LEFT,
    }
}

const fn state_of(number: i64) -> ConversationStatus {
    match number {
        0 => ConversationStatus::Creating,
        ACTIVE => ConversationStatus::Active,
        ABSENT => ConversationStatus::Absent,
        AHEAD => ConversationStatus::Ahead,
        REPLACED => ConversationStatus::Replaced,
        LEFT => ConversationStatus::Left,
        _ => ConversationStatus::Forked,
    }
}

impl From<e2ee::MlsError> for VaultError {
    fn from(error: e2ee::MlsError) -> Self {
        Self::Crypto { step: error.step, why: error.why }
    }
}

impl From<RestoreError> for VaultError {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Damaged => Self::Damaged("staged group"),
            RestoreError::Database(error) => Self::Database(error),
        }
    }
}
