//! Coming into a group: by a Welcome, or by an external commit that is kept aside until the server accepts it.

use gureum_proto::ConversationId;
use gureum_proto::membership::Leaf;
use openmls::prelude::tls_codec::Deserialize;
use openmls::prelude::{
    LeafNodeParameters, MlsGroup, MlsMessageBodyIn, MlsMessageIn, OpenMlsProvider, ProcessedWelcome, RatchetTreeIn,
    StagedWelcome, WelcomeError,
};
use rusqlite::Connection;

use super::group::{CommitBundle, Group, Mls, View, encryption_key, group_id, identity_of, leaf_of_member};
use super::provider::{Provider, Snapshot};
use super::settings::{SUITE, capabilities, credential, join_config, read_context};
use super::{MlsError, at, migrate};
use crate::limits::EPOCH_MAX;

/// A Welcome that was opened and is not joined yet. Its KeyPackage is used up: roll back to have it again.
pub(crate) struct StagedJoin {
    staged: StagedWelcome,
    pub(crate) view: View,
}

/// Why a Welcome or a GroupInfo is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// It does not hold.
    #[error("{0}")]
    Invalid(String),
    /// The database failed.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

/// An external commit, and the group as it will be.
pub(crate) struct Rejoined {
    pub(crate) bundle: CommitBundle,
    pub(crate) epoch: u64,
    pub(crate) view: View,
    pub(crate) snapshot: Snapshot,
    /// Whether this device had a leaf before, which this one takes the place of.
    pub(crate) had_leaf: bool,
    /// The leaves before.
    pub(crate) leaves_before: Vec<Leaf>,
}

impl Mls<'_> {
    /// Opens a Welcome; `None` if it is for other devices.
    pub(crate) fn open_welcome(
        &self,
        conversation: ConversationId,
        bytes: &[u8],
        newer_than: Option<u64>,
    ) -> Result<Option<StagedJoin>, JoinError> {
        let message = MlsMessageIn::tls_deserialize_exact(bytes).map_err(invalid)?;
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
            return Err(JoinError::Invalid("it is no Welcome".into()));
        };
        let opened = match ProcessedWelcome::new_from_welcome(&self.provider, &join_config(), welcome) {
            Ok(opened) => opened,
            Err(WelcomeError::NoMatchingKeyPackage) => return Ok(None),
            Err(WelcomeError::StorageError(error)) => return Err(at("reading a key package")(error).into()),
            Err(error) => return Err(invalid(error)),
        };
        let info = opened.unverified_group_info();
        if info.group_id() != &group_id(conversation) {
            return Err(JoinError::Invalid("it belongs to another conversation".into()));
        }
        if info.epoch().as_u64() > EPOCH_MAX {
            return Err(JoinError::Invalid("its epoch is beyond what commits can reach".into()));
        }
        if newer_than.is_some_and(|epoch| info.epoch().as_u64() <= epoch) {
            return Ok(None);
        }
        // A leaf that was never renewed outlives its KeyPackage's lifetime. An older group, or one that this device was
        // removed from, gives way.
        let join = openmls::prelude::JoinBuilder::new(&self.provider, opened);
        let staged = join.skip_lifetime_validation().replace_old_group().build().map_err(|error| match error {
            WelcomeError::StorageError(error) => JoinError::Mls(at("joining a conversation")(error)),
            other => invalid(other),
        })?;
        let state = read_context(staged.group_context().extensions()).map_err(invalid)?;
        let leaves = staged.members().map(|member| leaf_of_member(&member)).collect();
        Ok(Some(StagedJoin { view: View { conversation, leaves, state }, staged }))
    }

    /// Joins.
    pub(crate) fn join(&self, join: StagedJoin) -> Result<Group, MlsError> {
        join.staged.into_group(&self.provider).map(Group).map_err(at("joining a conversation"))
    }

    /// Whether a GroupInfo is one of the very epoch that a group is in: same members, same history.
    pub(crate) fn describes(&self, group: &Group, group_info: &[u8]) -> bool {
        let Ok(message) = MlsMessageIn::tls_deserialize_exact(group_info) else { return false };
        let MlsMessageBodyIn::GroupInfo(info) = message.extract() else { return false };
        info.group_context() == group.0.public_group().group_context()
    }

    /// Makes an external commit in a database of its own, so that this one keeps what it has until the server says yes.
    pub(crate) fn rejoin(
        &self,
        conversation: ConversationId,
        group_info: &[u8],
        tree: &[u8],
    ) -> Result<Rejoined, JoinError> {
        const STEP: &str = "rejoining a conversation";
        let message = MlsMessageIn::tls_deserialize_exact(group_info).map_err(invalid)?;
        let MlsMessageBodyIn::GroupInfo(info) = message.extract() else {
            return Err(JoinError::Invalid("it is no GroupInfo".into()));
        };
        if info.group_id() != &group_id(conversation) || info.ciphersuite() != SUITE {
            return Err(JoinError::Invalid("it belongs to another conversation".into()));
        }
        let tree = RatchetTreeIn::tls_deserialize_exact(tree).map_err(invalid)?;
        let had_leaf = tree.leaves().any(|leaf| leaf.signature_key().as_slice() == self.signer.public());
        let leaves_before = tree.leaves().map(|leaf| Leaf {
            identity: identity_of(leaf.credential()),
            mls_key: leaf.signature_key().as_slice().to_vec(),
            leaf_key: encryption_key(leaf.encryption_key()),
        });
        let leaves_before = leaves_before.collect();
        let mut aside = Connection::open_in_memory().map_err(at(STEP))?;
        migrate(&mut aside)?;
        let provider = Provider::new(self.crypto, &aside);
        let (group, bundle) = MlsGroup::external_commit_builder()
            .with_ratchet_tree(tree)
            .with_config(join_config())
            .skip_lifetime_validation()
            .build_group(&provider, info, credential(self.identity, self.signer.public()))
            .map_err(invalid)?
            .leaf_node_parameters(LeafNodeParameters::builder().with_capabilities(capabilities()).build())
            .load_psks(provider.storage())
            .map_err(invalid)?
            .create_group_info(true)
            .use_ratchet_tree_extension(false)
            .build(self.crypto, self.crypto, self.signer, |_| true)
            .map_err(invalid)?
            .finalize(&provider)
            .map_err(invalid)?;
        let state = read_context(group.extensions()).map_err(invalid)?;
        let group = Group(group);
        Ok(Rejoined {
            bundle: CommitBundle::read(bundle, STEP)?,
            epoch: group.epoch(),
            view: View { conversation, leaves: group.leaves(), state },
            snapshot: Snapshot::of_only_group(&aside).map_err(at(STEP))?,
            had_leaf,
            leaves_before,
        })
    }
}

fn invalid(error: impl std::fmt::Display) -> JoinError {
    JoinError::Invalid(error.to_string())
}
