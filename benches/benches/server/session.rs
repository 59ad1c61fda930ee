//! Steps of the session machine, with the frames that go in and come out: decoding and encoding are a part of each.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use gureum_benches::payload;
use gureum_proto::{
    Accepted, AccountId, ConversationId, DeliveryFrame, DeviceId, EnvelopeBody, Gone, MessageId, Position, Send, Sent,
    ServerFrame, SharedEnvelope, put_envelope, put_send,
};
use gureum_server::session::{Action, Input, Item, Page};

use crate::proven::{START_MS, frame, session};
use crate::world::BODY_BYTES;

const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);
const DEVICE: DeviceId = DeviceId::from_bytes([2; 16]);
const CONVERSATION: ConversationId = ConversationId::from_bytes([8; 16]);

/// A send comes in and is asked to be submitted; its answer comes and goes out.
pub(crate) fn sending(criterion: &mut Criterion) {
    let mut session = session(ACCOUNT, DEVICE, false);
    let ciphertext = payload(BODY_BYTES);
    let send = Send { counter: 1, conversation: CONVERSATION, epoch: 1, ciphertext, silent: false };
    let frame = frame(|out| put_send(&send, out));
    let mut out = BytesMut::new();
    let mut group = criterion.benchmark_group("session");
    group.throughput(Throughput::Elements(1));
    group.bench_function("send", |bencher| {
        bencher.iter(|| {
            session.handle(Input::Frame(black_box(frame.clone())), START_MS);
            let submitted = session.poll_action();
            assert!(matches!(submitted, Some(Action::Send(_))), "the send is asked for");
            session.handle(Input::Answered(vec![accepted()]), START_MS);
            out.clear();
            let Some(Action::Answer(answers)) = session.poll_action() else { panic!("a send is answered") };
            answers.into_iter().for_each(|sent| ServerFrame::Sent(sent).put(&mut out));
            assert_eq!(session.poll_action(), None, "nothing else is asked for");
            black_box((submitted, out.len()))
        });
    });
}

/// What was read of an inbox goes out, and the next read is asked for.
pub(crate) fn delivering(criterion: &mut Criterion) {
    let mut session = session(ACCOUNT, DEVICE, true);
    let mut out = BytesMut::new();
    let mut group = criterion.benchmark_group("session/deliver");
    for entries in [1, 64] {
        let page = page(entries);
        group.throughput(Throughput::Elements(entries));
        group.bench_function(BenchmarkId::from_parameter(entries), |bencher| {
            let deliver = |page| {
                session.handle(Input::Page(page), START_MS);
                let Some(Action::Deliver(items)) = session.poll_action() else { panic!("a page is delivered") };
                out.clear();
                put_items(&items, &mut out);
                session.handle(Input::Written, START_MS);
                let next = session.poll_action();
                assert!(matches!(next, Some(Action::Read { .. })), "there is more to read");
                black_box(out.len());
                items
            };
            bencher.iter_batched(|| page.clone(), deliver, BatchSize::SmallInput);
        });
    }
}

fn accepted() -> Sent {
    let message_id = Some(MessageId::new(START_MS, 1));
    Sent { counter: 1, result: Ok(Accepted { message_id, number: 1, repeated: false, gone: Gone::default() }) }
}

/// A page that is not the last.
fn page(entries: u64) -> Page {
    let envelope =
        |number| Item::Envelope { position: Position { seq: number, count: number }, shared: shared(number) };
    Page { items: (1..=entries).map(envelope).collect(), more: true }
}

fn shared(number: u64) -> Bytes {
    SharedEnvelope {
        message_id: MessageId::new(START_MS, u128::from(number)),
        conversation: CONVERSATION,
        sender_account: ACCOUNT,
        sender_device: DEVICE,
        body: EnvelopeBody::Message { number, ciphertext: payload(BODY_BYTES) },
    }
    .encode()
}

/// As the server's shell writes what goes to a delivery stream.
fn put_items(items: &[Item], out: &mut BytesMut) {
    for item in items {
        match item {
            Item::Envelope { position, shared } => put_envelope(*position, shared, out),
            Item::Gap(gap) => DeliveryFrame::Gap(*gap).put(out),
            Item::CaughtUp { seq } => DeliveryFrame::CaughtUp { seq: *seq }.put(out),
        }
    }
}
