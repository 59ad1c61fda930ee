//! What is read otherwise than it was written.

use bytes::Bytes;
use gureum_proto::AccountId;
use gureum_server::store::record::{CommitRecord, InboxBody, InboxEntry};
use gureum_server::store::{Entry, Family, Record, key};

use super::{Sabotage, is_hit};

/// A value as it is read.
pub(super) fn spoiled(bug: Sabotage, family: Family, value: Bytes) -> Bytes {
    if bug != Sabotage::CommitSpoiled || family != Family::Commit {
        return value;
    }
    let mut record = CommitRecord::decode(&value).expect("commits are written whole");
    let mut commit = record.commit.to_vec();
    if let Some(last) = commit.last_mut() {
        *last ^= 1;
    }
    record.commit = commit.into();
    record.encode().into()
}

/// An entry of an inbox: whose, where, and what stands there.
struct Read {
    account: AccountId,
    seq: u64,
    entry: InboxEntry,
}

/// Entries of an inbox as they are read.
pub(super) fn spoil_inbox(bug: Sabotage, entries: &mut Vec<Entry>) {
    match bug {
        Sabotage::PointerLost => return entries.retain(|(key, _)| !is_hit(key)),
        Sabotage::SilentLoss
        | Sabotage::ReadTwice
        | Sabotage::Swapped
        | Sabotage::CountOff
        | Sabotage::RecordsLost
        | Sabotage::GapMisplaced => {}
        _ => return,
    }
    let mut read: Vec<Read> = entries
        .iter()
        .map(|(entry_key, value)| {
            let (account, seq) = key::parse_inbox(entry_key).expect("an inbox holds positions");
            Read { account, seq, entry: InboxEntry::decode(value).expect("entries are written whole") }
        })
        .collect();
    match bug {
        Sabotage::SilentLoss => lose(&mut read),
        Sabotage::GapMisplaced => misplace(&mut read),
        Sabotage::RecordsLost => lose_silent(&mut read),
        Sabotage::CountOff => read.iter_mut().for_each(|read| read.entry.count += 1),
        _ => confuse(bug, &mut read),
    }
    let encode = |read: Read| {
        let entry_key = key::inbox(&read.account, read.seq);
        (Bytes::copy_from_slice(&entry_key), read.entry.encode().into())
    };
    *entries = read.into_iter().map(encode).collect();
}

const fn is_message(read: &Read) -> bool {
    matches!(read.entry.body, InboxBody::Message)
}

/// Some messages become what their reader passes over.
fn lose(read: &mut [Read]) {
    for read in read.iter_mut().filter(|read| read.seq.is_multiple_of(5) && is_message(read)) {
        read.entry.body = InboxBody::DeviceLog { account: read.account };
    }
}

/// What is silent becomes what its reader passes over.
fn lose_silent(read: &mut [Read]) {
    for read in read.iter_mut().filter(|read| read.entry.body == InboxBody::Silent) {
        read.entry.body = InboxBody::DeviceLog { account: read.account };
    }
}

/// Of two neighbours, the first stands at both places, or each at the other's.
fn confuse(bug: Sabotage, read: &mut [Read]) {
    for pair in read.chunks_exact_mut(2) {
        let [first, second] = pair else { continue };
        if is_message(first) && is_message(second) {
            let other = std::mem::replace(&mut second.entry.id, first.entry.id);
            if bug == Sabotage::Swapped {
                first.entry.id = other;
            }
        }
    }
}

/// The second message and the fifth are gone; both are told to be gone at the fifth.
fn misplace(read: &mut Vec<Read>) {
    let places = read.iter().enumerate().filter(|(_, read)| is_message(read)).map(|(place, _)| place);
    let [_, second, _, _, fifth, _, ..] = places.collect::<Vec<_>>()[..] else { return };
    read[second + 1..fifth].iter_mut().for_each(|read| read.entry.count -= 1);
    read.remove(fifth);
    read.remove(second);
}
