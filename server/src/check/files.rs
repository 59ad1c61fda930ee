//! The files beside the database.

use std::fs;
use std::path::Path;

use gureum_proto::ServerUrl;

use super::report::{Kind, Report};
use super::rules::Times;
use crate::backup::Manifest;
use crate::control::COPY;
use crate::invite::{InviteKey, ServerFile};
use crate::seal::{MASTER, SecretName, key_end_ms_of_file, key_id_of_file};
use crate::store::rocks::{fence, format, log};
use crate::time::load_last_known_ms;
use crate::tls::Tls;

/// A start refuses a directory that was not in use for longer, until somebody has looked.
const USED_MS_MAX: u64 = 40 * 24 * 60 * 60 * 1_000;

/// The length of a wrapped key.
const KEY_FILE_BYTES: u64 = 61;

/// The files of a backup, against its list.
pub(super) fn backup(directory: &Path, manifest: &Manifest, report: &mut Report) {
    report.count("files of the backup", u64::try_from(manifest.files.len()).unwrap_or(u64::MAX));
    match manifest.differences(directory) {
        Ok(differences) => {
            for (path, what) in differences {
                report.find(Kind::File, path.display().to_string(), &[], format!("the file {what}"));
            }
        }
        Err(error) => report.find(Kind::File, "backup.json", &[], error.to_string()),
    }
}

/// The files of a data directory.
pub(super) fn data_dir(directory: &Path, is_backup: bool, times: &Times, report: &mut Report) {
    match format::check(directory) {
        Ok(Some(())) => {}
        Ok(None) => report.find(Kind::File, "FORMAT", &[], "the file is missing"),
        Err(error) => report.find(Kind::File, "FORMAT", &[], error.to_string()),
    }
    if let Err(error) = Tls::inspect(directory) {
        report.find(Kind::File, error.place(), &[], error.to_string());
    }
    if let Err(error) = InviteKey::read(directory) {
        report.find(Kind::File, "invite.key", &[], error.to_string());
    }
    if let Err(error) = ServerFile::read(directory) {
        report.find(Kind::File, "server.json", &[], error.to_string());
    }
    match load_last_known_ms(directory) {
        Ok(None) if !is_backup => report.find(Kind::File, "clock", &[], "the last known time is missing"),
        Ok(Some(last_ms)) if times.is_in_the_future(last_ms) => {
            let ahead_s = (last_ms - times.now_ms) / 1_000;
            report.find(
                Kind::Time,
                "clock",
                &[],
                format!("the last known time is {ahead_s} s ahead of the system clock"),
            );
        }
        Ok(Some(last_ms)) if !is_backup && times.now_ms.saturating_sub(last_ms) > USED_MS_MAX => {
            let days = (times.now_ms - last_ms) / (24 * 60 * 60 * 1_000);
            report.find(
                Kind::Time,
                "clock",
                &[],
                format!("the directory was last in use {days} days ago, or the file is damaged"),
            );
        }
        Ok(_) => {}
        Err(error) => report.find(Kind::File, "clock", &[], error.to_string()),
    }
    keys(&directory.join("keys"), times, report);
    if !is_backup && directory.join(COPY).exists() {
        report.find(Kind::LeftOver, COPY, &[], "the copy for a backup keeps what should expire on the disk");
    }
    if let Err(error) = log::refuse_damage(&directory.join("db"), !is_backup, fence::known(directory)) {
        report.find(Kind::Database, "db", &[], error.to_string());
    }
}

/// What a database that has been served stands beside, and a start would make anew without what it held.
pub(super) fn missing(directory: &Path, is_backup: bool, report: &mut Report) {
    let server = ServerFile::read(directory).ok().flatten();
    // A first start that was killed may have come to none of them; then nobody has an account.
    if server.is_none() && !report.counts.contains_key("device_log") {
        return;
    }
    let url = server.as_ref().map(|server| server.url.parse::<ServerUrl>());
    let is_self_signed = url.is_none_or(|url| !matches!(url.map(|url| url.pin), Ok(None)));
    let is_by_invite = server.is_none_or(|server| server.invites == Some(true));
    let [has_targets, has_web_push, has_numbers] =
        ["push", "Web Push targets", "phone numbers"].map(|name| report.counts.contains_key(name));
    for (name, is_needed, what) in [
        ("sequence", !is_backup, "the file is missing: nobody notices when the database loses its end"),
        ("tls/cert.pem", is_self_signed, "the file is missing: it is made anew for the key, if that is there"),
        ("tls/key.pem", is_self_signed, "the file is missing: with another key no client connects any more"),
        ("invite.key", is_by_invite, "the file is missing: the invites that were given out are void"),
        ("vapid.key", has_web_push, "the file is missing: with another key Web Push wakes none of these devices"),
    ] {
        if is_needed && !directory.join(name).exists() {
            report.find(Kind::File, name, &[], what);
        }
    }
    for (name, is_needed, what) in [
        ("keys/push.secret", has_targets, "the file is missing: no device is woken before it has connected again"),
        ("keys/phone.secret", has_numbers, "the file is missing: no number is found, and all are proven anew"),
    ] {
        if is_needed && !directory.join(name).exists() {
            report.find(Kind::SecretMissing, name, &[], what);
        }
    }
}

/// Whether a directory holds the keys of messages, or the master key.
pub(super) fn holds_keys(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries.flatten().any(|entry| entry.file_name() == MASTER || key_id_of_file(&entry.path()).is_some())
}

fn keys(directory: &Path, times: &Times, report: &mut Report) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let place = format!("keys/{name}");
        let bytes = entry.metadata().map(|metadata| metadata.len()).unwrap_or_default();
        // Whether a secret opens is seen with the master key.
        if name == MASTER || SecretName::ALL.iter().any(|secret| secret.file() == name) {
            continue;
        }
        if key_id_of_file(&path).is_none() {
            if name.ends_with(".gone") {
                report.find(Kind::KeyPastItsTime, place, &[], "the key was to be destroyed when the server was killed");
            } else if !name.ends_with(".new") {
                report.find(Kind::File, place, &[], "the name is none of a key");
            }
            continue;
        }
        report.count("keys", 1);
        if bytes != KEY_FILE_BYTES {
            report.find(
                Kind::File,
                place.as_str(),
                &[],
                format!("the key has {bytes} bytes instead of {KEY_FILE_BYTES}"),
            );
        }
        if key_end_ms_of_file(&path).is_some_and(|end_ms| times.is_key_overdue(end_ms)) {
            report.find(Kind::KeyPastItsTime, place, &[], "all messages of this key have expired");
        }
    }
}
