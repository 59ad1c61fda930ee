//! Linking and naming devices where something is in the way: names that two devices have, somebody who says yes and may
//! not, and servers that are not the right one.

use std::net::UdpSocket;

use bytes::Bytes;
use gureum_client::vault::KeySource;
use gureum_client::{Client, Dialer, Linking};
use gureum_proto::{Code, Link, LinkCode, LinkOffer, ServerUrl};
use gureum_tests::World;
use gureum_tests::device::Device;
use gureum_tests::person::{Person, event, named, string};
use gureum_tests::raw::soon;
use gureum_tests::wait::SOON;
use openmls::prelude::{AeadType, OpenMlsCrypto};
use openmls_rust_crypto::RustCrypto;

use crate::groups::{change, changes};
use crate::link::check_refused;

/// Alice with a desk, and two further homes of hers that are called alike.
fn with_two_tablets() -> (World, Person, [Person; 2]) {
    let world = World::start();
    let alice = world.person("alice");
    let tablets = ["first", "second"].map(|home| alice.link(world.url(), world.directory(home), "tablet"));
    (world, alice, tablets)
}

fn id_of(person: &Person) -> String {
    string(&person.ok(&["whoami"])[0]["device"])
}

#[test]
fn of_two_devices_that_are_called_alike_none_is_meant_until_an_id_says_which() {
    let (_world, alice, tablets) = with_two_tablets();
    let [first, second] = tablets.each_ref().map(id_of);
    let ambiguous = alice.run(&["devices", "revoke", "tablet"]);
    check_refused(&ambiguous, "more than one device is called \"tablet\"");
    assert!(ambiguous.said.contains(&first) && ambiguous.said.contains(&second), "{}", ambiguous.said);
    check_refused(&alice.run(&["devices", "revoke", &first[..3]]), "no device");
    assert_eq!(alice.ok(&["devices"]).len(), 3, "none was revoked");

    // Four digits are enough where they begin one id alone.
    let ids = [first.clone(), second.clone(), id_of(&alice)];
    let is_one = |length: &usize| ids.iter().filter(|id| id.starts_with(&first[..*length])).count() == 1;
    let shortest = (4..=first.len()).find(is_one).expect("ids differ");
    let revoked = alice.ok(&["devices", "revoke", &first[..shortest]]).remove(0);
    assert_eq!((&revoked["change"], &revoked["device"]), (&"revoked".into(), &first.as_str().into()));
    let revoked = alice.ok(&["devices", "revoke", "tablet"]).remove(0);
    assert_eq!(revoked["device"], second.as_str(), "the name is that of one device again");
    for tablet in &tablets {
        check_refused(&tablet.run(&["receive"]), "revoked");
    }
}

#[test]
fn a_revoked_device_adds_none() {
    let world = World::start();
    let alice = world.person("alice");
    let tablet = alice.link(world.url(), world.directory("tablet"), "tablet");
    alice.ok(&["devices", "revoke", "tablet"]);
    let laptop = Person::new("alice", world.directory("laptop"));
    let (mut running, code) = laptop.show_code(world.url(), "laptop");
    let refused = tablet.run(&["devices", "approve", &code]);
    check_refused(&refused, "revoked");
    assert!(refused.events.is_empty(), "{:#?}", refused.events);
    assert!(running.out.all().iter().all(|line| !line.contains("link_check")), "{:?}", running.out.all());
    assert_eq!(alice.ok(&["devices"]).len(), 1);
    alice.ok(&["devices", "approve", &code]);
    event(&mut running, "linked");
    assert!(running.wait(SOON).success(), "{:?}", running.err.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_revoked_between_its_answer_and_its_yes_adds_none() {
    let world = World::start();
    let alice = world.person("alice");
    let tablet = alice.link(world.url(), world.directory("tablet"), "tablet");
    let laptop = Person::new("alice", world.directory("laptop"));
    let (mut running, code) = laptop.show_code(world.url(), "laptop");
    let client = Client::open(&tablet.home, KeySource::File).await.unwrap();
    let link_code: LinkCode = code.parse().unwrap();
    let approval = Box::pin(client.approve(&link_code)).await.unwrap();
    tokio::task::block_in_place(|| {
        event(&mut running, "link_check");
        alice.ok(&["devices", "revoke", "tablet"]);
    });
    let refused = Box::pin(approval.finish()).await.unwrap_err();
    assert!(!refused.is_temporary(), "{refused:?}");
    assert_eq!(refused.code(), Some(Code::DeviceRevoked), "{refused:?}");
    tokio::task::block_in_place(|| {
        assert_eq!(alice.ok(&["devices"]).len(), 1);
        assert!(running.out.all().iter().all(|line| !line.contains("\"linked\"")), "{:?}", running.out.all());
        // The code goes on to serve: another device of the account answers it.
        alice.ok(&["devices", "approve", &code]);
        event(&mut running, "linked");
        assert!(running.wait(SOON).success(), "{:?}", running.err.all());
        assert_eq!(alice.ok(&["devices"]).len(), 2);
    });
}

/// What a device says that shows a code, sealed as its client would.
fn sealed(code: &LinkCode, offer: &LinkOffer) -> Bytes {
    let (key, nonce) = (code.offer_key(), [9_u8; 12]);
    let (plain, link) = (offer.encode(), code.id());
    let sealed =
        RustCrypto::default().aead_encrypt(AeadType::Aes256Gcm, key.as_slice(), &plain, &nonce, link.as_bytes());
    [nonce.as_slice(), &sealed.unwrap()].concat().into()
}

/// Somebody who has seen the code stands where all frames pass, and has taken no answer to the device that shows it: they
/// could try answers of their own until the digits there were the same.
#[tokio::test(flavor = "multi_thread")]
async fn no_digits_are_shown_unless_the_new_device_has_agreed() {
    let world = World::start();
    let alice = world.person("alice");
    let code = LinkCode::new([0x11; 32], [0x22; 16]);
    let keys = Device::new().keys();
    let offer = LinkOffer { keys, device_name: "tablet".to_owned(), wants_history: false, commitment: [5; 32] };
    let link = Link { link: code.id(), device: keys.device(), offer: sealed(&code, &offer) };
    let mut waiting = Dialer::new(world.url().parse().unwrap()).unwrap().connect().await.unwrap();
    waiting.offer(&link).await.unwrap();
    let (person, text) = (alice.clone(), code.to_text().to_string());
    let approving = tokio::task::spawn_blocking(move || person.run(&["devices", "approve", &text]));
    let answer = soon("an answer", waiting.next()).await.unwrap();
    assert!(matches!(answer, Linking::Answer(_)), "{answer:?}");
    waiting.reply(&Bytes::from_static(b"nobody's consent")).await.unwrap();
    let refused = approving.await.unwrap();
    check_refused(&refused, "has not consented");
    assert!(refused.events.is_empty(), "{:#?}", refused.events);
    assert_eq!(tokio::task::block_in_place(|| alice.ok(&["devices"])).len(), 1);
}

/// The server's address with another port, on which nobody listens.
fn dead_address(world: &World) -> String {
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    ServerUrl { port: nobody.port(), ..world.url().parse().unwrap() }.to_string()
}

#[test]
fn an_address_that_is_not_the_servers_leaves_nothing_behind() {
    let world = World::start();
    let tablet = Person::new("alice", world.directory("tablet"));
    let wrong_pin = ServerUrl { pin: Some([1; 32]), ..world.url().parse().unwrap() }.to_string();
    for (address, says) in [(dead_address(&world), "cannot reach"), (wrong_pin, "key")] {
        let refused = tablet.run(&["link", &address, "--device-name", "tablet"]);
        check_refused(&refused, says);
        assert!(refused.events.is_empty(), "{:#?}", refused.events);
        assert!(!tablet.home.exists(), "{address}: no home before a server has answered");
    }
}

#[test]
fn a_device_that_has_shown_its_code_at_the_wrong_server_is_linked_at_the_right_one() {
    let (world, elsewhere) = (World::start(), World::start());
    let alice = world.person("alice");
    let tablet = Person::new("alice", world.directory("tablet"));
    let (mut running, first) = tablet.show_code(elsewhere.url(), "tablet");
    running.kill();
    // One that does not answer changes nothing.
    check_refused(&tablet.run(&["link", &dead_address(&world)]), "cannot reach");
    let (mut running, again) = tablet.show_code(world.url(), "kitchen");
    assert_eq!(first, again, "it is the same device");
    let approved = alice.ok(&["devices", "approve", &again]);
    assert_eq!(approved[0]["device_name"], "kitchen", "nobody had seen the other name");
    event(&mut running, "linked");
    assert!(running.wait(SOON).success(), "{:?}", running.err.all());
    let own = tablet.ok(&["whoami"]).remove(0);
    assert_eq!((&own["device_name"], &own["server"]), (&"kitchen".into(), &world.url().into()));
    let bob = world.person("bob");
    tablet.send(&bob, "from the right one");
    assert_eq!(bob.receive_texts(), ["from the right one"]);
}

#[test]
fn a_group_that_the_linking_device_has_not_heard_to_be_out_of_is_not_told_to_be_hidden() {
    let world = World::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| world.person(name));
    for club in ["readers", "writers"] {
        alice.ok(&["group", "create", club, "bob", "carol"]);
    }
    let _ = (bob.receive(), carol.receive());
    alice.ok(&["group", "remove", "readers", "bob"]);
    let tablet = Person::new("bob", world.directory("tablet"));
    let (mut running, code) = tablet.show_code(world.url(), "tablet");
    bob.ok(&["devices", "approve", &code]);
    event(&mut running, "linked");
    assert!(running.wait(SOON).success(), "{:?}", running.err.all());
    assert!(running.out.all().iter().all(|line| !line.contains("conversation_hidden")), "{:?}", running.out.all());
    assert!(named(&tablet.receive(), "conversation_hidden").is_empty());
    let listed = tablet.ok(&["group", "list"]);
    assert_eq!(listed.iter().map(|group| string(&group["name"])).collect::<Vec<_>>(), ["writers"]);
    // What the approval has taken is told to whoever asks.
    assert!(changes(&bob.receive()).contains(&change("removed", &["bob"])));
}
