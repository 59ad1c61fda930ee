//! KeyPackages, as they are put into the directory and claimed from it.

use bytes::Bytes;

use super::Request;
use crate::convert::{PayloadError, bounded, filled, id, raw, schema};
use crate::ids::DeviceId;
use crate::limits::{DEVICES_MAX, KEY_PACKAGE_BYTES_MAX, KEY_PACKAGES_MAX};

pub(super) fn read_put(packages: schema::PutKeyPackages) -> Result<Request, PayloadError> {
    if packages.key_packages.len() > KEY_PACKAGES_MAX {
        return Err(PayloadError::TooLong("list of KeyPackages"));
    }
    let key_packages = packages
        .key_packages
        .into_iter()
        .map(|package| filled(package, KEY_PACKAGE_BYTES_MAX, "KeyPackage"))
        .collect::<Result<_, _>>()?;
    let last_resort = bounded(packages.last_resort, KEY_PACKAGE_BYTES_MAX, "last resort")?;
    Ok(Request::PutKeyPackages { key_packages, last_resort: Some(last_resort).filter(|bytes| !bytes.is_empty()) })
}

pub(super) fn write_claimed(packages: &[(DeviceId, Bytes)]) -> schema::KeyPackages {
    let package = |(device, package): &(DeviceId, Bytes)| schema::DeviceKeyPackage {
        device: raw(device),
        key_package: package.clone(),
    };
    schema::KeyPackages { packages: packages.iter().map(package).collect() }
}

pub(super) fn read_claimed(found: schema::KeyPackages) -> Result<Vec<(DeviceId, Bytes)>, PayloadError> {
    if found.packages.len() > DEVICES_MAX {
        return Err(PayloadError::TooLong("list of KeyPackages"));
    }
    let read = |package: schema::DeviceKeyPackage| {
        let bytes = filled(package.key_package, KEY_PACKAGE_BYTES_MAX, "KeyPackage")?;
        Ok((id(&package.device, "device")?, bytes))
    };
    found.packages.into_iter().map(read).collect()
}
