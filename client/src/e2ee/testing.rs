//! What only a test does: commits that no honest client makes, and the tree that a server would follow by itself.

#![allow(clippy::indexing_slicing, reason = "a test may fail by a panic")]

use openmls::prelude::tls_codec::{Serialize, VLBytes};
use openmls::prelude::{KeyPackage, Lifetime, MlsMessageOut, OpenMlsProvider};
use openmls_traits::signatures::Signer;

use super::group::{CommitBundle, Group, Mls};

impl Mls<'_> {
    /// A commit that adds the owners of key packages, pending.
    pub(crate) fn add(&self, group: &mut Group, packages: Vec<KeyPackage>) -> CommitBundle {
        let bundle = group
            .0
            .commit_builder()
            .propose_adds(packages)
            .load_psks(self.provider.storage())
            .expect("there are no pre-shared keys")
            .create_group_info(true)
            .build(self.crypto, self.crypto, self.signer, |_| true)
            .expect("the additions are well formed")
            .stage_commit(&self.provider)
            .expect("the database takes it");
        CommitBundle::read(bundle, "adding").expect("it is encoded")
    }

    /// A one-time KeyPackage of this device that was good for the first second of 1970, and an MLSMessage of it.
    pub(crate) fn expired_key_package(&self) -> (KeyPackage, Vec<u8>) {
        let package = self.build_key_package(false, Lifetime::init(0, 1)).expect("the database takes it");
        let message = MlsMessageOut::from(package.clone());
        (package, message.tls_serialize_detached().expect("it is encoded"))
    }

    /// A one-time KeyPackage of this device with another key for its leaf. RFC 9420, sections 7.2 and 10: the leaf stands
    /// behind version, suite and init key and ends with its signature; then come no extensions, and another signature.
    pub(crate) fn with_leaf_key(&self, package: &[u8], key: &[u8]) -> Vec<u8> {
        const MESSAGE_HEADER: usize = 4;
        const LEAF: usize = MESSAGE_HEADER + 4 + 33;
        const SIGNATURE: usize = 66;
        let mut bytes = package.to_vec();
        let end = bytes.len();
        let leaf_end = end - SIGNATURE - 1;
        bytes[LEAF + 1..LEAF + 33].copy_from_slice(key);
        let of_leaf = self.sign("LeafNodeTBS", &bytes[LEAF..leaf_end - SIGNATURE]);
        bytes[leaf_end - 64..leaf_end].copy_from_slice(&of_leaf);
        let of_package = self.sign("KeyPackageTBS", &bytes[MESSAGE_HEADER..end - SIGNATURE]);
        bytes[end - 64..].copy_from_slice(&of_package);
        bytes
    }

    /// RFC 9420, section 5.1.2.
    fn sign(&self, label: &str, content: &[u8]) -> Vec<u8> {
        let written = |bytes: Vec<u8>| VLBytes::new(bytes).tls_serialize_detached().expect("it is short");
        let signed = [written(format!("MLS 1.0 {label}").into_bytes()), written(content.to_vec())].concat();
        self.signer.sign(&signed).expect("the key is there")
    }
}

impl Group {
    /// The public keys that its leaves are encrypted to.
    pub(crate) fn encryption_keys(&self) -> Vec<Vec<u8>> {
        self.0.members().map(|member| member.encryption_key).collect()
    }

    /// The ratchet tree.
    pub(crate) fn tree(&self) -> Vec<u8> {
        self.0.export_ratchet_tree().tls_serialize_detached().expect("a tree is encoded")
    }
}
