//! Arbitrary batches against a model that is a few vectors: the store says the same, whatever is forgotten or fails.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::limits::SENT_RESULTS_KEPT;

#[derive(Debug, Clone)]
enum Step {
    Send {
        from: usize,
        counter: u64,
        epoch: u64,
        silent: bool,
    },
    Ack {
        from: usize,
        seq: u64,
    },
    /// Ends the batch; `is_written` says whether the disk takes it.
    Write {
        is_written: bool,
    },
    Forget,
    Reopen,
    Pass {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let counter = prop_oneof![4 => 1..8_u64, 2 => 60..75_u64, 1 => 1..200_u64];
    prop_oneof![
        10 => (0..4_usize, counter, EPOCH - 4..=EPOCH + 1, prop::bool::weighted(0.3))
            .prop_map(|(from, counter, epoch, silent)| Step::Send { from, counter, epoch, silent }),
        5 => (0..4_usize, 0..30_u64).prop_map(|(from, seq)| Step::Ack { from, seq }),
        5 => prop::bool::weighted(0.8).prop_map(|is_written| Step::Write { is_written }),
        1 => Just(Step::Forget),
        1 => Just(Step::Reopen),
        1 => (0..RETENTION_MS / 50).prop_map(|ms| Step::Pass { ms }),
    ]
}

/// Alice's two devices, one of Bob's two, and a stranger.
fn devices() -> [Authenticated; 4] {
    [device(ALICE, 1), device(ALICE, 2), device(BOB, 1), device(EVE, 1)]
}

#[derive(Debug, Clone, Default)]
struct Model {
    /// What stands in both inboxes: each has another device, so each account reads everything.
    messages: Vec<MessageId>,
    /// Those of them that nobody is shown.
    silent: BTreeSet<MessageId>,
    accepted: [BTreeMap<u64, (MessageId, u64)>; 4],
    cursors: [u64; 4],
}

#[derive(Debug, PartialEq)]
enum Expected {
    New(u64),
    Again(Accepted),
    Refused(Code),
}

impl Model {
    fn expect(&self, from: usize, counter: u64, epoch: u64, silent: bool) -> Expected {
        let accepted = &self.accepted[from];
        let highest = accepted.last_key_value().map_or(0, |(counter, _)| *counter);
        if counter + u64::try_from(SENT_RESULTS_KEPT).unwrap() <= highest {
            return Expected::Again(Accepted { message_id: None, number: 0, repeated: true });
        }
        if let Some((id, number)) = accepted.get(&counter) {
            return Expected::Again(Accepted { message_id: Some(*id), number: *number, repeated: true });
        }
        match (from, epoch) {
            (3, _) => Expected::Refused(Code::NotMember),
            (_, epoch) if epoch > EPOCH || epoch + 3 < EPOCH => Expected::Refused(Code::EpochStale),
            _ if silent => Expected::New(0),
            _ => Expected::New(u64::try_from(self.messages.len() - self.silent.len()).unwrap() + 1),
        }
    }

    fn send(&mut self, from: usize, counter: u64, epoch: u64, silent: bool, sent: &Sent) {
        let expected = self.expect(from, counter, epoch, silent);
        match (&sent.result, expected) {
            (Ok(accepted), Expected::New(number)) => {
                let id = accepted.message_id.unwrap();
                assert_eq!(*accepted, Accepted { message_id: Some(id), number, repeated: false });
                assert!(self.messages.last().is_none_or(|last| *last < id), "ids ascend");
                self.messages.push(id);
                if silent {
                    self.silent.insert(id);
                }
                self.accepted[from].insert(counter, (id, number));
            }
            (Ok(accepted), Expected::Again(expected)) => assert_eq!(*accepted, expected),
            (Err(refusal), Expected::Refused(code)) => assert_eq!(refusal.code, code),
            (result, expected) => panic!("{result:?} where the model has {expected:?}"),
        }
    }

    fn ack(&mut self, from: usize, seq: u64) {
        let is_device = from < 3;
        if is_device && seq <= u64::try_from(self.messages.len()).unwrap() {
            self.cursors[from] = self.cursors[from].max(seq);
        }
    }

    fn check(&self, bench: &Bench) {
        for account in [ALICE, BOB] {
            let found: Vec<_> = bench.inbox(account).iter().map(|(seq, entry)| (*seq, entry.count, entry.id)).collect();
            let mut count = 0;
            let place = |(seq, id): (u64, &MessageId)| {
                count += u64::from(!self.silent.contains(id));
                (seq, count, *id)
            };
            let expected: Vec<_> = (1_u64..).zip(&self.messages).map(place).collect();
            assert_eq!(found, expected);
            assert_eq!(bench.head(account).seq, u64::try_from(self.messages.len()).unwrap());
        }
        for (index, device) in devices().into_iter().enumerate().take(3) {
            assert_eq!(bench.cursor(device).unwrap().seq, self.cursors[index]);
        }
        assert!(self.messages.iter().all(|id| bench.message(*id).is_some()), "each has its body");
    }
}

/// A bench and its model, with the batch that is being planned and what the model makes of it.
struct Run {
    bench: Bench,
    written: Model,
    planned: Model,
    plan: Plan,
}

impl Run {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Send { from, counter, epoch, silent } => {
                let op = send_at(devices()[from], counter, epoch);
                let op = if silent { silently(op) } else { op };
                self.bench.planner.add(op, self.bench.now_ms, &mut self.plan).unwrap();
                self.planned.send(from, counter, epoch, silent, self.plan.sent.last().unwrap());
            }
            Step::Ack { from, seq } => {
                let op = ack(devices()[from], seq, seq);
                self.bench.planner.add(op, self.bench.now_ms, &mut self.plan).unwrap();
                self.planned.ack(from, seq);
            }
            Step::Write { is_written } => self.end(is_written),
            Step::Forget => {
                self.end(true);
                self.bench.planner.forget();
            }
            Step::Reopen => {
                self.end(true);
                self.bench.reopen();
            }
            Step::Pass { ms } => self.bench.advance(ms),
        }
    }

    fn end(&mut self, is_written: bool) {
        self.bench.planner.finish(&mut self.plan);
        if is_written {
            self.bench.write(&self.plan).unwrap();
            self.written = self.planned.clone();
        } else {
            self.bench.store.fail_next_write(StoreError::Io("planned".to_owned()));
            assert!(self.bench.write(&self.plan).is_err());
            self.planned = self.written.clone();
        }
        self.plan.clear();
        self.written.check(&self.bench);
    }
}

proptest! {
    #[test]
    fn the_store_says_what_the_model_says(steps in prop::collection::vec(step(), 0..100)) {
        let members = [device(ALICE, 1), device(ALICE, 2), device(BOB, 1), device(BOB, 2)];
        let bench = Bench::new().with_members(&members);
        let (written, planned) = (Model::default(), Model::default());
        let mut run = Run { bench, written, planned, plan: Plan::default() };
        steps.iter().for_each(|step| run.step(step));
        run.end(true);
    }
}
