//! A device with real keys and real MLS state that follows no rule but its test's.

use bytes::{Bytes, BytesMut};
use ed25519_dalek::SigningKey;
use gureum_proto::{
    AccountId, ConversationId, ConversationWith, CreateConversation, DeviceId, DeviceKeys, DeviceLog, GROUP_EXTENSION,
    GroupState, Hello, HelloClaim, LeafIdentity, Leave, Position, Ready, Refusal, Register, Registered, Request,
    Response, Send, ServerFrame, ServerUrl, SignedLeave, SubmitCommit, put_hello, put_register, sign_add, sign_root,
};
use openmls::prelude::tls_codec::{DeserializeBytes, Serialize};
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CommitMessageBundle, CredentialWithKey, Extension, ExtensionType,
    Extensions, GroupContext, GroupId, KeyPackage, KeyPackageBuilder, KeyPackageIn, LeafNodeIndex, LeafNodeParameters,
    Member, MlsGroup, MlsGroupCreateConfig, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut,
    OpenMlsProvider, PURE_PLAINTEXT_WIRE_FORMAT_POLICY, ProcessedMessageContent, ProtocolVersion, RatchetTreeIn,
    RequiredCapabilitiesExtension, StagedWelcome, UnknownExtension,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;

use crate::raw::Raw;
use crate::world::World;

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// A device: the first of its account, unless it was linked.
#[derive(Debug)]
pub struct Device {
    /// The key that proves it.
    pub proof: SigningKey,
    /// Its account.
    pub account: AccountId,
    /// Its id.
    pub device: DeviceId,
    /// Entry 0 of its account's log.
    pub root_entry: Bytes,
    /// The server's name in its claims.
    pub server_name: String,
    log_entry: u64,
    signer: SignatureKeyPair,
    provider: OpenMlsRustCrypto,
    counter: u64,
}

/// A conversation as one device has it.
#[derive(Debug)]
pub struct Talk {
    /// Its id.
    pub id: ConversationId,
    group: MlsGroup,
}

impl Device {
    /// Makes keys that nobody knows yet.
    #[must_use]
    pub fn new() -> Self {
        let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
        let mls: [u8; 32] = signer.public().try_into().unwrap();
        let provider = OpenMlsRustCrypto::default();
        let (proof, recovery) = (random_key(&provider), random_key(&provider));
        let root_entry = sign_root(&proof, &mls, &recovery, crate::wait::now_ms()).unwrap();
        let account = DeviceLog::from_root(&root_entry).unwrap().account();
        let device = DeviceKeys::new(proof.verifying_key().as_bytes(), &mls).unwrap().device();
        let server_name = "127.0.0.1".to_owned();
        Self { proof, account, device, root_entry, server_name, log_entry: 0, signer, provider, counter: 0 }
    }

    /// Makes keys that nobody knows, for somebody who says to be this device of that account.
    #[must_use]
    pub fn posing_as(account: AccountId, device: DeviceId) -> Self {
        Self { account, device, ..Self::new() }
    }

    /// Its public keys.
    #[must_use]
    pub fn keys(&self) -> DeviceKeys {
        let mls: [u8; 32] = self.signer.public().try_into().unwrap();
        DeviceKeys::new(self.proof.verifying_key().as_bytes(), &mls).unwrap()
    }

    /// Makes keys and an account for them.
    pub async fn registered(world: &World, handle: &str) -> Self {
        let device = Self::new();
        let mut raw = Raw::dial(world.url()).await;
        device.register(&mut raw, &world.invite(1), handle).await.unwrap();
        raw.close().await;
        device
    }

    /// Adds another device to this one's account, and to what is known of the account's log.
    pub async fn link(&self, raw: &Raw, log: &mut DeviceLog) -> Self {
        let new = Self::new();
        let log_entry = log.length();
        let entry = sign_add(log, (self.device, &self.proof), &new.keys(), &new.proof, crate::wait::now_ms());
        log.append(&entry).unwrap();
        let answer = raw.request(&Request::AppendDeviceLog { entry }).await;
        assert!(matches!(answer, Response::DeviceLogAppended { .. }), "{answer:?}");
        Self { account: self.account, root_entry: self.root_entry.clone(), log_entry, ..new }
    }

    /// Asks for an account.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn register(&self, raw: &mut Raw, invite: &str, handle: &str) -> Result<Registered, Refusal> {
        let url: ServerUrl = invite.parse().unwrap();
        let token = url.token.unwrap_or_default().into();
        let register = Register { token, handle: handle.to_owned(), root_entry: self.root_entry.clone(), phone: None };
        let mut out = BytesMut::new();
        put_register(&register, &mut out);
        raw.write(&out).await;
        match raw.frame().await {
            ServerFrame::Registered(registered) => Ok(registered),
            ServerFrame::Refused(refusal) => Err(refusal),
            other => panic!("{other:?} in place of an answer"),
        }
    }

    /// What it says of itself when it connects.
    #[must_use]
    pub fn claim(&self, subscribe: bool, cursor: Position) -> HelloClaim {
        HelloClaim {
            server_name: self.server_name.clone(),
            account: self.account,
            device: self.device,
            subscribe,
            cursor,
            epochs_digest: None,
            log_entries: 1,
            life: None,
            push_digest: None,
        }
    }

    /// A Hello frame for a connection.
    #[must_use]
    pub fn hello(&self, raw: &Raw, claim: &HelloClaim) -> Bytes {
        Self::hello_by(raw, claim, &self.proof)
    }

    /// A Hello frame for a connection, signed by any key.
    #[must_use]
    pub fn hello_by(raw: &Raw, claim: &HelloClaim, key: &SigningKey) -> Bytes {
        let exporter = raw.exporter(claim.account, claim.device);
        let mut out = BytesMut::new();
        put_hello(&Hello::sign(claim, key, &exporter), &mut out);
        out.freeze()
    }

    /// Connects and proves itself.
    pub async fn connect(&self, url: &str, subscribe: bool, cursor: Position) -> (Raw, Ready) {
        let mut raw = Raw::dial(url).await;
        let ready = self.prove(&mut raw, subscribe, cursor).await;
        (raw, ready)
    }

    /// Proves itself on a connection.
    pub async fn prove(&self, raw: &mut Raw, subscribe: bool, cursor: Position) -> Ready {
        let hello = self.hello(raw, &self.claim(subscribe, cursor));
        raw.write(&hello).await;
        match raw.frame().await {
            ServerFrame::Ready(ready) => ready,
            other => panic!("{other:?} in place of Ready"),
        }
    }

    /// The next counter.
    pub fn next_counter(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A KeyPackage, as an MLSMessage.
    #[must_use]
    pub fn key_package(&self) -> Bytes {
        self.build(KeyPackage::builder())
    }

    /// One that may be claimed again and again.
    #[must_use]
    pub fn last_resort(&self) -> Bytes {
        self.build(KeyPackage::builder().mark_as_last_resort())
    }

    fn build(&self, builder: KeyPackageBuilder) -> Bytes {
        let builder = builder.leaf_node_capabilities(capabilities());
        let bundle = builder.build(SUITE, &self.provider, &self.signer, self.credential()).unwrap();
        bytes(&MlsMessageOut::from(bundle.key_package().clone()))
    }

    /// Puts KeyPackages into the server's directory.
    pub async fn publish(&self, raw: &Raw, count: usize) {
        let key_packages = (0..count).map(|_| self.key_package()).collect();
        let answer = raw.request(&Request::PutKeyPackages { key_packages, last_resort: None, replace: false }).await;
        assert!(matches!(answer, Response::KeyPackagesStored { .. }), "{answer:?}");
    }

    fn credential(&self) -> CredentialWithKey {
        let identity = LeafIdentity { account: self.account, device: self.device, log_entry: self.log_entry };
        CredentialWithKey {
            credential: BasicCredential::new(identity.to_bytes()).into(),
            signature_key: self.signer.public().into(),
        }
    }

    /// Begins a conversation with somebody who has a KeyPackage in the directory.
    pub async fn begin(&self, raw: &Raw, peer: &Self) -> Talk {
        let claimed = raw.request(&Request::ClaimKeyPackages { accounts: vec![peer.account] }).await;
        let Response::KeyPackages(claimed) = claimed else { panic!("{claimed:?} in place of KeyPackages") };
        let (_, package) = claimed.of(peer.account).next().expect("one device, one KeyPackage");
        let (talk, create) = self.prepare(peer, &package);
        let answer = raw.request(&Request::CreateConversation(create)).await;
        assert!(matches!(answer, Response::ConversationCreated { existed: false, .. }), "{answer:?}");
        talk
    }

    /// What begins a conversation.
    #[must_use]
    pub fn prepare(&self, peer: &Self, package: &[u8]) -> (Talk, CreateConversation) {
        let id = ConversationId::from_bytes(random(&self.provider));
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .capabilities(capabilities())
            .build();
        let group_id = GroupId::from_slice(id.as_bytes());
        let mut group =
            MlsGroup::new_with_group_id(&self.provider, &self.signer, &config, group_id, self.credential()).unwrap();
        let MlsMessageBodyIn::KeyPackage(package) = read(package) else { panic!("no KeyPackage") };
        let package = KeyPackageIn::validate(package, self.provider.crypto(), ProtocolVersion::Mls10).unwrap();
        let bundle = group
            .commit_builder()
            .propose_adds([package])
            .load_psks(self.provider.storage())
            .unwrap()
            .create_group_info(true)
            .build(self.provider.rand(), self.provider.crypto(), &self.signer, |_| true)
            .unwrap()
            .stage_commit(&self.provider)
            .unwrap();
        let (_, welcome, group_info) = bundle.into_messages();
        group.merge_pending_commit(&self.provider).unwrap();
        let create = CreateConversation {
            conversation: id,
            with: ConversationWith::Peer(peer.account),
            group_info: bytes(&group_info.unwrap()),
            tree: group.export_ratchet_tree().tls_serialize_detached().unwrap().into(),
            welcome: bytes(&welcome.unwrap()),
        };
        (Talk { id, group }, create)
    }

    /// Joins by a Welcome, with the tree from the server.
    pub async fn join(&self, raw: &Raw, id: ConversationId, welcome: &[u8]) -> Talk {
        let answer = raw.request(&Request::ReadGroup { conversation: id }).await;
        let Response::Group(group) = answer else { panic!("{answer:?} in place of a group") };
        let tree = RatchetTreeIn::tls_deserialize_exact_bytes(&group.tree).unwrap();
        let config = MlsGroupJoinConfig::builder().wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY).build();
        let MlsMessageBodyIn::Welcome(welcome) = read(welcome) else { panic!("no Welcome") };
        let staged = StagedWelcome::build_from_welcome(&self.provider, &config, welcome).unwrap();
        let group = staged.with_ratchet_tree(tree).build().unwrap().into_group(&self.provider).unwrap();
        Talk { id, group }
    }

    /// A message, encrypted and counted.
    pub fn encrypt(&mut self, talk: &mut Talk, text: &[u8]) -> Send {
        let message = talk.group.create_message(&self.provider, &self.signer, text).unwrap();
        self.opaque(talk, bytes(&message))
    }

    /// A message of bytes that only look like a ciphertext to a server.
    pub fn opaque(&mut self, talk: &Talk, ciphertext: impl Into<Bytes>) -> Send {
        let (counter, ciphertext) = (self.next_counter(), ciphertext.into());
        Send { counter, conversation: talk.id, epoch: talk.epoch(), ciphertext, silent: false }
    }

    /// Decrypts what another device encrypted.
    #[must_use]
    pub fn decrypt(&self, talk: &mut Talk, ciphertext: &[u8]) -> Vec<u8> {
        let MlsMessageBodyIn::PrivateMessage(message) = read(ciphertext) else { panic!("no PrivateMessage") };
        match talk.group.process_message(&self.provider, message).unwrap().into_content() {
            ProcessedMessageContent::ApplicationMessage(message) => message.into_bytes(),
            _ => panic!("no application message"),
        }
    }

    /// Whether it can decrypt what another device encrypted.
    #[must_use]
    pub fn opens(&self, talk: &mut Talk, ciphertext: &[u8]) -> bool {
        let MlsMessageBodyIn::PrivateMessage(message) = read(ciphertext) else { panic!("no PrivateMessage") };
        talk.group.process_message(&self.provider, message).is_ok()
    }

    /// A commit that renews this device's keys, pending in its group.
    pub fn commit(&mut self, talk: &mut Talk) -> SubmitCommit {
        self.commit_removing(talk, &[])
    }

    /// A commit that removes a device, pending in its group.
    pub fn remove(&mut self, talk: &mut Talk, device: DeviceId) -> SubmitCommit {
        let leaf = talk.group.members().find(|member| device_of(member) == device).unwrap().index;
        self.commit_removing(talk, &[leaf])
    }

    /// A commit that gives the conversation a state, and its context whatever else; pending in its group.
    pub fn restate(&mut self, talk: &mut Talk, state: &GroupState, more: Option<Extension>) -> SubmitCommit {
        let required = RequiredCapabilitiesExtension::new(&[GROUP], &[], &[]);
        let state = Extension::Unknown(GROUP_EXTENSION, UnknownExtension(state.encode().to_vec()));
        let whole = [Extension::RequiredCapabilities(required), state].into_iter().chain(more).collect();
        self.commit_with(talk, &[], Some(Extensions::from_vec(whole).unwrap()))
    }

    /// The statement that this account leaves, by the leaf that this device has.
    #[must_use]
    pub fn leave(&self, talk: &Talk) -> SignedLeave {
        let leaf = talk.group.members().find(|member| device_of(member) == self.device).unwrap();
        let (account, device) = (self.account, self.device);
        let leave = Leave { conversation: talk.id, account, device, leaf_key: leaf.encryption_key.into() };
        SignedLeave::sign(leave, &self.proof)
    }

    fn commit_removing(&mut self, talk: &mut Talk, leaves: &[LeafNodeIndex]) -> SubmitCommit {
        self.commit_with(talk, leaves, None)
    }

    fn commit_with(
        &mut self,
        talk: &mut Talk,
        leaves: &[LeafNodeIndex],
        context: Option<Extensions<GroupContext>>,
    ) -> SubmitCommit {
        let counter = self.next_counter();
        let epoch = talk.epoch();
        let mut builder = talk.group.commit_builder().propose_removals(leaves.iter().copied()).force_self_update(true);
        if let Some(context) = context {
            builder = builder.propose_group_context_extensions(context).unwrap();
        }
        let bundle = builder
            .load_psks(self.provider.storage())
            .unwrap()
            .create_group_info(true)
            .build(self.provider.rand(), self.provider.crypto(), &self.signer, |_| true)
            .unwrap()
            .stage_commit(&self.provider)
            .unwrap();
        let (commit, _, group_info) = bundle.into_messages();
        SubmitCommit {
            counter,
            conversation: talk.id,
            epoch,
            commit: bytes(&commit),
            group_info: bytes(&group_info.unwrap()),
            welcome: Bytes::new(),
        }
    }

    /// An external commit onto what the server told a member of the group.
    pub fn external_commit(&mut self, id: ConversationId, group: &gureum_proto::Group) -> SubmitCommit {
        let (commit, _, group_info) = self.come_in(group).1.into_messages();
        SubmitCommit {
            counter: self.next_counter(),
            conversation: id,
            epoch: group.epoch,
            commit: bytes(&commit),
            group_info: bytes(&group_info.unwrap()),
            welcome: Bytes::new(),
        }
    }

    /// What a group would be after such a commit.
    #[must_use]
    pub fn with_itself_in(&self, group: &gureum_proto::Group) -> gureum_proto::Group {
        let (joined, bundle) = self.come_in(group);
        let (_, _, group_info) = bundle.into_messages();
        gureum_proto::Group {
            epoch: joined.epoch().as_u64(),
            group_info: bytes(&group_info.unwrap()),
            tree: joined.export_ratchet_tree().tls_serialize_detached().unwrap().into(),
        }
    }

    fn come_in(&self, group: &gureum_proto::Group) -> (MlsGroup, CommitMessageBundle) {
        let MlsMessageBodyIn::GroupInfo(info) = read(&group.group_info) else { panic!("no GroupInfo") };
        let tree = RatchetTreeIn::tls_deserialize_exact_bytes(&group.tree).unwrap();
        MlsGroup::external_commit_builder()
            .with_ratchet_tree(tree)
            .build_group(&self.provider, info, self.credential())
            .unwrap()
            .leaf_node_parameters(LeafNodeParameters::builder().with_capabilities(capabilities()).build())
            .load_psks(self.provider.storage())
            .unwrap()
            .create_group_info(true)
            .build(self.provider.rand(), self.provider.crypto(), &self.signer, |_| true)
            .unwrap()
            .finalize(&self.provider)
            .unwrap()
    }

    /// The server has taken this device's commit.
    pub fn merge_own(&self, talk: &mut Talk) {
        talk.group.merge_pending_commit(&self.provider).unwrap();
    }

    /// The server has taken somebody else's commit.
    pub fn clear_own(&self, talk: &mut Talk) {
        talk.group.clear_pending_commit(self.provider.storage()).unwrap();
    }

    /// Takes another device's commit.
    pub fn merge(&self, talk: &mut Talk, commit: &[u8]) {
        let MlsMessageBodyIn::PublicMessage(message) = read(commit) else { panic!("no PublicMessage") };
        match talk.group.process_message(&self.provider, message).unwrap().into_content() {
            ProcessedMessageContent::StagedCommitMessage(staged) => {
                talk.group.merge_staged_commit(&self.provider, *staged).unwrap();
            }
            _ => panic!("no commit"),
        }
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

impl Talk {
    /// The epoch that this device is in.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.group.epoch().as_u64()
    }

    /// The devices that have a leaf.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceId> {
        self.group.members().map(|member| device_of(&member)).collect()
    }
}

const GROUP: ExtensionType = ExtensionType::Unknown(GROUP_EXTENSION);

/// What every leaf of this protocol lists.
fn capabilities() -> Capabilities {
    Capabilities::builder().extensions(vec![ExtensionType::LastResort, GROUP]).build()
}

fn device_of(member: &Member) -> DeviceId {
    let credential = BasicCredential::try_from(member.credential.clone()).unwrap();
    LeafIdentity::parse(credential.identity()).unwrap().device
}

fn bytes(message: &MlsMessageOut) -> Bytes {
    message.tls_serialize_detached().unwrap().into()
}

fn read(message: &[u8]) -> MlsMessageBodyIn {
    MlsMessageIn::tls_deserialize_exact_bytes(message).unwrap().extract()
}

fn random_key(provider: &OpenMlsRustCrypto) -> SigningKey {
    SigningKey::from_bytes(&random(provider))
}

fn random<const N: usize>(provider: &OpenMlsRustCrypto) -> [u8; N] {
    use openmls::prelude::OpenMlsRand;
    provider.rand().random_array().unwrap()
}
