//! What all devices of a load share while it runs: the clock, how much is due of them, and when to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use gureum_proto::ConversationId;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::alarm::Alarm;
use super::meter::{Meter, SharedLane};
use super::pace::{Due, Pace};
use super::{Progress, Tell};
use crate::client::ClientError;
use crate::limits::{LOAD_LOOK, LOAD_TAIL};

/// The tasks of the devices.
pub(super) type Tasks = JoinSet<Result<(), ClientError>>;

/// Shared by all devices. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    start: Instant,
    /// Wakes who has to say something.
    pub(super) alarm: Alarm,
    /// Everything has come, or nothing more will.
    pub(super) quit: CancellationToken,
    /// Nobody says anything more.
    hush: CancellationToken,
    /// Devices that have not said everything yet.
    talking: Arc<AtomicUsize>,
    /// Deliveries that are due.
    due: Arc<AtomicU64>,
    delivered: Arc<AtomicU64>,
}

/// Lasts as long as a device has something to say.
#[derive(Debug)]
pub(super) struct Talking(Arc<AtomicUsize>);

impl Drop for Talking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Stage {
    /// The clock starts.
    pub(super) fn begin() -> Self {
        Self::by(Instant::now(), Alarm::begin())
    }

    /// Another part of the load by the same clock, of whose devices nothing is due yet.
    pub(super) fn again(&self) -> Self {
        Self::by(self.start, self.alarm.clone())
    }

    fn by(start: Instant, alarm: Alarm) -> Self {
        Self {
            start,
            alarm,
            quit: CancellationToken::new(),
            hush: CancellationToken::new(),
            talking: Arc::default(),
            due: Arc::default(),
            delivered: Arc::default(),
        }
    }

    /// Ends what is said before its time.
    pub(super) fn hush(&self) {
        self.hush.cancel();
    }

    pub(super) const fn start(&self) -> Instant {
        self.start
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Nanoseconds since the start.
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A device begins to talk.
    pub(super) fn talks(&self) -> Talking {
        self.talking.fetch_add(1, Ordering::SeqCst);
        Talking(Arc::clone(&self.talking))
    }

    /// A message was accepted that so many devices are to get.
    pub(super) fn expect(&self, deliveries: u64) {
        self.due.fetch_add(deliveries, Ordering::SeqCst);
    }

    /// So many deliveries have come.
    pub(super) fn came(&self, deliveries: u64) {
        self.delivered.fetch_add(deliveries, Ordering::SeqCst);
    }

    /// Deliveries that are due so far.
    pub(super) fn due(&self) -> u64 {
        self.due.load(Ordering::SeqCst)
    }

    fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::SeqCst)
    }

    /// Whether everything was said, and has come.
    pub(super) fn is_done(&self) -> bool {
        self.talking.load(Ordering::SeqCst) == 0 && self.delivered() >= self.due()
    }

    /// Runs the devices until everything has come, or nothing has for a while though everything was said. Tells once a second
    /// how it goes.
    pub(super) async fn run(&self, tasks: &mut Tasks, meter: &Meter, tell: Tell<'_>) {
        let mut second = tokio::time::interval_at(self.start + Duration::from_secs(1), Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut look = tokio::time::interval(LOAD_LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut last = (self.delivered(), Instant::now());
        while !tasks.is_empty() && !self.is_done() {
            tokio::select! {
                biased;
                _ = second.tick() => tell(&Progress::Second(meter.tick(self.elapsed()))),
                Some(ended) = tasks.join_next() => note(ended, meter),
                _ = look.tick() => {
                    let now = (self.delivered(), Instant::now());
                    if self.talking.load(Ordering::SeqCst) > 0 || now.0 > last.0 {
                        last = now;
                    } else if now.1 - last.1 >= LOAD_TAIL {
                        break;
                    }
                }
            }
        }
        self.quit.cancel();
        let ended = async {
            while let Some(ended) = tasks.join_next().await {
                note(ended, meter);
            }
        };
        if tokio::time::timeout(LOAD_TAIL, ended).await.is_err() {
            meter.failed("some devices did not end in time".to_owned());
            tasks.abort_all();
        }
    }
}

fn note(ended: Result<Result<(), ClientError>, tokio::task::JoinError>, meter: &Meter) {
    match ended {
        Ok(Ok(())) => (),
        Ok(Err(error)) => meter.failed(error.to_string()),
        Err(error) => meter.failed(error.to_string()),
    }
}

/// Where a device says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Post {
    pub(super) conversation: ConversationId,
    /// The epoch in which its founder left it.
    pub(super) epoch: u64,
    /// Devices that are to get what is said there.
    pub(super) hearers: u64,
}

/// What a device says, where and when.
#[derive(Debug)]
pub(super) struct Says {
    pub(super) posts: Vec<Post>,
    pub(super) pace: Pace,
    next: usize,
    /// Until everything was said and answered.
    talking: Option<Talking>,
}

impl Says {
    pub(super) fn new(posts: Vec<Post>, pace: Pace, stage: &Stage) -> Self {
        Self { posts, pace, next: 0, talking: Some(stage.talks()) }
    }

    /// Where the next message goes: each place in its turn.
    pub(super) fn next_post(&mut self) -> Option<Post> {
        let post = self.posts.get(self.next).copied();
        self.next = (self.next + 1) % self.posts.len().max(1);
        post
    }

    /// What may be said now.
    pub(super) fn due(&mut self, now: Instant, in_flight: usize, stage: &Stage) -> Vec<Due> {
        if stage.hush.is_cancelled() {
            self.pace.stop();
        }
        self.pace.due(now, in_flight)
    }

    /// Everything was said and answered.
    pub(super) fn is_through(&mut self) {
        drop(self.talking.take());
    }
}

/// What a device does beside what it says.
#[derive(Debug, Clone, Default)]
pub(super) struct Habits {
    /// It takes its inbox.
    pub(super) hears: bool,
    /// It confirms what it hears.
    pub(super) confirms: bool,
    /// It comes back when the connection is lost.
    pub(super) returns: bool,
    /// It goes away now and then.
    pub(super) away: Option<Away>,
}

/// How often and for how long a device is away.
#[derive(Debug, Clone, Copy)]
pub(super) struct Away {
    /// When for the first time, since the start.
    pub(super) first: Duration,
    /// From coming back until going away again.
    pub(super) every: Duration,
    /// How long.
    pub(super) lasts: Duration,
}

/// One device's part in a load.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) says: Option<Says>,
    pub(super) habits: Habits,
    pub(super) lane: SharedLane,
    pub(super) stage: Stage,
    /// Bytes of a message.
    pub(super) bytes: usize,
    /// Latencies of what was due before count from here: a device that drains its inbox was not there before.
    pub(super) counts_from_ns: u64,
}

impl Part {
    /// Counts what has come: when each message was due, from a device that has been there since `there_ns`.
    pub(super) fn heard(&self, due: &[u64], there_ns: u64) {
        if due.is_empty() {
            return;
        }
        let now_ns = self.stage.now_ns();
        {
            let mut lane = self.lane.lock();
            for due_ns in due {
                let due_ns = (*due_ns).max(self.counts_from_ns);
                if due_ns < there_ns { lane.caught_up(due_ns, now_ns) } else { lane.delivered(due_ns, now_ns) }
            }
        }
        self.stage.came(u64::try_from(due.len()).unwrap_or(u64::MAX));
    }

    /// Counts an answer: a message that so many are to get is on the disk.
    pub(super) fn accepted(&self, due_ns: u64, now_ns: u64, hearers: u64) {
        self.lane.lock().accepted(due_ns, now_ns);
        self.stage.expect(hearers);
    }
}

/// The conversations in which a device confirms what it has heard, until it does.
#[derive(Debug, Default)]
pub(super) struct Owed {
    epochs: BTreeMap<ConversationId, u64>,
    owed: BTreeMap<ConversationId, u64>,
    pub(super) at: Option<Instant>,
}

impl Owed {
    pub(super) fn of(says: Option<&Says>) -> Self {
        let posts = says.into_iter().flat_map(|says| says.posts.iter());
        let epochs = posts.map(|post| (post.conversation, post.epoch)).collect();
        Self { epochs, ..Self::default() }
    }

    /// Something came there; it is confirmed a while after the first of several.
    pub(super) fn note(&mut self, conversation: ConversationId, after: Duration) {
        if let Some(epoch) = self.epochs.get(&conversation) {
            self.owed.insert(conversation, *epoch);
            self.at.get_or_insert_with(|| Instant::now() + after);
        }
    }

    /// What is to be confirmed now, so much at most; the rest follows.
    pub(super) fn take(&mut self, now: Instant, most: usize) -> Vec<(ConversationId, u64)> {
        if self.at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let mut due = Vec::new();
        while due.len() < most
            && let Some(next) = self.owed.pop_first()
        {
            due.push(next);
        }
        if self.owed.is_empty() {
            self.at = None;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadPace;

    fn conversation(byte: u8) -> ConversationId {
        ConversationId::from_bytes([byte; 16])
    }

    fn says(posts: &[u8], stage: &Stage) -> Says {
        let post = |byte: &u8| Post { conversation: conversation(*byte), epoch: u64::from(*byte), hearers: 1 };
        let pace = Pace::new(LoadPace::Window(1), 1, 0, stage.start(), Duration::from_secs(1));
        Says::new(posts.iter().map(post).collect(), pace, stage)
    }

    #[tokio::test]
    async fn a_load_is_done_when_everything_was_said_and_has_come() {
        let stage = Stage::begin();
        let mut first = says(&[1], &stage);
        let second = says(&[2], &stage);
        stage.expect(3);
        stage.came(3);
        assert!(!stage.is_done(), "two talk");
        assert_eq!(first.due(stage.start(), 0, &stage).len(), 1);
        stage.hush();
        assert!(first.due(stage.start(), 0, &stage).is_empty(), "nothing more is said");
        first.is_through();
        assert!(!stage.is_done(), "one talks");
        drop(second);
        assert!(stage.is_done(), "who has ended says nothing more");
        stage.expect(1);
        assert!(!stage.is_done());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_for_a_while_is_given_up() {
        let (stage, meter) = (Stage::begin(), Meter::new(1));
        stage.expect(1);
        let mut tasks = Tasks::new();
        let quit = stage.quit.clone();
        tasks.spawn(async move {
            quit.cancelled().await;
            Ok(())
        });
        stage.run(&mut tasks, &meter, &mut |_| ()).await;
        assert!((LOAD_TAIL..LOAD_TAIL * 2).contains(&stage.elapsed()), "{:?}", stage.elapsed());
        assert_eq!(meter.errors(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn each_place_has_its_turn() {
        let stage = Stage::begin();
        let mut says = says(&[1, 2], &stage);
        let turns: Vec<_> = (0..3).map(|_| says.next_post().unwrap().epoch).collect();
        assert_eq!(turns, [1, 2, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_together_is_confirmed_once_and_no_more_at_once_than_there_is_room_for() {
        let stage = Stage::begin();
        let mut owed = Owed::of(Some(&says(&[1, 2], &stage)));
        let second = Duration::from_secs(1);
        for byte in [1, 2, 1, 9] {
            owed.note(conversation(byte), second);
        }
        let now = Instant::now();
        assert!(owed.take(now, 8).is_empty(), "a while later");
        assert_eq!(owed.take(now + second, 1), [(conversation(1), 1)]);
        assert_eq!(owed.take(now + second, 8), [(conversation(2), 2)]);
        assert_eq!((owed.at, owed.take(now + second, 8)), (None, Vec::new()));
    }
}
