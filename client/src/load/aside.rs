//! A thread of its own for those whose latency is measured while the load tester is busy with something else: on one thread
//! with thousands of handshakes they would wait for these, and the wait would be laid to the server.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// Runs tasks, their sockets and their timers beside everything else. Ends with whatever still runs when it is dropped.
#[derive(Debug)]
pub(super) struct Aside {
    /// There until it is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Aside {
    /// # Errors
    /// The system gives no thread.
    pub(super) fn begin() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("aside").enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Where to spawn what is to run there.
    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime is not waited for within another one.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_runs_aside_does_not_wait_for_a_thread_that_is_busy() {
        let aside = Aside::begin().unwrap();
        let (tell, told) = mpsc::channel();
        aside.handle().spawn(async move { tell.send(std::thread::current().id()) });
        // Blocks this runtime's only thread.
        let there = told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_ne!(there, std::thread::current().id());
    }
}
