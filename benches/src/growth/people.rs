//! Who sends and who receives: accounts with one device each, in conversations of two.

use anyhow::{Context, Result};
use bytes::Bytes;
use gureum_proto::{AccountId, ConversationId, ConversationKind, DeviceId, Position, Send};
use gureum_server::router::Op;
use gureum_server::session::Authenticated;
use gureum_server::store::key::{self, ConversationTag, CursorTag};
use gureum_server::store::record::{ConversationHead, Cursor, Member};
use gureum_server::store::{Batch, Family};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::machine::Machine;
use crate::limits::writes::{EPOCH, let_in};

/// Conversations whose records are written together.
const TALKS_AT_ONCE: usize = 1_000;

/// Everybody.
#[derive(Debug)]
pub struct People {
    senders: Vec<Sender>,
    talks: Vec<Talk>,
}

#[derive(Debug)]
struct Sender {
    authority: Authenticated,
    sent: u64,
}

/// A conversation, in which one sends and the other receives.
#[derive(Debug)]
struct Talk {
    id: ConversationId,
    sender: usize,
    receiver: (AccountId, DeviceId),
    /// What the receiver acks with; `None`: it never comes.
    reader: Option<Authenticated>,
    sent: u64,
}

impl People {
    /// So many conversations, of which each sender has some, and each receiver one of its own.
    ///
    /// # Errors
    /// A device is not let in.
    pub fn new(seed: u64, talks: usize, talks_of_sender: usize, is_there: impl Fn(usize) -> bool) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut people = Self { senders: Vec::new(), talks: Vec::with_capacity(talks) };
        for index in 0..talks {
            if index.is_multiple_of(talks_of_sender.max(1)) {
                people.senders.push(Sender { authority: let_in(&mut random)?, sent: 0 });
            }
            let reader = if is_there(index) { Some(let_in(&mut random)?) } else { None };
            let receiver = match &reader {
                Some(reader) => (reader.account(), reader.device()),
                None => (AccountId::from_bytes(random.random()), DeviceId::from_bytes(random.random())),
            };
            let id = ConversationId::from_bytes(random.random());
            let sender = people.senders.len().saturating_sub(1);
            people.talks.push(Talk { id, sender, receiver, reader, sent: 0 });
        }
        Ok(people)
    }

    /// How many conversations there are.
    #[must_use]
    pub fn talks(&self) -> usize {
        self.talks.len()
    }

    /// Puts into the store what sending needs of accounts and conversations, as if they had come about.
    ///
    /// # Errors
    /// What the disk says.
    pub fn enter(&self, machine: &Machine) -> Result<()> {
        for talks in self.talks.chunks(TALKS_AT_ONCE) {
            let mut batch = Batch::new();
            for talk in talks {
                self.begin(talk, machine.now_ms(), &mut batch)?;
            }
            machine.begin(&batch)?;
        }
        Ok(())
    }

    fn begin(&self, talk: &Talk, now_ms: u64, batch: &mut Batch) -> Result<()> {
        let sender = self.senders.get(talk.sender).context("there is no sender")?.authority;
        let devices = [(sender.account(), sender.device()), talk.receiver];
        let member = |(leaf, (account, device)): (u32, (AccountId, DeviceId))| Member { account, device, leaf };
        let head = ConversationHead {
            epoch: EPOCH,
            created_ms: now_ms,
            kind: ConversationKind::Direct,
            members: (0..).zip(devices).map(member).collect(),
        };
        batch.put_record(Family::Conversation, key::conversation(&talk.id, ConversationTag::Head), &head);
        for (account, device) in devices {
            let cursor = key::cursor(&account, &device, CursorTag::Cursor);
            batch.put_record(Family::Cursor, cursor, &Cursor::default());
            batch.put_record(Family::Directory, key::membership(&account, &talk.id), &());
        }
        Ok(())
    }

    /// The next message of a conversation.
    ///
    /// # Errors
    /// There is no such conversation.
    pub fn send(&mut self, talk: usize, body: &Bytes) -> Result<Op> {
        let talk = self.talks.get_mut(talk).context("there is no conversation")?;
        let sender = self.senders.get_mut(talk.sender).context("there is no sender")?;
        talk.sent += 1;
        sender.sent += 1;
        let (counter, conversation, ciphertext) = (sender.sent, talk.id, body.clone());
        let send = Send { counter, conversation, epoch: EPOCH, ciphertext, silent: false };
        Ok(Op::Send { from: sender.authority, send })
    }

    /// The receiver's ack of all messages of a conversation so far, if it is there.
    #[must_use]
    pub fn ack(&self, talk: usize) -> Option<Op> {
        let talk = self.talks.get(talk)?;
        let position = Position { seq: talk.sent, count: talk.sent };
        talk.reader.map(|from| Op::Ack { from, position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_have_several_conversations_and_receivers_one() {
        let people = People::new(1, 25, 10, |index| index == 3).unwrap();
        assert_eq!((people.senders.len(), people.talks()), (3, 25));
        assert_eq!(people.talks.iter().map(|talk| talk.sender).max(), Some(2));
        let there: Vec<_> = (0..25).filter(|talk| people.ack(*talk).is_some()).collect();
        assert_eq!(there, [3]);
    }

    #[test]
    fn others_come_of_another_seed() {
        let receivers = |seed| People::new(seed, 3, 10, |_| false).unwrap().talks.into_iter().map(|talk| talk.receiver);
        assert!(receivers(1).eq(receivers(1)));
        assert!(receivers(1).zip(receivers(2)).all(|(one, other)| one != other));
    }

    #[test]
    fn a_sender_counts_all_that_it_sends() {
        let mut people = People::new(1, 2, 2, |_| true).unwrap();
        let counters = [0, 1, 0].map(|talk| match people.send(talk, &Bytes::new()).unwrap() {
            Op::Send { send, .. } => send.counter,
            other => panic!("{other:?}"),
        });
        assert_eq!(counters, [1, 2, 3]);
        match people.ack(0) {
            Some(Op::Ack { position, .. }) => assert_eq!(position, Position { seq: 2, count: 2 }),
            other => panic!("{other:?}"),
        }
        assert!(people.send(2, &Bytes::new()).is_err());
    }
}
