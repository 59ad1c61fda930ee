//! The books of a proof: what was sent, what the server said of it, and what was delivered; and whether they agree.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use bytes::Bytes;
use gureum_proto::{Accepted, ConversationId, Envelope, Gap, MessageId, Position};

use super::fleet::{ciphertext, id_of};
use crate::wait::now_ms;

/// All that is known.
#[derive(Debug)]
pub struct Books {
    conversations: Vec<ConversationId>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of each sender, by counter, from 1.
    sent: Vec<Vec<Line>>,
    heard: Vec<Heard>,
    position: Position,
    /// From where the listener took its inbox last: what came before it the server may forget.
    taken_seq: u64,
    acknowledged: u64,
    repeated: u64,
    refused: u64,
    gaps: u64,
}

/// One message as its sender knows it.
#[derive(Debug)]
struct Line {
    ciphertext: Bytes,
    acknowledged: Option<(MessageId, u64)>,
}

/// One entry of the inbox as it was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Its place.
    pub position: Position,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Message { id: MessageId, conversation: ConversationId, number: u64, ciphertext: Bytes },
    Handshake(MessageId),
    Gap { missed: u64, told_ms: u64 },
}

/// The sum of the books.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Messages sent.
    pub sent: u64,
    /// Messages that the server has said are stored.
    pub acknowledged: u64,
    /// Answers that said that the message was there already.
    pub repeated: u64,
    /// Sends refused for the time being.
    pub refused: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Messages that the server said have expired.
    pub missed: u64,
    /// Acknowledged, and not there.
    pub lost: u64,
    /// There more than once.
    pub doubled: u64,
    /// There, but under another id or number than was acknowledged.
    pub changed: u64,
}

impl Tally {
    /// # Panics
    /// Unless everything acknowledged is there, once.
    pub fn assert_whole(&self) {
        assert_eq!((self.lost, self.doubled, self.changed, self.missed), (0, 0, 0, 0), "{self:?}");
        assert!(self.acknowledged > 0 && self.acknowledged <= self.delivered, "{self:?}");
    }
}

impl Heard {
    /// An envelope.
    #[must_use]
    pub fn of(envelope: &Envelope) -> Self {
        let id = envelope.shared.message_id;
        let conversation = envelope.shared.conversation;
        let what = match ciphertext(&envelope.shared.body) {
            Some((number, ciphertext)) => What::Message { id, conversation, number, ciphertext },
            None => What::Handshake(id),
        };
        Self { position: envelope.position, what }
    }

    /// The id of a message.
    fn message(&self) -> Option<MessageId> {
        match &self.what {
            What::Message { id, .. } => Some(*id),
            What::Handshake(_) | What::Gap { .. } => None,
        }
    }

    /// A gap that is told now.
    #[must_use]
    pub fn gap(gap: &Gap) -> Self {
        Self { position: gap.to, what: What::Gap { missed: gap.missed, told_ms: now_ms() } }
    }
}

impl Books {
    /// Empty books of conversations, one for each sender.
    #[must_use]
    pub fn new(conversations: Vec<ConversationId>) -> Self {
        let sent = conversations.iter().map(|_| Vec::new()).collect();
        Self { conversations, state: Mutex::new(State { sent, ..State::default() }) }
    }

    /// A sender's conversation.
    #[must_use]
    pub fn conversation(&self, sender: usize) -> ConversationId {
        self.conversations[sender]
    }

    /// Messages that a sender has made so far.
    #[must_use]
    pub fn sent(&self, sender: usize) -> usize {
        self.state.lock().unwrap().sent[sender].len()
    }

    /// A sender makes a message.
    pub fn send(&self, sender: usize, counter: u64, ciphertext: Bytes) {
        let lines = &mut self.state.lock().unwrap().sent[sender];
        lines.push(Line { ciphertext, acknowledged: None });
        assert_eq!(counter, u64::try_from(lines.len()).unwrap(), "counters are dense");
    }

    /// The server has said that a message is stored.
    pub fn answered(&self, sender: usize, counter: u64, accepted: &Accepted) {
        let mut state = self.state.lock().unwrap();
        state.acknowledged += 1;
        state.repeated += u64::from(accepted.repeated);
        let line = &mut state.sent[sender][usize::try_from(counter).unwrap() - 1];
        let acknowledged = line.acknowledged.replace((id_of(accepted), accepted.number));
        assert_eq!(acknowledged, None, "answered twice");
    }

    /// The server has refused a send for the time being.
    pub fn refused(&self) {
        self.state.lock().unwrap().refused += 1;
    }

    /// An entry of the inbox was delivered.
    ///
    /// # Panics
    /// When it is not the next one.
    pub fn heard(&self, heard: Heard) {
        let mut state = self.state.lock().unwrap();
        state.position = next(state.position, &heard);
        state.gaps += u64::from(matches!(heard.what, What::Gap { .. }));
        state.heard.push(heard);
    }

    /// The listener connects, and takes its inbox from here on; everything before is written.
    #[must_use]
    pub fn take(&self) -> Position {
        let mut state = self.state.lock().unwrap();
        state.taken_seq = state.position.seq;
        state.position
    }

    /// The last entry delivered.
    #[must_use]
    pub fn position(&self) -> Position {
        self.state.lock().unwrap().position
    }

    /// Whether anything was reported as gone.
    #[must_use]
    pub fn has_gaps(&self) -> bool {
        self.state.lock().unwrap().gaps > 0
    }

    /// Messages acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.state.lock().unwrap().acknowledged
    }

    /// Messages sent that have no answer yet.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        let state = self.state.lock().unwrap();
        state.sent.iter().flatten().filter(|line| line.acknowledged.is_none()).count().try_into().unwrap()
    }

    /// Sends refused so far.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.state.lock().unwrap().refused
    }

    /// Whether every message is answered and was delivered, or reported as gone.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let state = self.state.lock().unwrap();
        let sent: usize = state.sent.iter().map(Vec::len).sum();
        state.acknowledged == u64::try_from(sent).unwrap() && state.position.count >= state.acknowledged
    }

    /// The books closed over what the listener heard while it happened.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let state = self.state.lock().unwrap();
        self.sum(&state, &state.heard)
    }

    /// The books closed over what the listener had taken and what the inbox, read again, holds after that.
    #[must_use]
    pub fn compare(&self, inbox: &[Heard]) -> Tally {
        let state = self.state.lock().unwrap();
        let taken = state.heard.iter().filter(|heard| heard.position.seq <= state.taken_seq);
        let all: Vec<Heard> = taken.chain(inbox).cloned().collect();
        self.sum(&state, &all)
    }

    /// As [`Self::compare`].
    ///
    /// # Panics
    /// When what was delivered is not what is there now, or positions are not dense.
    #[must_use]
    pub fn audit(&self, inbox: &[Heard]) -> Tally {
        let state = self.state.lock().unwrap();
        let later: Vec<&Heard> = state.heard.iter().filter(|heard| heard.position.seq > state.taken_seq).collect();
        assert_eq!(later, inbox.iter().collect::<Vec<_>>(), "what was delivered once is what is there");
        drop(state);
        self.compare(inbox)
    }

    /// The messages of each gap that was heard had expired by then. An inbox holds messages in the order of their ids, so
    /// that those of a gap are the oldest that were not heard before, as many as it says.
    ///
    /// # Panics
    /// When one had not, or a gap counts more than were acknowledged.
    pub fn assert_missed_had_expired(&self, retention_ms: u64) {
        let state = self.state.lock().unwrap();
        let heard: HashSet<MessageId> = state.heard.iter().filter_map(|heard| heard.message()).collect();
        let acknowledged = state.sent.iter().flatten().filter_map(|line| line.acknowledged);
        let mut unheard: Vec<MessageId> = acknowledged.map(|(id, _)| id).filter(|id| !heard.contains(id)).collect();
        unheard.sort_unstable();
        let mut unheard = unheard.into_iter();
        for entry in &state.heard {
            let What::Gap { missed, told_ms } = entry.what else { continue };
            for _ in 0..missed {
                let id = unheard.next().expect("a gap tells of messages that were acknowledged");
                let expired_ms = id.time_ms() + retention_ms;
                assert!(expired_ms <= told_ms, "{id} was told to have expired {} ms too soon", expired_ms - told_ms);
            }
        }
    }

    fn sum(&self, state: &State, inbox: &[Heard]) -> Tally {
        let mut tally = Tally {
            sent: state.sent.iter().map(|lines| u64::try_from(lines.len()).unwrap()).sum(),
            acknowledged: state.acknowledged,
            repeated: state.repeated,
            refused: state.refused,
            ..Tally::default()
        };
        let mut there: HashMap<(ConversationId, &Bytes), (MessageId, u64)> = HashMap::new();
        let mut numbers: HashMap<ConversationId, u64> = HashMap::new();
        for heard in inbox {
            match &heard.what {
                What::Message { id, conversation, number, ciphertext } => {
                    tally.delivered += 1;
                    tally.doubled += u64::from(there.insert((*conversation, ciphertext), (*id, *number)).is_some());
                    let last = numbers.insert(*conversation, *number).unwrap_or_default();
                    // A hole in the numbers is a message that was dropped without a word.
                    tally.changed += u64::from(*number <= last || (state.gaps == 0 && *number != last + 1));
                }
                What::Gap { missed, .. } => tally.missed += missed,
                What::Handshake(_) => {}
            }
        }
        for (conversation, lines) in self.conversations.iter().zip(&state.sent) {
            for line in lines {
                let Some(acknowledged) = line.acknowledged else { continue };
                match there.get(&(*conversation, &line.ciphertext)) {
                    Some(found) => tally.changed += u64::from(*found != acknowledged),
                    None => tally.lost += 1,
                }
            }
        }
        tally
    }
}

/// The position after an entry, which must follow the last one and count as it says.
fn next(last: Position, heard: &Heard) -> Position {
    let Heard { position, what } = heard;
    let (first_seq, messages) = match what {
        What::Message { .. } => (position.seq, 1),
        What::Handshake(_) => (position.seq, 0),
        What::Gap { missed, .. } => (last.seq + 1, *missed),
    };
    assert_eq!((first_seq, position.count), (last.seq + 1, last.count + messages), "{heard:?} after {last:?}");
    *position
}
