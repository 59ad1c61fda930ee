//! What a client can fail with, and whether connecting again may help.

use std::path::PathBuf;
use std::time::Duration;

use gureum_proto::{Code, ConversationId, Handle, HandleError, PushTargetError};

use crate::link::LinkError;
use crate::vault::{
    BeginError, DeviceError, GoneBack, GroupError, OpenError, QueueError, RejoinError, TargetError, TrustError,
    VaultError,
};
use crate::words::WordsError;

/// Why an operation of a client failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The home cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The connection, or a request on it.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// An account is not believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A conversation cannot begin.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// A device is not added to the account, or not revoked.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The words are not those of a recovery key.
    #[error(transparent)]
    Words(#[from] WordsError),
    /// A group is not made or changed.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// What was typed does not stand for one thing.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A name may be that of a group and of somebody.
    #[error(
        "{name:?} is a group's name here ({id}), and on the server somebody is called {handle}: name the group by its id; \
         for the person, run `gureum safety-number {handle}` first"
    )]
    NameOfBoth {
        /// What was typed.
        name: String,
        /// The group.
        id: ConversationId,
        /// Whom it may mean.
        handle: Handle,
    },
    /// A text is not taken.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A conversation cannot be rejoined.
    #[error(transparent)]
    Rejoin(#[from] RejoinError),
    /// The server has gone back in a conversation, and a person must decide first.
    #[error(transparent)]
    GoneBack(#[from] GoneBack),
    /// There is no conversation with somebody here.
    #[error("there is no conversation with {0} here")]
    NoConversation(String),
    /// The server no longer knows a group.
    #[error("the server no longer knows the group {0}; make it anew with `gureum group create`")]
    GroupGone(String),
    /// A session that takes no inbox was asked for what must be done behind the inbox's end.
    #[error("this session does not take the inbox, which has to be read first")]
    InboxNeeded,
    /// The server, or the process of this home that takes the inbox, has brought it no further for as long as it is waited for.
    #[error(
        "the inbox has come no further for a minute, and this must wait for what is in it; try again once `gureum receive` gets on"
    )]
    InboxStalled,
    /// Not a handle.
    #[error(transparent)]
    Handle(#[from] HandleError),
    /// The server knows nobody of that name.
    #[error("nobody on this server is called {0:?}; check the spelling")]
    Nobody(String),
    /// The server finds nobody by a phone number.
    #[error("nobody on this server can be found by {0}; check the number, or ask whoever has it for their handle")]
    NobodyByNumber(String),
    /// The account has no phone number, as far as this device knows.
    #[error("this account has no phone number; `gureum phone set` gives it one")]
    NoPhone,
    /// The account was deleted.
    #[error(
        "this account was deleted; its history is here (`gureum history`), and to talk again, register in another home"
    )]
    Deleted,
    /// An account is to be deleted by another handle than its own.
    #[error("this account is {own}, not {given}; nothing was deleted")]
    OtherHandle {
        /// What was said.
        given: Handle,
        /// What it is called.
        own: Handle,
    },
    /// The message was handed over, and the answer is missing.
    #[error("{0}; the message is kept and goes out, once, on the next connection (`gureum receive` makes one)")]
    Kept(Box<ClientError>),
    /// A change of a group was handed over, and is not made yet.
    #[error("{0}; the change is kept and made on the next connection (`gureum receive` makes one)")]
    ChangeKept(Box<ClientError>),
    /// A push target was set or cleared here, and the server is not told yet.
    #[error("{0}; it is kept, and the server is told on the next connection (`gureum receive` makes one)")]
    PushKept(Box<ClientError>),
    /// Not an address of a push service.
    #[error(transparent)]
    PushTarget(#[from] PushTargetError),
    /// The server refused the message for good.
    #[error("the message was not sent: {0}")]
    NotSent(String),
    /// Another process takes the inbox of this home.
    #[error("another gureum is receiving for {0}; stop it, or let it go on and read the history")]
    Receiving(PathBuf),
    /// Another process of this home has connected since this one made its claim.
    #[error("another gureum has connected with this home meanwhile; try again")]
    Overtaken,
    /// What the server asks to be fetched does not help.
    #[error("the server's answers lead nowhere ({0}); try again later")]
    Stuck(String),
    /// The server answered a request with another one's answer.
    #[error("the server answered another question than the one asked; update the client")]
    Mismatched,
    /// A file cannot be used.
    #[error("cannot use {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database's thread.
    #[error("{0}")]
    Thread(String),
    /// The session is over.
    #[error("the session has ended")]
    Ended,
    /// Too much waits already.
    #[error("too many messages wait for an answer; wait for the server")]
    Busy,
}

impl ClientError {
    /// Whether connecting again may help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Link(error) => error.is_temporary(),
            Self::Vault(VaultError::Hole { .. }) | Self::Rejoin(RejoinError::TooOften { .. }) | Self::Overtaken => true,
            _ => false,
        }
    }

    /// How long to stay away at least.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Link(error) => Duration::from_millis(error.retry_after_ms()),
            Self::Rejoin(RejoinError::TooOften { retry_after_ms }) => Duration::from_millis(*retry_after_ms),
            _ => Duration::ZERO,
        }
    }

    /// Whether it concerns one conversation or account alone: the connection serves the others as before.
    #[must_use]
    pub const fn is_confined(&self) -> bool {
        match self {
            Self::Link(LinkError::Refused(_)) | Self::Vault(VaultError::CountersUnresolved) | Self::Stuck(_) => true,
            Self::GoneBack(_) => true,
            Self::Rejoin(RejoinError::Vault(error)) => matches!(error, VaultError::CountersUnresolved),
            Self::Trust(error) => !matches!(error, TrustError::Vault(_)),
            Self::Rejoin(_) => true,
            _ => false,
        }
    }

    /// The error again where it is confined, or else as a failure.
    pub(crate) fn confined(self) -> Result<Self, Self> {
        if self.is_confined() { Ok(self) } else { Err(self) }
    }

    /// Whether the server has gone back in the conversation that it concerns: a person must decide first.
    #[must_use]
    pub const fn is_gone_back(&self) -> bool {
        matches!(
            self,
            Self::GoneBack(_) | Self::Queue(QueueError::GoneBack(_)) | Self::Rejoin(RejoinError::GoneBack(_))
        )
    }

    /// Whether the handle or the number that it concerns stands for another account than before: who asks again goes on with
    /// that one.
    #[must_use]
    pub const fn is_handle_moved(&self) -> bool {
        matches!(
            self,
            Self::Trust(TrustError::HandleMoved { .. } | TrustError::NumberMoved { .. })
                | Self::Queue(QueueError::HandleMoved(_))
        )
    }

    /// Whether the server asked to come later.
    pub(crate) fn is_refused_for_now(&self) -> bool {
        matches!(self, Self::Link(error @ LinkError::Refused(_)) if error.is_temporary())
    }

    /// The server's code, if it is one of the server's answers.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Link(error) => error.code(),
            _ => None,
        }
    }
}
