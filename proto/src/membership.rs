//! Who may be in a conversation: our rule, which MLS itself does not have. One rule, by which the server accepts a
//! change and by which each client judges it again.
//!
//! A conversation belongs to the accounts that are in it. Its members add active devices of these accounts, and remove
//! other devices of their own account and revoked ones of any; a device of one of these accounts may join by a commit of
//! its own, which removes nothing but its own old leaf. No device is there twice.
//!
//! The accounts of a conversation without a [`GroupState`] never change. In a group its admins add accounts and remove
//! them, each as a whole, and change the state; whoever commits removes an account that has said that it leaves.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::limits::{ADDS_PER_COMMIT_MAX, CONVERSATION_ACCOUNTS_MAX, LEAVES_MAX};
use crate::{AccountId, ConversationId, DeviceId, DeviceLog, GroupState, LeafIdentity, SignedLeave};

/// A leaf of a group's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Who it says it is; `None` if its credential is not one of ours.
    pub identity: Option<LeafIdentity>,
    /// The key that it signs with.
    pub mls_key: Vec<u8>,
    /// The key that secrets are encrypted to for it: another after each commit of its device.
    pub leaf_key: Vec<u8>,
}

/// A conversation at one epoch.
#[derive(Debug, Clone, Copy)]
pub struct Roster<'a> {
    /// Which.
    pub conversation: ConversationId,
    /// Its leaves.
    pub leaves: &'a [Leaf],
    /// What its context says, if it is a group.
    pub state: Option<&'a GroupState>,
}

/// What a commit changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whether the committer joins by this commit.
    pub external: bool,
    /// Who commits, as the leaf was before; of an external commit, the new leaf.
    pub committer: Option<LeafIdentity>,
    /// The committer's leaf afterwards, where it changes.
    pub renewed: Option<Leaf>,
    /// Leaves that are added.
    pub added: Vec<Leaf>,
    /// Leaves that are removed.
    pub removed: Vec<Leaf>,
    /// The group's state afterwards, where the commit replaces the context's extensions by those that a group has.
    pub state: Option<GroupState>,
    /// The statements that it brings along, of accounts that leave.
    pub leaves: Vec<SignedLeave>,
    /// Whether it does anything else, or brings anything else along.
    pub more: bool,
}

/// What one expects of a group that one has not seen before.
#[derive(Debug, Clone, Copy)]
pub enum Expected<'a> {
    /// Exactly these accounts, and no [`GroupState`]: a direct conversation, or that of one's own devices.
    Accounts(&'a BTreeSet<AccountId>),
    /// A group that has a [`GroupState`], and this account in it.
    Group(AccountId),
}

/// What the rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be.
    Allowed,
    /// It may not be, unless an account's log has grown: by what is known of it, from an entry on.
    NeedsLog {
        /// Whose.
        account: AccountId,
        /// From where.
        log_from: u64,
        /// Why not, if the log has not grown.
        why: String,
    },
    /// It may not be.
    Refused(String),
}

/// What is known of accounts by whoever judges.
pub trait Logs {
    /// An account's device log, as far as it is known.
    fn log(&self, account: AccountId) -> Option<Arc<DeviceLog>>;

    /// Whether the leaf of a device passes that has been revoked.
    ///
    /// Never where the change happens now. But whoever reads commits of the past may know of a revocation before the
    /// commits that came before it: these were in order when they were made.
    fn passes_revoked(&self, device: DeviceId) -> bool;
}

impl Verdict {
    fn and(self, next: impl FnOnce() -> Self) -> Self {
        if self == Self::Allowed { next() } else { self }
    }

    fn all(verdicts: impl IntoIterator<Item = Self>) -> Self {
        verdicts.into_iter().find(|verdict| *verdict != Self::Allowed).unwrap_or(Self::Allowed)
    }
}

impl Roster<'_> {
    /// The accounts that have a leaf.
    #[must_use]
    pub fn accounts(&self) -> BTreeSet<AccountId> {
        accounts_of(self.leaves)
    }

    /// The accounts that may change who is in it, and its state: nobody, unless it is a group.
    #[must_use]
    pub fn admins(&self) -> BTreeSet<AccountId> {
        self.state.map_or_else(BTreeSet::new, |state| state.effective_admins(&self.accounts()))
    }

    /// Whether a statement is about this conversation as it is: its device has the leaf that it names.
    ///
    /// Who has signed it is another question: [`SignedLeave::holds`].
    #[must_use]
    pub fn is_left_by(&self, signed: &SignedLeave) -> bool {
        let leave = signed.leave();
        let is_named = |leaf: &Leaf| {
            leaf.leaf_key == leave.leaf_key
                && leaf.identity.is_some_and(|it| (it.account, it.device) == (leave.account, leave.device))
        };
        leave.conversation == self.conversation && self.leaves.iter().any(is_named)
    }
}

/// A leaf is good if its account's log has its device, added by the entry that it names, with its key, and not revoked.
#[must_use]
pub fn judge_leaf(leaf: &Leaf, logs: &dyn Logs) -> Verdict {
    let Some(LeafIdentity { account, device, log_entry }) = leaf.identity else {
        return refused("a leaf's credential is not one of this protocol");
    };
    let missing = || format!("the device {device} is not in the log of {account}");
    let Some(log) = logs.log(account) else { return Verdict::NeedsLog { account, log_from: 0, why: missing() } };
    let Some(logged) = log.device(device) else {
        return match log.length() {
            log_from if log_entry >= log_from => Verdict::NeedsLog { account, log_from, why: missing() },
            _ => refused(missing()),
        };
    };
    if logged.added_at != log_entry || logged.keys.mls().as_slice() != leaf.mls_key {
        return refused(format!("the device {device} has another key in the log of {account}"));
    }
    if logged.revoked_at.is_some() && !logs.passes_revoked(device) {
        return refused(format!("the device {device} of {account} was revoked"));
    }
    Verdict::Allowed
}

/// All leaves of a group: each is good, no device is there twice, and it is what is expected.
#[must_use]
pub fn judge_group(roster: &Roster<'_>, expected: Expected<'_>, logs: &dyn Logs) -> Verdict {
    judge_size(roster.leaves.len(), roster.accounts().len())
        .and(|| Verdict::all(roster.leaves.iter().map(|leaf| judge_leaf(leaf, logs))))
        .and(|| judge_distinct(roster.leaves))
        .and(|| match (expected, roster.state) {
            (Expected::Accounts(_), Some(_)) => refused("it is a group, which was not expected"),
            (Expected::Group(_), None) => refused("it is no group, which was expected"),
            (Expected::Accounts(accounts), None) if roster.accounts() != *accounts => refused(OTHER_ACCOUNTS),
            (Expected::Group(account), Some(_)) if !roster.accounts().contains(&account) => refused(OTHER_ACCOUNTS),
            _ => Verdict::Allowed,
        })
}

/// A commit to a conversation as it is `before`, whose leaves were judged when they came in.
#[must_use]
pub fn judge_commit(change: &Change, before: &Roster<'_>, logs: &dyn Logs) -> Verdict {
    let Some(committer) = change.committer else { return refused("the committer is none of this protocol") };
    if change.more {
        return refused("the commit does more than a commit may here");
    }
    let case = Case::new(change, committer, before);
    if !case.accounts.contains(&committer.account) {
        return refused(format!("{} is not in the conversation", committer.account));
    }
    case.judge_committer(logs)
        .and(|| Verdict::all(change.added.iter().map(|leaf| case.judge_added(leaf, logs))))
        .and(|| Verdict::all(change.removed.iter().map(|leaf| case.judge_removed(leaf, logs))))
        .and(|| case.judge_state())
        .and(|| case.judge_after(logs))
}

/// The accounts that have a leaf.
#[must_use]
pub fn accounts_of(leaves: &[Leaf]) -> BTreeSet<AccountId> {
    leaves.iter().filter_map(|leaf| leaf.identity.map(|identity| identity.account)).collect()
}

/// A commit with what follows from it.
struct Case<'a> {
    change: &'a Change,
    committer: LeafIdentity,
    before: &'a Roster<'a>,
    /// The accounts before.
    accounts: BTreeSet<AccountId>,
    /// The leaves afterwards.
    after: Vec<&'a Leaf>,
    /// The accounts afterwards.
    accounts_after: BTreeSet<AccountId>,
    /// Whether the committer's account may change who is in the conversation.
    is_admin: bool,
}

impl<'a> Case<'a> {
    fn new(change: &'a Change, committer: LeafIdentity, before: &'a Roster<'a>) -> Self {
        let device = |leaf: &Leaf| leaf.identity.map(|identity| identity.device);
        let removed: HashSet<_> = change.removed.iter().filter_map(device).collect();
        let stays = before.leaves.iter().filter(|leaf| device(leaf).is_some_and(|device| !removed.contains(&device)));
        let joins = change.renewed.iter().filter(|_| change.external);
        let after: Vec<_> = stays.chain(&change.added).chain(joins).collect();
        let accounts_after = after.iter().filter_map(|leaf| leaf.identity.map(|identity| identity.account)).collect();
        let accounts = before.accounts();
        let is_admin = before.state.is_some_and(|state| state.effective_admins(&accounts).contains(&committer.account));
        Self { change, committer, before, accounts, after, accounts_after, is_admin }
    }

    /// The committer's leaf is good, and stays the committer's: MLS would let it change who it says it is.
    fn judge_committer(&self, logs: &dyn Logs) -> Verdict {
        let (change, committer) = (self.change, self.committer);
        if change.renewed.as_ref().is_some_and(|leaf| leaf.identity != Some(committer)) {
            return refused("the committer renews its leaf as another");
        }
        let is_own = |leaf: &&Leaf| leaf.identity == Some(committer);
        match (&change.renewed, change.external) {
            (Some(leaf), true) => judge_leaf(leaf, logs),
            (None, true) => refused("who joins by a commit of its own brings no leaf"),
            (renewed, false) => match self.before.leaves.iter().find(is_own) {
                Some(leaf) => judge_leaf(renewed.as_ref().unwrap_or(leaf), logs),
                None => refused(format!("the device {} has no leaf", committer.device)),
            },
        }
    }

    fn judge_added(&self, leaf: &Leaf, logs: &dyn Logs) -> Verdict {
        let Some(LeafIdentity { account, .. }) = leaf.identity else {
            return refused("an added leaf is none of this protocol");
        };
        if self.change.external {
            return refused("who joins by a commit of its own adds nobody else");
        }
        if !self.accounts.contains(&account) && !self.is_admin {
            return refused(match self.before.state {
                Some(_) => format!("the commit adds {account}, which only an admin may"),
                None => format!("the commit adds {account}, who is not in the conversation"),
            });
        }
        judge_leaf(leaf, logs)
    }

    fn judge_removed(&self, leaf: &Leaf, logs: &dyn Logs) -> Verdict {
        let Some(LeafIdentity { account, device, .. }) = leaf.identity else { return Verdict::Allowed };
        let committer = self.committer;
        let is_own = (account, device) == (committer.account, committer.device);
        if self.change.external {
            return if is_own {
                Verdict::Allowed
            } else {
                refused("who joins by a commit of its own removes another's leaf")
            };
        }
        if is_own {
            return refused("the committer removes itself");
        }
        if account == committer.account {
            return Verdict::Allowed;
        }
        if self.before.state.is_some() && !self.accounts_after.contains(&account) {
            // It goes as a whole, which is judged once for all its leaves.
            return Verdict::Allowed;
        }
        let log_from = match logs.log(account) {
            Some(log) if !log.is_active(device) => return Verdict::Allowed,
            Some(log) => log.length(),
            None => 0,
        };
        let why = format!("the commit removes the device {device} of {account}, which only {account} may");
        Verdict::NeedsLog { account, log_from, why }
    }

    fn judge_state(&self) -> Verdict {
        match (&self.change.state, self.before.state) {
            (None, _) => Verdict::Allowed,
            (Some(_), None) => refused("the commit makes a group of a conversation that is none"),
            (Some(_), Some(_)) if self.is_admin => Verdict::Allowed,
            (Some(_), Some(_)) => refused("the commit changes the group's state, which only an admin may"),
        }
    }

    fn judge_after(&self, logs: &dyn Logs) -> Verdict {
        if self.change.added.len() > ADDS_PER_COMMIT_MAX {
            return refused(format!("the commit adds more than {ADDS_PER_COMMIT_MAX} devices"));
        }
        let gone = self.accounts.difference(&self.accounts_after);
        judge_size(self.after.len(), self.accounts_after.len())
            .and(|| judge_distinct(self.after.iter().copied()))
            .and(|| Verdict::all(gone.map(|account| self.judge_gone(*account, logs))))
    }

    /// An account that has no leaf afterwards, be it that its last one is of a revoked device: it may have others, which
    /// have still to join.
    fn judge_gone(&self, account: AccountId, logs: &dyn Logs) -> Verdict {
        if self.before.state.is_none() {
            return refused("the commit leaves an account without a device");
        }
        if self.is_admin {
            return Verdict::Allowed;
        }
        let unasked = refused(format!("the commit removes {account}, which only an admin may"));
        let about = |signed: &&SignedLeave| signed.leave().account == account && self.before.is_left_by(signed);
        let verdicts = self.change.leaves.iter().filter(about).map(|signed| judge_leave(signed, logs));
        verdicts.fold(unasked, |best, next| if best == Verdict::Allowed { best } else { next })
    }
}

/// A statement to leave is signed by its account's device. That may have been revoked since: what it has said stands, and
/// it says nothing more once its leaf is gone.
fn judge_leave(signed: &SignedLeave, logs: &dyn Logs) -> Verdict {
    let (account, device) = (signed.leave().account, signed.leave().device);
    let log = logs.log(account);
    let Some(logged) = log.as_ref().and_then(|log| log.device(device)) else {
        let why = format!("{account} is said to leave by a device that is not in its log");
        return Verdict::NeedsLog { account, log_from: log.map_or(0, |log| log.length()), why };
    };
    if signed.holds(logged.keys.proof()) {
        Verdict::Allowed
    } else {
        refused(format!("{account} has not signed that it leaves"))
    }
}

fn judge_size(leaves: usize, accounts: usize) -> Verdict {
    if accounts > CONVERSATION_ACCOUNTS_MAX {
        return refused(format!("a conversation has at most {CONVERSATION_ACCOUNTS_MAX} accounts"));
    }
    if leaves > LEAVES_MAX {
        return refused(format!("a conversation has at most {LEAVES_MAX} devices"));
    }
    Verdict::Allowed
}

fn judge_distinct<'a>(leaves: impl IntoIterator<Item = &'a Leaf>) -> Verdict {
    let mut seen = HashSet::new();
    match leaves.into_iter().filter_map(|leaf| leaf.identity).find(|identity| !seen.insert(identity.device)) {
        Some(twice) => refused(format!("the device {} is there twice", twice.device)),
        None => Verdict::Allowed,
    }
}

const OTHER_ACCOUNTS: &str = "the accounts in it are not those expected";

fn refused(why: impl Into<String>) -> Verdict {
    Verdict::Refused(why.into())
}

#[cfg(test)]
mod tests;
