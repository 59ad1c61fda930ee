//! Clients with a bug in them: homes as such a client would leave them, and what it would tell.

use std::fs;
use std::path::{Path, PathBuf};

use gureum_client::ClientError;
use gureum_client::vault::{Event, SentMessage, StoredEvent};
use gureum_proto::MessageId;

use super::Sabotage;

impl Sabotage {
    /// A client starts in this home.
    pub(crate) fn before_start(self, home: &Path) {
        if self == Self::ClientUnsynced {
            copy(home, &kept(home));
        }
    }

    /// A client has ended in this home where it stood.
    pub(crate) fn after_crash(self, home: &Path) {
        match self {
            Self::ClientUnsynced => copy(&kept(home), home),
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
}

/// The same event as another one.
fn again(stored: &StoredEvent) -> StoredEvent {
    StoredEvent { id: -stored.id, event: stored.event.clone() }
}

/// Where a home is kept as it was.
fn kept(home: &Path) -> PathBuf {
    home.with_extension("kept")
}

/// Makes `to` what `from` is.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a home is a folder") {
        let path = entry.expect("a folder can be read").path();
        fs::copy(&path, to.join(path.file_name().expect("it has a name"))).expect("a home holds files alone");
    }
}
