//! Who may be in a conversation: our rule, which MLS itself does not have. Pure.

use std::collections::BTreeSet;

use gureum_proto::{AccountId, DeviceLog, LeafIdentity};

/// A leaf of a group's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// Who it says it is; `None` if its credential is not one of ours.
    pub(crate) identity: Option<LeafIdentity>,
    /// The key that it signs with.
    pub(crate) mls_key: Vec<u8>,
}

/// What a commit changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// Whether the committer joins by this commit.
    pub(crate) external: bool,
    /// Who commits, as the leaf was before; of an external commit, the new leaf.
    pub(crate) committer: Option<LeafIdentity>,
    /// The committer's leaf afterwards, where it changes.
    pub(crate) renewed: Option<Leaf>,
    /// Leaves that are added.
    pub(crate) added: Vec<Leaf>,
    /// Leaves that are removed.
    pub(crate) removed: Vec<Leaf>,
    /// Whether it does anything else.
    pub(crate) more: bool,
}

/// What the rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may be.
    Allowed,
    /// An account's log is needed, from an entry on, before it can be said.
    NeedsLog {
        /// Whose.
        account: AccountId,
        /// From where.
        log_from: u64,
    },
    /// It may not be.
    Refused(String),
}

impl Verdict {
    fn and(self, next: impl FnOnce() -> Self) -> Self {
        if self == Self::Allowed { next() } else { self }
    }

    fn all(verdicts: impl IntoIterator<Item = Self>) -> Self {
        verdicts.into_iter().find(|verdict| *verdict != Self::Allowed).unwrap_or(Self::Allowed)
    }
}

/// Finds an account's log.
pub(crate) type Logs<'a> = dyn Fn(AccountId) -> Option<DeviceLog> + 'a;

/// A leaf is good if its account's log has its device, added by the entry that it names, with its key, not revoked.
pub(crate) fn judge_leaf(leaf: &Leaf, logs: &Logs<'_>) -> Verdict {
    let Some(identity) = leaf.identity else { return refused("a leaf's credential is not one of this protocol") };
    let Some(log) = logs(identity.account) else {
        return Verdict::NeedsLog { account: identity.account, log_from: 0 };
    };
    let Some(device) = log.device(identity.device) else {
        if identity.log_entry >= log.length() {
            return Verdict::NeedsLog { account: identity.account, log_from: log.length() };
        }
        return refused(format!("the device {} is not in the log of {}", identity.device, identity.account));
    };
    if device.added_at != identity.log_entry || device.keys.mls().as_slice() != leaf.mls_key {
        return refused(format!("the device {} has another key in the log of {}", identity.device, identity.account));
    }
    if device.revoked_at.is_some() {
        return refused(format!("the device {} of {} was revoked", identity.device, identity.account));
    }
    Verdict::Allowed
}

/// All leaves of a group: each is good, no device is there twice, and the accounts are those expected.
pub(crate) fn judge_group(leaves: &[Leaf], accounts: &BTreeSet<AccountId>, logs: &Logs<'_>) -> Verdict {
    let identities: Vec<_> = leaves.iter().filter_map(|leaf| leaf.identity).collect();
    let devices: BTreeSet<_> = identities.iter().map(|identity| identity.device).collect();
    let present: BTreeSet<_> = identities.iter().map(|identity| identity.account).collect();
    Verdict::all(leaves.iter().map(|leaf| judge_leaf(leaf, logs)))
        .and(|| if devices.len() == leaves.len() { Verdict::Allowed } else { refused("a device is there twice") })
        .and(|| if present == *accounts { Verdict::Allowed } else { refused("its accounts are not those expected") })
}

/// A commit to a group of `before`, whose accounts never change.
pub(crate) fn judge_commit(
    change: &Change,
    before: &[Leaf],
    accounts: &BTreeSet<AccountId>,
    logs: &Logs<'_>,
) -> Verdict {
    let Some(committer) = change.committer else { return refused("the committer is none of this protocol") };
    if change.more {
        return refused("the commit does more than to add, remove and renew leaves");
    }
    if !accounts.contains(&committer.account) {
        return refused(format!("{} is not in the conversation", committer.account));
    }
    Verdict::all(change.renewed.iter().map(|leaf| judge_renewed(leaf, committer, logs)))
        .and(|| Verdict::all(change.added.iter().map(|leaf| judge_added(leaf, change, before, accounts, logs))))
        .and(|| Verdict::all(change.removed.iter().map(|leaf| judge_removed(leaf, change, committer, logs))))
        .and(|| judge_rest(change, before, accounts))
}

fn judge_renewed(leaf: &Leaf, committer: LeafIdentity, logs: &Logs<'_>) -> Verdict {
    if leaf.identity != Some(committer) {
        return refused("the committer renews its leaf as another");
    }
    judge_leaf(leaf, logs)
}

fn judge_added(
    leaf: &Leaf,
    change: &Change,
    before: &[Leaf],
    accounts: &BTreeSet<AccountId>,
    logs: &Logs<'_>,
) -> Verdict {
    let Some(identity) = leaf.identity else { return refused("an added leaf is none of this protocol") };
    if change.external {
        return refused("who joins by a commit of its own adds nobody else");
    }
    if !accounts.contains(&identity.account) {
        return refused(format!("the commit adds {}, who is not in the conversation", identity.account));
    }
    let same = |other: &&Leaf| other.identity.is_some_and(|other| other.device == identity.device);
    if before.iter().find(same).is_some_and(|old| !change.removed.contains(old)) {
        return refused(format!("the device {} is there already", identity.device));
    }
    judge_leaf(leaf, logs)
}

/// A member removes devices of its own account and revoked ones; who joins by a commit of its own, its own old leaf.
fn judge_removed(leaf: &Leaf, change: &Change, committer: LeafIdentity, logs: &Logs<'_>) -> Verdict {
    let Some(identity) = leaf.identity else { return Verdict::Allowed };
    if change.external {
        let own = identity.account == committer.account && identity.device == committer.device;
        return if own { Verdict::Allowed } else { refused("who joins by a commit of its own removes another's leaf") };
    }
    if identity.account == committer.account {
        return Verdict::Allowed;
    }
    match logs(identity.account) {
        Some(log) if log.is_active(identity.device) => {
            Verdict::NeedsLog { account: identity.account, log_from: log.length() }
        }
        Some(_) => Verdict::Allowed,
        None => Verdict::NeedsLog { account: identity.account, log_from: 0 },
    }
}

fn judge_rest(change: &Change, before: &[Leaf], accounts: &BTreeSet<AccountId>) -> Verdict {
    let stays = before.iter().filter(|leaf| !change.removed.contains(leaf));
    let joins = change.added.iter().chain(&change.renewed);
    let after: BTreeSet<_> = stays.chain(joins).filter_map(|leaf| leaf.identity.map(|leaf| leaf.account)).collect();
    let joined_twice = change.external
        && before
            .iter()
            .filter(|leaf| !change.removed.contains(leaf))
            .any(|leaf| leaf.identity.map(|leaf| leaf.device) == change.committer.map(|committer| committer.device));
    if joined_twice {
        return refused("a device would be there twice");
    }
    if after == *accounts { Verdict::Allowed } else { refused("the commit leaves an account without a device") }
}

fn refused(why: impl Into<String>) -> Verdict {
    Verdict::Refused(why.into())
}

#[cfg(test)]
mod tests;
