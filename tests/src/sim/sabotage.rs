//! Bugs that are switched on: a simulation that finds none of them would prove nothing when it finds no others.
//!
//! None of them is in the product. Each stands in what the simulation puts under it ([`Ground`]: store, wakes, clock), in
//! how it is configured, in a home as a bad client would leave it, or in what the model is told.

mod cases;
mod client;
mod clock;
mod store;
mod wake;

use std::path::Path;

use gureum_server::node::Ground;

pub use cases::{CASES, Case};

/// A deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// None: the same life without a bug, in which nothing may be found
    Nothing,
    /// None: a life in which devices are linked, revoked, and put back as they were, and nothing may be found either
    SoundDevices,
    /// None: a life in groups in which devices are linked, revoked, and lost, and nothing may be found either
    SoundGroups,
    /// A batch is written without some of its pointers into inboxes
    PointerUnwritten,
    /// A batch is written without some of its bodies
    BodyUnwritten,
    /// The last number of a conversation is not written
    NumberUnwritten,
    /// Cursors go back
    CursorBack,
    /// Messages are acknowledged before they are synced, so that a crash takes them
    Unsynced,
    /// Some pointers are there, and are not found again
    PointerLost,
    /// Some bodies are there, and are not found again
    BodyLost,
    /// Some messages are passed over without a word, as if their positions stood for something else
    SilentLoss,
    /// Some messages are read at two positions, the second one in place of another
    ReadTwice,
    /// Neighbours in an inbox change their places
    Swapped,
    /// The running counts of an inbox are off by one
    CountOff,
    /// A gap is told some positions after the place where it is
    GapMisplaced,
    /// The results of sends are not stored, so that what is repeated after a crash is stored twice
    WindowUnwritten,
    /// The server serves messages for twice their retention
    ExpiredServed,
    /// Messages are dropped from the disk after half of their retention
    DroppedEarly,
    /// What has been stored counts as taken by everybody
    FloorAhead,
    /// Nobody is woken
    WakesLost,
    /// Who looks by himself sees his inbox as it was 20 minutes ago
    StaleReads,
    /// Some envelopes go to whoever got one before
    WrongReader,
    /// Commits are spoiled on their way to their readers
    CommitSpoiled,
    /// Accounts are forgotten when the server is started anew
    AccountsForgotten,
    /// The server does not start on what it has written
    NoSecondStart,
    /// The store cannot be closed
    NoClose,
    /// The store panics
    StorePanics,
    /// The server follows its machine's clock through leaps
    LeapObeyed,
    /// The server does not remember the time when it is started anew
    TimeForgotten,
    /// The server holds a leap and says nothing
    LeapUnsaid,
    /// A connection stays whose client is not one of the people
    ConnectionKept,
    /// A client acks and answers before its database is synced, so that its crash takes it back
    ClientUnsynced,
    /// A crash leaves a client's database cut in half
    HomeCut,
    /// A client tells messages twice
    ToldTwice,
    /// A client tells gaps twice
    GapToldTwice,
    /// A client tells another text than what was written
    TextSpoiled,
    /// A client tells the sender another id than the one that the message has
    OtherId,
    /// A client says of messages that it has sent that they were refused
    RefusalUntrue,
    /// Devices that were linked do not keep some messages
    SiblingForgets,
    /// A client does not tell what other devices of its account have sent
    OwnUntold,
    /// A client says that less was read than before
    ReadMarkBack,
    /// Nobody cuts off a device that is revoked
    RevocationUnheard,
    /// Devices that are removed from a conversation stay in its roster
    LeafKept,
    /// Devices that are removed from a group, and whose account stays in it, stay in its roster
    GroupLeafKept,
    /// The last removal that a conversation waits for is never noted as done
    RemovalKept,
    /// Where devices stand in their lives is not written
    LifeUnwritten,
    /// A client does not tell that its home is an older copy
    RestoredUntold,
    /// What is said in a group is told to somebody who may not be in it
    OutsiderHears,
    /// What is said in a group is told to a device that is revoked
    RevokedHears,
    /// Clients do not keep some messages of groups
    GroupForgets,
    /// A client leaves somebody out of the groups that it shows
    MemberUnseen,
    /// A client keeps a change of a group and never makes it
    ChangeKept,
    /// Clients do not keep some messages that are handed over to them
    HistoryHoled,
    /// Clients tell the end of a history twice
    HistoryToldTwice,
    /// Clients tell of messages as if they had been handed over
    HistoryIsNews,
    /// No history that is handed over comes to its end
    HistoryUnended,
    /// What is silent is passed over by who was away: the records of other devices among it
    RecordsLost,
    /// Push services wake nobody, and say that they have
    NotWoken,
    /// Push services wake whom they are asked to twice
    WokenTwice,
}

impl Sabotage {
    /// Where and by what it is found.
    ///
    /// # Panics
    /// If it is not in the table.
    #[must_use]
    pub fn case(self) -> &'static Case {
        CASES.iter().find(|case| case.bug == self).expect("every bug has its case")
    }

    /// Its name on the command line.
    ///
    /// # Panics
    /// Never: none is left out there.
    #[must_use]
    pub fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self).expect("none is skipped");
        value.get_name().to_owned()
    }

    /// The retention that the server is given, where the model goes by `retention_ms`.
    pub(super) const fn served_ms(self, retention_ms: u64) -> u64 {
        if matches!(self, Self::ExpiredServed) { 2 * retention_ms } else { retention_ms }
    }

    /// What the server stands on at its next start, with the bug in it.
    pub(super) fn spoil(self, ground: Ground, data_dir: &Path) -> Ground {
        if self == Self::TimeForgotten {
            // At the first start it is not there yet.
            let _ = std::fs::remove_file(data_dir.join("clock"));
        }
        Ground {
            wall: clock::spoiled(self, ground.wall),
            store: ground.store.map(|open| store::spoiled(self, open)),
            wake: ground.wake.map(|wrap| wake::before(self, wrap)),
            ..ground
        }
    }
}
