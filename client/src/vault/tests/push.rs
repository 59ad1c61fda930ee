//! Where this device is woken: what is claimed, what becomes of it at the server, and the keys of a receiver here.

use gureum_proto::{PushAddress, PushDigest, PushTarget, Registered};

use super::relay::profile;
use super::*;

fn home() -> (tempfile::TempDir, Vault) {
    let home = tempfile::tempdir().unwrap();
    let (mut vault, _) = Vault::create(home.path(), &KeySource::File, &profile()).unwrap();
    let registered = Registered { account: vault.identity().account, device: vault.identity().device };
    vault.registered(&"alice".parse().unwrap(), registered).unwrap();
    (home, vault)
}

fn target(token: &str) -> PushTarget {
    PushTarget { address: PushAddress::Fcm { token: token.to_owned() }, visible: true }
}

fn claimed(vault: &mut Vault) -> Option<PushDigest> {
    vault.hello_claim(false).unwrap().push_digest
}

/// How often a person is told, of so many times that the server has a target and then does not.
fn told(vault: &mut Vault, target: &PushTarget, times: usize) -> usize {
    let digest = target.digest();
    let drop_once = |vault: &mut Vault| {
        vault.push_target_taken(digest).unwrap();
        vault.push_target_missing(digest).unwrap()
    };
    (0..times).filter(|_| drop_once(vault)).count()
}

#[test]
fn a_target_is_claimed_until_it_is_cleared() {
    let (home, mut vault) = home();
    assert_eq!(claimed(&mut vault), None);
    vault.set_push_target(Some(&target("a"))).unwrap();
    assert_eq!(claimed(&mut vault), Some(target("a").digest()));
    drop(vault);
    let mut vault = Vault::open(home.path(), &KeySource::File).unwrap();
    assert_eq!(vault.push_target().unwrap(), Some(target("a")));
    vault.set_push_target(Some(&target("b"))).unwrap();
    assert_eq!(claimed(&mut vault), Some(target("b").digest()));
    vault.set_push_target(None).unwrap();
    assert_eq!((claimed(&mut vault), vault.push_target().unwrap()), (None, None));
}

#[test]
fn a_target_that_the_server_has_dropped_twice_is_told_of_once() {
    let (_home, mut vault) = home();
    vault.set_push_target(Some(&target("a"))).unwrap();
    assert_eq!(told(&mut vault, &target("a"), 1), 0, "it is put again first");
    assert_eq!(told(&mut vault, &target("a"), 5), 1);
    let events: Vec<_> = vault.unreported_events(9).unwrap().into_iter().map(|stored| stored.event).collect();
    assert_eq!(events, [Event::PushRefused { service: "fcm".to_owned() }]);
}

#[test]
fn a_target_given_again_is_as_it_was_and_another_begins_anew() {
    let (_home, mut vault) = home();
    vault.set_push_target(Some(&target("a"))).unwrap();
    told(&mut vault, &target("a"), 1);
    vault.set_push_target(Some(&target("a"))).unwrap();
    assert_eq!(told(&mut vault, &target("a"), 1), 1);
    vault.set_push_target(Some(&target("b"))).unwrap();
    assert_eq!(told(&mut vault, &target("b"), 1), 0);
    assert_eq!(told(&mut vault, &target("b"), 1), 1);
}

#[test]
fn what_the_server_never_had_or_what_is_not_wanted_any_more_it_has_not_dropped() {
    let (_home, mut vault) = home();
    vault.set_push_target(Some(&target("a"))).unwrap();
    for _ in 0..3 {
        assert!(!vault.push_target_missing(target("a").digest()).unwrap());
    }
    vault.set_push_target(Some(&target("b"))).unwrap();
    assert_eq!(told(&mut vault, &target("a"), 3), 0);
    assert!(vault.unreported_events(9).unwrap().is_empty());
}

#[test]
fn a_target_that_is_refused_gives_way_to_the_one_before_unless_another_was_set() {
    let (_home, mut vault) = home();
    vault.set_push_target(Some(&target("new"))).unwrap();
    vault.take_back_push_target(&target("new"), Some(&target("old"))).unwrap();
    assert_eq!(vault.push_target().unwrap(), Some(target("old")));
    vault.take_back_push_target(&target("new"), None).unwrap();
    assert_eq!(vault.push_target().unwrap(), Some(target("old")));
    vault.take_back_push_target(&target("old"), None).unwrap();
    assert_eq!(vault.push_target().unwrap(), None);
}

#[test]
fn the_keys_of_a_receiver_are_the_same_until_the_target_is_cleared() {
    let (home, mut vault) = home();
    let tells = |vault: &mut Vault| vault.push_receiver().unwrap().target("https://push.example.org", true);
    let first = tells(&mut vault);
    assert_eq!(claimed(&mut vault), None, "keys alone are no target");
    vault.set_push_target(Some(&first)).unwrap();
    drop(vault);
    let mut vault = Vault::open(home.path(), &KeySource::File).unwrap();
    assert_eq!(tells(&mut vault), first);
    vault.set_push_target(Some(&target("elsewhere"))).unwrap();
    assert_eq!(tells(&mut vault), first);
    vault.set_push_target(None).unwrap();
    assert_ne!(tells(&mut vault), first);
}
