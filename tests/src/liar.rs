//! A server that lies: the real one, on a store that shows readers something else than was written.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use gureum_proto::{AccountId, ConversationId, DeviceId, DeviceLog, Group, sign_add};
use gureum_server::config::{Config, Flags};
use gureum_server::node::{Ground, Node};
use gureum_server::store::key::ConversationTag;
use gureum_server::store::memory::MemoryStore;
use gureum_server::store::record::{ConversationHead, InboxBody, InboxEntry, KeyPackageRecord};
use gureum_server::store::{Entry, Family, Record, Store, StoreError, key};

use crate::altered::{Alter, Altered};
use crate::device::Device;
use crate::wait::now_ms;

/// What is not shown as it was written. Where something is kept from whoever reads an inbox, a word that means nothing
/// stands in its place, so that no position is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// The application message with this place among those of the inbox, counted from 1, is kept back.
    Message(u64),
    /// Every commit is kept back.
    Commits,
    /// In the place of what is for programs alone, the newest commit that the reader was shown comes once more.
    CommitAgain,
    /// A device log has one entry more, which adds a device that nobody of the account has signed.
    GhostEntry,
    /// In the place of KeyPackages stand those of a device that is not in the account's log.
    GhostPackages,
    /// In the place of KeyPackages stand those of somebody who says to be the same device.
    ForgedPackages,
    /// In the group of a conversation stands one more device, which is not in its account's log and has come in by
    /// itself: MLS lets whoever sees a GroupInfo do so.
    GhostGroup,
}

/// A device that nobody has.
const GHOST: DeviceId = DeviceId::from_bytes([7; 16]);

/// The lies of a server, told from outside.
#[derive(Debug, Clone, Default)]
pub struct Lies(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    lie: Option<Lie>,
    times: u64,
    /// The newest commit that each inbox was read with.
    commits: BTreeMap<AccountId, InboxBody>,
    /// The groups of conversations at an epoch, with a ghost in them.
    haunted: BTreeMap<(ConversationId, u64), Group>,
}

impl Lies {
    /// Lies from now on.
    pub fn tell(&self, lie: Lie) {
        self.told(|told| told.lie = Some(lie));
    }

    /// Says the truth from now on.
    pub fn stop(&self) {
        self.told(|told| told.lie = None);
    }

    /// How often something else was shown than was written.
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
        let instead = self.lies.told(|told| {
            let instead = match (told.lie, entry.body) {
                (Some(Lie::Message(place)), InboxBody::Message) if entry.count == place => {
                    Some(InboxBody::DeviceLog { account })
                }
                (Some(Lie::Commits), InboxBody::Commit { .. }) => Some(InboxBody::DeviceLog { account }),
                (Some(Lie::CommitAgain), InboxBody::Silent) => told.commits.get(&account).copied(),
                _ => None,
            };
            if matches!(entry.body, InboxBody::Commit { .. }) {
                told.commits.insert(account, entry.body);
            }
            told.times += u64::from(instead.is_some());
            instead
        });
        match instead {
            Some(body) => (entry_key, InboxEntry { body, ..entry }.encode().into()),
            None => (entry_key, value),
        }
    }

    /// A device log from its beginning, as it is shown.
    fn logged(&self, mut entries: Vec<Entry>) -> Vec<Entry> {
        let Some((account, index)) = entries.last().and_then(|(entry_key, _)| key::parse_device_log(entry_key)) else {
            return entries;
        };
        let is_told = self.lies.told(|told| {
            let is_told = told.lie == Some(Lie::GhostEntry);
            told.times += u64::from(is_told);
            is_told
        });
        if is_told {
            let read: Vec<_> = entries.iter().map(|(_, value)| Bytes::decode(value).expect("written whole")).collect();
            let log = DeviceLog::replay(read.iter().map(AsRef::as_ref)).expect("it is read from its beginning");
            let (signer, _) = log.active().next().expect("an account has a device");
            let ghost = Device::new();
            let entry = sign_add(&log, (signer, &ghost.proof), &ghost.keys(), &ghost.proof, now_ms());
            let entry_key = Bytes::copy_from_slice(&key::device_log(&account, index + 1));
            entries.push((entry_key, entry.encode().into()));
        }
        entries
    }

    /// A KeyPackage as it is shown.
    fn packed(&self, (entry_key, value): Entry) -> Entry {
        let (account, device, _) = key::parse_key_package(&entry_key).expect("devices have KeyPackages");
        let poses = match self.lies.told(|told| told.lie) {
            Some(Lie::GhostPackages) => Device::posing_as(account, GHOST),
            Some(Lie::ForgedPackages) => Device::posing_as(account, device),
            _ => return (entry_key, value),
        };
        self.lies.told(|told| told.times += 1);
        let record = KeyPackageRecord::decode(&value).expect("KeyPackages are written whole");
        (entry_key, KeyPackageRecord { package: poses.key_package(), ..record }.encode().into())
    }

    /// A part of a conversation's group as it is shown.
    fn haunted(&self, conversation: ConversationId, tag: ConversationTag, value: Bytes) -> Result<Bytes, StoreError> {
        if self.lies.told(|told| told.lie) != Some(Lie::GhostGroup) {
            return Ok(value);
        }
        let part = |tag| {
            let part = self.truth.get(Family::Conversation, key::conversation(&conversation, tag).as_ref());
            part.map(|value| value.expect("a conversation has all its parts"))
        };
        let bytes = |tag| part(tag).map(|value| Bytes::decode(&value).expect("parts are written whole"));
        let head = ConversationHead::decode(&part(ConversationTag::Head)?).expect("parts are written whole");
        let (group_info, tree) = (bytes(ConversationTag::GroupInfo)?, bytes(ConversationTag::Tree)?);
        let shown = self.lies.told(|told| {
            told.times += 1;
            let haunt = || {
                let ghost = Device::posing_as(head.members[0].account, GHOST);
                ghost.with_itself_in(&Group { epoch: head.epoch, group_info, tree })
            };
            told.haunted.entry((conversation, head.epoch)).or_insert_with(haunt).clone()
        });
        Ok(match tag {
            ConversationTag::Head => ConversationHead { epoch: shown.epoch, ..head }.encode().into(),
            ConversationTag::GroupInfo => shown.group_info.encode().into(),
            ConversationTag::Tree => shown.tree.encode().into(),
            _ => value,
        })
    }
}

impl Alter for Liar {
    fn store(&self) -> &dyn Store {
        &self.truth
    }

    fn get(&self, family: Family, place: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.truth.get(family, place)?;
        let part = key::parse_conversation(place).filter(|_| family == Family::Conversation);
        match (part, value) {
            (Some((conversation, tag)), Some(value)) => self.haunted(conversation, tag, value).map(Some),
            (_, value) => Ok(value),
        }
    }

    fn scan(&self, family: Family, range: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let entries = self.truth.scan(family, range, limit)?;
        Ok(match family {
            Family::Inbox => entries.into_iter().map(|entry| self.shown(entry)).collect(),
            Family::DeviceLog => self.logged(entries),
            Family::KeyPackage => entries.into_iter().map(|entry| self.packed(entry)).collect(),
            _ => entries,
        })
    }
}
