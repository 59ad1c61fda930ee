//! A handle: the name under which an account is found on its server.

use std::fmt;
use std::str::FromStr;

use crate::limits::{HANDLE_BYTES_MAX, HANDLE_BYTES_MIN};

/// 2 to 32 of `a-z 0-9 . _ -`, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(String);

/// Text that is no handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a handle has 2 to 32 of a-z 0-9 . _ - and begins with a letter")]
pub struct HandleError;

impl Handle {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Handle {
    type Err = HandleError;

    fn from_str(text: &str) -> Result<Self, HandleError> {
        let fits = (HANDLE_BYTES_MIN..=HANDLE_BYTES_MAX).contains(&text.len());
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
        let all = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
        if fits && begins && all { Ok(Self(text.to_owned())) } else { Err(HandleError) }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_handles_and_refuses_what_looks_like_another() {
        for text in ["al", "alice", "a.b-c_9", &"a".repeat(32)] {
            assert_eq!(text.parse::<Handle>().map(|h| h.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "a", "Alice", "9lives", "al ice", "alíce", "a/b", &"a".repeat(33)] {
            assert_eq!(text.parse::<Handle>(), Err(HandleError), "{text:?}");
        }
    }
}
