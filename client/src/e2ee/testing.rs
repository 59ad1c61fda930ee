//! What only a test does: commits that no honest client makes, and the tree that a server would follow by itself.

use openmls::prelude::tls_codec::Serialize;
use openmls::prelude::{KeyPackage, OpenMlsProvider};

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
