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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

    use gureum_proto::{AccountId, DeviceId, LeafIdentity};
    use openmls_basic_credential::SignatureKeyPair;
    use openmls_rust_crypto::RustCrypto;
    use rusqlite::Connection;

    use super::*;
    use crate::e2ee::migrate;
    use crate::e2ee::settings::SUITE;

    #[test]
    fn one_whose_time_is_over_is_refused_also_where_it_was_good_when_it_was_read() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        let (crypto, signer) = (RustCrypto::default(), SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap());
        let (account, device) = (AccountId::from_bytes([1; 16]), DeviceId::from_bytes([2; 16]));
        let mls = Mls::new(&connection, &crypto, &signer, LeafIdentity { account, device, log_entry: 0 });
        let mut packages = ReadPackages::default();
        let good = mls.key_package(false).unwrap();
        let (_, leaf) = packages.read(&mls, &good).unwrap();
        assert!(packages.read(&mls, &good).is_ok(), "once more, as it was verified");

        let (over, bytes) = mls.expired_key_package();
        let anew = packages.read(&mls, &bytes).unwrap_err();
        packages.0.insert(*blake3::hash(&bytes).as_bytes(), (over, leaf));
        let as_it_was_read = packages.read(&mls, &bytes).unwrap_err();
        for refused in [anew, as_it_was_read] {
            assert!(refused.contains("in the past"), "{refused}");
        }
    }
}
