//! What an audit found: each finding says where, what is wrong and what to do.

use std::collections::BTreeMap;
use std::fmt;

/// Findings that are listed of one kind; the others are counted.
const LISTED_PER_KIND_MAX: usize = 50;

/// What it means that nothing but keys and secrets is missing.
const ONLY_KEYS: &str = "nothing is missing but keys and secrets: a restore without them leaves a directory like this, and \
                         nothing need be done; if none was made they are lost, and what they opened with them: look for \
                         the keyring before the server is started";

/// A kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A file is missing, cut, or not what was written.
    File,
    /// The database cannot be opened or read.
    Database,
    /// A record does not decode, or its key is no key of its family.
    Record,
    /// Positions of an inbox are missing or beyond its head.
    Sequence,
    /// Running counts do not add up.
    Count,
    /// A position points to a message that is not there.
    PointerWithoutBody,
    /// A living message or commit that an inbox should point to, and does not.
    PointerMissing,
    /// A record of an account, a device or a conversation that is not there, or of which a part is missing.
    Orphan,
    /// A cursor is beyond its inbox, or missing.
    Cursor,
    /// Commits of a conversation are missing, or are not those of its epoch.
    Epoch,
    /// A device log does not verify.
    DeviceLog,
    /// A directory entry leads nowhere.
    Directory,
    /// Messages are physically present for longer than the retention and its bound.
    Expired,
    /// Copies of messages that a server did not come to remove, because it was killed.
    LeftOver,
    /// A key is kept for longer than its messages live.
    KeyPastItsTime,
    /// Living messages have no key.
    KeyMissing,
    /// The secret of push targets or of phone numbers is not there.
    SecretMissing,
    /// A sealed body does not open.
    Body,
    /// A time that cannot be.
    Time,
}

impl Kind {
    /// Whether it is about keys and secrets that are not there. A restore without them leaves a directory like that, as it
    /// says, and the server goes on from there; whether they were lost otherwise the directory does not tell.
    #[must_use]
    pub const fn is_missing_key(self) -> bool {
        matches!(self, Self::KeyMissing | Self::SecretMissing)
    }

    /// What to do about it.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::File => "put the file back from a backup",
            Self::Database => "restore a backup: `gureumd restore`",
            Self::Record
            | Self::Sequence
            | Self::Count
            | Self::PointerMissing
            | Self::Orphan
            | Self::Cursor
            | Self::Epoch
            | Self::DeviceLog => {
                "restore a backup if people are hurt by it; the server goes on without what this is about"
            }
            Self::Directory => "report it: the server does not write this",
            Self::PointerWithoutBody | Self::Body => "nothing: devices are told that the message is lost",
            Self::Expired => {
                "start the server: it removes them within minutes; if not, see the log for what the disk says"
            }
            Self::LeftOver => "start the server: it removes it",
            Self::KeyPastItsTime => "start the server: it destroys the key; remove copies of it elsewhere",
            Self::KeyMissing => "put the keyring back if there is one: without it devices are told of gaps",
            Self::SecretMissing => {
                "put it back if there is one: a restore without the master key leaves it out, and a start makes a new one"
            }
            Self::Time => "set the system clock right",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What kind.
    pub kind: Kind,
    /// The family or the file.
    pub place: String,
    /// The key, in hexadecimal, or empty.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub advice: &'static str,
}

/// All that an audit found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Whether nothing is wrong.
    pub clean: bool,
    /// The findings, the first of each kind.
    pub findings: Vec<Finding>,
    /// How many findings there are of each kind, those not listed included.
    pub found: BTreeMap<Kind, u64>,
    /// What was looked at and counted.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { clean: true, ..Self::default() }
    }

    /// Whether all that was found is that keys and secrets are missing.
    #[must_use]
    pub fn lacks_only_keys(&self) -> bool {
        !self.clean && self.found.keys().all(|kind| kind.is_missing_key())
    }

    /// Adds a finding.
    pub(super) fn find(&mut self, kind: Kind, place: impl Into<String>, key: &[u8], what: impl Into<String>) {
        self.clean = false;
        let found = self.found.entry(kind).or_default();
        *found += 1;
        if usize::try_from(*found).is_ok_and(|found| found <= LISTED_PER_KIND_MAX) {
            let key = data_encoding::HEXLOWER.encode(key);
            self.findings.push(Finding { kind, place: place.into(), key, what: what.into(), advice: kind.advice() });
        }
    }

    /// Adds to a count.
    pub(super) fn count(&mut self, name: &'static str, by: u64) {
        *self.counts.entry(name).or_default() += by;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let key = if finding.key.is_empty() { String::new() } else { format!(" {}", finding.key) };
            writeln!(f, "{}{key}: {}\n    to do: {}", finding.place, finding.what, finding.advice)?;
        }
        let listed = u64::try_from(self.findings.len()).unwrap_or(u64::MAX);
        let all: u64 = self.found.values().sum();
        if all > listed {
            let more = all - listed;
            writeln!(f, "and {more} more of the same kind{}", if more == 1 { "" } else { "s" })?;
        }
        if self.lacks_only_keys() {
            writeln!(f, "{ONLY_KEYS}")?;
        }
        // One of many things is written as many of one are.
        let counts: Vec<_> = self.counts.iter().map(|(name, count)| format!("{name}: {count}")).collect();
        writeln!(f, "{}", counts.join(", "))?;
        match all {
            0 => writeln!(f, "clean"),
            1 => writeln!(f, "1 finding"),
            _ => writeln!(f, "{all} findings"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: u64) -> Report {
        let mut report = Report::new();
        report.count("Web Push targets", 1);
        report.count("keys", 3);
        (0..findings).for_each(|_| report.find(Kind::Body, "message", b"", "it does not open"));
        report
    }

    #[track_caller]
    fn ends_with(report: &Report, expected: &[&str]) {
        let said = report.to_string();
        assert!(said.ends_with(&format!("{}\n", expected.join("\n"))), "{said}");
    }

    #[test]
    fn one_of_a_thing_is_written_as_well_as_many() {
        let counts = "Web Push targets: 1, keys: 3";
        ends_with(&report(0), &[counts, "clean"]);
        ends_with(&report(1), &[counts, "1 finding"]);
        ends_with(&report(50), &[counts, "50 findings"]);
        ends_with(&report(51), &["and 1 more of the same kind", counts, "51 findings"]);
        ends_with(&report(52), &["and 2 more of the same kinds", counts, "52 findings"]);
    }

    #[test]
    fn keys_that_a_restore_leaves_out_or_somebody_has_lost_are_told_from_damage() {
        let mut report = report(0);
        let says_so = |report: &Report| {
            let said = report.to_string();
            said.contains("a restore without them") && said.contains("they are lost")
        };
        assert!(!report.lacks_only_keys() && !says_so(&report), "nothing was found");
        report.find(Kind::SecretMissing, "keys/phone.secret", b"", "it is missing");
        report.find(Kind::KeyMissing, "keys", b"", "1 living message has no key");
        assert!(report.lacks_only_keys() && says_so(&report), "{report}");
        report.find(Kind::File, "sequence", b"", "it is missing");
        assert!(!report.lacks_only_keys() && !says_so(&report), "{report}");
    }
}
