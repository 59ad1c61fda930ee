//! Everything that happens in a simulated world, with how often: what people do, and what goes wrong.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// One kind of happening. A new capability of the system adds its kinds here, and says in `World::act` what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Happening {
    /// Somebody writes one message.
    Message,
    /// Two people write back and forth, a few messages.
    Exchange,
    /// Somebody writes many messages at once.
    Burst,
    /// Everybody writes at the same time.
    Commotion,
    /// A device is closed for minutes to hours.
    ShortAbsence,
    /// A device is away for longer than the retention.
    LongAbsence,
    /// A device comes back when what was written to it is just about to expire, or just has.
    BrinkAbsence,
    /// A client ends where it stands, in the middle of what it does, and comes back.
    ClientCrash,
    /// The server ends where it stands, in the middle of what it does, and comes back.
    ServerCrash,
    /// The server is restarted in order.
    ServerRestart,
    /// The network is bad for a while.
    BadWeather,
    /// Nothing arrives anywhere for a while.
    Outage,
    /// One device cannot be reached, or reaches nobody, or both.
    Partition,
    /// A device's address changes in the middle of its connection.
    NewAddress,
    /// The server's wall clock moves by seconds.
    ClockSlip,
    /// It moves by hours, ahead or back.
    ClockLeap,
    /// It moves by years.
    ClockMadness,
    /// Wakes get lost and come twice for a while.
    LostWakes,
    /// The disk takes nothing for a while.
    FullDisk,
    /// Some writes, syncs and reads fail for a while.
    BadDisk,
    /// Each call of the disk takes long for a while.
    SlowDisk,
    /// Push services fail, hang and lose answers for a while.
    PushTrouble,
    /// Somebody reads what has come.
    ReadMarks,
    /// Somebody links a further device.
    Link,
    /// Somebody revokes one of several devices.
    Revoke,
    /// Somebody loses all devices, and brings the account back with a new one.
    Recover,
    /// A device's home is copied, and the copy put in its place when the device has gone on for a while.
    RestoreCopy,
    /// Somebody decides something for all their devices.
    Settings,
    /// Somebody makes a group.
    NewGroup,
    /// Somebody writes to a group.
    GroupTalk,
    /// Somebody adds, removes, leaves, renames, or makes admins, or several do so at the same time.
    GroupChange,
}

impl Happening {
    /// All of them, with how often each happens where nothing else is said.
    pub const ALL: [(Self, u32); 31] = [
        (Self::Message, 60),
        (Self::Exchange, 40),
        (Self::Burst, 20),
        (Self::Commotion, 10),
        (Self::ShortAbsence, 25),
        (Self::LongAbsence, 2),
        (Self::BrinkAbsence, 5),
        (Self::ClientCrash, 12),
        (Self::ServerCrash, 8),
        (Self::ServerRestart, 4),
        (Self::BadWeather, 10),
        (Self::Outage, 3),
        (Self::Partition, 8),
        (Self::NewAddress, 8),
        (Self::ClockSlip, 3),
        (Self::ClockLeap, 2),
        (Self::ClockMadness, 1),
        (Self::LostWakes, 4),
        (Self::FullDisk, 3),
        (Self::BadDisk, 4),
        (Self::SlowDisk, 4),
        (Self::PushTrouble, 4),
        (Self::ReadMarks, 10),
        (Self::Link, 5),
        (Self::Revoke, 3),
        (Self::Recover, 1),
        (Self::RestoreCopy, 2),
        (Self::Settings, 3),
        (Self::NewGroup, 10),
        (Self::GroupTalk, 60),
        (Self::GroupChange, 30),
    ];

    /// What happens in every run about groups: people change them, and come into them and go out of them with their devices.
    pub const IN_GROUPS: [Self; 6] =
        [Self::NewGroup, Self::GroupTalk, Self::GroupChange, Self::Link, Self::Revoke, Self::Recover];

    /// Whether it is what people do, and happens in every run.
    #[must_use]
    pub const fn is_life(self) -> bool {
        matches!(
            self,
            Self::Message
                | Self::Exchange
                | Self::Burst
                | Self::Commotion
                | Self::ShortAbsence
                | Self::LongAbsence
                | Self::BrinkAbsence
                | Self::ReadMarks
                | Self::Settings
        )
    }

    /// Whether it is of groups, which there are in runs about them alone.
    #[must_use]
    pub const fn is_of_groups(self) -> bool {
        matches!(self, Self::NewGroup | Self::GroupTalk | Self::GroupChange)
    }

    /// Whether runs about groups leave it out. Who joins again, and why, is known as long as no clock lets commits expire.
    /// And what an older copy of a home can read of a group depends on what the newer one has used up, which the model
    /// does not know.
    const fn is_beside_groups(self) -> bool {
        matches!(self, Self::ClockLeap | Self::ClockMadness | Self::RestoreCopy)
    }

    /// The faults that the run of a seed must bring about: any five in a row bring about all.
    #[must_use]
    pub fn musts(seed: u64) -> Vec<Self> {
        let is_fault = |kind: &Self| !kind.is_life() && !kind.is_of_groups();
        let faults: Vec<_> = Self::ALL.into_iter().map(|(kind, _)| kind).filter(is_fault).collect();
        let count = u64::try_from(faults.len()).unwrap_or(u64::MAX);
        let nth = |index: u64| usize::try_from(seed.wrapping_mul(MUSTS).wrapping_add(index) % count).ok();
        let mut musts: Vec<_> = (0..MUSTS).filter_map(nth).filter_map(|index| faults.get(index).copied()).collect();
        if seed.is_multiple_of(BAD_DISK_EVERY) && !musts.contains(&Self::BadDisk) {
            musts.push(Self::BadDisk);
        }
        musts
    }

    /// Whether it changes which devices an account has, or what one of them is.
    #[must_use]
    pub const fn changes_devices(self) -> bool {
        matches!(self, Self::Link | Self::Revoke | Self::Recover | Self::RestoreCopy)
    }
}

/// What runs may be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Story {
    /// Three devices of one account and two of another come and go, and send whatever they like, among faults
    Devices,
    /// Five people are in groups that several of them change at the same time, link and revoke devices, and lose all they
    /// have, among faults
    Groups,
}

/// What kind of run a seed is: small choices that make runs differ as much as they can.
#[derive(Debug, Clone)]
pub struct Profile {
    /// How many devices each of the people has at first.
    pub devices: Vec<usize>,
    /// How long a message is kept, in milliseconds.
    pub retention_ms: u64,
    /// Entries that an inbox may hold, where that is few.
    pub inbox_entries_max: Option<u64>,
    /// The mean time between two happenings by day, in milliseconds.
    pub pause_ms: u64,
    /// What happens, and how often.
    pub weights: Vec<(Happening, u32)>,
    /// Whether further devices come in later on, when something was said before.
    pub links_late: bool,
    /// How many devices an account may come to have at one time.
    pub devices_at_once_max: usize,
    /// What happens besides whatever is drawn, early and more than once.
    pub musts: Vec<Happening>,
}

/// Devices that an account has at one time, where nothing else is said.
pub const AT_ONCE_MAX: usize = 4;
/// The same in groups, where each device costs as much as a member.
const AT_ONCE_IN_GROUPS_MAX: usize = 2;
/// So many faults a run must bring about.
const MUSTS: u64 = 4;
/// Every so many runs one of them is a bad disk: what a failed sync leaves is there after one crash in three only, and
/// twelve runs are to see it.
const BAD_DISK_EVERY: u64 = 3;

/// Retentions of runs: mostly the usual one.
const RETENTIONS_MS: [u64; 5] = [3 * DAY_MS, 3 * DAY_MS, 3 * DAY_MS, 6 * HOUR_MS, HOUR_MS];

/// A minute, in milliseconds.
pub const MINUTE_MS: u64 = 60_000;
/// An hour, in milliseconds.
pub const HOUR_MS: u64 = 60 * MINUTE_MS;
/// A day, in milliseconds.
pub const DAY_MS: u64 = 24 * HOUR_MS;

impl Profile {
    /// Draws the run of a seed. Each fault is left out of half of the runs, because some hide what others would find; those
    /// that the run must bring about are in it.
    pub fn draw(seed: u64, random: &mut StdRng) -> Self {
        let musts = Happening::musts(seed);
        let all = || Happening::ALL.into_iter().filter(|(kind, _)| !kind.is_of_groups());
        let mut is_in = |kind: Happening| kind.is_life() || random.random_bool(0.5) || musts.contains(&kind);
        let weights = all().filter(|(kind, _)| is_in(*kind)).collect();
        let devices_max = if random.random_bool(0.5) { 1 } else { 3 };
        Self {
            devices: (0..random.random_range(2..=4)).map(|_| random.random_range(1..=devices_max)).collect(),
            retention_ms: *RETENTIONS_MS.choose(random).expect("there are some"),
            inbox_entries_max: random.random_bool(0.2).then(|| random.random_range(20..200)),
            pause_ms: random.random_range(10..=60) * MINUTE_MS,
            weights,
            links_late: false,
            devices_at_once_max: AT_ONCE_MAX,
            musts,
        }
    }

    /// Makes it a run of one story.
    pub fn tell(&mut self, story: Story) {
        match story {
            Story::Devices => {
                self.devices = vec![3, 2];
                self.links_late = true;
                self.retention_ms = 3 * DAY_MS;
                self.inbox_entries_max = None;
                self.weights.retain(|(kind, _)| !kind.changes_devices());
            }
            Story::Groups => {
                self.devices = vec![2, 1, 2, 1, 1];
                self.links_late = true;
                self.devices_at_once_max = AT_ONCE_IN_GROUPS_MAX;
                self.retention_ms = 3 * DAY_MS;
                self.inbox_entries_max = None;
                let is_in_all = |(kind, _): &(Happening, u32)| Happening::IN_GROUPS.contains(kind);
                self.weights.retain(|weight| !is_in_all(weight) && !Happening::is_beside_groups(weight.0));
                self.weights.extend(Happening::ALL.into_iter().filter(is_in_all));
                // Whatever else the seed says: groups are changed by who comes and goes.
                self.musts.retain(|must| !Happening::IN_GROUPS.contains(must));
                self.musts.extend(Happening::IN_GROUPS.into_iter().filter(|kind| kind.changes_devices()));
            }
        }
        let musts: Vec<_> = self.musts.iter().copied().filter(|must| self.has(*must)).collect();
        self.musts = musts;
    }

    /// Whether it happens in this run at all.
    #[must_use]
    pub fn has(&self, happening: Happening) -> bool {
        self.weights.iter().any(|(kind, _)| *kind == happening)
    }

    /// The next happening.
    pub fn next(&self, random: &mut StdRng) -> Happening {
        let choice = self.weights.choose_weighted(random, |(_, weight)| *weight);
        choice.map_or(Happening::Message, |(kind, _)| *kind)
    }

    /// How long until it, in milliseconds: less happens at night.
    pub fn pause_ms(&self, random: &mut StdRng, at_ms: u64) -> u64 {
        let is_night = at_ms / HOUR_MS % 24 < 6;
        let mean_ms = if is_night { self.pause_ms * 5 } else { self.pause_ms };
        // Exponential, so that things come together as well as alone.
        let share = -random.random_range(0.000_001_f64..1.0).ln();
        let pause = std::time::Duration::from_millis(mean_ms).mul_f64(share.min(8.0));
        u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn any_five_seeds_in_a_row_bring_every_fault_about() {
        let faults = Happening::ALL.into_iter().filter(|(kind, _)| !kind.is_life() && !kind.is_of_groups()).count();
        for first in [0, 1, 7, 100, 101, 12_345] {
            let musts: BTreeSet<_> = (first..first + 5).flat_map(Happening::musts).collect();
            assert_eq!(musts.len(), faults, "from {first}: {musts:?}");
        }
    }

    #[test]
    fn each_run_about_groups_has_all_of_theirs_and_brings_about_what_changes_devices() {
        for seed in 0..20 {
            let mut profile = Profile::draw(seed, &mut StdRng::seed_from_u64(seed));
            profile.tell(Story::Groups);
            let weights: Vec<_> = profile.weights.iter().map(|(kind, _)| *kind).collect();
            for kind in Happening::IN_GROUPS {
                assert_eq!(
                    weights.iter().filter(|known| **known == kind).count(),
                    1,
                    "{seed}: {kind:?} in {weights:?}"
                );
                let count = profile.musts.iter().filter(|must| **must == kind).count();
                assert_eq!(count, usize::from(kind.changes_devices()), "{seed}: {kind:?} in {:?}", profile.musts);
            }
            assert!(!weights.iter().any(|kind| kind.is_beside_groups()), "{seed}: {weights:?}");
            assert!(profile.musts.iter().all(|must| profile.has(*must)), "{seed}: {profile:?}");
        }
    }
}
