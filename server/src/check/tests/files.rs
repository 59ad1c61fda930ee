//! Faults of files, one a line.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use gureum_proto::MessageId;

use super::made::*;
use crate::check::Kind::{self, Database, KeyMissing, KeyPastItsTime, LeftOver, Time};
use crate::invite::ServerFile;
use crate::seal::period_ms;
use crate::store::Family;
use crate::store::key::{self, Key, message};
use crate::store::record::InboxEntry;
use crate::time::save_last_known_ms;

type Harm = fn(&Harmed);

/// The file of the first hour's key.
const FIRST_KEY: &str = "keys/1800000000000-1800003600000.key";

fn write(harmed: &Harmed, name: &str, bytes: &[u8]) {
    fs::write(harmed.path.join(name), bytes).unwrap();
}

/// A table that nothing names, written at a time.
fn table(harmed: &Harmed, written_ms: u64) {
    let file = File::create(harmed.path.join("db/000999.sst")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_millis(written_ms)).unwrap();
}

/// The server says this of itself.
fn says(harmed: &Harmed, change: impl FnOnce(&mut ServerFile)) {
    let mut server = ServerFile::read(&harmed.path).unwrap().unwrap();
    change(&mut server);
    server.write(&harmed.path).unwrap();
}

fn remove_keys(harmed: &Harmed) {
    for entry in fs::read_dir(harmed.path.join("keys")).unwrap().map(Result::unwrap) {
        if entry.file_name() != "master.key" {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// Each with what it does, and the kinds and places that the audit must find: these, and nothing else.
#[rustfmt::skip]
const FAULTS: &[(Harm, &[(Kind, &str)])] = &[
    (|h| h.remove("FORMAT"), &[(Kind::File, "FORMAT")]),
    (|h| write(h, "FORMAT", b"another"), &[(Kind::File, "FORMAT")]),
    (|h| h.remove("clock"), &[(Kind::File, "clock")]),
    (|h| write(h, "clock", b"noon"), &[(Kind::File, "clock")]),
    (|h| save_last_known_ms(&h.path, NOW_MS + 2 * HOUR_MS).unwrap(), &[(Time, "clock")]),
    (|h| save_last_known_ms(&h.path, NOW_MS - 41 * DAY_MS).unwrap(), &[(Time, "clock")]),
    (|h| h.remove("sequence"), &[(Kind::File, "sequence")]),
    (|h| write(h, "sequence", b"12"), &[(Kind::File, "sequence")]),
    (|h| write(h, "sequence", crate::checked::line("sequence", "00000000000000009999").as_bytes()), &[(Database, "db")]),
    (|h| h.remove("tls"), &[(Kind::File, "tls/cert.pem"), (Kind::File, "tls/key.pem")]),
    (|h| h.remove("tls/cert.pem"), &[(Kind::File, "tls/cert.pem")]),
    (|h| h.remove("tls/key.pem"), &[(Kind::File, "tls/key.pem")]),
    (|h| write(h, "tls/key.pem", b"?"), &[(Kind::File, "tls/key.pem")]),
    (|h| h.remove("invite.key"), &[(Kind::File, "invite.key")]),
    (|h| write(h, "invite.key", b"?"), &[(Kind::File, "invite.key")]),
    (|h| write(h, "server.json", b"?"), &[(Kind::File, "server.json")]),
    (|h| { h.remove("server.json"); h.remove("tls"); h.remove("invite.key"); }, &[(Kind::File, "invite.key"), (Kind::File, "tls/cert.pem"), (Kind::File, "tls/key.pem")]),
    (|h| write(h, "keys/push.secret", b"?"), &[(Kind::File, "keys/push.secret")]),
    (|h| write(h, "keys/phone.secret", &[1; 61]), &[(Kind::File, "keys/phone.secret")]),
    (|h| write(h, "keys/odd.secret", b"?"), &[(Kind::File, "keys/odd.secret")]),
    (|h| h.remove("keys/master.key"), &[(Kind::File, "keys/master.key")]),
    (|h| write(h, "keys/master.key", b"?"), &[(Kind::File, "keys")]),
    (|h| write(h, "backup.json", b"?"), &[(Kind::File, "backup.json")]),
    (|h| write(h, "keys/odd.key", b"?"), &[(Kind::File, "keys/odd.key")]),
    (|h| write(h, FIRST_KEY, &[7; 61]), &[(Kind::File, "keys"), (KeyMissing, "keys")]),
    (|h| write(h, FIRST_KEY, b"?"), &[(Kind::File, "keys"), (Kind::File, FIRST_KEY), (KeyMissing, "keys")]),
    (remove_keys, &[(KeyMissing, "keys")]),
    (|h| write(h, "keys/1000-3601000.gone", b"?"), &[(KeyPastItsTime, "keys/1000-3601000.gone")]),
    (|h| fs::create_dir(h.path.join("checkpoint")).unwrap(), &[(LeftOver, "checkpoint")]),
    (|h| table(h, NOW_MS - RETENTION_MS - 7 * HOUR_MS), &[(LeftOver, "db/000999.sst")]),
    (|h| h.remove("db/CURRENT"), &[(Database, "db")]),
];

#[test]
fn every_fault_of_a_file_is_found_by_kind_and_place_and_nothing_else_is() {
    let made = Made::new();
    for (index, (harm, finds)) in FAULTS.iter().enumerate() {
        let harmed = made.copy();
        harm(&harmed);
        let report = harmed.check_at(NOW_MS);
        let mut expected: Vec<_> = finds.iter().map(|(kind, place)| found(*kind, place, "")).collect();
        expected.sort();
        assert_eq!(all_found(&report), expected, "fault {index}: {report:#?}");
    }
}

#[test]
fn a_key_without_which_targets_or_numbers_are_void_is_missed() {
    let made = Made::new();
    let harmed = made.copy();
    harmed.change(|changes| super::faults::lives(&made, changes));
    assert_eq!(all_found(&harmed.check_at(NOW_MS)), []);
    let backup = harmed.backup(NOW_MS).check_at(NOW_MS);
    assert_eq!(all_found(&backup), [], "{backup:#?}");
    for (place, kind) in [
        ("keys/push.secret", Kind::SecretMissing),
        ("keys/phone.secret", Kind::SecretMissing),
        ("vapid.key", Kind::File),
    ] {
        let bytes = fs::read(harmed.path.join(place)).unwrap();
        harmed.remove(place);
        assert_eq!(all_found(&harmed.check_at(NOW_MS)), [found(kind, place, "")]);
        write(&harmed, place, &bytes);
    }
}

#[test]
fn a_database_of_before_families_came_is_sound_and_can_be_restored() {
    let harmed = Made::new().copy();
    harmed.lack_what_came_later();
    let report = harmed.check_at(NOW_MS);
    assert_eq!(all_found(&report), [], "{report:#?}");
    let backup = harmed.backup(NOW_MS);
    let report = backup.check_at(NOW_MS);
    assert_eq!(all_found(&report), [], "{report:#?}");
    let to = harmed.path.with_extension("restored");
    let restored = crate::backup::restore(&backup.path, &to, Some(&harmed.path.join("keys")), None).unwrap();
    assert_eq!((restored.inboxes, restored.secrets), (2, 0));
    let families = rocksdb::DB::list_cf(&rocksdb::Options::default(), to.join("db")).unwrap();
    assert!(Family::ALL.iter().all(|family| families.iter().any(|there| there == family.name())), "{families:?}");
}

#[test]
fn what_other_settings_do_without_is_not_missed() {
    let made = Made::new();
    let sound: [Harm; 4] = [
        // A certificate of an authority, and open registration.
        |h| {
            h.remove("tls");
            h.remove("invite.key");
            says(h, |server| (server.url, server.invites) = ("gureum://chat.example.org:1".to_owned(), Some(false)));
        },
        // What the program of an older version wrote down.
        |h| {
            h.remove("invite.key");
            says(h, |server| server.invites = None);
        },
        // What a kill has just left behind, and the next start removes.
        |h| table(h, NOW_MS - HOUR_MS),
        |h| write(h, "keys/1000-3601000.new", b"?"),
    ];
    for (index, harm) in sound.iter().enumerate() {
        let harmed = made.copy();
        harm(&harmed);
        let report = harmed.check_at(NOW_MS);
        assert_eq!(all_found(&report), [], "{index}: {report:#?}");
        assert_eq!(report.counts.get("tables that the next start removes"), (index == 2).then_some(&1));
    }
}

#[test]
fn a_key_is_past_its_time_a_round_and_half_a_minute_after_its_last_message() {
    let made = Made::new();
    let end_ms = START_MS + period_ms(RETENTION_MS) + RETENTION_MS;
    let harmed = made.copy();
    assert_eq!(all_found(&harmed.check_at(end_ms + 34_000)), []);
    assert_eq!(all_found(&harmed.check_at(end_ms + 36_000)), [found(KeyPastItsTime, FIRST_KEY, "")]);
}

#[test]
fn a_server_whose_clock_is_ahead_of_the_systems_has_rightly_dropped_more() {
    let made = Made::new();
    let dropped: [fn(&Made, &mut Changes<'_>); 2] = [
        |made, changes| (1..=3).for_each(|seq| changes.delete(Family::Inbox, bobs(made, seq))),
        |made, changes| made.ids[1..=2].iter().for_each(|id| changes.delete(Family::Message, message(id))),
    ];
    for drop in dropped {
        let harmed = made.copy();
        // By the server's clock the first day has expired; by the system's it is five minutes to.
        save_last_known_ms(&harmed.path, START_MS + RETENTION_MS + 8 * 60_000).unwrap();
        harmed.change(|changes| drop(&made, changes));
        let report = harmed.check_at(START_MS + RETENTION_MS);
        assert_eq!(all_found(&report), [], "{report:#?}");
    }
}

#[test]
fn what_was_dropped_before_a_crash_took_the_clock_back_was_dropped_rightly() {
    let made = Made::new();
    // Whole from its start, and with a hole behind what has a second to live again as well.
    for gone in [1..=3, 3..=3] {
        let harmed = made.copy();
        // The newest of what is gone has a second to live again, by the time that was written last.
        let newest_ms = made.ids[2].time_ms();
        save_last_known_ms(&harmed.path, newest_ms + RETENTION_MS - 1_000).unwrap();
        harmed.change(|changes| {
            let as_new = MessageId::new(newest_ms, 9);
            changes.edit(Family::Inbox, bobs(&made, 2), |entry: &mut InboxEntry| entry.id = as_new);
            gone.for_each(|seq| changes.delete(Family::Inbox, bobs(&made, seq)));
        });
        let report = harmed.check_at(START_MS + RETENTION_MS);
        assert_eq!(all_found(&report), [], "{report:#?}");
    }
}

#[test]
fn a_backup_keeps_what_it_was_made_with_for_as_long_as_it_is_there() {
    let made = Made::new();
    let harmed = made.copy();
    harmed.remove("clock");
    let backup = harmed.backup(NOW_MS);
    for now_ms in [NOW_MS, NOW_MS + RETENTION_MS, NOW_MS + 60 * DAY_MS] {
        let report = backup.check_at(now_ms);
        assert_eq!(all_found(&report), [], "{report:#?}");
    }
    save_last_known_ms(&harmed.path, START_MS).unwrap();
    let report = harmed.backup(NOW_MS).check_at(NOW_MS + 60 * DAY_MS);
    assert_eq!(all_found(&report), [], "{report:#?}");
}

#[test]
fn a_file_of_a_backup_that_is_changed_or_missing_is_found() {
    let made = Made::new();
    let harms: [(Harm, &str); 3] = [
        (|h| write(h, "clock", b"?"), "clock"),
        (|h| h.remove("invite.key"), "invite.key"),
        (|h| h.remove("server.json"), "server.json"),
    ];
    for (harm, name) in harms {
        let backup = made.copy().backup(NOW_MS);
        harm(&backup);
        assert!(all_found(&backup.check_at(NOW_MS)).contains(&found(Kind::File, name, "")), "{name}");
    }
}

#[test]
fn a_first_start_that_was_killed_left_nothing_that_is_missed() {
    let begun = Harmed::begun();
    begun.remove("sequence");
    let report = begun.check_at(START_MS);
    assert_eq!(all_found(&report), [], "{report:#?}");
}

fn bobs(made: &Made, seq: u64) -> Key {
    key::inbox(&made.bob.account, seq)
}
