//! What the devices of one account tell one another: records that each stand by themselves. One may come twice, late,
//! before or after another, or never: what is kept is the same.

use ciborium::Value;
use gureum_proto::{AccountId, ConversationId, DeviceId, Handle, LogHead, Relation};

use super::history::TransferId;
use super::{ContentError, content_id, whole};
use crate::limits::{DEVICE_NAME_BYTES_MAX, NUMBER_MAX, RECORDS_MAX, SETTING_BYTES_MAX};

/// How far a conversation was read.
pub(crate) const MARK: u64 = 1;
/// What a person has decided.
pub(crate) const SETTING: u64 = 2;
/// An account that was met.
pub(crate) const CONTACT: u64 = 3;
/// What a device is called.
pub(crate) const DEVICE_NAME: u64 = 4;
/// That a device wants to have everything.
pub(crate) const PLEASE: u64 = 5;
/// That one that wanted it was given it.
pub(crate) const ANSWERED: u64 = 6;
/// How far a device has taken a history that is handed over to it.
pub(crate) const TAKEN: u64 = 7;
/// How the account stands to another.
pub(crate) const RELATION: u64 = 8;
/// How it takes a conversation.
pub(crate) const PREFERENCE: u64 = 9;
/// That a history is handed over to a device, which may have heard nothing of it.
pub(crate) const OFFERED: u64 = 10;

/// The name of a wish to have everything.
pub(crate) type WishId = [u8; 16];

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// How far a conversation was read: the greatest number counts.
    Mark {
        /// Which.
        conversation: ConversationId,
        /// The number of the last message that was read.
        number: u64,
    },
    /// What a person has decided: the greatest stamp counts, then the greatest device, then the greatest value.
    Setting {
        /// What it is about.
        key: String,
        /// What they want.
        value: String,
        /// One more than what was seen when they decided it.
        stamp: u64,
        /// Where they have decided it.
        device: DeviceId,
    },
    /// An account that was met, with its handle, and how far its log was seen: the longest counts.
    Contact {
        /// Which.
        account: AccountId,
        /// Its handle.
        handle: Handle,
        /// Its log.
        log: LogHead,
    },
    /// What a device is called: the greatest stamp counts, then the greatest name.
    DeviceName {
        /// Which.
        device: DeviceId,
        /// How.
        name: String,
        /// 1 of a device that says it of itself, 0 of another.
        stamp: u64,
    },
    /// Whoever hears this is to tell everything.
    Please(WishId),
    /// Everything has been told.
    Answered(WishId),
    /// How far the device that says it has taken a history that is handed over to it.
    Taken(Progress),
    /// How the account stands to another: what counts is as with a setting.
    Relation {
        /// The other.
        account: AccountId,
        /// How.
        relation: Relation,
        /// One more than what was seen when that was decided.
        stamp: u64,
        /// Where it was decided.
        device: DeviceId,
    },
    /// How the account takes a conversation, likewise.
    Preference {
        /// Which.
        conversation: ConversationId,
        /// Whether it was accepted.
        accepted: bool,
        /// Until when it is muted, in milliseconds since 1970; [`NUMBER_MAX`]: until it is unmuted.
        muted_until_ms: u64,
        /// As above.
        stamp: u64,
        /// As above.
        device: DeviceId,
    },
    /// The device that says it hands its history over to another one.
    Offered(Offer),
}

/// What is handed over to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    /// By which transfer.
    pub(crate) transfer: TransferId,
    /// To whom.
    pub(crate) to: DeviceId,
    /// How many parts went out before this was said.
    pub(crate) number: u64,
    /// How many messages there are, as far as the sender knows.
    pub(crate) total: u64,
}

/// How far a transfer has come at its receiver's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Which transfer.
    pub(crate) transfer: TransferId,
    /// The number of the part that it wants next.
    pub(crate) number: u64,
    /// Where in the sender's history that begins.
    pub(crate) after: u64,
    /// How many messages are handed over before it.
    pub(crate) messages: u64,
    /// Whether something is missing: the sender is to go on from here, whatever it has sent since.
    pub(crate) asks: bool,
}

impl Record {
    fn to_value(&self) -> Value {
        let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
        Value::Array(match self {
            Self::Mark { conversation, number } => {
                vec![MARK.into(), bytes(conversation.as_bytes()), (*number).into()]
            }
            Self::Setting { key, value, stamp, device } => vec![
                SETTING.into(),
                Value::Text(key.clone()),
                Value::Text(value.clone()),
                (*stamp).into(),
                bytes(device.as_bytes()),
            ],
            Self::Contact { account, handle, log } => vec![
                CONTACT.into(),
                bytes(account.as_bytes()),
                Value::Text(handle.to_string()),
                log.length.into(),
                bytes(&log.hash),
            ],
            Self::DeviceName { device, name, stamp } => {
                vec![DEVICE_NAME.into(), bytes(device.as_bytes()), Value::Text(name.clone()), (*stamp).into()]
            }
            Self::Please(wish) => vec![PLEASE.into(), bytes(wish)],
            Self::Answered(wish) => vec![ANSWERED.into(), bytes(wish)],
            Self::Taken(Progress { transfer, number, after, messages, asks }) => vec![
                TAKEN.into(),
                bytes(transfer),
                (*number).into(),
                (*after).into(),
                (*messages).into(),
                u64::from(*asks).into(),
            ],
            Self::Relation { account, relation, stamp, device } => vec![
                RELATION.into(),
                bytes(account.as_bytes()),
                relation_number(*relation).into(),
                (*stamp).into(),
                bytes(device.as_bytes()),
            ],
            Self::Preference { conversation, accepted, muted_until_ms, stamp, device } => vec![
                PREFERENCE.into(),
                bytes(conversation.as_bytes()),
                u64::from(*accepted).into(),
                (*muted_until_ms).into(),
                (*stamp).into(),
                bytes(device.as_bytes()),
            ],
            Self::Offered(Offer { transfer, to, number, total }) => {
                vec![OFFERED.into(), bytes(transfer), bytes(to.as_bytes()), (*number).into(), (*total).into()]
            }
        })
    }

    /// `None` of what is not known here.
    fn read(value: Value) -> Option<Self> {
        let mut fields = value.into_array().ok()?.into_iter();
        let mut next = || fields.next();
        Some(match whole(&next()?)? {
            MARK => {
                Self::Mark { conversation: ConversationId::from_bytes(content_id(next()?)?), number: number(&next()?)? }
            }
            SETTING => Self::Setting {
                key: text(next()?, SETTING_BYTES_MAX)?,
                value: text(next()?, SETTING_BYTES_MAX)?,
                stamp: number(&next()?)?,
                device: DeviceId::from_bytes(content_id(next()?)?),
            },
            CONTACT => Self::Contact {
                account: AccountId::from_bytes(content_id(next()?)?),
                handle: next()?.into_text().ok()?.parse().ok()?,
                log: LogHead { length: number(&next()?)?, hash: next()?.into_bytes().ok()?.try_into().ok()? },
            },
            DEVICE_NAME => Self::DeviceName {
                device: DeviceId::from_bytes(content_id(next()?)?),
                name: text(next()?, DEVICE_NAME_BYTES_MAX)?,
                stamp: number(&next()?)?,
            },
            PLEASE => Self::Please(content_id(next()?)?),
            ANSWERED => Self::Answered(content_id(next()?)?),
            TAKEN => Self::Taken(Progress {
                transfer: content_id(next()?)?,
                number: number(&next()?)?,
                after: number(&next()?)?,
                messages: number(&next()?)?,
                asks: number(&next()?)? == 1,
            }),
            RELATION => Self::Relation {
                account: AccountId::from_bytes(content_id(next()?)?),
                relation: relation_of(number(&next()?)?)?,
                stamp: number(&next()?)?,
                device: DeviceId::from_bytes(content_id(next()?)?),
            },
            PREFERENCE => Self::Preference {
                conversation: ConversationId::from_bytes(content_id(next()?)?),
                accepted: number(&next()?)? == 1,
                muted_until_ms: number(&next()?)?,
                stamp: number(&next()?)?,
                device: DeviceId::from_bytes(content_id(next()?)?),
            },
            OFFERED => Self::Offered(Offer {
                transfer: content_id(next()?)?,
                to: DeviceId::from_bytes(content_id(next()?)?),
                number: number(&next()?)?,
                total: number(&next()?)?,
            }),
            _ => return None,
        })
    }
}

pub(super) fn to_value(records: &[Record]) -> Value {
    Value::Array(records.iter().map(Record::to_value).collect())
}

/// Reads a list of records. Those that are not known here are for newer programs.
pub(super) fn read(value: Value) -> Result<Vec<Record>, ContentError> {
    let records = value.into_array().map_err(|_| ContentError::Malformed)?;
    if records.is_empty() || records.len() > RECORDS_MAX {
        return Err(ContentError::Malformed);
    }
    Ok(records.into_iter().filter_map(Record::read).collect())
}

/// The number by which a relation goes, in records and in the database.
pub(crate) const fn relation_number(relation: Relation) -> u64 {
    match relation {
        Relation::None => 1,
        Relation::Accepted => 2,
        Relation::Blocked => 3,
    }
}

/// The other way round.
pub(crate) const fn relation_of(number: u64) -> Option<Relation> {
    match number {
        1 => Some(Relation::None),
        2 => Some(Relation::Accepted),
        3 => Some(Relation::Blocked),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    whole(value).filter(|number| *number <= NUMBER_MAX)
}

fn text(value: Value, bytes_max: usize) -> Option<String> {
    value.into_text().ok().filter(|text| !text.is_empty() && text.len() <= bytes_max)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

    use super::*;
    use crate::e2ee::content::{Body, Content};

    fn records() -> Vec<Record> {
        let device = DeviceId::from_bytes([3; 16]);
        vec![
            Record::Mark { conversation: ConversationId::from_bytes([1; 16]), number: 7 },
            Record::Setting { key: "receipts".into(), value: "off".into(), stamp: 2, device },
            Record::Contact {
                account: AccountId::from_bytes([2; 16]),
                handle: "bob".parse().unwrap(),
                log: LogHead { length: 1, hash: [4; 32] },
            },
            Record::DeviceName { device, name: "phone".into(), stamp: 1 },
            Record::Please([5; 16]),
            Record::Answered([6; 16]),
            Record::Taken(Progress { transfer: [7; 16], number: 2, after: 300, messages: 9, asks: true }),
            Record::Relation { account: AccountId::from_bytes([2; 16]), relation: Relation::Blocked, stamp: 4, device },
            Record::Preference {
                conversation: ConversationId::from_bytes([1; 16]),
                accepted: true,
                muted_until_ms: 300,
                stamp: 5,
                device,
            },
            Record::Offered(Offer { transfer: [7; 16], to: device, number: 2, total: 300 }),
        ]
    }

    fn read_all(records: Vec<Value>) -> Result<Vec<Record>, ContentError> {
        read(Value::Array(records))
    }

    #[test]
    fn round_trips() {
        let content = Content { id: [7; 16], body: Body::Records(records()) };
        assert_eq!(Content::parse(&content.to_bytes()), Ok(content));
    }

    #[test]
    fn has_these_bytes() {
        let content = Content { id: [7; 16], body: Body::Records(records()) };
        let id = |byte: &str| format!("50{}", byte.repeat(16));
        let expected = [
            "a3000101".to_owned(),
            id("07"),
            "048a".to_owned(),
            format!("8301{}07", id("01")),
            format!("8502687265636569707473636f666602{}", id("03")),
            format!("8503{}63626f62015820{}", id("02"), "04".repeat(32)),
            format!("8404{}6570686f6e6501", id("03")),
            format!("8205{}", id("05")),
            format!("8206{}", id("06")),
            format!("8607{}0219012c0901", id("07")),
            format!("8508{}0304{}", id("02"), id("03")),
            format!("8609{}0119012c05{}", id("01"), id("03")),
            format!("850a{}{}0219012c", id("07"), id("03")),
        ];
        assert_eq!(data_encoding::HEXLOWER.encode(&content.to_bytes()), expected.concat());
    }

    #[test]
    fn what_is_not_known_is_passed_and_the_rest_is_read() {
        let whole: Vec<_> = records().iter().map(Record::to_value).collect();
        let id = || Value::Bytes(vec![1; 16]);
        for other in [
            Value::Null,
            Value::Array(vec![]),
            Value::Array(vec![99.into(), id()]),
            Value::Array(vec![MARK.into(), id()]),
            Value::Array(vec![MARK.into(), Value::Bytes(vec![1; 15]), 1.into()]),
            Value::Array(vec![MARK.into(), id(), u64::MAX.into()]),
            Value::Array(vec![MARK.into(), id(), (NUMBER_MAX + 1).into()]),
            Value::Array(vec![
                SETTING.into(),
                Value::Text("x".repeat(SETTING_BYTES_MAX + 1)),
                Value::Text("on".into()),
            ]),
            Value::Array(vec![
                CONTACT.into(),
                id(),
                Value::Text("No Handle".into()),
                1.into(),
                Value::Bytes(vec![1; 32]),
            ]),
            Value::Array(vec![DEVICE_NAME.into(), id(), Value::Text(String::new()), 1.into()]),
            Value::Array(vec![RELATION.into(), id(), 0.into(), 1.into(), id()]),
            Value::Array(vec![RELATION.into(), id(), 4.into(), 1.into(), id()]),
            Value::Array(vec![PREFERENCE.into(), id(), 1.into(), (NUMBER_MAX + 1).into(), 1.into(), id()]),
        ] {
            let mut mixed = whole.clone();
            mixed.insert(1, other.clone());
            assert_eq!(read_all(mixed), Ok(records()), "{other:?}");
        }
        // What follows what is known is for newer programs as well.
        let longer = Value::Array(vec![PLEASE.into(), id(), Value::Null]);
        assert_eq!(read_all(vec![longer]), Ok(vec![Record::Please([1; 16])]));
    }

    #[test]
    fn there_are_some_and_not_too_many() {
        let please = || Record::Please([1; 16]).to_value();
        assert_eq!(read_all(vec![]), Err(ContentError::Malformed));
        assert_eq!(read(Value::Null), Err(ContentError::Malformed));
        assert_eq!(read_all(vec![please(); RECORDS_MAX]).map(|records| records.len()), Ok(RECORDS_MAX));
        assert_eq!(read_all(vec![please(); RECORDS_MAX + 1]), Err(ContentError::Malformed));
    }
}
