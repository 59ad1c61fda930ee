//! Notices that a person types, by what the line editor asks for at each key.

use std::cell::Cell;

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};
use tokio::sync::watch;

/// Tells whether there is something in the line, whenever that has grown or shrunk.
pub(super) struct Typist {
    types: watch::Sender<bool>,
    /// Bytes of the line when it was last seen: one that is drawn again has not been typed.
    bytes: Cell<usize>,
}

impl Typist {
    pub(super) const fn new(types: watch::Sender<bool>) -> Self {
        Self { types, bytes: Cell::new(0) }
    }

    fn see(&self, line: &str) {
        if self.bytes.replace(line.len()) != line.len() {
            // Each key is news, though it says the same.
            self.types.send_replace(!line.is_empty());
        }
    }
}

impl Hinter for Typist {
    type Hint = String;

    fn hint(&self, line: &str, _: usize, _: &Context<'_>) -> Option<String> {
        self.see(line);
        None
    }
}

impl Completer for Typist {
    type Candidate = String;
}

impl Highlighter for Typist {}

impl Validator for Typist {}

impl Helper for Typist {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_noticed_and_a_line_that_is_drawn_again_is_not() {
        let (sender, mut types) = watch::channel(false);
        let typist = Typist::new(sender);
        for (line, expected) in
            [("", None), ("h", Some(true)), ("h", None), ("hi", Some(true)), ("", Some(false)), ("", None)]
        {
            typist.see(line);
            let noticed = types.has_changed().unwrap().then(|| *types.borrow_and_update());
            assert_eq!(noticed, expected, "{line:?}");
        }
    }
}
