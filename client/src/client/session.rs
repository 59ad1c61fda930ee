//! One connection's work: what comes is taken and acked, what waits is sent and settled.

mod behind;
mod commands;
mod groups;
mod outbox;
mod people;
mod push;
mod receipts;
mod typing;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gureum_proto::{ConversationId, DeliveryFrame, Notice, Ready};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::error::ClientError;
use super::event::ClientEvent;
use super::sync::{Left, Sync};
use crate::limits::{COMMANDS_MAX, DELIVERIES_AHEAD_MAX, HOLE_AGAIN, MEND_FIRST, MEND_MAX, NEED_REPEATS_MAX};
use crate::link::{LinkError, LinkEvent, LinkEvents};
use crate::vault::{Event, GroupChange, Need, OutboxId, Removals, StoredEvent, With};
use behind::Deferred;
use commands::Reply;
pub use commands::Revoked;
pub(crate) use commands::{Command, GroupReply};
use groups::Changing;
pub(crate) use receipts::mark_read;
use receipts::{Reading, asks_for_receipt};
use typing::Typings;
use upkeep::Refill;

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The caller is done.
    Quit,
    /// The server goes away for a while.
    Drain(Duration),
    /// Something failed.
    Failed(ClientError),
}

/// A message in the outbox whose sender waits.
struct Waiting {
    to: With,
    conversation: ConversationId,
    text: String,
    reply: Reply,
}

/// What kind of session a connection is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionKind {
    /// The inbox comes.
    pub(crate) subscribed: bool,
    /// There is no next connection: whoever waits is answered now.
    pub(crate) is_last: bool,
}

/// A connection at work.
pub(crate) struct Session<'a> {
    sync: Sync,
    events: LinkEvents,
    out: &'a mpsc::Sender<ClientEvent>,
    options: SessionKind,
    /// Something may have changed of which no inbox entry tells.
    must_compare: bool,
    /// The digest of the server's epochs when this connection began, where it was not this device's: what waits in the inbox
    /// may be all that it lacks.
    differs_from: Option<[u8; 32]>,
    /// The server has another push target of this device than is wanted here.
    push_differs: bool,
    /// Deliveries that have come and are not taken yet.
    ahead: Vec<DeliveryFrame>,
    caught_up: bool,
    /// The newest entry that the inbox had when this connection began; up to where it is taken, and since when.
    head_seq: u64,
    taken_seq: u64,
    moved_at: Instant,
    /// When to see how far another process has taken it.
    look_at: Option<Instant>,
    tidied: bool,
    /// Keys may be due to be renewed, which waits until it is told that the inbox is taken.
    may_renew: bool,
    caught_up_told: bool,
    /// Commands that wait until the inbox is taken.
    deferred: Deferred,
    /// The highest counter handed to this connection, and those of them without an answer.
    handed_over: u64,
    in_flight: BTreeSet<u64>,
    outbox_due: bool,
    outbox_again: Option<Instant>,
    /// Messages wait for the removal of a revoked device, which anything that comes may bring.
    held_up: bool,
    /// Keys that came with a KeyPackage may be yet to be renewed before anything is said by them, and where that was tried.
    may_owe_renewals: bool,
    renewed_first: BTreeSet<ConversationId>,
    join_at: Option<Instant>,
    /// When to remove revoked devices, and accounts that leave.
    remove_at: Option<Instant>,
    changing: Changing,
    /// When to try again what was refused, and how long between such attempts.
    mend_at: Option<Instant>,
    mend_wait: Backoff<StdRng>,
    upkeep_at: Instant,
    refill: Refill,
    /// When to send receipts, and who waits until those are sent that their reading has made.
    receipts_at: Option<Instant>,
    /// When to look whether messages that are missing are withheld.
    withheld_at: Option<Instant>,
    /// When to go on with a history that is handed over.
    history_at: Option<Instant>,
    /// When to tell the server what was decided about people.
    decisions_at: Option<Instant>,
    reads: Vec<Reading>,
    typings: Typings,
    /// The account has, or has had, other devices.
    has_siblings: bool,
    waiting: BTreeMap<OutboxId, Waiting>,
    /// Another process of this home has settled some of what this one sent.
    settled_elsewhere: bool,
    started: Instant,
    drain: Option<Duration>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        sync: Sync,
        events: LinkEvents,
        out: &'a mpsc::Sender<ClientEvent>,
        (ready, taken_seq): (&Ready, u64),
        begun: Left,
        options: SessionKind,
    ) -> Self {
        let mut session = Self {
            sync,
            events,
            out,
            options,
            must_compare: ready.epochs_differ && ready.epochs_digest.is_none(),
            differs_from: ready.epochs_digest.filter(|_| ready.epochs_differ),
            push_differs: ready.push_differs,
            ahead: Vec::new(),
            caught_up: false,
            head_seq: ready.head.seq,
            taken_seq,
            moved_at: Instant::now(),
            look_at: (!options.subscribed && taken_seq < ready.head.seq).then(Instant::now),
            tidied: false,
            may_renew: false,
            caught_up_told: false,
            deferred: Deferred::default(),
            handed_over: 0,
            in_flight: BTreeSet::new(),
            outbox_due: true,
            outbox_again: None,
            held_up: false,
            may_owe_renewals: true,
            renewed_first: BTreeSet::new(),
            join_at: None,
            remove_at: None,
            changing: Changing::default(),
            mend_at: None,
            mend_wait: Backoff::new(MEND_FIRST, MEND_MAX, StdRng::from_os_rng()),
            upkeep_at: Instant::now() + upkeep::wait(begun),
            refill: Refill::default(),
            receipts_at: None,
            withheld_at: None,
            history_at: None,
            // What was decided while there was no connection, once the inbox is taken.
            decisions_at: (!options.subscribed).then(Instant::now),
            reads: Vec::new(),
            typings: Typings::default(),
            has_siblings: ready.log_entries > 1,
            waiting: BTreeMap::new(),
            settled_elsewhere: false,
            started: Instant::now(),
            drain: None,
        };
        // What an earlier connection left undone is not to wait for an event.
        session.mend_later(begun.refused.unwrap_or_default());
        session
    }

    /// Works until the connection or the caller ends it, then closes. `decided` says that a person has changed what all their
    /// devices are to be told.
    pub(crate) async fn run(
        mut self,
        commands: &mut mpsc::Receiver<Command>,
        decided: &mut watch::Receiver<()>,
    ) -> End {
        let end = loop {
            match self.step(commands, decided).await {
                Ok(None) => (),
                Ok(Some(end)) => break end,
                Err(error) => break self.drain.map_or(End::Failed(error), End::Drain),
            }
        };
        if matches!(end, End::Quit)
            && let Err(error) = self.last_receipts().await
        {
            tracing::debug!(%error, "receipts wait for the next connection");
        }
        self.answer_reads();
        let why = || match &end {
            End::Failed(ClientError::Link(error)) => error.clone(),
            End::Drain(_) => LinkError::Lost("the server is stopping".to_owned()),
            _ => LinkError::Lost("it ended before the answer came".to_owned()),
        };
        // Who asked may have gone, here and wherever a reply is sent.
        for (_, Waiting { reply, .. }) in std::mem::take(&mut self.waiting) {
            let _ = reply.send(Err(ClientError::Kept(Box::new(why().into()))));
        }
        self.changing.keep_all(|| why().into());
        self.deferred.refuse_all(|| why().into());
        self.sync.link.close().await;
        end
    }

    async fn step(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        decided: &mut watch::Receiver<()>,
    ) -> Result<Option<End>, ClientError> {
        self.flush().await?;
        self.answer_settled_elsewhere().await?;
        self.tell_caught_up().await;
        if self.may_renew {
            self.renew_keys().await?;
        }
        self.answer_sent_reads();
        if let (Some(wait), true) = (self.drain, self.in_flight.is_empty()) {
            return Ok(Some(End::Drain(wait)));
        }
        self.refuse_what_waits();
        if let Some(command) = self.next_command() {
            self.on_command(command).await?;
            return Ok(None);
        }
        let (outbox_again, join_at, mend_at) = (self.outbox_again, self.join_at, self.mend_at);
        let changes_at = |at: Option<Instant>| at.filter(|_| !self.is_behind());
        let (remove_at, change_at) = (changes_at(self.remove_at), changes_at(self.changing.at));
        let (refill_at, receipts_at, withheld_at) = (self.refill.at(), self.receipts_at, self.withheld_at);
        let (history_at, decisions_at) = (self.history_at, self.decisions_at);
        let (look_at, waiting_until) = (self.look_at, self.waiting_until());
        // Answers and deliveries first: they make room. Then whoever wants something. Timers can wait.
        tokio::select! {
            biased;
            event = self.events.next() => self.on_event(event).await?,
            command = commands.recv(), if self.deferred.len() < COMMANDS_MAX => match command {
                Some(command) => self.deferred.push(command),
                None if self.deferred.is_empty() => return Ok(Some(End::Quit)),
                None => self.deferred.clear(),
            },
            Ok(()) = decided.changed() => self.tell_decided().await?,
            () = at(outbox_again) => {
                (self.outbox_again, self.outbox_due, self.handed_over) = (None, true, 0);
            }
            () = at(join_at) => self.join_absent().await?,
            () = at(remove_at) => self.remove_revoked().await?,
            () = at(change_at) => self.change_groups().await?,
            () = at(mend_at) => self.mend().await?,
            () = at(refill_at) => self.refill().await?,
            () = at(receipts_at) => self.send_receipts().await?,
            () = at(withheld_at) => self.tell_withheld().await?,
            () = at(history_at) => self.hand_over_history().await?,
            () = at(decisions_at) => self.tell_decisions().await?,
            () = tokio::time::sleep_until(self.upkeep_at) => self.upkeep().await?,
            () = at(look_at) => self.look_how_far().await?,
            () = at(waiting_until) => (),
        }
        Ok(None)
    }

    async fn on_event(&mut self, event: LinkEvent) -> Result<(), ClientError> {
        match event {
            LinkEvent::Delivery(frames) => {
                self.ahead.extend(frames);
                let mut other = None;
                while self.ahead.len() < DELIVERIES_AHEAD_MAX && other.is_none() {
                    match self.events.ready() {
                        Some(LinkEvent::Delivery(frames)) => self.ahead.extend(frames),
                        Some(event) => other = Some(event),
                        None => break,
                    }
                }
                self.take().await?;
                match other {
                    Some(LinkEvent::Sent(results)) => self.settle(results).await,
                    Some(LinkEvent::Drain { come_back }) => self.on_drain(come_back),
                    Some(LinkEvent::Notice(notice)) => self.on_notice(notice),
                    Some(LinkEvent::Typing(typing)) => self.hear_typing(typing).await,
                    Some(LinkEvent::Closed(error)) => Err(error.into()),
                    Some(LinkEvent::Phone(notice)) => self.note_phone(notice).await,
                    Some(LinkEvent::Delivery(_)) | None => Ok(()),
                }
            }
            LinkEvent::Sent(results) => self.settle(results).await,
            LinkEvent::Drain { come_back } => self.on_drain(come_back),
            LinkEvent::Notice(notice) => self.on_notice(notice),
            LinkEvent::Typing(typing) => self.hear_typing(typing).await,
            LinkEvent::Phone(notice) => self.note_phone(notice).await,
            LinkEvent::Closed(error) => Err(error.into()),
        }
    }

    fn on_notice(&mut self, notice: Notice) -> Result<(), ClientError> {
        self.refill.note(notice);
        Ok(())
    }

    fn on_drain(&mut self, come_back: Duration) -> Result<(), ClientError> {
        self.drain = Some(come_back);
        Ok(())
    }

    /// Takes everything that has come: one transaction for many, then one ack.
    async fn take(&mut self) -> Result<(), ClientError> {
        let (mut stuck, mut has_joined, mut is_unlisted, mut removals) = ((None, 0), false, false, Removals::Nothing);
        let (mut asks_for_receipts, mut owes_records, mut owes_history) = (false, false, false);
        let was_behind = self.is_behind();
        while !self.ahead.is_empty() {
            let frames = std::mem::take(&mut self.ahead);
            let (frames, taken) = self
                .sync
                .vault
                .run(move |vault| {
                    let taken = vault.take(&frames);
                    (frames, taken)
                })
                .await?;
            self.ahead = frames;
            let taken = taken?;
            self.ahead.drain(..taken.frames.min(self.ahead.len()));
            if let Some(position) = taken.ack {
                self.sync.link.ack(position);
                self.note_taken(position.seq);
            }
            if !taken.events.is_empty() {
                self.tell(ClientEvent::News).await;
            }
            self.caught_up |= taken.caught_up;
            is_unlisted |= taken.unlisted;
            removals = taken.removals;
            (owes_records, owes_history) = (taken.owes_records, taken.owes_history);
            if taken.owes_decisions {
                self.decisions_due();
            }
            if taken.holes {
                self.withheld_at.get_or_insert_with(|| Instant::now() + HOLE_AGAIN);
            }
            has_joined |= taken.events.iter().any(is_joining);
            asks_for_receipts |= taken.events.iter().any(asks_for_receipt);
            match taken.need {
                Some(need) => self.meet(need, &mut stuck, taken.frames).await?,
                None if taken.frames == 0 => {
                    return Err(ClientError::Stuck("an inbox entry that cannot be taken".to_owned()));
                }
                None => (),
            }
        }
        self.outbox_due |= has_joined || self.held_up || (was_behind && !self.is_behind());
        self.may_owe_renewals |= has_joined;
        self.must_compare |= is_unlisted;
        if self.caught_up {
            self.remove_later(removals);
        }
        if self.caught_up && (asks_for_receipts || owes_records) {
            self.receipts_later();
        }
        if self.caught_up && owes_history {
            self.history_at = Some(Instant::now());
        }
        if self.caught_up && !std::mem::replace(&mut self.tidied, self.caught_up) {
            return self.after_catching_up().await;
        }
        // In the middle of a session; at its start that is done after catching up.
        if self.caught_up && has_joined {
            self.renew_keys().await?;
        }
        if self.caught_up && is_unlisted {
            self.compare().await?;
            self.expect_welcomes().await?;
        }
        Ok(())
    }

    /// Meets a need of the inbox. One that cannot be met now is no reason to end what serves all conversations: what waits
    /// for it is passed, and the way forward is looked for again later.
    async fn meet(&mut self, need: Need, stuck: &mut (Option<Need>, usize), frames: usize) -> Result<(), ClientError> {
        let repeats = if frames == 0 && stuck.0 == Some(need) { stuck.1 + 1 } else { 0 };
        *stuck = (Some(need), repeats);
        let met = if repeats < NEED_REPEATS_MAX {
            self.sync.meet(need).await
        } else {
            Err(ClientError::Stuck(format!("{need:?} was met and is asked for again")))
        };
        let own = self.sync.identity.account;
        if met.is_ok() && matches!(need, Need::Account { account, .. } if account == own) {
            // It may have its second device since.
            self.has_siblings = true;
            self.mend_later(Duration::ZERO);
        }
        let Err(error) = met else {
            // What was fetched may tell people something.
            self.tell(ClientEvent::News).await;
            return Ok(());
        };
        // A server that asks to come later has not said no: the inbox waits for the next connection.
        if !error.is_confined() || error.is_refused_for_now() || repeats > NEED_REPEATS_MAX {
            return Err(error);
        }
        tracing::warn!(%error, ?need, "passing what waits for this");
        self.sync.give_up(need).await?;
        self.mend_later(error.retry_after());
        if error.is_gone_back() {
            self.answer_gone_back().await?;
            self.tell(ClientEvent::News).await;
        }
        Ok(())
    }

    async fn tell_caught_up(&mut self) {
        // A change of a group that was kept is made before whoever waits for this goes away.
        let is_idle = self.in_flight.is_empty() && self.join_at.is_none() && self.changing.at.is_none();
        let done = self.caught_up && is_idle && self.ahead.is_empty();
        if done && !self.caught_up_told {
            self.caught_up_told = true;
            self.tell(ClientEvent::CaughtUp).await;
        }
    }

    async fn tell(&self, event: ClientEvent) {
        // Nobody may be listening.
        let _ = self.out.send(event).await;
    }
}

fn is_joining(stored: &StoredEvent) -> bool {
    match &stored.event {
        Event::Joined { .. } | Event::Rejoined { .. } => true,
        Event::Group { change, .. } => *change == GroupChange::Joined,
        _ => false,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
