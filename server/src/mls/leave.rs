//! Whether a statement to leave is about a group as it is.

use gureum_proto::membership::{Logs, Roster};
use gureum_proto::{AccountId, DeviceId, SignedLeave};

use super::group::{leaves_of, state_of};
use super::{CommitError, FollowedGroup};

/// Checks a statement that a device hands in for its own account, against the group as it is: whoever commits next can
/// bring it along.
///
/// # Errors
/// It is another's, or of another group, or of another leaf than the device has, or not signed by it; the conversation is
/// none that one leaves; the stored group is not readable.
pub(crate) fn check_leave(
    group: &FollowedGroup,
    signed: &SignedLeave,
    from: (AccountId, DeviceId),
    logs: &dyn Logs,
) -> Result<(), CommitError> {
    let state = state_of(group.public.group_context().extensions()).map_err(CommitError::Stored)?;
    let leaves = leaves_of(&group.members);
    let roster = Roster { conversation: group.conversation, leaves: &leaves, state: state.as_ref() };
    let refused = |why: &str| Err(CommitError::Invalid(why.to_owned()));
    let leave = signed.leave();
    if roster.state.is_none() {
        return refused("nobody leaves a conversation that is no group");
    }
    if (leave.account, leave.device) != from {
        return refused("it is the statement of another device");
    }
    if !roster.is_left_by(signed) {
        return refused("it is not about the leaf that the device has");
    }
    let log = logs.log(leave.account);
    match log.as_ref().and_then(|log| log.device(leave.device)) {
        Some(logged) if signed.holds(logged.keys.proof()) => Ok(()),
        _ => refused("its signature does not hold"),
    }
}
