//! A device comes in and is handed what was said before, and meanwhile something goes wrong, on either side or between.

use super::{HOUR_MS, Happening, MINUTE_MS, Rng, Who, World};
use crate::sim::installation::Past;

/// What may go wrong meanwhile, where the run has it at all.
const FAULTS: [Happening; 8] = [
    Happening::ShortAbsence,
    Happening::LongAbsence,
    Happening::ClientCrash,
    Happening::ServerCrash,
    Happening::Outage,
    Happening::Partition,
    Happening::Revoke,
    Happening::RestoreCopy,
];
/// How much of it goes wrong, one after the other.
const FAULTS_MAX: usize = 3;
/// How long until it does, at most, in milliseconds: when the device is about to join its conversations, when the first
/// parts are on their way, and when their time would be over.
const PAUSES_MS: [u64; 3] = [400, 5_000, 2 * MINUTE_MS];
/// How long a device goes on at most until its older copy takes its place, in milliseconds.
const COPY_MS_MAX: u64 = HOUR_MS;

impl World {
    /// Decides whether a new device is to have what was said before it comes in.
    pub(super) fn draw_past(&mut self, new: Who) {
        let past = match self.random.random_range(0..10) {
            0..=1 => Past::Unknown,
            2..=7 => Past::AskedFor,
            _ => Past::HandedOver,
        };
        self.at_mut(new).is_to_have(past);
    }

    /// Tries to link a device, and disturbs whoever hands it a history.
    pub(super) async fn link_amid_faults(&mut self, new: Who) {
        let Some(from) = self.try_link(new).await else { return };
        if self.at(new).past() == Past::Unknown {
            return;
        }
        for _ in 0..self.random.random_range(0..=FAULTS_MAX) {
            let most_ms = self.choose(&PAUSES_MS).unwrap_or_default();
            self.pause(most_ms).await;
            let faults: Vec<_> = FAULTS.into_iter().filter(|kind| self.profile.has(*kind)).collect();
            let Some(fault) = self.choose(&faults) else { return };
            let side = if self.random.random_bool(0.5) { new } else { from };
            self.journal.note(format!("{from} hands its history over to {new}: {fault:?} of {side}"));
            self.disturb(fault, side).await;
        }
    }

    async fn disturb(&mut self, fault: Happening, side: Who) {
        match fault {
            Happening::ShortAbsence => {
                let for_ms = self.random.random_range(1_000..8 * HOUR_MS);
                self.go_away(side, for_ms).await;
            }
            Happening::LongAbsence => {
                let for_ms = self.long_ms();
                self.go_away(side, for_ms).await;
            }
            Happening::ClientCrash => self.crash(side).await,
            Happening::ServerCrash => self.server_crash().await,
            Happening::Outage => self.outage(),
            Happening::Partition => self.cut_off(side),
            Happening::Revoke => self.begin_revoking(side).await,
            _ => self.copy_and_put_back(side, 1_000..COPY_MS_MAX).await,
        }
    }
}
