//! KeyPackages that were read and verified: what is looked at again before it is used is not verified again.

use std::collections::HashMap;

use gureum_proto::membership::Leaf;
use openmls::prelude::KeyPackage;

use super::Mls;
use crate::limits::READ_PACKAGES_MAX;

/// KeyPackages that are good for a group by themselves, by the hash of exactly the bytes that they were read from.
#[derive(Debug, Default)]
pub(crate) struct ReadPackages(HashMap<[u8; 32], (KeyPackage, Leaf)>);

impl ReadPackages {
    /// As [`Mls::read_group_key_package`]. Of one that was read before nothing can have changed but that its time is over.
    pub(crate) fn read(&mut self, mls: &Mls<'_>, bytes: &[u8]) -> Result<(KeyPackage, Leaf), String> {
        let hash = *blake3::hash(bytes).as_bytes();
        if let Some((package, leaf)) = self.0.get(&hash) {
            package.life_time().validate().map_err(|error| error.to_string())?;
            return Ok((package.clone(), leaf.clone()));
        }
        let read = mls.read_group_key_package(bytes)?;
        if self.0.len() >= READ_PACKAGES_MAX {
            self.0.clear();
        }
        self.0.insert(hash, read.clone());
        Ok(read)
    }
}
