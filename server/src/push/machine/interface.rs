//! What the machine of push learns, and what it wants done.

use gureum_proto::{AccountId, DeviceId, PushService};

use crate::limits::PUSH_WARNING_MS;
use crate::store::record::PushStateRecord;

/// When devices are woken. All in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushConfig {
    /// How long a message may stay untaken.
    pub delay_ms: u64,
    /// Between two wake-ups of a device that shows something to a person.
    pub interval_ms: u64,
    /// Between two wake-ups of a device that shows nothing.
    pub silent_interval_ms: u64,
    /// How long a device that goes has to come back, and everybody after a start.
    pub close_delay_ms: u64,
    /// Between two rounds that look for what expires.
    pub sweep_ms: u64,
    /// How long messages stay.
    pub retention_ms: u64,
}

/// What a wake-up goes through: what fails together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// Apple's service.
    Apns,
    /// The same for apps under development: other hosts, and other tokens.
    ApnsSandbox,
    /// Google's service.
    Fcm,
    /// A host of Web Push, by a hash of its origin.
    Web(u64),
}

/// What a device is told. Nothing else ever goes to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WakeKind {
    /// There are messages.
    Messages,
    /// There are messages, and they are about to expire.
    Expiring,
}

/// What the machine learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A device can be woken: one that could not, or in another way than before.
    Target {
        /// Of which account.
        account: AccountId,
        /// Which.
        device: DeviceId,
        /// Through what.
        route: Route,
        /// Whether it shows something to a person.
        visible: bool,
        /// What it was last woken for.
        state: PushStateRecord,
    },
    /// A device cannot be woken any more.
    NoTarget {
        /// Of which account.
        account: AccountId,
        /// Which.
        device: DeviceId,
    },
    /// An inbox has grown by messages that count, or a device has taken some. A position of 0 says nothing.
    Moved {
        /// Whose.
        account: AccountId,
        /// The last message that has come.
        grown_seq: u64,
        /// The furthest that a device has taken.
        taken_seq: u64,
    },
    /// A device has subscribed.
    Connected {
        /// Of which account.
        account: AccountId,
        /// Which.
        device: DeviceId,
    },
    /// Its subscription has ended.
    Closed {
        /// Of which account.
        account: AccountId,
        /// Which.
        device: DeviceId,
    },
    /// Something has happened to an account that the person of a device has to know at once.
    Alarm {
        /// Of which account.
        account: AccountId,
        /// Which device.
        device: DeviceId,
        /// Since when that is owed to it.
        owed_ms: u64,
    },
    /// The answer to [`Action::Look`]; an error when the store could not be read.
    Looked {
        /// Of which account.
        account: AccountId,
        /// What the inbox holds.
        facts: Result<Facts, ()>,
    },
    /// The answer to [`Action::Send`].
    Sent {
        /// Of which account.
        account: AccountId,
        /// Which device.
        device: DeviceId,
        /// What became of it.
        outcome: Outcome,
    },
    /// [`Action::Send`] was not performed: the target is gone, or could not be read. No service has heard of it.
    Unsent {
        /// Of which account.
        account: AccountId,
        /// Which device.
        device: DeviceId,
    },
    /// Time has passed.
    Tick,
}

/// What an inbox holds, and how far it is taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The newest entry.
    pub head_seq: u64,
    /// The furthest that a device of the account has taken.
    pub taken_seq: u64,
    /// The first message behind that which is worth a wake-up, as far as was looked.
    pub first: Option<First>,
    /// Nothing up to here is worth one. Below the head without a `first`, the look goes on from here.
    pub looked_to: u64,
    /// Those that can be woken.
    pub devices: Vec<DeviceFacts>,
}

/// A message that is worth a wake-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct First {
    /// Where it stands.
    pub seq: u64,
    /// Its time.
    pub time_ms: u64,
}

/// How far a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Which.
    pub device: DeviceId,
    /// What it has taken.
    pub cursor_seq: u64,
    /// The time of the first message behind that which it would want to read before it expires; only of looks that ask for it.
    pub oldest_accepted_ms: Option<u64>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Look into an inbox, and hand in [`Input::Looked`].
    Look {
        /// Whose.
        account: AccountId,
        /// Nothing up to here is worth a wake-up.
        after_seq: u64,
        /// Whether to look for what expires, too.
        expiry: bool,
    },
    /// Wake a device, and hand in [`Input::Sent`] or [`Input::Unsent`].
    Send {
        /// Of which account.
        account: AccountId,
        /// Which.
        device: DeviceId,
        /// With what.
        kind: WakeKind,
        /// How often this has failed before.
        attempt: u32,
        /// The time of the message that it is for, if it is for one.
        since_ms: Option<u64>,
    },
    /// Write down what a device was woken for.
    Note {
        /// Of which account.
        account: AccountId,
        /// Which.
        device: DeviceId,
        /// The whole record.
        state: PushStateRecord,
    },
    /// Write down that a device has got the wake-up of an alarm, or has come by itself.
    Rung {
        /// Of which account.
        account: AccountId,
        /// Which.
        device: DeviceId,
        /// Since when it was owed.
        owed_ms: u64,
    },
    /// The service refuses the target for good: forget it, if it is still the one that was sent to, and was set before the
    /// refusal.
    Drop {
        /// Of which account.
        account: AccountId,
        /// Which device.
        device: DeviceId,
        /// Since when it is void.
        refused_ms: u64,
    },
}

/// What has become of a request to a push service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The service has taken it.
    Accepted,
    /// The target is void, since a time if the service says one.
    Gone {
        /// Since when.
        since_ms: Option<u64>,
    },
    /// The service finds the request wrong: a bug of ours.
    Refused,
    /// The service does not let this server in: the operator's.
    Misconfigured,
    /// Too much, or just not now.
    Busy {
        /// When to come back.
        retry_after_ms: Option<u64>,
        /// What is too much.
        of: BusyOf,
    },
    /// There was no answer.
    Failed(Failure),
}

/// What a service has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BusyOf {
    /// Of wake-ups of this device.
    Device,
    /// Of everything.
    Service,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Nobody was there, or may be reached.
    Connect,
    /// It was somebody else.
    Tls,
    /// It took too long.
    Timeout,
    /// The connection broke.
    Reset,
    /// The answer was none.
    Protocol,
}

/// What the machine waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// An account is to be looked at, or a wake-up has waited long enough.
    Account,
    /// A service that has failed is tried again.
    Breaker,
    /// It is time to look for what expires.
    Sweep,
}

/// One of each service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerService<T> {
    /// APNs.
    pub apns: T,
    /// FCM.
    pub fcm: T,
    /// Web Push.
    pub web_push: T,
}

impl<T> PerService<T> {
    /// One made for each.
    pub fn each(mut make: impl FnMut(PushService) -> T) -> Self {
        Self { apns: make(PushService::Apns), fcm: make(PushService::Fcm), web_push: make(PushService::WebPush) }
    }

    /// That of a service.
    pub const fn of(&self, service: PushService) -> &T {
        match service {
            PushService::Apns => &self.apns,
            PushService::Fcm => &self.fcm,
            PushService::WebPush => &self.web_push,
        }
    }

    /// That of a service, to be changed.
    pub const fn of_mut(&mut self, service: PushService) -> &mut T {
        match service {
            PushService::Apns => &mut self.apns,
            PushService::Fcm => &mut self.fcm,
            PushService::WebPush => &mut self.web_push,
        }
    }
}

/// How the machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Devices that can be woken.
    pub targets: usize,
    /// Wake-ups that wait.
    pub waiting: usize,
    /// Each service.
    pub services: PerService<ServiceCounts>,
}

/// How a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServiceCounts {
    /// Places taken by requests, and by looks just before one.
    pub in_flight: usize,
    /// Breakers that are not closed: one of APNs and FCM each, one of each host of Web Push.
    pub breakers_open: usize,
    /// Of those, the ones that are open since the service does not let this server in.
    pub misconfigured: usize,
}

impl PushConfig {
    /// Whether a message of this time is not to be warned of yet.
    #[must_use]
    pub const fn has_time(&self, time_ms: u64, now_ms: u64) -> bool {
        time_ms.saturating_add(self.retention_ms) > now_ms.saturating_add(self.warning_ms())
    }

    /// How long before a message expires whoever has not taken it is warned: a day, or a third of its life, if that is
    /// shorter.
    const fn warning_ms(&self) -> u64 {
        let third_ms = self.retention_ms / 3;
        if third_ms < PUSH_WARNING_MS { third_ms } else { PUSH_WARNING_MS }
    }
}

impl Route {
    /// The service that it leads to.
    #[must_use]
    pub const fn service(self) -> PushService {
        match self {
            Self::Apns | Self::ApnsSandbox => PushService::Apns,
            Self::Fcm => PushService::Fcm,
            Self::Web(_) => PushService::WebPush,
        }
    }
}

impl WakeKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Messages, Self::Expiring];

    /// The word for it, in payloads and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Expiring => "expiring",
        }
    }
}
