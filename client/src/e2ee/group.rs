//! One device's view of its groups: making them, sending and opening messages, making and taking commits.

use gureum_proto::membership::{Change, Leaf, Roster};
use gureum_proto::{CommitAttachment, ConversationId, DeviceId, GroupState, LeafIdentity, SignedLeave};
use openmls::framing::errors::MessageDecryptionError;
use openmls::prelude::tls_codec::{Deserialize, Serialize};
use openmls::prelude::{
    CommitMessageBundle, Credential, GroupId, KeyPackage, LeafNode, LeafNodeIndex, Lifetime, Member, MlsGroup,
    MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, OpenMlsProvider, ProcessMessageError, ProcessedMessage,
    ProcessedMessageContent, Proposal, ProtocolMessage, ProtocolVersion, Sender, StagedCommit, ValidationError,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::RustCrypto;
use rusqlite::Connection;

use super::provider::Provider;
use super::settings::{
    SUITE, capabilities, context, create_config, credential, lifetime, read_context, supports_groups,
};
use super::{MlsError, at};

const MAKING_KEY_PACKAGE: &str = "making a key package";

/// A device's keys over a database connection.
pub(crate) struct Mls<'a> {
    pub(super) provider: Provider<'a>,
    pub(super) crypto: &'a RustCrypto,
    pub(super) signer: &'a SignatureKeyPair,
    pub(super) identity: LeafIdentity,
}

/// A group, loaded.
pub(crate) struct Group(pub(super) MlsGroup);

/// A group at one epoch, as the rule of membership looks at it.
pub(crate) struct View {
    pub(crate) conversation: ConversationId,
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) state: Option<GroupState>,
}

/// What a commit is to do besides renewing this device's keys.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) added: Vec<KeyPackage>,
    pub(crate) removed: Vec<DeviceId>,
    pub(crate) state: Option<GroupState>,
    /// Why accounts are removed that leave.
    pub(crate) leaves: Vec<SignedLeave>,
}

/// A group that its creator has just made, at epoch 1.
pub(crate) struct Created {
    pub(crate) group: Group,
    pub(crate) group_info: Vec<u8>,
    pub(crate) tree: Vec<u8>,
    /// Empty where nobody else is in it.
    pub(crate) welcome: Vec<u8>,
}

/// A commit and what goes with it.
pub(crate) struct CommitBundle {
    pub(crate) commit: Vec<u8>,
    pub(crate) group_info: Vec<u8>,
    pub(crate) welcome: Vec<u8>,
}

/// A commit that holds by RFC 9420 and is not merged yet.
pub(crate) struct ReadyCommit {
    commit: Box<StagedCommit>,
    pub(crate) change: Change,
}

/// Why a commit is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// It does not hold at this group's epoch.
    #[error("the commit is not valid: {0}")]
    Invalid(String),
    /// The database failed.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    /// It is for an epoch that this group has not reached.
    #[error("it is of a later epoch")]
    Ahead {
        /// The epoch that it says it is of.
        epoch: u64,
    },
    /// It cannot be decrypted, and never will.
    #[error("{why}")]
    Unreadable {
        /// Why not.
        why: String,
        /// The epoch that it says it is of, if it is a message of this group.
        epoch: Option<u64>,
    },
    /// It is of this group's epoch and its keys do not open it: it is forged, or this device's state is broken.
    #[error("{why}")]
    Broken {
        /// Why not.
        why: String,
    },
    /// The database failed.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

impl<'a> Mls<'a> {
    pub(crate) fn new(
        connection: &'a Connection,
        crypto: &'a RustCrypto,
        signer: &'a SignatureKeyPair,
        identity: LeafIdentity,
    ) -> Self {
        Self { provider: Provider::new(crypto, connection), crypto, signer, identity }
    }

    /// Makes a KeyPackage and keeps its secrets; an MLSMessage.
    pub(crate) fn key_package(&self, last_resort: bool) -> Result<Vec<u8>, MlsError> {
        let package = self.build_key_package(last_resort, lifetime())?;
        MlsMessageOut::from(package).tls_serialize_detached().map_err(at(MAKING_KEY_PACKAGE))
    }

    /// Makes a KeyPackage that may be used within a lifetime, and keeps its secrets.
    pub(super) fn build_key_package(&self, last_resort: bool, lifetime: Lifetime) -> Result<KeyPackage, MlsError> {
        let mut builder = KeyPackage::builder().key_package_lifetime(lifetime).leaf_node_capabilities(capabilities());
        if last_resort {
            builder = builder.mark_as_last_resort();
        }
        let credential = credential(self.identity, self.signer.public());
        let bundle = builder.build(SUITE, &self.provider, self.signer, credential);
        Ok(bundle.map_err(at(MAKING_KEY_PACKAGE))?.into_key_package())
    }

    /// Reads somebody's KeyPackage and checks what it says by itself, and that its device can be in a group.
    pub(crate) fn read_group_key_package(&self, bytes: &[u8]) -> Result<(KeyPackage, Leaf), String> {
        let (package, leaf) = self.read_key_package(bytes)?;
        if supports_groups(package.leaf_node().capabilities()) {
            Ok((package, leaf))
        } else {
            Err("its device runs a program that knows no groups; it must be updated first".into())
        }
    }

    /// Reads somebody's KeyPackage and checks what it says by itself.
    pub(crate) fn read_key_package(&self, bytes: &[u8]) -> Result<(KeyPackage, Leaf), String> {
        let message = MlsMessageIn::tls_deserialize_exact(bytes).map_err(|error| error.to_string())?;
        let MlsMessageBodyIn::KeyPackage(package) = message.extract() else { return Err("it is none".into()) };
        let package = package.validate(self.crypto, ProtocolVersion::Mls10).map_err(|error| error.to_string())?;
        if package.ciphersuite() != SUITE {
            return Err("it is for another suite".into());
        }
        let leaf = leaf_of(package.leaf_node());
        Ok((package, leaf))
    }

    /// Makes a group of this device and the owners of the KeyPackages, with what its context is to say.
    pub(crate) fn create(
        &self,
        id: ConversationId,
        packages: Vec<KeyPackage>,
        state: Option<&GroupState>,
    ) -> Result<Created, MlsError> {
        const STEP: &str = "making a conversation";
        let is_alone = packages.is_empty();
        let (config, credential) = (create_config(state), credential(self.identity, self.signer.public()));
        let mut group = MlsGroup::new_with_group_id(&self.provider, self.signer, &config, group_id(id), credential)
            .map_err(at(STEP))?;
        let bundle = group
            .commit_builder()
            .propose_adds(packages)
            // Also where it adds nobody there is a first commit.
            .force_self_update(is_alone)
            .load_psks(self.provider.storage())
            .map_err(at(STEP))?
            .build(self.crypto, self.crypto, self.signer, |_| true)
            .map_err(at(STEP))?
            .stage_commit(&self.provider)
            .map_err(at(STEP))?;
        // Nobody else is in the group yet: the commit that adds the others cannot lose.
        group.merge_pending_commit(&self.provider).map_err(at(STEP))?;
        let welcome = match bundle.into_welcome_msg() {
            Some(welcome) => welcome.tls_serialize_detached().map_err(at(STEP))?,
            None => Vec::new(),
        };
        let group = Group(group);
        Ok(Created {
            group_info: self.group_info(&group)?,
            tree: group.0.export_ratchet_tree().tls_serialize_detached().map_err(at(STEP))?,
            welcome,
            group,
        })
    }

    /// The GroupInfo of a group's epoch, without the tree; an MLSMessage.
    pub(crate) fn group_info(&self, group: &Group) -> Result<Vec<u8>, MlsError> {
        const STEP: &str = "writing a GroupInfo";
        let info = group.0.export_group_info(self.crypto, self.signer, false).map_err(at(STEP))?;
        info.tls_serialize_detached().map_err(at(STEP))
    }

    /// Loads a group; `None` as well where its records are damaged.
    pub(crate) fn load(&self, id: ConversationId) -> Result<Option<Group>, MlsError> {
        match MlsGroup::load(self.provider.storage(), &group_id(id)) {
            Ok(group) => Ok(group.map(Group)),
            Err(rusqlite::Error::FromSqlConversionFailure(..)) => Ok(None),
            Err(error) => Err(at("loading a conversation")(error)),
        }
    }

    /// Deletes a group.
    pub(crate) fn delete(&self, mut group: Group) -> Result<(), MlsError> {
        group.0.delete(self.provider.storage()).map_err(at("deleting a conversation"))
    }

    /// Encrypts for the group's current epoch; an MLSMessage.
    pub(crate) fn encrypt(&self, group: &mut Group, plaintext: &[u8]) -> Result<Vec<u8>, MlsError> {
        const STEP: &str = "encrypting a message";
        let message = group.0.create_message(&self.provider, self.signer, plaintext).map_err(at(STEP))?;
        message.tls_serialize_detached().map_err(at(STEP))
    }

    /// Decrypts a message; who sent it is what the group says, not what the envelope claims.
    pub(crate) fn open(&self, group: &mut Group, bytes: &[u8]) -> Result<(LeafIdentity, Vec<u8>), MessageError> {
        let unreadable = |why: &str| MessageError::Unreadable { why: why.to_owned(), epoch: None };
        let message = read_protocol_message(bytes).map_err(|why| unreadable(&why))?;
        let ProtocolMessage::PrivateMessage(_) = message else { return Err(unreadable("it is not encrypted")) };
        if message.group_id() != group.0.group_id() {
            return Err(unreadable("it belongs to another conversation"));
        }
        if message.epoch() > group.0.epoch() {
            return Err(MessageError::Ahead { epoch: message.epoch().as_u64() });
        }
        let (epoch, is_current) = (Some(message.epoch().as_u64()), message.epoch() == group.0.epoch());
        let processed = group.0.process_message(&self.provider, message).map_err(|error| match error {
            ProcessMessageError::StorageError(error) => MessageError::Mls(at("storing a decrypted message")(error)),
            ProcessMessageError::ValidationError(ValidationError::UnableToDecrypt(
                MessageDecryptionError::AeadError,
            )) if is_current => MessageError::Broken { why: MessageDecryptionError::AeadError.to_string() },
            other => MessageError::Unreadable { why: other.to_string(), epoch },
        })?;
        let sender =
            identity_of(processed.credential()).ok_or_else(|| unreadable("its sender is none of this protocol"))?;
        match processed.into_content() {
            ProcessedMessageContent::ApplicationMessage(message) => Ok((sender, message.into_bytes())),
            _ => Err(unreadable("it holds no message")),
        }
    }

    /// Checks a commit that ends the group's current epoch, by RFC 9420.
    pub(crate) fn check_commit(&self, group: &mut Group, bytes: &[u8]) -> Result<ReadyCommit, CommitError> {
        let invalid = |why: &str| CommitError::Invalid(why.to_owned());
        let message = read_protocol_message(bytes).map_err(CommitError::Invalid)?;
        let ProtocolMessage::PublicMessage(_) = message else { return Err(invalid("it is no public message")) };
        if message.epoch() != group.0.epoch() {
            return Err(invalid("it is of another epoch"));
        }
        let processed = group.0.process_message(&self.provider, message).map_err(|error| match error {
            ProcessMessageError::StorageError(error) => CommitError::Mls(at("reading the keys of a commit")(error)),
            other => CommitError::Invalid(other.to_string()),
        })?;
        ready(&group.0, processed).ok_or_else(|| invalid("it holds no commit"))
    }

    /// Moves the group to the next epoch. Returns whether this device is still in it.
    pub(crate) fn merge(&self, group: &mut Group, ready: ReadyCommit) -> Result<bool, MlsError> {
        group.0.merge_staged_commit(&self.provider, *ready.commit).map_err(at("taking a commit"))?;
        Ok(group.0.is_active())
    }

    /// Makes a commit that renews this device's keys, and does what is wanted; pending until it is merged or cleared.
    ///
    /// OpenMLS puts the tree into both the Welcome and the GroupInfo, or into none. A Welcome needs it: where the commit
    /// adds somebody, the GroupInfo is to be replaced by that of [`Self::group_info`].
    pub(crate) fn commit(&self, group: &mut Group, wanted: Wanted) -> Result<CommitBundle, MlsError> {
        const STEP: &str = "making a commit";
        let Wanted { added, removed, state, leaves } = wanted;
        let is_removed =
            |member: &Member| identity_of(&member.credential).is_some_and(|it| removed.contains(&it.device));
        let indices: Vec<_> = group.0.members().filter(is_removed).map(|member| member.index).collect();
        let adds = !added.is_empty();
        group.0.set_aad(CommitAttachment { leaves }.encode());
        let mut builder =
            group.0.commit_builder().propose_adds(added).propose_removals(indices).force_self_update(true);
        if let Some(state) = &state {
            builder = builder.propose_group_context_extensions(context(state)).map_err(at(STEP))?;
        }
        let bundle = builder
            .load_psks(self.provider.storage())
            .map_err(at(STEP))?
            .create_group_info(true)
            .use_ratchet_tree_extension(adds)
            .build(self.crypto, self.crypto, self.signer, |_| true)
            .map_err(at(STEP))?
            .stage_commit(&self.provider)
            .map_err(at(STEP))?;
        CommitBundle::read(bundle, STEP)
    }

    /// Our own commit was accepted.
    pub(crate) fn merge_pending(&self, group: &mut Group) -> Result<(), MlsError> {
        group.0.merge_pending_commit(&self.provider).map_err(at("taking the own commit"))
    }

    /// Our own commit lost.
    pub(crate) fn clear_pending(&self, group: &mut Group) -> Result<(), MlsError> {
        group.0.clear_pending_commit(self.provider.storage()).map_err(at("dropping the own commit"))
    }
}

impl Group {
    /// The epoch that it is in.
    pub(crate) fn epoch(&self) -> u64 {
        self.0.epoch().as_u64()
    }

    /// What all members of its epoch have in common, and nobody else (RFC 9420 §8.7).
    pub(crate) fn authenticator(&self) -> Vec<u8> {
        self.0.epoch_authenticator().as_slice().to_vec()
    }

    /// Its leaves.
    pub(crate) fn leaves(&self) -> Vec<Leaf> {
        self.0.members().map(|member| leaf_of_member(&member)).collect()
    }

    /// Whether this device's leaf is by a commit of its own, and not the one that it came in with.
    pub(crate) fn has_renewed(&self) -> bool {
        self.0.own_leaf_node().is_some_and(|leaf| leaf.parent_hash().is_some())
    }

    /// Its state, if it is a group of many.
    pub(crate) fn state(&self) -> Option<GroupState> {
        // What is none of ours was not joined.
        read_context(self.0.extensions()).ok().flatten()
    }

    /// As the rule looks at it.
    pub(crate) fn view(&self, conversation: ConversationId) -> View {
        View { conversation, leaves: self.leaves(), state: self.state() }
    }
}

impl Wanted {
    pub(crate) const fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.state.is_none() && self.leaves.is_empty()
    }
}

impl View {
    pub(crate) fn roster(&self) -> Roster<'_> {
        Roster { conversation: self.conversation, leaves: &self.leaves, state: self.state.as_ref() }
    }
}

impl CommitBundle {
    pub(super) fn read(bundle: CommitMessageBundle, step: &'static str) -> Result<Self, MlsError> {
        let (commit, welcome, group_info) = bundle.into_messages();
        let group_info = group_info.expect("a commit is made with its GroupInfo");
        Ok(Self {
            commit: commit.tls_serialize_detached().map_err(at(step))?,
            group_info: group_info.tls_serialize_detached().map_err(at(step))?,
            welcome: match welcome {
                Some(welcome) => welcome.tls_serialize_detached().map_err(at(step))?,
                None => Vec::new(),
            },
        })
    }
}

pub(super) fn group_id(id: ConversationId) -> GroupId {
    GroupId::from_slice(id.as_bytes())
}

pub(super) fn identity_of(credential: &Credential) -> Option<LeafIdentity> {
    let basic = openmls::prelude::BasicCredential::try_from(credential.clone()).ok()?;
    LeafIdentity::parse(basic.identity()).ok()
}

pub(super) fn leaf_of_member(member: &Member) -> Leaf {
    Leaf {
        identity: identity_of(&member.credential),
        mls_key: member.signature_key.clone(),
        leaf_key: member.encryption_key.clone(),
    }
}

fn leaf_of(leaf: &LeafNode) -> Leaf {
    Leaf {
        identity: identity_of(leaf.credential()),
        mls_key: leaf.signature_key().as_slice().to_vec(),
        leaf_key: encryption_key(leaf.encryption_key()),
    }
}

/// OpenMLS shows the encryption key of a leaf node only as it is written: behind its length, a QUIC varint.
pub(super) fn encryption_key(key: &impl Serialize) -> Vec<u8> {
    let written = key.tls_serialize_detached().unwrap_or_default();
    let length_bytes = written.first().map_or(0, |first| 1_usize << (first >> 6));
    written.get(length_bytes..).unwrap_or_default().to_vec()
}

fn read_protocol_message(bytes: &[u8]) -> Result<ProtocolMessage, String> {
    let message = MlsMessageIn::tls_deserialize_exact(bytes).map_err(|error| format!("it is malformed: {error}"))?;
    message.try_into_protocol_message().map_err(|error| error.to_string())
}

/// Describes a processed commit for the rule of membership.
fn ready(group: &MlsGroup, processed: ProcessedMessage) -> Option<ReadyCommit> {
    let external = matches!(processed.sender(), Sender::NewMemberCommit);
    let committer = identity_of(processed.credential());
    let attachment = CommitAttachment::decode(processed.aad());
    let ProcessedMessageContent::StagedCommitMessage(commit) = processed.into_content() else { return None };
    let removed_leaf = |index: LeafNodeIndex| {
        let member = group.members().find(|member| member.index == index);
        let unknown = Leaf { identity: None, mls_key: Vec::new(), leaf_key: Vec::new() };
        member.map_or(unknown, |member| leaf_of_member(&member))
    };
    let state = commit.queued_proposals().find_map(|queued| new_state(queued.proposal()));
    let change = Change {
        external,
        committer,
        renewed: commit.update_path_leaf_node().map(leaf_of),
        added: commit.add_proposals().map(|add| leaf_of(add.add_proposal().key_package().leaf_node())).collect(),
        removed: commit.remove_proposals().map(|remove| removed_leaf(remove.remove_proposal().removed())).collect(),
        more: attachment.is_err() || commit.queued_proposals().any(|queued| !known(queued.proposal(), external)),
        state,
        leaves: attachment.map(|attachment| attachment.leaves).unwrap_or_default(),
    };
    Some(ReadyCommit { commit, change })
}

fn known(proposal: &Proposal, external: bool) -> bool {
    match proposal {
        Proposal::Add(_) | Proposal::Remove(_) => true,
        Proposal::ExternalInit(_) => external,
        other => new_state(other).is_some(),
    }
}

/// The state that a proposal gives to a group.
fn new_state(proposal: &Proposal) -> Option<GroupState> {
    match proposal {
        Proposal::GroupContextExtensions(proposal) => read_context(proposal.extensions()).ok().flatten(),
        _ => None,
    }
}
