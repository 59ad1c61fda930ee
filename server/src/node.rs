//! The wiring of one server: everything is opened in order, and closed in the opposite one.

mod away;
mod clock;
mod ground;
mod maintain;
mod phone;
mod push;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use quinn::{Endpoint, VarInt};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Condition, Readiness};
use crate::config::{Config, Registration};
use crate::conn::Shared;
use crate::control::{self, Control};
use crate::directory::{Directory, drop_inboxes_of_gone, index_recovery_keys};
use crate::fault::{self, step};
use crate::files;
use crate::inbox::Inboxes;
use crate::invite::{InviteKey, ServerFile};
use crate::limits::{
    CONNECTIONS_MAX, FOLLOWED_LEAVES_MAX, REQUEST_STREAMS_MAX, SUBMIT_BYTES_MAX, SUBMIT_QUEUE_MAX, TAIL_BYTES_MAX,
    UNPROVEN_PER_ADDRESS_MAX,
};
use crate::linking::Linking;
use crate::listen;
use crate::metrics::{Metrics, Page};
use crate::mls::Followed;
use crate::quota::Quotas;
use crate::requests::Requests;
use crate::router::{PlanConfig, Router, RouterParts, WriterEnd};
use crate::seal::Keyring;
use crate::session::SessionConfig;
use crate::store::rocks::RocksStore;
use crate::store::{Expiry, Family, Retentions, Store, TakenFloors};
use crate::time::{Clock, ClockStatus, WallClock};
use crate::tls::Tls;
use crate::wake::{Hub, Wake};
use crate::work::Work;
use away::Away;
pub use ground::{Ground, OpenStore, WrapWake};
use maintain::{Maintenance, save_clock};

/// How long clients are given to go by themselves when the server stops.
const DRAIN_GRACE: Duration = Duration::from_millis(1_500);
/// How long tasks are given to end after their connections were closed.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// A running server. Dropped without [`Node::stop`] it ends as by a crash: its tasks are cancelled, nothing is written.
pub struct Node {
    endpoint: Endpoint,
    listen: SocketAddr,
    admin: Option<SocketAddr>,
    url: String,
    shared: Option<Arc<Shared>>,
    readiness: Arc<Readiness>,
    stop_accepting: CancellationToken,
    stop_rest: CancellationToken,
    tasks: TaskTracker,
    /// Everything else that runs; what is left of it is cancelled when this is dropped.
    rest: JoinSet<()>,
    writer: WriterEnd,
    store: Arc<dyn Store>,
    maintenance: Arc<Maintenance>,
    rendered: Page,
    work: Work,
}

/// What of a server's bounded memory is in use now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// Connections, proven or not.
    pub connections: usize,
    /// Tasks of connections and of their requests.
    pub tasks: usize,
    /// Bytes of the newest entries of inboxes.
    pub tail_bytes: usize,
    /// Submissions that wait for the writer.
    pub queued: usize,
    /// Bytes of messages that wait for the writer.
    pub queued_bytes: usize,
}

impl MemoryUse {
    /// Whether everything is within its limit.
    #[must_use]
    pub const fn is_within_limits(&self) -> bool {
        // A connection that is refused or ends may still have its tasks for a moment, and a shard's tail is cut
        // only when it has passed its share.
        self.connections <= CONNECTIONS_MAX
            && self.tasks <= self.connections * (1 + REQUEST_STREAMS_MAX as usize) + UNPROVEN_PER_ADDRESS_MAX
            && self.tail_bytes <= TAIL_BYTES_MAX
            && self.queued <= SUBMIT_QUEUE_MAX
            && self.queued_bytes <= SUBMIT_BYTES_MAX
    }
}

/// Runs a server until SIGTERM or SIGINT, or until its writer fails. Prints one JSON line when it is ready.
/// A signal ends a start as well.
///
/// # Errors
/// Whatever keeps it from starting, or made it stop.
pub async fn run(config: Config) -> Result<()> {
    let mut signals = Signals::new()?;
    let _faults = fault::begin();
    let mut node = tokio::select! {
        node = Node::start(config, Ground::system()) => node?,
        // A store that is just being opened is closed when it is open: the runtime waits for that.
        () = signals.next() => {
            tracing::info!("told to stop before the server was ready");
            return Ok(());
        }
    };
    println!("{}", node.ready_line());
    let failed = tokio::select! {
        () = signals.next() => None,
        failure = node.failed() => Some(failure),
    };
    tracing::info!("stopping");
    let stopped = node.stop().await;
    match failed {
        Some(failure) => {
            bail!("the server ended because its store failed: {failure}")
        }
        None => stopped,
    }
}

/// What tells a server to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal.
    ///
    /// Cancel safety: no signal is lost.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Node {
    /// Opens the data directory and serves.
    ///
    /// Cancel safety: a start that is dropped ends as a running server that is dropped.
    ///
    /// # Errors
    /// Something cannot be opened, or the data directory is not this program's.
    pub async fn start(config: Config, ground: Ground) -> Result<Self> {
        let Ground { wall, work, socket, store: open_store, wake: wrap_wake, push: ground_push, serves_admin } = ground;
        let dir = config.data_dir.clone();
        files::make_private_dir(&dir)
            .with_context(|| format!("the data directory {} cannot be made", dir.display()))?;
        let admin_listener = if serves_admin { Some(bind_admin(config.admin).await?) } else { None };
        let admin = admin_listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let (metrics, rendered) = Metrics::new();
        let (metrics, readiness) = (Arc::new(metrics), Arc::new(Readiness::default()));
        readiness.fail(Condition::Serving, "starting: nothing is served yet");
        let (stop_accepting, stop_rest, mut rest) =
            (CancellationToken::new(), CancellationToken::new(), JoinSet::new());
        if let Some(listener) = admin_listener {
            rest.spawn(serve_admin(listener, Arc::clone(&readiness), rendered.clone(), stop_rest.clone()));
        }
        let clock = clock::resume(&dir, Arc::clone(&wall), millis(config.retention), &readiness, &metrics).await?;
        step("start::clock");
        let base = Base::open(&config, wall, clock, work.clone(), open_store).await?;
        let (store, keyring) = (Arc::clone(&base.store), Arc::clone(&base.keyring));
        step("start::keys");
        let tls = load_tls(&dir, &config)?;
        let endpoint = listen::bind(config.listen, &tls, socket)?;
        let listen = endpoint.local_addr()?;
        step("start::bound");
        let url = tls.url(config.public_address(listen)).to_string();

        // What may fail to be read or written comes before the writer: a start that fails leaves no thread behind that
        // holds the store. The key of invites comes before the file that says that there must be one.
        let invites = match config.registration {
            Registration::Invite => Some(InviteKey::load(&dir)?),
            Registration::Open | Registration::Phone => None,
        };
        let away = Away::open(&config, &base, ground_push).await?;
        save_clock(&dir, &base.clock)?;
        ServerFile {
            listen,
            url: url.clone(),
            retention_ms: Some(millis(config.retention)),
            commit_retention_ms: Some(millis(config.commit_retention)),
            invites: Some(config.registration == Registration::Invite),
        }
        .write(&dir)?;

        let hub = Arc::new(Hub::new());
        let sessions: Arc<dyn Wake> = Arc::<Hub>::clone(&hub);
        let wake = wrap_wake.map_or_else(|| Arc::clone(&sessions), |wrap| wrap(Arc::clone(&sessions)));
        let (shared, writer) = share(&config, invites, base, wake, &hub, &metrics, &away)?;
        away.spawn(&mut rest, &config, &shared, &stop_rest);
        let maintenance =
            Arc::new(Maintenance::new(&dir, Arc::clone(&store), keyring, &shared, Arc::clone(&readiness)));

        if serves_admin {
            let control = Control { data_dir: dir.clone(), store: Arc::clone(&store), router: shared.router.clone() };
            serve_control(&mut rest, control, &stop_rest);
        }
        rest.spawn(Arc::clone(&maintenance).run(stop_rest.clone()));
        rest.spawn(listen::accept(endpoint.clone(), Arc::clone(&shared), stop_accepting.clone()));
        tracing::info!(%listen, ?admin, data_dir = %dir.display(), retention = ?config.retention, "serving");
        step("start::serving");
        readiness.pass(Condition::Serving);
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
            rendered,
            work,
        })
    }

    /// The line that says that the server is ready.
    #[must_use]
    pub fn ready_line(&self) -> String {
        #[derive(serde::Serialize)]
        struct ReadyLine<'a> {
            event: &'static str,
            listen: SocketAddr,
            admin: Option<SocketAddr>,
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

    /// The address of the admin pages, if they are served.
    #[must_use]
    pub const fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The server's time, and how it stands to the system's.
    #[must_use]
    pub fn time(&self) -> (u64, ClockStatus) {
        self.maintenance.time()
    }

    /// The metrics, as a collector reads them.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.rendered.render()
    }

    /// What of the bounded memory is in use now.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        let shared = self.shared.as_ref();
        MemoryUse {
            connections: self.endpoint.open_connections(),
            tasks: self.tasks.len(),
            tail_bytes: shared.map_or(0, |shared| shared.hub.tail_bytes()),
            queued: shared.map_or(0, |shared| shared.router.queued()),
            queued_bytes: shared.map_or(0, |shared| shared.router.queued_bytes()),
        }
    }

    /// Waits until the store has failed for good, which `/readyz` then says as long as anybody answers there.
    pub async fn failed(&mut self) -> String {
        let why = tokio::select! {
            ended = self.writer.wait() => match ended {
                Some(Ok(())) => "the writer has ended".to_owned(),
                Some(Err(error)) => error.to_string(),
                None => "the writer has panicked".to_owned(),
            },
            why = self.maintenance.failed() => why,
        };
        self.readiness.fail(Condition::Store, why.clone());
        why
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
        // What waits for a new device's reply would else be waited for.
        shared.linking.end();
        if tokio::time::timeout(CLOSE_GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        self.stop_rest.cancel();
        let _ = tokio::time::timeout(CLOSE_GRACE, async { while self.rest.join_next().await.is_some() {} }).await;
        // The last way to the writer: it ends when its queue is empty.
        drop(shared);
        let _ = tokio::time::timeout(CLOSE_GRACE, self.writer.wait()).await;
        self.endpoint.wait_idle().await;
        self.maintenance.save_clock()?;
        let store = Arc::clone(&self.store);
        self.work.run(move || store.close()).await.context("closing the store panicked")??;
        Ok(())
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("listen", &self.listen).field("memory", &self.memory()).finish_non_exhaustive()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // After a stop there is nothing left to do. Without one the connections end with the endpoint, and the tasks
        // that would go on by themselves with `rest` and `writer`.
        self.stop_accepting.cancel();
        self.endpoint.close(VarInt::from_u32(gureum_proto::Code::Stopping.number()), b"stopping");
    }
}

/// What everything else of a server is built on.
struct Base {
    store: Arc<dyn Store>,
    keyring: Arc<Keyring>,
    wall: Arc<dyn WallClock>,
    clock: Arc<Clock>,
    floors: Arc<TakenFloors>,
    work: Work,
}

impl Base {
    async fn open(
        config: &Config,
        wall: Arc<dyn WallClock>,
        clock: Arc<Clock>,
        work: Work,
        open_store: Option<OpenStore>,
    ) -> Result<Self> {
        let retention_ms = millis(config.retention);
        let floors = Arc::new(TakenFloors::default());
        let expiry = Expiry {
            clock: Arc::clone(&clock),
            retention_ms,
            commit_retention_ms: millis(config.commit_retention),
            floors: Arc::clone(&floors),
        };
        let (dir, master) = (config.data_dir.clone(), config.master_key.clone());
        let opened = work.run(move || open_storage(&dir, master.as_deref(), expiry, open_store)).await;
        let (store, keyring) = opened.context("opening the store panicked")??;
        Ok(Self { store, keyring, wall, clock, floors, work })
    }
}

fn serve_control(rest: &mut JoinSet<()>, control: Control, stop: &CancellationToken) {
    match control::bind(&control.data_dir) {
        Ok(listener) => {
            rest.spawn(control::serve(listener, control, stop.clone()));
        }
        // A path too long for a socket, say: nothing that anybody's messages need.
        Err(error) => {
            tracing::warn!(%error, "no control socket: no backup can be made while the server runs, no account deleted");
        }
    }
}

async fn serve_admin(listener: TcpListener, readiness: Arc<Readiness>, rendered: Page, stop: CancellationToken) {
    if let Err(error) = admin::serve(listener, readiness, rendered, stop).await {
        tracing::error!(%error, "the admin pages have ended");
    }
}

async fn bind_admin(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for the admin pages; choose another with --admin"))
}

fn open_storage(
    dir: &Path,
    master: Option<&Path>,
    expiry: Expiry,
    open_store: Option<OpenStore>,
) -> Result<(Arc<dyn Store>, Arc<Keyring>)> {
    let (clock, retention_ms) = (Arc::clone(&expiry.clock), expiry.retention_ms);
    let (floors, commit_retention_ms) = (Arc::clone(&expiry.floors), expiry.commit_retention_ms);
    // The store first: it refuses a directory of another format before anything is written.
    let store: Arc<dyn Store> = match open_store {
        Some(open) => open(expiry)?,
        None => Arc::new(RocksStore::open(dir, expiry)?),
    };
    if let Some((newest, _)) = store.last(Family::Message, &[0; 16]..&[u8::MAX; 16])? {
        clock.not_before(crate::store::key::message_time_ms(&newest).unwrap_or_default());
    }
    if let Err(error) = index_recovery_keys(store.as_ref()) {
        tracing::warn!(%error, "accounts from before cannot be brought back by their recovery keys until the next start");
    }
    // Of the two retentions the longer one: Welcomes stay as long as commits.
    let expired_until_ms = clock.now_ms().saturating_sub(commit_retention_ms);
    if let Err(error) = drop_inboxes_of_gone(store.as_ref(), &floors, expired_until_ms) {
        tracing::warn!(%error, "what deleted accounts had in their inboxes goes no sooner than by its age");
    }
    step("start::store");
    let keyring = Keyring::open(&dir.join("keys"), master, retention_ms)?;
    keyring.destroy_expired(clock.now_ms())?;
    keyring.tick(clock.now_ms())?;
    Ok((store, Arc::new(keyring)))
}

fn load_tls(dir: &Path, config: &Config) -> Result<Tls> {
    let host =
        config.public_address.as_ref().map_or_else(|| config.listen.ip().to_string(), |public| public.host.clone());
    Ok(Tls::load(dir, config.tls.as_ref(), &host)?)
}

type Started = (Arc<Shared>, WriterEnd);

fn share(
    config: &Config,
    invites: Option<InviteKey>,
    base: Base,
    wake: Arc<dyn Wake>,
    hub: &Arc<Hub>,
    metrics: &Arc<Metrics>,
    away: &Away,
) -> Result<Started> {
    let Base { store, keyring, wall, clock, floors, work } = base;
    let retention_ms = millis(config.retention);
    let parts = RouterParts {
        store: Arc::clone(&store),
        seal: Arc::<Keyring>::clone(&keyring),
        clock: Arc::clone(&clock),
        wake,
        push: Arc::clone(&away.push.feed),
        hasher: away.phone.as_ref().map(|phone| Arc::clone(&phone.hasher)),
        floors,
        config: PlanConfig {
            retention_ms,
            inbox_entries_max: config.inbox_entries_max,
            inbox_bytes_max: config.inbox_bytes_max,
        },
        metrics: Arc::clone(metrics),
    };
    let (router, writer) = Router::start(parts, &work)?;
    let directory = Arc::new(Directory::new(Arc::clone(&store)));
    let linking = Arc::<Linking>::default();
    let requests = Requests {
        directory: Arc::clone(&directory),
        store: Arc::clone(&store),
        router: router.clone(),
        clock: Arc::clone(&clock),
        commit_retention_ms: millis(config.commit_retention),
        invites,
        quotas: Arc::new(Quotas::new(&wall, config.sends_per_second).with_codes_per_hour(config.phone.sms_per_hour)),
        linking: Arc::clone(&linking),
        followed: Followed::new(FOLLOWED_LEAVES_MAX),
        hub: Arc::clone(hub),
        push: Some(Arc::clone(&away.push)),
        phone: away.phone.clone(),
        metrics: Arc::clone(metrics),
        work: work.clone(),
    };
    let retentions = Retentions { message_ms: retention_ms, commit_ms: millis(config.commit_retention) };
    let inboxes = Inboxes { store, hub: Arc::clone(hub), seal: keyring, clock: Arc::clone(&clock), retentions };
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
        linking,
        router,
        hub: Arc::clone(hub),
        clock,
        metrics: Arc::clone(metrics),
        session,
        work,
        stopping: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    Ok((Arc::new(shared), writer))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
