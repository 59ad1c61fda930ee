//! KeyPackages: a one-time one is given once, a last resort when there is no other, and its device is told.

use std::collections::BTreeSet;

use gureum_proto::limits::{CLAIM_PAGE_BYTES, KEY_PACKAGE_BYTES_MAX, KEY_PACKAGES_LOW};
use gureum_proto::{DeviceKeyPackage, KeyPackages, Notice};
use proptest::prelude::*;

use super::*;
use crate::limits::KEY_PACKAGES_STORED_MAX;
use crate::store::key::KeyPackageKind;
use crate::store::record::KeyPackageRecord;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn package(number: u8, not_after_ms: u64) -> ([u8; 32], KeyPackageRecord) {
    ([number; 32], KeyPackageRecord { not_after_ms, package: Bytes::copy_from_slice(&[number]) })
}

fn plan_of(from: Authenticated, one_time: &[u8], last_resort: Option<u8>) -> KeyPackagesPlan {
    KeyPackagesPlan {
        from,
        one_time: one_time.iter().map(|number| package(*number, START_MS + DAY_MS)).collect(),
        last_resort: last_resort.map(|number| package(number, START_MS + DAY_MS)),
        replace: false,
    }
}

pub(super) fn put(one_time: &[u8], last_resort: Option<u8>) -> Change {
    Change::PutKeyPackages(plan_of(device(BOB, 1), one_time, last_resort))
}

/// Drops what there is of Bob's first device and puts this.
fn replace(one_time: &[u8], last_resort: Option<u8>) -> Change {
    Change::PutKeyPackages(KeyPackagesPlan { replace: true, ..plan_of(device(BOB, 1), one_time, last_resort) })
}

fn claim_of(of: &[(AccountId, &[u8])]) -> Change {
    let devices = |account, numbers: &[u8]| numbers.iter().map(|number| device(account, *number).device()).collect();
    let of = of.iter().map(|(account, numbers)| (*account, devices(*account, numbers))).collect();
    Change::ClaimKeyPackages(ClaimPlan { of })
}

pub(super) fn claim(devices: &[u8]) -> Change {
    claim_of(&[(BOB, devices)])
}

fn given(of: Authenticated, number: u8) -> DeviceKeyPackage {
    let key_package = Bytes::copy_from_slice(&[number]);
    DeviceKeyPackage { account: of.account(), device: of.device(), key_package }
}

fn claimed(number: u8) -> Changed {
    Changed::KeyPackages(KeyPackages { packages: vec![given(device(BOB, 1), number)], missing: vec![] })
}

fn stored(bench: &Bench, of: Authenticated, kind: KeyPackageKind) -> Vec<Bytes> {
    let range = key::key_packages(&of.account(), &of.device(), kind);
    let entries = bench.store.scan(Family::KeyPackage, range.as_range(), KEY_PACKAGES_STORED_MAX).unwrap();
    let read = |value: &Bytes| store::decode::<KeyPackageRecord>(Family::KeyPackage, value).unwrap().package;
    entries.iter().map(|(_, value)| read(value)).collect()
}

fn is_given_out(bench: &Bench, of: Authenticated) -> bool {
    let given_out = key::cursor(&of.account(), &of.device(), CursorTag::LastResort);
    bench.get::<()>(Family::Cursor, given_out).is_some()
}

#[test]
fn a_key_package_is_given_once_and_then_the_last_resort_for_ever() {
    let mut bench = Bench::of(&[device(BOB, 1)]);
    bench.changes(put(&[1, 2], Some(9)), Changed::KeyPackagesStored(2));
    assert!(bench.changes(claim(&[1]), claimed(1)).must_sync);
    bench.reopen();
    bench.changes(claim(&[1]), claimed(2));
    bench.changes(claim(&[1]), claimed(9));
    bench.changes(claim(&[1]), claimed(9));
}

#[test]
fn a_new_last_resort_replaces_the_old_one() {
    let mut bench = Bench::of(&[device(BOB, 1)]);
    bench.changes(put(&[], Some(9)), Changed::KeyPackagesStored(0));
    bench.changes(put(&[], Some(3)), Changed::KeyPackagesStored(0));
    bench.changes(claim(&[1]), claimed(3));
    assert_eq!(stored(&bench, device(BOB, 1), KeyPackageKind::LastResort).len(), 1);
}

#[test]
fn expired_key_packages_are_skipped_and_go() {
    let mut bench = Bench::of(&[device(BOB, 1)]);
    let one_time = vec![package(1, START_MS), package(2, START_MS + 1)];
    let last_resort = Some(package(9, START_MS + 1));
    let put = KeyPackagesPlan { from: device(BOB, 1), one_time, last_resort, replace: false };
    bench.changes(Change::PutKeyPackages(put), Changed::KeyPackagesStored(2));
    bench.changes(claim(&[1]), claimed(2));
    assert_eq!(stored(&bench, device(BOB, 1), KeyPackageKind::OneTime), [] as [Bytes; 0]);
    bench.advance(1);
    bench.refuses(claim(&[1]), Code::KeyPackagesExhausted);
}

#[test]
fn a_claim_leaves_out_who_has_no_key_package_and_fails_where_nobody_has_one() {
    let mut bench = Bench::of(&[device(BOB, 1)]);
    bench.changes(put(&[1], None), Changed::KeyPackagesStored(1));
    bench.changes(claim(&[2, 1, 3]), claimed(1));
    bench.refuses(claim(&[1, 2]), Code::KeyPackagesExhausted);
    bench.changes(claim(&[]), Changed::KeyPackages(KeyPackages::default()));
}

#[test]
fn a_claim_of_several_accounts_takes_one_of_each_device_and_says_which_account_has_none() {
    let devices = [device(BOB, 1), device(BOB, 2), device(EVE, 1)];
    let mut bench = Bench::of(&devices);
    for (from, number) in devices.into_iter().zip(1..) {
        let put = Change::PutKeyPackages(plan_of(from, &[number], None));
        bench.changes(put, Changed::KeyPackagesStored(1));
    }
    // Alice's own: she has no other device.
    let all = || claim_of(&[(EVE, &[1]), (ALICE, &[]), (BOB, &[1, 2])]);
    let packages = vec![given(device(EVE, 1), 3), given(device(BOB, 1), 1), given(device(BOB, 2), 2)];
    bench.changes(all(), Changed::KeyPackages(KeyPackages { packages, missing: vec![] }));
    bench.changes(put(&[4], None), Changed::KeyPackagesStored(1));
    let some = KeyPackages { packages: vec![given(device(BOB, 1), 4)], missing: vec![EVE] };
    bench.changes(all(), Changed::KeyPackages(some));
    bench.refuses(all(), Code::KeyPackagesExhausted);
}

#[test]
fn a_claim_of_long_key_packages_ends_before_its_answer_is_too_long() {
    let accounts: Vec<_> = (1..=8).map(|number| AccountId::from_bytes([number; 16])).collect();
    let devices = |account: AccountId| (1..=10).map(move |number| device(account, number));
    let all: Vec<_> = accounts.iter().flat_map(|account| devices(*account)).collect();
    let mut bench = Bench::of(&all);
    for from in &all {
        let record = KeyPackageRecord { not_after_ms: u64::MAX, package: vec![7; KEY_PACKAGE_BYTES_MAX].into() };
        let put = KeyPackagesPlan { from: *from, one_time: vec![([1; 32], record)], last_resort: None, replace: false };
        bench.changes(Change::PutKeyPackages(put), Changed::KeyPackagesStored(1));
    }
    let mut left = accounts;
    let mut sizes = Vec::new();
    while !left.is_empty() {
        let of = left.iter().map(|account| (*account, devices(*account).map(|of| of.device()).collect())).collect();
        let (changed, _) = bench.change(Change::ClaimKeyPackages(ClaimPlan { of }));
        let Ok(Changed::KeyPackages(KeyPackages { packages, missing })) = changed else { panic!("{changed:?}") };
        assert_eq!(missing, []);
        let served: BTreeSet<_> = packages.iter().map(|package| package.account).collect();
        assert_eq!(packages.len(), 10 * served.len(), "an account is served whole");
        left.retain(|account| !served.contains(account));
        sizes.push(packages.len() * KEY_PACKAGE_BYTES_MAX);
    }
    assert_eq!(sizes.len(), 2);
    assert!((CLAIM_PAGE_BYTES..CLAIM_PAGE_BYTES + 10 * KEY_PACKAGE_BYTES_MAX).contains(&sizes[0]), "{sizes:?}");
}

#[test]
fn a_device_is_told_when_few_are_left_and_when_its_last_resort_went_out() {
    let bob = device(BOB, 1);
    let mut bench = Bench::of(&[bob]);
    let numbers: Vec<u8> = (1..=11).collect();
    bench.changes(put(&numbers, Some(99)), Changed::KeyPackagesStored(11));
    let told = |key_packages_left, last_resort_used| {
        vec![(BOB, device(BOB, 1).device(), Notice { key_packages_left, last_resort_used })]
    };
    assert_eq!(bench.changes(claim(&[1]), claimed(1)).notices, [], "there are enough");
    for (number, left) in (2..=11).zip((0..KEY_PACKAGES_LOW).rev()) {
        assert_eq!(bench.changes(claim(&[1]), claimed(number)).notices, told(left, false));
        assert!(!is_given_out(&bench, bob));
    }
    for _ in 0..2 {
        assert_eq!(bench.changes(claim(&[1]), claimed(99)).notices, told(0, true));
        assert!(is_given_out(&bench, bob));
        bench.reopen();
    }
    bench.changes(put(&[1, 2], None), Changed::KeyPackagesStored(2));
    assert_eq!(bench.changes(claim(&[1]), claimed(1)).notices, told(1, true), "it stays so until there is a new one");
    bench.changes(put(&[], Some(98)), Changed::KeyPackagesStored(1));
    assert!(!is_given_out(&bench, bob));
    assert_eq!(bench.changes(claim(&[1]), claimed(2)).notices, told(0, false));
}

#[test]
fn a_device_of_which_nothing_is_left_is_told_although_the_claim_is_refused() {
    let mut bench = Bench::of(&[device(BOB, 1)]);
    let (changed, plan) = bench.change(claim(&[1]));
    assert_eq!(changed.map_err(|refusal| refusal.code), Err(Code::KeyPackagesExhausted));
    let notice = Notice { key_packages_left: 0, last_resort_used: true };
    assert_eq!(plan.notices, [(BOB, device(BOB, 1).device(), notice)]);
    assert!(plan.batch.is_empty() && !is_given_out(&bench, device(BOB, 1)));
}

#[test]
fn what_is_replaced_is_given_to_nobody_any_more() {
    let bob = device(BOB, 1);
    let mut bench = Bench::of(&[bob]);
    bench.changes(put(&[1, 2], Some(9)), Changed::KeyPackagesStored(2));
    bench.changes(claim(&[1]), claimed(1));
    bench.changes(replace(&[3], None), Changed::KeyPackagesStored(1));
    assert_eq!(stored(&bench, bob, KeyPackageKind::LastResort), [] as [Bytes; 0]);
    bench.changes(claim(&[1]), claimed(3));
    bench.refuses(claim(&[1]), Code::KeyPackagesExhausted);
    bench.changes(put(&[], Some(9)), Changed::KeyPackagesStored(0));
    bench.changes(claim(&[1]), claimed(9));
    // The same bytes again are there, whatever went before them.
    bench.changes(replace(&[4], Some(9)), Changed::KeyPackagesStored(1));
    assert!(!is_given_out(&bench, bob));
    bench.changes(claim(&[1]), claimed(4));
    bench.changes(claim(&[1]), claimed(9));
}

#[test]
fn the_directory_keeps_a_bounded_number_of_key_packages() {
    let mut bench = Bench::of(&[device(BOB, 1)]);
    let max = u8::try_from(KEY_PACKAGES_STORED_MAX).unwrap();
    let numbers: Vec<_> = (0..max).collect();
    bench.changes(put(&numbers, None), Changed::KeyPackagesStored(u32::from(max)));
    bench.refuses(put(&[max], None), Code::LimitReached);
    bench.changes(put(&[], Some(9)), Changed::KeyPackagesStored(u32::from(max)));
    bench.changes(replace(&[max], None), Changed::KeyPackagesStored(1));
}

#[test]
fn a_revoked_device_leaves_nothing_of_a_last_resort() {
    let bob = device(BOB, 1);
    let mut bench = Bench::of(&[bob]);
    bench.changes(put(&[], Some(9)), Changed::KeyPackagesStored(0));
    bench.changes(claim(&[1]), claimed(9));
    bench.changes(revocation(bob), Changed::LogAppended(2));
    assert!(!is_given_out(&bench, bob));
    assert_eq!(stored(&bench, bob, KeyPackageKind::LastResort), [] as [Bytes; 0]);
}

#[test]
fn a_refused_change_leaves_the_sends_of_its_batch_alone() {
    let mut bench = Bench::talk();
    let mut plan = bench.plan([send(device(ALICE, 1), 1)]);
    let now_ms = bench.now_ms;
    let refused = bench.planner.add_change(claim(&[1]), now_ms, &mut plan).unwrap();
    assert_eq!(refused.map_err(|refusal| refusal.code), Err(Code::KeyPackagesExhausted));
    bench.planner.finish(&mut plan);
    bench.write(&plan).unwrap();
    let id = is_new(&plan.sent[0].result);
    assert_eq!(bench.inbox(BOB)[0].1.id, id);
    assert!(bench.message(id).is_some(), "what is answered is stored");
}

#[derive(Debug, Clone)]
enum Step {
    Put { device: usize, count: u16, last_resort: bool, replace: bool, is_written: bool },
    Claim { of: [bool; 3], is_written: bool },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let is_written = || prop::bool::weighted(0.8);
    prop_oneof![
        3 => (0..3_usize, 0..4_u16, any::<bool>(), prop::bool::weighted(0.2), is_written()).prop_map(
            |(device, count, last_resort, replace, is_written)| {
                Step::Put { device, count, last_resort, replace, is_written }
            }
        ),
        6 => (any::<[bool; 3]>(), is_written()).prop_map(|(of, is_written)| Step::Claim { of, is_written }),
        1 => Just(Step::Reopen),
    ]
}

/// What the directory has of a device.
#[derive(Debug, Clone, Default)]
struct Kept {
    one_time: BTreeSet<u16>,
    last_resort: Option<u16>,
    is_given_out: bool,
}

impl Kept {
    fn take(&mut self) -> Option<u16> {
        let one_time = self.one_time.pop_first();
        if one_time.is_none() && self.last_resort.is_some() {
            self.is_given_out = true;
        }
        one_time.or(self.last_resort)
    }
}

fn numbered(number: u16) -> ([u8; 32], KeyPackageRecord) {
    let mut hash = [0; 32];
    hash[..2].copy_from_slice(&number.to_be_bytes());
    (hash, KeyPackageRecord { not_after_ms: u64::MAX, package: Bytes::copy_from_slice(&number.to_be_bytes()) })
}

fn number_of(package: &Bytes) -> u16 {
    u16::from_be_bytes(package.as_ref().try_into().unwrap())
}

/// A bench, what its directory must have, and what was given to somebody.
struct Run {
    bench: Bench,
    kept: [Kept; 3],
    next: u16,
    given: BTreeSet<u16>,
}

impl Run {
    fn devices() -> [Authenticated; 3] {
        [device(BOB, 1), device(BOB, 2), device(EVE, 1)]
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Put { device, count, last_resort, replace, is_written } => {
                let new: Vec<_> = (self.next..self.next + count).collect();
                let last_resort = last_resort.then_some(self.next + count);
                self.next += count + 1;
                let mut kept = self.kept.clone();
                let its = &mut kept[device];
                if replace {
                    *its = Kept::default();
                }
                its.one_time.extend(&new);
                if last_resort.is_some() {
                    (its.last_resort, its.is_given_out) = (last_resort, false);
                }
                let left = u32::try_from(its.one_time.len()).unwrap();
                let put = KeyPackagesPlan {
                    from: Self::devices()[device],
                    one_time: new.into_iter().map(numbered).collect(),
                    last_resort: last_resort.map(numbered),
                    replace,
                };
                let changed = self.change(Change::PutKeyPackages(put), is_written);
                assert_eq!(changed, Ok(Changed::KeyPackagesStored(left)));
                if is_written {
                    self.kept = kept;
                }
            }
            Step::Claim { of, is_written } => self.claim(of, is_written),
            Step::Reopen => self.bench.reopen(),
        }
        self.check();
    }

    fn claim(&mut self, of: [bool; 3], is_written: bool) {
        let mut kept = self.kept.clone();
        let (mut plan, mut expected, mut one_time) = (Vec::new(), KeyPackages::default(), Vec::new());
        for (account, indexes) in [(BOB, vec![0, 1]), (EVE, vec![2])] {
            let asked: Vec<usize> = indexes.into_iter().filter(|index| of[*index]).collect();
            let before = expected.packages.len();
            for index in &asked {
                let last_resort = kept[*index].last_resort;
                if let Some(number) = kept[*index].take() {
                    let (device, key_package) = (Self::devices()[*index].device(), numbered(number).1.package);
                    expected.packages.push(DeviceKeyPackage { account, device, key_package });
                    one_time.extend(Some(number).filter(|number| Some(*number) != last_resort));
                }
            }
            if expected.packages.len() == before && !asked.is_empty() {
                expected.missing.push(account);
            }
            plan.push((account, asked.iter().map(|index| Self::devices()[*index].device()).collect()));
        }
        let changed = self.change(Change::ClaimKeyPackages(ClaimPlan { of: plan }), is_written);
        if expected.packages.is_empty() && !expected.missing.is_empty() {
            assert_eq!(changed.map_err(|refusal| refusal.code), Err(Code::KeyPackagesExhausted));
            return;
        }
        assert_eq!(changed, Ok(Changed::KeyPackages(expected)));
        if is_written {
            self.kept = kept;
            one_time.into_iter().for_each(|number| assert!(self.given.insert(number), "{number} was given twice"));
        }
    }

    /// What the change leads to, and whether the disk takes it. If it does not, nobody is answered that.
    fn change(&mut self, change: Change, is_written: bool) -> Result<Changed, Refusal> {
        let mut plan = Plan::default();
        let changed = self.bench.planner.add_change(change, self.bench.now_ms, &mut plan).unwrap();
        self.bench.planner.finish(&mut plan);
        if !is_written {
            self.bench.store.fail_next_write(StoreError::Io("planned".to_owned()));
        }
        assert_eq!(self.bench.write(&plan).is_ok(), is_written);
        changed
    }

    fn check(&self) {
        for (device, kept) in Self::devices().into_iter().zip(&self.kept) {
            let numbers = |kind| stored(&self.bench, device, kind).iter().map(number_of).collect::<BTreeSet<_>>();
            assert_eq!(numbers(KeyPackageKind::OneTime), kept.one_time);
            assert_eq!(numbers(KeyPackageKind::LastResort), kept.last_resort.into_iter().collect::<BTreeSet<_>>());
            assert_eq!(is_given_out(&self.bench, device), kept.is_given_out);
        }
    }
}

proptest! {
    #[test]
    fn no_key_package_is_given_twice_whatever_fails(steps in prop::collection::vec(step(), 0..60)) {
        let bench = Bench::of(&Run::devices());
        let mut run = Run { bench, kept: <[Kept; 3]>::default(), next: 0, given: BTreeSet::new() };
        steps.iter().for_each(|step| run.step(step));
    }
}
