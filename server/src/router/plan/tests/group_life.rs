//! Arbitrary lives of a group: whoever is in it reads what is said there, and nobody else; nothing is said while somebody
//! who is to be removed could read it. The auditor looks at each batch besides.

use proptest::collection::vec;
use proptest::prelude::*;

use super::groups::commit_plan;
use super::leaving::{leave, removals};
use super::*;

#[derive(Debug, Clone)]
enum Step {
    Send {
        from: usize,
        behind: u64,
    },
    /// The devices that are in it afterwards, the committer aside.
    Commit {
        by: usize,
        members: Vec<bool>,
    },
    Leave {
        by: usize,
    },
    /// The account's second device.
    Revoke {
        account: usize,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6_usize, 0..3_u64).prop_map(|(from, behind)| Step::Send { from, behind }),
        4 => (0..6_usize, vec(prop::bool::weighted(0.7), 6)).prop_map(|(by, members)| Step::Commit { by, members }),
        1 => (0..6_usize).prop_map(|by| Step::Leave { by }),
        1 => (0..3_usize).prop_map(|account| Step::Revoke { account }),
        1 => Just(Step::Reopen),
    ]
}

const PEOPLE: [AccountId; 3] = [ALICE, BOB, EVE];

fn devices() -> Vec<Authenticated> {
    PEOPLE.into_iter().flat_map(|account| [device(account, 1), device(account, 2)]).collect()
}

struct GroupLife {
    bench: Bench,
    counters: [u64; 6],
    revoked: [bool; 3],
}

impl GroupLife {
    fn new() -> Self {
        let bench = Bench::new().with_group(&devices()[..4]);
        bench.add_devices(&devices()[4..]);
        Self { bench, counters: [0; 6], revoked: [false; 3] }
    }

    fn head(&self) -> ConversationHead {
        self.bench.get(Family::Conversation, key::conversation(&TALK, ConversationTag::Head)).unwrap()
    }

    fn has(&self, device: Authenticated) -> bool {
        self.head().members.iter().any(|member| member.device == device.device())
    }

    fn counter(&mut self, of: usize) -> u64 {
        self.counters[of] += 1;
        self.counters[of]
    }

    fn inboxes(&self) -> [usize; 3] {
        PEOPLE.map(|account| self.bench.inbox(account).len())
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Send { from, behind } => self.send(*from, *behind),
            Step::Commit { by, members } => self.commit(*by, members),
            Step::Leave { by } => self.leave(*by),
            Step::Revoke { account } => self.revoke(*account),
            Step::Reopen => self.bench.reopen(),
        }
    }

    fn send(&mut self, from: usize, behind: u64) {
        let (sender, counter, before) = (devices()[from], self.counter(from), self.inboxes());
        let (head, removals) = (self.head(), removals(&self.bench));
        let epoch = head.epoch - behind;
        let sent = self.bench.run([send_at(sender, counter, epoch)]).sent.remove(0);
        let may = self.has(sender) && removals.is_settled() && epoch >= removals.floor_epoch;
        assert_eq!(sent.result.is_ok(), may, "{:?}", sent.result);
        for ((account, before), after) in PEOPLE.into_iter().zip(before).zip(self.inboxes()) {
            let leaves = head.members.iter().filter(|member| member.account == account).count();
            let reads = if account == sender.account() { leaves > 1 } else { leaves > 0 };
            assert_eq!(after - before, usize::from(may && reads), "{account}");
        }
    }

    fn commit(&mut self, by: usize, members: &[bool]) {
        let committer = devices()[by];
        if !self.has(committer) {
            return;
        }
        let stays: Vec<_> = (0..).zip(devices()).zip(members).filter(|((at, _), stays)| **stays || *at == by).collect();
        let members: Vec<_> = stays.into_iter().map(|((_, device), _)| device).collect();
        let (head, removals, before) = (self.head(), removals(&self.bench), self.inboxes());
        let new = |device: &&Authenticated| !self.has(**device) && device.device() != committer.device();
        let added: Vec<_> = members.iter().filter(new).copied().collect();
        let counter = self.counter(by);
        let mut plan = commit_plan(committer, counter, head.epoch, &members);
        plan.welcomed = added.iter().map(Authenticated::account).collect();
        plan.welcomed.dedup();
        if !added.is_empty() {
            plan.welcome = Bytes::from_static(b"welcome");
        }
        let (changed, _) = self.bench.change(Change::Commit(plan));
        let is_going = removals.pending.contains(&committer.device()) || removals.is_leaving(committer.account());
        let is_revoked = |device: &Authenticated| self.bench.cursor(*device).is_none();
        match changed {
            Ok(_) => assert_eq!(self.head().epoch, head.epoch + 1),
            Err(refusal) => {
                assert!(is_going || added.iter().any(is_revoked), "{refusal:?}");
                assert_eq!((self.head(), self.inboxes()), (head, before));
            }
        }
    }

    fn leave(&mut self, by: usize) {
        let (device, head) = (devices()[by], self.head());
        let may = self.has(device) && !removals(&self.bench).pending.contains(&device.device());
        let (changed, _) = self.bench.change(leave(device, head.epoch));
        assert_eq!(changed.is_ok(), may);
        assert!(!may || removals(&self.bench).is_leaving(device.account()));
    }

    fn revoke(&mut self, account: usize) {
        if std::mem::replace(&mut self.revoked[account], true) {
            return;
        }
        self.bench.changes(revocation(device(PEOPLE[account], 2)), Changed::LogAppended(2));
    }
}

proptest! {
    #[test]
    fn whoever_is_in_a_group_reads_it_and_nobody_else(steps in vec(step(), 0..60)) {
        let mut life = GroupLife::new();
        steps.iter().for_each(|step| life.step(step));
    }
}
