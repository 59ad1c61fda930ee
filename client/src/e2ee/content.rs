//! What an application message holds once it is decrypted: a CBOR map that leaves room for edits.

pub(crate) mod history;
pub(crate) mod record;

use ciborium::Value;
use serde::{Deserialize, Serialize};

use crate::limits::RECEIPT_IDS_MAX;
use history::Part;
use record::Record;

const VERSION: u64 = 1;
const KEY_VERSION: u64 = 0;
const KEY_ID: u64 = 1;
const KEY_TEXT: u64 = 2;
const KEY_RECEIPT: u64 = 3;
const KEY_RECORDS: u64 = 4;
const KEY_HISTORY: u64 = 5;
/// Of the map of a receipt.
const KEY_RECEIPT_KIND: u64 = 0;
/// Of the map of a receipt.
const KEY_RECEIPT_IDS: u64 = 1;
/// The bytes of a content id.
pub(crate) const CONTENT_ID_BYTES: usize = 16;
/// No content nests deeper than a part of a history; a hostile nesting stops here.
const DEPTH_MAX: usize = 8;

/// Random, the sender's: by it the same message is known again if it comes twice, and receipts name it.
pub(crate) type ContentId = [u8; CONTENT_ID_BYTES];

/// The content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// Its name.
    pub(crate) id: ContentId,
    /// What it is.
    pub(crate) body: Body,
}

/// What a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// What somebody says.
    Text(String),
    /// What has become of messages of others; travels silently.
    Receipt(Receipt),
    /// What another device of the account is to know; travels silently, and between these devices alone.
    Records(Vec<Record>),
    /// What was said before another device of the account came; travels as records do.
    History(Part),
}

/// What has become of messages at their reader's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// How far they have come.
    pub(crate) kind: ReceiptKind,
    /// Which, at most [`RECEIPT_IDS_MAX`].
    pub(crate) ids: Vec<ContentId>,
}

/// How far a message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptKind {
    /// A device of the account has it.
    Delivered,
    /// The person has seen it, and so a device has it.
    Read,
}

impl ReceiptKind {
    pub(crate) const fn number(self) -> u64 {
        match self {
            Self::Delivered => 1,
            Self::Read => 2,
        }
    }

    pub(crate) const fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Delivered),
            2 => Some(Self::Read),
            _ => None,
        }
    }
}

/// Content that this program cannot show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ContentError {
    /// Not the map it should be.
    #[error("its content is malformed")]
    Malformed,
    /// Of a kind or version that is not known here.
    #[error("its content is of a kind that this program does not know; update it")]
    Unknown,
}

impl Content {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let body = match &self.body {
            Body::Text(text) => (Value::from(KEY_TEXT), Value::Text(text.clone())),
            Body::Receipt(receipt) => (Value::from(KEY_RECEIPT), receipt.to_value()),
            Body::Records(records) => (Value::from(KEY_RECORDS), record::to_value(records)),
            Body::History(part) => (Value::from(KEY_HISTORY), part.to_value()),
        };
        let map = Value::Map(vec![
            (Value::from(KEY_VERSION), Value::from(VERSION)),
            (Value::from(KEY_ID), Value::Bytes(self.id.to_vec())),
            body,
        ]);
        let mut bytes = Vec::new();
        ciborium::into_writer(&map, &mut bytes).expect("a Vec takes what is written");
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ContentError> {
        let mut rest = bytes;
        let value: Value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_MAX)
            .map_err(|_| ContentError::Malformed)?;
        let Value::Map(entries) = value else { return Err(ContentError::Malformed) };
        if !rest.is_empty() {
            return Err(ContentError::Malformed);
        }
        let (mut version, mut id) = (None, None);
        let (mut text, mut receipt, mut records, mut history) = (None, None, None, None);
        for (key, value) in entries {
            match whole(&key) {
                Some(KEY_VERSION) => version = whole(&value),
                Some(KEY_ID) => id = content_id(value),
                Some(KEY_TEXT) => text = value.into_text().ok(),
                Some(KEY_RECEIPT) => receipt = Some(value),
                Some(KEY_RECORDS) => records = Some(value),
                Some(KEY_HISTORY) => history = Some(value),
                _ => {}
            }
        }
        let id = match (version, id) {
            (Some(VERSION), Some(id)) => id,
            (Some(VERSION), None) | (None, _) => return Err(ContentError::Malformed),
            _ => return Err(ContentError::Unknown),
        };
        let body = match (text, receipt, records, history) {
            (Some(text), None, None, None) => Body::Text(text),
            (None, Some(receipt), None, None) => Body::Receipt(Receipt::read(receipt)?),
            (None, None, Some(records), None) => Body::Records(record::read(records)?),
            (None, None, None, Some(part)) => Body::History(Part::read(part)?),
            (None, None, None, None) => return Err(ContentError::Unknown),
            _ => return Err(ContentError::Malformed),
        };
        Ok(Self { id, body })
    }
}

impl Receipt {
    fn to_value(&self) -> Value {
        let ids = self.ids.iter().map(|id| Value::Bytes(id.to_vec())).collect();
        Value::Map(vec![
            (Value::from(KEY_RECEIPT_KIND), Value::from(self.kind.number())),
            (Value::from(KEY_RECEIPT_IDS), Value::Array(ids)),
        ])
    }

    fn read(value: Value) -> Result<Self, ContentError> {
        let Value::Map(entries) = value else { return Err(ContentError::Malformed) };
        let (mut kind, mut ids) = (None, None);
        for (key, value) in entries {
            match whole(&key) {
                Some(KEY_RECEIPT_KIND) => kind = whole(&value),
                Some(KEY_RECEIPT_IDS) => ids = value.into_array().ok(),
                _ => {}
            }
        }
        let (kind, ids) = kind.zip(ids).ok_or(ContentError::Malformed)?;
        if ids.is_empty() || ids.len() > RECEIPT_IDS_MAX {
            return Err(ContentError::Malformed);
        }
        let ids = ids.into_iter().map(content_id).collect::<Option<Vec<_>>>().ok_or(ContentError::Malformed)?;
        let kind = ReceiptKind::from_number(kind).ok_or(ContentError::Unknown)?;
        Ok(Self { kind, ids })
    }
}

fn whole(value: &Value) -> Option<u64> {
    value.as_integer().and_then(|number| u64::try_from(number).ok())
}

fn content_id(value: Value) -> Option<ContentId> {
    value.into_bytes().ok().and_then(|id| id.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(body: Body) -> Content {
        Content { id: [7; 16], body }
    }

    #[test]
    fn round_trips() {
        let text = content(Body::Text("안녕 hi".into()));
        assert_eq!(Content::parse(&text.to_bytes()), Ok(text));
        for kind in [ReceiptKind::Delivered, ReceiptKind::Read] {
            let receipt = content(Body::Receipt(Receipt { kind, ids: vec![[1; 16], [2; 16]] }));
            assert_eq!(Content::parse(&receipt.to_bytes()), Ok(receipt));
        }
    }

    #[test]
    fn has_these_bytes() {
        let check = |body, expected: &str| {
            assert_eq!(data_encoding::HEXLOWER.encode(&content(body).to_bytes()), expected);
        };
        check(Body::Text("hi".into()), "a3000101500707070707070707070707070707070702626869");
        let receipt = Receipt { kind: ReceiptKind::Read, ids: vec![[1; 16]] };
        check(
            Body::Receipt(receipt),
            "a3000101500707070707070707070707070707070703a2000201815001010101010101010101010101010101",
        );
    }

    /// A content with these fields.
    fn map(entries: Vec<(u64, Value)>) -> Vec<u8> {
        let entries = entries.into_iter().map(|(key, value)| (Value::from(key), value)).collect();
        let mut bytes = Vec::new();
        ciborium::into_writer(&Value::Map(entries), &mut bytes).unwrap();
        bytes
    }

    fn version() -> (u64, Value) {
        (KEY_VERSION, 1.into())
    }

    fn id() -> (u64, Value) {
        (KEY_ID, Value::Bytes(vec![1; 16]))
    }

    fn text() -> (u64, Value) {
        (KEY_TEXT, Value::Text("x".into()))
    }

    #[test]
    fn ignores_unknown_fields_and_tells_unknown_kinds_from_garbage() {
        let with_more = map(vec![version(), id(), text(), (9, Value::Null)]);
        assert_eq!(Content::parse(&with_more).map(|content| content.body), Ok(Body::Text("x".into())));
        assert_eq!(Content::parse(&map(vec![(KEY_VERSION, 2.into()), id(), text()])), Err(ContentError::Unknown));
        assert_eq!(Content::parse(&map(vec![version(), id()])), Err(ContentError::Unknown));
        assert_eq!(Content::parse(&map(vec![id(), text()])), Err(ContentError::Malformed));
        assert_eq!(Content::parse(b"\x81\x81\x81\x81\x81\x81\x81\x81\x81\x81\x00"), Err(ContentError::Malformed));
        assert_eq!(Content::parse(b""), Err(ContentError::Malformed));
    }

    #[test]
    fn a_receipt_names_some_messages_and_not_too_many() {
        let read = |kind: u64, ids: Vec<Value>| {
            let receipt = Value::Map(vec![
                (Value::from(KEY_RECEIPT_KIND), kind.into()),
                (Value::from(KEY_RECEIPT_IDS), Value::Array(ids)),
            ]);
            Content::parse(&map(vec![version(), id(), (KEY_RECEIPT, receipt)])).map(drop)
        };
        let ids = |count| vec![Value::Bytes(vec![1; 16]); count];
        assert_eq!(read(1, ids(RECEIPT_IDS_MAX)), Ok(()));
        assert_eq!(read(1, ids(RECEIPT_IDS_MAX + 1)), Err(ContentError::Malformed));
        assert_eq!(read(1, ids(0)), Err(ContentError::Malformed));
        assert_eq!(read(1, vec![Value::Bytes(vec![1; 15])]), Err(ContentError::Malformed));
        assert_eq!(read(3, ids(1)), Err(ContentError::Unknown));
        let both = vec![version(), id(), text(), (KEY_RECEIPT, Value::Null)];
        assert_eq!(Content::parse(&map(both)), Err(ContentError::Malformed));
    }
}
