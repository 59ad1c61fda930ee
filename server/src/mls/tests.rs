//! Real groups: what is valid is followed epoch by epoch, what is not is refused with its reason.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails may panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use gureum_proto::membership::{Expected, Roster, accounts_of, judge_group};
use gureum_proto::{ConversationId, DeviceKeys, DeviceLog, sign_add, sign_revoke, sign_root};
use openmls::prelude::tls_codec::Serialize;
use openmls::prelude::{
    Capabilities, CredentialWithKey, Extensions, GroupContext, GroupId, KeyPackage, LeafNodeIndex, LeafNodeParameters,
    Lifetime, MlsGroup, MlsGroupCreateConfig, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageOut, NewSignerBundle,
    OpenMlsProvider, PURE_PLAINTEXT_WIRE_FORMAT_POLICY, RatchetTreeIn, StagedWelcome,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;

use super::commit::NextGroup;
use super::group::GroupView;
use super::*;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// Device logs, as the server has them.
struct Known(BTreeMap<AccountId, Arc<DeviceLog>>);

impl Known {
    fn of(logs: &[&DeviceLog]) -> Self {
        Self(logs.iter().map(|log| (log.account(), Arc::new((*log).clone()))).collect())
    }
}

impl Logs for Known {
    fn log(&self, account: AccountId) -> Option<Arc<DeviceLog>> {
        self.0.get(&account).cloned()
    }

    fn passes_revoked(&self, _: DeviceId) -> bool {
        false
    }
}

struct Device {
    provider: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
    proof: SigningKey,
    keys: DeviceKeys,
    identity: LeafIdentity,
}

impl Device {
    fn credential(&self) -> CredentialWithKey {
        self.credential_of(self.identity)
    }

    fn credential_of(&self, identity: LeafIdentity) -> CredentialWithKey {
        CredentialWithKey {
            credential: BasicCredential::new(identity.to_bytes()).into(),
            signature_key: self.signer.public().into(),
        }
    }

    fn key_package_of(&self, credential: CredentialWithKey, lifetime: Lifetime) -> KeyPackage {
        let builder = KeyPackage::builder().key_package_lifetime(lifetime).leaf_node_capabilities(capabilities());
        builder.build(SUITE, &self.provider, &self.signer, credential).unwrap().key_package().clone()
    }

    fn key_package(&self) -> KeyPackage {
        self.key_package_of(self.credential(), Lifetime::default())
    }
}

struct Person {
    log: DeviceLog,
    devices: Vec<Device>,
}

impl Person {
    fn new(seed: u8) -> Self {
        let (proof, signer, keys) = device_keys(seed);
        let root = sign_root(&proof, keys.mls(), &SigningKey::from_bytes(&[seed + 100; 32]), 0).unwrap();
        let log = DeviceLog::from_root(&root).unwrap();
        let identity = LeafIdentity { account: log.account(), device: keys.device(), log_entry: 0 };
        Self { log, devices: vec![Device { provider: OpenMlsRustCrypto::default(), signer, proof, keys, identity }] }
    }

    fn with_device(mut self, seed: u8) -> Self {
        let (proof, signer, keys) = device_keys(seed);
        let first = &self.devices[0];
        let entry = sign_add(&self.log, (first.identity.device, &first.proof), &keys, &proof, 0);
        let log_entry = self.log.length();
        self.log.append(&entry).unwrap();
        let identity = LeafIdentity { account: self.log.account(), device: keys.device(), log_entry };
        self.devices.push(Device { provider: OpenMlsRustCrypto::default(), signer, proof, keys, identity });
        self
    }

    fn revoke(&mut self, index: usize) {
        let first = &self.devices[0];
        let revoked = self.devices[index].keys.device();
        let entry = sign_revoke(&self.log, (first.identity.device, &first.proof), revoked, 0);
        self.log.append(&entry).unwrap();
    }
}

fn device_keys(seed: u8) -> (SigningKey, SignatureKeyPair, DeviceKeys) {
    let proof = SigningKey::from_bytes(&[seed; 32]);
    let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
    let mls: [u8; 32] = signer.public().try_into().unwrap();
    let keys = DeviceKeys::new(proof.verifying_key().as_bytes(), &mls).unwrap();
    (proof, signer, keys)
}

/// What every leaf says that it supports.
fn capabilities() -> Capabilities {
    Capabilities::builder().extensions(vec![GROUP_EXTENSION_TYPE, ExtensionType::LastResort]).build()
}

/// Alice with two devices and Bob with one; Alice's first device has made the conversation and added the others.
struct Talk {
    alice: Person,
    bob: Person,
    /// The groups of Alice's first device and of Bob's.
    groups: [MlsGroup; 2],
    id: ConversationId,
    view: GroupView,
}

/// What a commit hands over.
struct Handover {
    commit: Vec<u8>,
    group_info: Vec<u8>,
}

fn bytes(message: &MlsMessageOut) -> Vec<u8> {
    message.tls_serialize_detached().unwrap()
}

/// Builds a commit on a group, without merging it.
macro_rules! commit {
    ($group:expr, $device:expr $(, $with:ident($argument:expr))*) => {{
        let device: &Device = $device;
        let bundle = $group.commit_builder() $(.$with($argument))*
            .load_psks(device.provider.storage()).unwrap()
            .create_group_info(true)
            .build(device.provider.rand(), device.provider.crypto(), &device.signer, |_| true).unwrap()
            .stage_commit(&device.provider).unwrap();
        let (commit, welcome, info) = bundle.into_messages();
        (Handover { commit: bytes(&commit), group_info: bytes(&info.unwrap()) }, welcome)
    }};
}

// Below the macro, which they use.
mod followed;
mod groups;

impl Talk {
    fn start() -> Self {
        Self::start_with(Lifetime::default())
    }

    fn start_with(lifetime: Lifetime) -> Self {
        let (alice, bob) = (Person::new(1).with_device(2), Person::new(3));
        Self::of(alice, bob, lifetime, Extensions::empty())
    }

    fn of(alice: Person, bob: Person, lifetime: Lifetime, extensions: Extensions<GroupContext>) -> Self {
        let id = ConversationId::from_bytes([9; 16]);
        let first = &alice.devices[0];
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .lifetime(lifetime)
            .capabilities(capabilities())
            .with_group_context_extensions(extensions)
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .build();
        let group_id = GroupId::from_slice(id.as_bytes());
        let mut group =
            MlsGroup::new_with_group_id(&first.provider, &first.signer, &config, group_id, first.credential()).unwrap();
        let adds = [alice.devices[1].key_package(), bob.devices[0].key_package()];
        let (handover, welcome) = commit!(group, first, propose_adds(adds));
        group.merge_pending_commit(&first.provider).unwrap();
        let tree = group.export_ratchet_tree();
        let joined = join(&bob.devices[0], &bytes(&welcome.unwrap()), tree.clone().into());
        let view = GroupView {
            epoch: 1,
            members: Vec::new(),
            state: None,
            group_info: handover.group_info.into(),
            tree: tree.tls_serialize_detached().unwrap().into(),
        };
        Self { alice, bob, groups: [group, joined], id, view }
    }

    fn logs(&self) -> Known {
        Known::of(&[&self.alice.log, &self.bob.log])
    }

    fn apply_at(&self, epoch: u64, handover: &Handover, sender: LeafIdentity) -> Result<NextGroup, CommitError> {
        let submitted = Submitted { epoch, commit: &handover.commit, group_info: &handover.group_info, sender };
        let mut group = self.read().map_err(CommitError::Stored)?;
        apply_commit(&mut group, &submitted, &self.logs())
    }

    fn stored(&self) -> StoredGroup<'_> {
        let GroupView { epoch, group_info, tree, .. } = &self.view;
        StoredGroup { conversation: self.id, epoch: *epoch, group_info, tree }
    }

    fn read(&self) -> Result<FollowedGroup, MlsError> {
        FollowedGroup::read(&self.stored())
    }

    fn apply(&self, handover: &Handover, sender: &Device) -> Result<NextGroup, CommitError> {
        self.apply_at(self.view.epoch, handover, sender.identity)
    }

    #[track_caller]
    fn refuses(&self, handover: &Handover, sender: &Device, reason: &str) {
        let error = self.apply(handover, sender).unwrap_err();
        assert!(matches!(error, CommitError::Invalid(_)), "{error:?}");
        assert!(error.to_string().contains(reason), "{error}");
    }

    /// The external commit of a device, from the server's state.
    fn external(&self, device: &Device, credential: CredentialWithKey) -> Handover {
        let info = read_message(&self.view.group_info, "GroupInfo").unwrap();
        let MlsMessageBodyIn::GroupInfo(info) = info.extract() else { panic!("no GroupInfo") };
        let tree = RatchetTreeIn::tls_deserialize_exact_bytes(&self.view.tree).unwrap();
        let provider = OpenMlsRustCrypto::default();
        let (_, bundle) = MlsGroup::external_commit_builder()
            .with_ratchet_tree(tree)
            .skip_lifetime_validation()
            .build_group(&provider, info, credential)
            .unwrap()
            .leaf_node_parameters(LeafNodeParameters::builder().with_capabilities(capabilities()).build())
            .load_psks(provider.storage())
            .unwrap()
            .create_group_info(true)
            .build(provider.rand(), provider.crypto(), &device.signer, |_| true)
            .unwrap()
            .finalize(&provider)
            .unwrap();
        let (commit, _, info) = bundle.into_messages();
        Handover { commit: bytes(&commit), group_info: bytes(&info.unwrap()) }
    }
}

fn view_of(next: NextGroup) -> GroupView {
    let NextGroup { epoch, members, group_info, tree, .. } = next;
    GroupView { epoch, members, state: None, group_info, tree }
}

fn join(device: &Device, welcome: &[u8], tree: RatchetTreeIn) -> MlsGroup {
    let config = MlsGroupJoinConfig::builder().wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY).build();
    let MlsMessageBodyIn::Welcome(welcome) = read_message(welcome, "Welcome").unwrap().extract() else {
        panic!("no Welcome")
    };
    StagedWelcome::build_from_welcome(&device.provider, &config, welcome)
        .unwrap()
        .with_ratchet_tree(tree)
        .skip_lifetime_validation()
        .build()
        .unwrap()
        .into_group(&device.provider)
        .unwrap()
}

// ---- KeyPackages ----

#[track_caller]
fn refuses_package(package: &KeyPackage, owner: &Device, log: &DeviceLog, reason: &str) {
    let bytes = bytes(&MlsMessageOut::from(package.clone()));
    let LeafIdentity { account, device, .. } = owner.identity;
    let error = check_key_package(&bytes, account, device, &Known::of(&[log]), now_ms()).unwrap_err();
    assert!(error.to_string().contains(reason), "{error}");
}

#[test]
fn a_devices_own_key_package_is_taken_with_the_end_of_its_life() {
    let alice = Person::new(1);
    let device = &alice.devices[0];
    let message = bytes(&MlsMessageOut::from(device.key_package()));
    let LeafIdentity { account, device, .. } = device.identity;
    let logs = Known::of(&[&alice.log]);
    let info = check_key_package(&message, account, device, &logs, now_ms()).unwrap();
    assert_eq!(info.hash, *blake3::hash(&message).as_bytes());
    assert!(info.not_after_ms.abs_diff(now_ms() + 84 * DAY_MS) < 60_000);
    let later = check_key_package(&message, account, device, &logs, now_ms() + 84 * DAY_MS);
    assert_eq!(later, Err(MlsError::Lifetime));
}

#[test]
fn a_key_package_of_another_identity_entry_key_or_lifetime_is_refused() {
    let (mut alice, bob) = (Person::new(1).with_device(2), Person::new(3));
    let (first, second) = (&alice.devices[0], &alice.devices[1]);
    refuses_package(&second.key_package(), first, &alice.log, "names another device");
    refuses_package(&bob.devices[0].key_package(), first, &alice.log, "names another device");
    let posing = second.key_package_of(second.credential_of(first.identity), Lifetime::default());
    refuses_package(&posing, first, &alice.log, "has another key");
    let other_entry = LeafIdentity { log_entry: 1, ..first.identity };
    let package = first.key_package_of(first.credential_of(other_entry), Lifetime::default());
    refuses_package(&package, first, &alice.log, "has another key");
    let long = first.key_package_of(first.credential(), Lifetime::new(86 * 24 * 60 * 60));
    refuses_package(&long, first, &alice.log, "lifetime");
    let incapable = KeyPackage::builder().build(SUITE, &first.provider, &first.signer, first.credential()).unwrap();
    refuses_package(incapable.key_package(), first, &alice.log, "does not support");
    let package = second.key_package();
    alice.revoke(1);
    refuses_package(&package, &alice.devices[1], &alice.log, "was revoked");
}

#[test]
fn a_damaged_key_package_is_refused_at_every_byte() {
    let alice = Person::new(1);
    let LeafIdentity { account, device, .. } = alice.devices[0].identity;
    let message = bytes(&MlsMessageOut::from(alice.devices[0].key_package()));
    let logs = Known::of(&[&alice.log]);
    let check = |bytes: &[u8]| check_key_package(bytes, account, device, &logs, now_ms());
    for at in 0..message.len() {
        let mut damaged = message.clone();
        damaged[at] ^= 1;
        assert!(check(&damaged).is_err(), "byte {at}");
        assert_eq!(check(&message[..at]), Err(MlsError::Malformed("KeyPackage")), "{at} bytes");
    }
    let longer = [message.as_slice(), &[0]].concat();
    assert_eq!(check(&longer), Err(MlsError::Malformed("KeyPackage")));
}

// ---- new groups ----

#[test]
fn a_new_group_is_opened_with_its_members() {
    let talk = Talk::start();
    let view = open_group(talk.id, &talk.view.group_info, &talk.view.tree).unwrap();
    assert_eq!((view.epoch, &view.group_info, &view.tree), (1, &talk.view.group_info, &talk.view.tree));
    let expected = [&talk.alice.devices[0], &talk.alice.devices[1], &talk.bob.devices[0]];
    let expected: Vec<_> = expected.iter().map(|device| device.identity).collect();
    assert_eq!(view.members.iter().map(|member| member.identity).collect::<Vec<_>>(), expected);
    assert_eq!(view.members.iter().map(|member| member.leaf).collect::<Vec<_>>(), [0, 1, 2]);
    let leaves: Vec<_> = view.members.iter().map(GroupMember::as_leaf).collect();
    let roster = Roster { conversation: talk.id, leaves: &leaves, state: view.state.as_ref() };
    let judge = |logs: &Known| allowed(judge_group(&roster, Expected::Accounts(&accounts_of(&leaves)), logs));
    assert_eq!(judge(&talk.logs()), Ok(()));
    let unknown = judge(&Known::of(&[&talk.alice.log]));
    assert!(matches!(unknown, Err(MlsError::Membership(_))), "whole logs leave no question: {unknown:?}");
}

#[test]
fn a_group_of_another_conversation_tree_or_signature_is_refused() {
    let (talk, other) = (Talk::start(), Talk::start());
    let open = |id, info: &[u8], tree: &[u8]| open_group(id, info, tree).map(|view| view.epoch);
    let elsewhere = ConversationId::from_bytes([1; 16]);
    assert_eq!(open(elsewhere, &talk.view.group_info, &talk.view.tree), Err(MlsError::Conversation));
    assert!(open(talk.id, &talk.view.group_info, &other.view.tree).is_err());
    assert_eq!(open(talk.id, &talk.view.tree, &talk.view.tree), Err(MlsError::Malformed("GroupInfo")));
    assert_eq!(open(talk.id, &talk.view.group_info, &[]), Err(MlsError::Malformed("ratchet tree")));
    let mut forged = talk.view.group_info.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert!(open(talk.id, &forged, &talk.view.tree).is_err());
}

// ---- commits that are followed ----

#[test]
fn commits_of_members_are_followed_epoch_by_epoch() {
    let mut talk = Talk::start();
    for round in 0..3 {
        let device = &talk.alice.devices[0];
        let (handover, _) = commit!(talk.groups[0], device, force_self_update(true));
        let next = talk.apply(&handover, device).unwrap();
        assert_eq!((next.epoch, next.added.len(), next.removed.len()), (2 + round, 0, 0));
        talk.groups[0].merge_pending_commit(&device.provider).unwrap();
        assert_eq!(next.tree, talk.groups[0].export_ratchet_tree().tls_serialize_detached().unwrap());
        talk.view = view_of(next);
    }
}

#[test]
fn a_device_is_added_and_removed_by_its_account_or_the_other() {
    let mut talk = Talk::start();
    talk.bob = talk.bob.with_device(4);
    let (device, added) = (&talk.alice.devices[0], &talk.bob.devices[1]);
    let (handover, _) = commit!(talk.groups[0], device, propose_adds([added.key_package()]));
    let next = talk.apply(&handover, device).unwrap();
    assert_eq!((next.added.as_slice(), next.members.len()), ([added.identity.device].as_slice(), 4));
    talk.groups[0].merge_pending_commit(&device.provider).unwrap();
    talk.view = view_of(next);

    // Alice may remove Bob's new device only once Bob has revoked it, and her own at any time.
    let (handover, _) = commit!(talk.groups[0], device, propose_removals([LeafNodeIndex::new(3)]));
    talk.refuses(&handover, device, "which only");
    talk.bob.revoke(1);
    let next = talk.apply(&handover, device).unwrap();
    assert_eq!(next.removed, [talk.bob.devices[1].identity.device]);
    talk.groups[0].merge_pending_commit(&device.provider).unwrap();
    talk.view = view_of(next);
    let (handover, _) = commit!(talk.groups[0], device, propose_removals([LeafNodeIndex::new(1)]));
    assert_eq!(talk.apply(&handover, device).unwrap().removed, [talk.alice.devices[1].identity.device]);
}

#[test]
fn a_device_rejoins_by_an_external_commit_and_the_next_commit_follows() {
    let mut talk = Talk::start();
    let device = &talk.bob.devices[0];
    let handover = talk.external(device, device.credential());
    let next = talk.apply(&handover, device).unwrap();
    assert_eq!((next.epoch, next.members.len(), next.added.len(), next.removed.len()), (2, 3, 0, 0));
    talk.view = view_of(next);
    let again = talk.external(&talk.alice.devices[1], talk.alice.devices[1].credential());
    assert_eq!(talk.apply(&again, &talk.alice.devices[1]).unwrap().epoch, 3);
}

#[test]
fn a_member_accounts_new_device_joins_by_an_external_commit() {
    let mut talk = Talk::start();
    talk.bob = talk.bob.with_device(4);
    let device = &talk.bob.devices[1];
    let next = talk.apply(&talk.external(device, device.credential()), device).unwrap();
    assert_eq!((next.added.as_slice(), next.members.len()), ([device.identity.device].as_slice(), 4));
}

#[test]
fn a_leaf_whose_lifetime_has_passed_bars_nobodys_way() {
    let now = now_ms() / 1_000;
    // The creator's first commit only adds: it has no path that would renew the creator's leaf.
    let mut talk = Talk::start_with(Lifetime::init(now - 7_200, now - 3_600));
    let opened = open_group(talk.id, &talk.view.group_info, &talk.view.tree);
    assert!(matches!(opened, Err(MlsError::Invalid { .. })), "no new conversation begins so: {opened:?}");
    let bob = &talk.bob.devices[0];
    for epoch in 2..4 {
        let (handover, _) = commit!(talk.groups[1], bob, force_self_update(true));
        let next = talk.apply(&handover, bob).unwrap();
        assert_eq!((next.epoch, next.members.len()), (epoch, 3));
        talk.groups[1].merge_pending_commit(&bob.provider).unwrap();
        assert_eq!(next.tree, talk.groups[1].export_ratchet_tree().tls_serialize_detached().unwrap());
        talk.view = view_of(next);
    }
    let creator = &talk.alice.devices[0];
    let next = talk.apply(&talk.external(creator, creator.credential()), creator).unwrap();
    assert!(open_group(talk.id, &next.group_info, &next.tree).is_ok(), "its own commit renews the leaf");
}

// ---- commits that are refused ----

#[test]
fn a_commit_of_another_epoch_loses() {
    let mut talk = Talk::start();
    let (alice, bob) = (&talk.alice.devices[0], &talk.bob.devices[0]);
    let (winner, _) = commit!(talk.groups[0], alice, force_self_update(true));
    let (loser, _) = commit!(talk.groups[1], bob, force_self_update(true));
    let next = talk.apply(&winner, alice).unwrap();
    assert_eq!(talk.apply_at(2, &winner, alice.identity), Err(CommitError::Epoch { current: 1 }));
    talk.view = view_of(next);
    let (alice, bob) = (&talk.alice.devices[0], &talk.bob.devices[0]);
    assert_eq!(talk.apply_at(1, &loser, bob.identity), Err(CommitError::Epoch { current: 2 }));
    assert_eq!(talk.apply_at(2, &loser, bob.identity), Err(CommitError::Epoch { current: 2 }));
    assert_eq!(talk.apply_at(2, &winner, alice.identity), Err(CommitError::Epoch { current: 2 }));
}

#[test]
fn a_commit_by_another_device_than_the_proven_one_is_refused() {
    let mut talk = Talk::start();
    let (alice, bob) = (&talk.alice.devices[0], &talk.bob.devices[0]);
    let (handover, _) = commit!(talk.groups[0], alice, force_self_update(true));
    talk.refuses(&handover, bob, "names another device");
    talk.refuses(&talk.external(alice, alice.credential()), bob, "names another device");
}

#[test]
fn a_commit_of_a_revoked_device_is_refused() {
    let mut talk = Talk::start();
    talk.alice.revoke(1);
    let device = &talk.alice.devices[1];
    talk.refuses(&talk.external(device, device.credential()), device, "was revoked");
}

#[test]
fn a_damaged_commit_is_refused() {
    let mut talk = Talk::start();
    let device = &talk.alice.devices[0];
    let (handover, _) = commit!(talk.groups[0], device, force_self_update(true));
    let end = handover.commit.len();
    // Not the membership tag (the last 33 bytes), which only members can check.
    for at in (0..end - 33).step_by(7) {
        let mut commit = handover.commit.clone();
        commit[at] ^= 1;
        let damaged = Handover { commit, group_info: handover.group_info.clone() };
        assert!(talk.apply(&damaged, device).is_err(), "byte {at}");
    }
    for commit in [Vec::new(), handover.commit[..end - 1].to_vec(), [handover.commit.as_slice(), &[0]].concat()] {
        talk.refuses(&Handover { commit, group_info: handover.group_info.clone() }, device, "no commit");
    }
}

#[test]
fn a_strangers_external_commit_is_refused() {
    let talk = Talk::start();
    let stranger = Person::new(7);
    let device = &stranger.devices[0];
    let handover = talk.external(device, device.credential());
    talk.refuses(&handover, device, "is not in the conversation");
}

#[test]
fn an_external_commit_that_removes_somebody_else_is_refused() {
    let mut talk = Talk::start();
    talk.bob = talk.bob.with_device(4);
    // OpenMLS removes the leaf with the joiner's signature key: a device whose key is another's.
    let (victim, joiner) = (&talk.bob.devices[0], &talk.bob.devices[1]);
    let handover = talk.external(victim, victim.credential_of(joiner.identity));
    talk.refuses(&handover, joiner, "has another key");
}

#[test]
fn an_added_leaf_must_be_an_active_device_of_a_member() {
    let mut talk = Talk::start();
    let stranger = Person::new(7);
    let device = &talk.alice.devices[0];
    let (handover, _) = commit!(talk.groups[0], device, propose_adds([stranger.devices[0].key_package()]));
    talk.refuses(&handover, device, "is not in the conversation");
    talk.groups[0].clear_pending_commit(device.provider.storage()).unwrap();

    talk.bob = talk.bob.with_device(4);
    let device = &talk.alice.devices[0];
    let (handover, _) = commit!(talk.groups[0], device, propose_adds([talk.bob.devices[1].key_package()]));
    assert!(talk.apply(&handover, device).is_ok());
    talk.bob.revoke(1);
    talk.refuses(&handover, device, "was revoked");
}

#[test]
fn an_accounts_last_device_is_not_removed_by_the_other() {
    let mut talk = Talk::start();
    talk.bob = talk.bob.with_device(4);
    // Bob's second device revokes the first, whose leaf is the only one that Bob has.
    let (first, second) = (&talk.bob.devices[0], &talk.bob.devices[1]);
    let entry = sign_revoke(&talk.bob.log, (second.identity.device, &second.proof), first.identity.device, 0);
    talk.bob.log.append(&entry).unwrap();
    let device = &talk.alice.devices[0];
    let (handover, _) = commit!(talk.groups[0], device, propose_removals([LeafNodeIndex::new(2)]));
    talk.refuses(&handover, device, "without a device");
}

#[test]
fn a_member_does_not_change_its_identity() {
    let mut talk = Talk::start();
    let device = &talk.alice.devices[0];
    let (_, signer, _) = device_keys(9);
    let credential_with_key =
        CredentialWithKey { credential: device.credential().credential, signature_key: signer.public().into() };
    let bundle = talk.groups[0]
        .commit_builder()
        .leaf_node_parameters(LeafNodeParameters::default())
        .load_psks(device.provider.storage())
        .unwrap()
        .create_group_info(true)
        .build_with_new_signer(
            device.provider.rand(),
            device.provider.crypto(),
            &device.signer,
            NewSignerBundle { signer: &signer, credential_with_key },
            |_| true,
        )
        .unwrap()
        .stage_commit(&device.provider)
        .unwrap();
    let (commit, _, info) = bundle.into_messages();
    let handover = Handover { commit: bytes(&commit), group_info: bytes(&info.unwrap()) };
    talk.refuses(&handover, device, "has another key");
}

#[test]
fn a_group_info_that_is_not_of_the_next_epoch_is_refused() {
    let mut talk = Talk::start();
    let device = &talk.alice.devices[0];
    let (first, _) = commit!(talk.groups[0], device, force_self_update(true));
    talk.groups[0].clear_pending_commit(device.provider.storage()).unwrap();
    let (second, _) = commit!(talk.groups[0], device, force_self_update(true));
    let swap = |group_info: &[u8]| Handover { commit: first.commit.clone(), group_info: group_info.to_vec() };
    talk.refuses(&swap(&talk.view.group_info), device, "not of the epoch");
    talk.refuses(&swap(&second.group_info), device, "not of the epoch");
    talk.refuses(&swap(&first.commit), device, "no GroupInfo");
    let mut forged = first.group_info.clone();
    *forged.last_mut().unwrap() ^= 1;
    talk.refuses(&swap(&forged), device, "signature does not hold");
    assert!(talk.apply(&first, device).is_ok());
}

#[test]
fn what_is_no_commit_is_refused() {
    let mut talk = Talk::start();
    let device = &talk.alice.devices[0];
    let (handover, _) = commit!(talk.groups[0], device, force_self_update(true));
    talk.groups[0].clear_pending_commit(device.provider.storage()).unwrap();
    let swap = |commit: Vec<u8>| Handover { commit, group_info: handover.group_info.clone() };
    let application = talk.groups[0].create_message(&device.provider, &device.signer, b"hello").unwrap();
    talk.refuses(&swap(bytes(&application)), device, "no PublicMessage");
    talk.refuses(&swap(talk.view.group_info.to_vec()), device, "no PublicMessage");
    let (proposal, _) =
        talk.groups[0].propose_self_update(&device.provider, &device.signer, LeafNodeParameters::default()).unwrap();
    talk.refuses(&swap(bytes(&proposal)), device, "another message");
}

#[test]
fn a_commit_that_refers_to_a_proposal_is_refused() {
    let mut talk = Talk::start();
    let (alice, bob) = (&talk.alice.devices[0], &talk.bob.devices[0]);
    let (proposal, _) =
        talk.groups[1].propose_self_update(&bob.provider, &bob.signer, LeafNodeParameters::default()).unwrap();
    let MlsMessageBodyIn::PublicMessage(proposal) = read_message(&bytes(&proposal), "").unwrap().extract() else {
        panic!("no PublicMessage")
    };
    let processed = talk.groups[0].process_message(&alice.provider, proposal).unwrap();
    let openmls::prelude::ProcessedMessageContent::ProposalMessage(proposal) = processed.into_content() else {
        panic!("no proposal")
    };
    talk.groups[0].store_pending_proposal(alice.provider.storage(), *proposal).unwrap();
    let (handover, _) = commit!(talk.groups[0], alice, consume_proposal_store(true));
    assert!(matches!(talk.apply(&handover, alice), Err(CommitError::Invalid(_))));
}

#[test]
fn a_stored_group_that_cannot_be_read_is_not_the_senders_fault() {
    let mut talk = Talk::start();
    let device = &talk.alice.devices[0];
    let (handover, _) = commit!(talk.groups[0], device, force_self_update(true));
    talk.view.tree = Bytes::new();
    assert!(matches!(talk.apply(&handover, &talk.alice.devices[0]), Err(CommitError::Stored(_))));
}
