//! Every fault that an audit knows, put into a store that a server wrote: each is found, by kind, place and key, and
//! nothing else is; and what looks like one and is none.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod faults;
mod files;
mod made;
