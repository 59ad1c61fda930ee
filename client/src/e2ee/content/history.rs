//! A part of the history of one device of an account, as it hands it over to another one. Parts stand by themselves: one
//! may come twice, or after a later one; what is kept is the same.

use ciborium::Value;
use gureum_proto::limits::GROUP_NAME_BYTES_MAX;
use gureum_proto::{AccountId, ConversationId, DeviceId, Handle, MessageId};

use super::{ContentError, ContentId, ReceiptKind, content_id, whole};
use crate::limits::{HISTORY_PART_ENTRIES_MAX, HISTORY_RECEIPTS_MAX, NUMBER_MAX, TEXT_BYTES_MAX};

/// The name of a transfer.
pub(crate) type TransferId = [u8; 16];

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Of which transfer.
    pub(crate) transfer: TransferId,
    /// For which device.
    pub(crate) to: DeviceId,
    /// Its number in the transfer, from 0: by it the sender knows how many are on their way.
    pub(crate) number: u64,
    /// Where in the sender's history it begins: whoever has everything up to here misses nothing before it.
    pub(crate) after: u64,
    /// Where it ends.
    pub(crate) until: u64,
    /// How many messages are handed over with this part and those before it.
    pub(crate) messages: u64,
    /// How many there are in all, as far as the sender knows by now.
    pub(crate) total: u64,
    /// Whether nothing follows.
    pub(crate) is_last: bool,
    /// The accounts that this part names.
    pub(crate) people: Vec<Person>,
    /// The conversations that it names.
    pub(crate) talks: Vec<Talk>,
    /// The messages.
    pub(crate) entries: Vec<Entry>,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    /// Which.
    pub(crate) account: AccountId,
    /// Its handle.
    pub(crate) handle: Handle,
    /// Whether the handle stands for another account by now.
    pub(crate) is_former: bool,
    /// For which.
    pub(crate) replaced_by: Option<AccountId>,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Talk {
    /// Which.
    pub(crate) conversation: ConversationId,
    /// The other account of a conversation of two.
    pub(crate) peer: Option<AccountId>,
    /// The name of a group.
    pub(crate) name: Option<String>,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where: a place in [`Part::talks`].
    pub(crate) talk: usize,
    /// By whom: a place in [`Part::people`].
    pub(crate) from: usize,
    /// By which device.
    pub(crate) device: DeviceId,
    /// Its name.
    pub(crate) id: ContentId,
    /// The server's id, where it is known.
    pub(crate) message_id: Option<MessageId>,
    /// The server's time.
    pub(crate) time_ms: u64,
    /// Its number in its conversation; 0 where it is not known.
    pub(crate) number: u64,
    /// What it says.
    pub(crate) text: String,
    /// Who has got it, of one that the account has written.
    pub(crate) receipts: Vec<Receipt>,
}

/// What one account has said of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Which account: a place in [`Part::people`].
    pub(crate) by: usize,
    /// What.
    pub(crate) kind: ReceiptKind,
    /// When the server had it.
    pub(crate) time_ms: u64,
}

impl Part {
    pub(super) fn to_value(&self) -> Value {
        Value::Array(vec![
            bytes(&self.transfer),
            bytes(self.to.as_bytes()),
            self.number.into(),
            self.after.into(),
            self.until.into(),
            self.messages.into(),
            self.total.into(),
            u64::from(self.is_last).into(),
            Value::Array(self.people.iter().map(Person::to_value).collect()),
            Value::Array(self.talks.iter().map(Talk::to_value).collect()),
            Value::Array(self.entries.iter().map(Entry::to_value).collect()),
        ])
    }

    /// Reads a part. A message that is malformed, or names what the part does not, is passed; what follows the elements
    /// that are known is for newer programs.
    pub(super) fn read(value: Value) -> Result<Self, ContentError> {
        Self::fields(value).ok_or(ContentError::Malformed)
    }

    fn fields(value: Value) -> Option<Self> {
        let mut fields = value.into_array().ok()?.into_iter();
        let mut next = || fields.next();
        let mut part = Self {
            transfer: content_id(next()?)?,
            to: DeviceId::from_bytes(content_id(next()?)?),
            number: number(&next()?)?,
            after: number(&next()?)?,
            until: number(&next()?)?,
            messages: number(&next()?)?,
            total: number(&next()?)?,
            is_last: number(&next()?)? == 1,
            people: list(next()?)?.into_iter().map(Person::read).collect::<Option<_>>()?,
            talks: list(next()?)?.into_iter().map(Talk::read).collect::<Option<_>>()?,
            entries: list(next()?)?.into_iter().filter_map(Entry::read).collect(),
        };
        if part.after > part.until || part.messages > part.total {
            return None;
        }
        let (people, talks) = (part.people.len(), part.talks.len());
        part.entries.retain(|entry| entry.from < people && entry.talk < talks);
        for entry in &mut part.entries {
            entry.receipts.retain(|receipt| receipt.by < people);
        }
        Some(part)
    }
}

impl Person {
    /// The most bytes that it takes in a part.
    pub(crate) fn bytes_max(&self) -> usize {
        self.handle.as_str().len() + 48
    }

    fn to_value(&self) -> Value {
        Value::Array(vec![
            bytes(self.account.as_bytes()),
            Value::Text(self.handle.to_string()),
            u64::from(self.is_former).into(),
            self.replaced_by.map_or(Value::Null, |account| bytes(account.as_bytes())),
        ])
    }

    fn read(value: Value) -> Option<Self> {
        let mut fields = value.into_array().ok()?.into_iter();
        let mut next = || fields.next();
        Some(Self {
            account: AccountId::from_bytes(content_id(next()?)?),
            handle: next()?.into_text().ok()?.parse().ok()?,
            is_former: number(&next()?)? == 1,
            replaced_by: nullable(next()?, content_id)?.map(AccountId::from_bytes),
        })
    }
}

impl Talk {
    /// The most bytes that it takes in a part.
    pub(crate) fn bytes_max(&self) -> usize {
        self.name.as_ref().map_or(0, String::len) + 48
    }

    fn to_value(&self) -> Value {
        Value::Array(vec![
            bytes(self.conversation.as_bytes()),
            self.peer.map_or(Value::Null, |account| bytes(account.as_bytes())),
            self.name.clone().map_or(Value::Null, Value::Text),
        ])
    }

    fn read(value: Value) -> Option<Self> {
        let mut fields = value.into_array().ok()?.into_iter();
        let mut next = || fields.next();
        let name = |value: Value| value.into_text().ok().filter(|name| name.len() <= GROUP_NAME_BYTES_MAX);
        Some(Self {
            conversation: ConversationId::from_bytes(content_id(next()?)?),
            peer: nullable(next()?, content_id)?.map(AccountId::from_bytes),
            name: nullable(next()?, name)?,
        })
    }
}

impl Entry {
    /// The most bytes that it takes in a part, beside whom and what it names.
    pub(crate) fn bytes_max(&self) -> usize {
        self.text.len() + self.receipts.len() * 16 + 112
    }

    fn to_value(&self) -> Value {
        // Three elements each, in one list: what nests less is shorter.
        let receipts = self
            .receipts
            .iter()
            .flat_map(|receipt| [place(receipt.by), receipt.kind.number().into(), receipt.time_ms.into()]);
        Value::Array(vec![
            place(self.talk),
            place(self.from),
            bytes(self.device.as_bytes()),
            bytes(&self.id),
            self.message_id.map_or(Value::Null, |id| bytes(id.as_bytes())),
            self.time_ms.into(),
            self.number.into(),
            Value::Text(self.text.clone()),
            Value::Array(receipts.collect()),
        ])
    }

    /// `None` of what is no message.
    fn read(value: Value) -> Option<Self> {
        let mut fields = value.into_array().ok()?.into_iter();
        let mut next = || fields.next();
        Some(Self {
            talk: read_place(&next()?)?,
            from: read_place(&next()?)?,
            device: DeviceId::from_bytes(content_id(next()?)?),
            id: content_id(next()?)?,
            message_id: nullable(next()?, content_id)?.map(MessageId::from_bytes),
            time_ms: number(&next()?)?,
            number: number(&next()?)?,
            text: next()?.into_text().ok().filter(|text| !text.is_empty() && text.len() <= TEXT_BYTES_MAX)?,
            receipts: read_receipts(next()?)?,
        })
    }
}

/// Those of a kind that is not known here are for newer programs.
fn read_receipts(value: Value) -> Option<Vec<Receipt>> {
    let mut fields = value.into_array().ok()?.into_iter();
    let mut receipts = Vec::new();
    while receipts.len() < HISTORY_RECEIPTS_MAX {
        let (Some(by), Some(kind), Some(time)) = (fields.next(), fields.next(), fields.next()) else { break };
        if let Some(kind) = ReceiptKind::from_number(number(&kind)?) {
            receipts.push(Receipt { by: read_place(&by)?, kind, time_ms: number(&time)? });
        }
    }
    Some(receipts)
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

fn place(place: usize) -> Value {
    Value::from(u64::try_from(place).unwrap_or(u64::MAX))
}

fn read_place(value: &Value) -> Option<usize> {
    whole(value).and_then(|place| usize::try_from(place).ok())
}

fn number(value: &Value) -> Option<u64> {
    whole(value).filter(|number| *number <= NUMBER_MAX)
}

/// A list that is not longer than what a part may hold.
fn list(value: Value) -> Option<Vec<Value>> {
    value.into_array().ok().filter(|list| list.len() <= HISTORY_PART_ENTRIES_MAX)
}

/// `None` of what is malformed, `Some(None)` where nothing is said.
fn nullable<T>(value: Value, read: impl FnOnce(Value) -> Option<T>) -> Option<Option<T>> {
    if value.is_null() { Some(None) } else { read(value).map(Some) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

    use super::*;
    use crate::e2ee::content::{Body, Content};

    fn part() -> Part {
        let (alice, bob) = (AccountId::from_bytes([2; 16]), AccountId::from_bytes([3; 16]));
        let person = |account, handle: &str| {
            let handle = handle.parse().unwrap();
            Person { account, handle, is_former: false, replaced_by: None }
        };
        let receipt = Receipt { by: 1, kind: ReceiptKind::Read, time_ms: 9 };
        Part {
            transfer: [5; 16],
            to: DeviceId::from_bytes([6; 16]),
            number: 0,
            after: 0,
            until: 4,
            messages: 1,
            total: 2,
            is_last: false,
            people: vec![
                person(alice, "alice"),
                Person { is_former: true, replaced_by: Some(alice), ..person(bob, "bob") },
            ],
            talks: vec![Talk { conversation: ConversationId::from_bytes([1; 16]), peer: Some(bob), name: None }],
            entries: vec![Entry {
                talk: 0,
                from: 0,
                device: DeviceId::from_bytes([4; 16]),
                id: [8; 16],
                message_id: None,
                time_ms: 7,
                number: 3,
                text: "hi".to_owned(),
                receipts: vec![receipt],
            }],
        }
    }

    fn content(part: Part) -> Content {
        Content { id: [7; 16], body: Body::History(part) }
    }

    fn read(part: &Part) -> Result<Content, ContentError> {
        Content::parse(&content(part.clone()).to_bytes())
    }

    #[test]
    fn round_trips() {
        let group = Talk { peer: None, name: Some("Book club".to_owned()), ..part().talks.remove(0) };
        let message_id = Some(MessageId::new(7, 1));
        let other = Part {
            is_last: true,
            talks: vec![group],
            entries: vec![Entry { message_id, receipts: vec![], ..part().entries.remove(0) }],
            ..part()
        };
        for part in [part(), other] {
            assert_eq!(read(&part), Ok(content(part)));
        }
    }

    #[test]
    fn has_these_bytes() {
        let id = |byte: &str| format!("50{}", byte.repeat(16));
        let expected = [
            "a3000101".to_owned(),
            id("07"),
            format!("058b{}{}0000040102", id("05"), id("06")),
            "00".to_owned(),
            format!("8284{}65616c69636500f6", id("02")),
            format!("84{}63626f6201{}", id("03"), id("02")),
            format!("8183{}{}f6", id("01"), id("03")),
            format!("81890000{}{}f60703626869", id("04"), id("08")),
            "83010209".to_owned(),
        ];
        assert_eq!(data_encoding::HEXLOWER.encode(&content(part()).to_bytes()), expected.concat());
    }

    #[test]
    fn a_message_that_names_what_the_part_does_not_is_passed() {
        let entry = || part().entries.remove(0);
        let elsewhere = [
            Entry { talk: 1, ..entry() },
            Entry { from: 2, ..entry() },
            Entry { text: String::new(), ..entry() },
            Entry { text: "x".repeat(TEXT_BYTES_MAX + 1), ..entry() },
            Entry { number: u64::MAX, ..entry() },
        ];
        for other in elsewhere {
            let mixed = Part { entries: vec![other.clone(), entry()], ..part() };
            assert_eq!(read(&mixed), Ok(content(part())), "{other:?}");
        }
        let stranger = Receipt { by: 2, kind: ReceiptKind::Read, time_ms: 9 };
        let receipts = vec![stranger, entry().receipts.remove(0)];
        let with_a_stranger = Part { entries: vec![Entry { receipts, ..entry() }], ..part() };
        assert_eq!(read(&with_a_stranger), Ok(content(part())));
    }

    #[test]
    fn a_part_that_holds_too_much_or_ends_before_it_begins_is_refused() {
        let full = Part { entries: vec![part().entries.remove(0); HISTORY_PART_ENTRIES_MAX], ..part() };
        assert!(read(&full).is_ok());
        let fuller = Part { entries: vec![part().entries.remove(0); HISTORY_PART_ENTRIES_MAX + 1], ..part() };
        let beyond = NUMBER_MAX + 1;
        let highest = Part { number: NUMBER_MAX, messages: NUMBER_MAX, total: NUMBER_MAX, ..part() };
        assert!(read(&highest).is_ok());
        let numbered = Part { number: beyond, ..part() };
        let counted = Part { total: beyond, ..part() };
        let placed = Part { until: beyond, ..part() };
        for refused in [fuller, Part { after: 5, ..part() }, Part { messages: 3, ..part() }, numbered, counted, placed]
        {
            assert_eq!(read(&refused), Err(ContentError::Malformed));
        }
        assert_eq!(Part::read(Value::Null), Err(ContentError::Malformed));
        assert_eq!(Part::read(Value::Array(vec![])), Err(ContentError::Malformed));
    }

    #[test]
    fn what_it_is_counted_as_is_no_less_than_what_it_takes() {
        let bytes = |value: Value| {
            let mut bytes = Vec::new();
            ciborium::into_writer(&value, &mut bytes).unwrap();
            bytes.len()
        };
        let many = usize::from(u16::MAX);
        let receipt = || Receipt { by: many, kind: ReceiptKind::Read, time_ms: NUMBER_MAX };
        let entry = Entry {
            talk: many,
            from: many,
            message_id: Some(MessageId::from_bytes([9; 16])),
            time_ms: NUMBER_MAX,
            number: NUMBER_MAX,
            text: "x".repeat(TEXT_BYTES_MAX),
            receipts: (0..HISTORY_RECEIPTS_MAX).map(|_| receipt()).collect(),
            ..part().entries.remove(0)
        };
        assert!(bytes(entry.to_value()) <= entry.bytes_max());
        let talk = Talk { name: Some("x".repeat(GROUP_NAME_BYTES_MAX)), ..part().talks.remove(0) };
        assert!(bytes(talk.to_value()) <= talk.bytes_max());
        let person = part().people.remove(1);
        assert!(bytes(person.to_value()) <= person.bytes_max());
    }
}
