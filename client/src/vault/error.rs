//! What a vault's operations can fail with, each by whose fault it is and what can be done.

use std::path::PathBuf;

use gureum_proto::{AccountId, ConversationId, Handle, LinkCodeError, LogError, PayloadError};

/// The local database failed; every operation can meet this one, and none has changed anything then.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// SQLite refused: the disk is full, the file is damaged, or another process holds it for too long.
    #[error("the local database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// A row is not what this program writes.
    #[error("the local database holds a damaged row: {0}")]
    Damaged(&'static str),
    /// The encryption library failed where it cannot by our rules.
    #[error("the encryption failed while {step}: {why}")]
    Crypto {
        /// While doing what.
        step: &'static str,
        /// What it said.
        why: String,
    },
    /// The device is not registered yet.
    #[error("this home is not registered; run `gureum register` first")]
    NotRegistered,
    /// The operating system gave no randomness.
    #[error("the operating system gave no random bytes")]
    Random,
    /// No conversation of this id is here.
    #[error("the conversation {0} is not known here")]
    NoConversation(ConversationId),
    /// No contact of this id is here.
    #[error("the account {0} is not known here; look it up first")]
    NoContact(AccountId),
    /// An account decides nothing about itself.
    #[error("that is your own account")]
    Oneself,
    /// As many counters are without an answer as may be.
    #[error("too many sends are without an answer; wait for the server")]
    CountersUnresolved,
    /// Positions of the inbox are missing without a gap that says so.
    #[error("the server skipped inbox positions: expected {expected}, got {got}; reconnect")]
    Hole {
        /// The position that should have come.
        expected: u64,
        /// The one that came.
        got: u64,
    },
}

/// Why a vault cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no vault.
    #[error("there is no account in {0}; run `gureum register` first, or name another home")]
    Missing(PathBuf),
    /// A vault with an account is there already.
    #[error("{0} already holds an account; name another home")]
    Exists(PathBuf),
    /// The vault was made but its registration did not finish.
    #[error(
        "the registration in {0} was not finished; run the same `gureum register` again, with another --handle if \
         that one was taken"
    )]
    Unfinished(PathBuf),
    /// The vault was made for a device that no account has yet.
    #[error(
        "the device in {0} belongs to no account yet; run `gureum link` or `gureum recover` again, or name another home"
    )]
    Unlinked(PathBuf),
    /// The key or passphrase does not open the database.
    #[error("the passphrase is wrong, or the key file does not belong to this database")]
    WrongKey,
    /// The database needs a passphrase and none was given.
    #[error("this home is protected by a passphrase; give it with --passphrase-file FILE or in GUREUM_PASSPHRASE")]
    PassphraseNeeded,
    /// A passphrase was given and the database has a key file.
    #[error("this home is protected by its key file, not by a passphrase; give none")]
    PassphraseUnused,
    /// The key file or the passphrase's parameters are damaged.
    #[error("the file {path} is damaged: {why}")]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// How.
        why: &'static str,
    },
    /// A newer program wrote the database.
    #[error("the database has format {found} and this program knows up to {known}; update the program")]
    Newer {
        /// The format in the file.
        found: i64,
        /// The newest known here.
        known: i64,
    },
    /// A file cannot be read or written.
    #[error("cannot use {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The device name is empty, too long, or would steer a terminal.
    #[error("a device name has 1 to 64 bytes, and no control characters")]
    DeviceName,
    /// The database failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Of whom there is only an own device's word, a person looks at that one too.
fn teller(told_by: Option<&str>) -> String {
    told_by.map_or_else(String::new, |device| {
        format!(
            "; only your device {device} has told so: if it is not in your hands, revoke it (see `gureum devices`) and try \
             again"
        )
    })
}

/// Why an account's log is not believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The server's log is not the one seen before.
    #[error(
        "the server shows another device log for {handle} than before: somebody may be trying to read your messages; \
         compare safety numbers{}",
        teller(.told_by.as_deref())
    )]
    Forked {
        /// Whose.
        account: AccountId,
        /// What the account is known by here: its handle, or else its id.
        handle: String,
        /// The own device that has told of the other log, where this one has not seen it itself.
        told_by: Option<String>,
    },
    /// The server's log is shorter than the one seen before.
    #[error(
        "the server hides entries of the device log of {handle}: {seen} were seen, {shown} are shown{}",
        teller(.told_by.as_deref())
    )]
    Shorter {
        /// Whose.
        account: AccountId,
        /// What the account is known by here: its handle, or else its id.
        handle: String,
        /// Entries seen before.
        seen: u64,
        /// Entries shown now.
        shown: u64,
        /// The own device that has told of them, where this one has not seen them itself.
        told_by: Option<String>,
    },
    /// The handle stood for another account before.
    #[error(
        "the handle {handle} stands for another account than before: either its owner has begun anew, or somebody takes \
         their place; compare `gureum safety-number {handle}`, which shows the other number from now on; what is sent to \
         {handle} from now on goes to the other account"
    )]
    HandleMoved {
        /// The handle.
        handle: String,
        /// The account that it stood for.
        before: AccountId,
    },
    /// Another account was found by the phone number before.
    #[error(
        "the number {phone} is that of another account than before, {after} instead of {before}: either its owner has begun \
         anew, or it has another owner; compare safety numbers on the phone or in person (before: {number_before}; now: \
         {number}); what is sent to {phone} from now on goes to {after}"
    )]
    NumberMoved {
        /// The number, as it was typed.
        phone: String,
        /// The handle of whose it was, or else the account's id.
        before: String,
        /// The same of whose it is.
        after: String,
        /// The safety number with the first.
        number_before: String,
        /// The safety number with the second.
        number: String,
    },
    /// The entries do not follow from one another, or are not those of this account.
    #[error("the device log of {account} does not hold: {why}")]
    Invalid {
        /// Whose.
        account: AccountId,
        /// Why.
        why: LogError,
    },
    /// The answer begins after what is known, or holds nothing where something was promised.
    #[error("the server left out entries of the device log of {0}")]
    Incomplete(AccountId),
    /// The account's log does not have this device where it should be.
    #[error(
        "the server shows a device log of {0} without this device: it may not be the account that you meant; delete this \
         home and link or recover again"
    )]
    Unlisted(AccountId),
    /// The database failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl From<rusqlite::Error> for TrustError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Vault(error.into())
    }
}

/// Why a device is not added to an account, or not revoked.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Not a code.
    #[error(transparent)]
    Code(#[from] LinkCodeError),
    /// Nobody waits under the code.
    #[error(
        "no device waits with this code: run `gureum link` on the new device with the address of this account's server (see \
         `gureum whoami`), leave it running, and use its code once"
    )]
    NobodyWaits,
    /// What the new device says is not what such a device says.
    #[error("what the new device says is refused: {0}")]
    Offer(String),
    /// What answers this device is not what a device of an account says.
    #[error("the answer to this device's code is refused: {0}; show a new code, from a new home")]
    Answer(String),
    /// One after the other has answered it.
    #[error("this device's code was answered too often; run the same command again, which shows it again")]
    TooOften,
    /// It did not come from the device whose code it was.
    #[error("the new device has not consented as it should; show a new code, from a new home")]
    Consent,
    /// Another account was there before.
    #[error("another account has answered this device before; show a new code, from a new home")]
    OtherAccount,
    /// The account has the device already.
    #[error("this device belongs to the account already")]
    Added,
    /// The account had the device, and revoked it.
    #[error("this device was revoked, and does not come back; link it from a new home")]
    Revoked,
    /// As many devices as an account may have.
    #[error("an account has at most 10 devices; revoke one first: gureum devices revoke NAME")]
    Full,
    /// None of the account's devices is called so.
    #[error("this account has no device {0:?}; see `gureum devices`")]
    Unknown(String),
    /// More than one of them is.
    #[error("more than one device is called {name:?}; name one by its id: {}", ids.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// Their ids.
        ids: Vec<String>,
    },
    /// An account keeps one device.
    #[error("this is the account's last device; without it only the recovery words bring the account back")]
    Last,
    /// The log grew each time.
    #[error("other devices change the account's devices at the same time; try again")]
    Raced,
    /// The database failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Why a conversation cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// There is one already.
    #[error("there is a conversation with this account already")]
    Exists(ConversationId),
    /// The other account is this one.
    #[error("that is your own account")]
    Oneself,
    /// A KeyPackage is not that of a device in the log.
    #[error("a key package of {account} is refused: {why}")]
    KeyPackage {
        /// Whose.
        account: AccountId,
        /// Why.
        why: String,
    },
    /// Not one KeyPackage of the other account.
    #[error("{0} has no device that can be written to yet; it must connect first")]
    NoDevice(AccountId),
    /// The database failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl From<rusqlite::Error> for BeginError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Vault(error.into())
    }
}

/// The server has gone back in a conversation to before what this device has seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server has gone back in the conversation with {with}: its operator restored a backup, or somebody tampers with \
     it; ask the operator, compare {}, then run `{}`",
    compared(with, *is_group),
    restart_command(with)
)]
pub struct GoneBack {
    /// With whom the conversation is, or the group's name.
    pub with: String,
    /// Whether it is a group.
    pub is_group: bool,
}

impl GoneBack {
    /// What to compare before one goes on.
    #[must_use]
    pub fn to_compare(&self) -> String {
        compared(&self.with, self.is_group)
    }

    /// The command by which one goes on.
    #[must_use]
    pub fn command(&self) -> String {
        restart_command(&self.with)
    }
}

fn compared(with: &str, is_group: bool) -> String {
    if is_group { "safety numbers with its members".to_owned() } else { format!("`gureum safety-number {with}`") }
}

fn restart_command(with: &str) -> String {
    format!("gureum restart {}", shell_word(with))
}

/// A name as it can be typed at a shell: whoever named a group may have had a command in mind.
fn shell_word(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.chars().all(is_plain) { name.to_owned() } else { format!("'{}'", name.replace('\'', r"'\''")) }
}

/// What somebody typed does not stand for one thing.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Several groups are called that.
    #[error("several groups are called {name:?}; name one by its id: {}", ids.join(", "))]
    Ambiguous {
        /// What was typed.
        name: String,
        /// The ids of the groups.
        ids: Vec<String>,
    },
    /// A group is called that, and somebody has it for a handle but for the case of its letters.
    #[error(
        "{name:?} is a group's name here ({id}), and {handle} is somebody: name the group by its id, or say {handle}"
    )]
    LikeHandle {
        /// What was typed.
        name: String,
        /// The group.
        id: ConversationId,
        /// Whom it may mean.
        handle: Handle,
    },
    /// A group is called that, and the server, which is away, has never been asked whether somebody is as well.
    #[error(
        "the server is away, and only it knows whether somebody is called {handle}: to mean the group {name:?}, name it by \
         its id ({id})"
    )]
    Unasked {
        /// What was typed.
        name: String,
        /// The group.
        id: ConversationId,
        /// Whom it may mean.
        handle: Handle,
    },
    /// The database failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Why a group is not made, or not changed.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The name is empty, too long, or of more than one line.
    #[error("a group's name has 1 to 128 bytes on one line")]
    Name,
    /// A group has so many admins at most.
    #[error("a group cannot have that many admins")]
    Admins,
    /// It is a conversation of two.
    #[error("{0} is no group")]
    NoGroup(String),
    /// This device is not in it, or not yet.
    #[error("this device is not in the group {0}; `gureum receive` tells why")]
    NotIn(String),
    /// Only admins may.
    #[error("only an admin of the group {name} may do that ({})", admins.join(", "))]
    NotAdmin {
        /// What it is called.
        name: String,
        /// The handles of its admins.
        admins: Vec<String>,
    },
    /// The database failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl From<rusqlite::Error> for GroupError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Vault(error.into())
    }
}

impl From<PayloadError> for GroupError {
    fn from(error: PayloadError) -> Self {
        if matches!(error, PayloadError::TooLong("list of admins")) { Self::Admins } else { Self::Name }
    }
}

/// Why a text is not taken into the outbox.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Empty or longer than [`crate::limits::TEXT_BYTES_MAX`].
    #[error("a message has 1 to 49152 bytes; this one has {0}")]
    Length(usize),
    /// Too much waits already.
    #[error("the outbox is full; connect so that it can be sent")]
    Full,
    /// The conversation has stopped.
    #[error("the conversation is stopped because its members' device lists were violated; nothing is sent in it")]
    Stopped,
    /// The account is not in the group any more.
    #[error("you are not in the group {0} any more; whoever is an admin there can add you again")]
    Left(String),
    /// The server has gone back; a person must decide first.
    #[error("the message was not sent and is not kept: {0} and send it again")]
    GoneBack(GoneBack),
    /// Whom it is for is blocked here.
    #[error("the message was not sent and is not kept: you have blocked {0}; `gureum unblock {0}` first")]
    Blocked(Handle),
    /// The handle that it was for stands for another account than the one that the conversation is with.
    #[error(
        "the message was not sent and is not kept: the handle {0} stands for another account than before; either its owner \
         has begun anew, or somebody takes their place: compare `gureum safety-number {0}`, then send it again, to the \
         other account"
    )]
    HandleMoved(Handle),
    /// The database failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl From<rusqlite::Error> for QueueError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Vault(error.into())
    }
}

/// Why a conversation cannot be rejoined.
#[derive(Debug, thiserror::Error)]
pub enum RejoinError {
    /// Tried too often.
    #[error("rejoining was tried too often; the next attempt may be made in {} s", retry_after_ms.div_ceil(1000))]
    TooOften {
        /// How long to wait.
        retry_after_ms: u64,
    },
    /// The server shows a state older than one seen before.
    #[error("the server shows the conversation at epoch {shown}, but epoch {seen} was seen before")]
    Older {
        /// The epoch shown.
        shown: u64,
        /// The highest epoch seen.
        seen: u64,
    },
    /// The server has gone back; a person must decide first.
    #[error(transparent)]
    GoneBack(GoneBack),
    /// Commits of others came first each time.
    #[error("others change the conversation faster than this device can join it")]
    Raced,
    /// A leaf's account log must be learned first.
    #[error("the device log of {0} is needed first")]
    NeedsAccount(AccountId),
    /// The logs of several accounts in a group must be learned first.
    #[error("the device logs of its members are needed first")]
    NeedsMembers,
    /// The account has left the group, or was removed.
    #[error("this account is not in the group any more")]
    Left,
    /// Whom it is with has a handle that stands for another account here, and no person has agreed to that.
    #[error("{0} stands for another account here")]
    HandleMoved(Handle),
    /// The state is not one that this device may believe.
    #[error("the conversation's state is refused: {0}")]
    Refused(String),
    /// The database failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl From<rusqlite::Error> for RejoinError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Vault(error.into())
    }
}
