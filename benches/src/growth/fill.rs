//! Fills a data directory with messages for devices that do not come: by the server's own planner and keyring, so that a
//! server that is started on it finds what it would have written itself.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use gureum_server::store::Durability;
use gureum_server::time::SystemClock;

use super::machine::Machine;
use super::people::People;

/// What each inbox gets.
const INBOX_MESSAGES: u64 = 100;
/// Messages to one inbox in a row: those of an inbox lie in several tables, among others'.
const VISIT_MESSAGES: u64 = 20;
/// Accounts that each sender writes to.
const TALKS_OF_SENDER: usize = 10;
/// Messages of one batch.
const BATCH_MESSAGES: u64 = 2_000;
/// Between two rounds of maintenance: far less than a key's hour.
const ROUND_MESSAGES: u64 = 1_000_000;

/// Adds so many messages, all of now, to accounts that are made for them, and leaves everything in tables, with nothing to
/// rewrite. Other seeds make other accounts.
///
/// # Errors
/// What the disk says.
pub fn fill(directory: &Path, messages: u64, sealed_bytes: usize, seed: u64, tell: impl Fn(u64)) -> Result<()> {
    let mut machine = Machine::open(directory, Arc::new(SystemClock::new()))?;
    let talks = usize::try_from(messages.div_ceil(INBOX_MESSAGES))?;
    let mut people = People::new(seed, talks, TALKS_OF_SENDER, |_| false)?;
    people.enter(&machine)?;
    let body = Bytes::from(vec![0x5a; sealed_bytes]);
    let (mut sent, mut committed, mut told) = (0, 0, 0);
    for talk in (0..talks).cycle() {
        if sent == messages {
            break;
        }
        for _ in 0..VISIT_MESSAGES.min(messages - sent) {
            machine.add(people.send(talk, &body)?)?;
            sent += 1;
        }
        if sent - committed >= BATCH_MESSAGES || sent == messages {
            // Nobody waits for an answer, and a close syncs.
            machine.commit(Durability::Lazy)?;
            committed = sent;
        }
        if sent - told >= ROUND_MESSAGES {
            machine.round()?;
            tell(sent);
            told = sent;
        }
    }
    machine.round()?;
    machine.close()
}

#[cfg(test)]
mod tests {
    use gureum_server::bare;
    use gureum_server::store::Family;
    use rocksdb::IteratorMode;

    use super::*;
    use crate::limits::writes::expiry;

    #[test]
    fn what_was_filled_is_in_the_database_and_more_can_be_added() {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path(), 250, 256, 1, |_| ()).unwrap();
        fill(directory.path(), 40, 256, 2, |_| ()).unwrap();
        let db = bare::database(&directory.path().join("db"), &expiry().unwrap()).unwrap().0;
        let count = |family: Family| db.iterator_cf(db.cf_handle(family.name()).unwrap(), IteratorMode::Start).count();
        assert_eq!((count(Family::Message), count(Family::Inbox)), (290, 290));
        // Three inboxes, and one of the second time.
        assert_eq!(count(Family::InboxHead), 4);
        assert_eq!(count(Family::Conversation), 2 * 4, "a head and a number each");
    }

    #[test]
    fn nothing_leaves_an_empty_store() {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path(), 0, 256, 1, |_| ()).unwrap();
        assert!(directory.path().join("db").exists() && directory.path().join("clock").exists());
    }
}
