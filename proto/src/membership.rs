//! Who may be in a conversation: our rule, which MLS itself does not have. One rule, by which the server accepts a
//! change and by which each client judges it again.
//!
//! A conversation belongs to the accounts that are in it, and these never change. Its members add active devices of these
//! accounts, and remove other devices of their own account and revoked ones of any; a device of one of these accounts
//! may join by a commit of its own, which removes nothing but its own old leaf. No device is there twice, and no
//! account is left without one.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::{AccountId, DeviceId, DeviceLog, LeafIdentity};

/// A leaf of a group's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Who it says it is; `None` if its credential is not one of ours.
    pub identity: Option<LeafIdentity>,
    /// The key that it signs with.
    pub mls_key: Vec<u8>,
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
    /// Whether it does anything else.
    pub more: bool,
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

/// All leaves of a group: each is good, no device is there twice, and the accounts are those expected.
#[must_use]
pub fn judge_group(leaves: &[Leaf], accounts: &BTreeSet<AccountId>, logs: &dyn Logs) -> Verdict {
    Verdict::all(leaves.iter().map(|leaf| judge_leaf(leaf, logs)))
        .and(|| judge_distinct(leaves))
        .and(|| if accounts_of(leaves) == *accounts { Verdict::Allowed } else { refused(OTHER_ACCOUNTS) })
}

/// A commit to a group of the leaves `before`, each of which was judged when it came in.
#[must_use]
pub fn judge_commit(change: &Change, before: &[Leaf], logs: &dyn Logs) -> Verdict {
    let Some(committer) = change.committer else { return refused("the committer is none of this protocol") };
    if change.more {
        return refused("the commit does more than to add, remove and renew leaves");
    }
    let accounts = accounts_of(before);
    if !accounts.contains(&committer.account) {
        return refused(format!("{} is not in the conversation", committer.account));
    }
    judge_committer(change, committer, before, logs)
        .and(|| Verdict::all(change.added.iter().map(|leaf| judge_added(leaf, change, &accounts, logs))))
        .and(|| Verdict::all(change.removed.iter().map(|leaf| judge_removed(leaf, change, committer, logs))))
        .and(|| judge_after(change, before, &accounts))
}

/// The accounts that have a leaf.
#[must_use]
pub fn accounts_of(leaves: &[Leaf]) -> BTreeSet<AccountId> {
    leaves.iter().filter_map(|leaf| leaf.identity.map(|identity| identity.account)).collect()
}

/// The committer's leaf is good, and stays the committer's: MLS would let it change who it says it is.
fn judge_committer(change: &Change, committer: LeafIdentity, before: &[Leaf], logs: &dyn Logs) -> Verdict {
    if change.renewed.as_ref().is_some_and(|leaf| leaf.identity != Some(committer)) {
        return refused("the committer renews its leaf as another");
    }
    let is_own = |leaf: &&Leaf| leaf.identity == Some(committer);
    match (&change.renewed, change.external) {
        (Some(leaf), true) => judge_leaf(leaf, logs),
        (None, true) => refused("who joins by a commit of its own brings no leaf"),
        (renewed, false) => match before.iter().find(is_own) {
            Some(leaf) => judge_leaf(renewed.as_ref().unwrap_or(leaf), logs),
            None => refused(format!("the device {} has no leaf", committer.device)),
        },
    }
}

fn judge_added(leaf: &Leaf, change: &Change, accounts: &BTreeSet<AccountId>, logs: &dyn Logs) -> Verdict {
    let Some(identity) = leaf.identity else { return refused("an added leaf is none of this protocol") };
    if change.external {
        return refused("who joins by a commit of its own adds nobody else");
    }
    if !accounts.contains(&identity.account) {
        return refused(format!("the commit adds {}, who is not in the conversation", identity.account));
    }
    judge_leaf(leaf, logs)
}

fn judge_removed(leaf: &Leaf, change: &Change, committer: LeafIdentity, logs: &dyn Logs) -> Verdict {
    let Some(LeafIdentity { account, device, .. }) = leaf.identity else { return Verdict::Allowed };
    let is_own = account == committer.account && device == committer.device;
    if change.external {
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
    let log_from = match logs.log(account) {
        Some(log) if !log.is_active(device) => return Verdict::Allowed,
        Some(log) => log.length(),
        None => 0,
    };
    let why = format!("the commit removes the device {device} of {account}, which only {account} may");
    Verdict::NeedsLog { account, log_from, why }
}

fn judge_after(change: &Change, before: &[Leaf], accounts: &BTreeSet<AccountId>) -> Verdict {
    let device = |leaf: &Leaf| leaf.identity.map(|identity| identity.device);
    let removed: HashSet<_> = change.removed.iter().filter_map(device).collect();
    let stays = before.iter().filter(|leaf| device(leaf).is_some_and(|device| !removed.contains(&device)));
    let joins = change.renewed.iter().filter(|_| change.external);
    let after: Vec<_> = stays.chain(&change.added).chain(joins).cloned().collect();
    judge_distinct(&after).and(|| {
        let is_whole = accounts_of(&after) == *accounts;
        if is_whole { Verdict::Allowed } else { refused("the commit leaves an account without a device") }
    })
}

fn judge_distinct(leaves: &[Leaf]) -> Verdict {
    let mut seen = HashSet::new();
    match leaves.iter().filter_map(|leaf| leaf.identity).find(|identity| !seen.insert(identity.device)) {
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
