//! An operator at a terminal: runs `gureumd` commands that end.

use std::ffi::OsStr;
use std::process::Command;

use crate::child::binary;

/// How a command ended.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// Runs `gureumd` with these arguments.
#[must_use]
pub fn gureumd<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Said {
    let output = Command::new(binary("gureumd")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

impl Said {
    /// What it printed as JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// Itself, if it succeeded.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }
}
