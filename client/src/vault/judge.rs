//! The rule of membership, by what this device knows: device logs, and who was removed from where for good.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use gureum_proto::membership::{Expected, Logs, Verdict, judge_group};
use gureum_proto::{AccountId, ConversationId, DeviceId, DeviceLog, Handle};
use rusqlite::{Connection, params};

use super::work::{Row, Work, load_log};
use super::{Need, VaultError};
use crate::e2ee::View;

/// Whether something may be, or what must be known first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    Allowed,
    Needs(Need),
    Refused(String),
}

/// Whether this device may come into a conversation.
pub(super) enum Joining {
    /// It may: into this one, in whose row it is not in yet.
    Into(Row),
    Needs(Need),
    /// Whom it is with has a handle that stands for another account here: a person must look first.
    Moved(Handle),
    Refused(String),
}

/// What is judged, which says whether the leaf of a device passes that has been revoked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Judging {
    /// What this device does now: none passes.
    Now,
    /// What the server has accepted in a conversation. Device logs are known as they are today, and commits come one
    /// after the other: what was in order before a revocation passes. Who was seen removed for it does not come back.
    Accepted(ConversationId),
    /// An older state than this device has seen, which a person has decided to go on from.
    Older,
}

/// What the rule asks for.
struct Known<'a> {
    connection: &'a Connection,
    judging: Judging,
    expelled: HashSet<DeviceId>,
    /// Those that were asked for: replaying one checks its signatures.
    logs: RefCell<HashMap<AccountId, Option<Arc<DeviceLog>>>>,
    failed: RefCell<Option<VaultError>>,
}

impl Logs for Known<'_> {
    fn log(&self, account: AccountId) -> Option<Arc<DeviceLog>> {
        let load = || match load_log(self.connection, account) {
            Ok(log) => log.map(Arc::new),
            Err(error) => {
                self.failed.replace(Some(error));
                None
            }
        };
        self.logs.borrow_mut().entry(account).or_insert_with(load).clone()
    }

    fn passes_revoked(&self, device: DeviceId) -> bool {
        match self.judging {
            Judging::Now => false,
            Judging::Accepted(_) => !self.expelled.contains(&device),
            Judging::Older => true,
        }
    }
}

impl Work<'_> {
    /// Judges by what is known here.
    pub(super) fn judge(
        &mut self,
        judging: Judging,
        rule: impl FnOnce(&dyn Logs) -> Verdict,
    ) -> Result<Judged, VaultError> {
        let expelled = match judging {
            Judging::Accepted(conversation) => expelled(self.connection, conversation)?,
            Judging::Now | Judging::Older => HashSet::new(),
        };
        let (logs, failed) = (RefCell::default(), RefCell::default());
        let known = Known { connection: self.connection, judging, expelled, logs, failed };
        let verdict = rule(&known);
        if let Some(error) = known.failed.into_inner() {
            return Err(error);
        }
        Ok(match verdict {
            Verdict::Allowed => Judged::Allowed,
            Verdict::Refused(why) => Judged::Refused(why),
            Verdict::NeedsLog { account, log_from, why } => match self.asked.log(account, log_from) {
                Some(need) => Judged::Needs(need),
                None => Judged::Refused(why),
            },
        })
    }
}

impl Work<'_> {
    /// Judges what this device would come into. `known` is what is known of the conversation: it stays of its kind, and
    /// one of two with the same account.
    pub(super) fn judge_joining(
        &mut self,
        judging: Judging,
        known: Option<&Row>,
        view: &View,
    ) -> Result<Joining, VaultError> {
        let (own, id) = (self.identity.account, view.conversation);
        let is_group = known.map_or(view.state.is_some(), Row::is_group);
        let own_alone = BTreeSet::from([own]);
        let is_own = known.map_or_else(|| view.roster().accounts() == own_alone, Row::is_own);
        let (row, accounts) = if is_group {
            if let Some(need) = self.need_members(view)? {
                return Ok(Joining::Needs(need));
            }
            let name = view.state.as_ref().map(|state| state.name().to_owned());
            (Row::group(id, name), BTreeSet::new())
        } else if is_own {
            (Row::own(id), own_alone)
        } else {
            let peer = known.and_then(|row| row.peer).or_else(|| other_than(own, view));
            let Some(peer) = peer else { return Ok(Joining::Refused("nobody else is in it".into())) };
            if self.is_known_by_its_log(peer)? {
                return Ok(Joining::Moved(self.handle(peer)?));
            }
            (Row::direct(id, peer), BTreeSet::from([own, peer]))
        };
        let expected = if is_group { Expected::Group(own) } else { Expected::Accounts(&accounts) };
        Ok(match self.judge(judging, |logs| judge_group(&view.roster(), expected, logs))? {
            Judged::Allowed => Joining::Into(row),
            Judged::Needs(need) => Joining::Needs(need),
            Judged::Refused(why) => Joining::Refused(why),
        })
    }

    /// The need for the logs of a group's members, where more than one is missing and they were not asked for just now.
    fn need_members(&mut self, view: &View) -> Result<Option<Need>, VaultError> {
        let mut missing = 0_usize;
        for account in view.roster().accounts() {
            missing += usize::from(!self.knows(account)? || self.pin(account)?.is_some());
        }
        Ok(if missing > 1 { self.asked.members(view.conversation) } else { None })
    }
}

fn other_than(own: AccountId, view: &View) -> Option<AccountId> {
    view.roster().accounts().into_iter().find(|account| *account != own)
}

fn expelled(connection: &Connection, conversation: ConversationId) -> Result<HashSet<DeviceId>, VaultError> {
    let mut statement = connection.prepare_cached("SELECT device FROM expelled WHERE conversation = ?1")?;
    let rows = statement.query_map(params![conversation.as_bytes()], |row| row.get(0).map(DeviceId::from_bytes))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
