//! What the next commit of this device in a conversation is to do: remove whom it must, and what a person has told it.

use std::collections::BTreeSet;

use gureum_proto::limits::{ADDS_PER_COMMIT_MAX, CONVERSATION_ACCOUNTS_MAX, LEAVES_PER_COMMIT_MAX};
use gureum_proto::{AccountId, DeviceId, GroupState, LeafIdentity};

use super::VaultError;
use super::intents::{Intent, IntentId, OpenIntent};
use super::removals::{Brought, stranded};
use super::work::{Row, Work};
use crate::e2ee::{View, Wanted};

/// A commit to be made.
#[derive(Default)]
pub(super) struct Planned {
    pub(super) wanted: Wanted,
    /// The intents that it carries out.
    pub(super) intents: Vec<IntentId>,
}

/// A commit as it grows.
struct Plan<'a> {
    row: &'a Row,
    view: &'a View,
    /// The accounts in the group.
    accounts: BTreeSet<AccountId>,
    is_admin: bool,
    planned: Planned,
    /// Accounts that this commit adds, and those that it removes as a whole.
    coming: BTreeSet<AccountId>,
    going: BTreeSet<AccountId>,
}

/// What has become of an intent.
enum Step {
    /// This commit carries it out.
    Taken,
    /// It is so already.
    Done,
    /// It never will be.
    Refused(String),
    /// It has to wait for another commit.
    Waits,
}

/// Plans a commit to a group as it is. Intents that need none are settled.
pub(super) fn plan(work: &mut Work<'_>, row: &Row, view: &View, brought: &[Brought]) -> Result<Planned, VaultError> {
    let roster = view.roster();
    let mut plan = Plan {
        row,
        view,
        accounts: roster.accounts(),
        is_admin: roster.admins().contains(&work.identity.account),
        planned: Planned::default(),
        coming: BTreeSet::new(),
        going: BTreeSet::new(),
    };
    plan.let_go(work)?;
    for intent in work.open_intents(row.id)? {
        if plan.planned.intents.len() >= work.asked.together(row.id) {
            break;
        }
        match plan.take(work, &intent)? {
            Step::Taken => plan.planned.intents.push(intent.id),
            Step::Done => work.settle_intent(intent.id)?,
            Step::Refused(why) => work.refuse_intent(intent.id, &why)?,
            Step::Waits => {}
        }
    }
    let revoked = work.removals(row.id)?;
    plan.bring_in(work, &revoked, brought)?;
    plan.remove(work, &revoked);
    Ok(plan.planned)
}

impl Plan<'_> {
    /// Accounts that have said that they leave.
    fn let_go(&mut self, work: &Work<'_>) -> Result<(), VaultError> {
        let own = work.identity.account;
        for statement in work.statements(self.row.id)? {
            let account = statement.leave().account;
            let counts = account != own && self.view.roster().is_left_by(&statement);
            if counts && self.planned.wanted.leaves.len() < LEAVES_PER_COMMIT_MAX && self.going.insert(account) {
                self.planned.wanted.leaves.push(statement);
            }
        }
        Ok(())
    }

    fn take(&mut self, work: &mut Work<'_>, open: &OpenIntent) -> Result<Step, VaultError> {
        let own = work.identity.account;
        let is_for_members = matches!(open.intent, Intent::Add(account) if account == own);
        if !self.is_admin && !is_for_members {
            return Ok(Step::Refused("only an admin of the group may do that".to_owned()));
        }
        Ok(match &open.intent {
            Intent::Add(account) => self.add(work, open.id, *account)?,
            Intent::Remove(account) if *account == own => {
                Step::Refused("nobody removes themselves; leave the group instead".to_owned())
            }
            Intent::Remove(account) if !self.accounts.contains(account) => Step::Done,
            Intent::Remove(account) if self.coming.contains(account) => Step::Waits,
            Intent::Remove(account) => {
                self.going.insert(*account);
                Step::Taken
            }
            Intent::Rename(name) => self.restate(|state| GroupState::new(name.clone(), state.admins().iter().copied())),
            Intent::Promote(account) if !self.accounts.contains(account) => {
                Step::Refused("who is not in the group cannot be its admin".to_owned())
            }
            Intent::Promote(account) => {
                let present = self.accounts.clone();
                self.restate(|state| {
                    let stay = state.admins().intersection(&present).copied();
                    GroupState::new(state.name(), stay.chain([*account]))
                })
            }
            Intent::Demote(account) => self.demote(*account),
        })
    }

    fn add(&mut self, work: &mut Work<'_>, id: IntentId, account: AccountId) -> Result<Step, VaultError> {
        // One that this commit adds already is in it by the next one.
        if self.going.contains(&account) || self.coming.contains(&account) {
            return Ok(Step::Waits);
        }
        let is_in = self.accounts.contains(&account);
        let packages = work.claimed_packages(id)?;
        if packages.is_empty() {
            // Of this account itself others may be claimed still.
            return Ok(if is_in && account != work.identity.account { Step::Done } else { Step::Waits });
        }
        let mut missing = Vec::new();
        for (device, bytes) in packages {
            if !self.has_leaf(device) {
                match work.check_group_package(account, device, &bytes)? {
                    Ok(package) => missing.push(package),
                    // Its time is over: another is claimed for it.
                    Err(_) => work.forget_package(id, device)?,
                }
            }
        }
        if missing.is_empty() {
            return Ok(if is_in { Step::Done } else { Step::Waits });
        }
        if !is_in && self.accounts.len() + self.coming.len() >= CONVERSATION_ACCOUNTS_MAX {
            return Ok(Step::Refused(format!("a group has at most {CONVERSATION_ACCOUNTS_MAX} accounts")));
        }
        if self.planned.wanted.added.len() + missing.len() > ADDS_PER_COMMIT_MAX {
            return Ok(Step::Waits);
        }
        self.coming.insert(account);
        self.planned.wanted.added.extend(missing);
        Ok(Step::Taken)
    }

    fn demote(&mut self, account: AccountId) -> Step {
        let Some(state) = self.state() else { return Step::Refused("it is no group".to_owned()) };
        let mut admins: BTreeSet<_> = state.admins().intersection(&self.accounts).copied().collect();
        if !admins.remove(&account) {
            return Step::Done;
        }
        if admins.is_empty() {
            return Step::Refused("a group needs an admin; make somebody else one first".to_owned());
        }
        self.restate(|state| GroupState::new(state.name(), admins))
    }

    /// Another state, unless it is the same.
    fn restate<E>(&mut self, change: impl FnOnce(&GroupState) -> Result<GroupState, E>) -> Step {
        let Some(state) = self.state() else { return Step::Refused("it is no group".to_owned()) };
        match change(state) {
            Ok(next) if next == *state => Step::Done,
            Ok(next) => {
                self.planned.wanted.state = Some(next);
                Step::Taken
            }
            Err(_) => Step::Refused("a group cannot have such a name, or so many admins".to_owned()),
        }
    }

    /// The state as this commit leaves it so far.
    fn state(&self) -> Option<&GroupState> {
        self.planned.wanted.state.as_ref().or(self.view.state.as_ref())
    }

    fn has_leaf(&self, device: DeviceId) -> bool {
        self.view.leaves.iter().any(|leaf| leaf.identity.is_some_and(|it| it.device == device))
    }

    /// Who comes in for revoked devices that are all that an account has here.
    fn bring_in(
        &mut self,
        work: &mut Work<'_>,
        revoked: &BTreeSet<DeviceId>,
        brought: &[Brought],
    ) -> Result<(), VaultError> {
        let mut stranded = stranded(&self.view.leaves, revoked);
        stranded.retain(|account| !self.coming.contains(account) && !self.going.contains(account));
        for Brought { account, device, key_package } in brought.iter().filter(|it| stranded.contains(&it.account)) {
            if self.planned.wanted.added.len() < ADDS_PER_COMMIT_MAX
                && !self.has_leaf(*device)
                && let Ok(package) = work.check_group_package(*account, *device, key_package)?
            {
                self.coming.insert(*account);
                self.planned.wanted.added.push(package);
            }
        }
        Ok(())
    }

    /// Whose leaves go: those of accounts that are removed, and of revoked devices. Those of an account that has no other
    /// leaf stay until it has, unless an admin removes the account: one that was brought back comes in by itself, or with
    /// this commit, and nobody may leave it without.
    fn remove(&mut self, work: &Work<'_>, revoked: &BTreeSet<DeviceId>) {
        let leaves = || self.view.leaves.iter().filter_map(|leaf| leaf.identity);
        let others = leaves().filter(|leaf| !revoked.contains(&leaf.device));
        let stay: BTreeSet<_> = others.map(|leaf| leaf.account).chain(self.coming.iter().copied()).collect();
        let may_go = |leaf: &LeafIdentity| {
            revoked.contains(&leaf.device) && stay.contains(&leaf.account) && !work.is_self(leaf.device)
        };
        let going = leaves().filter(|leaf| self.going.contains(&leaf.account) || may_go(leaf));
        self.planned.wanted.removed = going.map(|leaf| leaf.device).collect();
    }
}
