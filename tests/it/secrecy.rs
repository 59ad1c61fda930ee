//! A text sent stands nowhere but on the two ends, and there only in their encrypted databases; phone numbers, codes and
//! push targets stand nowhere but where they are needed.

use std::path::Path;

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use gureum_proto::{Code, FindBy, Position, PushAddress, PushTarget, Request};
use gureum_tests::device::Device;
use gureum_tests::disk::{contains, files, files_with};
use gureum_tests::push::{Reply, Seen};
use gureum_tests::relay::Relay;
use gureum_tests::wait::{SOON, eventually};
use gureum_tests::{Options, World};

use crate::backup::backup;
use crate::phone::{Town, proof, refused};
use crate::push::{QUICK, done};

#[test]
fn the_database_the_log_and_the_wire_hold_no_plaintext() {
    const MARKER: &str = "marker-6f1d0c5e-plain";
    let options = Options { flags: vec!["--log-filter", "trace"], ..Options::default() };
    let mut world = World::start_with(options);
    let relay = Relay::start(world.listen());
    let alice = world.person_with("alice", &world.invite_via(relay.address()));
    let bob = world.person_with("bob", &world.invite_via(relay.address()));
    let mut follower = bob.follow_from_now();
    alice.send(&bob, MARKER);
    follower.wait_for_text(MARKER);
    drop(follower.interrupt());
    bob.send(&alice, &format!("you said {MARKER}"));
    assert_eq!(alice.receive_texts(), [format!("you said {MARKER}")]);

    assert!(files_with(world.data_dir(), MARKER.as_bytes()).is_empty());
    assert!(world.stop().success());
    // After the flush of a clean stop as well.
    assert!(files_with(world.data_dir(), MARKER.as_bytes()).is_empty());
    let log = world.log();
    assert!(log.len() > 1_000, "the log tells something at its most talkative");
    assert!(!log.contains(MARKER));
    let wire = relay.passed();
    assert!(wire.len() > 5_000, "the relay has heard the talk");
    assert!(!contains(&wire, MARKER.as_bytes()));
    for person in [&alice, &bob] {
        assert!(files_with(&person.home, MARKER.as_bytes()).is_empty(), "{} keeps it encrypted", person.name);
    }
}

#[cfg(unix)]
#[test]
fn keys_and_homes_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    let world = World::start();
    let alice = world.person("alice");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&alice.home), 0o700);
    assert_eq!(mode(&alice.file("key")), 0o600);
    assert_eq!(mode(world.data_dir()), 0o700);
    assert_eq!(mode(&world.data_dir().join("db")), 0o700);
    assert_eq!(mode(&world.data_dir().join("keys/master.key")), 0o600);
    assert_eq!(mode(&world.data_dir().join("tls/key.pem")), 0o600);
}

/// What must be found nowhere, and how it is called.
#[derive(Default)]
struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    fn text(&mut self, what: &str, text: &str) {
        self.0.push((what.to_owned(), text.as_bytes().to_vec()));
    }

    /// As it is, and as programs write bytes.
    fn bytes(&mut self, what: &str, bytes: &[u8]) {
        self.0.push((what.to_owned(), bytes.to_vec()));
        for encoding in [&HEXLOWER, &HEXUPPER, &BASE64, &BASE64URL_NOPAD] {
            let text = encoding.encode(bytes);
            self.text(what, text.trim_end_matches('='));
        }
    }

    /// A number of Korea, however it is written.
    fn number(&mut self, typed: &str) {
        let e164 = typed.replace([' ', '-'], "");
        let (_, within) = typed.split_once(' ').expect("a country code");
        let without_country = e164.trim_start_matches("+82");
        for spelling in [typed, within, without_country] {
            self.text("a phone number", spelling);
        }
        self.bytes("a phone number", e164.as_bytes());
    }

    fn address(&mut self, address: &PushAddress) {
        match address {
            PushAddress::Apns { token, .. } => self.bytes("an APNs token", token),
            PushAddress::Fcm { token } => self.bytes("an FCM token", token.as_bytes()),
            PushAddress::WebPush { endpoint, p256dh, auth } => {
                let path = endpoint.rsplit('/').next().expect("the part that only the device knows");
                self.text("a push endpoint", path);
                self.bytes("a p256dh key", p256dh);
                self.bytes("an auth secret", auth);
            }
        }
    }

    #[track_caller]
    fn stand_in_no_text(&self, place: &str, text: &str) {
        for (what, secret) in &self.0 {
            assert!(!contains(text.as_bytes(), secret), "{what} stands in {place}");
        }
    }

    #[track_caller]
    fn lie_in_no_file(&self, when: &str, directory: &Path) {
        let files = files(directory);
        assert!(files.len() > 4, "{} is no data directory", directory.display());
        for (path, bytes) in files {
            for (what, secret) in &self.0 {
                assert!(!contains(&bytes, secret), "{when}, {what} lies in {}", path.display());
            }
        }
    }
}

/// Whether six digits stand there by themselves: not as a part of a longer number, a fraction or an id.
fn stands_alone(haystack: &[u8], code: &str) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'.');
    haystack.windows(code.len()).enumerate().any(|(at, window)| {
        let before = at.checked_sub(1).and_then(|before| haystack.get(before));
        window == code.as_bytes() && !is_part(before) && !is_part(haystack.get(at + code.len()))
    })
}

/// Codes of which at most one is there: one could stand anywhere by chance, two could not.
#[track_caller]
fn are_not_there(codes: &[String], place: &str, haystack: &[u8]) {
    let found = codes.iter().filter(|code| stands_alone(haystack, code)).count();
    assert!(found < 2, "{found} codes stand in {place}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_the_log_and_the_metrics_hold_no_number_no_code_and_no_target() {
    const START: Position = Position { seq: 0, count: 0 };
    let flags = [&["--log-filter", "trace", "--registration", "phone"][..], &QUICK].concat();
    let mut town = Town::start(&flags);
    let (mut secrets, mut codes, mut devices) = (Secrets::default(), Vec::new(), Vec::new());
    let numbers = ["+82 10-2071-8301", "+82 10-3082-9402", "+82 10-4093-7503"];
    for (name, typed) in ["alice", "bob", "carol"].into_iter().zip(numbers) {
        secrets.number(typed);
        let (device, code) = (Device::new(), town.code(typed).await);
        town.register(&device, name, proof(typed, &code, Some(7))).await.unwrap();
        codes.push(code);
        devices.push(device);
    }
    let [alice, bob, carol] = devices.as_slice() else { panic!("three people") };
    // Look-ups name numbers as well: of somebody, and of nobody.
    let nobodys = "+82 10-5061-4601";
    secrets.number(nobodys);
    let (raw, _) = alice.connect(town.world.url(), false, START).await;
    for phone in [numbers[1], nobodys] {
        let by = FindBy::Phone(phone.parse().unwrap());
        let _ = raw.request(&Request::FindAccount { by, log_from: 0 }).await;
    }
    raw.close().await;

    let apns = PushAddress::Apns { token: rand::random::<[u8; 32]>().to_vec().into(), sandbox: false };
    let fcm = PushAddress::Fcm { token: format!("fcm-{}", HEXLOWER.encode(&rand::random::<[u8; 24]>())) };
    let targets = [
        (alice, town.outside.web.subscribe().target(true)),
        (bob, PushTarget { address: apns, visible: true }),
        (carol, PushTarget { address: fcm, visible: true }),
    ];
    for (device, target) in &targets {
        secrets.address(&target.address);
        let (raw, _) = device.connect(town.world.url(), false, START).await;
        done(&raw, Request::SetPushTarget(target.clone())).await;
        raw.close().await;
    }
    // Each service and the gateway fail once, so that what is logged of that is looked at as well.
    for service in [&town.outside.apns.service, &town.outside.web.service, &town.outside.gateway.service] {
        service.next([Reply::new(500, "")]);
    }
    town.outside.fcm.service.next([Reply::new(503, "")]);
    town.later(0);
    // Somebody tries to take each number, of which its owner has to know at once.
    for typed in numbers {
        let code = town.code(typed).await;
        refused(town.register(&Device::new(), "mallory", proof(typed, &code, None)).await, Code::PhoneLocked);
        codes.push(code);
    }
    for service in [&town.outside.apns.service, &town.outside.fcm.service, &town.outside.web.service] {
        // FCM's first answer may be the access token.
        let wanted = if service.url() == town.outside.fcm.service.url() { 2 } else { 1 };
        eventually("a wake-up", SOON, || (service.accepted() >= wanted).then_some(()));
    }
    let words: Vec<String> =
        town.outside.apns.service.seen().iter().chain(&town.outside.fcm.messages()).filter_map(word).collect();
    assert!(words.len() >= 2, "the services were shown what lets this server in");
    words.iter().for_each(|word| secrets.text("what lets this server in", word));

    let metrics = town.world.admin().get("/metrics").1;
    secrets.stand_in_no_text("the metrics", &metrics);
    are_not_there(&codes, "the metrics", metrics.as_bytes());
    secrets.lie_in_no_file("while it serves", town.world.data_dir());
    let copy = town.world.directory("copy");
    let _ = backup(town.world.data_dir(), &copy).ok();
    secrets.lie_in_no_file("in a backup", &copy);
    assert!(town.world.stop().success());
    // After the flush of a clean stop as well.
    secrets.lie_in_no_file("after a stop", town.world.data_dir());
    for (path, bytes) in files(town.world.data_dir()) {
        are_not_there(&codes, &path.display().to_string(), &bytes);
    }
    let log = town.world.log();
    assert!(log.len() > 1_000, "the log tells something at its most talkative");
    secrets.stand_in_no_text("the log", &log);
    are_not_there(&codes, "the log", log.as_bytes());
}

/// What a service is shown to let this server in.
fn word(seen: &Seen) -> Option<String> {
    let (_, word) = seen.header("authorization").split_once(' ')?;
    Some(word.to_owned())
}

#[test]
fn codes_are_found_where_they_stand_alone() {
    for (text, expected) in [
        ("code=123456", true),
        ("code 123456 for", true),
        ("123456", true),
        ("at 10:20:30.123456Z", false),
        ("id a123456", false),
        ("1234567", false),
        ("12345", false),
    ] {
        assert_eq!(stands_alone(text.as_bytes(), "123456"), expected, "{text}");
    }
}
