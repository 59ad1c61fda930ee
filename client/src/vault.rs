//! The encrypted local database: identity, contacts, conversations, outbox, inbox cursor and history.
//!
//! Every operation that changes something is one `BEGIN IMMEDIATE` transaction that loads what it needs, the MLS
//! groups included, so that several processes may have one home open. Nothing here waits for a network: the caller
//! carries values between a vault and the server, on a thread that may block.

mod error;
mod types;

use std::path::Path;

use bytes::Bytes;
use gureum_proto::{
    AccountFound, AccountId, Commits, ConversationId, CreateConversation, DeliveryFrame, DeviceId, Group, Handle,
    HelloClaim, Registered, Send, Sent, SubmitCommit,
};
use zeroize::Zeroizing;

pub use crate::identity::{Identity, NewProfile, RegistrationDraft};
pub use error::{BeginError, OpenError, QueueError, RejoinError, TrustError, VaultError};
pub use types::{
    Applied, Contact, Conversation, ConversationStatus, Event, HistoryItem, Learned, Message, Need, OutboxId,
    SentMessage, Settled, StoredEvent, Taken,
};

/// What opens the database.
pub enum KeySource {
    /// 32 random bytes in `<home>/key`, of mode 0600.
    File,
    /// A passphrase, by Argon2id with the parameters in `<home>/kdf.json`.
    Passphrase(Zeroizing<String>),
}

/// A home directory's database, opened.
pub struct Vault {}

impl Vault {
    /// Makes a home, or goes on with one whose registration did not finish (same keys, same root entry).
    pub fn create(home: &Path, key: &KeySource, profile: &NewProfile) -> Result<(Self, RegistrationDraft), OpenError> { todo!() }
    /// The server has made the account: from here on the home is complete. The recovery key is forgotten.
    pub fn registered(&mut self, handle: &Handle, registered: Registered) -> Result<Identity, VaultError> { todo!() }
    /// Opens a complete home.
    pub fn open(home: &Path, key: &KeySource) -> Result<Self, OpenError> { todo!() }
    /// Who this device is.
    pub fn identity(&self) -> &Identity { todo!() }
    /// The claim of the next Hello.
    pub fn hello_claim(&mut self, subscribe: bool) -> Result<HelloClaim, VaultError> { todo!() }

    /// Makes one-time KeyPackages; each is an MLSMessage.
    pub fn make_key_packages(&mut self, count: usize) -> Result<Vec<Bytes>, VaultError> { todo!() }
    /// Makes a last-resort KeyPackage.
    pub fn make_last_resort(&mut self) -> Result<Bytes, VaultError> { todo!() }

    /// The first log entry to ask the server for.
    pub fn log_from(&mut self, account: AccountId) -> Result<u64, VaultError> { todo!() }
    /// Verifies and keeps what the server told of an account; `log_from` is what was asked for.
    pub fn learn_account(&mut self, found: &AccountFound, log_from: u64) -> Result<Learned, TrustError> { todo!() }
    pub fn contact(&mut self, account: AccountId) -> Result<Option<Contact>, VaultError> { todo!() }
    pub fn contact_by_handle(&mut self, handle: &Handle) -> Result<Option<Contact>, VaultError> { todo!() }
    /// Sixty digits in groups of five, the same on both sides.
    pub fn safety_number(&self, account: AccountId) -> String { todo!() }

    /// The conversation with an account (the usable one if there are several).
    pub fn conversation_with(&mut self, peer: AccountId) -> Result<Option<Conversation>, VaultError> { todo!() }
    pub fn conversation(&mut self, id: ConversationId) -> Result<Option<Conversation>, VaultError> { todo!() }
    pub fn conversations(&mut self) -> Result<Vec<Conversation>, VaultError> { todo!() }
    /// Begins a conversation with all devices of both accounts (both must be learned). To be kept or dropped by
    /// `conversation_created`, `conversation_existed` or `abandon_conversation`.
    pub fn begin_conversation(&mut self, peer: AccountId, peer_packages: &[(DeviceId, Bytes)], own_packages: &[(DeviceId, Bytes)]) -> Result<CreateConversation, BeginError> { todo!() }
    /// Conversations whose creation the server has not confirmed; to be asked for again after a restart.
    pub fn pending_creations(&mut self) -> Result<Vec<CreateConversation>, VaultError> { todo!() }
    /// `ConversationCreated { existed: false }`.
    pub fn conversation_created(&mut self, id: ConversationId) -> Result<(), VaultError> { todo!() }
    /// `ConversationCreated { existed: true }` with another id: ours is dropped, its outbox moves to theirs, which
    /// this device joins by its Welcome (`take`) or else by `rejoin`.
    pub fn conversation_existed(&mut self, ours: ConversationId, theirs: ConversationId) -> Result<(), VaultError> { todo!() }
    /// The server refused it for good.
    pub fn abandon_conversation(&mut self, id: ConversationId) -> Result<(), VaultError> { todo!() }
    /// From `ListConversations`: the account is in it. What must be fetched, if anything.
    pub fn note_conversation(&mut self, state: &gureum_proto::ConversationState) -> Result<Option<Need>, VaultError> { todo!() }

    /// Puts a text into the outbox.
    pub fn queue_text(&mut self, conversation: ConversationId, text: &str) -> Result<OutboxId, QueueError> { todo!() }
    /// The sends due: those with a counter above `after` (0 on a new connection: everything that is without an answer, as the same bytes), and those to be encrypted again.
    pub fn next_sends(&mut self, after: u64, limit: usize) -> Result<Vec<Send>, VaultError> { todo!() }
    /// Takes the answer to a send; the same answer twice does no harm.
    pub fn settle(&mut self, sent: &Sent) -> Result<Settled, VaultError> { todo!() }
    /// Rows that wait in the outbox.
    pub fn outbox_len(&mut self) -> Result<u64, VaultError> { todo!() }

    /// Takes deliveries, at most 256 in one transaction (call again with the rest). When `need` is set, the frame at `frames` waits for it.
    pub fn take(&mut self, frames: &[DeliveryFrame]) -> Result<Taken, VaultError> { todo!() }

    /// Applies a page of the commit log.
    pub fn apply_commits(&mut self, conversation: ConversationId, commits: &Commits) -> Result<Applied, VaultError> { todo!() }
    /// Makes an external commit onto what `ReadGroup` gave. Kept only on `commit_accepted`.
    pub fn rejoin(&mut self, conversation: ConversationId, group: &Group) -> Result<SubmitCommit, RejoinError> { todo!() }
    /// Makes a commit that renews this device's keys; the pending one if there is one.
    pub fn commit_self_update(&mut self, conversation: ConversationId) -> Result<Option<SubmitCommit>, VaultError> { todo!() }
    /// Commits (self-update, rejoin) without an answer, as the same bytes.
    pub fn pending_commits(&mut self) -> Result<Vec<SubmitCommit>, VaultError> { todo!() }
    /// `CommitAccepted`.
    pub fn commit_accepted(&mut self, conversation: ConversationId) -> Result<Vec<StoredEvent>, VaultError> { todo!() }
    /// The commit lost or is invalid: drop it.
    pub fn commit_rejected(&mut self, conversation: ConversationId) -> Result<(), VaultError> { todo!() }
    /// Whether this device should renew its keys there (just joined, or a week ago).
    pub fn self_updates_due(&mut self) -> Result<Vec<ConversationId>, VaultError> { todo!() }

    /// Events not yet reported, oldest first.
    pub fn unreported_events(&mut self, limit: usize) -> Result<Vec<StoredEvent>, VaultError> { todo!() }
    /// These were reported.
    pub fn mark_reported(&mut self, ids: &[i64]) -> Result<(), VaultError> { todo!() }
    /// The newest `limit` entries, oldest first.
    pub fn history(&mut self, with: Option<AccountId>, limit: u32) -> Result<Vec<HistoryItem>, VaultError> { todo!() }
}
