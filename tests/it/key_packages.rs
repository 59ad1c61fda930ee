//! KeyPackages: claimed by strangers, run low, and put anew by whoever is connected.

use std::collections::BTreeSet;

use bytes::Bytes;
use gureum_proto::{AccountId, Code, KeyPackages, Notice, Position, Refusal, Request, Response};
use gureum_tests::World;
use gureum_tests::device::Device;
use gureum_tests::raw::{Raw, soon};

use crate::backup::{backup, go_back};

const START: Position = Position { seq: 0, count: 0 };
/// Claims of one account by another within an hour.
const CLAIMS_OF_ONE: usize = 10;

async fn claim(raw: &Raw, accounts: &[AccountId]) -> Result<KeyPackages, Refusal> {
    match raw.request(&Request::ClaimKeyPackages { accounts: accounts.to_vec() }).await {
        Response::KeyPackages(claimed) => Ok(claimed),
        Response::Refused(refusal) => Err(refusal),
        other => panic!("{other:?} in place of KeyPackages"),
    }
}

async fn put_last_resort(device: &Device, raw: &Raw) {
    let last_resort = Some(device.last_resort());
    let put = Request::PutKeyPackages { key_packages: Vec::new(), last_resort, replace: false };
    let answer = raw.request(&put).await;
    assert!(matches!(answer, Response::KeyPackagesStored { .. }), "{answer:?}");
}

/// What somebody who has just come gets by so many claims of an account.
async fn claimed_by(world: &World, name: &str, account: AccountId, claims: usize) -> Vec<Bytes> {
    let stranger = Device::registered(world, name).await;
    let (raw, _) = stranger.connect(world.url(), false, START).await;
    let mut packages = Vec::new();
    for _ in 0..claims {
        packages.extend(claim(&raw, &[account]).await.unwrap().packages.into_iter().map(|package| package.key_package));
    }
    packages
}

#[tokio::test]
async fn a_claim_of_several_accounts_names_those_of_which_none_can_be_had() {
    let world = World::start();
    let alice = Device::registered(&world, "alice").await;
    let (bob, carol) = (Device::registered(&world, "bob").await, Device::registered(&world, "carol").await);
    let (bobs, _) = bob.connect(world.url(), false, START).await;
    bob.publish(&bobs, 1).await;
    let (raw, _) = alice.connect(world.url(), false, START).await;
    let nobody = AccountId::from_bytes([7; 16]);
    let claimed = claim(&raw, &[nobody, carol.account, bob.account]).await.unwrap();
    let whose: Vec<_> = claimed.packages.iter().map(|package| (package.account, package.device)).collect();
    assert_eq!((whose, claimed.missing), (vec![(bob.account, bob.device)], vec![carol.account, nobody]));
    let refused = claim(&raw, &[nobody]).await.unwrap_err();
    assert_eq!(refused.code, Code::NotFound);
    let refused = claim(&raw, &[nobody, carol.account, bob.account]).await.unwrap_err();
    assert_eq!(refused.code, Code::KeyPackagesExhausted, "Bob's was the only one");
}

#[tokio::test]
async fn nobody_alone_uses_up_the_key_packages_of_another() {
    let world = World::start();
    let (mallory, alice) = (Device::registered(&world, "mallory").await, Device::registered(&world, "alice").await);
    let (bob, carol) = (Device::registered(&world, "bob").await, Device::registered(&world, "carol").await);
    for device in [&bob, &carol] {
        let (raw, _) = device.connect(world.url(), false, START).await;
        device.publish(&raw, CLAIMS_OF_ONE + 5).await;
    }
    let (raw, _) = mallory.connect(world.url(), false, START).await;
    for _ in 0..CLAIMS_OF_ONE {
        claim(&raw, &[bob.account]).await.unwrap();
    }
    for of in [vec![bob.account], vec![carol.account, bob.account]] {
        let refused = claim(&raw, &of).await.unwrap_err();
        assert_eq!(refused.code, Code::RateLimited);
        assert!((1..=6 * 60_000).contains(&refused.retry_after_ms), "{refused:?}");
    }
    claim(&raw, &[carol.account]).await.unwrap();
    let (raw, ready) = bob.connect(world.url(), false, START).await;
    assert_eq!(ready.key_packages_left, 5, "what is refused takes nothing");
    raw.close().await;
    let (raw, _) = alice.connect(world.url(), false, START).await;
    claim(&raw, &[bob.account]).await.unwrap();
}

#[tokio::test]
async fn a_session_is_told_what_is_left_and_a_connection_whether_the_last_resort_went_out() {
    let world = World::start();
    let (alice, bob) = (Device::registered(&world, "alice").await, Device::registered(&world, "bob").await);
    let (mut bobs, ready) = bob.connect(world.url(), true, START).await;
    assert!(ready.last_resort_used, "there is none");
    bob.publish(&bobs, 2).await;
    put_last_resort(&bob, &bobs).await;
    let (another, ready) = bob.connect(world.url(), false, START).await;
    assert_eq!((ready.key_packages_left, ready.last_resort_used), (2, false));
    another.close().await;

    let (raw, _) = alice.connect(world.url(), false, START).await;
    let mut packages = Vec::new();
    for (key_packages_left, last_resort_used) in [(1, false), (0, false), (0, true), (0, true)] {
        packages.extend(claim(&raw, &[bob.account]).await.unwrap().packages);
        assert_eq!(bobs.notice().await, Notice { key_packages_left, last_resort_used });
    }
    assert_eq!(packages[2], packages[3], "the last resort again");
    let (another, ready) = bob.connect(world.url(), false, START).await;
    assert_eq!((ready.key_packages_left, ready.last_resort_used), (0, true));
    put_last_resort(&bob, &another).await;
    let (_another, ready) = bob.connect(world.url(), false, START).await;
    assert!(!ready.last_resort_used);
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_strangers_worth_of_claims_are_met_by_whoever_is_connected() {
    let world = World::start();
    let alice = world.person("alice");
    let follower = tokio::task::block_in_place(|| alice.follow_from_now());
    let account = alice.account();
    let mut taken = BTreeSet::new();
    for name in ["bob", "carol", "dave"] {
        for package in claimed_by(&world, name, account, CLAIMS_OF_ONE).await {
            assert!(taken.insert(package), "each once");
        }
        // Of 20, the first takes as many as may be missing.
        soon("new ones", async { while alice.ready().await.key_packages_left < 10 {} }).await;
    }
    assert!(!alice.ready().await.last_resort_used);
    let _ = tokio::task::block_in_place(|| follower.interrupt());
}

#[tokio::test]
async fn a_last_resort_that_went_out_while_its_device_was_away_is_another_one_when_it_has_been_there() {
    let world = World::start();
    let alice = world.person("alice");
    let account = alice.account();
    let mut last_resorts = Vec::new();
    for names in [["bob", "carol", "dave"], ["erin", "frank", "grace"]] {
        assert!(alice.receive().is_empty());
        let ready = alice.ready().await;
        assert_eq!((ready.key_packages_left, ready.last_resort_used), (20, false));
        for (name, claims) in names.into_iter().zip([CLAIMS_OF_ONE, CLAIMS_OF_ONE, 1]) {
            last_resorts.extend(claimed_by(&world, name, account, claims).await.pop());
        }
        let ready = alice.ready().await;
        assert_eq!((ready.key_packages_left, ready.last_resort_used), (0, true));
    }
    assert_ne!(last_resorts[2], last_resorts[5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_a_last_resort_counts_as_given_out() {
    let mut world = World::start();
    let bob = Device::registered(&world, "bob").await;
    let (raw, _) = bob.connect(world.url(), false, START).await;
    bob.publish(&raw, 2).await;
    put_last_resort(&bob, &raw).await;
    raw.close().await;
    let to = world.directory("backup");
    let _ = backup(world.data_dir(), &to).ok();
    go_back(&mut world, &to);
    let (_raw, ready) = bob.connect(world.url(), false, START).await;
    assert_eq!((ready.key_packages_left, ready.last_resort_used), (0, true));
}
