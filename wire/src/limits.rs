//! Every bound of the framing layer, with the reason for each.

use std::ops::RangeInclusive;

/// Most bytes of a `Hello`: ids, a 64-byte signature and digests take about 300; the rest is for what
/// later versions add. Small, because it is read before the peer has proven anything.
pub const HELLO_BYTES_MAX: usize = 2 * KIB;

/// Most bytes of a `Ready`: the server's limits, cursors and notices, some of them text.
pub const READY_BYTES_MAX: usize = 4 * KIB;

/// Most bytes of a `Send`: one application message.
pub const SEND_BYTES_MAX: usize = MESSAGE_BYTES_MAX + HEADER_MESSAGE_BYTES_MAX;

/// Most bytes of a `Sent`: a counter, an id, a number and a durability, and eight accounts that are gone.
pub const SENT_BYTES_MAX: usize = 256;

/// Most bytes of an `Ack`: one or two integers.
pub const ACK_BYTES_MAX: usize = 64;

/// Most bytes of a `Register`: the first entries of a device log and a first lot of KeyPackages. Read
/// before the peer has proven anything.
pub const REGISTER_BYTES_MAX: usize = 32 * KIB;

/// Most bytes of a `Registered`: ids and the server's limits.
pub const REGISTERED_BYTES_MAX: usize = 4 * KIB;

/// Most bytes of a `Refused`: a code, a wait and a short sentence.
pub const REFUSED_BYTES_MAX: usize = KIB;

/// Most bytes of a `Drain`: when to come back.
pub const DRAIN_BYTES_MAX: usize = 64;

/// Most bytes of a `Link`: two ids and a sealed offer. Read before the peer has proven anything.
pub const LINK_BYTES_MAX: usize = 2 * KIB;

/// Most bytes of a `LinkAnswer`: a sealed device-log entry and what tells of the account.
pub const LINK_ANSWER_BYTES_MAX: usize = 17 * KIB;

/// Most bytes of a `LinkReply`: a sealed signature. Read before the peer has proven anything.
pub const LINK_REPLY_BYTES_MAX: usize = 2 * KIB;

/// Most bytes of a `Linked`: sealed pins and names of an account's contacts and conversations.
pub const LINKED_BYTES_MAX: usize = 513 * KIB;

/// Most bytes of a `Recover`: a key and a device-log entry. Read before the peer has proven anything.
pub const RECOVER_BYTES_MAX: usize = 2 * KIB;

/// Most bytes of a `Recovering`: an id, a handle and a hash.
pub const RECOVERING_BYTES_MAX: usize = KIB;

/// Most bytes of an `Envelope`: whatever can lie in an inbox, the largest of which is a handshake.
pub const ENVELOPE_BYTES_MAX: usize = HANDSHAKE_BYTES_MAX + HEADER_HANDSHAKE_BYTES_MAX;

/// Most bytes of a `Gap`: a span, a count and a reason.
pub const GAP_BYTES_MAX: usize = 64;

/// Most bytes of a `CaughtUp`: one or two integers.
pub const CAUGHT_UP_BYTES_MAX: usize = 64;

/// Most bytes of a `RequestCode`: a phone number. Read before the peer has proven anything.
pub const REQUEST_CODE_BYTES_MAX: usize = 512;

/// Most bytes of a `CodeSent`: two lengths of time and a phone number.
pub const CODE_SENT_BYTES_MAX: usize = 128;

/// Most bytes of a `Request`: the largest is a commit bundle.
pub const REQUEST_BYTES_MAX: usize = HANDSHAKE_BYTES_MAX + HEADER_HANDSHAKE_BYTES_MAX;

/// Most bytes of a `Response`: the largest is a ratchet tree or a page of commits.
pub const RESPONSE_BYTES_MAX: usize = HANDSHAKE_BYTES_MAX + HEADER_HANDSHAKE_BYTES_MAX;

/// Most bytes of a `Notice`: a count and a flag.
pub const NOTICE_BYTES_MAX: usize = 64;

/// Most bytes of a `PhoneNotice`: two times.
pub const PHONE_NOTICE_BYTES_MAX: usize = 64;

/// Most bytes of one application message's ciphertext.
pub const MESSAGE_BYTES_MAX: usize = 64 * KIB;

/// Most bytes of one handshake: a commit bundle of 1,000 leaves is about 300 KB (commit 83 KB, tree
/// 186 KB), and a post-quantum suite makes commits an order of magnitude longer.
pub const HANDSHAKE_BYTES_MAX: usize = KIB * KIB;

/// Most bytes that a `Send` adds to its ciphertext: ids, a counter and protobuf's own bytes.
pub const HEADER_MESSAGE_BYTES_MAX: usize = KIB;

/// Most bytes that an `Envelope`, `Request` or `Response` adds to its handshake: ids, and the lists that
/// go with it.
pub const HEADER_HANDSHAKE_BYTES_MAX: usize = 64 * KIB;

/// Frame types that a decoder which does not know them skips, so that a later version can add frames that
/// an older peer need not understand.
pub const IGNORABLE_TYPES: RangeInclusive<u64> = 0x1000..=0x1fff;

/// Most bytes of an ignorable frame. It is skipped without being kept, so the bound is on wasted traffic.
pub const IGNORABLE_BYTES_MAX: usize = 64 * KIB;

/// A payload that straddles chunks gets its whole buffer at once up to this length. Beyond it the buffer
/// doubles as bytes arrive, so that a header alone, which a peer gets for five bytes, pins no more than
/// this.
pub const STRADDLE_FIRST_BYTES: usize = 16 * KIB;

/// Most chunks that a caller hands over before it takes the frames out of them.
pub const UNREAD_CHUNKS_MAX: usize = 64;

/// Most bytes of a frame's type and length together.
pub const FRAME_HEADER_BYTES_MAX: usize = 2 + 4;

/// The longest payload of any type.
pub const PAYLOAD_BYTES_MAX: usize = ENVELOPE_BYTES_MAX;

const KIB: usize = 1024;

const _: () = {
    assert!(SEND_BYTES_MAX == 66_560);
    assert!(ENVELOPE_BYTES_MAX == 1_114_112);
    // What one device may send must fit into what the others receive.
    assert!(SEND_BYTES_MAX < ENVELOPE_BYTES_MAX);
    assert!(REQUEST_BYTES_MAX <= ENVELOPE_BYTES_MAX);
    assert!(RESPONSE_BYTES_MAX <= PAYLOAD_BYTES_MAX);
    // A peer that has proven nothing may send only these.
    assert!(HELLO_BYTES_MAX <= REGISTER_BYTES_MAX && REGISTER_BYTES_MAX <= 32 * KIB);
    assert!(LINK_BYTES_MAX <= REGISTER_BYTES_MAX && LINK_REPLY_BYTES_MAX <= REGISTER_BYTES_MAX);
    assert!(RECOVER_BYTES_MAX <= REGISTER_BYTES_MAX && REQUEST_CODE_BYTES_MAX <= REGISTER_BYTES_MAX);
    assert!(STRADDLE_FIRST_BYTES <= IGNORABLE_BYTES_MAX);
    // A length within the limits takes at most four bytes as a varint.
    assert!(PAYLOAD_BYTES_MAX < 1 << 30 && IGNORABLE_BYTES_MAX < 1 << 30);
};
