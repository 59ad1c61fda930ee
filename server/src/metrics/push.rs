//! The metrics of push: what went to which service, what became of it, and how long devices waited.

use gureum_proto::PushService;
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::push::{BusyOf, Counts, Failure, Outcome, PerService, WakeKind};

/// From a wake-up right after the delay to one that a service was too busy for all day.
pub(super) const DELAY_BUCKETS: &[f64] =
    &[1.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];

/// Why a wake-up did not go.
const REASONS: [&str; 10] = [
    "gone",
    "refused",
    "misconfigured",
    "busy_device",
    "busy_service",
    "connect",
    "tls",
    "timeout",
    "reset",
    "protocol",
];

/// Handles to the metrics of push. No label says more than the service: hosts of Web Push are their users'.
#[derive(Debug, Clone)]
pub(crate) struct PushMetrics {
    services: PerService<ServiceMetrics>,
    /// From a message's time to the moment when the service took its wake-up.
    pub(crate) delay_seconds: Histogram,
    /// Looks into inboxes.
    pub(crate) looks: Counter,
    waiting: Gauge,
    targets: Gauge,
}

#[derive(Debug, Clone)]
struct ServiceMetrics {
    sent_messages: Counter,
    sent_expiring: Counter,
    failed: [Counter; REASONS.len()],
    retried: Counter,
    dropped: Counter,
    in_flight: Gauge,
    breaker_open: Gauge,
}

impl PushMetrics {
    /// Looks the handles up in the recorder of this thread. Each begins at zero: what begins with its first event has not
    /// increased, as a collector sees it.
    pub(super) fn register() -> Self {
        Self {
            services: PerService::each(ServiceMetrics::register),
            delay_seconds: histogram!("gureum_push_delay_seconds"),
            looks: counter!("gureum_push_looks_total"),
            waiting: gauge!("gureum_push_waiting"),
            targets: gauge!("gureum_push_targets"),
        }
    }

    /// A service has taken a wake-up.
    pub(crate) fn sent(&self, service: PushService, kind: WakeKind) {
        let of_service = self.services.of(service);
        match kind {
            WakeKind::Messages => of_service.sent_messages.increment(1),
            WakeKind::Expiring => of_service.sent_expiring.increment(1),
        }
    }

    /// A service has not.
    pub(crate) fn failed(&self, service: PushService, outcome: &Outcome) {
        let of_reason = REASONS.iter().zip(&self.services.of(service).failed);
        for (_, counter) in of_reason.filter(|(name, _)| Some(**name) == reason(outcome)) {
            counter.increment(1);
        }
    }

    /// A wake-up is sent that has failed before.
    pub(crate) fn retried(&self, service: PushService) {
        self.services.of(service).retried.increment(1);
    }

    /// A target that is void is forgotten.
    pub(crate) fn dropped(&self, service: PushService) {
        self.services.of(service).dropped.increment(1);
    }

    /// Shows how push stands.
    pub(crate) fn show(&self, counts: &Counts) {
        self.targets.set(gauge_count(counts.targets));
        self.waiting.set(gauge_count(counts.waiting));
        for service in PushService::ALL {
            let (handles, counts) = (self.services.of(service), counts.services.of(service));
            handles.in_flight.set(gauge_count(counts.in_flight));
            handles.breaker_open.set(gauge_count(counts.breakers_open));
        }
    }
}

impl ServiceMetrics {
    fn register(service: PushService) -> Self {
        let service = service.name();
        let sent = |kind: WakeKind| counter!("gureum_push_sent_total", "service" => service, "kind" => kind.name());
        Self {
            sent_messages: sent(WakeKind::Messages),
            sent_expiring: sent(WakeKind::Expiring),
            failed: REASONS
                .map(|reason| counter!("gureum_push_failed_total", "service" => service, "reason" => reason)),
            retried: counter!("gureum_push_retried_total", "service" => service),
            dropped: counter!("gureum_push_dropped_total", "service" => service),
            in_flight: gauge!("gureum_push_in_flight", "service" => service),
            breaker_open: gauge!("gureum_push_breaker_open", "service" => service),
        }
    }
}

/// The word for what has become of a request; `None`: it has gone well.
const fn reason(outcome: &Outcome) -> Option<&'static str> {
    Some(match outcome {
        Outcome::Accepted => return None,
        Outcome::Gone { .. } => "gone",
        Outcome::Refused => "refused",
        Outcome::Misconfigured => "misconfigured",
        Outcome::Busy { of: BusyOf::Device, .. } => "busy_device",
        Outcome::Busy { of: BusyOf::Service, .. } => "busy_service",
        Outcome::Failed(Failure::Connect) => "connect",
        Outcome::Failed(Failure::Tls) => "tls",
        Outcome::Failed(Failure::Timeout) => "timeout",
        Outcome::Failed(Failure::Reset) => "reset",
        Outcome::Failed(Failure::Protocol) => "protocol",
    })
}

/// A count as a gauge has it.
fn gauge_count(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

pub(super) fn describe() {
    describe_counter!("gureum_push_sent_total", "wake-ups that push services took, by service and kind");
    describe_counter!(
        "gureum_push_failed_total",
        "requests to push services that came to nothing, by service and reason"
    );
    describe_counter!("gureum_push_retried_total", "requests to push services for a wake-up that had failed before");
    describe_counter!("gureum_push_dropped_total", "push targets that were forgotten because they are void");
    describe_histogram!("gureum_push_delay_seconds", "from a message's time until a push service took its wake-up");
    describe_gauge!("gureum_push_waiting", "wake-ups that wait: for their time, in line, or for a service");
    describe_gauge!("gureum_push_in_flight", "requests to push services under way");
    describe_gauge!(
        "gureum_push_breaker_open",
        "push services that are left alone because they fail; of Web Push the hosts"
    );
    describe_gauge!("gureum_push_targets", "devices that can be woken");
    describe_counter!("gureum_push_looks_total", "looks into inboxes, whether somebody is to be woken");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[track_caller]
    fn check(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }

    #[test]
    fn what_becomes_of_a_wake_up_is_counted_by_service_and_every_count_begins_at_zero() {
        let (metrics, handle) = Metrics::new();
        metrics.push.sent(PushService::Fcm, WakeKind::Expiring);
        metrics.push.failed(PushService::Apns, &Outcome::Busy { retry_after_ms: None, of: BusyOf::Device });
        metrics.push.failed(PushService::Apns, &Outcome::Failed(Failure::Timeout));
        metrics.push.failed(PushService::Apns, &Outcome::Failed(Failure::Timeout));
        metrics.push.failed(PushService::WebPush, &Outcome::Accepted);
        metrics.push.retried(PushService::WebPush);
        metrics.push.dropped(PushService::WebPush);
        let text = handle.render();
        check(&text, "gureum_push_sent_total{service=\"fcm\",kind=\"expiring\"} 1");
        check(&text, "gureum_push_sent_total{service=\"apns\",kind=\"messages\"} 0");
        check(&text, "gureum_push_failed_total{service=\"apns\",reason=\"busy_device\"} 1");
        check(&text, "gureum_push_failed_total{service=\"apns\",reason=\"timeout\"} 2");
        check(&text, "gureum_push_retried_total{service=\"web_push\"} 1");
        check(&text, "gureum_push_dropped_total{service=\"web_push\"} 1");
        let zeros = text.lines().filter(|line| line.starts_with("gureum_push_failed_total{") && line.ends_with(" 0"));
        assert_eq!(zeros.count(), 3 * REASONS.len() - 2, "{text}");
    }

    #[test]
    fn how_push_stands_is_shown() {
        let (metrics, handle) = Metrics::new();
        let mut counts = Counts { targets: 7, waiting: 3, ..Counts::default() };
        counts.services.of_mut(PushService::WebPush).in_flight = 4;
        counts.services.of_mut(PushService::WebPush).breakers_open = 2;
        metrics.push.show(&counts);
        let text = handle.render();
        check(&text, "gureum_push_targets 7");
        check(&text, "gureum_push_waiting 3");
        check(&text, "gureum_push_in_flight{service=\"web_push\"} 4");
        check(&text, "gureum_push_breaker_open{service=\"web_push\"} 2");
        check(&text, "gureum_push_breaker_open{service=\"apns\"} 0");
    }

    #[test]
    fn every_reason_has_its_place() {
        let failures = [Failure::Connect, Failure::Tls, Failure::Timeout, Failure::Reset, Failure::Protocol];
        let busy = [BusyOf::Device, BusyOf::Service].map(|of| Outcome::Busy { retry_after_ms: None, of });
        let outcomes = [Outcome::Gone { since_ms: None }, Outcome::Refused, Outcome::Misconfigured];
        let all = outcomes.into_iter().chain(busy).chain(failures.map(Outcome::Failed));
        let named: Vec<_> = all.filter_map(|outcome| reason(&outcome)).collect();
        assert_eq!(named, REASONS);
    }
}
