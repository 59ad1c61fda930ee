//! The control socket: a process that may enter the data directory asks the running server for a copy of its
//! database, which lasts as long as the connection.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::limits::{CHECKPOINT_MS_MAX, CONTROL_REQUEST_BYTES_MAX, CONTROL_REQUEST_MS_MAX};
use crate::store::Store;

/// The socket's name in the data directory.
pub(crate) const SOCKET: &str = "control.sock";

/// The request for a copy of the database.
pub(crate) const CHECKPOINT: &str = "checkpoint\n";

/// Where the copy is made: on the database's own disk, so that it is hard links.
pub(crate) const COPY: &str = "checkpoint";

/// How long to wait when the system has no descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The answer: where the copy is, or why there is none.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// The copy's directory. It goes when the connection ends.
    Path(PathBuf),
    /// Why there is none.
    Error(String),
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
pub(crate) async fn serve(listener: UnixListener, data_dir: PathBuf, store: Arc<dyn Store>, stop: CancellationToken) {
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
            result = answer(stream, &data_dir, &store) => {
                if let Err(error) = result {
                    tracing::warn!(%error, "a request on the control socket failed");
                }
            }
            () = stop.cancelled() => {}
        }
        // The connection is closed by now, and before anything goes: so who reads the copy can tell whether it was whole.
        let copy = data_dir.join(COPY);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || remove(&copy)).await {
            tracing::error!(%error, "the copy for a backup could not be removed, and keeps expired messages on the disk");
        }
    }
    let _ = fs::remove_file(data_dir.join(SOCKET));
}

async fn answer(mut stream: UnixStream, data_dir: &Path, store: &Arc<dyn Store>) -> io::Result<()> {
    let mut request = vec![0; CONTROL_REQUEST_BYTES_MAX];
    let patience = Duration::from_millis(CONTROL_REQUEST_MS_MAX);
    let read = timeout(patience, stream.read(&mut request)).await??;
    request.truncate(read);
    let answer = if request == CHECKPOINT.as_bytes() {
        let (copy, store) = (data_dir.join(COPY), Arc::clone(store));
        let made = tokio::task::spawn_blocking(move || store.checkpoint(&copy).map(|()| copy)).await;
        match made {
            Ok(Ok(copy)) => Answer::Path(copy),
            Ok(Err(error)) => Answer::Error(error.to_string()),
            Err(_) => Answer::Error("the copy failed within the server; see its log".to_owned()),
        }
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

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
