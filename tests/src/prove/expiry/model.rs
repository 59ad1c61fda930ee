//! What must be true: every inbox entry that was accepted, and with it what each read must return at each moment.

use std::collections::VecDeque;

use bytes::BytesMut;
use gureum_proto::{DeliveryFrame, EnvelopeBody, Position, SharedEnvelope, put_envelope};
use gureum_server::session::Item;
use gureum_wire::Decoder;

use super::RETENTION_MS;
use super::people::People;

/// Beyond all numbers: what tells the bodies of silent messages from those of others.
pub(super) const SILENT: u32 = 1 << 31;

/// What an entry holds, from which its content follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// The message of this number.
    Message { number: u32 },
    /// So many silent messages were said before in its conversation.
    Silent { before: u32 },
    /// The commit that ended this epoch.
    Commit { epoch: u32 },
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    time_ms: u64,
    talk: u32,
    said: Said,
}

/// One account's inbox: the entries that have not expired, and where they begin.
#[derive(Debug, Default)]
struct Inbox {
    /// The position before the first of `entries`: what has expired ends there.
    expired: Position,
    entries: VecDeque<Entry>,
    head: Position,
}

/// All inboxes, and how far each device has taken its own.
pub(super) struct Model {
    inboxes: Vec<Inbox>,
    cursors: Vec<Position>,
    body_bytes: usize,
    /// Bodies that have not expired: when they were written, and how many bytes.
    bodies: VecDeque<(u64, u64)>,
    bodies_bytes: u64,
}

/// What one read found.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Found {
    pub(super) envelopes: u64,
    pub(super) gaps: u64,
    pub(super) missed: u64,
}

impl Model {
    pub(super) fn new(people: &People, body_bytes: usize) -> Self {
        Self {
            inboxes: people.accounts.iter().map(|_| Inbox::default()).collect(),
            cursors: vec![Position::default(); people.devices.len()],
            body_bytes,
            bodies: VecDeque::new(),
            bodies_bytes: 0,
        }
    }

    /// An entry was accepted for an account.
    pub(super) fn append(&mut self, account: usize, talk: usize, said: Said, time_ms: u64) {
        let inbox = &mut self.inboxes[account];
        inbox.head.seq += 1;
        inbox.head.count += u64::from(matches!(said, Said::Message { .. }));
        inbox.entries.push_back(Entry { time_ms, talk: u32::try_from(talk).expect("few talks"), said });
    }

    /// Bodies of so many bytes were written.
    pub(super) fn wrote_bodies(&mut self, time_ms: u64, bytes: u64) {
        self.bodies.push_back((time_ms, bytes));
        self.bodies_bytes += bytes;
    }

    pub(super) fn cursor(&self, device: usize) -> Position {
        self.cursors[device]
    }

    pub(super) fn set_cursor(&mut self, device: usize, position: Position) {
        self.cursors[device] = position;
    }

    /// The bytes of bodies that have not expired.
    pub(super) fn living_body_bytes(&mut self, now_ms: u64) -> u64 {
        while let Some((_, bytes)) = self.bodies.pop_front_if(|(time_ms, _)| *time_ms + RETENTION_MS <= now_ms) {
            self.bodies_bytes -= bytes;
        }
        self.bodies_bytes
    }

    /// The pointers that have not expired and that some device of their account has not taken.
    pub(super) fn living_pointers(&mut self, people: &People, now_ms: u64) -> u64 {
        let mut living = 0;
        for (inbox, account) in self.inboxes.iter_mut().zip(&people.accounts) {
            inbox.expire(now_ms);
            let floor = account.devices.iter().map(|device| self.cursors[*device].seq).min().unwrap_or(0);
            living += inbox.head.seq - floor.max(inbox.expired.seq);
        }
        living
    }

    /// Holds what a device read after its cursor against what it must get. Returns where it stands now.
    ///
    /// # Panics
    /// When anything is served that has expired, missing that has not, out of order, or counted wrong.
    pub(super) fn check(&mut self, people: &People, device: usize, items: &[Item], now_ms: u64) -> (Position, Found) {
        let account = people.devices[device].account;
        let mut at = self.cursors[device];
        let inbox = &mut self.inboxes[account];
        inbox.expire(now_ms);
        let mut found = Found::default();
        for item in items {
            match item {
                Item::Gap(gap) => {
                    assert!(
                        at.seq < inbox.expired.seq,
                        "device {device}: a gap after {at:?} where nothing expired: {gap:?}"
                    );
                    assert_eq!(gap.from_seq, at.seq + 1, "device {device}: a gap begins after {at:?}");
                    assert_eq!(gap.to, inbox.expired, "device {device}: a gap ends with what has expired");
                    assert_eq!(gap.missed, gap.to.count - at.count, "device {device}: what a gap counts");
                    at = gap.to;
                    found.gaps += 1;
                    found.missed += gap.missed;
                }
                Item::Envelope { position, shared } => {
                    let entry = inbox.at(at.seq + 1).unwrap_or_else(|| {
                        panic!(
                            "device {device}: {position:?} is served, and what follows {at:?} has expired or never was"
                        )
                    });
                    let count = at.count + u64::from(matches!(entry.said, Said::Message { .. }));
                    assert_eq!(*position, Position { seq: at.seq + 1, count }, "device {device}: the next position");
                    self::check(entry, people, &as_client(*position, shared), self.body_bytes, now_ms);
                    at = *position;
                    found.envelopes += 1;
                }
                Item::CaughtUp { .. } => panic!("device {device}: a read of the store says nothing of a subscription"),
            }
        }
        assert_eq!(at, inbox.head, "device {device} has read all there is");
        (at, found)
    }
}

impl Inbox {
    fn expire(&mut self, now_ms: u64) {
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.time_ms + RETENTION_MS <= now_ms) {
            self.expired.seq += 1;
            self.expired.count += u64::from(matches!(entry.said, Said::Message { .. }));
        }
    }

    fn at(&self, seq: u64) -> Option<&Entry> {
        let index = seq.checked_sub(self.expired.seq + 1)?;
        self.entries.get(usize::try_from(index).expect("an inbox fits the memory"))
    }
}

/// What a client makes of an envelope.
fn as_client(position: Position, shared: &[u8]) -> SharedEnvelope {
    let (mut out, mut decoder) = (BytesMut::new(), Decoder::new());
    put_envelope(position, shared, &mut out);
    decoder.push(out.freeze());
    let frame = decoder.next().expect("a frame").expect("a whole one");
    match DeliveryFrame::decode(frame).expect("a frame of deliveries") {
        DeliveryFrame::Envelope(envelope) => envelope.shared,
        other => panic!("{other:?} is no envelope"),
    }
}

fn check(entry: &Entry, people: &People, envelope: &SharedEnvelope, body_bytes: usize, now_ms: u64) {
    let time_ms = envelope.message_id.time_ms();
    assert!(now_ms < time_ms + RETENTION_MS, "{} ms after its retention a message is served", now_ms - time_ms);
    assert_eq!(time_ms, entry.time_ms, "the time of a message");
    let talk = usize::try_from(entry.talk).expect("few talks");
    assert_eq!(envelope.conversation, people.talks[talk].id, "the conversation of a message");
    match (entry.said, &envelope.body) {
        (Said::Message { number }, EnvelopeBody::Message { number: found, ciphertext }) => {
            assert_eq!(*found, u64::from(number), "the number of a message");
            assert_eq!(*ciphertext, super::body(talk, number, body_bytes), "the content of a message");
        }
        (Said::Silent { before }, EnvelopeBody::Silent(ciphertext)) => {
            assert_eq!(*ciphertext, super::body(talk, SILENT | before, body_bytes), "the content of a silent message");
        }
        (Said::Commit { epoch }, EnvelopeBody::Commit { epoch: found, .. }) => assert_eq!(*found, u64::from(epoch)),
        (said, body) => panic!("{said:?} was written and {body:?} is served"),
    }
}
