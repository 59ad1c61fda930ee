//! What an application message holds once it is decrypted: a CBOR map that leaves room for receipts and edits.

use ciborium::Value;

const VERSION: u64 = 1;
const KEY_VERSION: u64 = 0;
const KEY_ID: u64 = 1;
const KEY_TEXT: u64 = 2;
/// The bytes of a content id.
pub(crate) const CONTENT_ID_BYTES: usize = 16;
/// A text nests nowhere; a hostile nesting stops here.
const DEPTH_MAX: usize = 8;

/// The content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// Random, the sender's: by it the same message is known again if it comes twice.
    pub(crate) id: [u8; CONTENT_ID_BYTES],
    /// The text.
    pub(crate) text: String,
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
        let map = Value::Map(vec![
            (Value::from(KEY_VERSION), Value::from(VERSION)),
            (Value::from(KEY_ID), Value::Bytes(self.id.to_vec())),
            (Value::from(KEY_TEXT), Value::Text(self.text.clone())),
        ]);
        let mut bytes = Vec::with_capacity(self.text.len() + 32);
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
        let mut fields = (None, None, None);
        for (key, value) in entries {
            match key.as_integer().and_then(|key| u64::try_from(key).ok()) {
                Some(KEY_VERSION) => fields.0 = value.as_integer().and_then(|version| u64::try_from(version).ok()),
                Some(KEY_ID) => fields.1 = value.into_bytes().ok().and_then(|id| id.try_into().ok()),
                Some(KEY_TEXT) => fields.2 = value.into_text().ok(),
                _ => {}
            }
        }
        match fields {
            (Some(VERSION), Some(id), Some(text)) => Ok(Self { id, text }),
            (Some(VERSION), None, _) | (None, ..) => Err(ContentError::Malformed),
            _ => Err(ContentError::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let content = Content { id: [7; 16], text: "안녕 hi".into() };
        assert_eq!(Content::parse(&content.to_bytes()), Ok(content));
    }

    #[test]
    fn ignores_unknown_fields_and_tells_unknown_kinds_from_garbage() {
        let map = |entries: Vec<(u64, Value)>| {
            let entries = entries.into_iter().map(|(key, value)| (Value::from(key), value)).collect();
            let mut bytes = Vec::new();
            ciborium::into_writer(&Value::Map(entries), &mut bytes).unwrap();
            bytes
        };
        let id = || (KEY_ID, Value::Bytes(vec![1; 16]));
        let text = || (KEY_TEXT, Value::Text("x".into()));
        let with_more = map(vec![(KEY_VERSION, 1.into()), id(), text(), (9, Value::Null)]);
        assert_eq!(Content::parse(&with_more).map(|content| content.text), Ok("x".into()));
        assert_eq!(Content::parse(&map(vec![(KEY_VERSION, 2.into()), id(), text()])), Err(ContentError::Unknown));
        assert_eq!(Content::parse(&map(vec![(KEY_VERSION, 1.into()), id()])), Err(ContentError::Unknown));
        assert_eq!(Content::parse(&map(vec![id(), text()])), Err(ContentError::Malformed));
        assert_eq!(Content::parse(b"\x81\x81\x81\x81\x81\x81\x81\x81\x81\x81\x00"), Err(ContentError::Malformed));
        assert_eq!(Content::parse(b""), Err(ContentError::Malformed));
    }
}
