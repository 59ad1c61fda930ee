//! Faults of records, one a line.

use gureum_proto::{ConversationId, DeviceId, MessageId, PhoneNotice, PushDigest, PushService, Relation};

use super::made::*;
use crate::check::Kind::{self, *};
use crate::seal::Keyring;
use crate::store::Family;
use crate::store::Family::{
    Code, Commit, Conversation, Cursor as Cursors, Directory as Names, Inbox, InboxHead as Heads, KeyPackage, Message,
    Push, Registration, Welcome,
};
use crate::store::key::{self, ConversationTag as Tag, CursorTag, Key, inbox_head, message, next_life};
use crate::store::record::{
    CodeRecord, CommitRecord, ConversationHead, ConversationKind, Cursor, InboxBody, InboxEntry, InboxHead,
    InviteRecord, KeyPackageRecord, LockRecord, Member, NumberRecord, PhoneRecord, PreferenceRecord, PushStateRecord,
    PushTargetRecord, SealedMessage, SpentRecord,
};

type Harm = fn(&Made, &mut Changes<'_>);
type Finds = fn(&Made) -> Vec<Found>;

/// A device that nobody has.
const ODD: DeviceId = DeviceId::from_bytes([0xdd; 16]);
/// A conversation that nobody has.
const ELSEWHERE: ConversationId = ConversationId::from_bytes([0xce; 16]);
/// What is due to be off the disk, by 7 hours.
const PAST_MS: u64 = NOW_MS - RETENTION_MS - 7 * HOUR_MS;

fn bobs(made: &Made, seq: u64) -> Key {
    key::inbox(&made.bob.account, seq)
}

fn package() -> KeyPackageRecord {
    KeyPackageRecord { not_after_ms: NOW_MS, package: bytes::Bytes::from_static(b"a KeyPackage") }
}

fn old(time_ms: u64) -> MessageId {
    MessageId::new(time_ms, 9)
}

fn keyless() -> SealedMessage {
    SealedMessage { key_id: 1, nonce: [0; 12], ciphertext: bytes::Bytes::from_static(b"of a key that is gone") }
}

/// The conversation is older than the retention: by its age alone nothing follows.
fn ages(changes: &mut Changes<'_>) {
    changes.edit(Conversation, head_key(), |head: &mut ConversationHead| head.created_ms = PAST_MS);
}

/// Bob's inbox loses positions.
fn loses(made: &Made, changes: &mut Changes<'_>, positions: impl IntoIterator<Item = u64>) {
    positions.into_iter().for_each(|seq| changes.delete(Inbox, bobs(made, seq)));
}

fn moves(made: &Made, changes: &mut Changes<'_>, seq: u64, time_ms: u64) {
    changes.edit(Inbox, bobs(made, seq), |entry: &mut InboxEntry| entry.id = old(time_ms));
}

/// A cursor of another device of Bob's.
fn odd_cursor(made: &Made) -> Key {
    key::cursor(&made.bob.account, &ODD, CursorTag::Cursor)
}

/// Messages without a place, and what else is found with them.
fn lost(made: &Made, which: impl IntoIterator<Item = usize>, others: &[(Kind, &str, Key)]) -> Vec<Found> {
    let messages = which.into_iter().map(|index| found(PointerMissing, "message", message(&made.ids[index])));
    messages.chain(others.iter().map(|(kind, place, record_key)| found(*kind, place, record_key))).collect()
}

const NUMBER: key::NumberHash = [0x0e; 32];

fn target() -> PushTargetRecord {
    let (digest, sealed) = (PushDigest::from_bytes([1; 16]), bytes::Bytes::from_static(b"sealed"));
    let (service, host) = (PushService::WebPush, 7);
    PushTargetRecord { digest, service, host, visible: true, set_ms: START_MS, generation: 1, nonce: [0; 12], sealed }
}

fn woken(woken_seq: u64) -> PushStateRecord {
    PushStateRecord { woken_seq, woken_ms: START_MS, warned_ms: 0 }
}

fn bobs_target(made: &Made) -> Key {
    key::push_target(&made.bob.account, &made.bob.device)
}

fn bobs_state(made: &Made) -> Key {
    key::push_state(&made.bob.account, &made.bob.device)
}

fn bobs_alarm(made: &Made) -> Key {
    key::push_alarm(&made.bob.account, &made.bob.device)
}

fn phone(number: Option<key::NumberHash>) -> PhoneRecord {
    PhoneRecord { number, since_ms: START_MS, notice: PhoneNotice::default() }
}

fn lock() -> LockRecord {
    LockRecord { hash: [1; 32], tries_left: 5, closed_until_ms: 0 }
}

fn code(expires_ms: u64) -> CodeRecord {
    CodeRecord { expires_ms, hash: [1; 32], tries_left: 5, sent_ms: START_MS }
}

/// Bob has a number, a lock, and decisions about Alice and about the conversation; his device is woken.
pub(super) fn lives(made: &Made, changes: &mut Changes<'_>) {
    let bob = made.bob.account;
    changes.put(Names, key::number(&NUMBER), &NumberRecord { account: bob, findable: true });
    changes.put(Names, key::phone_of(&bob), &phone(Some(NUMBER)));
    changes.put(Names, key::lock_of(&bob), &lock());
    changes.put(Names, key::relation(&bob, &made.alice.account), &Relation::Accepted);
    changes.put(Names, key::preference(&bob, &TALK), &PreferenceRecord { accepted: true, muted_until_ms: 0 });
    changes.put(Push, bobs_target(made), &target());
    changes.put(Push, bobs_state(made), &woken(6));
    changes.put(Code, key::code(&NUMBER), &code(NOW_MS + HOUR_MS));
    changes.put(Code, key::spent(20_000), &SpentRecord { expires_ms: NOW_MS + HOUR_MS, count: 3 });
}

/// Bob's account was deleted with its devices, and with nothing else.
fn ends(made: &Made, changes: &mut Changes<'_>) {
    changes.put(Names, key::gone(&made.bob.account), &START_MS);
    changes.delete(Cursors, made.bob.cursor());
    changes.delete(KeyPackage, package_key(&made.bob.account, &made.bob.device));
}

fn the_commit() -> (Kind, &'static str, Key) {
    (PointerMissing, "commit", key::commit(&TALK, 1))
}

/// Each with what it does and what the audit must find: these, and nothing else.
#[rustfmt::skip]
const FAULTS: &[(&str, Harm, Finds)] = &[
    ("a record does not read", |_, c| c.raw(Registration, INVITE.as_bytes(), b"?"), |_| vec![found(Record, "registration", INVITE.as_bytes())]),
    ("a key is none of its family", |_, c| c.raw(Commit, b"short", b"?"), |_| vec![found(Record, "commit", b"short")]),
    ("a part of a conversation that there is not", |_, c| c.raw(Conversation, [TALK.as_bytes().as_slice(), b"x"].concat(), b"?"), |_| vec![found(Record, "conversation", [TALK.as_bytes().as_slice(), b"x"].concat())]),

    ("a position does not read, and of what waits nothing follows", |m, c| c.raw(Inbox, bobs(m, 3), b"?"), |m| vec![found(Record, "inbox", bobs(m, 3)), found(Sequence, "inbox", bobs(m, 4))]),
    ("a head of an inbox does not read", |m, c| c.raw(Heads, inbox_head(&m.alice.account), b"?"), |m| vec![found(Record, "inbox_head", inbox_head(&m.alice.account)), found(Sequence, "inbox_head", inbox_head(&m.alice.account))]),
    ("a conversation does not read", |_, c| c.raw(Conversation, head_key(), b"?"), |_| vec![found(Record, "conversation", head_key()), found(Epoch, "conversation", head_key())]),
    ("a handle does not read", |_, c| c.raw(Names, key::handle("alice"), b"?"), |m| vec![found(Record, "directory", key::handle("alice")), found(Directory, "directory", key::handle_of(&m.alice.account))]),
    ("an account's handle does not read", |m, c| c.raw(Names, key::handle_of(&m.alice.account), b"?"), |m| vec![found(Record, "directory", key::handle_of(&m.alice.account)), found(Directory, "directory", key::handle("alice"))]),

    ("a position in the middle is missing", |m, c| loses(m, c, [5]), |m| vec![found(Sequence, "inbox", bobs(m, 6))]),
    ("the newest position is missing", |m, c| loses(m, c, [6]), |m| vec![found(Sequence, "inbox", inbox_head(&m.bob.account))]),
    ("a position beyond the head", |m, c| c.edit(Heads, inbox_head(&m.bob.account), |head: &mut InboxHead| head.seq = 5), |m| vec![found(Sequence, "inbox", bobs(m, 6))]),
    ("a floor beyond the head", |m, c| c.edit(Heads, inbox_head(&m.bob.account), |head: &mut InboxHead| head.floor.seq = 7), |m| vec![found(Sequence, "inbox_head", inbox_head(&m.bob.account))]),
    ("what was dropped of an inbox is beyond its head", |m, c| c.edit(Heads, inbox_head(&m.bob.account), |head: &mut InboxHead| head.overflow.seq = 7), |m| vec![found(Sequence, "inbox_head", inbox_head(&m.bob.account))]),
    ("entries without a head", |m, c| c.delete(Heads, inbox_head(&m.alice.account)), |m| vec![found(Sequence, "inbox_head", inbox_head(&m.alice.account)), found(Orphan, "inbox_head", inbox_head(&m.alice.account))]),
    ("a count does not add up", |m, c| c.edit(Inbox, bobs(m, 6), |entry: &mut InboxEntry| entry.count += 1), |m| vec![found(Count, "inbox", bobs(m, 6)), found(Count, "inbox_head", inbox_head(&m.bob.account))]),
    ("the bytes of an inbox go back", |m, c| c.edit(Inbox, bobs(m, 6), |entry: &mut InboxEntry| entry.bytes_total = 0), |m| vec![found(Count, "inbox", bobs(m, 6))]),
    ("its messages go back, over a position that was taken", |m, c| { c.edit(Inbox, bobs(m, 1), |entry: &mut InboxEntry| entry.count = 9); loses(m, c, [2]); }, |m| vec![found(Count, "inbox", bobs(m, 3))]),
    ("the oldest position that waits is missing, and nothing can have expired", |m, c| loses(m, c, [3]), |m| lost(m, [2], &[(Sequence, "inbox", bobs(m, 4)), (Sequence, "inbox_head", inbox_head(&m.bob.account))])),
    ("the same where the account's devices have changed once", |m, c| { loses(m, c, [3]); c.raw(Family::DeviceLog, key::device_log(&m.bob.account, 1), b"?"); }, |m| lost(m, [2], &[(Sequence, "inbox", bobs(m, 4)), (Record, "device_log", key::device_log(&m.bob.account, 1))])),
    ("the same where one of two devices has taken it", |m, c| { loses(m, c, [3]); c.put(Cursors, odd_cursor(m), &Cursor { seq: 6, count: 4 }); }, |m| lost(m, [2], &[(Sequence, "inbox", bobs(m, 4)), (Sequence, "inbox_head", inbox_head(&m.bob.account)), (Orphan, "cursor", odd_cursor(m))])),
    ("the same of a group, of which nobody knows who was in it", |m, c| { loses(m, c, [3]); c.edit(Conversation, head_key(), |head: &mut ConversationHead| head.kind = ConversationKind::Group); }, |m| lost(m, [], &[(Sequence, "inbox", bobs(m, 4)), (Sequence, "inbox_head", inbox_head(&m.bob.account))])),
    ("the same where what follows is as old, but for less than a crash takes back of the clock", |m, c| { loses(m, c, [3]); moves(m, c, 4, m.ids[2].time_ms() + 4_000); }, |m| lost(m, [], &[(Sequence, "inbox", bobs(m, 4)), (Sequence, "inbox_head", inbox_head(&m.bob.account)), (PointerWithoutBody, "inbox", bobs(m, 4))])),
    ("an inbox lost all that waited in it", |m, c| loses(m, c, 3..=6), |m| lost(m, [2, 3, 4], &[the_commit(), (Sequence, "inbox", inbox_head(&m.bob.account)), (Sequence, "inbox_head", inbox_head(&m.bob.account))])),
    ("the same of an old conversation", |m, c| { ages(c); loses(m, c, 3..=6); }, |m| lost(m, [2, 3, 4], &[the_commit(), (Sequence, "inbox", inbox_head(&m.bob.account))])),
    ("the oldest positions that wait, of an old conversation", |m, c| { ages(c); loses(m, c, 3..=4); }, |m| lost(m, [2, 3], &[(Sequence, "inbox", bobs(m, 5))])),
    ("an inbox lost everything", |m, c| loses(m, c, 1..=6), |m| lost(m, [1, 2, 3, 4], &[the_commit(), (Sequence, "inbox_head", inbox_head(&m.bob.account))])),
    ("an inbox lost everything, of an old conversation", |m, c| { ages(c); loses(m, c, 1..=6); }, |m| lost(m, [1, 2, 3, 4], &[the_commit()])),

    ("a message is missing", |m, c| c.delete(Message, message(&m.ids[4])), |m| vec![found(PointerWithoutBody, "inbox", bobs(m, 6))]),
    ("a commit is missing", |_, c| c.delete(Commit, key::commit(&TALK, 1)), |m| vec![found(PointerWithoutBody, "inbox", bobs(m, 5))]),
    ("a change of devices of no account", |m, c| c.edit(Inbox, bobs(m, 1), |entry: &mut InboxEntry| entry.body = InboxBody::DeviceLog { account: STRANGER }), |m| vec![found(PointerWithoutBody, "inbox", bobs(m, 1))]),
    ("a sealed body was changed", |m, c| c.edit(Message, message(&m.ids[4]), |sealed: &mut SealedMessage| sealed.nonce[0] ^= 1), |m| vec![found(Body, "message", message(&m.ids[4]))]),

    ("a cursor beyond its inbox", |m, c| c.put(Cursors, m.bob.cursor(), &Cursor { seq: 99, count: 4 }), |m| vec![found(Kind::Cursor, "cursor", m.bob.cursor())]),
    ("a cursor that has counted more than there was", |m, c| c.put(Cursors, m.bob.cursor(), &Cursor { seq: 2, count: 99 }), |m| vec![found(Kind::Cursor, "cursor", m.bob.cursor())]),
    ("a device without a cursor, of which nobody knows what it has taken", |m, c| { c.delete(Cursors, m.bob.cursor()); loses(m, c, [5]); }, |m| vec![found(Kind::Cursor, "cursor", m.bob.cursor())]),
    ("a device without a cursor", |m, c| c.delete(Cursors, m.bob.cursor()), |m| vec![found(Kind::Cursor, "cursor", m.bob.cursor())]),
    ("a cursor of no device", |m, c| c.put(Cursors, key::cursor(&m.alice.account, &ODD, CursorTag::Cursor), &Cursor::default()), |m| vec![found(Orphan, "cursor", key::cursor(&m.alice.account, &ODD, CursorTag::Cursor))]),
    ("a last resort that was given out, of no device", |m, c| c.put(Cursors, key::cursor(&m.alice.account, &ODD, CursorTag::LastResort), &()), |m| vec![found(Orphan, "cursor", key::cursor(&m.alice.account, &ODD, CursorTag::LastResort))]),
    ("a KeyPackage of no device", |m, c| c.put(KeyPackage, package_key(&m.alice.account, &ODD), &package()), |m| vec![found(Orphan, "key_package", package_key(&m.alice.account, &ODD))]),
    ("a cursor of no account", |_, c| c.put(Cursors, key::cursor(&STRANGER, &ODD, CursorTag::Cursor), &Cursor::default()), |_| vec![found(Orphan, "cursor", key::cursor(&STRANGER, &ODD, CursorTag::Cursor))]),
    ("a KeyPackage of no account", |_, c| c.put(KeyPackage, package_key(&STRANGER, &ODD), &package()), |_| vec![found(Orphan, "key_package", package_key(&STRANGER, &ODD))]),
    ("an inbox of no account", |_, c| c.put(Heads, inbox_head(&STRANGER), &InboxHead::default()), |_| vec![found(Orphan, "inbox_head", inbox_head(&STRANGER))]),
    ("a handle of no account", |_, c| { c.put(Names, key::handle("eve"), &STRANGER); c.put(Names, key::handle_of(&STRANGER), &"eve".to_owned()); }, |_| vec![found(Directory, "directory", key::handle("eve"))]),
    ("an account without a handle", |m, c| c.delete(Names, key::handle_of(&m.alice.account)), |m| vec![found(Orphan, "directory", key::handle_of(&m.alice.account)), found(Directory, "directory", key::handle("alice"))]),
    ("a handle of another's that an account has", |_, c| c.put(Names, key::handle_of(&STRANGER), &"alice".to_owned()), |_| vec![found(Directory, "directory", key::handle_of(&STRANGER))]),
    ("an account that has left somewhere and does not exist", |_, c| c.put(Names, key::left(&STRANGER), &1_u64), |_| vec![found(Directory, "directory", key::left(&STRANGER))]),
    ("a name of no kind", |_, c| c.raw(Names, b"y", b"?"), |_| vec![found(Directory, "directory", b"y")]),
    ("an account that was deleted and does not exist", |_, c| c.put(Names, key::gone(&STRANGER), &1_u64), |_| vec![found(Directory, "directory", key::gone(&STRANGER))]),
    ("a deleted account with a device", |m, c| c.put(Names, key::gone(&m.bob.account), &START_MS), |m| vec![found(Kind::Cursor, "cursor", m.bob.cursor()), found(Orphan, "key_package", package_key(&m.bob.account, &m.bob.device))]),
    ("a handle that leads to another's account", |m, c| c.put(Names, key::handle("mallory"), &m.alice.account), |_| vec![found(Directory, "directory", key::handle("mallory"))]),
    ("an account that its recovery key does not lead to", |m, c| c.delete(Names, m.alice.recovery()), |m| vec![found(Orphan, "directory", m.alice.recovery())]),
    ("a recovery key of no account", |_, c| c.put(Names, key::recovery(&[9; 32]), &STRANGER), |_| vec![found(Directory, "directory", key::recovery(&[9; 32]))]),
    ("a device was seen in the future", |m, c| c.put(Cursors, m.alice.seen(), &(NOW_MS + 2 * HOUR_MS)), |m| vec![found(Time, "cursor", m.alice.seen())]),
    ("an entry of a device log that nobody signed", |m, c| c.put(Family::DeviceLog, key::device_log(&m.alice.account, 1), &bytes::Bytes::from_static(b"?")), |m| vec![found(Kind::DeviceLog, "device_log", key::device_log(&m.alice.account, 1))]),
    ("a device log without its root", |m, c| { let root: bytes::Bytes = c.get(Family::DeviceLog, key::device_log(&m.alice.account, 0)); c.put(Family::DeviceLog, key::device_log(&STRANGER, 1), &root); }, |_| vec![found(Kind::DeviceLog, "device_log", key::device_log(&STRANGER, 1))]),
    ("a root that nobody signed", |_, c| c.put(Family::DeviceLog, key::device_log(&STRANGER, 0), &bytes::Bytes::from_static(b"?")), |_| vec![found(Kind::DeviceLog, "device_log", key::device_log(&STRANGER, 0))]),
    ("a root of another account", |m, c| { let root: bytes::Bytes = c.get(Family::DeviceLog, key::device_log(&m.alice.account, 0)); c.put(Family::DeviceLog, key::device_log(&STRANGER, 0), &root); }, |_| vec![found(Kind::DeviceLog, "device_log", key::device_log(&STRANGER, 0))]),

    ("a conversation without its GroupInfo", |_, c| c.delete(Conversation, key::conversation(&TALK, Tag::GroupInfo)), |_| vec![found(Orphan, "conversation", key::conversation(&TALK, Tag::GroupInfo))]),
    ("a conversation without its tree", |_, c| c.delete(Conversation, key::conversation(&TALK, Tag::Tree)), |_| vec![found(Orphan, "conversation", key::conversation(&TALK, Tag::Tree))]),
    ("a number of no conversation", |_, c| c.put(Conversation, key::conversation(&ELSEWHERE, Tag::Number), &7_u64), |_| vec![found(Orphan, "conversation", key::conversation(&ELSEWHERE, Tag::Head))]),
    ("parts of two conversations are missing", |_, c| { c.delete(Conversation, key::conversation(&TALK, Tag::Tree)); c.put(Conversation, key::conversation(&ELSEWHERE, Tag::Number), &7_u64); }, |_| vec![found(Orphan, "conversation", key::conversation(&TALK, Tag::Tree)), found(Orphan, "conversation", key::conversation(&ELSEWHERE, Tag::Head))]),
    ("commits of two conversations do not lead to where they are", |_, c| { let commit: CommitRecord = c.get(Commit, key::commit(&TALK, 1)); c.put(Commit, key::commit(&ELSEWHERE, 7), &commit); c.edit(Conversation, head_key(), |head: &mut ConversationHead| head.epoch = 5); c.delete(Conversation, epoch_key()); }, |_| vec![found(Epoch, "conversation", head_key()), found(Epoch, "conversation", key::conversation(&ELSEWHERE, Tag::Head))]),
    ("a tree of no conversation", |_, c| c.raw(Conversation, key::conversation(&ELSEWHERE, Tag::Tree), b"\x01tree"), |_| vec![found(Orphan, "conversation", key::conversation(&ELSEWHERE, Tag::Head))]),
    ("an epoch without the commit that led to it", |_, c| { c.edit(Conversation, head_key(), |head: &mut ConversationHead| head.epoch = 5); c.put(Conversation, epoch_key(), &5_u64); }, |_| vec![found(Epoch, "conversation", head_key())]),
    ("a member that does not find the conversation", |m, c| c.delete(Names, key::membership(&m.bob.account, &TALK)), |m| vec![found(Directory, "directory", key::membership(&m.bob.account, &TALK))]),
    ("an epoch that is not the one of the roster", |_, c| c.put(Conversation, epoch_key(), &5_u64), |_| vec![found(Epoch, "conversation", epoch_key())]),
    ("a hole between commits", |_, c| { let commit: CommitRecord = c.get(Commit, key::commit(&TALK, 1)); c.put(Commit, key::commit(&TALK, 3), &commit); c.edit(Conversation, head_key(), |head: &mut ConversationHead| head.epoch = 4); c.put(Conversation, epoch_key(), &4_u64); }, |_| vec![found(Epoch, "commit", key::commit(&TALK, 3))]),

    ("a target of a device that is not there", |m, c| c.put(Push, key::push_target(&m.bob.account, &ODD), &target()), |m| vec![found(Orphan, "push", key::push_target(&m.bob.account, &ODD))]),
    ("a device that was woken and has no target", |m, c| c.put(Push, bobs_state(m), &woken(6)), |m| vec![found(Orphan, "push", bobs_state(m))]),
    ("a device that is to be woken at once and has no target", |m, c| c.put(Push, bobs_alarm(m), &START_MS), |m| vec![found(Orphan, "push", bobs_alarm(m))]),
    ("a device that was woken for what is beyond its inbox", |m, c| { lives(m, c); c.put(Push, bobs_state(m), &woken(7)); }, |m| vec![found(Kind::Cursor, "push", bobs_state(m))]),
    ("a number that leads to an account without one", |m, c| c.put(Names, key::number(&NUMBER), &NumberRecord { account: m.bob.account, findable: true }), |_| vec![found(Directory, "directory", key::number(&NUMBER))]),
    ("a number that leads to the account of another number", |m, c| { lives(m, c); c.put(Names, key::number(&[7; 32]), &NumberRecord { account: m.bob.account, findable: true }); }, |_| vec![found(Directory, "directory", key::number(&[7; 32]))]),
    ("an account with a number that does not lead to it", |m, c| c.put(Names, key::phone_of(&m.bob.account), &phone(Some(NUMBER))), |m| vec![found(Directory, "directory", key::phone_of(&m.bob.account))]),
    ("an account with the number of another", |m, c| { lives(m, c); c.put(Names, key::phone_of(&m.alice.account), &phone(Some(NUMBER))); }, |m| vec![found(Directory, "directory", key::phone_of(&m.alice.account))]),
    ("a number of no account", |_, c| { c.put(Names, key::number(&NUMBER), &NumberRecord { account: STRANGER, findable: true }); c.put(Names, key::phone_of(&STRANGER), &phone(Some(NUMBER))); }, |_| vec![found(Directory, "directory", key::number(&NUMBER)), found(Directory, "directory", key::phone_of(&STRANGER))]),
    ("a lock of no account", |_, c| c.put(Names, key::lock_of(&STRANGER), &lock()), |_| vec![found(Directory, "directory", key::lock_of(&STRANGER))]),
    ("a decision of no account", |m, c| c.put(Names, key::relation(&STRANGER, &m.bob.account), &Relation::Blocked), |m| vec![found(Directory, "directory", key::relation(&STRANGER, &m.bob.account))]),
    ("a decision about a conversation that the account is not in", |m, c| c.put(Names, key::preference(&m.bob.account, &ELSEWHERE), &PreferenceRecord::default()), |m| vec![found(Directory, "directory", key::preference(&m.bob.account, &ELSEWHERE))]),
    ("a deleted account with all that should have gone with it", |m, c| { lives(m, c); ends(m, c); }, |m| vec![
        found(Orphan, "push", bobs_target(m)), found(Directory, "directory", key::number(&NUMBER)),
        found(Directory, "directory", key::phone_of(&m.bob.account)), found(Directory, "directory", key::lock_of(&m.bob.account)),
        found(Directory, "directory", key::relation(&m.bob.account, &m.alice.account)), found(Directory, "directory", key::preference(&m.bob.account, &TALK)),
    ]),
    ("a handle that an account has lost which lives", |m, c| { c.put(Names, key::handle("bob"), &m.alice.account); c.put(Names, key::handle_of(&m.alice.account), &"bob".to_owned()); c.delete(Names, key::handle("alice")); }, |m| vec![found(Directory, "directory", key::handle_of(&m.bob.account))]),
    ("a code past its time", |_, c| c.put(Code, key::code(&NUMBER), &code(NOW_MS - 2 * DAY_MS)), |_| vec![found(Expired, "code", key::code(&NUMBER))]),
    ("a count of codes past its time", |_, c| c.put(Code, key::spent(1), &SpentRecord { expires_ms: NOW_MS - 2 * DAY_MS, count: 1 }), |_| vec![found(Expired, "code", key::spent(1))]),

    ("a message past its time", |_, c| c.put(Message, message(&old(PAST_MS)), &keyless()), |_| vec![found(Expired, "message", message(&old(PAST_MS)))]),
    ("an inbox entry past its time", |m, c| moves(m, c, 2, PAST_MS), |m| vec![found(Expired, "inbox", bobs(m, 2))]),
    ("a Welcome's inbox entry, which lives as long as commits, past its time", |m, c| moves(m, c, 1, NOW_MS - 11 * RETENTION_MS), |m| vec![found(Expired, "inbox", bobs(m, 1))]),
    ("a commit past its time", |_, c| c.edit(Commit, key::commit(&TALK, 1), |commit: &mut CommitRecord| commit.time_ms = NOW_MS - 13 * RETENTION_MS), |_| vec![found(Expired, "commit", key::commit(&TALK, 1))]),
    ("an invite past its time", |_, c| c.edit(Registration, INVITE.as_bytes(), |invite: &mut InviteRecord| invite.expires_ms = NOW_MS - 2 * DAY_MS), |_| vec![found(Expired, "registration", INVITE.as_bytes())]),
    ("a Welcome past its time", |_, c| c.raw(Welcome, message(&old(NOW_MS - 13 * RETENTION_MS)), b"\x01a Welcome"), |_| vec![found(Expired, "welcome", message(&old(NOW_MS - 13 * RETENTION_MS)))]),
    ("a Welcome is missing", |m, c| c.delete(Welcome, message(&m.ids[0])), |m| vec![found(PointerWithoutBody, "inbox", bobs(m, 1))]),
    ("a message from the future", |_, c| c.put(Message, message(&old(NOW_MS + 2 * HOUR_MS)), &keyless()), |_| vec![found(Time, "message", message(&old(NOW_MS + 2 * HOUR_MS))), found(KeyMissing, "keys", "")]),
    ("a Welcome from the future", |_, c| c.raw(Welcome, message(&old(NOW_MS + 2 * HOUR_MS)), b"\x01a Welcome"), |_| vec![found(Time, "welcome", message(&old(NOW_MS + 2 * HOUR_MS)))]),
    ("a commit from the future", |_, c| c.edit(Commit, key::commit(&TALK, 1), |commit: &mut CommitRecord| commit.time_ms = NOW_MS + 2 * HOUR_MS), |_| vec![found(Time, "commit", key::commit(&TALK, 1))]),
];

#[test]
fn every_fault_of_a_record_is_found_by_kind_place_and_key_and_nothing_else_is() {
    let made = Made::new();
    for (name, harm, finds) in FAULTS {
        let harmed = made.copy();
        harmed.change(|changes| harm(&made, changes));
        let report = harmed.check_at(NOW_MS);
        let mut expected = finds(&made);
        expected.sort();
        assert_eq!(all_found(&report), expected, "{name}: {report:#?}");
        assert!(!report.clean && report.findings.iter().all(|finding| !finding.what.is_empty()), "{name}");
    }
}

#[test]
fn a_key_that_is_none_of_its_family_is_found_in_each() {
    let made = Made::new();
    let families = [
        Inbox,
        Message,
        Welcome,
        Heads,
        Cursors,
        Family::Sent,
        Family::DeviceLog,
        Commit,
        Conversation,
        KeyPackage,
        Push,
        Code,
    ]
    .into_iter();
    for family in families {
        let harmed = made.copy();
        harmed.change(|changes| changes.raw(family, b"short", b"?"));
        assert_eq!(all_found(&harmed.check_at(NOW_MS)), [found(Record, family.name(), b"short")], "{}", family.name());
    }
}

#[test]
fn a_record_that_does_not_read_is_found_in_each_family() {
    let made = Made::new();
    let (alice, talk) = (&made.alice, |tag| key::conversation(&TALK, tag));
    let unreadable = [
        (Inbox, key::inbox(&STRANGER, 1)),
        (Message, message(&old(NOW_MS))),
        (Welcome, message(&old(NOW_MS))),
        (Cursors, alice.cursor()),
        (Cursors, key::cursor(&alice.account, &alice.device, CursorTag::SenderWindow)),
        (Family::Sent, key::sent(&alice.account, &alice.device, 1)),
        (Cursors, key::cursor(&alice.account, &alice.device, CursorTag::LastResort)),
        (Cursors, key::cursor(&alice.account, &alice.device, CursorTag::Life)),
        (Cursors, alice.seen()),
        (Family::DeviceLog, key::device_log(&alice.account, 1)),
        (Commit, key::commit(&TALK, 1)),
        (Conversation, talk(Tag::Epoch)),
        (Conversation, talk(Tag::Number)),
        (Conversation, talk(Tag::GroupInfo)),
        (Conversation, talk(Tag::Tree)),
        (KeyPackage, package_key(&alice.account, &alice.device)),
        (Names, key::pair(&alice.account, &made.bob.account)),
        (Names, alice.recovery()),
        (Names, key::number(&NUMBER)),
        (Names, key::phone_of(&alice.account)),
        (Names, key::lock_of(&alice.account)),
        (Names, key::relation(&alice.account, &made.bob.account)),
        (Names, key::preference(&alice.account, &TALK)),
        (Push, key::push_target(&alice.account, &alice.device)),
        (Code, key::code(&NUMBER)),
        (Code, key::spent(1)),
    ];
    for (family, record_key) in unreadable {
        let harmed = made.copy();
        harmed.change(|changes| changes.raw(family, record_key, b"?"));
        let report = harmed.check_at(NOW_MS);
        assert_eq!(all_found(&report), [found(Record, family.name(), record_key)], "{report:#?}");
    }
}

#[test]
fn a_sealed_body_that_is_no_envelope_is_found() {
    let made = Made::new();
    let harmed = made.copy();
    let (keyring, _) = Keyring::inspect(&harmed.path.join("keys"), None, RETENTION_MS).unwrap();
    let id = made.ids[4];
    let sealed = keyring.seal(&id, b"no envelope").unwrap();
    harmed.change(|changes| changes.put(Message, message(&id), &sealed));
    assert_eq!(all_found(&harmed.check_at(NOW_MS)), [found(Body, "message", message(&id))]);
}

#[test]
fn what_waits_behind_positions_that_have_expired_is_missed_as_well() {
    let made = Made::new();
    let harmed = made.copy();
    harmed.change(|changes| loses(&made, changes, [4]));
    let mut report = harmed.check_at(START_MS + RETENTION_MS + HOUR_MS);
    report.findings.retain(|finding| finding.kind != KeyPastItsTime);
    assert_eq!(all_found(&report), lost(&made, [3], &[]), "{report:#?}");
}

#[test]
fn a_conversation_that_is_gone_is_missed_by_all_that_belongs_to_it() {
    let made = Made::new();
    let harmed = made.copy();
    harmed.change(|changes| {
        for tag in [Tag::Epoch, Tag::GroupInfo, Tag::Head, Tag::Number, Tag::Tree] {
            changes.delete(Conversation, key::conversation(&TALK, tag));
        }
    });
    // The first is the Welcome.
    let of_messages = made.ids.iter().skip(1).map(|id| found(Orphan, "message", message(id)));
    let people = [&made.alice, &made.bob].map(|person| key::membership(&person.account, &TALK));
    let pair = key::pair(&made.alice.account, &made.bob.account);
    let of_names = people.into_iter().chain([pair]).map(|name| found(Directory, "directory", name));
    let mut expected: Vec<_> = of_messages.chain(of_names).collect();
    expected.push(found(Epoch, "conversation", head_key()));
    expected.sort();
    assert_eq!(all_found(&harmed.check_at(NOW_MS)), expected);
}

#[test]
fn without_keys_what_a_device_has_sent_says_which_messages_lost_their_place() {
    let made = Made::new();
    let harmed = made.copy();
    harmed.remove("keys");
    harmed.change(|changes| {
        ages(changes);
        loses(&made, changes, 3..=6);
    });
    let hole = (Sequence, "inbox", inbox_head(&made.bob.account));
    let mut expected = lost(&made, [2, 3, 4], &[the_commit(), hole]);
    expected.sort();
    assert_eq!(all_found(&harmed.check_at(NOW_MS)), expected);
}

#[test]
fn without_keys_a_message_may_have_gone_to_any_conversation_that_there_was() {
    let made = Made::new();
    let hole = (Sequence, "inbox", inbox_head(&made.bob.account));
    // Alice has another conversation, in which nothing is lost: older than her messages, and younger.
    for (created_ms, messages) in [(PAST_MS, [].as_slice()), (NOW_MS, [2, 3, 4].as_slice())] {
        let harmed = made.copy();
        harmed.remove("keys");
        harmed.change(|changes| {
            ages(changes);
            loses(&made, changes, 3..=6);
            let mut head: ConversationHead = changes.get(Conversation, head_key());
            head.created_ms = created_ms;
            head.members.retain(|member| member.account == made.alice.account);
            head.members.push(Member { account: STRANGER, device: ODD, leaf: 1 });
            changes.put(Conversation, key::conversation(&ELSEWHERE, Tag::Head), &head);
            for tag in [Tag::GroupInfo, Tag::Tree] {
                changes.raw(Conversation, key::conversation(&ELSEWHERE, tag), b"\x01part");
            }
            for account in [&made.alice.account, &STRANGER] {
                changes.put(Names, key::membership(account, &ELSEWHERE), &());
            }
        });
        let mut expected = lost(&made, messages.iter().copied(), &[the_commit(), hole]);
        expected.sort();
        let report = harmed.check_at(NOW_MS);
        assert_eq!(all_found(&report), expected, "{created_ms}: {report:#?}");
    }
}

/// What looks like a loss, and when it is looked at: all of it may be.
#[rustfmt::skip]
const SOUND: &[(&str, Harm, u64)] = &[
    ("nothing was done", |_, _| {}, NOW_MS),
    ("the pointers of what was taken were compacted, and the bodies lie there", |m, c| loses(m, c, 1..=2), NOW_MS),
    ("all was taken and compacted", |m, c| { c.put(Cursors, m.bob.cursor(), &Cursor { seq: 6, count: 4 }); loses(m, c, 1..=6); }, NOW_MS),
    ("a device says another count than it took", |m, c| c.put(Cursors, m.bob.cursor(), &Cursor { seq: 2, count: 0 }), NOW_MS),
    ("the inbox was over its bound", |m, c| { c.edit(Heads, inbox_head(&m.bob.account), |head: &mut InboxHead| (head.overflow.seq, head.overflow.count) = (4, 3)); loses(m, c, 1..=4); }, NOW_MS),
    ("a restore began a new life", |m, c| c.edit(Heads, inbox_head(&m.bob.account), |head: &mut InboxHead| { head.seq = next_life(head.seq); head.floor = head.last(); }), NOW_MS),
    ("a restore, after all was taken and compacted", |m, c| { c.put(Cursors, m.bob.cursor(), &Cursor { seq: 6, count: 4 }); loses(m, c, 1..=6); c.edit(Heads, inbox_head(&m.bob.account), |head: &mut InboxHead| { head.seq = next_life(head.seq); head.floor = head.last(); }); }, NOW_MS),
    ("a Welcome's pointer, which lives as long as commits", |m, c| { moves(m, c, 1, PAST_MS); c.raw(Welcome, message(&old(PAST_MS)), b"\x01a Welcome"); }, NOW_MS),
    ("what expired has left the inbox, and not yet the messages", |m, c| loses(m, c, 1..=3), START_MS + RETENTION_MS + HOUR_MS),
    ("what expired has left the messages, and not yet the inbox", |m, c| (0..=2).for_each(|index| c.delete(Message, message(&m.ids[index]))), START_MS + RETENTION_MS + HOUR_MS),
    ("everything has expired, and the inbox is empty", |m, c| loses(m, c, 1..=6), START_MS + 2 * DAY_MS + RETENTION_MS + HOUR_MS),
    ("a commit and a Welcome have expired, and are to be dropped next", |_, c| { c.edit(Commit, key::commit(&TALK, 1), |commit: &mut CommitRecord| commit.time_ms = NOW_MS - 12 * RETENTION_MS); c.raw(Welcome, message(&old(NOW_MS - 12 * RETENTION_MS)), b"\x01a Welcome"); }, NOW_MS),
    ("no commit has been made since epochs stand by themselves", |_, c| c.delete(Conversation, epoch_key()), NOW_MS),
    ("somebody who is no longer in some conversation", |m, c| c.put(Names, key::left(&m.bob.account), &START_MS), NOW_MS),
    ("somebody who was deleted while messages waited", |m, c| { c.put(Names, key::gone(&m.bob.account), &START_MS); c.delete(Cursors, m.bob.cursor()); c.delete(KeyPackage, package_key(&m.bob.account, &m.bob.device)); }, NOW_MS),
    ("somebody with a number, a lock, decisions, a target and a code", lives, NOW_MS),
    ("an account whose number has moved to another", |m, c| c.put(Names, key::phone_of(&m.bob.account), &phone(None)), NOW_MS),
    ("a decision about somebody who was deleted", |m, c| { ends(m, c); c.put(Names, key::relation(&m.alice.account, &m.bob.account), &Relation::Blocked); }, NOW_MS),
    ("the handle of somebody who was deleted has moved with the number", |m, c| { ends(m, c); c.put(Names, key::handle("bob"), &m.alice.account); c.put(Names, key::handle_of(&m.alice.account), &"bob".to_owned()); c.delete(Names, key::handle("alice")); }, NOW_MS),
    ("a code that ended lately", |_, c| c.put(Code, key::code(&NUMBER), &code(NOW_MS - DAY_MS)), NOW_MS),
    ("the use of an invite that has not ended", |_, c| c.edit(Registration, INVITE.as_bytes(), |invite: &mut InviteRecord| invite.expires_ms = NOW_MS - DAY_MS), NOW_MS),
];

#[test]
fn what_was_taken_has_expired_or_overflowed_is_no_fault() {
    let made = Made::new();
    for (name, harm, now_ms) in SOUND {
        let harmed = made.copy();
        harmed.change(|changes| harm(&made, changes));
        let mut report = harmed.check_at(*now_ms);
        // What of the first day is there still, and its keys, are another matter.
        let may_be = |kind: Kind| *now_ms > NOW_MS && (kind == KeyPastItsTime || kind == Expired);
        report.findings.retain(|finding| !may_be(finding.kind));
        assert_eq!(all_found(&report), [], "{name}: {report:#?}");
    }
}
