//! The home of an account that was deleted.

use gureum_proto::DeviceId;

use super::in_step::with_two;
use super::*;
use crate::e2ee::content::record::Record;
use crate::vault::in_step::take_records;

#[test]
fn that_it_was_deleted_stays_known_and_the_history_with_it() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "hello");
    b.take(&mut relay);
    assert!(!b.vault.is_deleted().unwrap());
    b.vault.mark_deleted().unwrap();
    b.reopen();
    assert!(b.vault.is_deleted().unwrap());
    assert_eq!(b.history(), ["hello"]);
}

#[test]
fn no_other_device_can_say_so() {
    let (_, mut a, second, _, _) = with_two();
    let from: DeviceId = second.device;
    let deleted = Record::Setting { key: "deleted".to_owned(), value: "yes".to_owned(), stamp: 9, device: from };
    a.inside(|work| take_records(work, from, vec![deleted]).map(drop).unwrap());
    assert!(!a.vault.is_deleted().unwrap());
}
