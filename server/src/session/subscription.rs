//! The delivery side of a session: read, hand over, wait until it is written, read again.

use std::collections::VecDeque;

use bytes::Bytes;
use gureum_proto::{Gap, Position};

use super::Action;

/// What goes to the delivery stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An entry of the inbox.
    Envelope {
        /// Where it stands.
        position: Position,
        /// The encoded rest.
        shared: Bytes,
    },
    /// Entries that are gone.
    Gap(Gap),
    /// The backlog is through.
    CaughtUp {
        /// The head when the subscription began.
        seq: u64,
    },
}

/// What a read of the inbox found: dense from the position asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Envelopes and gaps, ascending.
    pub items: Vec<Item>,
    /// Whether there was more to read.
    pub more: bool,
}

/// Invariant: at most one read or one write is under way, and positions only go up.
#[derive(Debug)]
pub(super) struct Subscription {
    delivered: Position,
    acked_seq: u64,
    catch_up_seq: Option<u64>,
    state: State,
    woken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Reading,
    Writing { more: bool },
}

impl Subscription {
    pub(super) const fn new(from: Position, head_seq: u64) -> Self {
        let acked_seq = from.seq;
        Self { delivered: from, acked_seq, catch_up_seq: Some(head_seq), state: State::Idle, woken: false }
    }

    pub(super) fn begin(&mut self, actions: &mut VecDeque<Action>) {
        self.read(actions);
    }

    /// An ack is cumulative, and valid only up to what this subscription has delivered; a repeated one is harmless.
    pub(super) fn may_ack(&mut self, position: Position) -> bool {
        if position.seq > self.delivered.seq || position.count > self.delivered.count {
            return false;
        }
        self.acked_seq = self.acked_seq.max(position.seq);
        true
    }

    pub(super) fn woken(&mut self, actions: &mut VecDeque<Action>) {
        match self.state {
            State::Idle => self.read(actions),
            State::Reading | State::Writing { .. } => self.woken = true,
        }
    }

    pub(super) fn page(&mut self, page: Page, actions: &mut VecDeque<Action>) {
        if self.state != State::Reading {
            return;
        }
        let mut items = page.items;
        if let Some(end) = items.iter().rev().find_map(end_of) {
            self.delivered = end;
        }
        let is_through = |seq: &mut u64| self.delivered.seq >= *seq || (items.is_empty() && !page.more);
        if let Some(seq) = self.catch_up_seq.take_if(is_through) {
            items.push(Item::CaughtUp { seq });
        }
        if items.is_empty() {
            return self.next(page.more, actions);
        }
        self.state = State::Writing { more: page.more };
        actions.push_back(Action::Deliver(items));
    }

    pub(super) fn written(&mut self, actions: &mut VecDeque<Action>) {
        if let State::Writing { more } = self.state {
            self.next(more, actions);
        }
    }

    fn next(&mut self, more: bool, actions: &mut VecDeque<Action>) {
        if more || self.woken {
            self.read(actions);
        } else {
            self.state = State::Idle;
        }
    }

    fn read(&mut self, actions: &mut VecDeque<Action>) {
        self.woken = false;
        self.state = State::Reading;
        actions.push_back(Action::Read { after: self.delivered });
    }
}

fn end_of(item: &Item) -> Option<Position> {
    match item {
        Item::Envelope { position, .. } => Some(*position),
        Item::Gap(gap) => Some(gap.to),
        Item::CaughtUp { .. } => None,
    }
}
