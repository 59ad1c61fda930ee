//! Many groups on one server, and a large one: made, talked in and changed, at which speed; and every member has what was
//! said while it was one, once, in one order, and nothing else.

mod group;
mod scales;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;

use super::crowd::{Crowd, HEARD_IN, Heard, Member, Times, text};
use super::process;
use crate::World;
use group::{Group, Play};
use scales::Scales;
pub use scales::Weights;

/// Bytes of a text that shows how often the server stores it.
const WEIGHED_BYTES: usize = 16 * 1024;
/// Such texts.
const WEIGHED: usize = 32;
/// What a recipient's pointer to a message takes on the disk, in the log and in a table, and its ack: far below this.
const POINTER_BYTES_MAX: u64 = 512;
/// What else a database writes meanwhile.
const DISK_SPARE_BYTES: u64 = 2 * 1024 * 1024;
/// Groups whose handshakes are weighed by a device of their own.
const WEIGHED_GROUPS: usize = 20;

/// How much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Groups.
    pub groups: usize,
    /// Accounts in each.
    pub members: usize,
    /// Accounts in the large one; 0: there is none.
    pub large: usize,
    /// Accounts in all, of which the groups are drawn.
    pub accounts: usize,
    /// Of them, those that are connected all along.
    pub connected: usize,
    /// Of the others, those that come at the end.
    pub late: usize,
    /// Messages one by one in each group, and as many at once.
    pub messages: usize,
    /// Accounts added at once.
    pub batch: usize,
    /// Who is in which group, and who speaks.
    pub seed: u64,
    /// Whether to tell on standard error how it goes.
    pub tells: bool,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Who is in which group.
    pub seed: u64,
    /// Accounts.
    pub accounts: usize,
    /// Connected all along.
    pub connected: usize,
    /// Until all were registered and the first connected, in seconds.
    pub set_up_s: f64,
    /// The many groups together.
    pub groups: Speeds,
    /// The large one.
    pub large: Option<Speeds>,
    /// Who came late, with everything that had waited: for each group that it came into.
    pub late_join: Times,
    /// What a connected client has more in memory than one that is not, before and after all of it, in KiB.
    pub client_kib: [u64; 2],
    /// The server's memory at the end, in KiB.
    pub server_kib: u64,
    /// Bytes of all weighed texts, and what the server's files grew by over them.
    pub weighed_bytes: [u64; 2],
    /// Histories that were compared: of a member, in a group.
    pub histories: usize,
    /// Messages in them.
    pub messages: usize,
    /// How long it took, in seconds.
    pub seconds: u64,
}

/// How fast it goes in groups of one size.
#[derive(Debug, Clone, Serialize)]
pub struct Speeds {
    /// Groups.
    pub groups: usize,
    /// Accounts in each at first.
    pub members: usize,
    /// Until a group is made with all its members.
    pub create: Times,
    /// Of that, waiting for the server's quotas, in seconds all in all.
    pub quotas_s: f64,
    /// A commit of 64 adds, where a group is made of several.
    pub add_64: Times,
    /// From the last answer until all connected members are in.
    pub joined: Times,
    /// A message alone, until it is on the server's disk.
    pub accept: Times,
    /// The same, until all connected members have it.
    pub fan_out: Times,
    /// Messages at once: delivered to connected members a second.
    pub delivered_per_s: Option<f64>,
    /// One account added.
    pub add_one: Times,
    /// Several at once.
    pub add_batch: Times,
    /// One account removed.
    pub remove_one: Times,
    /// Another name.
    pub rename: Times,
    /// What these weigh.
    pub bytes: Weights,
}

/// Everybody, and what is known of them.
struct Stage {
    world: World,
    crowd: Crowd,
    members: BTreeMap<usize, Member>,
    random: StdRng,
    scales: Scales,
    tells: bool,
}

/// Runs it.
///
/// # Panics
/// When a member lacks a message, has one twice or in another place, or has one that was not for it; or when the server
/// stores messages more than once.
#[must_use]
pub fn run(options: &Options) -> Report {
    assert!(options.connected >= 2 && options.connected < options.accounts, "some are connected and some are not");
    assert!(options.groups > 0, "there is a group");
    assert!(options.members >= 4 && options.members + options.batch < options.accounts, "there are others to be added");
    assert!(options.large <= options.accounts, "the large group is of them all");
    // As the settings' defaults have it, quotas included.
    let world = World::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(Box::pin(play(options, world)))
}

async fn play(options: &Options, world: World) -> Report {
    let started = Instant::now();
    let crowd = Crowd::gather(&world, options.accounts).await;
    let scales = Scales::new(&world).await;
    let random = StdRng::seed_from_u64(options.seed);
    let mut stage = Stage { world, crowd, members: BTreeMap::new(), random, scales, tells: options.tells };
    let alone_kib = own_kib();
    for index in 0..options.connected {
        stage.come(index).await;
    }
    let set_up_s = seconds(started.elapsed());
    stage.tell(&format!("{} accounts in {set_up_s:.1} s", options.accounts));
    let first_kib = own_kib();
    let mut groups = Vec::new();
    for number in 0..options.groups {
        let play = Play { members: options.members, messages: options.messages, batch: options.batch };
        let founder = number % options.connected;
        let name = format!("group {number}");
        groups.push(Box::pin(stage.play(&name, founder, &play, number < WEIGHED_GROUPS)).await);
    }
    let mut large = Vec::new();
    if options.large > 0 {
        let play = Play { members: options.large, messages: options.messages, batch: 0 };
        // Whoever has made the fewest others: the quotas are for each account.
        large.push(Box::pin(stage.play("large", options.connected - 1, &play, true)).await);
    }
    let connected = u64::try_from(options.connected).unwrap();
    let client_kib = [first_kib, own_kib()].map(|kib| kib.saturating_sub(alone_kib) / connected);
    let widest = large.last_mut().or(groups.last_mut()).expect("there is a group");
    let weighed_bytes = stage.weigh_messages(widest).await;
    let everything: Vec<&Group> = groups.iter().chain(&large).collect();
    let late_join = stage.come_late(options, &everything).await;
    let (histories, messages) = stage.check(&everything).await;
    let many = stage.speeds(&groups, options.members).await;
    let of_large = if large.is_empty() { None } else { Some(stage.speeds(&large, options.large).await) };
    let server_kib = stage.world.resident_kib();
    for member in std::mem::take(&mut stage.members).into_values() {
        member.leave().await;
    }
    Report {
        seed: options.seed,
        accounts: options.accounts,
        connected: options.connected,
        set_up_s,
        groups: many,
        large: of_large,
        late_join,
        client_kib,
        server_kib,
        weighed_bytes,
        histories,
        messages,
        seconds: started.elapsed().as_secs(),
    }
}

impl Stage {
    async fn come(&mut self, index: usize) -> Duration {
        let (member, took) = self.crowd.come(index).await;
        self.members.insert(index, member);
        took
    }

    fn tell(&self, how: &str) {
        if self.tells {
            eprintln!("{how}");
        }
    }

    /// Large texts, and what the server's files grow by: each is stored once, however many read it.
    async fn weigh_messages(&self, group: &mut Group) -> [u64; 2] {
        let data = self.world.data_dir();
        let before = process::disk_bytes(data);
        let (speaker, listeners) = (&self.members[&group.founder], group.listeners(self));
        for _ in 0..WEIGHED {
            let name = group.next_text();
            speaker.say(group.id, &text(&name, WEIGHED_BYTES)).await;
            self.crowd.ears().until_heard(&Heard::Text(name), &listeners, HEARD_IN).await;
        }
        let grown = process::disk_bytes(data).saturating_sub(before);
        let bodies = u64::try_from(WEIGHED * WEIGHED_BYTES).unwrap();
        let pointers = u64::try_from(WEIGHED * group.accounts()).unwrap() * POINTER_BYTES_MAX;
        // Once in the log, and once in a table if that is written meanwhile.
        let most = 3 * bodies + pointers + DISK_SPARE_BYTES;
        let each = u64::try_from(group.accounts()).unwrap() * bodies;
        assert!(
            grown <= most,
            "{grown} bytes for {bodies}, where {most} are enough and {each} were one for each member"
        );
        [bodies, grown]
    }

    /// Some come who were not there: they take everything that waited.
    async fn come_late(&mut self, options: &Options, groups: &[&Group]) -> Times {
        let mut absent: Vec<usize> = (options.connected..options.accounts).collect();
        absent.shuffle(&mut self.random);
        let (mut took, mut came) = (Vec::new(), 0);
        for index in absent {
            let joins = groups.iter().filter(|group| group.is_in(index)).count();
            if came == options.late || joins == 0 {
                continue;
            }
            came += 1;
            took.push(self.come(index).await / u32::try_from(joins).unwrap());
        }
        self.tell(&format!("{came} came late"));
        Times::of(&took)
    }

    /// All who are connected have what was said while they were members, and nothing else.
    async fn check(&self, groups: &[&Group]) -> (usize, usize) {
        let (mut histories, mut messages) = (0, 0);
        for group in groups {
            let all = group.all(&self.members[&group.founder]).await;
            for (index, member) in &self.members {
                let (has, unreadable) = member.history(group.id).await;
                let due = group.due(*index, &all);
                assert_eq!(has, due, "{} in {:?}", member.handle, group.name);
                assert_eq!(unreadable, 0, "{} in {:?}", member.handle, group.name);
                histories += usize::from(!due.is_empty());
                messages += due.len();
            }
        }
        let amiss = self.crowd.ears().amiss();
        assert!(amiss.is_empty(), "{amiss:#?}");
        (histories, messages)
    }

    async fn speeds(&self, groups: &[Group], members: usize) -> Speeds {
        let ids: Vec<_> = groups.iter().filter(|group| group.is_weighed).map(|group| group.id).collect();
        let times = |of: fn(&group::Took) -> &Vec<Duration>| {
            let all: Vec<_> = groups.iter().flat_map(|group| of(&group.took).iter().copied()).collect();
            Times::of(&all)
        };
        let burst: Duration = groups.iter().map(|group| group.took.burst).sum();
        let delivered: usize = groups.iter().map(|group| group.took.delivered).sum();
        let delivered = f64::from(u32::try_from(delivered).unwrap());
        Speeds {
            groups: groups.len(),
            members,
            create: times(|took| &took.create),
            quotas_s: seconds(groups.iter().map(|group| group.took.quotas).sum()),
            add_64: times(|took| &took.add_64),
            joined: times(|took| &took.joined),
            accept: times(|took| &took.accept),
            fan_out: times(|took| &took.fan_out),
            delivered_per_s: (!burst.is_zero()).then(|| (delivered / burst.as_secs_f64()).round()),
            add_one: times(|took| &took.add_one),
            add_batch: times(|took| &took.add_batch),
            remove_one: times(|took| &took.remove_one),
            rename: times(|took| &took.rename),
            bytes: self.scales.weigh(&self.world, &ids).await,
        }
    }
}

fn own_kib() -> u64 {
    process::look(std::process::id()).resident_kib
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}
