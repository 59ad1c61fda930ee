//! Bounds on what a payload may hold. A conversion refuses what is past them.

use gureum_wire::FrameKind;

/// The longest handle, in bytes (handles are ASCII).
pub const HANDLE_BYTES_MAX: usize = 32;
/// The shortest handle, in bytes.
pub const HANDLE_BYTES_MIN: usize = 2;
/// The longest application message: the MLS ciphertext with its framing.
pub const CIPHERTEXT_BYTES_MAX: usize = 64 * 1024;
/// The largest handshake object: commit, Welcome, GroupInfo or ratchet tree. A commit of 1,000 leaves reaches
/// 83 KB and their tree 186 KB; the hybrid post-quantum suite multiplies by about 12 only the commit.
pub const HANDSHAKE_BYTES_MAX: usize = 512 * 1024;
/// The largest KeyPackage (286 B with X25519; the hybrid post-quantum suite needs about 3 KB).
pub const KEY_PACKAGE_BYTES_MAX: usize = 8 * 1024;
/// KeyPackages in one upload or one claim.
pub const KEY_PACKAGES_MAX: usize = 100;
/// Accounts in one claim of KeyPackages.
pub const CLAIM_ACCOUNTS_MAX: usize = 64;
/// KeyPackages in one answer to a claim, in bytes, counted before those of the last account are added.
pub const CLAIM_PAGE_BYTES: usize = 384 * 1024;
/// One-time KeyPackages of a device below which its server tells it to put more.
pub const KEY_PACKAGES_LOW: u32 = 10;
/// Active devices of one account.
pub const DEVICES_MAX: usize = 10;
/// Entries of one device log: a device added and revoked every day for more than a year.
pub const LOG_ENTRIES_MAX: u64 = 1024;
/// One signed device-log entry.
pub const LOG_ENTRY_BYTES_MAX: usize = 1024;
/// Accounts in one conversation.
pub const CONVERSATION_ACCOUNTS_MAX: usize = 1000;
/// Leaves in one conversation: 1,000 people have two and a half devices each.
pub const LEAVES_MAX: usize = 2500;
/// Leaves that one commit adds: its Welcome brings the whole tree, and each of them has to be told its secrets.
pub const ADDS_PER_COMMIT_MAX: usize = 64;
/// Statements of accounts that leave, with one commit.
pub const LEAVES_PER_COMMIT_MAX: usize = 64;
/// The name of a group, in bytes of UTF-8.
pub const GROUP_NAME_BYTES_MAX: usize = 128;
/// Admins of a group.
pub const GROUP_ADMINS_MAX: usize = 64;
/// The state of a group: its name and its admins, each 18 bytes.
pub const GROUP_STATE_BYTES_MAX: usize = 2 * 1024;
/// The encryption key of a leaf (32 bytes with X25519; the hybrid post-quantum suite needs about 1.2 KB).
pub const LEAF_KEY_BYTES_MAX: usize = 2 * 1024;
/// The signed part of a leave.
pub const LEAVE_BYTES_MAX: usize = LEAF_KEY_BYTES_MAX + 128;
/// Device logs in one page of those of a conversation's members, in bytes. Of a longer log a page holds the beginning.
pub const MEMBER_LOGS_PAGE_BYTES: usize = 512 * 1024;
/// Sends of one device that may be without an answer; the server remembers the results of as many.
pub const SENDS_IN_FLIGHT_MAX: u32 = 64;
/// Conversations in one page of a listing: 1,000 accounts of 18 bytes each stay far below a frame.
pub const CONVERSATIONS_PAGE: usize = 32;
/// Commits in one page of the commit log, in bytes, counted before the last one is added.
pub const COMMITS_PAGE_BYTES: usize = 384 * 1024;
/// The detail of an error, in bytes.
pub const ERROR_DETAIL_BYTES_MAX: usize = 512;
/// Accounts that the answer to a send names because they do not exist any more: a `Sent` is a small frame.
pub const SENT_GONE_MAX: usize = 8;
/// The detail of the refusal of a send, in bytes: a `Sent` is a small frame.
pub const SENT_DETAIL_BYTES_MAX: usize = 128;
/// An invite token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 256;
/// A TLS server name (RFC 1035 §2.3.4).
pub const SERVER_NAME_BYTES_MAX: usize = 253;
/// A device's name, in bytes.
pub const DEVICE_NAME_BYTES_MAX: usize = 64;
/// A sealed offer to be linked: two keys, a commitment and a name take about 210 bytes.
pub const LINK_OFFER_BYTES_MAX: usize = 1024;
/// A sealed answer: a log entry's body, ids and a key.
pub const LINK_ANSWER_BYTES_MAX: usize = 16 * 1024;
/// A sealed countersignature.
pub const LINK_REPLY_BYTES_MAX: usize = 1024;
/// How often a device that shows a code can be answered in all.
pub const LINK_APPROVALS_MAX: u32 = 1_000;
/// How often for one offer, of which it makes a new one each time it begins to wait. Each leaves somebody who stands in
/// between one more guess at the digits, and a person needs one or two.
pub const LINK_APPROVALS_PER_OFFER_MAX: u32 = 8;
/// Everything that a device hands over to one that it has linked, sealed.
pub const LINK_BUNDLE_BYTES_MAX: usize = 512 * 1024;
/// Contacts in what is handed over, of at most 91 bytes each.
pub const LINK_CONTACTS_MAX: usize = 4000;
/// Conversations in what is handed over, of at most 31 bytes each.
pub const LINK_CONVERSATIONS_MAX: usize = 5000;
/// Statements of leaving in what is handed over; each takes the place of [`CONTACTS_PER_LINK_LEAVE`] contacts.
pub const LINK_LEAVES_MAX: usize = 256;
/// How many contacts take the room of one such statement.
pub const CONTACTS_PER_LINK_LEAVE: usize = 2;
/// Such a statement, in bytes without its tag and length: one of a leaf with a larger key stays out.
pub const LINK_LEAVE_BYTES_MAX: usize = 91 * CONTACTS_PER_LINK_LEAVE - 3;
/// One QUIC datagram.
pub const DATAGRAM_BYTES_MAX: usize = 200;
/// What a typing indicator seals: a nonce, one byte and a tag take 29.
pub const TYPING_SEALED_BYTES_MAX: usize = 64;
/// The address of a push resource (RFC 8030): browsers' and UnifiedPush distributors' take less than 512 bytes.
pub const PUSH_ENDPOINT_BYTES_MAX: usize = 2 * 1024;
/// An FCM registration token (about 160 bytes; Google promises no length).
pub const PUSH_TOKEN_BYTES_MAX: usize = 4 * 1024;
/// The shortest APNs device token.
pub const APNS_TOKEN_BYTES_MIN: usize = 8;
/// The longest APNs device token (32 bytes; Apple says that this may change, up to 100).
pub const APNS_TOKEN_BYTES_MAX: usize = 100;
/// A phone number as a person writes it: E.164 has at most 15 digits, the rest is for what stands between them.
pub const PHONE_BYTES_MAX: usize = 32;
/// What follows the + of a phone number, at least.
pub const PHONE_REST_BYTES_MIN: usize = 4;
/// The digits of a code that proves a phone number.
pub const CODE_DIGITS: usize = 6;
/// Accounts in one page of relations.
pub const RELATIONS_PAGE: usize = 512;
/// Conversations in one page of preferences.
pub const PREFERENCES_PAGE: usize = 512;
/// The signed part of a Hello.
pub const HELLO_CLAIM_BYTES_MAX: usize = 1024;

const _: () = assert!(CIPHERTEXT_BYTES_MAX + 512 <= FrameKind::Send.payload_bytes_max());
const _: () = assert!(HANDSHAKE_BYTES_MAX + 512 <= FrameKind::Envelope.payload_bytes_max());
const _: () = assert!(2 * HANDSHAKE_BYTES_MAX + 1024 <= FrameKind::Request.payload_bytes_max());
const _: () = assert!(COMMITS_PAGE_BYTES + HANDSHAKE_BYTES_MAX + 1024 <= FrameKind::Response.payload_bytes_max());
const _: () = assert!(GROUP_NAME_BYTES_MAX + GROUP_ADMINS_MAX * 18 + 16 <= GROUP_STATE_BYTES_MAX);
// Each account comes with its id, its handle and some bytes around them; each entry with 3 more bytes.
const _: () = assert!(
    MEMBER_LOGS_PAGE_BYTES + MEMBER_LOGS_PAGE_BYTES / 16 + CONVERSATION_ACCOUNTS_MAX * (18 + HANDLE_BYTES_MAX + 8)
        <= FrameKind::Response.payload_bytes_max()
);
const _: () = assert!(KEY_PACKAGES_MAX * (KEY_PACKAGE_BYTES_MAX + 8) <= FrameKind::Request.payload_bytes_max());
const _: () = assert!(
    CLAIM_PAGE_BYTES + DEVICES_MAX * KEY_PACKAGE_BYTES_MAX + CLAIM_ACCOUNTS_MAX * (DEVICES_MAX * 64 + 32)
        <= FrameKind::Response.payload_bytes_max()
);
// Beside the entry: a token, a handle, a phone number with its code and its lock, and protobuf's own bytes.
const _: () = assert!(
    LOG_ENTRY_BYTES_MAX + TOKEN_BYTES_MAX + HANDLE_BYTES_MAX + PHONE_BYTES_MAX + CODE_DIGITS + 32 + 64
        <= FrameKind::Register.payload_bytes_max()
);
const _: () = assert!(PHONE_BYTES_MAX + 8 <= FrameKind::RequestCode.payload_bytes_max());
// Two lengths of time, and the number.
const _: () = assert!(2 * 11 + PHONE_BYTES_MAX + 2 <= FrameKind::CodeSent.payload_bytes_max());
const _: () = assert!(PUSH_TOKEN_BYTES_MAX + 64 <= FrameKind::Request.payload_bytes_max());
const _: () = assert!(PUSH_ENDPOINT_BYTES_MAX + 65 + 16 + 64 <= FrameKind::Request.payload_bytes_max());
// Each with its id, its relation and their tags and lengths.
const _: () = assert!(RELATIONS_PAGE * 24 + 16 <= FrameKind::Response.payload_bytes_max());
const _: () = assert!(LINK_OFFER_BYTES_MAX + 64 <= FrameKind::Link.payload_bytes_max());
const _: () = assert!(LINK_ANSWER_BYTES_MAX + 64 <= FrameKind::LinkAnswer.payload_bytes_max());
const _: () = assert!(LINK_REPLY_BYTES_MAX + 64 <= FrameKind::LinkReply.payload_bytes_max());
const _: () = assert!(LINK_BUNDLE_BYTES_MAX + 64 <= FrameKind::Linked.payload_bytes_max());
const _: () = assert!(
    91 * LINK_CONTACTS_MAX + 31 * LINK_CONVERSATIONS_MAX + DEVICES_MAX * (DEVICE_NAME_BYTES_MAX + 32) + 256
        <= LINK_BUNDLE_BYTES_MAX
);
// A version, three ids, a key of 32 bytes and a signature, with their tags and lengths.
const _: () = assert!(2 + (2 + 3 * 18 + 34) + 66 <= LINK_LEAVE_BYTES_MAX);
const _: () = assert!(LINK_LEAVES_MAX * CONTACTS_PER_LINK_LEAVE < LINK_CONTACTS_MAX);
const _: () = assert!(LOG_ENTRY_BYTES_MAX + 64 <= FrameKind::Recover.payload_bytes_max());
// A conversation, an account, a device and an epoch, with their tags and lengths.
const _: () = assert!(TYPING_SEALED_BYTES_MAX + 3 * 18 + 11 + 8 <= DATAGRAM_BYTES_MAX);
const _: () = assert!(SENT_DETAIL_BYTES_MAX + 64 <= FrameKind::Sent.payload_bytes_max());
// A counter, a message id, a number, a durability, whether it is repeated, and how many more, around the accounts.
const _: () = assert!(SENT_GONE_MAX * 18 + 11 + 3 + 18 + 11 + 2 + 2 + 6 <= FrameKind::Sent.payload_bytes_max());
const _: () = assert!(ERROR_DETAIL_BYTES_MAX + 64 <= FrameKind::Refused.payload_bytes_max());
const _: () = assert!(HELLO_CLAIM_BYTES_MAX + 128 <= FrameKind::Hello.payload_bytes_max());
