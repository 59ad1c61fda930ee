//! The values that go into a vault and come out of it.

use gureum_proto::{
    AccountId, ConversationId, ConversationKind, DeviceId, DeviceLog, GapReason, Handle, MessageId, Phone, Position,
};
use serde::{Deserialize, Serialize};

use super::event::{Event, StoredEvent};

/// A contact: an account whose device log was verified here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The account.
    pub account: AccountId,
    /// The handle that the server gave last.
    pub handle: Handle,
    /// The log, as far as it was seen.
    pub log: DeviceLog,
}

/// The outcome of learning a part of an account's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learned {
    /// The contact now.
    pub contact: Contact,
    /// Whether the server has further entries: ask again from `contact.log.length()` on.
    pub more: bool,
}

/// A conversation, as far as a caller needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// Of two accounts, a group, or that of the account's own devices.
    pub kind: ConversationKind,
    /// The other account of a direct conversation.
    pub peer: Option<AccountId>,
    /// The name of a group, as far as it is known here.
    pub name: Option<String>,
    /// The epoch that this device is in; 0 when it is in none.
    pub epoch: u64,
    /// The highest epoch that was ever shown.
    pub epoch_seen: u64,
    /// Its state.
    pub state: ConversationStatus,
}

impl Conversation {
    /// What it is filed under.
    #[must_use]
    pub fn with(&self) -> With {
        self.peer.map_or(With::Group(self.id), With::Account)
    }
}

/// Whose conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    /// Those with one account; there may be several, of which all but one are kept for their history alone.
    Account(AccountId),
    /// A group.
    Group(ConversationId),
}

impl From<AccountId> for With {
    fn from(account: AccountId) -> Self {
        Self::Account(account)
    }
}

/// How a conversation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversationStatus {
    /// Made here, and the server has not confirmed it yet.
    Creating,
    /// Messages can be sent and read.
    Active,
    /// The account is in it, this device is not (yet): by a Welcome or by rejoining it will be.
    Absent,
    /// A commit broke the rules of membership: nothing is sent any more.
    Forked,
    /// The server has gone back to before what this device has seen: nothing is sent until a person decides
    /// ([`super::Vault::restart`]), or the server is where it was again.
    Ahead,
    /// The server no longer knew it, and another one has taken its place: it is kept for its history alone.
    Replaced,
    /// A group that the account has left or was removed from: it is kept for its history. Whoever is added again comes
    /// back by a Welcome.
    Left,
}

/// What a look at the server's state of a conversation showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// It goes on from what this device has, or has gone back, which is known now: nothing is left to be asked.
    Known,
    /// It is in a later epoch; whether that follows from this device's, the commit that ends this one shows.
    Later {
        /// This device's epoch.
        from_epoch: u64,
    },
}

/// A row of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OutboxId(pub i64);

/// What the answer to a send means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The message is on the server's disk, and in the history.
    Sent(SentMessage),
    /// Encrypt again: the commits must be fetched (`Need::Commits`), then [`super::Vault::next_sends`] gives it again
    /// under the same counter.
    Again {
        /// Where.
        conversation: ConversationId,
        /// The epoch that the refused one was for; commits are needed from there on.
        epoch: u64,
    },
    /// A revoked device must be removed first (`Need::Removal`), then [`super::Vault::next_sends`] gives it again under
    /// the same counter.
    Removal {
        /// From where.
        conversation: ConversationId,
    },
    /// Nothing changed; the same may be sent again after a while.
    Later {
        /// How long to wait.
        retry_after_ms: u64,
    },
    /// It will not be sent; an event says so.
    Failed(Event),
    /// It was none that a person waits for, and is done with.
    Silent,
    /// No row waits for this counter (it was settled before).
    Nothing,
}

/// A message that the server has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentMessage {
    /// The row that it was.
    pub outbox: OutboxId,
    /// Whom or what it is for.
    pub to: With,
    /// The conversation.
    pub conversation: ConversationId,
    /// The server's id; `None` when the acceptance is so old that the server has forgotten it.
    pub message_id: Option<MessageId>,
    /// The server's time, or this device's where the id is missing.
    pub server_time_ms: u64,
    /// Who in the conversation does not exist any more and gets nothing: the handles of the first, as far as they are known.
    pub gone: Vec<String>,
    /// How many more there are of them: the server names only the first few.
    pub gone_more: u32,
}

/// What [`super::Vault::take`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// Frames that are done; the rest must be given again after `need` was met.
    pub frames: usize,
    /// Everything up to here is on disk: ack it. `None` if nothing moved.
    pub ack: Option<Position>,
    /// What happened, in order; each is also among the unreported events.
    pub events: Vec<StoredEvent>,
    /// What must be fetched before the next frame can be taken.
    pub need: Option<Need>,
    /// Whether the server said that the backlog has been sent.
    pub caught_up: bool,
    /// A Welcome came that is for other devices of the account, into a conversation of which nothing is known here: the
    /// server's list says more.
    pub unlisted: bool,
    /// Whether revoked devices are to be removed, or accounts that have left: [`super::Vault::removals_due`].
    pub removals: Removals,
    /// Whether numbers of messages are missing: [`super::Vault::tell_withheld`], after a while.
    pub holes: bool,
    /// Whether the other devices of the account are to be told something: [`super::Vault::queue_records`], after a while.
    pub owes_records: bool,
    /// Whether a history that is handed over goes on: [`super::Vault::queue_history`].
    pub owes_history: bool,
    /// Whether the server may have to be told what was decided about people: [`super::Vault::untold`].
    pub owes_decisions: bool,
}

/// A conversation of others with this account that its person has not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRequest {
    /// Which.
    pub conversation: ConversationId,
    /// The other account of a direct one.
    pub peer: Option<AccountId>,
    /// With whom, or the group's name.
    pub with: String,
    /// How many messages of others have come there.
    pub messages: u64,
    /// When the last of them was sent, by the server's clock, if there is one.
    pub last_ms: Option<u64>,
}

/// A conversation that wakes nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Muted {
    /// Which.
    pub conversation: ConversationId,
    /// With whom, or the group's name.
    pub with: String,
    /// Until when, in milliseconds since 1970; `None`: until it is unmuted.
    pub until_ms: Option<u64>,
}

/// This account's phone number, as far as this device knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnPhone {
    /// The number, in E.164.
    pub phone: Phone,
    /// Whether others may find the account by it.
    pub findable: bool,
    /// Whether a PIN keeps it from moving to another account.
    pub locked: bool,
}

/// A device of this account to which this one hands over its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandOver {
    /// Which.
    pub device: DeviceId,
    /// How many messages it has taken.
    pub messages: u64,
    /// How many there are; 0 before the first is on its way.
    pub total: u64,
    /// Whether it has all of them.
    pub is_done: bool,
}

/// A history that another device of this account hands over to this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedOver {
    /// What that device is called, or its id.
    pub from: String,
    /// How many messages have come.
    pub messages: u64,
    /// How many there are.
    pub total: u64,
    /// Whether all are here.
    pub is_done: bool,
    /// Whether the rest cannot come, since that device was revoked.
    pub is_over: bool,
}

/// Whether somebody is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Removals {
    /// Nobody.
    #[default]
    Nothing,
    /// From groups alone, where many others may do it.
    FromGroups,
    /// From a conversation of two, where few others may.
    FromPairs,
}

/// What the vault needs from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `ReadCommits`, then [`super::Vault::apply_commits`].
    Commits {
        /// Of this conversation.
        conversation: ConversationId,
        /// From this epoch on.
        from_epoch: u64,
        /// Up to this one, of which the next entry of the inbox is: entries of epochs before the last ones may follow on it.
        /// `None`: up to the current one.
        to_epoch: Option<u64>,
    },
    /// `FindAccount`, then [`super::Vault::learn_account`].
    Account {
        /// Of this account.
        account: AccountId,
        /// From this entry on.
        log_from: u64,
    },
    /// `ReadGroup`, then [`super::Vault::rejoin`].
    Rejoin {
        /// Of this conversation.
        conversation: ConversationId,
    },
    /// The device logs of its accounts, then [`super::Vault::commit_removals`].
    Removal {
        /// Of this conversation.
        conversation: ConversationId,
    },
    /// `ReadMemberLogs`, pages of which [`super::Vault::learn_members`] takes: more than one log is missing.
    Members {
        /// Of this conversation.
        conversation: ConversationId,
    },
}

/// What [`super::Vault::apply_commits`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// This device is at the conversation's current epoch, or at the one that was wanted.
    UpToDate,
    /// Ask for the next page, from this epoch on.
    More {
        /// The first epoch wanted.
        from_epoch: u64,
    },
    /// Something must be met first, then the same page can be applied.
    Needs(Need),
    /// The conversation has stopped: a commit broke the rules of membership, or the server has gone back.
    Stopped,
}

/// A message in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub conversation: ConversationId,
    /// The other account of a direct conversation.
    pub peer: Option<AccountId>,
    /// The name of the group that it is in.
    pub group: Option<String>,
    /// Who wrote it.
    pub from: AccountId,
    /// The handle of who wrote it.
    pub from_handle: Handle,
    /// From which device.
    pub device: DeviceId,
    /// Whether this account wrote it.
    pub own: bool,
    /// The text.
    pub text: String,
    /// The server's id; `None` as in [`SentMessage`].
    pub message_id: Option<MessageId>,
    /// The server's time.
    pub server_time_ms: u64,
    /// Its number in the conversation.
    pub number: u64,
    /// Its position in this account's inbox; `None` for one that this device sent.
    pub seq: Option<u64>,
    /// Whether its person has accepted neither the conversation nor who wrote it.
    pub request: bool,
    /// Who has got it, of one that this account wrote, as the history has it; `None` in an event, where receipts are
    /// off, and where too many are in the conversation for there to be any.
    pub receipts: Option<Receipts>,
}

/// Who has got a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receipts {
    /// Who has it, in the order in which that came to be known.
    pub delivered_to: Vec<Handle>,
    /// Who of them has read it, likewise.
    pub read_by: Vec<Handle>,
}

/// How far a conversation was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadMark {
    /// Which.
    pub conversation: ConversationId,
    /// The number of the last message that was read; 0: none.
    pub number: u64,
}

/// What a person has decided, for all their devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether receipts are sent, and those of others shown.
    pub receipts: bool,
    /// Whether others are told that this person types, and their typing is shown.
    pub typing: bool,
}

/// An entry of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryItem {
    /// A message.
    Message(Message),
    /// Messages are missing here.
    Gap {
        /// The first position that is gone.
        from_seq: u64,
        /// The last position that is gone.
        to_seq: u64,
        /// Application messages among them.
        count: u64,
        /// Why.
        reason: GapReason,
    },
    /// A message that this device could not read.
    Unreadable {
        /// Where.
        conversation: ConversationId,
        /// Its number there.
        number: u64,
        /// The server's id.
        message_id: MessageId,
        /// The server's time.
        server_time_ms: u64,
        /// Why.
        why: String,
    },
    /// Here a conversation was taken up again after the server had gone back.
    Restarted {
        /// Which.
        conversation: ConversationId,
        /// With whom, or the group's name.
        with: String,
    },
    /// From here on the server showed another account for the handle of somebody.
    SafetyNumber {
        /// The conversation with that account alone, if there is one.
        conversation: Option<ConversationId>,
        /// The handle.
        with: Handle,
        /// The safety number with the account that it stood for.
        number_before: String,
        /// The safety number with the other one.
        number: String,
    },
}
