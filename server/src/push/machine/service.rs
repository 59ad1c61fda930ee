//! The push services as the machine sees them: who waits for which, how many requests are under way, and a breaker that
//! spares a service that fails.

use std::collections::{BTreeMap, BTreeSet};

use gureum_proto::{AccountId, DeviceId, PushService};

use super::{BusyOf, Outcome, PerService, Route, ServiceCounts};
use crate::limits::{
    BREAKER_FAILURES_MAX, BREAKER_MISCONFIGURED_MS, BREAKER_MS_MAX, BREAKER_MS_MIN, PUSH_HOSTS_MAX,
    PUSH_RETRY_AFTER_MS_MAX, PUSH_SENDS_A_HOST_MAX, PUSH_SENDS_A_SERVICE_MAX, PUSH_SENDS_MAX, PUSH_SENDS_RESERVED,
    PUSH_SHARED_HOSTS,
};

/// Whose wake-up.
pub(super) type Key = (AccountId, DeviceId);

/// What fails together: a service, or its part for apps under development, one host of Web Push, or several of them when
/// there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LaneId {
    Apns,
    ApnsSandbox,
    Fcm,
    Host(u64),
    Shared(u64),
}

impl LaneId {
    const fn service(self) -> PushService {
        match self {
            Self::Apns | Self::ApnsSandbox => PushService::Apns,
            Self::Fcm => PushService::Fcm,
            Self::Host(_) | Self::Shared(_) => PushService::WebPush,
        }
    }

    const fn sends_max(self) -> usize {
        match self {
            Self::Apns | Self::Fcm => PUSH_SENDS_A_SERVICE_MAX,
            // What is under development hangs at the cost of nobody's whose app is not.
            Self::ApnsSandbox | Self::Host(_) | Self::Shared(_) => PUSH_SENDS_A_HOST_MAX,
        }
    }
}

/// What an outcome says of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has taken a wake-up.
    Accepts,
    /// It has answered.
    Works,
    /// It has not, or wants to be left alone.
    Fails { retry_after_ms: Option<u64> },
    /// It does not let this server in.
    Misconfigured,
    /// It calls a token bad, and has not taken a wake-up for any: either somebody has set one that is none, or the operator
    /// has set up another environment than all of them are of.
    Doubtful,
    /// It was not asked.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breaker {
    /// All go. So many in a row have failed.
    Closed { failures: u32 },
    /// None goes.
    Open { until_ms: u64, round: u32 },
    /// One goes, and shows whether others may.
    Trying { probe: Option<Key>, round: u32 },
}

struct Lane {
    /// That are woken through it.
    devices: usize,
    /// Those who wait, in the order of their tickets.
    queue: BTreeMap<u64, Key>,
    /// Places that are taken: by requests, and by looks whether a request is still owed.
    in_flight: usize,
    breaker: Breaker,
    is_misconfigured: bool,
    /// Whether it has taken a wake-up since the start.
    has_accepted: bool,
    /// Its turn among the lanes of its service; `None`: it has nobody to send for, or may not.
    turn: Option<u64>,
}

impl Lane {
    const fn new() -> Self {
        Self {
            devices: 0,
            queue: BTreeMap::new(),
            in_flight: 0,
            breaker: Breaker::Closed { failures: 0 },
            is_misconfigured: false,
            has_accepted: false,
            turn: None,
        }
    }

    fn may_start(&self, id: LaneId) -> bool {
        let lets_through = match self.breaker {
            Breaker::Closed { .. } => true,
            Breaker::Open { .. } => false,
            Breaker::Trying { probe, .. } => probe.is_none(),
        };
        lets_through && self.in_flight < id.sends_max()
    }

    fn is_unused(&self) -> bool {
        self.devices == 0 && self.in_flight == 0 && self.queue.is_empty()
    }
}

/// All lanes.
///
/// Invariants: of a lane `in_flight ≤ sends_max`; of a service `in_flight ≤ PUSH_SENDS_A_SERVICE_MAX`; of all
/// `in_flight ≤ PUSH_SENDS_MAX`, and each service may have `PUSH_SENDS_RESERVED` whatever the others do.
pub(super) struct Lanes {
    lanes: BTreeMap<LaneId, Lane>,
    hosts: usize,
    /// Lanes that may send, in turn: a host with many devices holds up no other.
    rotas: PerService<BTreeMap<u64, LaneId>>,
    /// When breakers let one through.
    trials: BTreeSet<(u64, LaneId)>,
    counts: PerService<ServiceCounts>,
    last_ticket: u64,
    /// Wake-ups that are not being sent, in line or not yet.
    pub(super) waiting: usize,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self {
            lanes: BTreeMap::from([(LaneId::Apns, Lane::new()), (LaneId::Fcm, Lane::new())]),
            hosts: 0,
            rotas: PerService::default(),
            trials: BTreeSet::new(),
            counts: PerService::default(),
            last_ticket: 0,
            waiting: 0,
        }
    }

    pub(super) const fn counts(&self) -> &PerService<ServiceCounts> {
        &self.counts
    }

    /// How many stand in a line.
    #[cfg(test)]
    pub(super) fn queued(&self, id: LaneId) -> usize {
        self.lanes.get(&id).map_or(0, |lane| lane.queue.len())
    }

    /// When the next breaker lets one through.
    pub(super) fn next_trial_ms(&self) -> Option<u64> {
        self.trials.first().map(|(at_ms, _)| *at_ms)
    }

    /// A device is woken through this route from now on.
    pub(super) fn join(&mut self, route: Route) -> LaneId {
        let id = match route {
            Route::Apns => LaneId::Apns,
            Route::ApnsSandbox => LaneId::ApnsSandbox,
            Route::Fcm => LaneId::Fcm,
            Route::Web(host) if self.lanes.contains_key(&LaneId::Host(host)) => LaneId::Host(host),
            Route::Web(host) if self.hosts < PUSH_HOSTS_MAX => {
                self.hosts += 1;
                LaneId::Host(host)
            }
            Route::Web(host) => LaneId::Shared(host % PUSH_SHARED_HOSTS),
        };
        self.lanes.entry(id).or_insert_with(Lane::new).devices += 1;
        id
    }

    /// A device is not any more; it waits for nothing.
    pub(super) fn leave(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.devices = lane.devices.saturating_sub(1);
        }
        self.forget_unused(id);
    }

    /// Puts a wake-up into the line; its ticket.
    pub(super) fn enqueue(&mut self, id: LaneId, key: Key) -> u64 {
        let ticket = self.ticket();
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.queue.insert(ticket, key);
        }
        self.make_ready(id);
        ticket
    }

    /// Takes a wake-up out of the line.
    pub(super) fn dequeue(&mut self, id: LaneId, ticket: u64) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.queue.remove(&ticket);
        }
    }

    /// The next wake-up that may go; a place is taken for it until [`Self::finish`].
    pub(super) fn take_next(&mut self) -> Option<(LaneId, Key)> {
        PushService::ALL.into_iter().find_map(|service| self.next_of(service))
    }

    fn next_of(&mut self, service: PushService) -> Option<(LaneId, Key)> {
        while self.has_room(service)
            && let Some((_, id)) = self.rotas.of_mut(service).pop_first()
        {
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            lane.turn = None;
            if !lane.may_start(id) {
                continue;
            }
            let Some((_, key)) = lane.queue.pop_first() else { continue };
            lane.in_flight += 1;
            if let Breaker::Trying { probe, .. } = &mut lane.breaker {
                *probe = Some(key);
            }
            self.counts.of_mut(service).in_flight += 1;
            self.make_ready(id);
            return Some((id, key));
        }
        None
    }

    /// Whether a service may have one more under way. Every other one keeps room for what is reserved for it.
    fn has_room(&self, service: PushService) -> bool {
        let in_flight = |service| self.counts.of(service).in_flight;
        let others = PushService::ALL.into_iter().filter(|other| *other != service);
        let kept: usize = others.map(|other| in_flight(other).max(PUSH_SENDS_RESERVED)).sum();
        in_flight(service) < PUSH_SENDS_A_SERVICE_MAX && in_flight(service) + kept < PUSH_SENDS_MAX
    }

    /// What an outcome says of the service. A token that is called bad may be one of another environment than the
    /// operator has set up, for which this service has not taken anything yet; else it would wipe out every token.
    ///
    /// Hosts of Web Push are not the operator's: what is gone there is gone, and who is not let in is so for one target,
    /// which was made for another server's key. Whoever sets such a target on purpose must hold up nobody else of the host;
    /// nor must a host those that it shares its place with, whatever time it names.
    pub(super) fn verdict(&self, id: LaneId, outcome: &Outcome) -> Verdict {
        let is_of_web = id.service() == PushService::WebPush;
        let has_accepted = self.lanes.get(&id).is_some_and(|lane| lane.has_accepted);
        match outcome {
            Outcome::Accepted => Verdict::Accepts,
            Outcome::Gone { since_ms: None } if !has_accepted && !is_of_web => Verdict::Doubtful,
            Outcome::Misconfigured if !is_of_web => Verdict::Misconfigured,
            Outcome::Gone { .. }
            | Outcome::Refused
            | Outcome::Misconfigured
            | Outcome::Busy { of: BusyOf::Device, .. } => Verdict::Works,
            Outcome::Busy { of: BusyOf::Service, .. } if matches!(id, LaneId::Shared(_)) => {
                Verdict::Fails { retry_after_ms: None }
            }
            Outcome::Busy { retry_after_ms, of: BusyOf::Service } => {
                Verdict::Fails { retry_after_ms: retry_after_ms.map(|ms| ms.min(PUSH_RETRY_AFTER_MS_MAX)) }
            }
            Outcome::Failed(_) => Verdict::Fails { retry_after_ms: None },
        }
    }

    /// Gives a place back, and lets the breaker learn from what has become of the request.
    pub(super) fn finish(&mut self, id: LaneId, key: Key, verdict: Verdict, now_ms: u64) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.in_flight = lane.in_flight.saturating_sub(1);
        lane.has_accepted |= verdict == Verdict::Accepts;
        let (before, was_misconfigured) = (lane.breaker, lane.is_misconfigured);
        lane.breaker = next_breaker(before, key, verdict, was_misconfigured, now_ms);
        let is_closed = matches!(lane.breaker, Breaker::Closed { .. });
        let is_seen = matches!(verdict, Verdict::Misconfigured | Verdict::Doubtful);
        lane.is_misconfigured = !is_closed && (was_misconfigured || is_seen);
        let (after, is_misconfigured) = (lane.breaker, lane.is_misconfigured);
        if let Breaker::Open { until_ms, .. } = before {
            self.trials.remove(&(until_ms, id));
        }
        if let Breaker::Open { until_ms, .. } = after {
            self.trials.insert((until_ms, id));
        }
        let was_closed = matches!(before, Breaker::Closed { .. });
        let counts = self.counts.of_mut(id.service());
        counts.in_flight = counts.in_flight.saturating_sub(1);
        counts.breakers_open = counts.breakers_open + usize::from(!is_closed) - usize::from(!was_closed);
        counts.misconfigured = counts.misconfigured + usize::from(is_misconfigured) - usize::from(was_misconfigured);
        self.make_ready(id);
        self.forget_unused(id);
    }

    /// Lets one through each breaker whose time has come.
    pub(super) fn pass_time(&mut self, now_ms: u64) {
        while let Some((_, id)) = self.trials.first().copied().filter(|(at_ms, _)| *at_ms <= now_ms) {
            self.trials.pop_first();
            if let Some(lane) = self.lanes.get_mut(&id)
                && let Breaker::Open { round, .. } = lane.breaker
            {
                lane.breaker = Breaker::Trying { probe: None, round };
            }
            self.make_ready(id);
        }
    }

    /// Gives a lane its turn, if it has somebody to send for and may.
    fn make_ready(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if lane.turn.is_some() || lane.queue.is_empty() || !lane.may_start(id) {
            return;
        }
        self.last_ticket += 1;
        lane.turn = Some(self.last_ticket);
        self.rotas.of_mut(id.service()).insert(self.last_ticket, id);
    }

    /// Forgets a host that nobody is woken through any more. The services stay, with what they have shown.
    fn forget_unused(&mut self, id: LaneId) {
        if !matches!(id, LaneId::Host(_) | LaneId::Shared(_)) {
            return;
        }
        let Some(lane) = self.lanes.get(&id).filter(|lane| lane.is_unused()) else { return };
        if let Some(turn) = lane.turn {
            self.rotas.of_mut(id.service()).remove(&turn);
        }
        if let Breaker::Open { until_ms, .. } = lane.breaker {
            self.trials.remove(&(until_ms, id));
        }
        let counts = self.counts.of_mut(id.service());
        counts.breakers_open -= usize::from(!matches!(lane.breaker, Breaker::Closed { .. }));
        counts.misconfigured -= usize::from(lane.is_misconfigured);
        self.lanes.remove(&id);
        if matches!(id, LaneId::Host(_)) {
            self.hosts -= 1;
        }
    }

    fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }
}

fn next_breaker(before: Breaker, key: Key, verdict: Verdict, was_misconfigured: bool, now_ms: u64) -> Breaker {
    // Where all tokens are called bad, it is of no use to show it one after the other.
    let verdict = if verdict == Verdict::Doubtful { Verdict::Fails { retry_after_ms: None } } else { verdict };
    let is_probe = matches!(before, Breaker::Trying { probe: Some(probe), .. } if probe == key);
    match (before, verdict) {
        (_, Verdict::Misconfigured) => Breaker::Open { until_ms: now_ms + BREAKER_MISCONFIGURED_MS, round: 0 },
        // Whatever seemed wrong with the settings is not.
        (_, Verdict::Accepts) if was_misconfigured => Breaker::Closed { failures: 0 },
        (Breaker::Closed { .. }, Verdict::Accepts | Verdict::Works) => Breaker::Closed { failures: 0 },
        (Breaker::Closed { failures }, Verdict::Fails { retry_after_ms }) => {
            let failures = failures + 1;
            // Who says when to come back is believed at once.
            if failures >= BREAKER_FAILURES_MAX || retry_after_ms.is_some() {
                open(0, retry_after_ms, now_ms)
            } else {
                Breaker::Closed { failures }
            }
        }
        (Breaker::Trying { .. }, Verdict::Accepts | Verdict::Works) if is_probe => Breaker::Closed { failures: 0 },
        (Breaker::Trying { round, .. }, Verdict::Fails { retry_after_ms }) if is_probe => {
            open(round.saturating_add(1), retry_after_ms, now_ms)
        }
        (Breaker::Trying { round, .. }, Verdict::Nothing) if is_probe => Breaker::Trying { probe: None, round },
        (Breaker::Open { until_ms, round }, Verdict::Fails { retry_after_ms: Some(after_ms) }) => {
            Breaker::Open { until_ms: until_ms.max(now_ms + after_ms), round }
        }
        // What was under way before says nothing new.
        _ => before,
    }
}

/// The longer it has failed the longer it is left alone, up to a minute: so much later than a service others are sent.
fn open(round: u32, retry_after_ms: Option<u64>, now_ms: u64) -> Breaker {
    let pause_ms = BREAKER_MS_MIN.saturating_mul(1 << round.min(16)).min(BREAKER_MS_MAX);
    Breaker::Open { until_ms: now_ms + pause_ms.max(retry_after_ms.unwrap_or_default()), round }
}
