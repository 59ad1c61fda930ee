//! Who is to be looked at next: whoever waits for it, and in turn everybody, for what expires.

use std::collections::BTreeMap;
use std::ops::Bound;

use gureum_proto::AccountId;

use super::{Action, PushMachine};
use crate::limits::{LOOKS_IN_FLIGHT_MAX, SWEEP_LOOKS_IN_FLIGHT_MAX};

/// Who is to be looked at, and who is.
#[derive(Default)]
pub(super) struct Looks {
    pub(super) queue: BTreeMap<u64, AccountId>,
    pub(super) last_ticket: u64,
    /// Under way.
    pub(super) asked: BTreeMap<AccountId, Asked>,
    /// How far a round through all accounts has come; `None`: there is none.
    pub(super) sweep: Option<Bound<AccountId>>,
    /// The round has begun for which everybody has had the time to come back after the start.
    pub(super) has_swept: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) expiry: bool,
    pub(super) is_due: bool,
    pub(super) is_sweep: bool,
}

impl Looks {
    /// Takes the first in line who is not being looked at.
    fn next_queued(&mut self) -> Option<AccountId> {
        let next = self.queue.iter().find(|(_, id)| !self.asked.contains_key(*id));
        let ticket = next.map(|(ticket, _)| *ticket)?;
        self.queue.remove(&ticket)
    }
}

impl PushMachine {
    /// Puts an account among those to be looked at, if it is not there.
    pub(super) fn want_look(&mut self, id: AccountId, expiry: bool) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        account.wants_expiry |= expiry;
        if account.ticket.is_none() {
            self.looks.last_ticket += 1;
            account.ticket = Some(self.looks.last_ticket);
            self.looks.queue.insert(self.looks.last_ticket, id);
        }
    }

    pub(super) fn start_looks(&mut self) {
        while self.looks.asked.len() < LOOKS_IN_FLIGHT_MAX {
            let queued = self.looks.next_queued().map(|id| (id, false));
            let Some((id, is_sweep)) = queued.or_else(|| Some((self.next_of_sweep()?, true))) else { return };
            let Some(account) = self.accounts.get_mut(&id) else { continue };
            let (asked, after_seq) = if is_sweep {
                // A round begins anew: what was not worth a wake-up may have been accepted since.
                (Asked { expiry: true, is_due: false, is_sweep }, 0)
            } else {
                account.ticket = None;
                let expiry = std::mem::take(&mut account.wants_expiry);
                (Asked { expiry, is_due: std::mem::take(&mut account.is_due), is_sweep }, account.looked_to)
            };
            account.devices.iter_mut().for_each(|device| device.is_new = false);
            self.looks.asked.insert(id, asked);
            self.actions.push_back(Action::Look { account: id, after_seq, expiry: asked.expiry });
        }
    }

    /// The next account of the round that looks for what expires.
    fn next_of_sweep(&mut self) -> Option<AccountId> {
        if self.looks.asked.values().filter(|asked| asked.is_sweep).count() >= SWEEP_LOOKS_IN_FLIGHT_MAX {
            return None;
        }
        loop {
            let from = self.looks.sweep?;
            let next = self.accounts.range::<AccountId, _>((from, Bound::Unbounded)).next();
            let Some(id) = next.map(|(id, _)| *id) else {
                self.looks.sweep = None;
                return None;
            };
            self.looks.sweep = Some(Bound::Excluded(id));
            if !self.looks.asked.contains_key(&id) {
                return Some(id);
            }
            self.want_look(id, true);
        }
    }
}
