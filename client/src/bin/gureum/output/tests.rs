//! What is printed is an interface: its lines stay as they are.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

use gureum_client::vault::{GroupChange, Message, OutboxId, PhoneEvent, Receipts};
use gureum_proto::{AccountId, ConversationId, DeviceId, GapReason, Handle, MessageId};

use super::*;

fn message(own: bool) -> Message {
    Message {
        conversation: ConversationId::from_bytes([1; 16]),
        peer: Some(AccountId::from_bytes([2; 16])),
        group: None,
        from: AccountId::from_bytes([2; 16]),
        from_handle: "bob".parse().unwrap(),
        device: DeviceId::from_bytes([3; 16]),
        own,
        text: "hé \"you\"\n".to_owned(),
        message_id: Some(MessageId::new(1_700_000_000_000, 5)),
        server_time_ms: 1_700_000_000_000,
        number: 4,
        seq: (!own).then_some(9),
        request: false,
        receipts: None,
    }
}

#[track_caller]
fn check(event: &Event, expected: &str) {
    assert_eq!(Output::new(true).event(event).unwrap().unwrap_or_default(), expected);
}

#[test]
fn a_message_is_one_json_object_with_the_fields_promised() {
    check(
        &Event::Message(message(false)),
        concat!(
            r#"{"event":"message","conversation":"01010101010101010101010101010101","group":null,"from":"bob","#,
            r#""own":false,"text":"hé \"you\"\n","message_id":"018bcfe5680070008000000000000005","#,
            r#""server_time_ms":1700000000000,"seq":9}"#
        ),
    );
}

#[test]
fn a_message_of_somebody_unknown_says_that_it_is_a_request() {
    let request = Message { request: true, ..message(false) };
    let line = Output::new(true).event(&Event::Message(request.clone())).unwrap().unwrap();
    assert!(line.ends_with(r#""seq":9,"request":true}"#), "{line}");
    let said = Output::new(false).event(&Event::Message(request)).unwrap().unwrap();
    assert!(said.contains("bob") && said.contains("(a request)"), "{said}");
}

#[test]
fn what_has_happened_to_the_phone_number_says_what_and_when() {
    let event = |change| Event::Phone { change, time_ms: 1_700_000_000_000 };
    check(&event(PhoneEvent::Moved), r#"{"event":"phone","change":"moved","time_ms":1700000000000}"#);
    check(&event(PhoneEvent::Tried), r#"{"event":"phone","change":"tried","time_ms":1700000000000}"#);
    for (change, word) in [(PhoneEvent::Moved, "another account"), (PhoneEvent::Tried, "registration lock")] {
        let said = Output::new(false).event(&event(change)).unwrap().unwrap();
        assert!(said.contains(word) && said.contains("2023-11-14 22:13:20Z"), "{said}");
    }
}

#[test]
fn a_push_target_that_was_refused_names_its_service() {
    let refused = Event::PushRefused { service: "apns".to_owned() };
    check(&refused, r#"{"event":"push_refused","service":"apns"}"#);
    let said = Output::new(false).event(&refused).unwrap().unwrap();
    assert!(said.contains("apns") && said.contains("gureum push set"), "{said}");
}

#[test]
fn lines_of_phone_numbers_and_push_are_as_promised() {
    let json = |line: Line<'_>| serde_json::to_string(&line).unwrap();
    assert_eq!(
        json(Line::PhoneShown { phone: Some("+821012345678"), findable: Some(true), lock: None }),
        r#"{"event":"phone","phone":"+821012345678","findable":true}"#
    );
    assert_eq!(
        json(Line::CodeSent { phone: "+821012345678", expires_in_s: 300 }),
        r#"{"event":"code_sent","phone":"+821012345678","expires_in_s":300}"#
    );
    assert_eq!(json(Line::Wake { kind: "expiring" }), r#"{"event":"wake","kind":"expiring"}"#);
    assert_eq!(json(Line::PushCleared), r#"{"event":"push_cleared"}"#);
    let push = Line::Push {
        service: Some("web_push"),
        visible: Some(true),
        known: false,
        offered: vec!["apns", "web_push"],
        vapid_key: Some("BA".to_owned()),
    };
    let expected = concat!(
        r#"{"event":"push","service":"web_push","visible":true,"known":false,"offered":["apns","web_push"],"#,
        r#""vapid_key":"BA"}"#
    );
    assert_eq!(json(push), expected);
}

#[test]
fn an_own_message_has_no_place_in_the_inbox() {
    let line = Output::new(true).history(&HistoryItem::Message(message(true))).unwrap();
    assert!(line.ends_with(r#""seq":null}"#), "{line}");
}

#[test]
fn the_history_says_who_has_an_own_message_and_who_has_read_it() {
    let people = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    let shown = |json, delivered_to: &[&str], read_by: &[&str]| {
        let receipts = Receipts { delivered_to: people(delivered_to), read_by: people(read_by) };
        let message = Message { receipts: Some(receipts), ..message(true) };
        Output::new(json).history(&HistoryItem::Message(message)).unwrap()
    };
    let line = shown(true, &["bob", "carol"], &["bob"]);
    assert!(line.ends_with(r#""seq":null,"delivered_to":["bob","carol"],"read_by":["bob"]}"#), "{line}");
    assert!(!shown(false, &[], &[]).contains('✓'));
    assert!(shown(false, &["bob"], &[]).ends_with(" ✓"));
    assert!(shown(false, &["bob"], &["bob"]).ends_with(" ✓✓"));
}

#[test]
fn a_receipt_says_whose_it_is_and_of_which_message() {
    let receipt = |kind| Event::Receipt {
        kind,
        conversation: ConversationId::from_bytes([1; 16]),
        message_id: MessageId::new(1_700_000_000_000, 5),
        by: "bob".parse().unwrap(),
        time_ms: 1_700_000_000_500,
    };
    check(
        &receipt(ReceiptKind::Read),
        concat!(
            r#"{"event":"receipt","kind":"read","message_id":"018bcfe5680070008000000000000005","#,
            r#""conversation":"01010101010101010101010101010101","by":"bob","time_ms":1700000000500}"#
        ),
    );
    let said = Output::new(false).event(&receipt(ReceiptKind::Delivered)).unwrap().unwrap();
    assert!(said.contains("bob has your message of 2023-11-14 22:13:20Z"), "{said}");
    let (delivered, read) = (ReceiptKind::Delivered, ReceiptKind::Read);
    let stored = |kind| StoredEvent { id: 1, event: receipt(kind) };
    let together = [stored(delivered), stored(delivered), stored(read)];
    let lines = Output::new(false).events(&together).unwrap();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("bob has 2 messages of yours"), "{lines:?}");
    assert_eq!(Output::new(true).events(&together).unwrap().len(), 3);
}

#[test]
fn who_types_is_named_and_for_how_long_that_holds() {
    let (conversation, from) = (ConversationId::from_bytes([1; 16]), "bob".parse().unwrap());
    let line = typing_json(conversation, &from, std::time::Duration::from_secs(7));
    let expected =
        r#"{"event":"typing","conversation":"01010101010101010101010101010101","from":"bob","ends_in_ms":7000}"#;
    assert_eq!(serde_json::to_string(&line).unwrap(), expected);
}

#[test]
fn a_gap_says_how_many_are_gone_and_why() {
    let gap = |reason| Event::Gap { from_seq: 3, to_seq: 12, count: 9, reason };
    check(&gap(GapReason::Expired), r#"{"event":"gap","from_seq":3,"to_seq":12,"count":9,"reason":"expired"}"#);
    check(&gap(GapReason::Overflow), r#"{"event":"gap","from_seq":3,"to_seq":12,"count":9,"reason":"overflow"}"#);
}

#[test]
fn events_without_a_line_of_their_own_are_silent_or_named() {
    let conversation = ConversationId::from_bytes([0; 16]);
    check(&Event::Joined { conversation, peer: AccountId::from_bytes([2; 16]) }, "");
    check(
        &Event::SendFailed { outbox: OutboxId(1), conversation, with: None, why: "not a member".to_owned() },
        r#"{"event":"send_failed","conversation":"00000000000000000000000000000000","why":"not a member"}"#,
    );
}

#[test]
fn what_has_happened_in_a_conversation_says_in_which_as_far_as_that_is_known() {
    let (conversation, message_id) = (ConversationId::from_bytes([1; 16]), MessageId::new(1_700_000_000_000, 5));
    let why = || "for a reason".to_owned();
    let events = |with: Option<&str>| {
        let with = || with.map(str::to_owned);
        [
            Event::Rejoined { conversation, with: with() },
            Event::Copied { conversation, with: with() },
            Event::Unreadable { conversation, with: with(), number: 1, message_id, why: why() },
            Event::CommitRefused { conversation, with: with(), why: why(), stopped: true },
            Event::Withheld { conversation, with: with(), from_number: 1, to_number: 1, count: 1 },
            Event::SendFailed { outbox: OutboxId(1), conversation, with: with(), why: why() },
        ]
    };
    for event in events(Some("Book\u{202e} club")) {
        let said = Output::new(false).event(&event).unwrap().unwrap();
        assert!(said.contains("Book\\u{202e} club"), "{said}");
    }
    for event in events(None) {
        let line = Output::new(true).event(&event).unwrap().unwrap();
        assert!(!line.contains(r#""with":"#), "{line}");
    }
}

#[test]
fn who_joined_again_is_named_and_this_device_is_not() {
    let conversation = ConversationId::from_bytes([1; 16]);
    check(
        &Event::Rejoined { conversation, with: Some("bob".to_owned()) },
        r#"{"event":"rejoined","conversation":"01010101010101010101010101010101","with":"bob"}"#,
    );
    let (by, device) = ("bob".parse().unwrap(), DeviceId::from_bytes([3; 16]));
    check(
        &Event::MemberRejoined { conversation, by, device },
        concat!(
            r#"{"event":"rejoined","conversation":"01010101010101010101010101010101","by":"bob","#,
            r#""device":"03030303030303030303030303030303"}"#
        ),
    );
    check(&Event::Restored { conversations: 2 }, r#"{"event":"restored","conversations":2}"#);
    check(
        &Event::Copied { conversation, with: None },
        r#"{"event":"copied","conversation":"01010101010101010101010101010101"}"#,
    );
}

#[test]
fn a_change_of_devices_says_whose_and_which() {
    let (account, device) = (AccountId::from_bytes([2; 16]), DeviceId::from_bytes([3; 16]));
    let (handle, name) = ("alice".to_owned(), Some("ta\u{1b}blet".to_owned()));
    let added = Event::DeviceAdded { account, handle: handle.clone(), device, name };
    check(
        &added,
        concat!(
            r#"{"event":"device","change":"added","account":"02020202020202020202020202020202","handle":"alice","#,
            r#""device":"03030303030303030303030303030303","name":"ta\u001bblet"}"#
        ),
    );
    let said = Output::new(false).event(&added).unwrap().unwrap();
    assert!(said.contains("alice") && said.contains("ta\\u{1b}blet"), "{said}");
    check(
        &Event::DeviceRevoked { account, handle, device, name: None },
        concat!(
            r#"{"event":"device","change":"revoked","account":"02020202020202020202020202020202","handle":"alice","#,
            r#""device":"03030303030303030303030303030303","name":null}"#
        ),
    );
}

#[test]
fn a_listed_device_is_no_change() {
    let line = Line::Device { device: "03".to_owned(), name: None, added_ms: 5, last_seen_ms: None, current: true };
    let listed = r#"{"event":"device","device":"03","name":null,"added_ms":5,"last_seen_ms":null,"current":true}"#;
    assert_eq!(serde_json::to_string(&line).unwrap(), listed);
}

#[test]
fn a_server_that_has_gone_back_is_an_event_that_says_what_to_do() {
    let (conversation, with) = (ConversationId::from_bytes([1; 16]), "bob".to_owned());
    let gone_back = Event::GoneBack { conversation, with: with.clone(), is_group: false, epoch: 1, epoch_seen: 3 };
    check(
        &gone_back,
        concat!(
            r#"{"event":"gone_back","conversation":"01010101010101010101010101010101","with":"bob","#,
            r#""epoch":1,"epoch_seen":3}"#
        ),
    );
    let said = Output::new(false).event(&gone_back).unwrap().unwrap();
    assert!(said.contains("gureum restart bob") && said.contains("operator"), "{said}");
    check(
        &Event::Restarted { conversation, with },
        r#"{"event":"restarted","conversation":"01010101010101010101010101010101","with":"bob"}"#,
    );
}

#[test]
fn a_change_of_a_group_says_who_did_what_to_whom() {
    let conversation = ConversationId::from_bytes([1; 16]);
    let (name, who) = ("Book\u{202e} club".to_owned(), vec!["carol".to_owned(), "dave".to_owned()]);
    let (change, by) = (GroupChange::Added, Some("bob".to_owned()));
    let added = Event::Group { conversation, name, change, by, who };
    check(
        &added,
        concat!(
            r#"{"event":"group","change":"added","conversation":"01010101010101010101010101010101","#,
            "\"name\":\"Book\u{202e} club\",",
            r#""by":"bob","who":["carol","dave"]}"#
        ),
    );
    let said = Output::new(false).event(&added).unwrap().unwrap();
    assert_eq!(said, "· bob added carol, dave to the group Book\\u{202e} club");
}

#[test]
fn another_account_under_a_handle_is_told_with_both_numbers_and_what_to_do() {
    let (before, after) = (AccountId::from_bytes([2; 16]), AccountId::from_bytes([3; 16]));
    let (handle, number_before, number): (Handle, _, _) = ("bob".parse().unwrap(), "1".to_owned(), "2".to_owned());
    let changed = Event::SafetyNumber { handle: handle.clone(), before, after, number_before, number };
    check(
        &changed,
        concat!(
            r#"{"event":"safety_number_changed","with":"bob","account_before":"02020202020202020202020202020202","#,
            r#""account":"03030303030303030303030303030303","number_before":"1","number":"2"}"#
        ),
    );
    let said = Output::new(false).event(&changed).unwrap().unwrap();
    assert!(said.contains("gureum safety-number bob") && said.contains("another account"), "{said}");
    let (number_before, number) = ("1".to_owned(), "2".to_owned());
    let marked = HistoryItem::SafetyNumber { conversation: None, with: handle, number_before, number };
    assert_eq!(
        Output::new(true).history(&marked).unwrap(),
        r#"{"event":"safety_number_changed","with":"bob","number_before":"1","number":"2"}"#
    );
}

#[test]
fn what_is_withheld_says_where_and_how_much() {
    let conversation = ConversationId::from_bytes([1; 16]);
    let withheld =
        Event::Withheld { conversation, with: Some("bob".to_owned()), from_number: 3, to_number: 5, count: 2 };
    check(
        &withheld,
        concat!(
            r#"{"event":"withheld","conversation":"01010101010101010101010101010101","with":"bob","from_number":3,"#,
            r#""to_number":5,"count":2}"#
        ),
    );
    let said = Output::new(false).event(&withheld).unwrap().unwrap();
    assert!(said.contains("2 messages of your conversation with bob") && said.contains("gap"), "{said}");
    check(
        &Event::Hidden { conversation },
        r#"{"event":"conversation_hidden","conversation":"01010101010101010101010101010101"}"#,
    );
}

#[test]
fn what_another_device_has_read_and_seen_is_told() {
    let conversation = ConversationId::from_bytes([1; 16]);
    let read = Event::Read { conversation, number: 7, unread: 0, by_device: "phone".to_owned() };
    check(
        &read,
        concat!(
            r#"{"event":"read","conversation":"01010101010101010101010101010101","number":7,"unread":0,"#,
            r#""by_device":"phone"}"#
        ),
    );
    let said = Output::new(false).event(&read).unwrap().unwrap();
    assert!(said.contains("phone") && said.contains("everything"), "{said}");
    let forked = Event::LogForked { account: AccountId::from_bytes([2; 16]), handle: "bob".to_owned() };
    check(&forked, r#"{"event":"log_forked","account":"02020202020202020202020202020202","handle":"bob"}"#);
    let said = Output::new(false).event(&forked).unwrap().unwrap();
    assert!(said.contains("bob") && said.contains("tampers"), "{said}");
}

#[test]
fn a_history_that_is_handed_over_says_how_far_it_has_come() {
    let handed_over = Event::History { from: "desk".to_owned(), messages: 7, of: 7, done: true };
    check(&handed_over, r#"{"event":"history","from":"desk","messages":7,"of":7,"done":true}"#);
    let said = Output::new(false).event(&handed_over).unwrap().unwrap();
    assert!(said.contains("desk") && said.contains("7 messages"), "{said}");
    let over = Event::History { from: "desk".to_owned(), messages: 3, of: 7, done: false };
    check(&over, r#"{"event":"history","from":"desk","messages":3,"of":7,"done":false}"#);
    let said = Output::new(false).event(&over).unwrap().unwrap();
    assert!(said.contains("desk was revoked") && said.contains("3 of 7 messages"), "{said}");
    let line = Line::History { from: None, to: Some("tablet"), messages: 3, of: 7, done: false };
    let to = r#"{"event":"history","to":"tablet","messages":3,"of":7,"done":false}"#;
    assert_eq!(serde_json::to_string(&line).unwrap(), to);
}

#[test]
fn a_device_that_is_to_get_the_history_is_named_with_that() {
    let check = |history| Line::LinkCheck { digits: "123 456", handle: None, device_name: Some("tablet"), history };
    let line = |history| serde_json::to_string(&check(history)).unwrap();
    assert_eq!(line(false), r#"{"event":"link_check","digits":"123 456","device_name":"tablet"}"#);
    assert_eq!(line(true), r#"{"event":"link_check","digits":"123 456","device_name":"tablet","history":true}"#);
}

#[test]
fn who_does_not_exist_any_more_is_named_with_what_an_admin_can_do() {
    let gone = |is_admin| Event::AccountsGone {
        conversation: ConversationId::from_bytes([1; 16]),
        name: "Book club".to_owned(),
        who: vec!["bob".to_owned(), "carol".to_owned()],
        is_admin,
    };
    check(
        &gone(true),
        concat!(
            r#"{"event":"accounts_gone","conversation":"01010101010101010101010101010101","name":"Book club","#,
            r#""who":["bob","carol"],"admin":true}"#
        ),
    );
    let said = |is_admin| Output::new(false).event(&gone(is_admin)).unwrap().unwrap();
    let command = "gureum group remove 01010101010101010101010101010101 bob carol";
    assert!(said(true).contains(command) && said(true).contains("Book club"), "{}", said(true));
    assert!(!said(false).contains("gureum") && said(false).contains("admin"), "{}", said(false));
    assert!(said(false).contains("if no other is left, nobody can"), "{}", said(false));
    let claim = "the server says that bob, carol were deleted";
    assert!(said(true).contains(claim) && said(false).contains(claim), "it is the server's word: {}", said(true));
}

#[test]
fn text_of_others_cannot_steer_the_terminal() {
    assert_eq!(printable("a\x1b[2Jb\u{202e}c\nd"), "a\\u{1b}[2Jb\\u{202e}c\nd");
}

#[test]
fn times_are_read_in_utc() {
    assert_eq!(time_text(1_700_000_000_000), "2023-11-14 22:13:20Z");
    assert_eq!(time_text(253_402_300_799_999), "9999-12-31 23:59:59Z");
    assert_eq!(time_text(253_402_300_800_000), "253402300800000 ms");
    assert_eq!(time_text(1 << 62), "4611686018427387904 ms");
}
