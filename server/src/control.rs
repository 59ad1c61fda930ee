//! The control socket: a process that may enter the data directory asks the running server for a copy of its
//! database, which lasts as long as the connection, or to delete an account.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gureum_proto::{Code, Handle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::limits::{CHECKPOINT_MS_MAX, CONTROL_REQUEST_BYTES_MAX, CONTROL_REQUEST_MS_MAX};
use crate::router::{Change, Changed, Router};
use crate::store::Store;

/// The socket's name in the data directory.
pub(crate) const SOCKET: &str = "control.sock";

/// The request for a copy of the database.
pub(crate) const CHECKPOINT: &str = "checkpoint\n";

/// The request to delete an account; its handle follows, and the end of the line.
pub(crate) const DELETE: &str = "delete ";

/// Where the copy is made: on the database's own disk, so that it is hard links.
pub(crate) const COPY: &str = "checkpoint";

/// How long to wait when the system has no descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The answer: what was done, or why it was not.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// The copy's directory. It goes when the connection ends.
    Path(PathBuf),
    /// The account is deleted.
    Deleted {
        /// Its id.
        account: String,
        /// How many devices were cut off.
        devices: usize,
    },
    /// Why it was not done.
    Error(String),
}

/// Asks the server that runs on a data directory. What it gives lasts as long as the connection.
///
/// # Errors
/// No server answers there.
pub(crate) fn ask(data_dir: &Path, request: &str) -> io::Result<(std::os::unix::net::UnixStream, Answer)> {
    exchange(connect(data_dir)?, request)
}

/// Connects to that server.
///
/// # Errors
/// None is there, and nothing was asked.
pub(crate) fn connect(data_dir: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    std::os::unix::net::UnixStream::connect(data_dir.join(SOCKET))
}

/// Asks, and waits for the answer.
///
/// # Errors
/// No answer came; what was asked for may still be done.
pub(crate) fn exchange(
    mut connection: std::os::unix::net::UnixStream,
    request: &str,
) -> io::Result<(std::os::unix::net::UnixStream, Answer)> {
    connection.set_read_timeout(Some(Duration::from_millis(CHECKPOINT_MS_MAX)))?;
    connection.write_all(request.as_bytes())?;
    let mut line = String::new();
    BufReader::new(&connection).read_line(&mut line)?;
    let answer = serde_json::from_str(&line)?;
    Ok((connection, answer))
}

/// What the requests are answered from.
pub(crate) struct Control {
    /// The data directory.
    pub data_dir: PathBuf,
    /// What is copied.
    pub store: Arc<dyn Store>,
    /// What makes changes.
    pub router: Router,
}

/// Opens the socket. What a server left behind that was killed is removed, an old copy above all.
pub(crate) fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    remove(&data_dir.join(COPY))?;
    let path = data_dir.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers one connection after the other until `stop`.
///
/// Cancel safety: dropping it may leave a copy, which the next start removes.
pub(crate) async fn serve(listener: UnixListener, control: Control, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        tokio::select! {
            result = answer(stream, &control) => {
                if let Err(error) = result {
                    tracing::warn!(%error, "a request on the control socket failed");
                }
            }
            () = stop.cancelled() => {}
        }
        // The connection is closed by now, and before anything goes: so who reads the copy can tell whether it was whole.
        let copy = control.data_dir.join(COPY);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || remove(&copy)).await {
            tracing::error!(%error, "the copy for a backup could not be removed, and keeps expired messages on the disk");
        }
    }
    let _ = fs::remove_file(control.data_dir.join(SOCKET));
}

async fn answer(mut stream: UnixStream, control: &Control) -> io::Result<()> {
    let mut request = vec![0; CONTROL_REQUEST_BYTES_MAX];
    let patience = Duration::from_millis(CONTROL_REQUEST_MS_MAX);
    let read = timeout(patience, stream.read(&mut request)).await??;
    request.truncate(read);
    let answer = if request == CHECKPOINT.as_bytes() {
        checkpoint(control).await
    } else if let Some(handle) = to_delete(&request) {
        delete(control, handle).await
    } else {
        Answer::Error("no such request".to_owned())
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    timeout(patience, stream.write_all(&line)).await??;
    // Who asked closes the connection when it has what it wants.
    let _ = timeout(Duration::from_millis(CHECKPOINT_MS_MAX), stream.read(&mut [0; 1])).await;
    Ok(())
}

async fn checkpoint(control: &Control) -> Answer {
    let (copy, store) = (control.data_dir.join(COPY), Arc::clone(&control.store));
    match tokio::task::spawn_blocking(move || store.checkpoint(&copy).map(|()| copy)).await {
        Ok(Ok(copy)) => Answer::Path(copy),
        Ok(Err(error)) => Answer::Error(error.to_string()),
        Err(_) => Answer::Error("the copy failed within the server; see its log".to_owned()),
    }
}

/// The handle in a request to delete its account.
fn to_delete(request: &[u8]) -> Option<Handle> {
    let handle = std::str::from_utf8(request).ok()?.strip_prefix(DELETE)?.strip_suffix('\n')?;
    handle.parse().ok()
}

async fn delete(control: &Control, handle: Handle) -> Answer {
    match control.router.change(Change::Delete(handle.clone())).await {
        Ok(Changed::Deleted { account, devices }) => {
            tracing::info!(devices, "an account was deleted");
            Answer::Deleted { account: account.to_string(), devices }
        }
        Ok(_) => Answer::Error("the server did something else".to_owned()),
        Err(refusal) if refusal.code == Code::NotFound => Answer::Error(format!("nobody is called {handle} here")),
        Err(refusal) => Answer::Error(refusal.to_string()),
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(request: &[u8], expected: Option<&str>) {
        assert_eq!(to_delete(request).map(|handle| handle.to_string()).as_deref(), expected);
    }

    #[test]
    fn a_request_to_delete_names_one_handle_whole() {
        check(b"delete bob\n", Some("bob"));
        for request in
            [&b"delete bob"[..], b"delete \n", b"delete Bob\n", b"delete bob\nx\n", b"delete b\xff\n", b"bob\n"]
        {
            check(request, None);
        }
    }
}
