//! Arbitrary sequences of inputs: the session keeps its promises, and nothing of the inbox is left out.

use proptest::option;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Hello { right_key: bool, subscribe: bool, cursor: u64, life: u8 },
    Register,
    Link,
    LinkReply,
    Recover { entry: bool },
    RequestCode,
    Send,
    Ack { seq: u64, count: u64 },
    Garbage { kind: usize, payload: Vec<u8> },
    Broken,
    Facts { known: bool, revoked: bool, head: u64 },
    LookUpFailed,
    Registered(bool),
    LinkRefused,
    LinkAnswered,
    LinkLogged,
    LinkFinished,
    Recovered(Option<bool>),
    CodeSent(bool),
    Answered(u8),
    Woken,
    Page { entries: u64, more: bool },
    ReadFailed,
    Written,
    Displaced,
    CutOff,
    Copied,
    Noticed,
    Phone,
    Drain,
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (prop::bool::weighted(0.9), prop::bool::weighted(0.9), 0..12_u64, 2..8_u8)
            .prop_map(|(right_key, subscribe, cursor, life)| Step::Hello { right_key, subscribe, cursor, life }),
        1 => Just(Step::Register),
        2 => Just(Step::Link),
        2 => Just(Step::LinkReply),
        1 => any::<bool>().prop_map(|entry| Step::Recover { entry }),
        1 => Just(Step::RequestCode),
        6 => Just(Step::Send),
        3 => (0..20_u64, 0..20_u64).prop_map(|(seq, count)| Step::Ack { seq, count }),
        1 => (0..FrameKind::ALL.len(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(kind, payload)| Step::Garbage { kind, payload }),
        1 => Just(Step::Broken),
        8 => (prop::bool::weighted(0.95), prop::bool::weighted(0.05), 0..12_u64)
            .prop_map(|(known, revoked, head)| Step::Facts { known, revoked, head }),
        1 => Just(Step::LookUpFailed),
        2 => any::<bool>().prop_map(Step::Registered),
        1 => Just(Step::LinkRefused),
        3 => Just(Step::LinkAnswered),
        1 => Just(Step::LinkLogged),
        2 => Just(Step::LinkFinished),
        2 => option::of(any::<bool>()).prop_map(Step::Recovered),
        2 => any::<bool>().prop_map(Step::CodeSent),
        4 => any::<u8>().prop_map(|count| Step::Answered(count % 4)),
        8 => Just(Step::Woken),
        10 => (0..6_u64, any::<bool>()).prop_map(|(entries, more)| Step::Page { entries, more }),
        1 => Just(Step::ReadFailed),
        10 => Just(Step::Written),
        1 => Just(Step::Displaced),
        1 => Just(Step::CutOff),
        1 => Just(Step::Copied),
        1 => Just(Step::Noticed),
        1 => Just(Step::Phone),
        1 => Just(Step::Drain),
        2 => (0..TIMEOUT_MS).prop_map(Step::Tick),
    ]
}

fn at(seq: u64) -> Position {
    Position { seq, count: seq / 2 }
}

fn input(step: Step, session: &Watched) -> Input {
    match step {
        Step::Hello { right_key, subscribe, cursor, life } => {
            let key = if right_key { key() } else { SigningKey::from_bytes(&[9; 32]) };
            let alive = alive(life.into(), life, life + 1);
            hello(&HelloClaim { subscribe, cursor: at(cursor), ..alive }, &key, &EXPORTER)
        }
        Step::Register => register(),
        Step::Link => unproven::link(),
        Step::LinkReply => unproven::reply(),
        Step::Recover { entry } => unproven::recover(entry.then_some(b"entry".as_slice())),
        Step::RequestCode => unproven::request_code(),
        Step::Send => send(1),
        Step::Ack { seq, count } => ack(seq, count),
        Step::Garbage { kind, payload } => Input::Frame(Frame { kind: FrameKind::ALL[kind], payload: payload.into() }),
        Step::Broken => Input::Broken(FrameError::Truncated),
        Step::Facts { known, revoked, head } => {
            let facts = DeviceFacts { is_revoked: revoked, head: at(head), cursor: at(head / 2), ..facts() };
            Input::Facts { facts: known.then(|| Box::new(facts)), exporter: EXPORTER }
        }
        Step::LookUpFailed => Input::LookUpFailed,
        Step::Registered(true) => Input::Registered(Ok(registered())),
        Step::Registered(false) => Input::Registered(Err(Refusal::new(Code::HandleTaken))),
        Step::LinkRefused => Input::LinkRefused(Refusal::new(Code::LinkGone)),
        Step::LinkAnswered => Input::LinkAnswered(Bytes::from_static(b"answer")),
        Step::LinkLogged => Input::LinkLogged,
        Step::LinkFinished => Input::LinkFinished(Bytes::from_static(b"bundle")),
        Step::Recovered(None) => Input::Recovered(Err(Refusal::new(Code::RecoveryUnknown))),
        Step::Recovered(Some(true)) => Input::Recovered(Ok(Recovery::Done(registered()))),
        Step::Recovered(Some(false)) => Input::Recovered(Ok(Recovery::Known(unproven::recovering()))),
        Step::CodeSent(true) => Input::CodeSent(Ok(unproven::code_sent())),
        Step::CodeSent(false) => Input::CodeSent(Err(Refusal::new(Code::PhoneInvalid))),
        Step::Answered(count) => {
            Input::Answered(vec![Sent { counter: 1, result: Err(Refusal::new(Code::NotFound)) }; count.into()])
        }
        Step::Woken => Input::Woken,
        Step::Page { entries, more } => Input::Page(page(session.reading.unwrap_or_default(), entries, more)),
        Step::ReadFailed => Input::ReadFailed,
        Step::Written => Input::Written,
        Step::Displaced => Input::Displaced,
        Step::CutOff => Input::CutOff(Code::DeviceRevoked),
        Step::Copied => Input::Copied,
        Step::Noticed => Input::Noticed(Notice::default()),
        Step::Phone => Input::Phone(PHONE),
        Step::Drain => Input::Drain { come_back_ms: 1 },
        Step::Tick(_) => Input::Tick,
    }
}

/// Plays a shell that keeps its side: no frame while none is accepted, no answer that nobody asked for.
fn keeps_contract(step: &Step, session: &Watched) -> bool {
    match step {
        Step::Hello { .. }
        | Step::Register
        | Step::Link
        | Step::LinkReply
        | Step::Recover { .. }
        | Step::RequestCode
        | Step::Send
        | Step::Ack { .. }
        | Step::Garbage { .. } => session.session.accepts_frames(),
        Step::Written => session.writing,
        Step::Answered(count) => u32::from(*count) <= session.in_flight,
        _ => true,
    }
}

/// An inbox that grows while a session reads it, with wakes that may be lost, doubled or late.
#[derive(Debug, Clone)]
enum Live {
    Append { wake: bool },
    Wake,
    Read { entries: u64 },
    Written,
}

fn live() -> impl Strategy<Value = Live> {
    prop_oneof![
        4 => any::<bool>().prop_map(|wake| Live::Append { wake }),
        1 => Just(Live::Wake),
        4 => (1..4_u64).prop_map(|entries| Live::Read { entries }),
        4 => Just(Live::Written),
    ]
}

/// Reads as the store would: dense from the position asked for, never past the head.
fn read(after: Position, head: u64, entries: u64) -> Page {
    let last = head.min(after.seq + entries);
    let items = (after.seq + 1..=last).map(|seq| envelope(seq, seq / 2)).collect();
    Page { items, more: last < head }
}

proptest! {
    #[test]
    fn keeps_its_promises_in_any_order(steps in prop::collection::vec(step(), 0..120)) {
        let mut session = session();
        let mut now_ms = START_MS;
        for step in steps {
            if keeps_contract(&step, &session) {
                if let Step::Tick(ms) = step {
                    now_ms += ms / 20;
                }
                let input = input(step, &session);
                session.handle(input, now_ms);
            }
        }
    }

    #[test]
    fn delivers_everything_once_and_in_order_whatever_becomes_of_the_wakes(
        steps in prop::collection::vec(live(), 0..80)
    ) {
        let mut session = ready();
        let mut head = HEAD.seq;
        let mut seen = Vec::new();
        let mut note = |actions: Vec<Action>| for action in actions {
            if let Action::Deliver(items) = action {
                seen.extend(items.iter().filter_map(|item| match item {
                    Item::Envelope { position, .. } => Some(position.seq),
                    _ => None,
                }));
            }
        };
        for step in steps {
            match step {
                Live::Append { wake } => {
                    head += 1;
                    if wake {
                        note(session.handle(Input::Woken, START_MS));
                    }
                }
                Live::Wake => note(session.handle(Input::Woken, START_MS)),
                Live::Read { entries } => if let Some(after) = session.reading {
                    note(session.handle(Input::Page(read(after, head, entries)), START_MS));
                },
                Live::Written => if session.writing {
                    note(session.handle(Input::Written, START_MS));
                },
            }
        }
        // One last wake, and a shell that does what it is asked.
        note(session.handle(Input::Woken, START_MS));
        while session.reading.is_some() || session.writing {
            let input = match session.reading {
                Some(after) => Input::Page(read(after, head, 3)),
                None => Input::Written,
            };
            note(session.handle(input, START_MS));
        }
        prop_assert_eq!(seen, (claim().cursor.seq + 1..=head).collect::<Vec<_>>());
        prop_assert_eq!(session.caught_up, 1);
    }
}
