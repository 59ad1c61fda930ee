//! Arbitrary batches against a model that is a few vectors: the store says the same, whatever is forgotten or fails.
//! Devices are revoked meanwhile: nothing is taken that one of them could read.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::groups::commit_plan;
use super::*;
use crate::limits::SENT_RESULTS_KEPT;
use crate::store::record::Removals;

#[derive(Debug, Clone)]
enum Step {
    Send {
        from: usize,
        counter: u64,
        epoch: Epoch,
        silent: bool,
    },
    Ack {
        from: usize,
        seq: u64,
    },
    /// Of the second device of Alice or Bob; ends the batch, as each change does.
    Revoke {
        device: usize,
        is_written: bool,
    },
    /// A commit, which removes who is to be removed or nobody.
    Commit {
        from: usize,
        counter: u64,
        epoch: Epoch,
        removes: bool,
        is_written: bool,
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

/// An epoch by how far it is behind the one after the current one.
#[derive(Debug, Clone, Copy)]
struct Epoch(u64);

fn step() -> impl Strategy<Value = Step> {
    let counter = || prop_oneof![4 => 1..8_u64, 2 => 60..75_u64, 1 => 1..200_u64];
    let is_written = || prop::bool::weighted(0.8);
    let committer = prop::sample::select(vec![ALICES_FIRST, ALICES_SECOND, BOBS_FIRST, BOBS_SECOND]);
    prop_oneof![
        12 => (0..5_usize, counter(), 0..=5_u64, prop::bool::weighted(0.3))
            .prop_map(|(from, counter, behind, silent)| Step::Send { from, counter, epoch: Epoch(behind), silent }),
        5 => (0..5_usize, 0..30_u64).prop_map(|(from, seq)| Step::Ack { from, seq }),
        1 => (prop::sample::select(vec![ALICES_SECOND, BOBS_SECOND]), is_written())
            .prop_map(|(device, is_written)| Step::Revoke { device, is_written }),
        4 => (committer, counter(), 0..=2_u64, any::<bool>(), is_written()).prop_map(
            |(from, counter, behind, removes, is_written)| {
                Step::Commit { from, counter, epoch: Epoch(behind), removes, is_written }
            }
        ),
        5 => is_written().prop_map(|is_written| Step::Write { is_written }),
        1 => Just(Step::Forget),
        1 => Just(Step::Reopen),
        1 => (0..RETENTION_MS / 50).prop_map(|ms| Step::Pass { ms }),
    ]
}

const ALICES_FIRST: usize = 0;
const ALICES_SECOND: usize = 1;
const BOBS_FIRST: usize = 2;
const STRANGER: usize = 3;
const BOBS_SECOND: usize = 4;

fn devices() -> [Authenticated; 5] {
    [device(ALICE, 1), device(ALICE, 2), device(BOB, 1), device(EVE, 1), device(BOB, 2)]
}

#[derive(Debug, Clone)]
struct Model {
    /// What stands in the inboxes of Alice and Bob.
    inboxes: [Vec<(MessageId, What)>; 2],
    last_id: Option<MessageId>,
    /// Those that have a number.
    messages: u64,
    accepted: [BTreeMap<u64, (MessageId, u64)>; 5],
    /// `None`: no device of the server's any more, or never.
    cursors: [Option<u64>; 5],
    epoch: u64,
    members: [bool; 5],
    floor_epoch: u64,
    pending: Vec<usize>,
}

/// What an entry of an inbox is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Message,
    /// A message that has no number and counts for nobody.
    Silent,
    /// A commit, or a change of a log.
    Change,
}

#[derive(Debug, PartialEq)]
enum Expected {
    New,
    Again(Accepted),
    Refused(Code),
}

impl Model {
    fn new() -> Self {
        let mut model = Self {
            inboxes: [vec![], vec![]],
            last_id: None,
            messages: 0,
            accepted: std::array::from_fn(|_| BTreeMap::new()),
            cursors: [Some(0); 5],
            epoch: EPOCH,
            members: [true; 5],
            floor_epoch: 0,
            pending: vec![],
        };
        (model.cursors[STRANGER], model.members[STRANGER]) = (None, false);
        model
    }

    const fn epoch(&self, of: Epoch) -> u64 {
        self.epoch + 1 - of.0
    }

    /// The accounts that have a leaf beside this one, by the index of their inbox.
    fn readers(&self, from: usize) -> Vec<usize> {
        let has_another = |devices: [usize; 2]| devices.iter().any(|device| *device != from && self.members[*device]);
        let accounts = [[ALICES_FIRST, ALICES_SECOND], [BOBS_FIRST, BOBS_SECOND]];
        (0..2).filter(|account| has_another(accounts[*account])).collect()
    }

    fn answered_before(&self, from: usize, counter: u64) -> Option<Accepted> {
        let accepted = &self.accepted[from];
        let highest = accepted.last_key_value().map_or(0, |(counter, _)| *counter);
        if counter + u64::try_from(SENT_RESULTS_KEPT).unwrap() <= highest {
            return Some(Accepted { message_id: None, number: 0, repeated: true, gone: Gone::default() });
        }
        let (id, number) = accepted.get(&counter)?;
        Some(Accepted { message_id: Some(*id), number: *number, repeated: true, gone: Gone::default() })
    }

    fn expect_send(&self, from: usize, counter: u64, epoch: u64) -> Expected {
        if let Some(accepted) = self.answered_before(from, counter) {
            return Expected::Again(accepted);
        }
        if !self.members[from] || self.pending.contains(&from) {
            return Expected::Refused(Code::NotMember);
        }
        if !self.pending.is_empty() {
            return Expected::Refused(Code::RemovalPending);
        }
        if epoch > self.epoch || epoch + 3 < self.epoch || epoch < self.floor_epoch {
            return Expected::Refused(Code::EpochStale);
        }
        Expected::New
    }

    fn send(&mut self, from: usize, counter: u64, epoch: u64, silent: bool, sent: &Sent) {
        let expected = self.expect_send(from, counter, epoch);
        match (&sent.result, expected) {
            (Ok(accepted), Expected::New) => {
                let id = accepted.message_id.unwrap();
                let (number, what) = if silent { (0, What::Silent) } else { (self.messages + 1, What::Message) };
                assert_eq!(
                    *accepted,
                    Accepted { message_id: Some(id), number, repeated: false, gone: Gone::default() }
                );
                self.messages = self.messages.max(number);
                self.append(id, what, &self.readers(from));
                self.accepted[from].insert(counter, (id, number));
            }
            (Ok(accepted), Expected::Again(expected)) => assert_eq!(*accepted, expected),
            (Err(refusal), Expected::Refused(code)) => assert_eq!(refusal.code, code),
            (result, expected) => panic!("{result:?} where the model has {expected:?}"),
        }
    }

    fn append(&mut self, id: MessageId, what: What, accounts: &[usize]) {
        assert!(self.last_id.is_none_or(|last| last < id), "ids ascend");
        self.last_id = Some(id);
        accounts.iter().for_each(|account| self.inboxes[*account].push((id, what)));
    }

    fn ack(&mut self, from: usize, seq: u64) {
        let account = usize::from(from == BOBS_FIRST || from == BOBS_SECOND);
        let head = u64::try_from(self.inboxes[account].len()).unwrap();
        if let Some(cursor) = &mut self.cursors[from]
            && seq <= head
        {
            *cursor = (*cursor).max(seq);
        }
    }

    /// Each account revokes one device at most: of its log there is one entry to be written.
    fn revoke(&mut self, device: usize, changed: &Result<Changed, Refusal>, id: Option<MessageId>) {
        if self.cursors[device].take().is_none() {
            assert_eq!(changed.as_ref().map_err(|refusal| refusal.code), Err(Code::LogInvalid));
            return;
        }
        assert_eq!(*changed, Ok(Changed::LogAppended(2)));
        self.append(id.unwrap(), What::Change, &[0, 1]);
        self.pending.push(device);
    }

    fn expect_commit(&self, from: usize, counter: u64, epoch: u64) -> Result<u64, Code> {
        if let Some(accepted) = self.answered_before(from, counter) {
            return Ok(accepted.number);
        }
        if epoch != self.epoch {
            return Err(Code::EpochConflict);
        }
        if self.pending.contains(&from) {
            return Err(Code::NotMember);
        }
        Ok(self.epoch + 1)
    }

    fn commit(&mut self, from: usize, counter: u64, members: [bool; 5], id: Option<MessageId>) {
        // Nothing is delivered of one that was answered before, or refused.
        let Some(id) = id else { return };
        self.append(id, What::Change, &self.readers(from));
        self.epoch += 1;
        if members != self.members {
            self.floor_epoch = self.epoch;
        }
        self.members = members;
        self.pending.retain(|device| members[*device]);
        self.accepted[from].insert(counter, (id, self.epoch));
    }

    fn check(&self, bench: &Bench) {
        for (account, expected) in [ALICE, BOB].into_iter().zip(&self.inboxes) {
            let found: Vec<_> = bench.inbox(account).iter().map(|(seq, entry)| (*seq, entry.count, entry.id)).collect();
            let mut count = 0;
            let expected: Vec<_> = (1_u64..)
                .zip(expected)
                .map(|(seq, (id, what))| {
                    count += u64::from(*what == What::Message);
                    (seq, count, *id)
                })
                .collect();
            assert_eq!(found, expected);
            assert_eq!(bench.head(account).seq, u64::try_from(expected.len()).unwrap());
        }
        for (device, cursor) in devices().into_iter().zip(self.cursors) {
            assert_eq!(bench.cursor(device).map(|cursor| cursor.seq), cursor);
        }
        let mut messages = self.inboxes.iter().flatten().filter(|(_, what)| *what != What::Change);
        assert!(messages.all(|(id, _)| bench.message(*id).is_some()), "each has its body");
        let removals: Option<Removals> =
            bench.get(Family::Conversation, key::conversation(&TALK, ConversationTag::Removals));
        let pending = self.pending.iter().map(|device| devices()[*device].device()).collect();
        assert_eq!(removals.unwrap_or_default(), Removals { floor_epoch: self.floor_epoch, pending, leaving: vec![] });
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
                let epoch = self.planned.epoch(epoch);
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
            Step::Revoke { device, is_written } => {
                let (changed, id) = self.change(revocation(devices()[device]));
                self.planned.revoke(device, &changed, id);
                self.end(is_written);
            }
            Step::Commit { from, counter, epoch, removes, is_written } => {
                // One that has no leaf any more is refused before it comes here.
                if self.planned.members[from] {
                    self.commit(from, counter, self.planned.epoch(epoch), removes);
                    self.end(is_written);
                }
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

    fn commit(&mut self, from: usize, counter: u64, epoch: u64, removes: bool) {
        let mut members = self.planned.members;
        if removes {
            self.planned.pending.iter().filter(|device| **device != from).for_each(|device| members[*device] = false);
        }
        let devices = devices();
        let left: Vec<_> =
            devices.into_iter().zip(members).filter_map(|(device, stays)| stays.then_some(device)).collect();
        let expected = self.planned.expect_commit(from, counter, epoch);
        let (changed, id) = self.change(Change::Commit(commit_plan(devices[from], counter, epoch, &left)));
        let expected = expected.map(|epoch| Changed::Committed { epoch });
        assert_eq!(changed.map_err(|refusal| refusal.code), expected);
        self.planned.commit(from, counter, members, id);
    }

    /// Plans a change as the last operation of the batch; the id of what everybody is told of it.
    fn change(&mut self, change: Change) -> (Result<Changed, Refusal>, Option<MessageId>) {
        let before = self.plan.deliveries.len();
        let changed = self.bench.planner.add_change(change, self.bench.now_ms, &mut self.plan).unwrap();
        (changed, self.plan.deliveries.get(before).map(|(_, delivery)| delivery.id))
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
        let mut run = Run { bench, written: Model::new(), planned: Model::new(), plan: Plan::default() };
        steps.iter().for_each(|step| run.step(step));
        run.end(true);
    }
}
