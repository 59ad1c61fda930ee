//! The table of deliberate bugs: in what life each is looked for, and which rule must find it.

use super::Sabotage;
use crate::sim::faults::{AT_ONCE_MAX, DAY_MS, HOUR_MS, Happening, MINUTE_MS, Profile};

/// A bug with the life in which it shows and the rule that it breaks.
#[derive(Debug)]
pub struct Case {
    /// The bug.
    pub bug: Sabotage,
    /// The rule that must find it; none for the case without a bug.
    pub rule: Option<&'static str>,
    /// Words of what the rule then says: which of its questions it is.
    pub words: &'static str,
    /// What happens besides people who write, come and go.
    among: &'static [(Happening, u32)],
    retention_ms: u64,
    people: usize,
    /// Of each of them, at first.
    devices: usize,
}

/// What happens in each of them.
const LIFE: [(Happening, u32); 3] = [(Happening::Message, 6), (Happening::Exchange, 3), (Happening::ShortAbsence, 4)];

const AUDIT: &str = "the store holds together";
const IN_STEP: &str = "all come into step when faults end";

/// What happens besides in those of groups.
const GROUPS: &[(Happening, u32)] = &[(Happening::NewGroup, 4), (Happening::GroupTalk, 6), (Happening::GroupChange, 2)];

/// The same where nobody changes a group but by devices.
const GROUPS_OF_DEVICES: &[(Happening, u32)] =
    &[(Happening::NewGroup, 4), (Happening::GroupTalk, 6), (Happening::Link, 2), (Happening::Revoke, 2)];

/// All of them.
pub const CASES: [Case; 59] = {
    use Happening::{
        BadWeather, ClientCrash, ClockLeap, GroupChange, GroupTalk, Link, LongAbsence, LostWakes, NewGroup, ReadMarks,
        Recover, RestoreCopy, Revoke, ServerCrash, ServerRestart,
    };
    use Sabotage as Bug;
    [
        Case::clean(&[(BadWeather, 1), (ClientCrash, 1), (ClockLeap, 1), (ServerCrash, 1), (ServerRestart, 1)]),
        Case::clean_devices(&[(ClientCrash, 1), (Link, 1), (ReadMarks, 2), (RestoreCopy, 1), (Revoke, 1)]),
        Case::clean_groups(&[
            (ClientCrash, 1),
            (GroupChange, 2),
            (GroupTalk, 6),
            (Link, 2),
            (NewGroup, 4),
            (Recover, 1),
            (Revoke, 2),
        ]),
        Case::new(Bug::PointerUnwritten, AUDIT, "HeadWrong"),
        Case::new(Bug::BodyUnwritten, AUDIT, "BodyMissing"),
        Case::new(Bug::NumberUnwritten, AUDIT, "NumbersWrong"),
        Case::new(Bug::CursorBack, AUDIT, "CursorWentBack"),
        Case::new(Bug::Unsynced, "messages come in their order", "").among(&[(ServerCrash, 4)]),
        Case::new(Bug::PointerLost, IN_STEP, "before its time"),
        Case::new(Bug::BodyLost, IN_STEP, "cannot be: Lost"),
        Case::new(Bug::SilentLoss, IN_STEP, "and was told of 0"),
        Case::new(Bug::ReadTwice, IN_STEP, "cannot read number"),
        Case::new(Bug::Swapped, "messages come in their order", ""),
        Case::new(Bug::CountOff, IN_STEP, "and was told of").keeping(HOUR_MS),
        Case::new(Bug::GapMisplaced, IN_STEP, "is not in the gap"),
        Case::new(Bug::WindowUnwritten, IN_STEP, "cannot read number").among(&[(ServerCrash, 6), (BadWeather, 2)]),
        Case::new(Bug::ExpiredServed, "nothing expired is served", "").keeping(HOUR_MS).among(&[(LongAbsence, 2)]),
        Case::new(Bug::DroppedEarly, IN_STEP, "before its time").keeping(HOUR_MS),
        Case::new(Bug::FloorAhead, IN_STEP, "before its time"),
        Case::new(Bug::WakesLost, "a healthy system delivers", ""),
        Case::new(Bug::StaleReads, "a lost wake delays for a while only", "").among(&[(LostWakes, 1)]),
        Case::new(Bug::WrongReader, IN_STEP, "and was told of 0").of_people(3),
        Case::new(Bug::CommitSpoiled, "no commit is refused", ""),
        Case::new(Bug::AccountsForgotten, "a session goes on", "").among(&[(ServerRestart, 3)]),
        Case::new(Bug::NoSecondStart, "the server starts", "").among(&[(ServerRestart, 3)]),
        Case::new(Bug::NoClose, "the server stops in order", "").among(&[(ServerRestart, 3)]),
        Case::new(Bug::StorePanics, "nothing panics", ""),
        Case::new(Bug::LeapObeyed, "a leap of the wall clock is not obeyed", "").among(&[(ClockLeap, 3)]),
        Case::new(Bug::TimeForgotten, "the server's time never goes back", "")
            .among(&[(ClockLeap, 3), (ServerRestart, 3)]),
        Case::new(Bug::LeapUnsaid, "a clock that is not obeyed is said to be held", "").among(&[(ClockLeap, 3)]),
        Case::new(Bug::ConnectionKept, "nothing is held for who is gone", ""),
        Case::new(Bug::ClientUnsynced, "no home is taken for a copy", "").among(&[(ClientCrash, 4)]),
        Case::new(Bug::HomeCut, "a home stays usable", "").among(&[(ClientCrash, 3)]),
        Case::new(Bug::ToldTwice, "nothing is delivered twice", ""),
        Case::new(Bug::GapToldTwice, "a gap is told once", "").keeping(HOUR_MS),
        Case::new(Bug::TextSpoiled, "what arrives was sent, to whom it reached", ""),
        Case::new(Bug::OtherId, IN_STEP, "under another id"),
        Case::new(Bug::RefusalUntrue, IN_STEP, "was sent, though refused"),
        Case::new(Bug::SiblingForgets, IN_STEP, "and was told of 0").of_devices(2),
        Case::new(Bug::OwnUntold, IN_STEP, "was not told of").of_devices(2),
        Case::new(Bug::ReadMarkBack, "a read mark never goes back", "").among(&[(ReadMarks, 4)]),
        Case::new(Bug::RevocationUnheard, IN_STEP, "is revoked and still connected")
            .of_devices(2)
            .among(&[(Link, 2), (Revoke, 2)]),
        Case::new(Bug::LeafKept, IN_STEP, "is revoked and has a leaf").of_devices(2).among(&[(Link, 2), (Revoke, 2)]),
        Case::new(Bug::GroupLeafKept, IN_STEP, "is revoked and has a leaf")
            .of_people(3)
            .of_devices(2)
            .among(GROUPS_OF_DEVICES),
        Case::new(Bug::RemovalKept, AUDIT, "RemovalsWrong").of_devices(2).among(&[(Link, 2), (Revoke, 2)]),
        Case::new(Bug::LifeUnwritten, "an older copy is told that it is one", "").among(&[(RestoreCopy, 2)]),
        Case::new(Bug::RestoredUntold, "an older copy is told that it is one", "").among(&[(RestoreCopy, 2)]),
        Case::new(Bug::OutsiderHears, "who is not in a group reads nothing of it", "").of_people(4).among(GROUPS),
        Case::new(Bug::RevokedHears, "a revoked device gets nothing new", "")
            .of_people(3)
            .of_devices(2)
            .among(GROUPS_OF_DEVICES),
        Case::new(Bug::GroupForgets, IN_STEP, "and was told of 0").of_people(3).among(GROUPS),
        Case::new(Bug::MemberUnseen, IN_STEP, "devices in the group").of_people(3).among(GROUPS),
        Case::new(Bug::ChangeKept, IN_STEP, "changes of").of_people(3).among(GROUPS),
        Case::new(Bug::HistoryHoled, IN_STEP, "of the history of").among(&[(Link, 2)]),
        Case::new(Bug::HistoryToldTwice, "the end of a history is told once", "").among(&[(Link, 2)]),
        Case::new(Bug::HistoryIsNews, "what is handed over is no news", ""),
        Case::new(Bug::HistoryUnended, IN_STEP, "waits for the history").among(&[(Link, 2)]),
        Case::new(Bug::RecordsLost, IN_STEP, "are not in step: read marks").of_devices(2).among(&[(ReadMarks, 6)]),
        Case::new(Bug::NotWoken, "whoever is away is woken once", "by 0"),
        Case::new(Bug::WokenTwice, "a device is woken once until it connects", ""),
    ]
};

impl Case {
    const fn new(bug: Sabotage, rule: &'static str, words: &'static str) -> Self {
        Self { bug, rule: Some(rule), words, among: &[], retention_ms: 3 * DAY_MS, people: 2, devices: 1 }
    }

    const fn clean(among: &'static [(Happening, u32)]) -> Self {
        let case = Self::new(Sabotage::Nothing, "", "");
        Self { rule: None, retention_ms: HOUR_MS, people: 3, ..case }.among(among)
    }

    const fn clean_devices(among: &'static [(Happening, u32)]) -> Self {
        let case = Self::clean(among);
        Self { bug: Sabotage::SoundDevices, retention_ms: 3 * DAY_MS, people: 2, devices: 2, ..case }
    }

    const fn clean_groups(among: &'static [(Happening, u32)]) -> Self {
        let case = Self::clean_devices(among);
        Self { bug: Sabotage::SoundGroups, people: 3, ..case }
    }

    const fn among(self, among: &'static [(Happening, u32)]) -> Self {
        Self { among, ..self }
    }

    const fn keeping(self, retention_ms: u64) -> Self {
        Self { retention_ms, ..self }
    }

    const fn of_people(self, people: usize) -> Self {
        Self { people, ..self }
    }

    const fn of_devices(self, devices: usize) -> Self {
        Self { devices, ..self }
    }

    /// Makes a run the life in which the bug shows.
    pub(crate) fn set_scene(&self, profile: &mut Profile) {
        *profile = Profile {
            devices: vec![self.devices; self.people],
            retention_ms: self.retention_ms,
            inbox_entries_max: None,
            pause_ms: 10 * MINUTE_MS,
            weights: LIFE.iter().chain(self.among).copied().collect(),
            links_late: false,
            devices_at_once_max: AT_ONCE_MAX,
            musts: Vec::new(),
        };
    }

    /// Whether a broken rule is the one that must find it.
    #[must_use]
    pub fn is_found_by(&self, rule: &str, what: &str) -> bool {
        self.rule == Some(rule) && what.contains(self.words)
    }
}
