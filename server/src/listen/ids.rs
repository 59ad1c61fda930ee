//! The ids of this server's connections: so many of them that none is met twice, and of a form that it knows again after a
//! restart.
//!
//! quinn has a generator for that whose ids differ in 24 bits (quinn issue 2883), which is too few beside its Retry: the id
//! that a Retry names is looked up among those of all connections, five of each and the one that it came by, and a client
//! that is sent to a taken one gets no answer to any of its packets until it gives up. Among 5,000 connections one newcomer
//! in 560 was.

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};

/// Derives the key of connection ids from that of stateless resets.
const CONTEXT: &str = "gureum 2026-11 connection ids v2";
/// What tells ids apart. With 600,000 of them, those of as many connections as there may be, one Retry in 3 × 10^13 names a
/// taken one.
const NONCE_BYTES: usize = 8;
/// What shows that an id is of this server: one in 4 billion of those that are made up passes.
const TAG_BYTES: usize = 4;

/// Makes ids and knows them again.
#[derive(Clone)]
pub(super) struct Ids {
    key: [u8; 32],
}

impl Ids {
    /// The same key marks the ids of one server before and after a restart: a packet with any other id is not answered, so
    /// that without it no old connection would learn of its end.
    pub(super) fn new(reset_key: &[u8; 32]) -> Self {
        Self { key: blake3::derive_key(CONTEXT, reset_key) }
    }

    fn tag(&self, nonce: &[u8]) -> [u8; TAG_BYTES] {
        let hash = blake3::keyed_hash(&self.key, nonce);
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; NONCE_BYTES + TAG_BYTES];
        let (nonce, tag) = id.split_at_mut(NONCE_BYTES);
        getrandom::fill(nonce).expect("the system has randomness");
        tag.copy_from_slice(&self.tag(nonce));
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.split_at_checked(NONCE_BYTES) {
            Some((nonce, tag)) if tag == self.tag(nonce) => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        NONCE_BYTES + TAG_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::limits::CONNECTIONS_MAX;

    #[test]
    fn no_id_is_made_twice_for_as_many_connections_as_there_may_be() {
        let mut ids = Ids::new(&[1; 32]);
        let made: HashSet<_> = (0..CONNECTIONS_MAX).map(|_| ids.generate_cid()).collect();
        assert_eq!(made.len(), CONNECTIONS_MAX);
        assert!(made.iter().all(|id| id.len() == ids.cid_len()));
    }

    #[test]
    fn an_id_is_known_again_after_a_restart_and_no_other_is() {
        let (mut before, after, other) = (Ids::new(&[1; 32]), Ids::new(&[1; 32]), Ids::new(&[2; 32]));
        let id = before.generate_cid();
        assert!(after.validate(&id).is_ok());
        assert!(other.validate(&id).is_err(), "of another server");
        for index in 0..id.len() {
            let mut altered = id;
            altered[index] ^= 1;
            assert!(after.validate(&altered).is_err(), "byte {index}");
        }
        for length in 0..id.len() {
            assert!(after.validate(&ConnectionId::new(&id[..length])).is_err(), "{length} bytes");
        }
    }
}
