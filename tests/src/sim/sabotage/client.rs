//! Clients with a bug in them: homes as such a client would leave them, and what it would tell.

use std::fs;
use std::path::{Path, PathBuf};

use gureum_client::ClientError;
use gureum_client::vault::{Event, GroupView, HandedOver, HistoryItem, Message, ReadMark, SentMessage, StoredEvent};
use gureum_proto::MessageId;

use super::Sabotage;
use crate::sim::installation::{Who, copy_home};

impl Sabotage {
    /// A client starts in this home.
    pub(crate) fn before_start(self, home: &Path) {
        if self == Self::ClientUnsynced {
            copy_home(home, &kept(home));
        }
    }

    /// A client has ended in this home where it stood.
    pub(crate) fn after_crash(self, home: &Path) {
        match self {
            Self::ClientUnsynced => copy_home(&kept(home), home),
            Self::HomeCut => {
                let database = fs::File::options().write(true).open(home.join("vault.db")).expect("a home has one");
                let bytes = database.metadata().expect("an open file has a length").len();
                database.set_len(bytes / 2).expect("a file can be cut");
            }
            _ => {}
        }
    }

    /// What a client tells of an event.
    pub(crate) fn told(self, stored: &StoredEvent) -> Vec<StoredEvent> {
        let mut told = vec![stored.clone()];
        match &stored.event {
            Event::Message(_) if self == Self::ToldTwice => told.push(again(stored)),
            Event::History { .. } if self == Self::HistoryToldTwice => told.push(again(stored)),
            Event::Message(message) if self == Self::HistoryIsNews => {
                let message = Message { seq: None, ..message.clone() };
                told = vec![StoredEvent { id: stored.id, event: Event::Message(message) }];
            }
            Event::Message(message) if self == Self::OwnUntold && message.own => told.clear(),
            Event::Restored { .. } if self == Self::RestoredUntold => told.clear(),
            Event::Gap { .. } if self == Self::GapToldTwice => told.push(again(stored)),
            Event::Message(message) if self == Self::TextSpoiled => {
                let mut message = message.clone();
                message.text.push('!');
                told = vec![StoredEvent { id: stored.id, event: Event::Message(message) }];
            }
            _ => {}
        }
        told
    }

    /// What a client answers to whoever handed it a text.
    pub(crate) fn answered(self, result: Result<SentMessage, ClientError>) -> Result<SentMessage, ClientError> {
        match (self, result) {
            (Self::OtherId, Ok(sent)) => Ok(SentMessage { message_id: Some(MessageId::new(1, 1)), ..sent }),
            (Self::RefusalUntrue, Ok(_)) => Err(ClientError::Mismatched),
            (_, result) => result,
        }
    }

    /// How far a client says that a person has read.
    pub(crate) const fn marked(self, mark: ReadMark) -> ReadMark {
        match self {
            Self::ReadMarkBack if mark.number.is_multiple_of(2) => ReadMark { number: 0, ..mark },
            _ => mark,
        }
    }

    /// What a device's history is.
    pub(crate) fn remembered(self, who: Who, mut history: Vec<HistoryItem>) -> Vec<HistoryItem> {
        if self == Self::SiblingForgets && who.device > 0 {
            history.retain(|item| !matches!(item, HistoryItem::Message(message) if is_forgotten(message.seq)));
        }
        if self == Self::GroupForgets {
            let is_kept = |item: &HistoryItem| match item {
                HistoryItem::Message(message) => message.group.is_none() || !is_forgotten(message.seq),
                _ => true,
            };
            history.retain(is_kept);
        }
        if self == Self::HistoryHoled {
            let is_handed_over = |message: &Message| message.seq.is_none() && !message.own;
            let is_lost = |message: &Message| is_handed_over(message) && message.number % 5 == 3;
            history.retain(|item| !matches!(item, HistoryItem::Message(message) if is_lost(message)));
        }
        history
    }

    /// How far a home says that histories have come which are handed over to it.
    pub(crate) fn coming(self, coming: Vec<HandedOver>) -> Vec<HandedOver> {
        let is_done = |is_done| is_done && self != Self::HistoryUnended;
        coming.into_iter().map(|coming| HandedOver { is_done: is_done(coming.is_done), ..coming }).collect()
    }

    /// Who else is told of an event, and what. There may be a device that is revoked.
    pub(crate) fn overheard(self, stored: &StoredEvent, revoked: Option<Who>) -> Option<(Who, StoredEvent)> {
        let Event::Message(message) = &stored.event else { return None };
        let who = match self {
            Self::OutsiderHears => Some(OUTSIDER),
            Self::RevokedHears => revoked,
            _ => None,
        };
        who.filter(|_| message.group.is_some()).map(|who| (who, again(stored)))
    }

    /// The groups that a client shows.
    pub(crate) fn shown(self, who: Who, mut groups: Vec<GroupView>) -> Vec<GroupView> {
        if self == Self::MemberUnseen && who.person == 0 {
            groups.iter_mut().for_each(|group| drop(group.people.pop()));
        }
        groups
    }

    /// In how many groups changes wait in a home that knows so many.
    pub(crate) fn changes_left(self, changes: usize, groups: usize) -> usize {
        if self == Self::ChangeKept { changes.max(groups) } else { changes }
    }
}

/// Who hears what is said in groups, whoever is in them.
const OUTSIDER: Who = Who { person: 3, device: 0 };

/// Of what the inbox has brought, some.
fn is_forgotten(seq: Option<u64>) -> bool {
    seq.is_some_and(|seq| seq % 5 == 3)
}

/// The same event as another one.
fn again(stored: &StoredEvent) -> StoredEvent {
    StoredEvent { id: -stored.id, event: stored.event.clone() }
}

/// Where a home is kept as it was.
fn kept(home: &Path) -> PathBuf {
    home.with_extension("kept")
}
