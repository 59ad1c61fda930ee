//! One conversation that all its admins change at once, while they talk: it converges, nobody waits for too long, and each
//! has exactly what was said while it was in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use gureum_client::vault::{ConversationStatus, GroupChange};
use gureum_client::{ClientError, GroupCommand};
use gureum_proto::limits::GROUP_ADMINS_MAX;
use gureum_proto::{ConversationId, Handle};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::crowd::{COMES_IN, Crowd, Ears, HEARD_IN, Heard, Member, Times, text};
use crate::World;

/// Accounts that each client adds and removes in turn.
const POOL_EACH: usize = 2;
/// How often one client adds the same account: below what the server lets it claim of one in an hour. Past it, it gives
/// the group another name.
const ADDS_OF_ONE_MAX: usize = 8;
/// Of so many changes one is about somebody else's account.
const OTHERS_EVERY: u32 = 4;
/// Of so many changes one is followed by a message.
const SAYS_EVERY: u32 = 3;
/// How long a change that was begun may take when others are over, and how long all may take to be at one.
const SETTLES_IN: Duration = Duration::from_secs(180);
/// How long one client may wait for one change at most: with 50 of them 69 s were seen.
const WAITS_MAX: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Of those who are out at the end, so many come and are looked at.
const OUT_LOOKED_AT: usize = 10;

/// How much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Admins, each a client of its own.
    pub clients: usize,
    /// How long they change the group, at most.
    pub duration: Duration,
    /// How many changes are enough, if not as many as fit into that time; each client makes one in any case.
    pub changes: Option<usize>,
    /// Who does what when.
    pub seed: u64,
    /// Whether to tell on standard error how it goes.
    pub tells: bool,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Who does what when.
    pub seed: u64,
    /// Admins.
    pub clients: usize,
    /// How long they were at it, in seconds; what they had begun by then was made afterwards.
    pub window_s: f64,
    /// Changes that the server has accepted in that time.
    pub changes: usize,
    /// The same, a second.
    pub changes_per_s: f64,
    /// Of each client: the fewest, the median, the most.
    pub changes_of_one: [usize; 3],
    /// Commits that came too late, all clients together.
    pub lost_races: u64,
    /// What was wanted until it was so, or kept for later.
    pub waits: Times,
    /// The longest such wait of each client: the shortest, the median, the longest, in milliseconds.
    pub longest_wait_ms: [u64; 3],
    /// What was wanted and kept for later, since nothing could be done for long.
    pub kept: usize,
    /// Messages that were said.
    pub messages: usize,
    /// Of them, those that were acknowledged while somebody waited.
    pub acknowledged: usize,
    /// Of those who came and went, how many were looked at in the end.
    pub newcomers: usize,
    /// Messages that were due to them: to each, what was said while it was in. They have these, and no others.
    pub due_to_newcomers: usize,
    /// The last epoch.
    pub epoch: u64,
    /// Members in it, and devices that agreed on it.
    pub members: [usize; 2],
    /// From the end of the changes until all agreed, in seconds.
    pub converged_s: f64,
    /// How long it took, in seconds.
    pub seconds: u64,
}

/// What one client has done.
#[derive(Default)]
struct Work {
    waits: Vec<Duration>,
    kept: usize,
    said: Vec<String>,
    acknowledged: Vec<String>,
}

/// What was done while all were at it.
struct Window {
    took: Duration,
    /// How many changes each client had made when it was over, ascending.
    counts: Vec<usize>,
    /// What each client has done, with what it had begun when it was over.
    works: Vec<Work>,
}

/// One who changes the group.
struct Contender {
    member: Member,
    conversation: ConversationId,
    /// The accounts that it adds and removes.
    own: Vec<Handle>,
    /// All others' accounts.
    others: Vec<Handle>,
    random: StdRng,
    adds: BTreeMap<Handle, usize>,
    work: Work,
}

/// Everybody and the group.
struct Arena {
    world: World,
    crowd: Crowd,
    /// The clients, and behind them the witness, who changes nothing.
    members: BTreeMap<usize, Member>,
    conversation: ConversationId,
    clients: usize,
    tells: bool,
}

/// Runs it.
///
/// # Panics
/// When the members do not come to agree, one of them is stuck, or a message is lost, doubled or in another place.
#[must_use]
pub fn run(options: &Options) -> Report {
    assert!((2..=GROUP_ADMINS_MAX).contains(&options.clients), "all of them are admins");
    let world = World::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(Box::pin(contend(options, world)))
}

async fn contend(options: &Options, world: World) -> Report {
    let began = Instant::now();
    let mut arena = Arena::make(options, world).await;
    let window = arena.change_at_once(options).await;
    window.check();
    let Window { took, counts, works } = window;
    let window_s = took.as_secs_f64();
    let total: usize = counts.iter().sum();
    arena.tell(&format!("{total} changes in {window_s:.1} s, {:?} a client", spread(&counts)));

    let in_group = arena.let_members_come().await;
    let settled = Instant::now();
    let epoch = arena.agree(&in_group).await;
    let converged_s = settled.elapsed().as_secs_f64();
    let lasts = arena.say_last(&in_group).await;
    let messages = arena.check_lasting(&works, &lasts).await;
    let (newcomers, due_to_newcomers) = arena.check_newcomers().await;
    let mut longest: Vec<u64> = works.iter().map(Work::longest_ms).collect();
    longest.sort_unstable();
    let waits: Vec<_> = works.iter().flat_map(|work| work.waits.iter().copied()).collect();
    let report = Report {
        seed: options.seed,
        clients: options.clients,
        window_s,
        changes: total,
        changes_per_s: f64::from(u32::try_from(total).unwrap()) / window_s,
        changes_of_one: spread(&counts),
        lost_races: arena.lost_races(),
        waits: Times::of(&waits),
        longest_wait_ms: spread(&longest),
        kept: works.iter().map(|work| work.kept).sum(),
        messages,
        acknowledged: works.iter().map(|work| work.acknowledged.len()).sum::<usize>() + lasts.len(),
        newcomers,
        due_to_newcomers,
        epoch,
        members: [arena.people().await.len(), in_group.len()],
        converged_s,
        seconds: began.elapsed().as_secs(),
    };
    for member in std::mem::take(&mut arena.members).into_values() {
        member.leave().await;
    }
    report
}

/// What somebody says at the end.
fn last_of(index: usize) -> String {
    format!("last of {index}")
}

/// The least, the median and the most of sorted values.
fn spread<T: Copy>(sorted: &[T]) -> [T; 3] {
    [sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]]
}

impl Arena {
    /// All are connected, in the group, and its admins; those of the pool only have their accounts.
    async fn make(options: &Options, world: World) -> Self {
        let clients = options.clients;
        let crowd = Crowd::gather(&world, clients + 1 + clients * POOL_EACH).await;
        let mut members = BTreeMap::new();
        for index in 0..=clients {
            members.insert(index, crowd.come(index).await.0);
        }
        let others: Vec<_> = (1..=clients).collect();
        let name = "contended".to_owned();
        let made = members[&0].change(GroupCommand::Create { name, who: crowd.those(&others) }).await;
        let conversation = made.conversation;
        let admins = crowd.those(&others[..clients - 1]);
        members[&0].change(GroupCommand::Promote { group: conversation.into(), who: admins }).await;
        let arena = Self { world, crowd, members, conversation, clients, tells: options.tells };
        // Whoever reads this has taken the commits before it.
        arena.members[&0].say(conversation, &text("go", 0)).await;
        arena.ears().until_heard(&Heard::Text("go".to_owned()), &others, HEARD_IN).await;
        arena
    }

    fn ears(&self) -> &Ears {
        self.crowd.ears()
    }

    fn tell(&self, how: &str) {
        if self.tells {
            eprintln!("{how}");
        }
    }

    /// The witness, who is in the group all along and changes nothing.
    const fn witness(&self) -> usize {
        self.clients
    }

    fn pool_of(&self, client: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.clients + 1 + client * POOL_EACH;
        first..first + POOL_EACH
    }

    /// Everybody does what they like, until it is enough.
    async fn change_at_once(&mut self, options: &Options) -> Window {
        let (stop, stopped) = watch::channel(false);
        let mut running = JoinSet::new();
        for client in 0..self.clients {
            let others = (0..self.clients).filter(|other| *other != client).flat_map(|other| self.pool_of(other));
            let others: Vec<_> = others.collect();
            let own: Vec<_> = self.pool_of(client).collect();
            let contender = Contender {
                conversation: self.conversation,
                own: self.crowd.those(&own),
                others: self.crowd.those(&others),
                random: StdRng::seed_from_u64(options.seed.wrapping_add(u64::try_from(client).unwrap())),
                adds: BTreeMap::new(),
                work: Work::default(),
                member: self.members.remove(&client).expect("all are connected"),
            };
            running.spawn(contender.run(stopped.clone()));
        }
        let started = Instant::now();
        while started.elapsed() < options.duration && !self.is_enough(options) {
            assert!(running.try_join_next().is_none(), "a client has ended");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        stop.send_replace(true);
        let (took, counts) = (started.elapsed(), self.counts());
        let ending = async {
            let mut works = Vec::new();
            while let Some(ended) = running.join_next().await {
                let (member, work) = ended.unwrap();
                self.members.insert(member.index, member);
                works.push(work);
            }
            works
        };
        let works = tokio::time::timeout(SETTLES_IN, ending).await.expect("nobody is stuck in a change that was begun");
        Window { took, counts, works }
    }

    /// How many changes of each client the witness has seen, ascending.
    fn counts(&self) -> Vec<usize> {
        let changes = self.changes();
        let mut counts: Vec<_> = (0..self.clients).map(|client| changes.get(&client).copied().unwrap_or(0)).collect();
        counts.sort_unstable();
        counts
    }

    fn is_enough(&self, options: &Options) -> bool {
        let changes = self.changes();
        let total: usize = changes.values().sum();
        options.changes.is_some_and(|enough| total >= enough && changes.len() == self.clients)
    }

    /// How many changes of whom the witness has seen.
    fn changes(&self) -> BTreeMap<usize, usize> {
        let is_meant =
            |change: &GroupChange| matches!(change, GroupChange::Added | GroupChange::Removed | GroupChange::Renamed);
        let mut of = BTreeMap::new();
        for heard in self.ears().of(self.witness()) {
            if let Heard::Change { change, by: Some(by), .. } = heard
                && is_meant(&change)
                && let Some(client) = (0..self.clients).find(|client| self.crowd.handle(*client).as_str() == by)
            {
                *of.entry(client).or_default() += 1;
            }
        }
        of
    }

    fn lost_races(&self) -> u64 {
        let of = |code| self.world.admin().count(&format!("gureum_requests_refused_total{{code=\"{code}\"}}"));
        of("EpochConflict") + of("EpochStale")
    }

    /// Who is in the group by the witness's word: handles, and whether they are admins.
    async fn people(&self) -> Vec<(String, bool)> {
        self.people_of(self.witness()).await
    }

    async fn people_of(&self, index: usize) -> Vec<(String, bool)> {
        let groups = self.members[&index].client.groups().await.unwrap();
        let group = groups.into_iter().find(|group| group.conversation == self.conversation).expect("the group");
        if group.state != ConversationStatus::Active {
            return Vec::new();
        }
        group.people.into_iter().map(|person| (person.handle, person.is_admin)).collect()
    }

    /// Those of the pool who are in the group come, and some who are out of it. Everybody who is in it.
    async fn let_members_come(&mut self) -> Vec<usize> {
        // What is accepted is known to the witness when it has a message that follows.
        self.members[&0].say(self.conversation, &text("over", 0)).await;
        self.ears().until_heard(&Heard::Text("over".to_owned()), &[self.witness()], HEARD_IN).await;
        let people: BTreeSet<_> = self.people().await.into_iter().map(|(handle, _)| handle).collect();
        let pool = self.clients + 1..self.crowd.count();
        let is_in = |crowd: &Crowd, index: usize| people.contains(crowd.handle(index).as_str());
        let (present, out): (Vec<_>, Vec<_>) = pool.partition(|index| is_in(&self.crowd, *index));
        for index in present.iter().chain(out.iter().take(OUT_LOOKED_AT)).copied() {
            let (member, _) = self.crowd.come(index).await;
            self.members.insert(index, member);
        }
        (0..=self.clients).chain(present).collect()
    }

    /// Waits until all have the same epoch, the same people, and the same keys; the epoch.
    async fn agree(&self, who: &[usize]) -> u64 {
        let until = Instant::now() + SETTLES_IN;
        loop {
            let mut seen: BTreeMap<_, Vec<usize>> = BTreeMap::new();
            for index in who {
                let shared = self.crowd.epoch_of(*index, self.conversation);
                seen.entry((shared, self.people_of(*index).await)).or_default().push(*index);
            }
            if seen.len() == 1
                && let Some(((Some((epoch, _)), people), _)) = seen.first_key_value()
            {
                assert_eq!(people.len(), who.len(), "all who are in it are connected: {people:?}");
                return *epoch;
            }
            let apart: Vec<_> = seen.iter().map(|((shared, _), who)| (shared.as_ref().map(|it| it.0), who)).collect();
            assert!(Instant::now() < until, "they do not agree: {apart:?}\n{:#?}", self.ears().amiss());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Each says one more thing, and everybody reads it.
    async fn say_last(&self, who: &[usize]) -> Vec<String> {
        for index in who {
            self.members[index].say(self.conversation, &text(&last_of(*index), 0)).await;
        }
        for speaker in who {
            let others: Vec<_> = who.iter().copied().filter(|index| index != speaker).collect();
            self.ears().until_heard(&Heard::Text(last_of(*speaker)), &others, COMES_IN).await;
        }
        who.iter().map(|index| last_of(*index)).collect()
    }

    /// Everybody who was in it all along has everything that was acknowledged, once, in one order. How many messages there are.
    async fn check_lasting(&self, works: &[Work], lasts: &[String]) -> usize {
        let (all, unreadable) = self.members[&self.witness()].history(self.conversation).await;
        assert_eq!(unreadable, 0, "the witness was in it all along");
        let once: BTreeSet<_> = all.iter().collect();
        assert_eq!(once.len(), all.len(), "nothing is there twice");
        for said in works.iter().flat_map(|work| &work.acknowledged).chain(lasts) {
            assert!(once.contains(said), "{said:?} was acknowledged and is lost");
        }
        let said: BTreeSet<_> = works.iter().flat_map(|work| &work.said).chain(lasts).collect();
        let strange = |name: &&String| !said.contains(*name) && *name != "go" && *name != "over";
        assert_eq!(all.iter().find(strange), None, "nobody has said that");
        for client in 0..self.clients {
            let has = self.members[&client].history(self.conversation).await;
            assert_eq!(has, (all.clone(), 0), "client {client}");
        }
        all.len()
    }

    /// Whoever came and went has all that was said while it was in, and nothing else: the server takes no message that was
    /// encrypted before the last of those who are in were added. How many were looked at, and what was due to them.
    async fn check_newcomers(&self) -> (usize, usize) {
        let (mut newcomers, mut due) = (0, 0);
        for (index, member) in self.members.range(self.witness() + 1..) {
            let (mut has, unreadable) = member.history(self.conversation).await;
            // The witness does not hear itself.
            has.retain(|name| *name != last_of(self.witness()));
            let meanwhile = self.meanwhile(*index);
            assert_eq!((&has, unreadable), (&meanwhile, 0), "{}", member.handle);
            (newcomers, due) = (newcomers + 1, due + meanwhile.len());
        }
        let amiss = self.ears().amiss();
        assert!(amiss.is_empty(), "{amiss:#?}");
        (newcomers, due)
    }

    /// What was said while somebody of the pool was in the group, by the witness's word.
    fn meanwhile(&self, index: usize) -> Vec<String> {
        let handle = self.crowd.handle(index).to_string();
        let (mut is_in, mut said) = (false, Vec::new());
        for heard in self.ears().of(self.witness()) {
            match heard {
                Heard::Change { change: GroupChange::Added, who, .. } if who.contains(&handle) => is_in = true,
                Heard::Change { change: GroupChange::Removed, who, .. } if who.contains(&handle) => is_in = false,
                Heard::Text(name) if is_in => said.push(name),
                Heard::Text(_) | Heard::Change { .. } | Heard::CaughtUp | Heard::Amiss(_) => {}
            }
        }
        said
    }
}

impl Window {
    /// Nobody has waited too long for a change, the one included that was begun when it was over. So all have had their turn
    /// in a window that is as long.
    fn check(&self) {
        let longest = self.works.iter().flat_map(|work| &work.waits).max();
        assert!(longest.is_some_and(|longest| *longest <= WAITS_MAX), "somebody has waited for a change: {longest:?}");
        let is_long = self.took >= WAITS_MAX;
        assert!(!is_long || self.counts[0] > 0, "each has changed something in {:?}: {:?}", self.took, self.counts);
    }
}

impl Work {
    fn longest_ms(&self) -> u64 {
        let longest = self.waits.iter().max().copied().unwrap_or_default();
        u64::try_from(longest.as_millis()).unwrap()
    }
}

impl Contender {
    async fn run(mut self, stopped: watch::Receiver<bool>) -> (Member, Work) {
        for turn in 0.. {
            // Each wants one thing in any case.
            if *stopped.borrow() && turn > 0 {
                break;
            }
            let command = self.next_change(turn);
            let started = Instant::now();
            match self.member.commands.group(command.clone()).await {
                // That somebody else has done it, or undone it, is no failure.
                Ok(answer) => assert!(answer.failed.is_empty() && answer.refused.is_none(), "{command:?}: {answer:?}"),
                Err(ClientError::ChangeKept(_)) => self.work.kept += 1,
                Err(error) => panic!("{} {command:?}: {error}", self.member.handle),
            }
            self.work.waits.push(started.elapsed());
            if self.random.random_range(0..SAYS_EVERY) == 0 {
                self.say(turn).await;
            }
        }
        (self.member, self.work)
    }

    /// In turns one of its own accounts comes and goes; now and then it meddles with somebody else's.
    fn next_change(&mut self, turn: usize) -> GroupCommand {
        let is_own = turn == 0 || self.random.random_range(0..OTHERS_EVERY) > 0;
        let (whom, adds) = if is_own {
            (self.own[turn / 2 % self.own.len()].clone(), turn.is_multiple_of(2))
        } else {
            (self.others[self.random.random_range(0..self.others.len())].clone(), self.random.random_bool(0.5))
        };
        let group = self.conversation.into();
        if !adds {
            return GroupCommand::Remove { group, who: vec![whom] };
        }
        let count = self.adds.entry(whom.clone()).or_default();
        *count += 1;
        if *count > ADDS_OF_ONE_MAX {
            return GroupCommand::Rename { group, name: format!("{} {turn}", self.member.handle) };
        }
        GroupCommand::Add { group, who: vec![whom] }
    }

    async fn say(&mut self, turn: usize) {
        let name = format!("{} {turn}", self.member.handle);
        self.work.said.push(name.clone());
        match self.member.commands.send(self.conversation, text(&name, 0)).await {
            Ok(_) => self.work.acknowledged.push(name),
            // It goes out by itself.
            Err(ClientError::Kept(_)) => {}
            Err(error) => panic!("{name}: {error}"),
        }
    }
}
