//! A server that lies: the real one, on a store that shows readers of inboxes something else than was written.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use gureum_server::config::{Config, Flags};
use gureum_server::node::{Ground, Node};
use gureum_server::store::memory::MemoryStore;
use gureum_server::store::record::{InboxBody, InboxEntry};
use gureum_server::store::{Entry, Family, Record, Store, StoreError, key};

use crate::altered::{Alter, Altered};

/// What is kept from whoever reads an inbox. What stands there instead is a word that means nothing, so that no position
/// is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// The application message with this place among those of the inbox, counted from 1.
    Message(u64),
    /// Every commit.
    Commits,
}

/// The lies of a server, told from outside.
#[derive(Debug, Clone, Default)]
pub struct Lies(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    lie: Option<Lie>,
    times: u64,
}

impl Lies {
    /// Lies from now on.
    pub fn tell(&self, lie: Lie) {
        self.told(|told| told.lie = Some(lie));
    }

    /// How often something was kept from a reader.
    #[must_use]
    pub fn times(&self) -> u64 {
        self.told(|told| told.times)
    }

    fn told<T>(&self, what: impl FnOnce(&mut Told) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Starts a server in this process, in which everybody may register. It says the truth until it is told to lie.
pub async fn start(data_dir: &Path) -> (Node, Lies) {
    let flags = Flags {
        data_dir: Some(data_dir.to_str().unwrap().to_owned()),
        listen: Some("127.0.0.1:0".to_owned()),
        registration: Some("open".to_owned()),
        ..Flags::default()
    };
    let config = Config::load(&flags, |_| None, |_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
    let lies = Lies::default();
    let of = lies.clone();
    let ground = Ground {
        store: Some(Box::new(move |expiry| Ok(Arc::new(Altered(Liar { lies: of, truth: MemoryStore::new(expiry) }))))),
        serves_admin: false,
        ..Ground::system()
    };
    (Node::start(config, ground).await.unwrap(), lies)
}

struct Liar {
    lies: Lies,
    truth: MemoryStore,
}

impl Liar {
    /// An entry of an inbox as it is shown.
    fn shown(&self, (entry_key, value): Entry) -> Entry {
        let (account, _) = key::parse_inbox(&entry_key).expect("an inbox holds positions");
        let entry = InboxEntry::decode(&value).expect("entries are written whole");
        let is_kept_back = self.lies.told(|told| {
            let is_it = match (told.lie, entry.body) {
                (Some(Lie::Message(place)), InboxBody::Message) => entry.count == place,
                (Some(Lie::Commits), InboxBody::Commit { .. }) => true,
                _ => false,
            };
            told.times += u64::from(is_it);
            is_it
        });
        if !is_kept_back {
            return (entry_key, value);
        }
        (entry_key, InboxEntry { body: InboxBody::DeviceLog { account }, ..entry }.encode().into())
    }
}

impl Alter for Liar {
    fn store(&self) -> &dyn Store {
        &self.truth
    }

    fn scan(&self, family: Family, range: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let entries = self.truth.scan(family, range, limit)?;
        if family != Family::Inbox {
            return Ok(entries);
        }
        Ok(entries.into_iter().map(|entry| self.shown(entry)).collect())
    }
}
