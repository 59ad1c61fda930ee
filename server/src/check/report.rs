//! What an audit found: each finding says where, what is wrong and what to do.

use std::collections::BTreeMap;
use std::fmt;

/// Findings that are listed of one kind; the others are counted.
const LISTED_PER_KIND_MAX: usize = 50;

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
    /// A sealed body does not open.
    Body,
    /// A time that cannot be.
    Time,
}

impl Kind {
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
            writeln!(f, "and {} findings of the same kinds", all - listed)?;
        }
        let counts: Vec<_> = self.counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        writeln!(f, "{}", counts.join(", "))?;
        match all {
            0 => writeln!(f, "clean"),
            1 => writeln!(f, "1 finding"),
            _ => writeln!(f, "{all} findings"),
        }
    }
}
