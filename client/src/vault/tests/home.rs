//! The home: made once, resumable, locked by its key, without a trace of plaintext.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use gureum_proto::Registered;

use super::relay::{SERVER, profile};
use super::*;
use crate::limits::HISTORY_ASK_MS;
use crate::vault::devices::LINKER;

fn passphrase(text: &str) -> KeySource {
    KeySource::Passphrase(Zeroizing::new(text.to_owned()))
}

fn finish(vault: &mut Vault) {
    let registered = Registered { account: vault.identity().account, device: vault.identity().device };
    vault.registered(&"alice".parse().unwrap(), registered).unwrap();
}

#[test]
fn an_unfinished_registration_goes_on_with_the_same_entry_and_words() {
    let home = tempfile::tempdir().unwrap();
    let (_, first) = Vault::create(home.path(), &KeySource::File, &profile()).unwrap();
    assert!(matches!(Vault::open(home.path(), &KeySource::File), Err(OpenError::Unfinished(_))));
    let (mut vault, again) = Vault::create(home.path(), &KeySource::File, &profile()).unwrap();
    assert_eq!(again.root_entry, first.root_entry);
    assert_eq!((again.recovery_words.split(' ').count(), &again.recovery_words), (12, &first.recovery_words));
    let other = Registered { account: gureum_proto::AccountId::from_bytes([0; 16]), device: vault.identity().device };
    assert!(vault.registered(&"alice".parse().unwrap(), other).is_err());
    assert_eq!(again.handle, None);
    finish(&mut vault);
    let (mut vault, unseen) = Vault::create(home.path(), &KeySource::File, &profile()).unwrap();
    assert_eq!((unseen.handle.unwrap().as_str(), unseen.recovery_words), ("alice", first.recovery_words));
    vault.recovery_words_shown().unwrap();
    assert!(matches!(Vault::create(home.path(), &KeySource::File, &profile()), Err(OpenError::Exists(_))));
    let vault = Vault::open(home.path(), &KeySource::File).unwrap();
    assert_eq!(vault.identity().handle.as_str(), "alice");
    assert_eq!(vault.identity().server.to_string(), SERVER);
}

#[test]
fn files_are_for_their_owner_alone() {
    let home = tempfile::tempdir().unwrap();
    Vault::create(home.path(), &KeySource::File, &profile()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(home.path()), mode(&home.path().join("key"))), (0o700, 0o600));
}

#[test]
fn says_what_is_wrong_with_a_home_or_its_key() {
    let home = tempfile::tempdir().unwrap();
    let open = |key: &KeySource| Vault::open(home.path(), key).map(drop);
    assert!(matches!(open(&KeySource::File), Err(OpenError::Missing(_))));
    finish(&mut Vault::create(home.path(), &KeySource::File, &profile()).unwrap().0);
    assert!(matches!(open(&passphrase("x")), Err(OpenError::PassphraseUnused)));
    fs::write(home.path().join("key"), [9; 32]).unwrap();
    assert!(matches!(open(&KeySource::File), Err(OpenError::WrongKey)));
    fs::write(home.path().join("key"), [9; 31]).unwrap();
    assert!(matches!(open(&KeySource::File), Err(OpenError::KeyFile { .. })));
}

#[test]
fn a_passphrase_opens_its_home_and_another_does_not() {
    let home = tempfile::tempdir().unwrap();
    finish(&mut Vault::create(home.path(), &passphrase("right"), &profile()).unwrap().0);
    Vault::open(home.path(), &passphrase("right")).unwrap();
    let wrong = Vault::open(home.path(), &passphrase("wrong")).map(drop);
    assert!(matches!(wrong, Err(OpenError::WrongKey)), "{wrong:?}");
    let none = Vault::open(home.path(), &KeySource::File).map(drop);
    assert!(matches!(none, Err(OpenError::PassphraseNeeded)), "{none:?}");
}

#[test]
fn a_database_of_the_first_format_is_brought_up_to_date_with_all_that_it_holds() {
    let home = tempfile::tempdir().unwrap();
    let (mut vault, _) = Vault::create(home.path(), &KeySource::File, &profile()).unwrap();
    finish(&mut vault);
    vault.make_key_packages(3).unwrap();
    vault
        .connection
        .execute_batch(
            "DROP VIEW to_remove; DROP TABLE key_package; DROP TABLE expelled; DROP TABLE removal; DROP TABLE draft;
             DROP TABLE log_pin; DROP TABLE foretold; DROP TABLE device_name; DROP TABLE receipt;
             DROP TABLE receipt_owed; DROP TABLE mark; DROP TABLE setting; DROP TABLE roster; DROP TABLE intent;
             DROP TABLE claimed_package; DROP TABLE leave; DROP INDEX message_by_content; DROP INDEX message_by_number;
             DROP TABLE numbering; DROP TABLE hole; DROP TABLE owed_record; DROP TABLE forked_log;
             DROP TABLE gone; DROP TABLE name_asked; DROP TABLE hand_over; DROP TABLE handed_over;
             DROP TABLE past_conversation; DROP INDEX contact_by_handle; DROP TABLE push_target; DROP TABLE own_phone;
             DROP TABLE contact_phone; DROP TABLE relation; DROP TABLE preference;
             ALTER TABLE contact DROP COLUMN replaced_by; ALTER TABLE contact DROP COLUMN former;
             ALTER TABLE conversation DROP COLUMN joined_epoch; ALTER TABLE conversation DROP COLUMN must_rejoin;
             ALTER TABLE conversation DROP COLUMN kind; ALTER TABLE conversation DROP COLUMN name;
             ALTER TABLE profile DROP COLUMN life; ALTER TABLE profile DROP COLUMN life_token;
             ALTER TABLE profile DROP COLUMN life_next; ALTER TABLE profile DROP COLUMN taking_over;
             ALTER TABLE profile DROP COLUMN restored_seq; ALTER TABLE profile DROP COLUMN decisions_heard;
             ALTER TABLE conversation DROP COLUMN left_epoch;
             ALTER TABLE outbox DROP COLUMN kind; ALTER TABLE outbox DROP COLUMN payload;
             PRAGMA user_version = 1",
        )
        .unwrap();
    drop(vault);
    let mut vault = Vault::open(home.path(), &KeySource::File).unwrap();
    assert_eq!(vault.identity().handle.as_str(), "alice");
    assert!(!vault.key_packages_due().unwrap(), "those of unknown age count from now");
    assert_eq!(crate::e2ee::key_packages(&vault.connection).unwrap().len(), 3);
}

#[test]
fn a_database_from_before_it_kept_who_has_told_what_loses_nothing_of_it() {
    let home = tempfile::tempdir().unwrap();
    let (mut vault, _) = Vault::create(home.path(), &KeySource::File, &profile()).unwrap();
    finish(&mut vault);
    vault
        .connection
        .execute_batch(
            r#"DROP TABLE push_target; DROP TABLE own_phone; DROP TABLE contact_phone; DROP TABLE relation;
             DROP TABLE preference; DROP TABLE log_pin; ALTER TABLE handed_over DROP COLUMN wait_ms;
             ALTER TABLE draft DROP COLUMN approvals; ALTER TABLE profile DROP COLUMN decisions_heard;
             ALTER TABLE conversation DROP COLUMN left_epoch;
             CREATE TABLE log_pin (account BLOB PRIMARY KEY, length INTEGER NOT NULL, head BLOB NOT NULL) WITHOUT ROWID;
             INSERT INTO log_pin VALUES (zeroblob(16), 3, zeroblob(32));
             INSERT INTO handed_over (transfer, device, heard_ms) VALUES (zeroblob(16), zeroblob(16), 1);
             INSERT INTO setting VALUES ('typing', 'off', 9223372036854775807, zeroblob(16));
             INSERT INTO conversation (id, kind, state, epoch, epoch_seen, renewed_ms)
             VALUES (zeroblob(16), 2, 3, 7, 7, 0);
             INSERT INTO event (detail) VALUES ('{"History":{"from":"desk","messages":7,"of":7}}');
             PRAGMA user_version = 14"#,
        )
        .unwrap();
    drop(vault);
    let mut vault = Vault::open(home.path(), &KeySource::File).unwrap();
    let account = gureum_proto::AccountId::from_bytes([0; 16]);
    let pins = vault.write(|work| work.pins(account)).unwrap();
    assert_eq!(pins.iter().map(|pin| (pin.log.length, pin.device)).collect::<Vec<_>>(), [(3, LINKER)]);
    let numbers = "SELECT wait_ms, (SELECT stamp FROM setting) FROM handed_over";
    let numbers: (u64, u64) = vault.connection.query_row(numbers, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(numbers, (HISTORY_ASK_MS, 0));
    assert!(!vault.settings().unwrap().typing);
    let own = vault.own_conversation().unwrap().unwrap();
    assert_eq!((own.state, own.epoch, own.epoch_seen), (ConversationStatus::Absent, 0, 7));
    let told: Vec<_> = vault.unreported_events(9).unwrap().into_iter().map(|stored| stored.event).collect();
    assert_eq!(told, [Event::History { from: "desk".to_owned(), messages: 7, of: 7, done: true }]);
}

#[test]
fn whoever_is_talked_with_before_there_were_requests_is_accepted() {
    let home = tempfile::tempdir().unwrap();
    let (mut vault, _) = Vault::create(home.path(), &KeySource::File, &profile()).unwrap();
    finish(&mut vault);
    vault
        .connection
        .execute_batch(
            "DROP TABLE push_target; DROP TABLE own_phone; DROP TABLE contact_phone; DROP TABLE relation;
             DROP TABLE preference; ALTER TABLE profile DROP COLUMN decisions_heard;
             ALTER TABLE conversation DROP COLUMN left_epoch;
             INSERT INTO conversation (id, kind, state, epoch, epoch_seen, renewed_ms)
             VALUES (x'00000000000000000000000000000001', 0, 1, 7, 7, 0),
                    (x'00000000000000000000000000000002', 1, 1, 7, 7, 0),
                    (x'00000000000000000000000000000003', 2, 1, 7, 7, 0);
             PRAGMA user_version = 16",
        )
        .unwrap();
    drop(vault);
    let vault = Vault::open(home.path(), &KeySource::File).unwrap();
    let sql = "SELECT hex(conversation), accepted, muted_until_ms, told FROM preference ORDER BY conversation";
    let mut statement = vault.connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
    let rows: Vec<(String, bool, u64, bool)> = rows.collect::<Result<_, _>>().unwrap();
    let accepted = |id| (format!("{id:032}"), true, 0, false);
    assert_eq!(rows, [accepted(1), accepted(2)], "not the one of the account's own devices");
}

#[test]
fn a_device_from_before_the_server_was_asked_what_was_decided_asks_it_once() {
    let home = tempfile::tempdir().unwrap();
    let (mut vault, _) = Vault::create(home.path(), &KeySource::File, &profile()).unwrap();
    finish(&mut vault);
    assert!(!vault.lacks_decisions().unwrap(), "the first device has decided everything itself");
    vault
        .connection
        .execute_batch(
            "UPDATE profile SET log_entry = 1; ALTER TABLE profile DROP COLUMN decisions_heard;
             ALTER TABLE conversation DROP COLUMN left_epoch;
             PRAGMA user_version = 17",
        )
        .unwrap();
    drop(vault);
    let mut vault = Vault::open(home.path(), &KeySource::File).unwrap();
    assert!(vault.lacks_decisions().unwrap());
    vault.hear_decisions().unwrap();
    drop(vault);
    assert!(!Vault::open(home.path(), &KeySource::File).unwrap().lacks_decisions().unwrap());
}

#[test]
fn a_group_that_was_left_before_its_epoch_was_kept_is_left_at_the_highest_that_was_seen() {
    let home = tempfile::tempdir().unwrap();
    let (mut vault, _) = Vault::create(home.path(), &KeySource::File, &profile()).unwrap();
    finish(&mut vault);
    vault
        .connection
        .execute_batch(
            "ALTER TABLE conversation DROP COLUMN left_epoch;
             INSERT INTO conversation (id, kind, state, epoch, epoch_seen, renewed_ms)
             VALUES (x'00000000000000000000000000000001', 1, 6, 0, 7, 0),
                    (x'00000000000000000000000000000002', 1, 1, 7, 7, 0);
             PRAGMA user_version = 18",
        )
        .unwrap();
    drop(vault);
    let vault = Vault::open(home.path(), &KeySource::File).unwrap();
    let sql = "SELECT left_epoch FROM conversation ORDER BY id";
    let mut statement = vault.connection.prepare(sql).unwrap();
    let epochs: Vec<Option<u64>> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(epochs, [Some(7), None]);
}

#[test]
fn a_newer_database_is_left_untouched() {
    let home = tempfile::tempdir().unwrap();
    let (mut vault, _) = Vault::create(home.path(), &KeySource::File, &profile()).unwrap();
    finish(&mut vault);
    vault.connection.pragma_update(None, "user_version", 99).unwrap();
    drop(vault);
    let before = fs::read(home.path().join(DATABASE)).unwrap();
    let newer = Vault::open(home.path(), &KeySource::File).map(drop);
    assert!(matches!(newer, Err(OpenError::Newer { found: 99, known: 19 })), "{newer:?}");
    assert_eq!(fs::read(home.path().join(DATABASE)).unwrap(), before);
}

#[test]
fn no_file_of_the_home_holds_a_plaintext() {
    const MARKER: &str = "zanzibar-marker-7f3a";
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, MARKER);
    b.take(&mut relay);
    b.queue(talk, &format!("{MARKER} waits"));
    for person in [&a, &b] {
        for entry in fs::read_dir(person.home.path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let found = bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes());
            assert!(!found, "{} holds the text", path.display());
            assert!(!bytes.starts_with(b"SQLite format"), "{} is not encrypted", path.display());
        }
    }
}

#[test]
fn bounds_what_is_queued() {
    let (_, mut a, _, talk) = Relay::with_a_pair();
    assert!(matches!(a.vault.queue_text(talk, ""), Err(QueueError::Length(0))));
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    assert!(matches!(a.vault.queue_text(talk, &long), Err(QueueError::Length(_))));
    let nowhere = gureum_proto::ConversationId::from_bytes([0; 16]);
    assert!(matches!(a.vault.queue_text(nowhere, "x"), Err(QueueError::Vault(VaultError::NoConversation(_)))));
    a.queue(talk, &long[1..]);
    let send = a.vault.next_sends(0, 1).unwrap().remove(0);
    assert!(send.ciphertext.len() <= gureum_proto::limits::CIPHERTEXT_BYTES_MAX);
}

#[test]
fn the_safety_number_is_the_same_on_both_sides() {
    let (_, a, b, _) = Relay::with_a_pair();
    let number = a.vault.safety_number(b.account);
    assert_eq!(number, b.vault.safety_number(a.account));
    assert_eq!((number.len(), number.split(' ').count()), (71, 12));
    assert!(number.split(' ').all(|group| group.len() == 5 && group.bytes().all(|digit| digit.is_ascii_digit())));
}
