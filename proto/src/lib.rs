//! What Gureum's server and clients say to each other: the schema, and the domain types that it stands for.
//!
//! Pure: no socket, clock or task. The types that prost generates do not leave this crate; past it a value has
//! been checked against every bound of [`limits`].

mod code;
mod convert;
mod credential;
mod datagram;
mod delivery;
mod device_log;
mod epochs;
mod group_state;
mod handle;
mod hello;
mod ids;
mod leave;
pub mod limits;
mod link;
pub mod membership;
mod phone;
mod push;
mod request;
mod session;
mod url;

pub use code::{Code, Fault};
pub use convert::PayloadError;
pub use credential::{CREDENTIAL_BYTES, CredentialError, LeafIdentity};
pub use datagram::Typing;
pub use delivery::{DeliveryFrame, Envelope, EnvelopeBody, Gap, GapReason, SharedEnvelope, put_envelope};
pub use device_log::{
    AddDraft, DeviceKeys, DeviceLog, LogChange, LogError, LogHead, LoggedDevice, countersign, draft_add, finish_entry,
    sign_add, sign_recover, sign_revoke, sign_root, sign_rotate_recovery,
};
pub use epochs::epochs_digest;
pub use group_state::{ConversationKind, GROUP_EXTENSION, GroupState};
pub use handle::{Handle, HandleError};
pub use hello::{
    ALPN, EXPORTER_BYTES, EXPORTER_LABEL, Hello, HelloClaim, Life, PROTOCOL_VERSION, Position, ProofError,
    exporter_context,
};
pub use ids::{
    AccountId, ConversationId, DeviceId, ID_BYTES, IdError, InviteId, LifeToken, LinkId, MessageId, PushDigest,
};
pub use leave::{CommitAttachment, Leave, SignedLeave};
pub use link::{CheckChain, LinkBundle, LinkCode, LinkCodeError, LinkConsent, LinkContact, LinkOffer, LinkProposal};
pub use phone::{
    CodeSent, LockSecret, Otp, OtpError, Phone, PhoneChange, PhoneError, PhoneNotice, PhoneProof, put_request_code,
};
pub use push::{PushAddress, PushOffer, PushService, PushTarget, PushTargetError};
pub use request::{
    AccountFound, Commits, ConversationState, ConversationWith, CreateConversation, DeviceKeyPackage, DeviceState,
    FindBy, Group, KeyPackages, MemberLog, Preference, Relation, Request, Response, SubmitCommit,
};
pub use session::{
    Accepted, ClientFrame, FrameContentError, Gone, Link, Notice, Ready, Recover, Recovering, Refusal, Register,
    Registered, Send, Sent, ServerFrame, put_ack, put_hello, put_link, put_link_reply, put_recover, put_register,
    put_send,
};
pub use url::{ServerUrl, UrlError};

#[cfg(test)]
mod tests;
