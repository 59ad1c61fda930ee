//! The load tester: many devices over real QUIC with real identities, measured without coordinated omission, and what they
//! cost the server.

mod alarm;
mod aside;
mod body;
mod cost;
mod device;
mod encrypted;
mod idle;
mod meter;
mod mixed;
mod offline;
mod pace;
mod patience;
mod play;
mod player;
mod plot;
mod report;
mod sealed;
mod setup;
mod sockets;
mod stage;
mod storm;
mod sweep;
mod teams;

use std::time::Duration;

use gureum_proto::ServerUrl;

pub use body::{SEALED_BYTES_MIN, TEXT_BYTES_MIN};
pub use cost::{Cost, MetricsUrl, NoMetricsUrl};
pub use gureum_proto::limits::CIPHERTEXT_BYTES_MAX as SEALED_BYTES_MAX;
pub use meter::{Latency, Moment, Standing};
pub use mixed::AwayTimes;
pub use plot::{Over, PlotError, PlotFile, Point};
pub use report::{FanoutReport, IdleReport, LoadReport, OfflineReport, Setting, StormReport};
pub use sweep::{Rates, RatesError};

use crate::client::ClientError;
pub use crate::limits::{
    LOAD_ACCOUNTS_MAX, LOAD_AT_ONCE_MAX, LOAD_DEVICES_MAX, LOAD_DURATION_S_MAX, LOAD_GROUPS_MAX, LOAD_MEMBERS_MAX,
    LOAD_MESSAGES_MAX, LOAD_PAIRS_MAX, TEXT_BYTES_MAX,
};
use storm::Storm;

/// What is to be done to a server, how fast and for how long.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The server, with an invite of as many uses as there are accounts where registration is not open.
    pub server: ServerUrl,
    /// What is done.
    pub scenario: Scenario,
    /// How fast, where messages are sent.
    pub pace: LoadPace,
    /// How long to send, or to hold idle devices; in a storm, how long the others talk before it.
    pub duration: Duration,
    /// What is sent.
    pub body: LoadBody,
    /// Where the server tells what it takes; without it nobody knows.
    pub metrics: Option<MetricsUrl>,
}

/// What is done to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scenario {
    /// Pairs of devices, one sending to the other.
    Pairs {
        /// How many.
        pairs: usize,
    },
    /// Groups, in each of which one account sends.
    Fanout {
        /// How many.
        groups: usize,
        /// Accounts of each.
        members: usize,
        /// Of those who do not send, so many are connected.
        connected: usize,
    },
    /// Messages are stored for devices that are absent, and drained when these come back.
    Offline {
        /// Absent devices, each with a sender of its own.
        devices: usize,
        /// Messages for each.
        messages: u64,
    },
    /// Devices that are subscribed and silent.
    Idle {
        /// How many.
        devices: usize,
    },
    /// Devices that all come back after the server was started again, while some pairs talk.
    Storm {
        /// How many.
        devices: usize,
        /// Pairs that talk beside them.
        pairs: usize,
        /// Connections that begin at a time.
        at_once: usize,
        /// A command that starts the server again; without it somebody does.
        restart: Option<String>,
    },
    /// People who talk with one another and in groups, confirm what they hear, go away and come back.
    Mixed {
        /// How many.
        people: usize,
        /// Of each group.
        members: usize,
        /// How often and for how long each is away.
        away: Option<AwayTimes>,
    },
}

/// How fast to send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LoadPace {
    /// Closed loop: so many messages of each sender without an answer.
    Window(u32),
    /// Open loop: so many messages a second of all senders together.
    Rate(f64),
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadBody {
    /// So many bytes of text, encrypted, stored and read as by any client.
    Text(usize),
    /// So many opaque bytes; the client's own cost is as small as it can be.
    Sealed(usize),
}

impl LoadBody {
    const fn bytes(self) -> usize {
        match self {
            Self::Text(bytes) | Self::Sealed(bytes) => bytes,
        }
    }

    const fn is_sealed(self) -> bool {
        matches!(self, Self::Sealed(_))
    }
}

/// How a load goes.
#[derive(Debug, Clone)]
pub enum Progress {
    /// It is being set up.
    SetUp {
        /// What is being made.
        what: &'static str,
        /// How many of them are.
        done: usize,
        /// How many there are to be.
        of: usize,
    },
    /// A second of it is over.
    Second(Standing),
    /// Something has come about, or is to be done.
    Say(String),
}

/// Whom to tell how it goes.
type Tell<'a> = &'a mut dyn FnMut(&Progress);

/// Why a load cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Too many of something, or too few.
    #[error("there may be from {least} to {most} {what} in one load tester; for more, run several")]
    Count {
        /// Of what.
        what: &'static str,
        /// The fewest.
        least: u64,
        /// The most.
        most: u64,
    },
    /// The invite is used up.
    #[error(
        "the invite does not suffice for {accounts} accounts; make one that does: gureumd invite --data-dir DIR \
         --uses {accounts}"
    )]
    Invite {
        /// Accounts needed.
        accounts: usize,
    },
    /// A body is too small or too large.
    #[error("a message may have from {least} to {most} bytes here")]
    Size {
        /// The smallest.
        least: usize,
        /// The largest.
        most: usize,
    },
    /// The server does not tell what it takes.
    #[error(
        "cannot read {url}: {reason}; --metrics is http://ADDRESS:PORT/metrics with the address that gureumd's --admin names"
    )]
    Metrics {
        /// Where.
        url: MetricsUrl,
        /// Why.
        reason: String,
    },
    /// Nobody has started the server again.
    #[error(
        "the server was not started again; do so when the load tester says it, or give it --restart-command, such as \
         'systemctl restart gureumd'"
    )]
    NotRestarted,
    /// The command that starts the server again has failed.
    #[error("--restart-command has failed: {0}; it must end the server and start it at the same address")]
    Restart(String),
    /// The directory for keys.
    #[error("cannot make a temporary directory: {0}")]
    Directory(#[from] std::io::Error),
    /// Everything else.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Sets everything up, does it, and measures. `progress` is called for each thing made and once a second.
///
/// # Errors
/// The set-up failed. What fails later is in the report.
pub async fn run(options: LoadOptions, mut progress: impl FnMut(&Progress)) -> Result<LoadReport, LoadError> {
    check(&options)?;
    let tell: Tell<'_> = &mut progress;
    match &options.scenario {
        Scenario::Pairs { pairs } => Box::pin(teams::pairs(&options, *pairs, tell)).await,
        Scenario::Fanout { groups, members, connected } => {
            Box::pin(teams::fanout(&options, (*groups, *members, *connected), tell)).await
        }
        Scenario::Offline { devices, messages } => {
            Box::pin(offline::offline(&options, (*devices, *messages), tell)).await
        }
        Scenario::Idle { devices } => Box::pin(idle::idle(&options, *devices, tell)).await,
        Scenario::Storm { devices, pairs, at_once, restart } => {
            let (devices, pairs, at_once) = (*devices, *pairs, *at_once);
            let storm = Storm { devices, pairs, at_once, restart: restart.as_deref() };
            Box::pin(storm::storm(&options, storm, tell)).await
        }
        Scenario::Mixed { people, members, away } => {
            Box::pin(mixed::mixed(&options, (*people, *members, *away), tell)).await
        }
    }
}

fn check(options: &LoadOptions) -> Result<(), LoadError> {
    let count = |what, number: usize, least: usize, most: usize| {
        let (least_told, most_told) = (u64::try_from(least).unwrap_or(0), u64::try_from(most).unwrap_or(u64::MAX));
        let error = LoadError::Count { what, least: least_told, most: most_told };
        if (least..=most).contains(&number) { Ok(()) } else { Err(error) }
    };
    match &options.scenario {
        Scenario::Pairs { pairs } => count("pairs", *pairs, 1, LOAD_PAIRS_MAX)?,
        Scenario::Fanout { groups, members, connected } => {
            count("groups", *groups, 1, LOAD_GROUPS_MAX)?;
            count("accounts of a group", *members, 2, LOAD_MEMBERS_MAX)?;
            count("accounts of all groups", groups.saturating_mul(*members), 2, LOAD_ACCOUNTS_MAX)?;
            count("connected accounts of this group", *connected, 0, members.saturating_sub(1))?;
        }
        Scenario::Offline { devices, messages } => {
            count("absent devices", *devices, 1, LOAD_PAIRS_MAX)?;
            if !(1..=LOAD_MESSAGES_MAX).contains(messages) {
                return Err(LoadError::Count { what: "messages for a device", least: 1, most: LOAD_MESSAGES_MAX });
            }
        }
        Scenario::Idle { devices } => count("devices", *devices, 1, LOAD_DEVICES_MAX)?,
        Scenario::Storm { devices, pairs, at_once, .. } => {
            count("devices", *devices, 1, LOAD_DEVICES_MAX)?;
            count("pairs", *pairs, 1, LOAD_PAIRS_MAX)?;
            count("connections that begin at once", *at_once, 1, LOAD_AT_ONCE_MAX)?;
        }
        Scenario::Mixed { people, members, .. } => {
            count("people", *people, 2, LOAD_ACCOUNTS_MAX)?;
            count("accounts of a group", *members, 2, LOAD_MEMBERS_MAX)?;
        }
    }
    if options.duration > Duration::from_secs(LOAD_DURATION_S_MAX) {
        return Err(LoadError::Count { what: "seconds", least: 0, most: LOAD_DURATION_S_MAX });
    }
    let (bytes, least, most) = match options.body {
        LoadBody::Text(bytes) => (bytes, TEXT_BYTES_MIN, TEXT_BYTES_MAX),
        LoadBody::Sealed(bytes) => (bytes, SEALED_BYTES_MIN, SEALED_BYTES_MAX),
    };
    if (least..=most).contains(&bytes) { Ok(()) } else { Err(LoadError::Size { least, most }) }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn options(server: &ServerUrl, scenario: Scenario) -> LoadOptions {
        LoadOptions {
            server: server.clone(),
            scenario,
            pace: LoadPace::Window(1),
            duration: Duration::from_secs(1),
            body: LoadBody::Sealed(256),
            metrics: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_where_no_server_answers_is_known_within_15_s() {
        // It hears everything and says nothing.
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server: ServerUrl = format!("gureum://{}", silent.local_addr().unwrap()).parse().unwrap();
        for scenario in [Scenario::Pairs { pairs: 2 }, Scenario::Idle { devices: 2 }] {
            let started = Instant::now();
            let error = Box::pin(run(options(&server, scenario), |_| ())).await.unwrap_err();
            assert!(error.to_string().contains("cannot reach"), "{error}");
            assert!(started.elapsed() <= Duration::from_secs(15), "{:?}", started.elapsed());
        }
    }

    #[test]
    fn what_does_not_fit_is_said_before_anything_is_done() {
        let server: ServerUrl = "gureum://127.0.0.1:1".parse().unwrap();
        let fanout = |groups, members, connected| Scenario::Fanout { groups, members, connected };
        let storm = |devices, at_once| Scenario::Storm { devices, pairs: 1, at_once, restart: None };
        for (scenario, fits) in [
            (Scenario::Pairs { pairs: 0 }, false),
            (Scenario::Pairs { pairs: LOAD_PAIRS_MAX }, true),
            (Scenario::Pairs { pairs: LOAD_PAIRS_MAX + 1 }, false),
            (fanout(1, 2, 1), true),
            (fanout(1, 2, 2), false),
            (fanout(1, 1, 0), false),
            (fanout(100, 101, 0), false),
            (fanout(LOAD_GROUPS_MAX + 1, 2, 0), false),
            (Scenario::Offline { devices: 1, messages: 0 }, false),
            (Scenario::Offline { devices: 1, messages: LOAD_MESSAGES_MAX }, true),
            (Scenario::Idle { devices: LOAD_DEVICES_MAX + 1 }, false),
            (storm(5_000, 256), true),
            (storm(5_000, LOAD_AT_ONCE_MAX + 1), false),
            (Scenario::Mixed { people: 1, members: 2, away: None }, false),
            (Scenario::Mixed { people: 2, members: 2, away: None }, true),
        ] {
            let checked = check(&options(&server, scenario.clone()));
            assert_eq!(checked.is_ok(), fits, "{scenario:?}: {checked:?}");
        }
    }
}
