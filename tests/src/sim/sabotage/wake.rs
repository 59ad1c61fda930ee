//! Wakes with a bug in them.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use gureum_proto::{AccountId, Code, DeviceId, Notice};
use gureum_server::node::WrapWake;
use gureum_server::wake::{Delivery, Wake};

use super::Sabotage;

/// One in so many envelopes goes to another reader.
const ASTRAY_EVERY: u64 = 5;

pub(super) fn before(bug: Sabotage, wrap: WrapWake) -> WrapWake {
    match bug {
        Sabotage::WakesLost
        | Sabotage::CommitSpoiled
        | Sabotage::RecordsLost
        | Sabotage::WrongReader
        | Sabotage::RevocationUnheard => {
            Box::new(move |to| wrap(Arc::new(Spoiled { bug, to, before: Mutex::default() })))
        }
        _ => wrap,
    }
}

struct Spoiled {
    bug: Sabotage,
    to: Arc<dyn Wake>,
    before: Mutex<Before>,
}

/// What was handed over before.
#[derive(Default)]
struct Before {
    envelope: Option<(AccountId, Bytes)>,
    count: u64,
}

impl Wake for Spoiled {
    fn deliver(&self, entries: &mut Vec<(AccountId, Delivery)>) {
        if self.bug == Sabotage::WrongReader {
            let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
            entries.iter_mut().for_each(|(account, delivery)| before.lead_astray(*account, delivery));
        } else if self.bug != Sabotage::RevocationUnheard {
            // Commits and records are spoiled where the store is read: nothing else may bring them.
            entries.clear();
        }
        self.to.deliver(entries);
    }

    fn revoke(&self, account: AccountId, device: DeviceId, why: Code) {
        if self.bug != Sabotage::RevocationUnheard {
            self.to.revoke(account, device, why);
        }
    }

    fn notice(&self, account: AccountId, device: DeviceId, notice: Notice) {
        self.to.notice(account, device, notice);
    }
}

impl Before {
    fn lead_astray(&mut self, account: AccountId, delivery: &mut Delivery) {
        self.count += 1;
        let right = delivery.shared.clone();
        if let Some((of, other)) = self.envelope.replace((account, right))
            && of != account
            && self.count.is_multiple_of(ASTRAY_EVERY)
        {
            delivery.shared = other;
        }
    }
}
