//! What happened, as it is kept until it is reported.

use gureum_proto::{AccountId, ConversationId, DeviceId, GapReason, Handle, MessageId};
use serde::{Deserialize, Serialize};

use super::types::{Message, OutboxId};
use crate::e2ee::content::ReceiptKind;

/// Something that happened, with its place among the unreported ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// For [`super::Vault::mark_reported`].
    pub id: i64,
    /// What.
    pub event: Event,
}

/// Something that a person or a program wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A message came.
    #[serde(skip)]
    Message(Message),
    /// Positions of the inbox were dropped before this device took them.
    Gap {
        /// The first that is gone.
        from_seq: u64,
        /// The last that is gone.
        to_seq: u64,
        /// Application messages among them.
        count: u64,
        /// Why.
        #[serde(with = "as_reason")]
        reason: GapReason,
    },
    /// A message came that this device cannot read.
    Unreadable {
        /// Where.
        #[serde(with = "as_text")]
        conversation: ConversationId,
        /// With whom, or the group's name, where that is known here.
        #[serde(default)]
        with: Option<String>,
        /// Its number there.
        number: u64,
        /// The server's id.
        #[serde(with = "as_text")]
        message_id: MessageId,
        /// Why.
        why: String,
    },
    /// Somebody has got or read a message of this account.
    Receipt {
        /// Which of the two.
        kind: ReceiptKind,
        /// Where.
        #[serde(with = "as_text")]
        conversation: ConversationId,
        /// Which message.
        #[serde(with = "as_text")]
        message_id: MessageId,
        /// Who.
        #[serde(with = "as_text")]
        by: Handle,
        /// When the server had it.
        time_ms: u64,
    },
    /// Another device of this account has read.
    Read {
        /// Where.
        #[serde(with = "as_text")]
        conversation: ConversationId,
        /// Up to which number.
        number: u64,
        /// How many messages that are here nobody has read yet.
        unread: u64,
        /// What the device is called, or its id.
        by_device: String,
    },
    /// Another device of this account has handed over its history, and all of it is here; or it was revoked before that, and
    /// the rest cannot come.
    History {
        /// What the device is called, or its id.
        from: String,
        /// How many messages it has handed over.
        messages: u64,
        /// How many it has.
        of: u64,
        /// Whether all of it is here.
        #[serde(default = "is_whole")]
        done: bool,
    },
    /// This device joined a conversation.
    Joined {
        /// Which.
        #[serde(with = "as_text")]
        conversation: ConversationId,
        /// With whom.
        #[serde(with = "as_text")]
        peer: AccountId,
    },
    /// This device joined again; what was sent while it was not in stays unreadable.
    Rejoined {
        /// Which.
        #[serde(with = "as_text")]
        conversation: ConversationId,
        /// With whom, or the group's name, where that is known here.
        #[serde(default)]
        with: Option<String>,
    },
    /// A device of somebody joined a conversation again that it was in: it had lost its state, or was away for long.
    MemberRejoined {
        /// Which.
        #[serde(with = "as_text")]
        conversation: ConversationId,
        /// Whose.
        #[serde(with = "as_text")]
        by: Handle,
        /// Which device.
        #[serde(with = "as_text")]
        device: DeviceId,
    },
    /// This home was an older copy of what this device had become, and goes on from there: it joins its conversations
    /// again, and what newer copies of it received is not here.
    Restored {
        /// How many it joins again.
        conversations: u64,
    },
    /// A message or a change came that this device has not made, though it is by this device: a copy of this home is in
    /// use.
    Copied {
        /// Where.
        #[serde(with = "as_text")]
        conversation: ConversationId,
        /// With whom, or the group's name, where that is known here.
        #[serde(default)]
        with: Option<String>,
    },
    /// The server has gone back in a conversation to before what this device has seen. Nothing is sent there until a
    /// person decides: see [`super::Vault::restart`].
    GoneBack {
        /// Which.
        #[serde(with = "as_text")]
        conversation: ConversationId,
        /// With whom, or the group's name.
        with: String,
        /// Whether it is a group.
        #[serde(default)]
        is_group: bool,
        /// The epoch that the server shows; 0 where it does not know the conversation.
        epoch: u64,
        /// The epoch that this device has seen.
        epoch_seen: u64,
    },
    /// A conversation in which the server had gone back goes on from there, because a person has decided so.
    Restarted {
        /// Which.
        #[serde(with = "as_text")]
        conversation: ConversationId,
        /// With whom, or the group's name.
        with: String,
    },
    /// The server shows a handle for another account than before: told once for each.
    SafetyNumber {
        /// The handle.
        #[serde(with = "as_text")]
        handle: Handle,
        /// The account that it stood for.
        #[serde(with = "as_text")]
        before: AccountId,
        /// The account that it is said to stand for.
        #[serde(with = "as_text")]
        after: AccountId,
        /// The safety number with the first.
        number_before: String,
        /// The safety number with the second.
        number: String,
    },
    /// Messages of a conversation did not come, and neither a gap nor a message of this device accounts for them: the
    /// server keeps them back, or a copy of this home has sent them. Told once.
    Withheld {
        /// Where.
        #[serde(with = "as_text")]
        conversation: ConversationId,
        /// With whom, or the group's name, where that is known here.
        #[serde(default)]
        with: Option<String>,
        /// The number of the first.
        from_number: u64,
        /// The number of the last.
        to_number: u64,
        /// How many between these are missing, both counted.
        count: u64,
    },
    /// The server does not show a conversation that another device of this account has told of: it hides it, has gone back
    /// to before it began, or the account has left it since. Told once.
    Hidden {
        /// Which.
        #[serde(with = "as_text")]
        conversation: ConversationId,
    },
    /// The server has dropped this device's push target twice, which it does when the push service does not know it: until
    /// another is set, nothing wakes this device. Told once of each target.
    PushRefused {
        /// The service, as it is named in commands.
        service: String,
    },
    /// A device was added to an account.
    DeviceAdded {
        /// Whose.
        #[serde(with = "as_text")]
        account: AccountId,
        /// The account's handle.
        #[serde(default)]
        handle: String,
        /// Which.
        #[serde(with = "as_text")]
        device: DeviceId,
        /// What it is called, where that is known here.
        #[serde(default)]
        name: Option<String>,
    },
    /// A device of an account was revoked.
    DeviceRevoked {
        /// Whose.
        #[serde(with = "as_text")]
        account: AccountId,
        /// The account's handle.
        #[serde(default)]
        handle: String,
        /// Which.
        #[serde(with = "as_text")]
        device: DeviceId,
        /// What it is called, where that is known here.
        #[serde(default)]
        name: Option<String>,
    },
    /// The server has shown this device another past of an account's device log than another device of this account: it
    /// tampers with it. Told once.
    LogForked {
        /// Whose.
        #[serde(with = "as_text")]
        account: AccountId,
        /// The account's handle.
        handle: String,
    },
    /// Something has happened to this account's phone number. Told once on each device.
    Phone {
        /// What.
        change: PhoneEvent,
        /// When, by the server's clock.
        time_ms: u64,
    },
    /// A group has changed, by somebody else.
    Group {
        /// Which.
        #[serde(with = "as_text")]
        conversation: ConversationId,
        /// What it is called since then.
        name: String,
        /// What has changed.
        change: GroupChange,
        /// The handle of who has changed it, if that is known.
        by: Option<String>,
        /// The handles of whom it concerns: who was added, removed or left; all admins where these have changed.
        who: Vec<String>,
    },
    /// A change of a group that this device was told to make will not be made.
    IntentRefused {
        /// Which group.
        #[serde(with = "as_text")]
        conversation: ConversationId,
        /// What it is called.
        name: String,
        /// What was to be done, as words that follow on "cannot".
        what: String,
        /// Why not.
        why: String,
    },
    /// Accounts in a group do not exist any more, says the server. Told once of each.
    AccountsGone {
        /// Which group.
        #[serde(with = "as_text")]
        conversation: ConversationId,
        /// What it is called.
        name: String,
        /// Their handles.
        who: Vec<String>,
        /// Whether this account may remove them.
        is_admin: bool,
    },
    /// A commit was refused.
    CommitRefused {
        /// Where.
        #[serde(with = "as_text")]
        conversation: ConversationId,
        /// With whom, or the group's name, where that is known here.
        #[serde(default)]
        with: Option<String>,
        /// Why.
        why: String,
        /// Whether the conversation has stopped over it.
        stopped: bool,
    },
    /// A message of this device will not be sent.
    SendFailed {
        /// Which row.
        outbox: OutboxId,
        /// Where.
        #[serde(with = "as_text")]
        conversation: ConversationId,
        /// With whom, or the group's name, where that is known here.
        #[serde(default)]
        with: Option<String>,
        /// The server's reason.
        why: String,
    },
}

/// Of what was kept without it: only the end of a whole history was told.
const fn is_whole() -> bool {
    true
}

/// What has happened to an account's phone number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhoneEvent {
    /// Another account has it now.
    Moved,
    /// Somebody who got the number's messages was stopped by the registration lock.
    Tried,
}

impl PhoneEvent {
    /// The word that stands for it in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Tried => "tried",
        }
    }
}

/// How a group has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupChange {
    /// It was made.
    Created,
    /// Accounts are in it that were not.
    Added,
    /// Accounts were removed from it.
    Removed,
    /// Accounts have left it.
    Left,
    /// It has another name.
    Renamed,
    /// Others are its admins.
    Admins,
    /// This device is in it.
    Joined,
}

impl GroupChange {
    /// The word that stands for it in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Left => "left",
            Self::Renamed => "renamed",
            Self::Admins => "admins",
            Self::Joined => "joined",
        }
    }
}

/// Ids as their text in stored events.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A gap's reason as a word in stored events.
mod as_reason {
    use gureum_proto::GapReason;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    const EXPIRED: &str = "expired";
    const OVERFLOW: &str = "overflow";
    const LOST: &str = "lost";

    pub(super) fn serialize<S: Serializer>(reason: &GapReason, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match reason {
            GapReason::Expired => EXPIRED,
            GapReason::Overflow => OVERFLOW,
            GapReason::Lost => LOST,
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<GapReason, D::Error> {
        match String::deserialize(from)?.as_str() {
            EXPIRED => Ok(GapReason::Expired),
            OVERFLOW => Ok(GapReason::Overflow),
            LOST => Ok(GapReason::Lost),
            _ => Err(D::Error::custom("no reason of a gap")),
        }
    }
}
