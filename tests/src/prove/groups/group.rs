//! One group from its first commit to the last message: what is done in it, how long it takes, and what is due of whom.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gureum_client::GroupCommand;
use gureum_client::vault::GroupChange;
use gureum_proto::limits::ADDS_PER_COMMIT_MAX;
use gureum_proto::{ConversationId, Handle};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::Stage;
use super::scales::Scales;
use crate::prove::crowd::{Changed, HEARD_IN, Heard, Member, text};

/// Groups of more accounts are made of several commands, each of which is timed.
const AT_ONCE_MAX: usize = 256;
/// Connected members of a group, at least, besides who makes it.
const PRESENT_MIN: usize = 3;

/// What is done in a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Play {
    pub(super) members: usize,
    pub(super) messages: usize,
    pub(super) batch: usize,
}

/// How long things took in one group.
#[derive(Debug, Default)]
pub(super) struct Took {
    pub(super) create: Vec<Duration>,
    pub(super) quotas: Duration,
    pub(super) add_64: Vec<Duration>,
    pub(super) joined: Vec<Duration>,
    pub(super) accept: Vec<Duration>,
    pub(super) fan_out: Vec<Duration>,
    pub(super) add_one: Vec<Duration>,
    pub(super) add_batch: Vec<Duration>,
    pub(super) remove_one: Vec<Duration>,
    pub(super) rename: Vec<Duration>,
    /// Messages at once, from the first until all have them all, and how many deliveries that were.
    pub(super) burst: Duration,
    pub(super) delivered: usize,
}

/// A group, and what was said in it.
pub(super) struct Group {
    pub(super) id: ConversationId,
    pub(super) name: String,
    pub(super) founder: usize,
    /// The scales are in it.
    pub(super) is_weighed: bool,
    /// Names of texts, in the order in which they were said; of those said at once, in any.
    said: Vec<String>,
    /// From which text on and until which one somebody is in it.
    spans: BTreeMap<usize, Vec<(usize, Option<usize>)>>,
    pub(super) took: Took,
}

/// Who else is in a group, and who is not.
struct Cast {
    who: Vec<usize>,
    outside: Vec<usize>,
}

impl Group {
    /// Accounts in it.
    pub(super) fn accounts(&self) -> usize {
        self.present().count() + usize::from(self.is_weighed)
    }

    fn present(&self) -> impl Iterator<Item = usize> {
        let is_present = |spans: &Vec<(usize, Option<usize>)>| spans.last().is_some_and(|(_, until)| until.is_none());
        self.spans.iter().filter(move |(_, spans)| is_present(spans)).map(|(index, _)| *index)
    }

    /// Whether somebody is or was in it.
    pub(super) fn is_in(&self, index: usize) -> bool {
        self.spans.contains_key(&index)
    }

    /// Connected members.
    fn connected(&self, stage: &Stage) -> Vec<usize> {
        self.present().filter(|index| stage.members.contains_key(index)).collect()
    }

    /// Connected members other than the founder.
    pub(super) fn listeners(&self, stage: &Stage) -> Vec<usize> {
        self.connected(stage).into_iter().filter(|index| *index != self.founder).collect()
    }

    /// The name of the next text, which is said from here on.
    pub(super) fn next_text(&mut self) -> String {
        let name = format!("{} {}", self.name, self.said.len());
        self.said.push(name.clone());
        name
    }

    /// Everything that was said, in the order in which the founder has it: each once, and nothing else.
    pub(super) async fn all(&self, founder: &Member) -> Vec<String> {
        let (all, unreadable) = founder.history(self.id).await;
        let (mut has, mut said) = (all.clone(), self.said.clone());
        has.sort_unstable();
        said.sort_unstable();
        assert_eq!((has, unreadable), (said, 0), "what was said in {:?}", self.name);
        all
    }

    /// What is due of somebody.
    pub(super) fn due(&self, index: usize, all: &[String]) -> Vec<String> {
        let spans = self.spans.get(&index).into_iter().flatten();
        spans.flat_map(|(from, until)| all[*from..until.unwrap_or(all.len())].iter().cloned()).collect()
    }

    fn enter(&mut self, who: &[usize]) {
        let from = self.said.len();
        for index in who {
            self.spans.entry(*index).or_default().push((from, None));
        }
    }

    fn go(&mut self, index: usize) {
        let until = self.said.len();
        let span = self.spans.get_mut(&index).and_then(|spans| spans.last_mut());
        span.expect("whoever goes was in it").1 = Some(until);
    }
}

impl Stage {
    /// Makes a group, talks in it, and changes it.
    pub(super) async fn play(&mut self, name: &str, founder: usize, play: &Play, is_weighed: bool) -> Group {
        let mut cast = self.cast(founder, play.members - 1 - usize::from(is_weighed));
        let mut group = self.make(name, founder, &cast.who, is_weighed).await;
        self.say_alone(&mut group, play.messages).await;
        let gone = self.remove(&mut group, &cast).await;
        self.say_alone(&mut group, 1).await;
        // Of the largest group nobody is left out: who went comes back.
        let newcomer = cast.outside.pop().unwrap_or(gone);
        let took = self.add(&mut group, &[newcomer]).await;
        group.took.add_one.push(took);
        self.say_alone(&mut group, 1).await;
        let batch: Vec<_> = cast.outside.iter().rev().take(play.batch).copied().collect();
        if !batch.is_empty() {
            let took = self.add(&mut group, &batch).await;
            group.took.add_batch.push(took);
            self.say_alone(&mut group, 1).await;
        }
        self.rename(&mut group).await;
        self.say_at_once(&mut group, play.messages).await;
        self.tell(&format!("{}: {} accounts, made in {:?}", group.name, group.accounts(), group.took.create));
        group
    }

    /// Who is to be in it besides the founder, those who are connected in their share, and who is not; the first of these
    /// to be added, which is the last in the list, is connected where that can be.
    fn cast(&mut self, founder: usize, count: usize) -> Cast {
        let (mut connected, mut absent): (Vec<_>, Vec<_>) =
            (0..self.crowd.count()).filter(|index| *index != founder).partition(|it| self.members.contains_key(it));
        connected.shuffle(&mut self.random);
        absent.shuffle(&mut self.random);
        let share = count * connected.len() / (connected.len() + absent.len());
        // One who is connected is left to be added.
        let most = connected.len().saturating_sub(1);
        let least = count.saturating_sub(absent.len());
        let present = share.max(PRESENT_MIN).min(most).max(least);
        let mut who: Vec<_> = connected.drain(..present).collect();
        who.extend(absent.drain(..count - present));
        who.shuffle(&mut self.random);
        let newcomer = connected.pop();
        let mut outside: Vec<_> = absent.into_iter().chain(connected).collect();
        outside.shuffle(&mut self.random);
        outside.extend(newcomer);
        Cast { who, outside }
    }

    async fn make(&self, name: &str, founder: usize, who: &[usize], is_weighed: bool) -> Group {
        let mut handles: Vec<Handle> = is_weighed.then(Scales::handle).into_iter().collect();
        handles.extend(self.crowd.those(who));
        let mut took = Took::default();
        let at_once = if handles.len() > AT_ONCE_MAX { ADDS_PER_COMMIT_MAX } else { AT_ONCE_MAX };
        let mut parts = handles.chunks(at_once);
        let first = parts.next().unwrap_or_default().to_vec();
        let maker = &self.members[&founder];
        let made = maker.change(GroupCommand::Create { name: name.to_owned(), who: first }).await;
        let (id, mut whole) = (made.conversation, made.took);
        took.quotas += made.waited;
        for part in parts {
            let added = maker.change(GroupCommand::Add { group: id.into(), who: part.to_vec() }).await;
            whole += added.took;
            took.quotas += added.waited;
            took.add_64.push(added.took.saturating_sub(added.waited));
            self.tell(&format!("{name}: {} more in {:?}, of which waiting {:?}", part.len(), added.took, added.waited));
        }
        took.create.push(whole);
        let answered = Instant::now();
        let (name, said, spans) = (name.to_owned(), Vec::new(), BTreeMap::new());
        let mut group = Group { id, name, founder, is_weighed, said, spans, took };
        group.enter(&[founder]);
        group.enter(who);
        let mut last = answered;
        for index in group.listeners(self) {
            last = last.max(self.joined(&group, index).await);
        }
        group.took.joined.push(last - answered);
        group
    }

    /// Waits until somebody is in a group for the first time.
    async fn joined(&self, group: &Group, index: usize) -> Instant {
        let who = vec![self.crowd.handle(index).to_string()];
        let joined = Heard::Change { conversation: group.id, change: GroupChange::Joined, by: None, who };
        self.crowd.ears().until_heard(&joined, &[index], HEARD_IN).await
    }

    /// The founder, whose message nobody reads before the commits that it follows; then anybody.
    async fn say_alone(&mut self, group: &mut Group, count: usize) {
        let connected = group.connected(self);
        for number in 0..count.max(1) {
            let founder = group.founder;
            let speaker =
                if number == 0 { founder } else { *connected.choose(&mut self.random).expect("the founder is there") };
            let name = group.next_text();
            let started = Instant::now();
            let accepted = self.members[&speaker].say(group.id, &text(&name, 0)).await;
            let last = self.heard(&connected, speaker, name).await;
            group.took.accept.push(accepted);
            group.took.fan_out.push(last.saturating_duration_since(started));
        }
    }

    /// Waits until all but the speaker have a text.
    async fn heard(&self, connected: &[usize], speaker: usize, name: String) -> Instant {
        let others: Vec<_> = connected.iter().copied().filter(|index| *index != speaker).collect();
        self.crowd.ears().until_heard(&Heard::Text(name), &others, HEARD_IN).await
    }

    /// As many at once, by anybody.
    async fn say_at_once(&mut self, group: &mut Group, count: usize) {
        self.say_alone(group, 1).await;
        let connected = group.connected(self);
        let started = Instant::now();
        let (mut pending, mut names) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let speaker = connected[self.random.random_range(0..connected.len())];
            let name = group.next_text();
            let said = self.members[&speaker].commands.hand_over(group.id, text(&name, 0)).await.unwrap();
            pending.push(said);
            names.push((speaker, name));
        }
        for said in pending {
            said.result().await.unwrap();
        }
        let mut last = started;
        for (speaker, name) in names {
            last = last.max(self.heard(&connected, speaker, name).await);
            group.took.delivered += connected.len() - 1;
        }
        group.took.burst += last - started;
    }

    /// Removes somebody, who is connected where anybody but the founder is.
    async fn remove(&mut self, group: &mut Group, cast: &Cast) -> usize {
        let listeners = group.listeners(self);
        let gone = listeners.choose(&mut self.random).or(cast.who.first()).copied().expect("somebody is in it");
        let command = GroupCommand::Remove { group: group.id.into(), who: self.crowd.those(&[gone]) };
        let Changed { took, .. } = self.members[&group.founder].change(command).await;
        group.took.remove_one.push(took);
        self.told(group, GroupChange::Removed, &[gone], &listeners).await;
        group.go(gone);
        gone
    }

    async fn add(&self, group: &mut Group, who: &[usize]) -> Duration {
        let listeners = group.listeners(self);
        let was_in: Vec<_> = who.iter().copied().filter(|index| group.is_in(*index)).collect();
        let command = GroupCommand::Add { group: group.id.into(), who: self.crowd.those(who) };
        let Changed { took, waited, .. } = self.members[&group.founder].change(command).await;
        group.took.quotas += waited;
        group.enter(who);
        if let [one] = who {
            self.told(group, GroupChange::Added, &[*one], &listeners).await;
        }
        for index in who.iter().filter(|index| self.members.contains_key(index) && !was_in.contains(index)) {
            self.joined(group, *index).await;
        }
        took.saturating_sub(waited)
    }

    async fn rename(&self, group: &mut Group) {
        let listeners = group.listeners(self);
        let name = format!("{} again", group.name);
        let command = GroupCommand::Rename { group: group.id.into(), name };
        let Changed { took, .. } = self.members[&group.founder].change(command).await;
        group.took.rename.push(took);
        self.told(group, GroupChange::Renamed, &[], &listeners).await;
    }

    /// Waits until these are told of a change that the founder has made.
    async fn told(&self, group: &Group, change: GroupChange, who: &[usize], listeners: &[usize]) {
        let by = Some(self.crowd.handle(group.founder).to_string());
        let who = self.crowd.those(who).iter().map(Handle::to_string).collect();
        let told = Heard::Change { conversation: group.id, change, by, who };
        self.crowd.ears().until_heard(&told, listeners, HEARD_IN).await;
    }
}
