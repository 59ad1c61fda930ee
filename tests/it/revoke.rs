//! A device is revoked: from that moment on nothing is taken that it could read, and clients remove it by themselves.

use gureum_proto::{Code, ConversationId, DeviceLog, EnvelopeBody, Position, Request, Response, sign_revoke};
use gureum_tests::World;
use gureum_tests::device::{Device, Talk};
use gureum_tests::person::{Person, string};
use gureum_tests::raw::{Frames, Raw};
use gureum_tests::wait::now_ms;

use crate::commits::submit;
use crate::delivery::{Two, next_body};

const START: Position = Position { seq: 0, count: 0 };

/// Revokes another device of the account.
async fn revoke(device: &Device, raw: &Raw, log: &DeviceLog, revoked: &Device) {
    let entry = sign_revoke(log, (device.device, &device.proof), revoked.device, now_ms());
    let answer = raw.request(&Request::AppendDeviceLog { entry }).await;
    assert_eq!(answer, Response::DeviceLogAppended { log_length: log.length() + 1 });
}

async fn next_commit(frames: &mut Frames) -> Vec<u8> {
    loop {
        if let EnvelopeBody::Commit { commit, .. } = frames.envelope().await.shared.body {
            return commit.to_vec();
        }
    }
}

pub(crate) async fn next_welcome(frames: &mut Frames) -> (ConversationId, Vec<u8>) {
    loop {
        let shared = frames.envelope().await.shared;
        if let EnvelopeBody::Welcome(welcome) = shared.body {
            return (shared.conversation, welcome.to_vec());
        }
    }
}

#[tokio::test]
async fn between_a_revocation_and_the_removal_the_server_takes_nothing() {
    let mut two = Two::start().await;
    let (bob_raw, mut frames) = two.subscribe(START).await;
    let (id, welcome) = next_welcome(&mut frames).await;
    let mut bobs = two.bob.join(&bob_raw, id, &welcome).await;
    let mut log = DeviceLog::from_root(&two.bob.root_entry).unwrap();
    let mut tablet = two.bob.link(&bob_raw, &mut log).await;
    let (tablet_raw, _) = tablet.connect(two.world.url(), false, START).await;
    let Response::Group(group) = tablet_raw.request(&Request::ReadGroup { conversation: id }).await else {
        panic!("a device of a member reads the group")
    };
    let joins = tablet.external_commit(id, &group);
    assert_eq!(submit(&tablet_raw, &joins).await, Ok(2));
    two.alice.merge(&mut two.talk, &joins.commit);
    two.bob.merge(&mut bobs, &joins.commit);

    let early = two.alice.encrypt(&mut two.talk, b"encrypted before the revocation");
    revoke(&two.bob, &bob_raw, &log, &tablet).await;
    assert_eq!(tablet_raw.ended().await.code, Code::DeviceRevoked);
    let code = |sent: &gureum_proto::Sent| sent.result.as_ref().map(|_| ()).map_err(|refusal| refusal.code);
    let refused = two.raw.send(std::slice::from_ref(&early)).await;
    assert_eq!(code(&refused[0]), Err(Code::RemovalPending));
    two.world.kill_and_restart();
    two.reconnect().await;
    let refused = two.raw.send(std::slice::from_ref(&early)).await;
    assert_eq!(code(&refused[0]), Err(Code::RemovalPending), "also after a restart");

    let removal = two.alice.remove(&mut two.talk, tablet.device);
    assert_eq!(submit(&two.raw, &removal).await, Ok(3));
    two.alice.merge_own(&mut two.talk);
    let refused = two.raw.send(&[early]).await;
    assert_eq!(code(&refused[0]), Err(Code::EpochStale), "the revoked device could read it");
    let late = two.alice.encrypt(&mut two.talk, b"encrypted after the removal");
    assert_eq!(code(&two.raw.send(&[late]).await[0]), Ok(()));
    two.bob.merge(&mut bobs, &removal.commit);
    let (_bob_raw, mut frames) = two.subscribe(START).await;
    let (_, ciphertext) = next_body(&mut frames).await;
    assert_eq!(two.bob.decrypt(&mut bobs, &ciphertext), b"encrypted after the removal");
}

/// Alice's home, and Bob with a tablet, of which both devices have read her first message.
struct Story {
    world: World,
    alice: Person,
    bob: Device,
    log: DeviceLog,
    raw: Raw,
    frames: Frames,
    bobs: Talk,
    tablet: Device,
    tablets: Talk,
}

impl Story {
    async fn begin() -> Self {
        let world = World::start();
        let alice = world.person("alice");
        let bob = Device::registered(&world, "bob").await;
        let (raw, _) = bob.connect(world.url(), true, START).await;
        let mut frames = raw.delivery().await;
        let mut log = DeviceLog::from_root(&bob.root_entry).unwrap();
        let tablet = bob.link(&raw, &mut log).await;
        let (tablet_raw, _) = tablet.connect(world.url(), false, START).await;
        bob.publish(&raw, 1).await;
        tablet.publish(&tablet_raw, 1).await;
        say(&alice, "to both");
        let (id, welcome) = next_welcome(&mut frames).await;
        let mut bobs = bob.join(&raw, id, &welcome).await;
        let mut tablets = tablet.join(&tablet_raw, id, &welcome).await;
        let (_, ciphertext) = next_body(&mut frames).await;
        assert!(holds(&bob.decrypt(&mut bobs, &ciphertext), "to both"));
        assert!(tablet.opens(&mut tablets, &ciphertext));
        Self { world, alice, bob, log, raw, frames, bobs, tablet, tablets }
    }

    async fn revoke_tablet(&self) {
        revoke(&self.bob, &self.raw, &self.log, &self.tablet).await;
    }
}

/// A command of hers, which the test waits for.
fn say(alice: &Person, text: &str) {
    let events = tokio::task::block_in_place(|| alice.ok(&["send", "bob", text]));
    assert_eq!(string(&events[0]["event"]), "sent", "{events:?}");
}

fn holds(plaintext: &[u8], text: &str) -> bool {
    plaintext.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_removes_the_revoked_device_first_and_it_reads_nothing_more() {
    let mut story = Story::begin().await;
    story.revoke_tablet().await;
    say(&story.alice, "without the tablet");
    let removal = next_commit(&mut story.frames).await;
    story.bob.merge(&mut story.bobs, &removal);
    let (_, ciphertext) = next_body(&mut story.frames).await;
    assert!(holds(&story.bob.decrypt(&mut story.bobs, &ciphertext), "without the tablet"));
    assert!(!story.tablet.opens(&mut story.tablets, &ciphertext), "the tablet has kept its keys");
    assert_eq!(story.world.admin().count("gureum_commits_accepted_total"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_connected_removes_the_revoked_device_without_being_asked() {
    let mut story = Story::begin().await;
    let follower = tokio::task::block_in_place(|| story.alice.follow());
    story.revoke_tablet().await;
    let removal = next_commit(&mut story.frames).await;
    story.bob.merge(&mut story.bobs, &removal);
    assert_eq!(story.bobs.devices().len(), 2, "Bob's first and Alice's");
    tokio::task::block_in_place(|| follower.interrupt());
}
