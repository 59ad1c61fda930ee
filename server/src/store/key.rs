//! The keys of every family: fixed-width and big-endian, so that their order is the order of their parts.

mod phone;
mod push;

use std::ops::{Deref, Range};

use gureum_proto::{AccountId, ConversationId, DeviceId, InviteId, MessageId};

use crate::limits::{KEY_BYTES_MAX, SENT_RESULTS_KEPT};
pub use phone::{
    NumberHash, code, lock_of, number, parse_number, parse_preference, parse_relation, phone_of, preference,
    preferences, relation, relations, spent,
};
pub use push::{PushTag, parse_push, push_alarm, push_of, push_state, push_target};

/// A key, held in place.
#[derive(Clone, Copy)]
pub struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    len: u8,
}

impl Key {
    /// A key of these parts, one after the other; what is longer than a key may be is cut off.
    fn of(parts: &[&[u8]]) -> Self {
        let mut key = Self { bytes: [0; KEY_BYTES_MAX], len: 0 };
        let mut left = key.bytes.as_mut_slice();
        let mut len = 0_u8;
        for byte in parts.iter().flat_map(|part| part.iter()) {
            let Some((slot, rest)) = left.split_first_mut() else { break };
            *slot = *byte;
            left = rest;
            len = len.saturating_add(1);
        }
        key.len = len;
        key
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.split_at(usize::from(self.len)).0
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Key {}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", data_encoding::HEXLOWER.encode(self.as_slice()))
    }
}

/// The keys from the first (taken in) to the last (left out).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub start: Key,
    /// The key after the last.
    pub end: Key,
}

impl KeyRange {
    /// As a range of slices.
    #[must_use]
    pub fn as_range(&self) -> Range<&[u8]> {
        self.start.as_slice()..self.end.as_slice()
    }
}

/// What is stored under a device's cursor key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CursorTag {
    /// How far it has taken its inbox.
    Cursor = 0,
    /// The results of its latest sends, as a program wrote them that did not know [`sent`].
    SenderWindow = 1,
    /// When it last proved itself.
    Seen = 2,
    /// Where it stands in its life.
    Life = 3,
    /// Its last resort was given out.
    LastResort = 4,
}

/// What is stored under a conversation's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ConversationTag {
    /// The current epoch alone: whoever compares epochs need not read the roster.
    Epoch = b'e',
    /// The GroupInfo of the current epoch.
    GroupInfo = b'g',
    /// Kind, epoch and roster.
    Head = b'h',
    /// The last number given to a message.
    Number = b'n',
    /// Revoked devices and accounts that have left, which are to be removed.
    Removals = b'p',
    /// The ratchet tree of the current epoch.
    Tree = b't',
}

/// Whether a KeyPackage may be claimed once or again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyPackageKind {
    /// Given to one claimer.
    OneTime = 0,
    /// Given when no one-time package is left.
    LastResort = 1,
}

/// A fact of the data directory.
#[must_use]
pub fn meta(name: &str) -> Key {
    Key::of(&[name.as_bytes()])
}

/// A message.
#[must_use]
pub fn message(id: &MessageId) -> Key {
    Key::of(&[id.as_bytes()])
}

/// The least key that a message of this time or later may have.
#[must_use]
pub fn message_floor(time_ms: u64) -> Key {
    // 48 bits of time; no UUIDv7 has zeros behind them, for its version stands there.
    let time = time_ms.min((1 << 48) - 1) << 16;
    Key::of(&[&time.to_be_bytes(), &[0; 8]])
}

/// The time that a message's key says.
#[must_use]
pub fn message_time_ms(key: &[u8]) -> Option<u64> {
    MessageId::try_from(key).ok().map(|id| id.time_ms())
}

/// A position of an inbox.
#[must_use]
pub fn inbox(account: &AccountId, seq: u64) -> Key {
    Key::of(&[account.as_bytes(), &seq.to_be_bytes()])
}

/// The bits of a seq that count positions; those above count how often the server has gone back to a backup.
const LIFE_BITS: u32 = 40;

/// Which life of its inbox a position belongs to: zero until a backup is restored.
#[must_use]
pub const fn inbox_life(seq: u64) -> u64 {
    seq >> LIFE_BITS
}

/// Where an inbox, or the numbers of a conversation, go on after a restore, so that nothing is used twice: devices
/// may have seen positions that the backup knows nothing of, but none of a later life. Saturates.
#[must_use]
pub const fn next_life(seq: u64) -> u64 {
    let life = inbox_life(seq).saturating_add(1);
    if life > SEQ_MAX >> LIFE_BITS { SEQ_MAX } else { life << LIFE_BITS }
}

/// The highest seq that goes over the wire.
const SEQ_MAX: u64 = (1 << 62) - 1;

/// The positions of an inbox after `after_seq`.
#[must_use]
pub fn inbox_after(account: &AccountId, after_seq: u64) -> KeyRange {
    KeyRange { start: inbox(account, after_seq.saturating_add(1)), end: inbox(account, u64::MAX) }
}

/// The account and seq of an inbox's key.
#[must_use]
pub fn parse_inbox(key: &[u8]) -> Option<(AccountId, u64)> {
    let (account, seq) = split_id(key)?;
    Some((AccountId::from_bytes(account), be_u64(seq)?))
}

/// An account's inbox head.
#[must_use]
pub fn inbox_head(account: &AccountId) -> Key {
    Key::of(&[account.as_bytes()])
}

/// What a device has under a tag.
#[must_use]
pub fn cursor(account: &AccountId, device: &DeviceId, tag: CursorTag) -> Key {
    Key::of(&[account.as_bytes(), device.as_bytes(), &[tag as u8]])
}

/// What all devices of an account have under their tags.
#[must_use]
pub fn cursors(account: &AccountId) -> KeyRange {
    KeyRange { start: Key::of(&[account.as_bytes()]), end: Key::of(&[account.as_bytes(), &[0xff; 16], &[u8::MAX]]) }
}

/// The account, device and tag of a cursor's key.
#[must_use]
pub fn parse_cursor(key: &[u8]) -> Option<(AccountId, DeviceId, CursorTag)> {
    let (account, rest) = split_id(key)?;
    let (device, tag) = split_id(rest)?;
    let tag = match tag {
        [0] => CursorTag::Cursor,
        [1] => CursorTag::SenderWindow,
        [2] => CursorTag::Seen,
        [3] => CursorTag::Life,
        [4] => CursorTag::LastResort,
        _ => return None,
    };
    Some((AccountId::from_bytes(account), DeviceId::from_bytes(device), tag))
}

/// The result of a device's send. Each counter takes the place of the one that is too old to be asked for then.
#[must_use]
pub fn sent(account: &AccountId, device: &DeviceId, counter: u64) -> Key {
    let kept = u64::try_from(SENT_RESULTS_KEPT).unwrap_or(u64::MAX);
    let place = u8::try_from(counter % kept).expect("SENT_RESULTS_KEPT fits a byte, as limits.rs asserts");
    Key::of(&[account.as_bytes(), device.as_bytes(), &[place]])
}

/// The results of a device's latest sends.
#[must_use]
pub fn sent_of(account: &AccountId, device: &DeviceId) -> KeyRange {
    let [account, device] = [account.as_bytes(), device.as_bytes()];
    KeyRange { start: Key::of(&[account, device]), end: Key::of(&[account, device, &[u8::MAX]]) }
}

/// The results of the latest sends of all devices of an account.
#[must_use]
pub fn all_sent(account: &AccountId) -> KeyRange {
    KeyRange { start: Key::of(&[account.as_bytes()]), end: Key::of(&[account.as_bytes(), &[0xff; 16], &[u8::MAX]]) }
}

/// The account and device of a result's key.
#[must_use]
pub fn parse_sent(key: &[u8]) -> Option<(AccountId, DeviceId)> {
    let (account, rest) = split_id(key)?;
    let (device, place) = split_id(rest)?;
    (place.len() == 1).then(|| (AccountId::from_bytes(account), DeviceId::from_bytes(device)))
}

/// The commit that ended an epoch.
#[must_use]
pub fn commit(conversation: &ConversationId, epoch: u64) -> Key {
    Key::of(&[conversation.as_bytes(), &epoch.to_be_bytes()])
}

/// The commits of a conversation from an epoch on.
#[must_use]
pub fn commits_from(conversation: &ConversationId, epoch: u64) -> KeyRange {
    KeyRange { start: commit(conversation, epoch), end: commit(conversation, u64::MAX) }
}

/// The conversation and epoch of a commit's key.
#[must_use]
pub fn parse_commit(key: &[u8]) -> Option<(ConversationId, u64)> {
    let (conversation, epoch) = split_id(key)?;
    Some((ConversationId::from_bytes(conversation), be_u64(epoch)?))
}

/// An entry of a device log.
#[must_use]
pub fn device_log(account: &AccountId, index: u64) -> Key {
    Key::of(&[account.as_bytes(), &index.to_be_bytes()])
}

/// The entries of a device log from an index on.
#[must_use]
pub fn device_log_from(account: &AccountId, index: u64) -> KeyRange {
    KeyRange { start: device_log(account, index), end: device_log(account, u64::MAX) }
}

/// The account and index of a device log's key.
#[must_use]
pub fn parse_device_log(key: &[u8]) -> Option<(AccountId, u64)> {
    parse_inbox(key)
}

/// A part of a conversation's state.
#[must_use]
pub fn conversation(conversation: &ConversationId, tag: ConversationTag) -> Key {
    Key::of(&[conversation.as_bytes(), &[tag as u8]])
}

/// The conversation and part that a key says.
#[must_use]
pub fn parse_conversation(key: &[u8]) -> Option<(ConversationId, ConversationTag)> {
    let (conversation, tag) = split_id(key)?;
    let tag = match tag {
        b"e" => ConversationTag::Epoch,
        b"g" => ConversationTag::GroupInfo,
        b"h" => ConversationTag::Head,
        b"n" => ConversationTag::Number,
        b"p" => ConversationTag::Removals,
        b"t" => ConversationTag::Tree,
        _ => return None,
    };
    Some((ConversationId::from_bytes(conversation), tag))
}

/// A KeyPackage, by the hash of its bytes.
#[must_use]
pub fn key_package(account: &AccountId, device: &DeviceId, kind: KeyPackageKind, hash: &[u8; 32]) -> Key {
    Key::of(&[account.as_bytes(), device.as_bytes(), &[kind as u8], hash])
}

/// A device's KeyPackages of one kind.
#[must_use]
pub fn key_packages(account: &AccountId, device: &DeviceId, kind: KeyPackageKind) -> KeyRange {
    let next = (kind as u8).saturating_add(1);
    KeyRange {
        start: Key::of(&[account.as_bytes(), device.as_bytes(), &[kind as u8]]),
        end: Key::of(&[account.as_bytes(), device.as_bytes(), &[next]]),
    }
}

/// The KeyPackages of all devices of an account.
#[must_use]
pub fn account_key_packages(account: &AccountId) -> KeyRange {
    KeyRange { start: Key::of(&[account.as_bytes()]), end: Key::of(&[account.as_bytes(), &[0xff; 16], &[u8::MAX]]) }
}

/// The account, device and kind of a KeyPackage's key.
#[must_use]
pub fn parse_key_package(key: &[u8]) -> Option<(AccountId, DeviceId, KeyPackageKind)> {
    let (account, rest) = split_id(key)?;
    let (device, rest) = split_id(rest)?;
    let kind = match rest.split_first()? {
        (0, hash) if hash.len() == 32 => KeyPackageKind::OneTime,
        (1, hash) if hash.len() == 32 => KeyPackageKind::LastResort,
        _ => return None,
    };
    Some((AccountId::from_bytes(account), DeviceId::from_bytes(device), kind))
}

/// Handle → account.
#[must_use]
pub fn handle(handle: &str) -> Key {
    Key::of(&[b"h", handle.as_bytes()])
}

/// Account → handle.
#[must_use]
pub fn handle_of(account: &AccountId) -> Key {
    Key::of(&[b"a", account.as_bytes()])
}

/// The public half of a recovery key → the account that it brings back.
#[must_use]
pub fn recovery(recovery_key: &[u8; 32]) -> Key {
    Key::of(&[b"r", recovery_key])
}

/// An account that is no longer in some conversation → when it last ceased to be in one.
#[must_use]
pub fn left(account: &AccountId) -> Key {
    Key::of(&[b"l", account.as_bytes()])
}

/// An account that was deleted → when.
#[must_use]
pub fn gone(account: &AccountId) -> Key {
    Key::of(&[b"x", account.as_bytes()])
}

/// All accounts that were deleted.
#[must_use]
pub fn all_gone() -> KeyRange {
    KeyRange { start: Key::of(&[b"x"]), end: Key::of(&[b"x", &[0xff; 17]]) }
}

/// The account of a key that says that it was deleted.
#[must_use]
pub fn parse_gone(key: &[u8]) -> Option<AccountId> {
    AccountId::try_from(key.strip_prefix(b"x")?).ok()
}

/// The two accounts of a direct conversation, in either order → the conversation. An account and itself: that of its own
/// devices.
#[must_use]
pub fn pair(one: &AccountId, other: &AccountId) -> Key {
    let (low, high) = if one <= other { (one, other) } else { (other, one) };
    Key::of(&[b"p", low.as_bytes(), high.as_bytes()])
}

/// An account is a member of a conversation.
#[must_use]
pub fn membership(account: &AccountId, conversation: &ConversationId) -> Key {
    Key::of(&[b"c", account.as_bytes(), conversation.as_bytes()])
}

/// The conversations that an account is a member of.
#[must_use]
pub fn memberships(account: &AccountId) -> KeyRange {
    KeyRange { start: Key::of(&[b"c", account.as_bytes()]), end: Key::of(&[b"c", account.as_bytes(), &[0xff; 17]]) }
}

/// The account and conversation of a membership's key.
#[must_use]
pub fn parse_membership(key: &[u8]) -> Option<(AccountId, ConversationId)> {
    let (account, conversation) = split_id(key.strip_prefix(b"c")?)?;
    Some((AccountId::from_bytes(account), ConversationId::try_from(conversation).ok()?))
}

/// An invite.
#[must_use]
pub fn registration(invite: &InviteId) -> Key {
    Key::of(&[invite.as_bytes()])
}

fn split_id(key: &[u8]) -> Option<([u8; 16], &[u8])> {
    let (id, rest) = key.split_first_chunk::<16>()?;
    Some((*id, rest))
}

fn be_u64(bytes: &[u8]) -> Option<u64> {
    <[u8; 8]>::try_from(bytes).ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId::from_bytes([0xa1; 16]);
    const OTHER: AccountId = AccountId::from_bytes([0xa2; 16]);
    const DEVICE: DeviceId = DeviceId::from_bytes([0xd1; 16]);
    const CONVERSATION: ConversationId = ConversationId::from_bytes([0xc1; 16]);

    #[track_caller]
    fn check(key: Key, expected: &str) {
        assert_eq!(data_encoding::HEXLOWER.encode(&key), expected.replace(' ', ""));
    }

    #[test]
    fn keys_have_these_bytes() {
        let (a, d, c) = ("a1".repeat(16), "d1".repeat(16), "c1".repeat(16));
        check(meta("format"), "666f726d6174");
        check(message(&MessageId::from_bytes([7; 16])), &"07".repeat(16));
        check(message_floor(0x0102), "000000000102 0000 0000000000000000");
        check(inbox(&ACCOUNT, 258), &format!("{a} 0000000000000102"));
        check(inbox_head(&ACCOUNT), &a);
        check(cursor(&ACCOUNT, &DEVICE, CursorTag::SenderWindow), &format!("{a} {d} 01"));
        check(cursor(&ACCOUNT, &DEVICE, CursorTag::Life), &format!("{a} {d} 03"));
        check(cursor(&ACCOUNT, &DEVICE, CursorTag::LastResort), &format!("{a} {d} 04"));
        check(sent(&ACCOUNT, &DEVICE, 63), &format!("{a} {d} 3f"));
        check(sent(&ACCOUNT, &DEVICE, 64), &format!("{a} {d} 00"));
        check(commit(&CONVERSATION, 1), &format!("{c} 0000000000000001"));
        check(device_log(&ACCOUNT, 0), &format!("{a} 0000000000000000"));
        check(conversation(&CONVERSATION, ConversationTag::Head), &format!("{c} 68"));
        let hash = [9; 32];
        check(
            key_package(&ACCOUNT, &DEVICE, KeyPackageKind::LastResort, &hash),
            &format!("{a} {d} 01 {}", "09".repeat(32)),
        );
        check(handle("bo"), "68 626f");
        check(handle_of(&ACCOUNT), &format!("61 {a}"));
        check(membership(&ACCOUNT, &CONVERSATION), &format!("63 {a} {c}"));
        check(recovery(&[0xe1; 32]), &format!("72 {}", "e1".repeat(32)));
        check(left(&ACCOUNT), &format!("6c {a}"));
        check(gone(&ACCOUNT), &format!("78 {a}"));
        assert_eq!(parse_gone(gone(&ACCOUNT).as_slice()), Some(ACCOUNT));
        assert!(all_gone().as_range().contains(&gone(&ACCOUNT).as_slice()));
        check(registration(&InviteId::from_bytes([3; 16])), &"03".repeat(16));
    }

    #[test]
    fn a_pair_has_one_key_whoever_asks() {
        assert_eq!(pair(&ACCOUNT, &OTHER), pair(&OTHER, &ACCOUNT));
        check(pair(&OTHER, &ACCOUNT), &format!("70 {} {}", "a1".repeat(16), "a2".repeat(16)));
        check(pair(&ACCOUNT, &ACCOUNT), &format!("70 {} {}", "a1".repeat(16), "a1".repeat(16)));
    }

    #[test]
    fn parsers_take_back_what_builders_made_and_nothing_else() {
        assert_eq!(parse_inbox(&inbox(&ACCOUNT, 77)), Some((ACCOUNT, 77)));
        assert_eq!(parse_sent(&sent(&ACCOUNT, &DEVICE, 7)), Some((ACCOUNT, DEVICE)));
        assert_eq!((parse_sent(&[0; 32]), parse_sent(&[0; 34])), (None, None));
        assert_eq!(parse_commit(&commit(&CONVERSATION, 4)), Some((CONVERSATION, 4)));
        assert_eq!(parse_device_log(&device_log(&ACCOUNT, 5)), Some((ACCOUNT, 5)));
        for tag in [CursorTag::Cursor, CursorTag::SenderWindow, CursorTag::Seen, CursorTag::Life, CursorTag::LastResort]
        {
            assert_eq!(parse_cursor(&cursor(&ACCOUNT, &DEVICE, tag)), Some((ACCOUNT, DEVICE, tag)));
        }
        assert_eq!(parse_membership(&membership(&ACCOUNT, &CONVERSATION)), Some((ACCOUNT, CONVERSATION)));
        for tag in [
            ConversationTag::Epoch,
            ConversationTag::GroupInfo,
            ConversationTag::Head,
            ConversationTag::Number,
            ConversationTag::Removals,
            ConversationTag::Tree,
        ] {
            assert_eq!(parse_conversation(&conversation(&CONVERSATION, tag)), Some((CONVERSATION, tag)));
        }
        for kind in [KeyPackageKind::OneTime, KeyPackageKind::LastResort] {
            let package = key_package(&ACCOUNT, &DEVICE, kind, &[7; 32]);
            assert_eq!(parse_key_package(&package), Some((ACCOUNT, DEVICE, kind)));
            assert_eq!(parse_key_package(&package[..64]), None);
        }
        assert_eq!(parse_conversation(&[0; 17]), None);
        assert_eq!(parse_inbox(&[0; 23]), None);
        assert_eq!(parse_inbox(&[0; 25]), None);
        assert_eq!(parse_cursor(&[99; 33]), None);
        assert_eq!(message_time_ms(&[0; 15]), None);
    }

    #[test]
    fn a_messages_floor_lies_between_the_milliseconds() {
        assert!(message_floor(5).as_slice() <= message(&MessageId::new(5, 0)).as_slice());
        assert!(message(&MessageId::new(4, u128::MAX)).as_slice() < message_floor(5).as_slice());
        assert_eq!(message_time_ms(&message_floor(5)), Some(5));
    }

    #[test]
    fn ranges_hold_their_own_and_no_neighbours() {
        let range = inbox_after(&ACCOUNT, 3);
        let holds = |range: &KeyRange, key: Key| range.as_range().contains(&key.as_slice());
        assert!(!holds(&range, inbox(&ACCOUNT, 3)));
        assert!(holds(&range, inbox(&ACCOUNT, 4)));
        assert!(!holds(&range, inbox(&OTHER, 4)));
        let high = DeviceId::from_bytes([0xff; 16]);
        assert!(holds(&cursors(&ACCOUNT), cursor(&ACCOUNT, &high, CursorTag::SenderWindow)));
        assert!(!holds(&cursors(&ACCOUNT), cursor(&OTHER, &DEVICE, CursorTag::Cursor)));
        let packages = key_packages(&ACCOUNT, &DEVICE, KeyPackageKind::OneTime);
        assert!(holds(&packages, key_package(&ACCOUNT, &DEVICE, KeyPackageKind::OneTime, &[0xff; 32])));
        assert!(!holds(&packages, key_package(&ACCOUNT, &DEVICE, KeyPackageKind::LastResort, &[0; 32])));
        let all = ConversationId::from_bytes([0xff; 16]);
        assert!(holds(&memberships(&ACCOUNT), membership(&ACCOUNT, &all)));
    }
}
