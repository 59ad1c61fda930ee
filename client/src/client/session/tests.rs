//! What a session makes of a failed rejoin, and what it hands over again.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

use gureum_proto::{AccountId, Code, ConversationId, Refusal, Send};

use super::outbox::not_in_flight;
use super::*;
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
    check(RejoinError::Vault(VaultError::CountersUnresolved), true);
    check(LinkError::Refused(Refusal::new(Code::NotMember)), true);
    check(TrustError::Forked(AccountId::from_bytes([1; 16])), true);
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
    };
    let left = not_in_flight((1..=5).map(send).collect(), &BTreeSet::from([1, 2, 4]));
    assert_eq!(left.iter().map(|send| send.counter).collect::<Vec<_>>(), [3, 5]);
}
