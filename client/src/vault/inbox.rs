//! The inbox: each entry is decrypted, kept, and passed by the cursor in one transaction, exactly once.

use gureum_proto::{
    AccountId, ConversationId, DeliveryFrame, Envelope, EnvelopeBody, Gap, GapReason, LeafIdentity, Position,
    SharedEnvelope,
};
use rusqlite::params;

use super::commits::{Outcome, take_commit};
use super::handed_over::take_part;
use super::history::{GAP, TEXT, UNREADABLE, reason_number};
use super::in_step::take_records;
use super::leaves::take_leave;
use super::outbox::KIND_TEXT;
use super::receipts::{owe_delivered, take_receipt};
use super::welcome::take_welcome;
use super::work::{ACTIVE, Commits, Work, held_log};
use super::{Event, Message, Need, Removals, StoredEvent, Taken, Vault, VaultError};
use crate::e2ee::MessageError;
use crate::e2ee::content::{Body, Content, ContentError};
use crate::limits::TAKE_FRAMES_MAX;

/// The epoch in which a conversation begins.
pub(super) const FIRST_EPOCH: u64 = 1;

/// What became of one entry.
pub(super) enum Entry {
    /// It is dealt with.
    Done(Vec<StoredEvent>),
    /// Something must be fetched first.
    Blocked(Need),
}

impl Vault {
    /// Takes deliveries, at most 256 in one transaction: call again with the rest. With `need` set, the frame at
    /// `frames` waits for it, and the cursor stands before it.
    ///
    /// # Errors
    /// The database failed, or positions are missing; then nothing of this call is kept.
    pub fn take(&mut self, frames: &[DeliveryFrame]) -> Result<Taken, VaultError> {
        self.write(|work| {
            let mut taken = Taken::default();
            let start = work.cursor()?;
            let mut cursor = start;
            for frame in frames.iter().take(TAKE_FRAMES_MAX) {
                let entry = work.step(|work| {
                    let entry = take_frame(work, frame, &mut cursor, &mut taken)?;
                    let keeps = matches!(entry, Entry::Done(_));
                    Ok::<_, VaultError>((entry, keeps))
                })?;
                match entry {
                    Entry::Done(events) => {
                        work.asked.entry_done();
                        taken.events.extend(events);
                    }
                    Entry::Blocked(need) => {
                        taken.need = Some(need);
                        break;
                    }
                }
                taken.frames += 1;
            }
            if cursor != start {
                work.put_cursor(cursor)?;
            }
            taken.removals = removals(work)?;
            let sql = "SELECT EXISTS (SELECT 1 FROM hole)";
            taken.holes = work.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
            taken.owes_records = work.owes_records()?;
            taken.owes_history = work.owes_history()?;
            Ok(taken)
        })
    }
}

impl Vault {
    /// How far the inbox is taken, by whichever process of this home.
    ///
    /// # Errors
    /// The database failed.
    pub(crate) fn taken_seq(&mut self) -> Result<u64, VaultError> {
        self.write(|work| Ok(work.cursor()?.seq))
    }

    /// What was asked for cannot be had now: what waits for it is passed, as unreadable or refused, and holds up nothing
    /// else. [`Self::behind`] names what is to be tried again.
    pub fn give_up(&mut self, need: Need) {
        match need {
            Need::Account { account, .. } => self.asked.account_answered(account, false),
            Need::Commits { conversation, .. } | Need::Rejoin { conversation } => {
                self.asked.note_commits(conversation, Commits::GivenUp);
            }
            // Each log is then asked for by itself; and nothing that comes waits for a removal.
            Need::Members { .. } | Need::Removal { .. } => {}
        }
    }
}

fn removals(work: &Work<'_>) -> Result<Removals, VaultError> {
    // As in [`Vault::removals_due`]: what a device has left is for others to remove.
    let sql = format!(
        "SELECT count(*), ifnull(sum(c.kind != 1), 0) FROM to_remove r JOIN conversation c ON c.id = r.conversation
         WHERE c.state = {ACTIVE} AND c.must_rejoin = 0"
    );
    let count = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    Ok(match work.connection.prepare_cached(&sql)?.query_row([], count)? {
        (0_u64, _) => Removals::Nothing,
        (_, 0_u64) => Removals::FromGroups,
        _ => Removals::FromPairs,
    })
}

fn take_frame(
    work: &mut Work<'_>,
    frame: &DeliveryFrame,
    cursor: &mut Position,
    taken: &mut Taken,
) -> Result<Entry, VaultError> {
    let (first, to) = match frame {
        DeliveryFrame::Envelope(envelope) => (envelope.position.seq, envelope.position),
        DeliveryFrame::Gap(gap) => (gap.from_seq, gap.to),
        DeliveryFrame::CaughtUp { .. } => {
            taken.caught_up = true;
            return Ok(Entry::Done(Vec::new()));
        }
    };
    let expected = cursor.seq.saturating_add(1);
    // A linked device's inbox begins where its account's inbox stood then, which the first delivery tells.
    let begins = cursor.seq == 0 && work.identity.log_entry > 0;
    let is_missing = first > expected && !begins;
    let mut events = if is_missing { take_missing(work, frame, first, *cursor)? } else { Vec::new() };
    if to.seq >= expected {
        let entry = match frame {
            DeliveryFrame::Envelope(envelope) => take_envelope(work, envelope, taken)?,
            DeliveryFrame::Gap(gap) => Entry::Done(take_gap(work, gap)?),
            DeliveryFrame::CaughtUp { .. } => Entry::Done(Vec::new()),
        };
        match entry {
            Entry::Blocked(_) => return Ok(entry),
            Entry::Done(more) => events.extend(more),
        }
        *cursor = to;
        taken.ack = Some(to);
        return Ok(Entry::Done(events));
    }
    // Another process, or this one before a crash, has taken it: the ack may not go past what this connection brought.
    taken.ack = Some(to);
    Ok(Entry::Done(Vec::new()))
}

/// A device that has taken nothing is delivered from where its newest state had come to: an older copy of it misses what
/// that one has taken. Anywhere else a hole is an error.
fn take_missing(
    work: &Work<'_>,
    frame: &DeliveryFrame,
    first: u64,
    cursor: Position,
) -> Result<Vec<StoredEvent>, VaultError> {
    let seq = first.saturating_sub(1);
    if cursor.seq > 0 || !work.is_from_before_restore(seq)? {
        return Err(VaultError::Hole { expected: cursor.seq.saturating_add(1), got: first });
    }
    let missed = match frame {
        DeliveryFrame::Envelope(envelope) => {
            let counts = matches!(envelope.shared.body, EnvelopeBody::Message { .. });
            envelope.position.count.saturating_sub(u64::from(counts))
        }
        DeliveryFrame::Gap(gap) => gap.to.count.saturating_sub(gap.missed),
        DeliveryFrame::CaughtUp { .. } => 0,
    };
    let to = Position { seq, count: missed };
    take_gap(work, &Gap { from_seq: 1, to, missed, reason: GapReason::Expired })
}

fn take_envelope(work: &mut Work<'_>, envelope: &Envelope, taken: &mut Taken) -> Result<Entry, VaultError> {
    let shared = &envelope.shared;
    match &shared.body {
        EnvelopeBody::Message { number, ciphertext } => {
            take_message(work, shared, envelope.position.seq, *number, ciphertext)
        }
        EnvelopeBody::Silent(ciphertext) => take_silent(work, shared, ciphertext, taken),
        EnvelopeBody::Commit { epoch, commit } => {
            take_commit_entry(work, (shared, envelope.position.seq), *epoch, commit, taken)
        }
        EnvelopeBody::Welcome(welcome) => take_welcome(work, shared.conversation, welcome, taken),
        EnvelopeBody::LogChange { log_entries } => take_log_change(work, shared.sender_account, *log_entries),
        EnvelopeBody::Leave(signed) => take_leave(work, shared, signed),
    }
}

/// What became of a ciphertext.
enum Opened {
    /// A member has said this in it.
    Said(LeafIdentity, Vec<u8>),
    /// It is not for this device.
    Passed,
    /// Something must be fetched first.
    Blocked(Need),
    /// It cannot be read, for this reason.
    Unreadable(String),
}

fn open(work: &mut Work<'_>, shared: &SharedEnvelope, ciphertext: &[u8]) -> Result<Opened, VaultError> {
    if work.is_self(shared.sender_device) {
        return Ok(Opened::Passed);
    }
    let id = shared.conversation;
    let row = work.row(id)?;
    let Some(mut group) = work.group(id)? else {
        let waits_for_nothing = work.asked.is_given_up(id) || row.is_some_and(|row| row.is_stopped());
        let need = if waits_for_nothing { None } else { work.need_rejoin(id)? };
        let unreadable = || Opened::Unreadable("this device is not in the conversation".to_owned());
        return Ok(need.map_or_else(unreadable, Opened::Blocked));
    };
    let opened = work.mls().open(&mut group, ciphertext);
    let epoch = group.epoch();
    work.keep(id, group);
    match opened {
        Ok((sender, plaintext)) => {
            work.asked.opened(id);
            Ok(Opened::Said(sender, plaintext))
        }
        Err(MessageError::Mls(error)) => Err(error.into()),
        Err(MessageError::Broken { why }) => {
            let is_broken = work.asked.unopened(id);
            let waits_for_nothing = work.asked.is_given_up(id) || row.is_some_and(|row| row.is_stopped());
            let need = if is_broken && !waits_for_nothing { work.need_rejoin(id)? } else { None };
            Ok(need.map_or(Opened::Unreadable(why), Opened::Blocked))
        }
        Err(MessageError::Unreadable { why, epoch }) => Ok(match epoch {
            Some(epoch) if work.was_for_others(id, epoch)? => Opened::Passed,
            _ => Opened::Unreadable(why),
        }),
        Err(MessageError::Ahead { epoch: wanted }) => {
            let stopped = row.is_none_or(|row| row.is_stopped());
            let unreadable = || Opened::Unreadable("it is of an epoch that this device cannot reach".to_owned());
            Ok(ahead(work, id, (epoch, wanted), stopped)?.map_or_else(unreadable, Opened::Blocked))
        }
    }
}

fn take_message(
    work: &mut Work<'_>,
    shared: &SharedEnvelope,
    seq: u64,
    number: u64,
    ciphertext: &[u8],
) -> Result<Entry, VaultError> {
    let id = shared.conversation;
    if work.is_self(shared.sender_device) {
        work.note_number(id, number, true)?;
        return take_own(work, shared, seq);
    }
    let (sender, plaintext) = match open(work, shared, ciphertext)? {
        Opened::Said(sender, plaintext) => (sender, plaintext),
        Opened::Passed => {
            work.note_number(id, number, false)?;
            return Ok(Entry::Done(Vec::new()));
        }
        Opened::Blocked(need) => return Ok(Entry::Blocked(need)),
        Opened::Unreadable(why) => {
            work.note_number(id, number, false)?;
            return unreadable(work, shared, seq, number, &why);
        }
    };
    work.note_number(id, number, true)?;
    if work.is_blocked(sender.account)? {
        return Ok(Entry::Done(Vec::new()));
    }
    let (content_id, text) = match Content::parse(&plaintext) {
        Ok(Content { id, body: Body::Text(text) }) => (id, text),
        // What has a number is to be seen, and of this there is nothing to see.
        Ok(Content { body: Body::Receipt(_) | Body::Records(_) | Body::History(_), .. }) => {
            return unreadable(work, shared, seq, number, &ContentError::Unknown.to_string());
        }
        Err(why) => return unreadable(work, shared, seq, number, &why.to_string()),
    };
    let (peer, group) = work.row(id)?.map_or((Some(sender.account), None), |row| (row.peer, row.name));
    let message = Message {
        conversation: id,
        peer,
        group,
        from: sender.account,
        from_handle: work.handle(sender.account)?,
        device: sender.device,
        own: sender.account == work.identity.account,
        text,
        message_id: Some(shared.message_id),
        server_time_ms: shared.message_id.time_ms(),
        number,
        seq: Some(seq),
        request: work.is_request(id, sender.account)?,
        receipts: None,
    };
    keep_message(work, message, content_id).map(|event| Entry::Done(event.into_iter().collect()))
}

/// What is for programs alone. Nobody misses one that cannot be read, or is of a kind that is not known here; and what
/// people are to see does not come this way.
fn take_silent(
    work: &mut Work<'_>,
    shared: &SharedEnvelope,
    ciphertext: &[u8],
    taken: &mut Taken,
) -> Result<Entry, VaultError> {
    let id = shared.conversation;
    let done = Ok(Entry::Done(Vec::new()));
    let row = work.row(id)?;
    // It is no reason to join; but that of the own devices may have been made without this one.
    taken.unlisted |= row.is_none() && shared.sender_account == work.identity.account;
    let Some(row) = row.filter(|row| row.epoch > 0) else { return done };
    let (sender, plaintext) = match open(work, shared, ciphertext)? {
        Opened::Said(sender, plaintext) => (sender, plaintext),
        // It was said for an epoch before this device came in, and may be no part of what it has been told since.
        Opened::Passed if row.is_own() && !work.is_self(shared.sender_device) => {
            work.wish_for_all()?;
            return done;
        }
        Opened::Passed | Opened::Unreadable(_) => return done,
        Opened::Blocked(need) => return Ok(Entry::Blocked(need)),
    };
    match Content::parse(&plaintext) {
        Ok(Content { body: Body::Receipt(receipt), .. }) => {
            take_receipt(work, id, sender.account, &receipt, shared.message_id.time_ms()).map(Entry::Done)
        }
        // Whoever else says such a thing has no say in it.
        Ok(Content { body: Body::Records(records), .. }) if row.is_own() => {
            taken.owes_decisions = true;
            take_records(work, sender.device, records).map(Entry::Done)
        }
        Ok(Content { body: Body::History(part), .. }) if row.is_own() && sender.account == work.identity.account => {
            let event = take_part(work, sender.device, &part)?;
            Ok(Entry::Done(event.into_iter().collect()))
        }
        Ok(Content { body: Body::Text(_) | Body::Records(_) | Body::History(_), .. }) | Err(_) => done,
    }
}

/// What this device has sent is in its history, or waits in its outbox for the answer. What is in neither, a copy of this
/// home has sent.
fn take_own(work: &mut Work<'_>, shared: &SharedEnvelope, seq: u64) -> Result<Entry, VaultError> {
    let is_known = work.asked.has_told_of_a_copy || work.is_from_before_restore(seq)?;
    let copied = if is_known || is_own(work, shared)? { None } else { work.copied(shared.conversation)? };
    Ok(Entry::Done(copied.into_iter().collect()))
}

fn is_own(work: &Work<'_>, shared: &SharedEnvelope) -> Result<bool, VaultError> {
    let (conversation, message_id) = (shared.conversation.as_bytes(), shared.message_id);
    let sql = "SELECT EXISTS (SELECT 1 FROM message WHERE time_ms = ?1 AND message_id = ?2)";
    let row = params![message_id.time_ms(), message_id.as_bytes()];
    let is_kept: bool = work.connection.prepare_cached(sql)?.query_row(row, |row| row.get(0))?;
    if is_kept {
        return Ok(true);
    }
    // One of those may be it, or one whose acceptance is so old that its id is not known.
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM outbox WHERE conversation = ?1 AND kind = {KIND_TEXT}) OR EXISTS
         (SELECT 1 FROM message WHERE conversation = ?1 AND sender_device = ?2 AND message_id IS NULL)"
    );
    let row = params![conversation, shared.sender_device.as_bytes()];
    Ok(work.connection.prepare_cached(&sql)?.query_row(row, |row| row.get(0))?)
}

/// What an entry of a later epoch waits for; `None`: nothing will bring this device there. It goes no further than to that
/// epoch: keys are kept of the last few alone, and what follows in the inbox may be of any since then.
fn ahead(
    work: &mut Work<'_>,
    id: ConversationId,
    (held, wanted): (u64, u64),
    stopped: bool,
) -> Result<Option<Need>, VaultError> {
    if stopped {
        return Ok(None);
    }
    match work.asked.commits(id) {
        None | Some(Commits::Asked) => {
            work.asked.note_commits(id, Commits::Asked);
            Ok(Some(Need::Commits { conversation: id, from_epoch: held, to_epoch: Some(wanted) }))
        }
        Some(Commits::UpToDate) => {
            work.asked.forget_commits(id);
            Ok(None)
        }
        Some(Commits::Insufficient) => work.need_rejoin(id),
        Some(Commits::GivenUp) => Ok(None),
    }
}

/// Keeps a message unless it is there already: its sender's own id tells, whatever the server numbers it. What another device
/// of the account has handed over under that id gives way: only its word stands behind it.
fn keep_message(work: &Work<'_>, message: Message, content_id: [u8; 16]) -> Result<Option<StoredEvent>, VaultError> {
    let sql = format!(
        "DELETE FROM message WHERE conversation = ?1 AND sender_device = ?2 AND content_id = ?3 AND kind = {TEXT}
         AND seq IS NULL"
    );
    let id = params![message.conversation.as_bytes(), message.device.as_bytes(), content_id];
    work.connection.prepare_cached(&sql)?.execute(id)?;
    let sql = "INSERT OR IGNORE INTO message
               (kind, conversation, content_id, message_id, sender_account, sender_device, own, time_ms, number, seq,
               text)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let kept = work.connection.prepare_cached(sql)?.execute(params![
        TEXT,
        message.conversation.as_bytes(),
        content_id,
        message.message_id.map(|id| *id.as_bytes()),
        message.from.as_bytes(),
        message.device.as_bytes(),
        message.own,
        message.server_time_ms,
        message.number,
        message.seq,
        message.text,
    ])?;
    if kept == 0 {
        return Ok(None);
    }
    let row = work.connection.last_insert_rowid();
    if !message.own {
        owe_delivered(work, row)?;
    }
    work.message_event(row, Event::Message(message)).map(Some)
}

fn unreadable(work: &Work<'_>, shared: &SharedEnvelope, seq: u64, number: u64, why: &str) -> Result<Entry, VaultError> {
    if work.is_blocked(shared.sender_account)? {
        return Ok(Entry::Done(Vec::new()));
    }
    let sql = "INSERT INTO message
               (kind, conversation, message_id, sender_account, sender_device, time_ms, number, seq, text)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    work.connection.prepare_cached(sql)?.execute(params![
        UNREADABLE,
        shared.conversation.as_bytes(),
        shared.message_id.as_bytes(),
        shared.sender_account.as_bytes(),
        shared.sender_device.as_bytes(),
        shared.message_id.time_ms(),
        number,
        seq,
        why,
    ])?;
    let (conversation, message_id) = (shared.conversation, shared.message_id);
    let with = work.title_of(conversation)?;
    let event = work.event(Event::Unreadable { conversation, with, number, message_id, why: why.to_owned() })?;
    Ok(Entry::Done(vec![event]))
}

fn take_commit_entry(
    work: &mut Work<'_>,
    (shared, seq): (&SharedEnvelope, u64),
    epoch: u64,
    commit: &[u8],
    taken: &mut Taken,
) -> Result<Entry, VaultError> {
    let conversation = shared.conversation;
    let done = Ok(Entry::Done(Vec::new()));
    // Without a group there is nothing to bring forward: a Welcome or a rejoin comes in at the current epoch.
    let Some(row) = work.row(conversation)?.filter(|row| row.epoch > 0) else { return done };
    if epoch < row.epoch || row.is_stopped() {
        return done;
    }
    if epoch > row.epoch {
        return match ahead(work, conversation, (row.epoch, epoch), false)? {
            Some(need) => Ok(Entry::Blocked(need)),
            None => done,
        };
    }
    match take_commit(work, &row, commit)? {
        Outcome::Merged(events) => {
            work.asked.forget_commits(conversation);
            Ok(Entry::Done(events))
        }
        Outcome::Needs(need) => Ok(Entry::Blocked(need)),
        Outcome::Stopped(event) => {
            // One that is forgotten is looked for again.
            taken.unlisted |= work.row(conversation)?.is_none();
            Ok(Entry::Done(vec![*event]))
        }
        // By a copy of this home: without what that one has made for it, it cannot be taken here.
        Outcome::Invalid(_) if work.is_self(shared.sender_device) => {
            let copied = if work.is_from_before_restore(seq)? { None } else { work.copied(conversation)? };
            Ok(Entry::Done(copied.into_iter().collect()))
        }
        Outcome::Invalid(why) => {
            let with = work.title_of(conversation)?;
            let event = work.event(Event::CommitRefused { conversation, with, why, stopped: false })?;
            Ok(Entry::Done(vec![event]))
        }
    }
}

fn take_log_change(work: &mut Work<'_>, account: AccountId, log_entries: u64) -> Result<Entry, VaultError> {
    // Also one of which another device has seen more.
    let known = held_log(work.connection, account)?.map(|log| log.length());
    match known {
        Some(length) if length < log_entries => Ok(match work.asked.log(account, length) {
            Some(need) => Entry::Blocked(need),
            None => Entry::Done(Vec::new()),
        }),
        _ => Ok(Entry::Done(Vec::new())),
    }
}

fn take_gap(work: &Work<'_>, gap: &Gap) -> Result<Vec<StoredEvent>, VaultError> {
    // What the other devices have said may be among it, which is not counted.
    work.wish_for_all()?;
    // After a restore nobody knows how many are gone: none that is known may be some.
    match (gap.missed, gap.reason) {
        (_, GapReason::Lost) => work.forget_all_holes()?,
        (0, GapReason::Expired | GapReason::Overflow) => return Ok(Vec::new()),
        (_, GapReason::Expired | GapReason::Overflow) => work.forget_all_numbers()?,
    }
    // It stands right after what came before it, and so before what comes now, which may be days old itself.
    let sql = "INSERT INTO message (kind, time_ms, number, seq, to_seq, count, reason)
               SELECT ?1, ifnull(max(time_ms), 0), ?2, ?3, ?4, ?5, ?6 FROM message WHERE seq IS NOT NULL";
    work.connection
        .execute(sql, params![GAP, i64::MAX, gap.from_seq, gap.to.seq, gap.missed, reason_number(gap.reason)])?;
    let event = Event::Gap { from_seq: gap.from_seq, to_seq: gap.to.seq, count: gap.missed, reason: gap.reason };
    Ok(vec![work.event(event)?])
}
