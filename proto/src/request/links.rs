//! An account's devices, and the requests by which one of them links another.

use super::Request;
use crate::convert::{PayloadError, bounded, filled, id, raw, schema};
use crate::ids::DeviceId;
use crate::limits::{DEVICES_MAX, LINK_ANSWER_BYTES_MAX, LINK_BUNDLE_BYTES_MAX};

/// A device of the own account, as the server sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceState {
    /// The device.
    pub device: DeviceId,
    /// When it last proved itself, in milliseconds since 1970, rounded down to the minute; 0: not yet.
    pub last_seen_ms: u64,
    /// One-time KeyPackages left of it.
    pub key_packages_left: u32,
}

impl DeviceState {
    pub(super) fn write_all(devices: &[Self]) -> schema::Devices {
        let write = |state: &Self| schema::DeviceState {
            device: raw(state.device),
            last_seen_ms: state.last_seen_ms,
            key_packages_left: state.key_packages_left,
        };
        schema::Devices { devices: devices.iter().map(write).collect() }
    }

    pub(super) fn read_all(devices: schema::Devices) -> Result<Vec<Self>, PayloadError> {
        if devices.devices.len() > DEVICES_MAX {
            return Err(PayloadError::TooLong("list of devices"));
        }
        let read = |state: schema::DeviceState| -> Result<Self, PayloadError> {
            let device = id(&state.device, "device")?;
            Ok(Self { device, last_seen_ms: state.last_seen_ms, key_packages_left: state.key_packages_left })
        };
        devices.devices.into_iter().map(read).collect()
    }
}

pub(super) fn read_answer(answer: schema::AnswerLink) -> Result<Request, PayloadError> {
    let payload = filled(answer.payload, LINK_ANSWER_BYTES_MAX, "answer")?;
    Ok(Request::AnswerLink { link: id(&answer.link, "link")?, payload })
}

pub(super) fn read_finish(finish: schema::FinishLink) -> Result<Request, PayloadError> {
    let payload = bounded(finish.payload, LINK_BUNDLE_BYTES_MAX, "bundle")?;
    Ok(Request::FinishLink { link: id(&finish.link, "link")?, payload })
}
