//! Every metric of the server: its name, what it means, and a handle to move it.
//!
//! Handles are looked up once, here, so that counting a message costs one atomic. The recorder belongs to one server
//! and not to the process: two of them in one process count apart.

mod phone;
mod process;
mod push;
mod store;

use std::sync::Arc;
use std::time::Duration;

use gureum_proto::{Code, GapReason};
use metrics::{
    Counter, Gauge, Histogram, Label, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
pub(crate) use phone::PhoneMetrics;
pub(crate) use process::Page;
pub(crate) use push::PushMetrics;
use store::StoreMetrics;

/// From a write into a preallocated file on an NVMe disk to a disk that hangs.
const SECONDS_BUCKETS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// From a round that finds nothing to one that rewrites the inboxes of millions. A quantile is never above the last bound,
/// so that this one is above what an alarm is set to.
const ROUND_BUCKETS: &[f64] = &[0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0];
/// Up to the most that one batch takes in.
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// A counter for each code, found by the code.
#[derive(Clone)]
pub(crate) struct CodeCounter {
    recorder: Arc<PrometheusRecorder>,
    name: &'static str,
}

impl CodeCounter {
    /// Every code begins at zero: a counter that begins with its first event has not increased, as a collector sees
    /// it, and no alarm would tell of that event.
    fn register(recorder: &Arc<PrometheusRecorder>, name: &'static str) -> Self {
        for code in Code::ALL {
            counter!(name, "code" => code.name()).absolute(0);
        }
        Self { recorder: Arc::clone(recorder), name }
    }

    /// Counts one.
    pub(crate) fn increment(&self, code: Code) {
        let name = self.name;
        metrics::with_local_recorder(&*self.recorder, || counter!(name, "code" => code.name()).increment(1));
    }
}

impl std::fmt::Debug for CodeCounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeCounter").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Handles to all metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Connections that are open now.
    pub(crate) connections: Gauge,
    /// Connections ever accepted.
    pub(crate) connections_accepted: Counter,
    /// Handshakes in flight whose address is not proven.
    pub(crate) handshakes_unvalidated: Gauge,
    /// Handshakes that wait for their turn.
    pub(crate) handshakes_waiting: Gauge,
    /// 1 while addresses must be proven.
    pub(crate) address_validation: Gauge,
    /// Retries sent.
    pub(crate) retries: Counter,
    /// Connections and streams that ended with an error.
    pub(crate) closes: CodeCounter,
    /// Delivery subscriptions that are open now.
    pub(crate) subscriptions: Gauge,
    /// Devices that proved themselves.
    pub(crate) proofs_ok: Counter,
    /// Proofs that were refused.
    pub(crate) proofs_refused: CodeCounter,
    /// Registrations that were refused.
    pub(crate) registrations_refused: CodeCounter,
    /// Accounts registered since the start.
    pub(crate) registrations: Counter,
    /// Frames received.
    pub(crate) frames_received: Counter,
    /// Frames sent.
    pub(crate) frames_sent: Counter,
    /// Sends accepted for the first time.
    pub(crate) sends_accepted: Counter,
    /// Sends that had been accepted before, and were answered again.
    pub(crate) sends_repeated: Counter,
    /// How often the sends of a device had to wait since it sends too fast.
    pub(crate) sends_slowed: Counter,
    /// Sends refused.
    pub(crate) sends_refused: CodeCounter,
    /// Sends, acks and changes that were refused because what they need could not be read.
    pub(crate) unplanned: Counter,
    /// Commits accepted.
    pub(crate) commits_accepted: Counter,
    /// Public groups that were there in memory, verified before.
    pub(crate) groups_memory: Counter,
    /// Public groups that were read from the store and verified.
    pub(crate) groups_store: Counter,
    /// Requests refused, commits among them.
    pub(crate) requests_refused: CodeCounter,
    /// Envelopes delivered from the memory tail.
    pub(crate) deliveries_tail: Counter,
    /// Envelopes delivered from the store.
    pub(crate) deliveries_store: Counter,
    /// Acks that moved a cursor.
    pub(crate) acks: Counter,
    /// Typing indicators that went to others.
    pub(crate) typing_relayed: Counter,
    /// Datagrams that went to nobody.
    pub(crate) typing_dropped: Counter,
    /// Changes that one batch took in.
    pub(crate) batch_size: Histogram,
    /// The durable write of a batch.
    pub(crate) fsync_seconds: Histogram,
    gaps_expired: Counter,
    gaps_overflow: Counter,
    gaps_lost: Counter,
    /// Application messages that a gap told of.
    pub(crate) messages_missed: Counter,
    /// The room on the disk, and how it goes.
    pub(crate) store: StoreMetrics,
    /// Wake-ups.
    pub(crate) push: PushMetrics,
    /// Phone numbers and their codes.
    pub(crate) phone: PhoneMetrics,
    /// Keys of the keyring that are not destroyed.
    pub(crate) keys_live: Gauge,
    /// How long ago the period of the oldest of them began.
    pub(crate) oldest_key_age_seconds: Gauge,
    /// How far the system clock is ahead without being believed.
    pub(crate) clock_held_seconds: Gauge,
    /// How far the system clock is behind the time that counts.
    pub(crate) clock_behind_seconds: Gauge,
}

impl Metrics {
    /// The handles, and what renders them for a collector.
    #[must_use]
    pub(crate) fn new() -> (Self, Page) {
        let buckets = [
            ("gureum_fsync_seconds", SECONDS_BUCKETS),
            ("gureum_reclaim_seconds", ROUND_BUCKETS),
            ("gureum_batch_size", BATCH_BUCKETS),
            ("gureum_push_delay_seconds", push::DELAY_BUCKETS),
        ];
        let builder = buckets
            .into_iter()
            .try_fold(PrometheusBuilder::new(), |builder, (name, buckets)| {
                builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)
            })
            .expect("the lists of buckets are not empty");
        let recorder = Arc::new(builder.build_recorder());
        let handle = recorder.handle();
        metrics::with_local_recorder(&*recorder, || {
            describe();
            (Self::register(&recorder), Page::new(handle))
        })
    }

    /// The counter of gaps for a reason.
    pub(crate) const fn gaps(&self, reason: GapReason) -> &Counter {
        match reason {
            GapReason::Expired => &self.gaps_expired,
            GapReason::Overflow => &self.gaps_overflow,
            GapReason::Lost => &self.gaps_lost,
        }
    }

    fn register(recorder: &Arc<PrometheusRecorder>) -> Self {
        let by_code = |name| CodeCounter::register(recorder, name);
        let build = gauge!("gureum_build_info", vec![Label::new("version", env!("CARGO_PKG_VERSION"))]);
        build.set(1.0);
        Self {
            connections: gauge!("gureum_connections"),
            connections_accepted: counter!("gureum_connections_accepted_total"),
            handshakes_unvalidated: gauge!("gureum_handshakes_unvalidated"),
            handshakes_waiting: gauge!("gureum_handshakes_waiting"),
            address_validation: gauge!("gureum_address_validation"),
            retries: counter!("gureum_retries_total"),
            closes: by_code("gureum_closes_total"),
            subscriptions: gauge!("gureum_subscriptions"),
            proofs_ok: counter!("gureum_proofs_ok_total"),
            proofs_refused: by_code("gureum_proofs_refused_total"),
            registrations_refused: by_code("gureum_registrations_refused_total"),
            registrations: counter!("gureum_registrations_total"),
            frames_received: counter!("gureum_frames_total", "direction" => "received"),
            frames_sent: counter!("gureum_frames_total", "direction" => "sent"),
            sends_accepted: counter!("gureum_sends_total", "result" => "accepted"),
            sends_repeated: counter!("gureum_sends_total", "result" => "repeated"),
            sends_slowed: counter!("gureum_sends_slowed_total"),
            sends_refused: by_code("gureum_sends_refused_total"),
            unplanned: counter!("gureum_unplanned_total"),
            commits_accepted: counter!("gureum_commits_accepted_total"),
            groups_memory: counter!("gureum_groups_total", "source" => "memory"),
            groups_store: counter!("gureum_groups_total", "source" => "store"),
            requests_refused: by_code("gureum_requests_refused_total"),
            deliveries_tail: counter!("gureum_deliveries_total", "source" => "tail"),
            deliveries_store: counter!("gureum_deliveries_total", "source" => "store"),
            acks: counter!("gureum_acks_total"),
            typing_relayed: counter!("gureum_typing_total", "result" => "relayed"),
            typing_dropped: counter!("gureum_typing_total", "result" => "dropped"),
            batch_size: histogram!("gureum_batch_size"),
            fsync_seconds: histogram!("gureum_fsync_seconds"),
            gaps_expired: counter!("gureum_gaps_total", "reason" => "expired"),
            gaps_overflow: counter!("gureum_gaps_total", "reason" => "overflow"),
            gaps_lost: counter!("gureum_gaps_total", "reason" => "lost"),
            messages_missed: counter!("gureum_messages_missed_total"),
            store: StoreMetrics::register(),
            push: PushMetrics::register(),
            phone: PhoneMetrics::register(),
            keys_live: gauge!("gureum_keys_live"),
            oldest_key_age_seconds: gauge!("gureum_oldest_key_age_seconds"),
            clock_held_seconds: gauge!("gureum_clock_held_seconds"),
            clock_behind_seconds: gauge!("gureum_clock_behind_seconds"),
        }
    }
}

/// How often [`Page::run_upkeep`] must run, so that the samples of histograms do not pile up.
pub(crate) const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

fn describe() {
    describe_gauge!("gureum_build_info", "1, with the version of the server as a label");
    describe_gauge!("gureum_connections", "connections that are open now");
    describe_counter!("gureum_connections_accepted_total", "connections ever accepted");
    describe_gauge!("gureum_handshakes_unvalidated", "handshakes in flight whose address is not proven");
    describe_gauge!("gureum_handshakes_waiting", "handshakes that wait for their turn to begin");
    describe_gauge!(
        "gureum_address_validation",
        "1 while whoever connects must prove its address first, because too many handshakes are not finished"
    );
    describe_counter!("gureum_retries_total", "connections that were asked to prove their address (QUIC Retry)");
    describe_counter!("gureum_closes_total", "connections and streams that ended with an error, by code");
    describe_gauge!("gureum_subscriptions", "delivery subscriptions that are open now");
    describe_counter!("gureum_proofs_ok_total", "devices that proved themselves");
    describe_counter!("gureum_proofs_refused_total", "proofs that were refused, by code");
    describe_counter!("gureum_registrations_total", "accounts registered since the start");
    describe_counter!("gureum_registrations_refused_total", "registrations that were refused, by code");
    describe_counter!("gureum_frames_total", "frames, by direction");
    describe_counter!("gureum_sends_total", "sends accepted for the first time, or repeated and answered again");
    describe_counter!(
        "gureum_sends_slowed_total",
        "times that the sends of a device had to wait, since it sends faster than sends_per_second"
    );
    describe_counter!("gureum_sends_refused_total", "sends refused, by code");
    describe_counter!("gureum_unplanned_total", "sends, acks and changes refused because a record could not be read");
    describe_counter!("gureum_commits_accepted_total", "commits accepted");
    describe_counter!("gureum_groups_total", "groups that commits were held against, from memory or read and verified");
    describe_counter!("gureum_requests_refused_total", "requests refused, by code");
    describe_counter!("gureum_deliveries_total", "envelopes delivered, from the memory tail or the store");
    describe_counter!("gureum_acks_total", "acks that moved a cursor");
    describe_counter!("gureum_typing_total", "typing indicators, relayed to others of their conversation or dropped");
    describe_histogram!("gureum_batch_size", "changes that one batch took in");
    describe_histogram!("gureum_fsync_seconds", "the durable write of a batch");
    describe_counter!("gureum_gaps_total", "gaps told to devices, by reason");
    describe_counter!("gureum_messages_missed_total", "application messages that gaps told of");
    store::describe();
    push::describe();
    phone::describe();
    process::describe();
    describe_gauge!("gureum_keys_live", "message keys that are not destroyed");
    describe_gauge!("gureum_clock_held_seconds", "how far the system clock is ahead without being believed");
    describe_gauge!("gureum_clock_behind_seconds", "how far the system clock is behind the time that counts");
    describe_gauge!("gureum_oldest_key_age_seconds", "how long ago the period of the oldest message key began");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered_with_its_description() {
        let (metrics, handle) = Metrics::new();
        metrics.sends_accepted.increment(3);
        metrics.gaps(GapReason::Overflow).increment(1);
        metrics.sends_refused.increment(Code::EpochStale);
        metrics.sends_refused.increment(Code::EpochStale);
        metrics.fsync_seconds.record(0.000_2);
        let text = handle.render();
        for line in [
            "gureum_sends_total{result=\"accepted\"} 3",
            "gureum_gaps_total{reason=\"overflow\"} 1",
            "gureum_sends_refused_total{code=\"EpochStale\"} 2",
            "gureum_closes_total{code=\"Internal\"} 0",
            "gureum_fsync_seconds_bucket{le=\"0.00025\"} 1",
            "# HELP gureum_keys_live message keys that are not destroyed",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn two_servers_in_one_process_count_apart() {
        let ((one, _), (_, other)) = (Metrics::new(), Metrics::new());
        one.acks.increment(1);
        assert!(other.render().lines().any(|line| line == "gureum_acks_total 0"));
    }
}
