//! What the messages of a load hold: the time at which they were due, and filling.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use gureum_proto::ConversationId;

/// Where the time stands in a sealed body: after MLSMessage's version and wire format, the group id with its
/// length, the epoch, the content type and the length of the authenticated data (RFC 9420 §6, §6.3.1).
const TIME_AT: usize = 2 + 2 + 1 + 16 + 8 + 1 + 1;
/// The smallest sealed body: the time, no sender data, a ciphertext's length and one byte of it.
pub const SEALED_BYTES_MIN: usize = TIME_AT + 8 + 1 + 4 + 1;
/// The smallest text: the time in hexadecimal.
pub const TEXT_BYTES_MIN: usize = 16;

const FILLING: u8 = 0xA5;

/// Bytes of the form of an MLSMessage with a PrivateMessage, which nobody can decrypt: the time travels as its
/// authenticated data.
pub(super) fn sealed(conversation: ConversationId, epoch: u64, due_ns: u64, bytes: usize) -> Bytes {
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(&[0, 1, 0, 2, 16]);
    out.extend_from_slice(conversation.as_bytes());
    out.extend_from_slice(&epoch.to_be_bytes());
    out.extend_from_slice(&[1, 8]);
    out.extend_from_slice(&due_ns.to_be_bytes());
    // Nothing in the encrypted sender data; then the ciphertext, its length as a varint of four bytes.
    out.push(0);
    let filling = u32::try_from(bytes.saturating_sub(out.len() + 4)).unwrap_or(0);
    out.extend_from_slice(&(filling | 0x8000_0000).to_be_bytes());
    out.resize(bytes, FILLING);
    out.into()
}

/// When a sealed body was due.
pub(super) fn sealed_due_ns(body: &[u8]) -> Option<u64> {
    body.get(TIME_AT..)?.first_chunk::<8>().map(|time| u64::from_be_bytes(*time))
}

/// A text that begins with the time.
pub(super) fn text(due_ns: u64, bytes: usize) -> String {
    let mut text = HEXLOWER.encode(&due_ns.to_be_bytes());
    text.extend(std::iter::repeat_n('~', bytes.saturating_sub(text.len())));
    text
}

/// When a text was due.
pub(super) fn text_due_ns(text: &str) -> Option<u64> {
    u64::from_str_radix(text.get(..TEXT_BYTES_MIN)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_the_size_asked_for_and_give_their_time_back() {
        let conversation = ConversationId::from_bytes([7; 16]);
        for bytes in [SEALED_BYTES_MIN, 256, 60_000] {
            let body = sealed(conversation, 1, 0x0102_0304_0506_0708, bytes);
            assert_eq!((body.len(), sealed_due_ns(&body)), (bytes, Some(0x0102_0304_0506_0708)));
        }
        for bytes in [TEXT_BYTES_MIN, 256] {
            let body = text(77, bytes);
            assert_eq!((body.len(), text_due_ns(&body)), (bytes, Some(77)));
        }
        assert_eq!((sealed_due_ns(&[0; 20]), text_due_ns("short")), (None, None));
    }
}
