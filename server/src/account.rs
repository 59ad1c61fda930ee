//! What an operator does with one account of the running server: delete it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use gureum_proto::{Handle, HandleError};

use crate::control::{self, Answer, DELETE, SOCKET};

/// An account that does not exist any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// The handle that it had. Nobody else is given it.
    pub handle: Handle,
    /// Its id.
    pub account: String,
    /// How many devices were cut off.
    pub devices: usize,
}

impl fmt::Display for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { handle, account, devices } = self;
        let devices_were = if *devices == 1 { "1 device was".to_owned() } else { format!("{devices} devices were") };
        write!(f, "the account {account} of {handle} is deleted; {devices_were} cut off")
    }
}

/// Why an account was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// That is no handle.
    #[error("{text:?} is no handle")]
    Handle {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: HandleError,
    },
    /// Nobody answers.
    #[error("no server answers at {path}: an account is deleted by the running server")]
    NoServer {
        /// The control socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was asked and has not answered.
    #[error(
        "the server has not answered, and may still delete the account: it does so after a backup that is being copied; \
         run this again to see"
    )]
    Unanswered(#[source] io::Error),
    /// The server did not do it.
    #[error("the server deleted nothing: {0}")]
    Refused(String),
}

/// Deletes the account of a handle on the server that runs on a data directory, for good.
///
/// # Errors
/// No server runs there, it does not answer, or it has no such account.
pub fn delete(data_dir: &Path, handle: &str) -> Result<Deleted, AccountError> {
    let handle: Handle = handle.parse().map_err(|source| AccountError::Handle { text: handle.to_owned(), source })?;
    let no_server = |source| AccountError::NoServer { path: data_dir.join(SOCKET), source };
    let connection = control::connect(data_dir).map_err(no_server)?;
    let asked = control::exchange(connection, &format!("{DELETE}{handle}\n"));
    match asked.map_err(AccountError::Unanswered)?.1 {
        Answer::Deleted { account, devices } => Ok(Deleted { handle, account, devices }),
        Answer::Error(why) => Err(AccountError::Refused(why)),
        Answer::Path(_) => Err(AccountError::Refused("it did something else".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn what_is_no_handle_and_where_no_server_is_nothing_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(delete(dir.path(), "Not a handle"), Err(AccountError::Handle { .. })));
        let error = delete(dir.path(), "bob").unwrap_err();
        assert!(matches!(error, AccountError::NoServer { .. }), "{error}");
        assert!(error.to_string().contains("control.sock"), "{error}");
    }

    #[test]
    fn a_server_that_was_asked_and_does_not_answer_may_still_do_it() {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(stream).read_line(&mut request).unwrap();
            request
        });
        let error = delete(dir.path(), "bob").unwrap_err();
        assert_eq!(server.join().unwrap(), "delete bob\n");
        assert!(matches!(error, AccountError::Unanswered(_)), "{error}");
        assert!(error.to_string().contains("may still delete the account"), "{error}");
    }

    #[test]
    fn it_says_how_many_devices_were_cut_off() {
        let deleted = |devices| Deleted { handle: "bob".parse().unwrap(), account: "b0".to_owned(), devices };
        assert_eq!(deleted(1).to_string(), "the account b0 of bob is deleted; 1 device was cut off");
        assert_eq!(deleted(3).to_string(), "the account b0 of bob is deleted; 3 devices were cut off");
    }
}
