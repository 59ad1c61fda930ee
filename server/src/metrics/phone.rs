//! The metrics of phone numbers: the codes that go out, numbers that move, and people who are looked up by theirs.

use gureum_proto::{Code, Refusal};
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use crate::sms::Delivery;

/// Handles to the metrics of phone numbers.
#[derive(Debug, Clone)]
pub(crate) struct PhoneMetrics {
    codes: Codes,
    /// Codes of the day of the last one.
    codes_spent_today: Gauge,
    moves_moved: Counter,
    moves_locked: Counter,
    look_ups_found: Counter,
    look_ups_not_found: Counter,
    look_ups_limited: Counter,
}

/// What has become of those that were asked for, and then of those that went to the gateway.
#[derive(Debug, Clone)]
struct Codes {
    accepted: Counter,
    limited: Counter,
    refused: Counter,
    delivered: Counter,
    rejected: Counter,
    failed: Counter,
}

impl PhoneMetrics {
    /// Looks the handles up in the recorder of this thread.
    pub(super) fn register() -> Self {
        let code = |result: &'static str| counter!("gureum_codes_total", "result" => result);
        let moved = |result: &'static str| counter!("gureum_phone_moves_total", "result" => result);
        let look_up = |result: &'static str| counter!("gureum_phone_look_ups_total", "result" => result);
        Self {
            codes: Codes {
                accepted: code("accepted"),
                limited: code("limited"),
                refused: code("refused"),
                delivered: code("delivered"),
                rejected: code("rejected"),
                failed: code("failed"),
            },
            codes_spent_today: gauge!("gureum_codes_spent_today"),
            moves_moved: moved("moved"),
            moves_locked: moved("locked"),
            look_ups_found: look_up("found"),
            look_ups_not_found: look_up("not_found"),
            look_ups_limited: look_up("limited"),
        }
    }

    /// Somebody has asked for a code.
    pub(crate) fn asked<T>(&self, answer: &Result<T, Refusal>) {
        match answer {
            Ok(_) => self.codes.accepted.increment(1),
            Err(refusal) if refusal.code == Code::RateLimited => self.codes.limited.increment(1),
            Err(_) => self.codes.refused.increment(1),
        }
    }

    /// So many codes were made today.
    pub(crate) fn spent_today(&self, count: u32) {
        self.codes_spent_today.set(f64::from(count));
    }

    /// What has become of a code that went to the gateway.
    pub(crate) fn delivered(&self, delivery: Delivery) {
        match delivery {
            Delivery::Delivered => self.codes.delivered.increment(1),
            Delivery::Refused => self.codes.rejected.increment(1),
            Delivery::Failed => self.codes.failed.increment(1),
        }
    }

    /// A number has moved to another account.
    pub(crate) fn moved(&self) {
        self.moves_moved.increment(1);
    }

    /// A registration lock has kept one where it was.
    pub(crate) fn locked(&self) {
        self.moves_locked.increment(1);
    }

    /// Somebody has looked another up by number.
    pub(crate) fn looked_up<T>(&self, answer: &Result<Option<T>, Refusal>) {
        match answer {
            Ok(Some(_)) => self.look_ups_found.increment(1),
            Err(refusal) if refusal.code == Code::RateLimited => self.look_ups_limited.increment(1),
            Ok(None) | Err(_) => self.look_ups_not_found.increment(1),
        }
    }
}

pub(super) fn describe() {
    describe_counter!(
        "gureum_codes_total",
        "codes for phone numbers: asked for and accepted, limited or refused; then delivered to the gateway, rejected by \
         it, or failed"
    );
    describe_gauge!("gureum_codes_spent_today", "codes made on the day of the last one, of sms_per_day");
    describe_counter!(
        "gureum_phone_moves_total",
        "phone numbers that were proven by another account: moved to it, or locked where they were"
    );
    describe_counter!("gureum_phone_look_ups_total", "look-ups of people by phone number, by result");
}
