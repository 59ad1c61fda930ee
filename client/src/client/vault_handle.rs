//! The vault as asynchronous code calls it: it waits for disks, and what waits for networks must not.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::error::ClientError;
use crate::ground::Work;
use crate::limits::VAULT_JOBS_MAX;
use crate::vault::Vault;

type Job = Box<dyn FnOnce(&mut Vault) + Send>;

/// A vault that is called from asynchronous code. Dropping the last handle waits until the jobs are done and the
/// database is closed: a process that ended before would take the encryption library away under its feet.
#[derive(Debug, Clone)]
pub(crate) struct VaultHandle {
    place: Place,
}

/// Where its operations run.
#[derive(Clone)]
enum Place {
    Thread(Arc<VaultThread>),
    Inline(Arc<Mutex<Vault>>),
}

#[derive(Debug)]
struct VaultThread {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(thread) => thread.fmt(f),
            Self::Inline(_) => f.write_str("Inline"),
        }
    }
}

impl Drop for VaultThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A job that panicked has been told of by its hook.
            let _ = thread.join();
        }
    }
}

impl VaultHandle {
    /// Gives a vault its place.
    pub(crate) fn start(mut vault: Vault, work: Work) -> Result<Self, ClientError> {
        if work == Work::Inline {
            return Ok(Self { place: Place::Inline(Arc::new(Mutex::new(vault))) });
        }
        let (jobs, mut queue) = mpsc::channel::<Job>(VAULT_JOBS_MAX);
        let thread = std::thread::Builder::new()
            .name("vault".to_owned())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut vault);
                }
            })
            .map_err(|error| ClientError::Thread(error.to_string()))?;
        Ok(Self { place: Place::Thread(Arc::new(VaultThread { jobs: Some(jobs), thread: Some(thread) })) })
    }

    /// Runs one operation and waits for it.
    ///
    /// Cancel safety: an operation that was accepted runs to its end even if nobody waits for it any more.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Vault) -> R + Send + 'static,
    ) -> Result<R, ClientError> {
        match &self.place {
            Place::Thread(thread) => thread.run(operation).await,
            Place::Inline(vault) => {
                let vault = Arc::clone(vault);
                let locked = move || vault.lock().map(|mut vault| operation(&mut vault)).map_err(|_| gone());
                Work::Inline.run(locked).await?
            }
        }
    }

    /// Runs one operation that may fail.
    pub(crate) async fn call<R: Send + 'static, E: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Vault) -> Result<R, E> + Send + 'static,
    ) -> Result<R, ClientError>
    where
        ClientError: From<E>,
    {
        Ok(self.run(operation).await??)
    }
}

impl VaultThread {
    async fn run<R: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Vault) -> R + Send + 'static,
    ) -> Result<R, ClientError> {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |vault| {
            // Who asked may have gone.
            let _ = reply.send(operation(vault));
        });
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(job).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())
    }
}

fn gone() -> ClientError {
    ClientError::Thread("an operation on the database has ended it; the log says why".to_owned())
}
