//! The recovery key as words.
