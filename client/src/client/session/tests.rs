//! What a session makes of a failed rejoin, and what it hands over again.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

use gureum_proto::Code;

use super::*;
use crate::vault::VaultError;

#[track_caller]
fn check_goes_on(error: RejoinError) {
    let told = error.to_string();
    let outcome = unless_rejoin_waits(Err(error.into())).unwrap();
    assert_eq!(outcome.map(|error| error.to_string()), Some(told));
}

#[test]
fn a_conversation_that_cannot_be_rejoined_does_not_end_the_session() {
    check_goes_on(RejoinError::TooOften { retry_after_ms: 3_600_000 });
    check_goes_on(RejoinError::Older { shown: 1, seen: 2 });
    check_goes_on(RejoinError::Refused("it is of another epoch".to_owned()));
    check_goes_on(RejoinError::Raced);
    assert!(unless_rejoin_waits(Ok(())).unwrap().is_none());
}

#[test]
fn a_failed_database_or_connection_ends_the_session() {
    let database = RejoinError::Vault(VaultError::Random);
    assert!(unless_rejoin_waits(Err(database.into())).is_err());
    let lost = LinkError::Closed { code: Code::Stopping, reason: String::new() };
    assert!(unless_rejoin_waits(Err(lost.into())).is_err());
}

#[test]
fn what_has_no_answer_yet_is_not_handed_over_twice() {
    let send = |counter| Send {
        counter,
        conversation: ConversationId::from_bytes([1; 16]),
        epoch: 1,
        ciphertext: bytes::Bytes::new(),
    };
    let left = not_in_flight((1..=5).map(send).collect(), &BTreeSet::from([1, 2, 4]));
    assert_eq!(left.iter().map(|send| send.counter).collect::<Vec<_>>(), [3, 5]);
}
