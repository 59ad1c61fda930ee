//! What a server stands on: clocks, threads, a socket and a disk; those of the machine, or those of a simulation.

use std::sync::Arc;

use quinn::AsyncUdpSocket;

use crate::push::Push;
use crate::store::{Expiry, Store, StoreError};
use crate::time::{SystemClock, WallClock};
use crate::wake::Wake;
use crate::work::Work;

/// Opens a store under these rules of expiry.
pub type OpenStore = Box<dyn FnOnce(Expiry) -> Result<Arc<dyn Store>, StoreError> + Send>;

/// Puts something between the writer and those whom it wakes.
pub type WrapWake = Box<dyn FnOnce(Arc<dyn Wake>) -> Arc<dyn Wake> + Send>;

/// Where a server gets its time, its threads, its network and its disk from. Everything else that waits or measures
/// does so by tokio's clock.
pub struct Ground {
    /// The clocks.
    pub wall: Arc<dyn WallClock>,
    /// Where what blocks is done.
    pub work: Work,
    /// The socket to serve; `None`: a UDP socket at the configured address.
    pub socket: Option<Arc<dyn AsyncUdpSocket>>,
    /// The store; `None`: RocksDB in the data directory.
    pub store: Option<OpenStore>,
    /// What stands between the writer and the sessions; `None`: nothing.
    pub wake: Option<WrapWake>,
    /// The push services; `None`: those of the configuration.
    pub push: Option<Arc<dyn Push>>,
    /// Whether the admin pages are served.
    pub serves_admin: bool,
}

impl Ground {
    /// The machine's own.
    #[must_use]
    pub fn system() -> Self {
        Self {
            wall: Arc::new(SystemClock::new()),
            work: Work::Threads,
            socket: None,
            store: None,
            wake: None,
            push: None,
            serves_admin: true,
        }
    }
}

impl std::fmt::Debug for Ground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ground").field("work", &self.work).finish_non_exhaustive()
    }
}
