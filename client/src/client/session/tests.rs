//! What a session makes of a failed rejoin, and what it hands over again.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

use gureum_proto::{AccountId, Code, ConversationId, Refusal, Send};

use super::outbox::not_in_flight;
use super::*;
use crate::limits::REFILL_PAUSE;
use crate::vault::{RejoinError, TrustError, VaultError};

#[track_caller]
fn check(error: impl Into<ClientError>, confined: bool) {
    let error = error.into();
    assert_eq!(error.is_confined(), confined, "{error}");
}

#[test]
fn trouble_of_one_conversation_is_told_from_that_of_the_connection() {
    check(RejoinError::TooOften { retry_after_ms: 3_600_000 }, true);
    check(RejoinError::Older { shown: 1, seen: 2 }, true);
    check(RejoinError::Refused("it is of another epoch".to_owned()), true);
    check(RejoinError::Raced, true);
    check(RejoinError::HandleMoved("bob".parse().unwrap()), true);
    check(RejoinError::Vault(VaultError::CountersUnresolved), true);
    check(LinkError::Refused(Refusal::new(Code::NotMember)), true);
    check(
        TrustError::Forked { account: AccountId::from_bytes([1; 16]), handle: "bob".to_owned(), told_by: None },
        true,
    );
    check(ClientError::Stuck("a commit log without end".to_owned()), true);
}

#[test]
fn a_failed_database_or_connection_ends_the_session() {
    check(RejoinError::Vault(VaultError::Random), false);
    check(TrustError::Vault(VaultError::Random), false);
    check(VaultError::Damaged("profile"), false);
    check(LinkError::Closed { code: Code::Stopping, reason: String::new() }, false);
    check(LinkError::Timeout("the answer to a request"), false);
    check(ClientError::Mismatched, false);
}

#[test]
fn what_has_no_answer_yet_is_not_handed_over_twice() {
    let send = |counter| Send {
        counter,
        conversation: ConversationId::from_bytes([1; 16]),
        epoch: 1,
        ciphertext: bytes::Bytes::new(),
        silent: false,
    };
    let left = not_in_flight((1..=5).map(send).collect(), &BTreeSet::from([1, 2, 4]));
    assert_eq!(left.iter().map(|send| send.counter).collect::<Vec<_>>(), [3, 5]);
}

#[test]
fn notices_are_answered_at_once_and_then_at_a_pace_and_a_used_last_resort_is_not_forgotten() {
    let notice = |key_packages_left, last_resort_used| Notice { key_packages_left, last_resort_used };
    let (mut refill, start) = (Refill::default(), Instant::now());
    assert_eq!((refill.at(), refill.take(start)), (None, None));
    refill.note(notice(9, true));
    refill.note(notice(8, false));
    assert!(refill.at().is_some_and(|at| at <= Instant::now()));
    assert_eq!(refill.take(start), Some(notice(8, true)));
    assert_eq!(refill.at(), None);
    refill.note(notice(7, false));
    assert_eq!(refill.at(), Some(start + REFILL_PAUSE));
    let taken = refill.take(start + REFILL_PAUSE).unwrap();
    assert_eq!(taken, notice(7, false));
    refill.postpone(taken, start + 9 * REFILL_PAUSE);
    assert_eq!(refill.at(), Some(start + 9 * REFILL_PAUSE));
}
