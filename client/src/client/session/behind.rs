//! What waits until the inbox is taken as far as it went when the connection began: here, or by another process of this home.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::{Command, Session};
use crate::client::error::ClientError;
use crate::client::sync::GroupCommand;
use crate::limits::{COMMANDS_PATIENCE, INBOX_LOOK_WAIT, INBOX_STALL};
use crate::vault::Vault;

/// Commands that wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Deferred(VecDeque<Command>);

impl Deferred {
    pub(super) fn push(&mut self, command: Command) {
        self.0.push_back(command);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next one that need not wait. What others want is not held up by one that does, but for what concerns the same
    /// conversation.
    fn next(&mut self, waits: impl Fn(&Command) -> bool) -> Option<Command> {
        let mut waiting = Vec::new();
        let place = self.0.iter().position(|command| {
            let target = command.target();
            let goes = !waits(command) && !waiting.contains(&target);
            if !goes && target.is_some() {
                waiting.push(target);
            }
            goes
        })?;
        self.0.remove(place)
    }

    /// Refuses those that wait.
    fn refuse(&mut self, waits: impl Fn(&Command) -> bool) {
        let (late, others): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.0).into_iter().partition(waits);
        self.0 = others;
        late.into_iter().for_each(|command| command.refuse(ClientError::InboxStalled));
    }

    /// Refuses all.
    pub(super) fn refuse_all(&mut self, why: impl Fn() -> ClientError) {
        self.0.drain(..).for_each(|command| command.refuse(why()));
    }

    /// Nobody wants any of it any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Session<'_> {
    /// Whether what had come before this connection is not taken yet. Until it is, no conversation is brought to its current
    /// epoch from elsewhere than the inbox, where messages may wait of epochs of which the keys would be gone; and so nothing
    /// is changed, for a commit that loses needs those that were faster. What comes meanwhile does not count, else a server
    /// could keep a device from removing anybody.
    pub(super) const fn is_behind(&self) -> bool {
        !self.caught_up && self.taken_seq < self.head_seq
    }

    /// The inbox is taken as far as that.
    pub(super) fn note_taken(&mut self, seq: u64) {
        if seq > self.taken_seq {
            (self.taken_seq, self.moved_at) = (seq, Instant::now());
        }
    }

    /// Sees how far another process has taken the inbox, which this one leaves to it.
    pub(super) async fn look_how_far(&mut self) -> Result<(), ClientError> {
        let taken = self.sync.vault.call(Vault::taken_seq).await?;
        self.note_taken(taken);
        self.look_at = self.is_behind().then(|| Instant::now() + INBOX_LOOK_WAIT);
        self.outbox_due |= self.look_at.is_none();
        Ok(())
    }

    /// The next command that need not wait.
    pub(super) fn next_command(&mut self) -> Option<Command> {
        let mut deferred = std::mem::take(&mut self.deferred);
        let next = deferred.next(|command| self.waits(command));
        self.deferred = deferred;
        next
    }

    /// Whether a command waits for the inbox: most of them not for long.
    fn waits(&self, command: &Command) -> bool {
        match command {
            Command::Restart { .. } => self.options.subscribed && !self.caught_up,
            // From then on nothing of the group is brought forward.
            Command::Group { command: GroupCommand::Leave { .. }, .. } => self.is_behind(),
            // What waits in the inbox may be the very conversation that a command would begin.
            _ => self.options.subscribed && !self.caught_up && Instant::now() < self.started + COMMANDS_PATIENCE,
        }
    }

    /// When to look again at what waits for the inbox.
    pub(super) fn waiting_until(&self) -> Option<Instant> {
        let patient_until = self.started + COMMANDS_PATIENCE;
        let short = (!self.deferred.is_empty() && Instant::now() < patient_until).then_some(patient_until);
        let is_long = !self.deferred.is_empty() || (self.is_behind() && self.is_waited_for());
        short.or_else(|| is_long.then(|| self.moved_at + INBOX_STALL))
    }

    /// Answers whoever waits for an inbox that comes no further, for as long as nothing says that it ever will.
    pub(super) fn refuse_what_waits(&mut self) {
        if Instant::now() < self.moved_at + INBOX_STALL {
            return;
        }
        let mut deferred = std::mem::take(&mut self.deferred);
        deferred.refuse(|command| self.waits(command));
        self.deferred = deferred;
        if self.is_behind() {
            self.changing.keep_all(|| ClientError::InboxStalled);
            if self.in_flight.is_empty() {
                self.keep_waiting_out(|_| true, &ClientError::InboxStalled.to_string());
            }
        }
    }

    fn is_waited_for(&self) -> bool {
        self.changing.is_waited_for() || (self.in_flight.is_empty() && !self.waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

    use tokio::sync::oneshot;

    use super::*;
    use crate::client::session::GroupReply;

    fn of(group: &str, command: impl FnOnce(crate::vault::Target) -> GroupCommand, reply: GroupReply) -> Command {
        Command::Group { command: command(group.parse().unwrap()), reply }
    }

    fn rename(group: crate::vault::Target) -> GroupCommand {
        GroupCommand::Rename { group, name: "other".to_owned() }
    }

    const fn leaves(command: &Command) -> bool {
        matches!(command, Command::Group { command: GroupCommand::Leave { .. }, .. })
    }

    /// A leave of `trip`, a rename of it, one of `club`, and a search; and who waits for the leave and its rename.
    fn deferred() -> (Deferred, [oneshot::Receiver<Result<crate::client::sync::GroupAnswer, ClientError>>; 2]) {
        let mut deferred = Deferred::default();
        let [(leave, left), (reply, renamed)] = [(); 2].map(|()| oneshot::channel());
        deferred.push(of("trip", |group| GroupCommand::Leave { group }, leave));
        deferred.push(of("trip", rename, reply));
        deferred.push(of("club", rename, oneshot::channel().0));
        deferred.push(Command::Find { handle: "carol".parse().unwrap(), reply: oneshot::channel().0 });
        (deferred, [left, renamed])
    }

    #[test]
    fn who_waits_to_leave_holds_up_what_concerns_the_same_group_and_nothing_else() {
        let (mut deferred, _waiting) = deferred();
        let club = deferred.next(leaves).unwrap();
        assert_eq!(club.target().map(ToString::to_string).as_deref(), Some("club"), "{club:?}");
        assert!(matches!(deferred.next(leaves), Some(Command::Find { .. })));
        assert!(deferred.next(leaves).is_none(), "the rename waits for the leave");
        assert_eq!(deferred.len(), 2);
        assert!(leaves(&deferred.next(|_| false).unwrap()), "and then all go on in their order");
        assert!(matches!(deferred.next(|_| false), Some(Command::Group { command: GroupCommand::Rename { .. }, .. })));
    }

    #[test]
    fn who_waits_in_vain_is_told_so_and_nobody_else() {
        let (mut deferred, [mut left, mut renamed]) = deferred();
        deferred.refuse(leaves);
        assert!(matches!(left.try_recv(), Ok(Err(ClientError::InboxStalled))));
        assert!(renamed.try_recv().is_err());
        assert_eq!(deferred.len(), 3);
    }
}
