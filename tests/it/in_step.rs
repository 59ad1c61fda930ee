//! All of a person's devices are in step: what one has read, sent or decided holds on the others, by the real programs.

use gureum_tests::World;
use gureum_tests::person::{Person, event, texts};
use serde_json::Value;

/// Alice with three homes, and Bob, who have talked.
fn with_three() -> (World, [Person; 3], Person) {
    let world = World::start();
    let (alice, bob) = world.pair();
    bob.send(&alice, "before");
    assert_eq!(alice.receive_texts(), ["before"]);
    let tablet = alice.link(world.url(), world.directory("tablet"), "tablet");
    let phone = alice.link(world.url(), world.directory("phone"), "phone");
    let devices = [alice, tablet, phone];
    // Each hears the others once.
    for device in devices.iter().chain(&devices) {
        let _ = device.receive();
    }
    (world, devices, bob)
}

fn reads(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|event| event["event"] == "read").collect()
}

#[test]
fn what_one_device_reads_is_read_on_the_others_and_what_it_sends_is_sent() {
    let (_world, [alice, tablet, phone], bob) = with_three();
    bob.send(&alice, "to all three");
    for device in [&alice, &tablet, &phone] {
        assert_eq!(device.receive_texts(), ["to all three"]);
    }
    let marked = &alice.ok(&["read", "bob"])[0];
    for device in [&tablet, &phone] {
        let came = device.receive();
        let [read] = reads(&came)[..] else { panic!("{came:#?}") };
        assert_eq!((&read["conversation"], &read["number"]), (&marked["conversation"], &marked["number"]));
        assert_eq!(read["unread"], 0);
        assert!(reads(&device.receive()).is_empty(), "told once");
    }
    tablet.send(&bob, "from the tablet");
    for device in [&alice, &phone] {
        let came = device.receive();
        assert_eq!(texts(&came), ["from the tablet"]);
        assert!(came.iter().any(|event| event["event"] == "message" && event["own"] == true), "{came:#?}");
    }
}

#[test]
fn what_is_decided_on_one_device_holds_on_all_and_on_one_that_is_linked_later() {
    let (world, [alice, tablet, phone], _bob) = with_three();
    alice.ok(&["settings", "receipts", "off"]);
    let _ = alice.receive();
    for device in [&tablet, &phone] {
        let _ = device.receive();
        assert_eq!(device.ok(&["settings"])[0]["receipts"], false);
    }
    tablet.ok(&["settings", "typing", "off"]);
    let _ = tablet.receive();
    let _ = alice.receive();
    let laptop = alice.link(world.url(), world.directory("laptop"), "laptop");
    for device in [&laptop, &alice, &laptop] {
        let _ = device.receive();
    }
    let settings = &laptop.ok(&["settings"])[0];
    assert_eq!((&settings["receipts"], &settings["typing"]), (&false.into(), &false.into()));
}

#[test]
fn devices_that_are_connected_have_each_message_and_hear_at_once_that_it_was_read() {
    let (_world, [alice, tablet, phone], bob) = with_three();
    let mut following = [&alice, &tablet, &phone].map(Person::follow_from_now);
    bob.send(&alice, "to all at once");
    for device in &mut following {
        device.wait_for_text("to all at once");
    }
    // Beside the one that takes the inbox.
    alice.ok(&["read", "bob"]);
    for device in following.iter_mut().skip(1) {
        assert_eq!(event(&mut device.running, "read")["unread"], 0);
    }
    for device in following {
        let _ = device.interrupt();
    }
}
