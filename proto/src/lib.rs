//! What Gureum's server and clients say to each other: the schema, and the domain types that it stands for.
//!
//! Pure: no socket, clock or task. The types that prost generates do not leave this crate; past it a value has
//! been checked against every bound of [`limits`].

mod code;
mod convert;
mod credential;
mod delivery;
mod device_log;
mod epochs;
mod group_state;
mod handle;
mod hello;
mod ids;
mod leave;
pub mod limits;
pub mod membership;
mod request;
mod session;
mod url;

pub use code::{Code, Fault};
pub use convert::PayloadError;
pub use credential::{CREDENTIAL_BYTES, CredentialError, LeafIdentity};
pub use delivery::{DeliveryFrame, Envelope, EnvelopeBody, Gap, GapReason, SharedEnvelope, put_envelope};
pub use device_log::{
    DeviceKeys, DeviceLog, LogChange, LogError, LoggedDevice, sign_add, sign_recover, sign_revoke, sign_root,
    sign_rotate_recovery,
};
pub use epochs::epochs_digest;
pub use group_state::{ConversationKind, GROUP_EXTENSION, GroupState};
pub use handle::{Handle, HandleError};
pub use hello::{
    ALPN, EXPORTER_BYTES, EXPORTER_LABEL, Hello, HelloClaim, PROTOCOL_VERSION, Position, ProofError, exporter_context,
};
pub use ids::{AccountId, ConversationId, DeviceId, ID_BYTES, IdError, InviteId, MessageId};
pub use leave::{CommitAttachment, Leave, SignedLeave};
pub use request::{
    AccountFound, Commits, ConversationState, ConversationWith, CreateConversation, FindBy, Group, MemberLog, Request,
    Response, SubmitCommit,
};
pub use session::{
    Accepted, ClientFrame, FrameContentError, Ready, Refusal, Register, Registered, Send, Sent, ServerFrame, put_ack,
    put_hello, put_register, put_send,
};
pub use url::{ServerUrl, UrlError};

#[cfg(test)]
mod tests;
