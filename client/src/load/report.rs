//! What a load was, and what was measured.

use std::collections::BTreeMap;
use std::time::Duration;

use gureum_proto::Code;
use serde::Serialize;

use super::cost::Cost;
use super::meter::{Latency, Meter, Moment};
use super::{LoadOptions, LoadPace, Scenario};

/// What was asked for; what a scenario does not have is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Setting {
    /// `pairs`, `fanout`, `offline`, `idle`, `storm` or `mixed`.
    pub scenario: &'static str,
    /// Pairs of devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs: Option<usize>,
    /// Groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<usize>,
    /// Accounts of each group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<usize>,
    /// Of those who do not send, how many of each group are connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<usize>,
    /// Devices that are absent, idle, or in the storm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<usize>,
    /// Messages for each absent device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
    /// People.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub people: Option<usize>,
    /// The window, in a closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// The rate asked for, in an open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Bytes of a message: of the text, or of the ciphertext where `sealed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<usize>,
    /// Whether bodies were opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<bool>,
    /// How long was sent or held, in seconds; in a storm, before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_s: Option<f64>,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    /// What was asked for.
    #[serde(flatten)]
    pub setting: Setting,
    /// Until the last message had arrived, in seconds.
    pub total_s: f64,
    /// Messages handed to the network.
    pub sent: u64,
    /// Messages that were due in an open loop and were not sent: 64 of their sender were without an answer until the end. Where
    /// there are any, the rate was too high, and latencies leave them out.
    pub unsent: u64,
    /// Messages that the server said to have on disk.
    pub accepted: u64,
    /// Deliveries that are due of them: one for each connected device that is to get one.
    pub expected: u64,
    /// Deliveries that came.
    pub delivered: u64,
    /// Of them, those to devices that had been away when they were due.
    pub caught_up: u64,
    /// Confirmations: of opaque bodies those that were accepted, of texts those that came.
    pub receipts: u64,
    /// Times that devices connected again.
    pub reconnects: u64,
    /// Messages refused, by code.
    pub refused: BTreeMap<&'static str, u64>,
    /// Messages without an answer.
    pub unanswered: u64,
    /// Deliveries that did not come in time, and devices that were lost.
    pub missing: u64,
    /// What ended a device early.
    pub errors: Vec<String>,
    /// Bytes of bodies accepted.
    pub body_bytes_accepted: u64,
    /// Messages accepted a second of `total_s`.
    pub accepted_per_s: f64,
    /// Deliveries a second of `total_s`.
    pub delivered_per_s: f64,
    /// From due (open loop) or sent (closed loop) to the durable answer.
    pub accept_us: Latency,
    /// From due (open loop) or sent (closed loop) to received, of devices that were there.
    pub delivery_us: Latency,
    /// The same of devices that had been away: how long they were.
    pub catch_up_us: Latency,
    /// How late messages left after they were due, of those that found room: what of the latencies is the load tester's own.
    /// Only in an open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_lateness_us: Option<Latency>,
    /// What it cost the server, for each delivery; `None` where nobody said where its metrics are.
    pub cost: Option<Cost>,
    /// Second by second.
    pub series: Vec<Moment>,
    /// What belongs to groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fanout: Option<FanoutReport>,
    /// What belongs to absent devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline: Option<OfflineReport>,
    /// What belongs to idle devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<IdleReport>,
    /// What belongs to a storm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storm: Option<StormReport>,
}

/// Messages to groups.
#[derive(Debug, Clone, Serialize)]
pub struct FanoutReport {
    /// Entries of inboxes that were written, of those who were not connected too.
    pub inboxes: u64,
    /// The server's CPU time for each of them, in microseconds.
    pub cpu_us_per_inbox: Option<f64>,
}

/// Messages for absent devices.
#[derive(Debug, Clone, Serialize)]
pub struct OfflineReport {
    /// Until all were stored, in seconds.
    pub stored_s: f64,
    /// So many a second.
    pub stored_per_s: f64,
    /// What that cost, for each message stored.
    pub store: Option<Cost>,
    /// From the first connection until all were drained, in seconds.
    pub drained_s: f64,
    /// So many a second.
    pub drained_per_s: f64,
    /// What that cost, for each message drained.
    pub drain: Option<Cost>,
}

/// Silent devices.
#[derive(Debug, Clone, Serialize)]
pub struct IdleReport {
    /// Devices that were still there at the end.
    pub held: usize,
    /// Until all were registered and subscribed, in seconds.
    pub set_up_s: f64,
    /// How long they stayed then, in seconds.
    pub held_s: f64,
    /// What the server's memory has grown by, for each of them.
    pub bytes_per_device: Option<f64>,
}

/// A restart under many devices.
#[derive(Debug, Clone, Serialize)]
pub struct StormReport {
    /// Devices that had noticed that the server was gone when half of them had.
    pub noticed: usize,
    /// From then until the server answered again, in seconds.
    pub down_s: f64,
    /// Devices that are subscribed again.
    pub subscribed: usize,
    /// From the server's answer until all were, in seconds.
    pub all_subscribed_s: f64,
    /// The same of each device.
    pub subscribed_us: Latency,
    /// The server's CPU time for each of them, in microseconds, with what the others say meanwhile.
    pub cpu_us_per_device: Option<f64>,
    /// Attempts to connect that failed meanwhile.
    pub attempts_failed: usize,
    /// Why, and how often.
    pub errors: BTreeMap<String, u64>,
    /// Delivery among the others before the restart.
    pub before_us: Latency,
    /// Delivery among the others while the devices came back, of those that were back themselves.
    pub during_us: Latency,
    /// How late messages left meanwhile that waited for nothing but their time: what of that is the load tester's own.
    pub during_lateness_us: Latency,
    /// How many deliveries that were.
    pub during_delivered: u64,
}

impl LoadReport {
    pub(super) fn of(options: &LoadOptions, meter: &Meter, expected: u64, elapsed: Duration) -> Self {
        let (sum, series) = meter.end(elapsed);
        let refused = sum.refused.iter().map(|(code, count)| (Code::name(*code), *count)).collect();
        let refusals: u64 = sum.refused.values().sum();
        let sends_for = match options.scenario {
            Scenario::Offline { .. } | Scenario::Storm { .. } | Scenario::Idle { .. } => elapsed,
            Scenario::Pairs { .. } | Scenario::Fanout { .. } | Scenario::Mixed { .. } => options.duration.min(elapsed),
        };
        let total = if sum.accepted > 0 { sum.last.max(sends_for) } else { elapsed };
        let total_s = total.as_secs_f64();
        Self {
            setting: setting(options),
            total_s,
            sent: sum.sent,
            unsent: sum.unsent,
            accepted: sum.accepted,
            expected,
            delivered: sum.delivered,
            caught_up: sum.caught_up,
            receipts: sum.receipts,
            reconnects: sum.reconnects,
            refused,
            // Refused confirmations were not sent as messages.
            unanswered: sum.sent.saturating_sub(sum.accepted).saturating_sub(refusals),
            missing: expected.saturating_sub(sum.delivered),
            errors: meter.errors(),
            body_bytes_accepted: sum.accepted.saturating_mul(u64::try_from(options.body.bytes()).unwrap_or(0)),
            accepted_per_s: per_second(sum.accepted, total_s),
            delivered_per_s: per_second(sum.delivered, total_s),
            accept_us: Latency::of(&sum.accept),
            delivery_us: Latency::of(&sum.delivery),
            catch_up_us: Latency::of(&sum.catch_up),
            send_lateness_us: (!sum.lateness.is_empty()).then(|| Latency::of(&sum.lateness)),
            cost: None,
            series,
            fanout: None,
            offline: None,
            idle: None,
            storm: None,
        }
    }

    /// What is wrong with it, if anything is: something did not come, was not answered, or a device ended early.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let mut found = Vec::new();
        for (count, what) in [
            (self.missing, "missing"),
            (self.unanswered, "without an answer"),
            (u64::try_from(self.errors.len()).unwrap_or(u64::MAX), "devices ended early"),
        ] {
            if count > 0 {
                found.push(format!("{count} {what}"));
            }
        }
        (!found.is_empty()).then(|| found.join(", "))
    }
}

fn setting(options: &LoadOptions) -> Setting {
    let (window, rate) = match options.pace {
        LoadPace::Window(window) => (Some(window), None),
        LoadPace::Rate(rate) => (None, Some(rate)),
    };
    let (body_bytes, sealed) = (Some(options.body.bytes()), Some(options.body.is_sealed()));
    let send_s = Some(options.duration.as_secs_f64());
    let common = Setting { window, rate, body_bytes, sealed, send_s, ..Setting::default() };
    match &options.scenario {
        Scenario::Pairs { pairs } => Setting { scenario: "pairs", pairs: Some(*pairs), ..common },
        Scenario::Fanout { groups, members, connected } => Setting {
            scenario: "fanout",
            groups: Some(*groups),
            members: Some(*members),
            connected: Some(*connected),
            ..common
        },
        Scenario::Offline { devices, messages } => {
            Setting { scenario: "offline", devices: Some(*devices), messages: Some(*messages), send_s: None, ..common }
        }
        Scenario::Idle { devices } => {
            Setting { scenario: "idle", devices: Some(*devices), send_s, ..Setting::default() }
        }
        Scenario::Storm { devices, pairs, .. } => {
            Setting { scenario: "storm", devices: Some(*devices), pairs: Some(*pairs), ..common }
        }
        Scenario::Mixed { people, members, .. } => {
            Setting { scenario: "mixed", people: Some(*people), members: Some(*members), ..common }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate has no more than three digits that mean anything")]
pub(super) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadBody;
    use crate::load::pace::Due;

    fn options(scenario: Scenario) -> LoadOptions {
        LoadOptions {
            server: "gureum://127.0.0.1:1".parse().unwrap(),
            scenario,
            pace: LoadPace::Rate(10.0),
            duration: Duration::from_secs(2),
            body: LoadBody::Sealed(100),
            metrics: None,
        }
    }

    #[test]
    fn what_was_due_and_did_not_come_is_missing() {
        let meter = Meter::new(1);
        {
            let lane = meter.lane(0);
            let mut lane = lane.lock();
            for by_time in [true, false, true, true] {
                lane.sent(Due { at_ns: 0, by_time }, 90_000);
            }
            lane.accepted(0, 1_000_000);
            lane.accepted(0, 1_000_000);
            lane.delivered(0, 1_500_000);
            lane.refused(Code::EpochStale);
        }
        let report = LoadReport::of(&options(Scenario::Pairs { pairs: 1 }), &meter, 2, Duration::from_secs(3));
        assert_eq!((report.missing, report.unanswered, report.delivered), (1, 1, 1));
        assert_eq!(report.send_lateness_us.map(|lateness| (lateness.p50, lateness.max)), Some((90, 90)));
        assert_eq!((report.total_s, report.accepted_per_s, report.body_bytes_accepted), (2.0, 1.0, 200));
        assert_eq!(report.fault().as_deref(), Some("1 missing, 1 without an answer"));
        assert_eq!(report.series.len(), 1);
    }

    #[test]
    fn a_report_says_what_was_asked_for_and_nothing_that_a_scenario_does_not_have() {
        let meter = Meter::new(1);
        let written = |scenario| {
            let report = LoadReport::of(&options(scenario), &meter, 0, Duration::from_secs(1));
            assert_eq!(report.fault(), None);
            serde_json::to_value(report).unwrap()
        };
        let idle = written(Scenario::Idle { devices: 7 });
        assert_eq!((&idle["scenario"], &idle["devices"]), (&"idle".into(), &7.into()));
        assert!(idle.get("send_lateness_us").is_none(), "nothing was sent");
        assert!(idle.get("rate").is_none() && idle.get("storm").is_none(), "{idle}");
        let pairs = written(Scenario::Pairs { pairs: 3 });
        assert_eq!((&pairs["pairs"], &pairs["rate"], &pairs["sealed"]), (&3.into(), &10.0.into(), &true.into()));
        assert!(pairs["cost"].is_null(), "nobody said where the metrics are");
    }
}
