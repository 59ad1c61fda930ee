//! The wiring of one server: everything is opened in order, and closed in the opposite one.

mod maintain;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use gureum_proto::MessageId;
use quinn::{Endpoint, VarInt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Condition, Readiness};
use crate::config::{Config, Registration};
use crate::conn::Shared;
use crate::directory::Directory;
use crate::files;
use crate::inbox::{Inboxes, Open};
use crate::invite::{InviteKey, ServerFile};
use crate::listen;
use crate::metrics::Metrics;
use crate::quota::Quotas;
use crate::requests::Requests;
use crate::router::{PlanConfig, Router, RouterParts, Seal};
use crate::seal::{Keyring, SealError};
use crate::session::SessionConfig;
use crate::store::record::SealedMessage;
use crate::store::rocks::RocksStore;
use crate::store::{Expiry, Family, Store, StoreError, TakenFloors};
use crate::time::{Clock, SystemClock, WallClock, load_last_known_ms};
use crate::tls::Tls;
use crate::wake::{Hub, Wake};
use maintain::Maintenance;

/// How long clients are given to go by themselves when the server stops.
const DRAIN_GRACE: Duration = Duration::from_millis(1_500);
/// How long tasks are given to end after their connections were closed.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// A running server.
#[derive(Debug)]
pub struct Node {
    endpoint: Endpoint,
    listen: SocketAddr,
    admin: SocketAddr,
    url: String,
    shared: Option<Arc<Shared>>,
    readiness: Arc<Readiness>,
    stop_accepting: CancellationToken,
    stop_rest: CancellationToken,
    tasks: TaskTracker,
    rest: TaskTracker,
    writer: oneshot::Receiver<Result<(), StoreError>>,
    store: Arc<RocksStore>,
    maintenance: Arc<Maintenance>,
}

/// Runs a server until SIGTERM or SIGINT, or until its writer fails. Prints one JSON line when it is ready.
///
/// # Errors
/// Whatever keeps it from starting, or made it stop.
pub async fn run(config: Config) -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut node = Node::start(config, Arc::new(SystemClock::new())).await?;
    println!("{}", node.ready_line());
    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failure = node.failed() => Some(failure),
    };
    tracing::info!("stopping");
    node.stop().await?;
    match failed {
        Some(failure) => bail!("the server stopped because its store failed: {failure}"),
        None => Ok(()),
    }
}

impl Node {
    /// Opens the data directory and serves.
    ///
    /// # Errors
    /// Something cannot be opened, or the data directory is not this program's.
    pub async fn start(config: Config, wall: Arc<dyn WallClock>) -> Result<Self> {
        let dir = config.data_dir.clone();
        files::make_private_dir(&dir)
            .with_context(|| format!("the data directory {} cannot be made", dir.display()))?;
        let retention_ms = millis(config.retention);
        let clock = Arc::new(Clock::resume(wall, retention_ms, load_last_known_ms(&dir)?)?);
        let floors = Arc::new(TakenFloors::default());
        let expiry = Expiry {
            clock: Arc::clone(&clock),
            retention_ms,
            commit_retention_ms: millis(config.commit_retention),
            floors: Arc::clone(&floors),
        };
        let (store, keyring) = open_storage(&dir, &config, expiry).await?;
        let tls = load_tls(&dir, &config)?;
        let endpoint = listen::bind(config.listen, &tls)?;
        let listen = endpoint.local_addr()?;
        let admin_listener = TcpListener::bind(config.admin).await.with_context(|| {
            format!("cannot listen on {} for the admin pages; choose another with --admin", config.admin)
        })?;
        let admin = admin_listener.local_addr()?;
        let url = tls.url(config.public_address(listen)).to_string();

        let (metrics, rendered) = Metrics::new();
        let metrics = Arc::new(metrics);
        let hub = Arc::new(Hub::new());
        let storage = Storage { store: Arc::clone(&store), keyring: Arc::clone(&keyring), clock, floors };
        let (shared, writer) = share(&config, &dir, storage, &hub, &metrics)?;
        let readiness = Arc::new(Readiness::default());
        let maintenance = Arc::new(Maintenance::new(&dir, store.clone(), keyring, &shared, Arc::clone(&readiness)));
        maintenance.save_clock()?;

        let (stop_accepting, stop_rest, rest) =
            (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        rest.spawn(admin::serve(admin_listener, Arc::clone(&readiness), rendered, stop_rest.clone()));
        rest.spawn(Arc::clone(&maintenance).run(stop_rest.clone()));
        rest.spawn(listen::accept(endpoint.clone(), Arc::clone(&shared), stop_accepting.clone()));
        tracing::info!(%listen, %admin, data_dir = %dir.display(), retention = ?config.retention, "serving");
        ServerFile { listen, url: url.clone() }.write(&dir)?;
        let tasks = shared.tasks.clone();
        let shared = Some(shared);
        Ok(Self {
            endpoint,
            listen,
            admin,
            url,
            shared,
            readiness,
            stop_accepting,
            stop_rest,
            tasks,
            rest,
            writer,
            store,
            maintenance,
        })
    }

    /// The line that says that the server is ready.
    #[must_use]
    pub fn ready_line(&self) -> String {
        #[derive(serde::Serialize)]
        struct ReadyLine<'a> {
            event: &'static str,
            listen: SocketAddr,
            admin: SocketAddr,
            url: &'a str,
        }
        let line = ReadyLine { event: "ready", listen: self.listen, admin: self.admin, url: &self.url };
        serde_json::to_string(&line).expect("addresses and text are always JSON")
    }

    /// The server's address with its pin, as clients take it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address of the admin pages.
    #[must_use]
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Waits until the writer has failed.
    pub async fn failed(&mut self) -> String {
        match (&mut self.writer).await {
            Ok(Ok(())) => "the writer has ended".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the writer has panicked".to_owned(),
        }
    }

    /// Stops: accept nobody, tell the clients, finish what is queued, close the store.
    ///
    /// # Errors
    /// The store cannot be closed in order; nothing that was answered is lost by that.
    pub async fn stop(mut self) -> Result<()> {
        self.readiness.fail(Condition::Serving, "the server is stopping");
        self.stop_accepting.cancel();
        self.endpoint.set_server_config(None);
        let shared = self.shared.take().context("a node stops once")?;
        shared.stopping.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(DRAIN_GRACE, self.tasks.wait()).await;
        self.endpoint.close(VarInt::from_u32(gureum_proto::Code::Stopping.number()), b"stopping");
        if tokio::time::timeout(CLOSE_GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        self.stop_rest.cancel();
        self.rest.close();
        let _ = tokio::time::timeout(CLOSE_GRACE, self.rest.wait()).await;
        // The last way to the writer: it ends when its queue is empty.
        drop(shared);
        let _ = tokio::time::timeout(CLOSE_GRACE, &mut self.writer).await;
        self.endpoint.wait_idle().await;
        self.maintenance.save_clock()?;
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.close()).await??;
        Ok(())
    }
}

struct Storage {
    store: Arc<RocksStore>,
    keyring: Arc<Keyring>,
    clock: Arc<Clock>,
    floors: Arc<TakenFloors>,
}

async fn open_storage(dir: &Path, config: &Config, expiry: Expiry) -> Result<(Arc<RocksStore>, Arc<Keyring>)> {
    let (dir, master) = (dir.to_owned(), config.master_key.clone());
    tokio::task::spawn_blocking(move || {
        let (clock, retention_ms) = (Arc::clone(&expiry.clock), expiry.retention_ms);
        // The store first: it refuses a directory of another format before anything is written.
        let store = RocksStore::open(&dir, expiry)?;
        if let Some((newest, _)) = store.last(Family::Message, &[0; 16]..&[u8::MAX; 16])? {
            clock.not_before(crate::store::key::message_time_ms(&newest).unwrap_or_default());
        }
        let keyring = Keyring::open(&dir.join("keys"), master.as_deref(), retention_ms)?;
        keyring.destroy_expired(clock.now_ms())?;
        keyring.tick(clock.now_ms())?;
        Ok((Arc::new(store), Arc::new(keyring)))
    })
    .await?
}

fn load_tls(dir: &Path, config: &Config) -> Result<Tls> {
    let host =
        config.public_address.as_ref().map_or_else(|| config.listen.ip().to_string(), |public| public.host.clone());
    Ok(Tls::load(dir, config.tls.as_ref(), &host)?)
}

type Started = (Arc<Shared>, oneshot::Receiver<Result<(), StoreError>>);

fn share(config: &Config, dir: &Path, storage: Storage, hub: &Arc<Hub>, metrics: &Arc<Metrics>) -> Result<Started> {
    let Storage { store, keyring, clock, floors } = storage;
    let retention_ms = millis(config.retention);
    let dyn_store: Arc<dyn Store> = store;
    let seal: Arc<Sealer> = Arc::new(Sealer(keyring));
    let wake: Arc<dyn Wake> = Arc::<Hub>::clone(hub);
    let (router, writer) = Router::start(RouterParts {
        store: Arc::clone(&dyn_store),
        seal: Arc::<Sealer>::clone(&seal),
        clock: Arc::clone(&clock),
        wake,
        floors,
        config: PlanConfig {
            retention_ms,
            inbox_entries_max: config.inbox_entries_max,
            inbox_bytes_max: config.inbox_bytes_max,
        },
        metrics: Arc::clone(metrics),
    })?;
    let directory = Arc::new(Directory::new(Arc::clone(&dyn_store)));
    let invites = match config.registration {
        Registration::Invite => Some(InviteKey::load(dir)?),
        Registration::Open => None,
    };
    let requests = Requests {
        directory: Arc::clone(&directory),
        store: Arc::clone(&dyn_store),
        router: router.clone(),
        clock: Arc::clone(&clock),
        commit_retention_ms: millis(config.commit_retention),
        invites,
        quotas: Arc::new(Quotas::new()),
    };
    let inboxes = Inboxes { store: dyn_store, hub: Arc::clone(hub), seal, clock: Arc::clone(&clock), retention_ms };
    let session = SessionConfig {
        tls_server_name: None,
        proof_timeout_ms: millis(config.unproven_timeout),
        retention_ms,
        commit_retention_ms: millis(config.commit_retention),
    };
    let shared = Shared {
        directory,
        inboxes,
        requests: Arc::new(requests),
        router,
        hub: Arc::clone(hub),
        clock,
        metrics: Arc::clone(metrics),
        session,
        stopping: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    Ok((Arc::new(shared), writer))
}

/// The keyring, as the writer and the readers see it.
struct Sealer(Arc<Keyring>);

impl Seal for Sealer {
    fn seal(&self, id: MessageId, plain: &[u8], _now_ms: u64) -> Result<SealedMessage, StoreError> {
        self.0.seal(&id, plain).map_err(|error| StoreError::Io(error.to_string()))
    }
}

impl Open for Sealer {
    fn open(&self, id: MessageId, sealed: &SealedMessage) -> Result<Option<Bytes>, StoreError> {
        match self.0.open_message(&id, sealed) {
            Ok(plain) => Ok(Some(plain)),
            Err(SealError::KeyGone { .. }) => Ok(None),
            Err(error) => Err(StoreError::Corrupt { family: Family::Message, what: error.to_string() }),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
