//! How much of a connection stays in memory while nothing happens.

use super::*;

/// The bytes of the future that a function makes of its arguments.
pub(crate) fn future_bytes<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn a_session_that_waits_is_held_once() {
    let bytes = future_bytes(|(shell, proven): (Box<Shell>, ())| shell.run(proven));
    assert!(bytes < 2_048, "{bytes} bytes beside the session's own");
}
