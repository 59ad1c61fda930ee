//! The keys of phone numbers and of what accounts have decided about each other.

use gureum_proto::{AccountId, ConversationId};

use super::{Key, KeyRange, split_id};

/// A phone number, as it is stored: hashed under a key that is kept outside the database.
pub type NumberHash = [u8; 32];

/// A number → the account that has proven it.
#[must_use]
pub fn number(number: &NumberHash) -> Key {
    Key::of(&[b"n", number])
}

/// The number that a key says.
#[must_use]
pub fn parse_number(key: &[u8]) -> Option<NumberHash> {
    key.strip_prefix(b"n")?.try_into().ok()
}

/// Account → its number, and what its devices are to be told about it.
#[must_use]
pub fn phone_of(account: &AccountId) -> Key {
    Key::of(&[b"o", account.as_bytes()])
}

/// Account → its registration lock.
#[must_use]
pub fn lock_of(account: &AccountId) -> Key {
    Key::of(&[b"k", account.as_bytes()])
}

/// What an account has decided about another.
#[must_use]
pub fn relation(owner: &AccountId, other: &AccountId) -> Key {
    Key::of(&[b"b", owner.as_bytes(), other.as_bytes()])
}

/// What an account has decided about others.
#[must_use]
pub fn relations(owner: &AccountId) -> KeyRange {
    KeyRange { start: Key::of(&[b"b", owner.as_bytes()]), end: Key::of(&[b"b", owner.as_bytes(), &[0xff; 17]]) }
}

/// Who has decided, and about whom, of a relation's key.
#[must_use]
pub fn parse_relation(key: &[u8]) -> Option<(AccountId, AccountId)> {
    let (owner, other) = split_id(key.strip_prefix(b"b")?)?;
    Some((AccountId::from_bytes(owner), AccountId::try_from(other).ok()?))
}

/// What an account has decided about a conversation.
#[must_use]
pub fn preference(owner: &AccountId, conversation: &ConversationId) -> Key {
    Key::of(&[b"w", owner.as_bytes(), conversation.as_bytes()])
}

/// What an account has decided about its conversations.
#[must_use]
pub fn preferences(owner: &AccountId) -> KeyRange {
    KeyRange { start: Key::of(&[b"w", owner.as_bytes()]), end: Key::of(&[b"w", owner.as_bytes(), &[0xff; 17]]) }
}

/// The account and conversation of a preference's key.
#[must_use]
pub fn parse_preference(key: &[u8]) -> Option<(AccountId, ConversationId)> {
    let (owner, conversation) = split_id(key.strip_prefix(b"w")?)?;
    Some((AccountId::from_bytes(owner), ConversationId::try_from(conversation).ok()?))
}

/// The code that was last sent to a number.
#[must_use]
pub fn code(number: &NumberHash) -> Key {
    Key::of(&[b"c", number])
}

/// How many codes were sent on a day, in days since 1970.
#[must_use]
pub fn spent(day: u32) -> Key {
    Key::of(&[b"s", &day.to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId::from_bytes([0xa1; 16]);
    const OTHER: AccountId = AccountId::from_bytes([0xa2; 16]);
    const CONVERSATION: ConversationId = ConversationId::from_bytes([0xc1; 16]);
    const NUMBER: NumberHash = [0x0e; 32];

    #[track_caller]
    fn check(key: Key, expected: &str) {
        assert_eq!(data_encoding::HEXLOWER.encode(&key), expected.replace(' ', ""));
    }

    #[test]
    fn keys_have_these_bytes() {
        let (a, o, c, n) = ("a1".repeat(16), "a2".repeat(16), "c1".repeat(16), "0e".repeat(32));
        check(number(&NUMBER), &format!("6e {n}"));
        check(phone_of(&ACCOUNT), &format!("6f {a}"));
        check(lock_of(&ACCOUNT), &format!("6b {a}"));
        check(relation(&ACCOUNT, &OTHER), &format!("62 {a} {o}"));
        check(preference(&ACCOUNT, &CONVERSATION), &format!("77 {a} {c}"));
        check(code(&NUMBER), &format!("63 {n}"));
        check(spent(258), "73 00000102");
    }

    #[test]
    fn parsers_take_back_what_builders_made_and_nothing_else() {
        assert_eq!(parse_number(&number(&NUMBER)), Some(NUMBER));
        assert_eq!(parse_relation(&relation(&ACCOUNT, &OTHER)), Some((ACCOUNT, OTHER)));
        assert_eq!(parse_preference(&preference(&ACCOUNT, &CONVERSATION)), Some((ACCOUNT, CONVERSATION)));
        assert_eq!(parse_number(&code(&NUMBER)), None);
        assert_eq!(parse_number(&number(&NUMBER)[..32]), None);
        assert_eq!(parse_relation(&preference(&ACCOUNT, &CONVERSATION)), None);
        assert_eq!(parse_relation(&relation(&ACCOUNT, &OTHER)[..32]), None);
        assert_eq!(parse_preference(&relation(&ACCOUNT, &OTHER)), None);
    }

    #[test]
    fn the_ranges_of_an_account_hold_its_own_and_no_neighbours() {
        let holds = |range: KeyRange, key: Key| range.as_range().contains(&key.as_slice());
        for other in [[0; 16], [0xff; 16]] {
            let (account, conversation) = (AccountId::from_bytes(other), ConversationId::from_bytes(other));
            assert!(holds(relations(&ACCOUNT), relation(&ACCOUNT, &account)));
            assert!(!holds(relations(&ACCOUNT), relation(&OTHER, &account)));
            assert!(holds(preferences(&ACCOUNT), preference(&ACCOUNT, &conversation)));
            assert!(!holds(preferences(&ACCOUNT), preference(&OTHER, &conversation)));
            assert!(!holds(preferences(&ACCOUNT), relation(&ACCOUNT, &account)));
        }
    }
}
