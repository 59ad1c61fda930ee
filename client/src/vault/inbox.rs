//! The inbox: each entry is decrypted, kept, and passed by the cursor in one transaction, exactly once.

use gureum_proto::{
    AccountId, ConversationId, DeliveryFrame, Envelope, EnvelopeBody, Gap, GapReason, Position, SharedEnvelope,
};
use rusqlite::params;

use super::commits::{Outcome, take_commit};
use super::history::{GAP, TEXT, UNREADABLE, reason_number};
use super::judge::{Joining, Judging};
use super::leaves::take_leave;
use super::work::{Commits, Row, Work};
use super::{
    ConversationStatus, Event, GroupChange, Message, Need, Removals, StoredEvent, Taken, Vault, VaultError, restart,
};
use crate::e2ee::content::Content;
use crate::e2ee::{JoinError, MessageError};
use crate::limits::TAKE_FRAMES_MAX;

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
            Ok(taken)
        })
    }
}

impl Vault {
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
    let sql =
        "SELECT count(*), ifnull(sum(c.kind = 0), 0) FROM to_remove r JOIN conversation c ON c.id = r.conversation";
    let count = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    Ok(match work.connection.prepare_cached(sql)?.query_row([], count)? {
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
    if first > expected {
        return Err(VaultError::Hole { expected, got: first });
    }
    if to.seq >= expected {
        let entry = match frame {
            DeliveryFrame::Envelope(envelope) => take_envelope(work, envelope, taken)?,
            DeliveryFrame::Gap(gap) => Entry::Done(take_gap(work, gap)?),
            DeliveryFrame::CaughtUp { .. } => Entry::Done(Vec::new()),
        };
        if let Entry::Blocked(_) = entry {
            return Ok(entry);
        }
        *cursor = to;
        taken.ack = Some(to);
        return Ok(entry);
    }
    // Another process, or this one before a crash, has taken it: the ack may not go past what this connection brought.
    taken.ack = Some(to);
    Ok(Entry::Done(Vec::new()))
}

fn take_envelope(work: &mut Work<'_>, envelope: &Envelope, taken: &mut Taken) -> Result<Entry, VaultError> {
    let shared = &envelope.shared;
    match &shared.body {
        EnvelopeBody::Message { number, ciphertext } => {
            take_message(work, shared, envelope.position.seq, *number, ciphertext)
        }
        EnvelopeBody::Commit { epoch, commit } => take_commit_entry(work, shared.conversation, *epoch, commit),
        EnvelopeBody::Welcome(welcome) => take_welcome(work, shared.conversation, welcome, taken),
        EnvelopeBody::LogChange { log_entries } => take_log_change(work, shared.sender_account, *log_entries),
        EnvelopeBody::Leave(signed) => take_leave(work, shared, signed),
    }
}

fn take_message(
    work: &mut Work<'_>,
    shared: &SharedEnvelope,
    seq: u64,
    number: u64,
    ciphertext: &[u8],
) -> Result<Entry, VaultError> {
    if work.is_self(shared.sender_device) {
        return Ok(Entry::Done(Vec::new()));
    }
    let id = shared.conversation;
    let row = work.row(id)?;
    let Some(mut group) = work.group(id)? else {
        let waits_for_nothing = work.asked.is_given_up(id) || row.is_some_and(|row| row.is_stopped());
        let need = if waits_for_nothing { None } else { work.need_rejoin(id)? };
        return match need {
            Some(need) => Ok(Entry::Blocked(need)),
            None => unreadable(work, shared, seq, number, "this device is not in the conversation"),
        };
    };
    let opened = work.mls().open(&mut group, ciphertext);
    let epoch = group.epoch();
    work.keep(id, group);
    let (sender, plaintext) = match opened {
        Ok(opened) => opened,
        Err(MessageError::Mls(error)) => return Err(error.into()),
        Err(MessageError::Unreadable { why, epoch }) => {
            return match epoch {
                Some(epoch) if work.was_for_siblings(id, epoch)? => Ok(Entry::Done(Vec::new())),
                _ => unreadable(work, shared, seq, number, &why),
            };
        }
        Err(MessageError::Ahead) => {
            let stopped = row.is_none_or(|row| row.is_stopped());
            return match ahead(work, id, epoch, stopped)? {
                Some(need) => Ok(Entry::Blocked(need)),
                None => unreadable(work, shared, seq, number, "it is of an epoch that this device cannot reach"),
            };
        }
    };
    let content = match Content::parse(&plaintext) {
        Ok(content) => content,
        Err(why) => return unreadable(work, shared, seq, number, &why.to_string()),
    };
    let (peer, group) = row.map_or((Some(sender.account), None), |row| (row.peer, row.name));
    let message = Message {
        conversation: id,
        peer,
        group,
        from: sender.account,
        from_handle: work.handle(sender.account)?,
        device: sender.device,
        own: sender.account == work.identity.account,
        text: content.text,
        message_id: Some(shared.message_id),
        server_time_ms: shared.message_id.time_ms(),
        number,
        seq: Some(seq),
    };
    keep_message(work, message, content.id).map(|event| Entry::Done(event.into_iter().collect()))
}

/// What a message of a later epoch waits for; `None`: nothing will bring this device there.
fn ahead(work: &mut Work<'_>, id: ConversationId, epoch: u64, stopped: bool) -> Result<Option<Need>, VaultError> {
    if stopped {
        return Ok(None);
    }
    match work.asked.commits(id) {
        None | Some(Commits::Asked) => {
            work.asked.note_commits(id, Commits::Asked);
            Ok(Some(Need::Commits { conversation: id, from_epoch: epoch }))
        }
        Some(Commits::UpToDate) => {
            work.asked.forget_commits(id);
            Ok(None)
        }
        Some(Commits::Insufficient) => work.need_rejoin(id),
        Some(Commits::GivenUp) => Ok(None),
    }
}

/// Keeps a message unless it is there already: its sender's own id tells, whatever the server numbers it.
fn keep_message(work: &Work<'_>, message: Message, content_id: [u8; 16]) -> Result<Option<StoredEvent>, VaultError> {
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
    work.message_event(row, Event::Message(message)).map(Some)
}

fn unreadable(work: &Work<'_>, shared: &SharedEnvelope, seq: u64, number: u64, why: &str) -> Result<Entry, VaultError> {
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
    let event = work.event(Event::Unreadable { conversation, number, message_id, why: why.to_owned() })?;
    Ok(Entry::Done(vec![event]))
}

fn take_commit_entry(
    work: &mut Work<'_>,
    conversation: ConversationId,
    epoch: u64,
    commit: &[u8],
) -> Result<Entry, VaultError> {
    let done = Ok(Entry::Done(Vec::new()));
    // Without a group there is nothing to bring forward: a Welcome or a rejoin comes in at the current epoch.
    let Some(row) = work.row(conversation)?.filter(|row| row.epoch > 0) else { return done };
    if epoch < row.epoch || row.is_stopped() {
        return done;
    }
    if epoch > row.epoch {
        return match ahead(work, conversation, row.epoch, false)? {
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
        Outcome::Stopped(event) => Ok(Entry::Done(vec![event])),
        Outcome::Invalid(why) => {
            let event = work.event(Event::CommitRefused { conversation, why, stopped: false })?;
            Ok(Entry::Done(vec![event]))
        }
    }
}

fn take_welcome(
    work: &mut Work<'_>,
    conversation: ConversationId,
    welcome: &[u8],
    taken: &mut Taken,
) -> Result<Entry, VaultError> {
    let row = work.row(conversation)?;
    // Where the server has gone back, it brings nobody back either; nor where this account has left.
    let is_over = |row: &Row| row.is_ahead() || row.state == ConversationStatus::Left;
    let current = row.as_ref().map(|row| if is_over(row) { row.epoch_seen } else { row.epoch });
    let current = current.filter(|epoch| *epoch > 0);
    let refused = |work: &Work<'_>, why: String| {
        let event =
            work.event(Event::CommitRefused { conversation, why: format!("a welcome: {why}"), stopped: false })?;
        Ok(Entry::Done(vec![event]))
    };
    let join = match work.mls().open_welcome(conversation, welcome, current) {
        Ok(Some(join)) => join,
        Ok(None) => {
            taken.unlisted |= row.is_none();
            return Ok(Entry::Done(Vec::new()));
        }
        Err(JoinError::Invalid(why)) => return refused(work, why),
        Err(JoinError::Mls(error)) => return Err(error.into()),
    };
    let joining = match work.judge_joining(Judging::Accepted(conversation), row.as_ref(), &join.view)? {
        Joining::Into(row) => row,
        Joining::Needs(need) => return Ok(Entry::Blocked(need)),
        Joining::Refused(why) => return refused(work, why),
    };
    let group = work.mls().join(join)?;
    let (epoch, leaves) = (group.epoch(), group.leaves());
    work.note_group(conversation, &leaves)?;
    work.groups.remove(&conversation);
    work.keep(conversation, group);
    let row = Row { state: ConversationStatus::Active, epoch, epoch_seen: epoch, ..joining };
    work.put_row(&row)?;
    work.note_joined(conversation, epoch)?;
    work.asked.forget_commits(conversation);
    let event = match row.peer {
        Some(peer) => {
            restart::replace(work, peer, conversation)?;
            work.event(Event::Joined { conversation, peer })?
        }
        None => {
            work.plan_renewal(conversation, leaves.len())?;
            let who = vec![work.identity.handle.to_string()];
            // Who has added it, the server alone says.
            work.tell_group(&row, GroupChange::Joined, None, who)?
        }
    };
    Ok(Entry::Done(vec![event]))
}

fn take_log_change(work: &mut Work<'_>, account: AccountId, log_entries: u64) -> Result<Entry, VaultError> {
    let known = work.log(account)?.map(|log| log.length());
    match known {
        Some(length) if length < log_entries => Ok(match work.asked.log(account, length) {
            Some(need) => Entry::Blocked(need),
            None => Entry::Done(Vec::new()),
        }),
        _ => Ok(Entry::Done(Vec::new())),
    }
}

fn take_gap(work: &Work<'_>, gap: &Gap) -> Result<Vec<StoredEvent>, VaultError> {
    // After a restore nobody knows how many are gone: none that is known may be some.
    if gap.missed == 0 && gap.reason != GapReason::Lost {
        return Ok(Vec::new());
    }
    // It stands right after what came before it, and so before what comes now, which may be days old itself.
    let sql = "INSERT INTO message (kind, time_ms, number, seq, to_seq, count, reason)
               SELECT ?1, ifnull(max(time_ms), 0), ?2, ?3, ?4, ?5, ?6 FROM message WHERE seq IS NOT NULL";
    work.connection
        .execute(sql, params![GAP, i64::MAX, gap.from_seq, gap.to.seq, gap.missed, reason_number(gap.reason)])?;
    let event = Event::Gap { from_seq: gap.from_seq, to_seq: gap.to.seq, count: gap.missed, reason: gap.reason };
    Ok(vec![work.event(event)?])
}
