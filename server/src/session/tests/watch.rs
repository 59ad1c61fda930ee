//! Watches a session from outside, and panics at what a session never does. Used by its tests and by its fuzz target.

use gureum_proto::limits::SENDS_IN_FLIGHT_MAX;
use gureum_proto::{Position, ServerFrame};

use super::{Action, Input, Item, Page, Session};

/// A session with everything that it has asked for so far.
pub(super) struct Watched {
    pub(super) session: Session,
    /// What it waits for from the inbox.
    pub(super) reading: Option<Position>,
    pub(super) writing: bool,
    pub(super) is_attached: bool,
    pub(super) is_closed: bool,
    pub(super) in_flight: u32,
    pub(super) caught_up: u32,
    looked_up: Option<Position>,
    /// An answer was told, and not replied to.
    may_reply: bool,
    read_after: Position,
    delivered: Position,
}

impl Watched {
    pub(super) fn new(session: Session) -> Self {
        Self {
            session,
            reading: None,
            writing: false,
            is_attached: false,
            is_closed: false,
            in_flight: 0,
            caught_up: 0,
            looked_up: None,
            may_reply: false,
            read_after: Position::default(),
            delivered: Position::default(),
        }
    }

    /// Hands an input in and returns what the session asks for.
    ///
    /// # Panics
    ///
    /// If it asks for what it may not.
    pub(super) fn handle(&mut self, input: Input, now_ms: u64) -> Vec<Action> {
        match &input {
            Input::Page(_) => self.reading = None,
            Input::Written => self.writing = false,
            Input::Answered(answers) => {
                self.in_flight = self.in_flight.saturating_sub(u32::try_from(answers.len()).unwrap_or(u32::MAX));
            }
            _ => {}
        }
        self.session.handle(input, now_ms);
        let mut actions = Vec::new();
        while let Some(action) = self.session.poll_action() {
            self.look_at(&action);
            actions.push(action);
        }
        assert_eq!(self.session.authority().is_some(), self.is_attached && !self.is_closed);
        assert_eq!(self.session.poll_timeout().is_some(), !self.is_attached && !self.is_closed);
        assert!(!(self.is_closed && self.session.accepts_frames()), "a closed session takes no frames");
        actions
    }

    fn look_at(&mut self, action: &Action) {
        assert!(!self.is_closed, "{action:?} after the end");
        match action {
            Action::LookUp { claim } => {
                assert!(!self.is_attached);
                self.looked_up = Some(claim.cursor);
            }
            Action::Register(_) | Action::OfferLink(_) | Action::Recover(_) | Action::RequestCode(_) => {
                assert!(!self.is_attached);
            }
            Action::ReplyLink(_) => assert!(std::mem::take(&mut self.may_reply), "a reply to no answer"),
            Action::Attach { .. } => {
                assert!(!self.is_attached && self.looked_up.is_some());
                self.is_attached = true;
            }
            Action::Live(_) => assert!(self.is_attached),
            Action::Send(_) => {
                self.in_flight += 1;
                assert!(self.is_attached && self.in_flight <= SENDS_IN_FLIGHT_MAX);
            }
            Action::Ack(position) => {
                let is_claimed = self.looked_up == Some(*position);
                let is_delivered = position.seq <= self.delivered.seq && position.count <= self.delivered.count;
                assert!(self.is_attached && (is_claimed || is_delivered), "{position:?}");
            }
            Action::Read { after } => {
                assert!(self.is_attached && self.reading.is_none() && !self.writing, "one at a time");
                assert!(*after >= self.read_after, "positions only go up");
                (self.reading, self.read_after) = (Some(*after), *after);
                self.delivered = self.delivered.max(*after);
            }
            Action::Answer(answers) => assert!(self.is_attached && !answers.is_empty()),
            Action::Say(ServerFrame::Ready(_) | ServerFrame::Notice(_) | ServerFrame::PhoneNotice(_)) => {
                assert!(self.is_attached);
            }
            Action::Say(ServerFrame::CodeSent(_)) => assert!(!self.is_attached),
            Action::Say(ServerFrame::LinkAnswer(_) | ServerFrame::Linked(_) | ServerFrame::Recovering(_)) => {
                assert!(!self.is_attached);
                self.may_reply = matches!(action, Action::Say(ServerFrame::LinkAnswer(_)));
            }
            Action::Say(_) => {}
            Action::Deliver(items) => {
                assert!(self.is_attached && self.reading.is_none() && !self.writing && !items.is_empty());
                self.writing = true;
                items.iter().for_each(|item| self.look_at_item(item));
            }
            Action::Close { .. } => self.is_closed = true,
        }
    }

    fn look_at_item(&mut self, item: &Item) {
        let end = match item {
            Item::Envelope { position, .. } => *position,
            Item::Gap(gap) => gap.to,
            Item::CaughtUp { .. } => {
                self.caught_up += 1;
                assert_eq!(self.caught_up, 1, "caught up twice");
                return;
            }
        };
        assert!(end.seq > self.delivered.seq && end.count >= self.delivered.count, "{end:?} is not news");
        self.delivered = end;
    }
}

/// A page of so many entries, every third of them a gap of two, dense from `after`.
pub(super) fn page(after: Position, entries: u64, more: bool) -> Page {
    let mut at = after;
    let items = (0..entries).map(|entry| {
        if entry % 3 == 2 {
            let from_seq = at.seq.saturating_add(1);
            at = Position { seq: at.seq.saturating_add(2), count: at.count.saturating_add(1) };
            let reason = gureum_proto::GapReason::Expired;
            Item::Gap(gureum_proto::Gap { from_seq, to: at, missed: 1, reason })
        } else {
            at = Position { seq: at.seq.saturating_add(1), count: at.count.saturating_add(entry % 2) };
            Item::Envelope { position: at, shared: bytes::Bytes::from_static(b"body") }
        }
    });
    Page { items: items.collect(), more }
}
