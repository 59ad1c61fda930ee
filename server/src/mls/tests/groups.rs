//! Groups of any accounts: what their context says, who may change it, and who leaves.

use gureum_proto::{CommitAttachment, GroupState, Leave, SignedLeave};
use openmls::framing::ProcessedMessageContent;
use openmls::prelude::{Extension, KeyPackageIn, RequiredCapabilitiesExtension, UnknownExtension};
use openmls_traits::signatures::Signer;

use super::super::group::state_of;
use super::*;

fn required() -> Extension {
    Extension::RequiredCapabilities(RequiredCapabilitiesExtension::new(&[GROUP_EXTENSION_TYPE], &[], &[]))
}

fn stated(data: Vec<u8>) -> Extension {
    Extension::Unknown(GROUP_EXTENSION, UnknownExtension(data))
}

fn extensions(list: Vec<Extension>) -> Extensions<GroupContext> {
    Extensions::from_vec(list).unwrap()
}

fn context(state: &GroupState) -> Extensions<GroupContext> {
    extensions(vec![required(), stated(state.encode().to_vec())])
}

/// A state whose one admin is a person.
fn state(name: &str, admin: &Person) -> GroupState {
    GroupState::new(name, [admin.log.account()]).unwrap()
}

/// Alice with two devices and Bob, who is the admin, in a group that Alice's first device has made.
fn friends() -> Talk {
    friends_with(Lifetime::default())
}

fn friends_with(lifetime: Lifetime) -> Talk {
    let (alice, bob) = (Person::new(1).with_device(2), Person::new(3));
    let extensions = context(&state("friends", &bob));
    Talk::of(alice, bob, lifetime, extensions)
}

impl Talk {
    /// A commit of Alice's first device (0) or Bob's (1) that replaces the context's extensions.
    fn restates(&mut self, by: usize, extensions: Extensions<GroupContext>) -> Handover {
        let (group, device) = match by {
            0 => (&mut self.groups[0], &self.alice.devices[0]),
            _ => (&mut self.groups[1], &self.bob.devices[0]),
        };
        group.clear_pending_commit(device.provider.storage()).unwrap();
        let bundle = group
            .commit_builder()
            .propose_group_context_extensions(extensions)
            .unwrap()
            .load_psks(device.provider.storage())
            .unwrap()
            .create_group_info(true)
            .build(device.provider.rand(), device.provider.crypto(), &device.signer, |_| true)
            .unwrap()
            .stage_commit(&device.provider)
            .unwrap();
        let (commit, _, info) = bundle.into_messages();
        Handover { commit: bytes(&commit), group_info: bytes(&info.unwrap()) }
    }

    fn opened(&self) -> GroupView {
        open_group(self.id, &self.view.group_info, &self.view.tree).unwrap()
    }

    /// What Bob signs who leaves.
    fn bob_leaves(&self) -> SignedLeave {
        let bob = &self.bob.devices[0];
        let leave = Leave {
            conversation: self.id,
            account: bob.identity.account,
            device: bob.identity.device,
            leaf_key: self.opened().members[2].leaf_key.clone().into(),
        };
        SignedLeave::sign(leave, &bob.proof)
    }

    fn check_leave(&self, signed: &SignedLeave, from: &Device) -> Result<(), CommitError> {
        let from = (from.identity.account, from.identity.device);
        check_leave(&self.read().unwrap(), signed, from, &self.logs())
    }
}

#[test]
fn a_context_says_nothing_or_all_that_a_group_says() {
    let state = state("friends", &Person::new(1));
    let data = state.encode().to_vec();
    assert_eq!(state_of(&Extensions::empty()), Ok(None));
    assert_eq!(state_of(&context(&state)), Ok(Some(state)));
    let more = RequiredCapabilitiesExtension::new(&[GROUP_EXTENSION_TYPE, ExtensionType::LastResort], &[], &[]);
    let refused = [
        vec![required()],
        vec![stated(data.clone())],
        vec![required(), stated(vec![1, 2, 3])],
        vec![stated(data.clone()), required()],
        vec![Extension::RequiredCapabilities(more), stated(data.clone())],
        vec![required(), stated(data), Extension::Unknown(0xFF48, UnknownExtension(vec![]))],
    ];
    for list in refused {
        let read = state_of(&extensions(list));
        assert!(matches!(read, Err(MlsError::Extensions(_))), "{read:?}");
    }
}

#[test]
fn a_new_group_is_opened_with_its_state_and_its_leaf_keys() {
    let talk = friends();
    let view = talk.opened();
    assert_eq!(view.state, Some(state("friends", &talk.bob)));
    let keys: Vec<_> = talk.groups[0].members().map(|member| member.encryption_key).collect();
    assert_eq!(view.members.iter().map(|member| member.leaf_key.clone()).collect::<Vec<_>>(), keys);
    let package = talk.bob.devices[0].key_package();
    assert_eq!(read_leaf(package.leaf_node()).unwrap().leaf_key.len(), 32);
}

#[test]
fn admins_add_people_and_others_do_not() {
    let mut talk = friends();
    let carol = Person::new(7);
    let mut logs = talk.logs();
    logs.0.insert(carol.log.account(), Arc::new(carol.log.clone()));
    let apply = |talk: &Talk, handover: &Handover, device: &Device| {
        let (epoch, sender) = (1, device.identity);
        let submitted = Submitted { epoch, commit: &handover.commit, group_info: &handover.group_info, sender };
        apply_commit(&mut talk.read().unwrap(), &submitted, &logs)
    };
    let (alice, bob) = (&talk.alice.devices[0], &talk.bob.devices[0]);
    let (handover, _) = commit!(talk.groups[1], bob, propose_adds([carol.devices[0].key_package()]));
    assert_eq!(apply(&talk, &handover, bob).unwrap().added, [carol.devices[0].identity.device]);
    let (handover, _) = commit!(talk.groups[0], alice, propose_adds([carol.devices[0].key_package()]));
    let refused = apply(&talk, &handover, alice).unwrap_err();
    assert!(refused.to_string().contains("only an admin"), "{refused}");
}

/// A KeyPackage of a device with another key for its leaf. RFC 9420, sections 7.2 and 10: the leaf stands behind version,
/// suite and init key and ends with its signature; then come no extensions, and another signature.
fn with_leaf_key(device: &Device, key: &[u8]) -> KeyPackage {
    const LEAF: usize = 4 + 33;
    const SIGNATURE: usize = 66;
    let sign = |label: &str, content: &[u8]| {
        let written = |bytes: Vec<u8>| VLBytes::new(bytes).tls_serialize_detached().unwrap();
        let signed = [written(format!("MLS 1.0 {label}").into_bytes()), written(content.to_vec())].concat();
        device.signer.sign(&signed).unwrap()
    };
    let mut bytes = device.key_package().tls_serialize_detached().unwrap();
    let end = bytes.len();
    let leaf_end = end - SIGNATURE - 1;
    bytes[LEAF + 1..LEAF + 33].copy_from_slice(key);
    let of_leaf = sign("LeafNodeTBS", &bytes[LEAF..leaf_end - SIGNATURE]);
    bytes[leaf_end - 64..leaf_end].copy_from_slice(&of_leaf);
    let of_package = sign("KeyPackageTBS", &bytes[..end - SIGNATURE]);
    bytes[end - 64..].copy_from_slice(&of_package);
    let package = KeyPackageIn::tls_deserialize_exact_bytes(&bytes).unwrap();
    package.validate(&RustCrypto::default(), ProtocolVersion::Mls10).unwrap()
}

#[test]
fn a_leaf_with_the_key_of_a_node_of_the_tree_is_not_added() {
    let mut talk = friends();
    let carol = Person::new(7);
    let (alice, bob) = (&talk.alice.devices[0], &talk.bob.devices[0]);
    let (renewal, _) = commit!(talk.groups[0], alice, force_self_update(true));
    let next = talk.apply(&renewal, alice).unwrap();
    let message = read_message(&renewal.commit, "commit").unwrap().try_into_protocol_message().unwrap();
    let processed = talk.groups[1].process_message(&bob.provider, message).unwrap();
    let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else { panic!("no commit") };
    talk.groups[1].merge_staged_commit(&bob.provider, *staged).unwrap();
    talk.view = view_of(next);
    // The node above Alice's leaves, which Bob's commit leaves as it is: OpenMLS looks at leaves alone.
    let above = talk.groups[1].export_ratchet_tree().parents().next().unwrap().tls_serialize_detached().unwrap();
    let copied = with_leaf_key(&carol.devices[0], &above[1..33]);
    let (handover, _) = commit!(talk.groups[1], bob, propose_adds([copied]));
    let mut logs = talk.logs();
    logs.0.insert(carol.log.account(), Arc::new(carol.log.clone()));
    let (epoch, sender) = (2, bob.identity);
    let submitted = Submitted { epoch, commit: &handover.commit, group_info: &handover.group_info, sender };
    let refused = apply_commit(&mut talk.read().unwrap(), &submitted, &logs).unwrap_err();
    assert!(matches!(&refused, CommitError::Invalid(why) if why.contains("same encryption key")), "{refused}");
}

#[test]
fn admins_remove_people_as_a_whole() {
    let mut talk = friends();
    let leaf = LeafNodeIndex::new;
    let (alice, bob) = (&talk.alice.devices[0], &talk.bob.devices[0]);
    let (handover, _) = commit!(talk.groups[1], bob, propose_removals([leaf(1)]));
    talk.refuses(&handover, bob, "which only");
    talk.groups[1].clear_pending_commit(bob.provider.storage()).unwrap();
    let (handover, _) = commit!(talk.groups[1], bob, propose_removals([leaf(0), leaf(1)]));
    assert_eq!(talk.apply(&handover, bob).unwrap().members.len(), 1);
    let (handover, _) = commit!(talk.groups[0], alice, propose_removals([leaf(2)]));
    talk.refuses(&handover, alice, "only an admin");
}

#[test]
fn admins_change_the_state_and_nothing_else_of_the_context() {
    let mut talk = friends();
    let renamed = state("family", &talk.alice);
    let by_alice = talk.restates(0, context(&renamed));
    talk.refuses(&by_alice, &talk.alice.devices[0], "the group's state");
    let emptied = talk.restates(1, Extensions::empty());
    talk.refuses(&emptied, &talk.bob.devices[0], "does more than");
    let unreadable = talk.restates(1, extensions(vec![required(), stated(vec![1, 2, 3])]));
    talk.refuses(&unreadable, &talk.bob.devices[0], "does more than");

    let by_bob = talk.restates(1, context(&renamed));
    let next = talk.apply(&by_bob, &talk.bob.devices[0]).unwrap();
    talk.groups[1].merge_pending_commit(&talk.bob.devices[0].provider).unwrap();
    talk.view = view_of(next);
    assert_eq!(talk.opened().state, Some(renamed));
    // Bob has given it away.
    let again = context(&state("mine", &talk.bob));
    let again = talk.restates(1, again);
    talk.refuses(&again, &talk.bob.devices[0], "the group's state");
}

#[test]
fn a_conversation_of_two_does_not_become_a_group() {
    let mut talk = Talk::start();
    let group = context(&state("friends", &talk.alice));
    let handover = talk.restates(0, group);
    talk.refuses(&handover, &talk.alice.devices[0], "makes a group");
}

#[test]
fn a_device_rejoins_a_group_and_its_state_stays() {
    let mut talk = friends();
    let bob = &talk.bob.devices[0];
    let next = talk.apply(&talk.external(bob, bob.credential()), bob).unwrap();
    talk.view = view_of(next);
    let view = talk.opened();
    assert_eq!((view.epoch, view.state), (2, Some(state("friends", &talk.bob))));
}

#[test]
fn a_leaf_whose_lifetime_has_passed_bars_nobodys_way_in_a_group() {
    let now = now_ms() / 1_000;
    let mut talk = friends_with(Lifetime::init(now - 7_200, now - 3_600));
    let bob = &talk.bob.devices[0];
    let (handover, _) = commit!(talk.groups[1], bob, force_self_update(true));
    let next = talk.apply(&handover, bob).unwrap();
    talk.groups[1].merge_pending_commit(&bob.provider).unwrap();
    talk.view = view_of(next);
    let renamed = context(&state("family", &talk.bob));
    let handover = talk.restates(1, renamed);
    assert_eq!(talk.apply(&handover, &talk.bob.devices[0]).unwrap().epoch, 3);
}

#[test]
fn who_says_to_leave_is_removed_by_who_brings_the_statement_along() {
    let mut talk = friends();
    let said = talk.bob_leaves();
    assert_eq!(talk.check_leave(&said, &talk.bob.devices[0]), Ok(()));
    let alice = &talk.alice.devices[0];
    let bobs = [LeafNodeIndex::new(2)];
    for (attached, reason) in [(Vec::new(), "only an admin"), (vec![7], "does more than")] {
        talk.groups[0].set_aad(attached);
        let (handover, _) = commit!(talk.groups[0], alice, propose_removals(bobs));
        talk.refuses(&handover, alice, reason);
        talk.groups[0].clear_pending_commit(alice.provider.storage()).unwrap();
    }
    talk.groups[0].set_aad(CommitAttachment { leaves: vec![said] }.encode());
    let (handover, _) = commit!(talk.groups[0], alice, propose_removals(bobs));
    assert_eq!(talk.apply(&handover, alice).unwrap().removed, [talk.bob.devices[0].identity.device]);
}

#[test]
fn a_statement_is_the_devices_own_about_the_leaf_that_it_has() {
    let talk = friends();
    let (alice, bob) = (&talk.alice.devices[0], &talk.bob.devices[0]);
    let said = talk.bob_leaves();
    let refuses = |talk: &Talk, signed: &SignedLeave, from: &Device, reason: &str| {
        let error = talk.check_leave(signed, from).unwrap_err();
        assert!(matches!(&error, CommitError::Invalid(why) if why.contains(reason)), "{error}");
    };
    refuses(&talk, &said, alice, "another device");
    refuses(&talk, &SignedLeave::sign(said.leave().clone(), &alice.proof), bob, "signature");
    let other_leaf = Leave { leaf_key: Bytes::from_static(&[1; 32]), ..said.leave().clone() };
    refuses(&talk, &SignedLeave::sign(other_leaf, &bob.proof), bob, "not about the leaf");
    let direct = Talk::start();
    refuses(&direct, &direct.bob_leaves(), &direct.bob.devices[0], "no group");
}
