//! Who takes part: accounts with their reading habits, their devices, and the conversations between them.

use std::sync::LazyLock;

use ed25519_dalek::SigningKey;
use gureum_proto::{AccountId, ConversationId, DeviceId, EXPORTER_BYTES, Hello, HelloClaim, PhoneNotice, Position};
use gureum_server::session::{Authenticated, DeviceFacts, Input, Session, SessionConfig};
use gureum_server::store::key::{self, ConversationTag, CursorTag};
use gureum_server::store::record::{ConversationHead, ConversationKind, Cursor, LifeRecord, Member};
use gureum_server::store::{Batch, Family};
use gureum_wire::{Frame, FrameKind};
use rand::Rng;
use rand::rngs::StdRng;

use super::{DAY_MS, HOUR_MS, RETENTION_MS};

const EXPORTER: [u8; EXPORTER_BYTES] = [6; EXPORTER_BYTES];
/// Members of a conversation that is not of two.
const GROUP_ACCOUNTS: usize = 6;

/// When a device reads its inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    /// Within minutes.
    AtOnce,
    /// About once a day.
    Daily,
    /// Just before the retention ends: after 2.9 days of 3.
    Late,
    /// Less often than the retention: it misses messages each time.
    Seldom,
    /// Not before the end of the run.
    Never,
}

impl Reads {
    /// How long until the next time.
    pub(super) fn pause_ms(self, random: &mut StdRng) -> u64 {
        match self {
            Self::AtOnce => random.random_range(5 * 60_000..40 * 60_000),
            Self::Daily => random.random_range(18 * HOUR_MS..30 * HOUR_MS),
            Self::Late => RETENTION_MS * 29 / 30,
            Self::Seldom => random.random_range(4 * DAY_MS..6 * DAY_MS),
            Self::Never => u64::MAX / 2,
        }
    }
}

/// How much is said in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Talks {
    /// All along.
    Steadily,
    /// Much on the first day, then nothing more.
    Once,
    /// A few words at the beginning.
    Hardly,
}

pub(super) struct Device {
    pub(super) authority: Authenticated,
    pub(super) account: usize,
    pub(super) reads: Reads,
}

pub(super) struct Account {
    pub(super) devices: Vec<usize>,
}

pub(super) struct Talk {
    pub(super) id: ConversationId,
    pub(super) accounts: Vec<usize>,
    pub(super) talks: Talks,
}

/// Everybody.
pub(super) struct People {
    pub(super) accounts: Vec<Account>,
    pub(super) devices: Vec<Device>,
    pub(super) talks: Vec<Talk>,
}

impl People {
    /// So many accounts, the same for the same seed.
    pub(super) fn new(accounts: usize, random: &mut StdRng) -> Self {
        let mut people = Self { accounts: Vec::new(), devices: Vec::new(), talks: Vec::new() };
        for index in 0..accounts {
            let habits: &[Reads] = match index % 10 {
                0 | 1 => &[Reads::AtOnce],
                2 => &[Reads::AtOnce, Reads::AtOnce],
                3 => &[Reads::AtOnce, Reads::Daily],
                4 | 5 => &[Reads::Daily],
                6 => &[Reads::Late],
                7 => &[Reads::Seldom],
                8 => &[Reads::AtOnce, Reads::Never],
                _ => &[Reads::Never],
            };
            people.add_account(index, habits);
        }
        for index in 0..accounts {
            people.add_talk(index, random);
        }
        people
    }

    fn add_account(&mut self, index: usize, habits: &[Reads]) {
        let id = AccountId::from_bytes(scattered(1, index));
        let first = self.devices.len();
        for (number, reads) in habits.iter().enumerate() {
            let device = DeviceId::from_bytes(scattered(2, first + number));
            self.devices.push(Device { authority: prove(id, device), account: index, reads: *reads });
        }
        self.accounts.push(Account { devices: (first..self.devices.len()).collect() });
    }

    fn add_talk(&mut self, index: usize, random: &mut StdRng) {
        let others = if index % 4 == 3 { GROUP_ACCOUNTS - 1 } else { 1 };
        let mut accounts = vec![index];
        while accounts.len() <= others.min(self.accounts.len() - 1) {
            let other = random.random_range(0..self.accounts.len());
            if !accounts.contains(&other) {
                accounts.push(other);
            }
        }
        let talks = match index % 10 {
            0 | 5 => Talks::Hardly,
            1 => Talks::Once,
            _ => Talks::Steadily,
        };
        self.talks.push(Talk { id: ConversationId::from_bytes(scattered(3, index)), accounts, talks });
    }

    /// A device of somebody in the conversation.
    pub(super) fn sender(&self, talk: usize, random: &mut StdRng) -> usize {
        let account = *self.talks[talk].accounts.choose_one(random);
        *self.accounts[account].devices.choose_one(random)
    }

    /// The accounts that get an entry when this device says something: all but its own, and that too if it has
    /// another device.
    pub(super) fn readers(&self, talk: usize, sender: usize) -> impl Iterator<Item = usize> {
        let own = self.devices[sender].account;
        let is_reader = move |account: &&usize| **account != own || self.accounts[**account].devices.len() > 1;
        self.talks[talk].accounts.iter().filter(is_reader).copied()
    }

    /// The leaves of a conversation.
    pub(super) fn members(&self, talk: usize) -> Vec<Member> {
        let accounts = self.talks[talk].accounts.iter();
        let devices = accounts.flat_map(|account| &self.accounts[*account].devices);
        devices
            .zip(0..)
            .map(|(device, leaf)| {
                let authority = self.devices[*device].authority;
                Member { account: authority.account(), device: authority.device(), leaf }
            })
            .collect()
    }

    /// The records of accounts and conversations, as registrations and creations would have left them.
    pub(super) fn records(&self, now_ms: u64) -> Batch {
        let mut batch = Batch::new();
        for device in &self.devices {
            let key = key::cursor(&device.authority.account(), &device.authority.device(), CursorTag::Cursor);
            batch.put_record(Family::Cursor, key, &Cursor::default());
        }
        for (index, talk) in self.talks.iter().enumerate() {
            let head = ConversationHead {
                epoch: super::EPOCH_FIRST,
                created_ms: now_ms,
                kind: ConversationKind::Group,
                members: self.members(index),
            };
            batch.put_record(Family::Conversation, key::conversation(&talk.id, ConversationTag::Head), &head);
        }
        batch
    }
}

/// Picks one of a list that is never empty.
trait ChooseOne<T> {
    fn choose_one(&self, random: &mut StdRng) -> &T;
}

impl<T> ChooseOne<T> for [T] {
    fn choose_one(&self, random: &mut StdRng) -> &T {
        &self[random.random_range(0..self.len())]
    }
}

/// An id as hashes are: spread over the whole space.
fn scattered(kind: u64, index: usize) -> [u8; 16] {
    let high = super::mixed(kind << 48 | index as u64);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&high.to_be_bytes());
    bytes[8..].copy_from_slice(&super::mixed(high).to_be_bytes());
    bytes
}

/// Authority, by the one way to it: a Hello whose signature holds.
fn prove(account: AccountId, device: DeviceId) -> Authenticated {
    static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[5; 32]));
    let claim = HelloClaim {
        server_name: "127.0.0.1".to_owned(),
        account,
        device,
        subscribe: false,
        cursor: Position::default(),
        epochs_digest: None,
        log_entries: 0,
        life: None,
        push_digest: None,
    };
    let config = SessionConfig {
        tls_server_name: None,
        proof_timeout_ms: 1,
        retention_ms: RETENTION_MS,
        commit_retention_ms: RETENTION_MS,
    };
    let facts = DeviceFacts {
        proof_key: KEY.verifying_key(),
        is_revoked: false,
        is_gone: false,
        log_entries: 0,
        head: Position::default(),
        cursor: Position::default(),
        accepted_counter: 0,
        life: LifeRecord::default(),
        key_packages_left: 0,
        last_resort_used: false,
        epochs_digest: [0; 32],
        push_digest: None,
        phone: PhoneNotice::default(),
    };
    let mut session = Session::new(config, 0);
    let payload = Hello::sign(&claim, &KEY, &EXPORTER);
    session.handle(Input::Frame(Frame { kind: FrameKind::Hello, payload }), 0);
    session.handle(Input::Facts { facts: Some(Box::new(facts)), exporter: EXPORTER }, 0);
    session.authority().expect("the proof holds")
}
