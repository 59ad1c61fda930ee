//! The simulated server: the real node on a simulated network, disk and clock, crashed and started again at will.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use gureum_proto::{AccountId, ConversationId, ConversationKind, DeviceId, ServerUrl};
use gureum_server::config::{Config, Flags};
use gureum_server::limits::MAINTENANCE_MS_MAX;
use gureum_server::node::{Ground, Node, OpenStore};
use gureum_server::push::Push;
use gureum_server::store::disk::SimDisk;
use gureum_server::store::key::{self, ConversationTag};
use gureum_server::store::record::{ConversationHead, Removals};
use gureum_server::store::{Family, Record, Store};
use gureum_server::time::{ClockStatus, WallClock};
use gureum_server::work::Work;

use super::clock::SimClock;
use super::journal::Journal;
use super::ledger::Ledger;
use super::net::SimNet;
use super::push::SimPush;
use super::sabotage::Sabotage;
use super::wake::WakeFaults;

/// Where the server is.
pub const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 4433);

/// What a crash can make the server forget of the time, where the wall clock is behind: it writes down how late it is
/// once in every round of maintenance.
const FORGETS_MS: u64 = MAINTENANCE_MS_MAX + 1_000;

/// How much of all steps of the wall clock a server follows.
const OBEYED_MS_MAX: u64 = 5 * 60 * 1_000;

/// Records of conversations that are looked at; runs stay far below.
const RECORDS_MAX: usize = 10_000;

/// The store that a server has opened last.
type Opened = Arc<Mutex<Option<Arc<dyn Store>>>>;

/// What the server has of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Which.
    pub conversation: ConversationId,
    /// Of two, of many, or of an account's own devices.
    pub kind: ConversationKind,
    /// Its epoch.
    pub epoch: u64,
    /// Devices that have a leaf.
    pub members: Vec<DeviceId>,
    /// Revoked ones that are to be removed.
    pub removals: Vec<DeviceId>,
    /// Accounts that have a leaf and have not left.
    pub accounts: BTreeSet<AccountId>,
}

/// A server and everything that outlives its process.
pub struct Server {
    journal: Journal,
    net: SimNet,
    /// Its machine's clock.
    pub clock: SimClock,
    /// Its disk.
    pub disk: SimDisk,
    /// How its wakes fare.
    pub wakes: WakeFaults,
    flags: Flags,
    sabotage: Option<Sabotage>,
    ledger: Ledger,
    push: Option<SimPush>,
    /// How often it was started.
    starts: u64,
    node: Option<Node>,
    store: Opened,
    url: Option<ServerUrl>,
    /// The latest time that it has told.
    told_ms: u64,
    /// What it told first since the start, and when that was on the monotonic clock.
    first_told: Option<(u64, u64)>,
    /// How far back it may go when it is asked next.
    forgets_ms: u64,
}

impl Server {
    /// A server that does not run yet.
    #[must_use]
    pub fn new(parts: (Journal, SimNet, SimClock), disk: SimDisk, wakes: WakeFaults, dir: &Path, flags: Flags) -> Self {
        let (journal, net, clock) = parts;
        let flags = Flags {
            data_dir: Some(text(dir.to_owned())),
            listen: Some(SERVER.to_string()),
            registration: Some("open".to_owned()),
            ..flags
        };
        Self {
            journal,
            net,
            clock,
            disk,
            wakes,
            flags,
            sabotage: None,
            ledger: Ledger::default(),
            push: None,
            starts: 0,
            node: None,
            store: Opened::default(),
            url: None,
            told_ms: 0,
            first_told: None,
            forgets_ms: 0,
        }
    }

    /// The same with a deliberate bug in what it stands on.
    #[must_use]
    pub fn with(self, sabotage: Option<Sabotage>) -> Self {
        Self { sabotage, ..self }
    }

    /// The same, which writes this ledger.
    #[must_use]
    pub fn writing(self, ledger: Ledger) -> Self {
        Self { ledger, ..self }
    }

    /// The same, which wakes devices through these services.
    #[must_use]
    pub fn waking(self, push: SimPush) -> Self {
        Self { push: Some(push), ..self }
    }

    /// How often it was started.
    #[must_use]
    pub const fn starts(&self) -> u64 {
        self.starts
    }

    /// Whether it runs.
    #[must_use]
    pub const fn runs(&self) -> bool {
        self.node.is_some()
    }

    /// Its process, while it runs.
    #[must_use]
    pub const fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Where clients connect to.
    #[must_use]
    pub fn url(&self) -> ServerUrl {
        self.url.clone().expect("the server was started once")
    }

    /// Starts it; one that runs stays as it is.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        if self.runs() {
            return Ok(());
        }
        let config = Config::load(&self.flags, |_| None, |_| Err(std::io::ErrorKind::NotFound.into()))?;
        let (wakes, disk) = (self.wakes.clone(), self.disk.clone());
        let ground = Ground {
            wall: Arc::new(self.clock.clone()),
            work: Work::Inline(self.disk.latency()),
            socket: Some(self.net.bind(SERVER)),
            store: Some(Box::new(move |expiry| disk.open(expiry))),
            wake: Some(Box::new(move |to| wakes.before(to))),
            push: self.push.clone().map(|push| Arc::new(push) as Arc<dyn Push>),
            serves_admin: false,
        };
        let ground = match self.sabotage {
            Some(bug) => bug.spoil(ground, &config.data_dir),
            None => ground,
        };
        let opened = Arc::clone(&self.store);
        let ground = Ground { store: ground.store.map(|open| noted(self.ledger.watch(open), opened)), ..ground };
        let node = Node::start(config, ground).await?;
        self.url = Some(node.url().parse()?);
        self.node = Some(node);
        self.first_told = None;
        self.starts += 1;
        self.journal.note("server: started");
        Ok(())
    }

    /// Ends it where it stands: what its disk has not kept is gone, and its socket is dead.
    pub fn crash(&mut self) {
        self.net.unplug(SERVER.ip());
        self.disk.crash();
        drop(self.node.take());
        self.forgets_ms = FORGETS_MS;
        self.journal.note("server: crashed");
    }

    /// Why its process would have ended by itself by now: its store has failed for good.
    pub fn failure(&mut self) -> Option<String> {
        let failed = self.node.as_mut()?.failed();
        match pin!(failed).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(why) => Some(why),
            Poll::Pending => None,
        }
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// What it could not finish.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(node) = self.node.take() else { return Ok(()) };
        self.journal.note("server: stops");
        let stopped = node.stop().await;
        self.net.unplug(SERVER.ip());
        self.disk.crash();
        stopped
    }

    /// Its time and how that stands to its machine's, while it runs. It is checked to never go back.
    pub fn time(&mut self) -> Option<(u64, ClockStatus)> {
        let (now_ms, status) = self.node.as_ref()?.time();
        let at_ms = self.clock.monotonic_ms();
        // In a life of the process the clock may follow steps of so much in all, and a drift.
        let (first_ms, first_at_ms) = *self.first_told.get_or_insert((now_ms, at_ms));
        let passed_ms = at_ms - first_at_ms;
        let most_ms = first_ms + passed_ms + passed_ms / 1_000 + OBEYED_MS_MAX;
        self.journal.check(now_ms <= most_ms, "a leap of the wall clock is not obeyed", || {
            format!("{} ms ahead", now_ms - most_ms)
        });
        let (told_ms, forgets_ms) = (self.told_ms, std::mem::take(&mut self.forgets_ms));
        self.journal.check(now_ms + forgets_ms >= told_ms, "the server's time never goes back", || {
            format!("{} ms back", told_ms - now_ms)
        });
        self.told_ms = now_ms;
        Some((now_ms, status))
    }

    /// What lies in its store of each conversation, or why that cannot be read.
    ///
    /// # Errors
    /// The store does not answer, or what it holds is none of that.
    pub fn groups(&self) -> anyhow::Result<Vec<Group>> {
        let Some(store) = self.store.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return Ok(Vec::new());
        };
        let mut groups: Vec<Group> = Vec::new();
        for (record_key, value) in store.scan(Family::Conversation, &[]..&[u8::MAX; 24], RECORDS_MAX)? {
            match key::parse_conversation(&record_key) {
                Some((conversation, ConversationTag::Head)) => {
                    let head = ConversationHead::decode(&value)?;
                    let members = head.members.iter().map(|member| member.device).collect();
                    let accounts = head.members.iter().map(|member| member.account).collect();
                    let (kind, epoch) = (head.kind, head.epoch);
                    groups.push(Group { conversation, kind, epoch, members, removals: Vec::new(), accounts });
                }
                // It lies behind the head.
                Some((_, ConversationTag::Removals)) => {
                    if let Some(group) = groups.last_mut() {
                        let removals = Removals::decode(&value)?;
                        group.accounts.retain(|account| !removals.is_leaving(*account));
                        group.removals = removals.pending;
                    }
                }
                _ => {}
            }
        }
        Ok(groups)
    }

    /// The latest time that it has told.
    #[must_use]
    pub const fn told_ms(&self) -> u64 {
        self.told_ms
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("runs", &self.runs()).finish_non_exhaustive()
    }
}

/// Keeps hold of what a server opens, to look at what lies in it.
fn noted(open: OpenStore, opened: Opened) -> OpenStore {
    Box::new(move |expiry| {
        let store = open(expiry)?;
        *opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&store));
        Ok(store)
    })
}

fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().expect("a temporary directory has a name in UTF-8")
}
