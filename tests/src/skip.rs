//! What cannot be shown on this machine is said aloud, and never passes for shown.

use std::io::Write;

/// Names a file to which each proof that did not run adds a line; `scripts/check.sh` prints them after all tests, whose
/// own output nobody reads when they pass.
const LIST: &str = "GUREUM_SKIPPED";

/// Says that something cannot be shown here, and why.
///
/// # Panics
/// In CI, which must be able to, or it proves nothing.
pub(crate) fn skipped(what: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI must be able to show this, or it proves nothing: {what}: {why}");
    // Each test is a thread, or the one of its process, of its own name.
    let name = std::thread::current().name().unwrap_or("a proof").to_owned();
    let line = format!("{name}: {what} ({})\n", why.trim().replace('\n', " "));
    eprint!("NOT SHOWN: {line}");
    if let Some(list) = std::env::var_os(LIST) {
        let mut list = std::fs::File::options().create(true).append(true).open(list).unwrap();
        list.write_all(line.as_bytes()).unwrap();
    }
}
