//! The keys of push: what each device wants to be woken by, what it was last woken for, and what it has to know at once.

use gureum_proto::{AccountId, DeviceId};

use super::{Key, KeyRange, split_id};

/// What is stored under a device's push key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PushTag {
    /// Where a wake-up goes.
    Target = 0,
    /// What the device was last woken for.
    State = 1,
    /// Since when the device is owed a wake-up, whatever its inbox holds.
    Alarm = 2,
}

/// Where a device's wake-ups go.
#[must_use]
pub fn push_target(account: &AccountId, device: &DeviceId) -> Key {
    of(account, device, PushTag::Target)
}

/// What a device was last woken for.
#[must_use]
pub fn push_state(account: &AccountId, device: &DeviceId) -> Key {
    of(account, device, PushTag::State)
}

/// Since when a device is owed a wake-up, whatever its inbox holds.
#[must_use]
pub fn push_alarm(account: &AccountId, device: &DeviceId) -> Key {
    of(account, device, PushTag::Alarm)
}

/// The targets, states and alarms of all devices of an account.
#[must_use]
pub fn push_of(account: &AccountId) -> KeyRange {
    KeyRange { start: Key::of(&[account.as_bytes()]), end: Key::of(&[account.as_bytes(), &[0xff; 16], &[u8::MAX]]) }
}

/// The account, device and tag of a push key.
#[must_use]
pub fn parse_push(key: &[u8]) -> Option<(AccountId, DeviceId, PushTag)> {
    let (account, rest) = split_id(key)?;
    let (device, tag) = split_id(rest)?;
    let tag = match tag {
        [0] => PushTag::Target,
        [1] => PushTag::State,
        [2] => PushTag::Alarm,
        _ => return None,
    };
    Some((AccountId::from_bytes(account), DeviceId::from_bytes(device), tag))
}

fn of(account: &AccountId, device: &DeviceId, tag: PushTag) -> Key {
    Key::of(&[account.as_bytes(), device.as_bytes(), &[tag as u8]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: AccountId = AccountId::from_bytes([0xa1; 16]);
    const OTHER: AccountId = AccountId::from_bytes([0xa2; 16]);
    const DEVICE: DeviceId = DeviceId::from_bytes([0xd1; 16]);

    #[test]
    fn keys_have_these_bytes_and_are_taken_back() {
        for (key, tag, last) in [
            (push_target(&ACCOUNT, &DEVICE), PushTag::Target, "00"),
            (push_state(&ACCOUNT, &DEVICE), PushTag::State, "01"),
            (push_alarm(&ACCOUNT, &DEVICE), PushTag::Alarm, "02"),
        ] {
            let expected = format!("{}{}{last}", "a1".repeat(16), "d1".repeat(16));
            assert_eq!(data_encoding::HEXLOWER.encode(&key), expected);
            assert_eq!(parse_push(&key), Some((ACCOUNT, DEVICE, tag)));
            assert_eq!(parse_push(&key[..32]), None);
        }
        assert_eq!(parse_push(&[3; 33]), None);
        assert_eq!(parse_push(&[0; 34]), None);
    }

    #[test]
    fn the_range_of_an_account_holds_its_devices_and_no_other_account() {
        let range = push_of(&ACCOUNT);
        let holds = |key: Key| range.as_range().contains(&key.as_slice());
        for device in [[0; 16], [0xff; 16]].map(DeviceId::from_bytes) {
            assert!(holds(push_target(&ACCOUNT, &device)) && holds(push_state(&ACCOUNT, &device)));
            assert!(!holds(push_target(&OTHER, &device)));
        }
    }
}
