//! The capacity model of docs/performance.md: what so many devices need, from what one of each thing was measured to cost.

use std::fmt;

use clap::Args;
use gureum_server::limits::{CONNECTIONS_MAX, PUSH_DEVICES_MAX};
use serde::Serialize;

/// Seconds of a day.
const DAY_S: f64 = 86_400.0;
/// Between two keep-alives of a client, in seconds.
const KEEP_ALIVE_S: f64 = 10.0;
/// Key and value of an inbox's entry.
const ENTRY_BYTES: f64 = 58.0;
/// The same with those of the inbox's head, which each entry moves.
const INBOX_BYTES: f64 = 147.0;
/// Bytes of the log for a byte that the store is handed: tags and lengths.
const LOG_BY_HANDED: f64 = 1.05;

/// What so many devices need follows from these: what is assumed of people, and what was measured of the server.
#[derive(Debug, Clone, Copy, PartialEq, Args, Serialize)]
pub struct Model {
    /// D: devices
    #[arg(long, value_name = "N", default_value_t = 10_000_000.0, value_parser = above_zero)]
    pub devices: f64,
    /// k: devices of an account
    #[arg(long, value_name = "K", default_value_t = 1.5, value_parser = at_least_one)]
    pub devices_of_account: f64,
    /// s: the share of devices that is connected at the busiest hour
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, value_parser = share)]
    pub connected: f64,
    /// m: messages that a device sends a day
    #[arg(long, value_name = "M", default_value_t = 40.0, value_parser = above_zero)]
    pub sent_a_day: f64,
    /// g: the share of messages that go to groups
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, value_parser = share)]
    pub groups: f64,
    /// n: other accounts that such a message goes to
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = at_least_one)]
    pub group_accounts: f64,
    /// z: times a day that a device connects
    #[arg(long, value_name = "Z", default_value_t = 10.0, value_parser = above_zero)]
    pub connects_a_day: f64,
    /// p: the busiest second by the mean one
    #[arg(long, value_name = "P", default_value_t = 3.0, value_parser = at_least_one)]
    pub peak: f64,
    /// u: how busy the processors are to be at that time
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = above_zero)]
    pub used: f64,
    /// R: days that messages stay
    #[arg(long, value_name = "R", default_value_t = 3.0, value_parser = above_zero)]
    pub retention_days: f64,
    /// c: processor time of a message to one connected device, by itself, in microseconds
    #[arg(long, value_name = "US", default_value_t = 299.0, value_parser = above_zero)]
    pub message_us: f64,
    /// c_i: that of each further inbox
    #[arg(long, value_name = "US", default_value_t = 1.8, value_parser = above_zero)]
    pub inbox_us: f64,
    /// c_l: that of each further delivery at once
    #[arg(long, value_name = "US", default_value_t = 20.0, value_parser = above_zero)]
    pub live_us: f64,
    /// c_d: that of a delivery with others, when a device comes back
    #[arg(long, value_name = "US", default_value_t = 1.7, value_parser = above_zero)]
    pub drain_us: f64,
    /// c_h: that of a connection's beginning
    #[arg(long, value_name = "US", default_value_t = 670.0, value_parser = above_zero)]
    pub connect_us: f64,
    /// c_k: that of a keep-alive
    #[arg(long, value_name = "US", default_value_t = 15.0, value_parser = above_zero)]
    pub keep_alive_us: f64,
    /// b_d: memory of a connected device that is silent, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 40_687.0, value_parser = above_zero)]
    pub device_bytes: f64,
    /// b_m: bytes on the disk for a message that is kept, with one entry
    #[arg(long, value_name = "BYTES", default_value_t = 417.0, value_parser = above_zero)]
    pub disk_bytes: f64,
    /// b_h: bytes that the store is handed for such a message
    #[arg(long, value_name = "BYTES", default_value_t = 670.0, value_parser = above_zero)]
    pub handed_bytes: f64,
    /// a: bytes that it writes for each of those
    #[arg(long, value_name = "A", default_value_t = 2.37, value_parser = above_zero)]
    pub amplification: f64,
}

/// What that comes to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Need {
    /// Messages of one core a second, each to one connected device.
    pub messages_a_core: f64,
    /// Connected devices of a GiB of memory.
    pub devices_a_gib: f64,
    /// Messages a day.
    pub messages_a_day: f64,
    /// Messages a second, on the average.
    pub messages_a_second: f64,
    /// Messages in the busiest second.
    pub messages_at_peak: f64,
    /// Entries of inboxes that a message makes.
    pub entries: f64,
    /// Deliveries of a message.
    pub deliveries: f64,
    /// Of them, those at once.
    pub live_deliveries: f64,
    /// Processor time of a message with all of them, in microseconds.
    pub message_us: f64,
    /// Cores at the peak for messages.
    pub message_cores: f64,
    /// Connections that begin in the busiest second.
    pub connects_at_peak: f64,
    /// Cores for these.
    pub connect_cores: f64,
    /// Devices that are connected.
    pub connected: f64,
    /// Cores for their keep-alives.
    pub keep_alive_cores: f64,
    /// All cores, as busy as they are to be.
    pub cores: f64,
    /// Memory of connected devices, in bytes.
    pub memory_bytes: f64,
    /// Bytes on the disk.
    pub disk_bytes: f64,
    /// Bytes of the log in the busiest second.
    pub log_bytes_at_peak: f64,
    /// Bytes written to the disk in a second, on the average.
    pub written_bytes_a_second: f64,
    /// Seconds until all connected devices are back after a restart of everything, if nothing else is done.
    pub restart_s: f64,
    /// Processes, by the connections that one has at most.
    pub processes_by_connections: f64,
    /// Processes, by the devices that one wakes at most.
    pub processes_by_push: f64,
}

impl Model {
    /// Works it out.
    #[must_use]
    pub fn need(&self) -> Need {
        let messages_a_day = self.devices * self.sent_a_day;
        let messages_a_second = messages_a_day / DAY_S;
        let messages_at_peak = messages_a_second * self.peak;
        let others = 1.0 + self.groups * (self.group_accounts - 1.0);
        // As if no account had more than two devices: of so many senders the own account has another one.
        let own = (2.0 * (self.devices_of_account - 1.0) / self.devices_of_account).min(1.0);
        let (entries, deliveries) = (others + own, others * self.devices_of_account + own);
        let live_deliveries = deliveries * self.connected;
        let message_us = self.message_us
            + (entries - 1.0) * self.inbox_us
            + (live_deliveries - 1.0) * self.live_us
            + (deliveries - live_deliveries) * self.drain_us;
        let message_cores = messages_at_peak * message_us / 1e6;
        let connects_at_peak = self.devices * self.connects_a_day / DAY_S * self.peak;
        let connect_cores = connects_at_peak * self.connect_us / 1e6;
        let connected = self.devices * self.connected;
        let keep_alive_cores = connected / KEEP_ALIVE_S * self.keep_alive_us / 1e6;
        let cores = (message_cores + connect_cores + keep_alive_cores) / self.used;
        let kept_bytes = self.disk_bytes + (entries - 1.0) * ENTRY_BYTES;
        let handed_bytes = self.handed_bytes + (entries - 1.0) * INBOX_BYTES;
        Need {
            messages_a_core: 1e6 / self.message_us,
            devices_a_gib: f64::from(1 << 30) / self.device_bytes,
            messages_a_day,
            messages_a_second,
            messages_at_peak,
            entries,
            deliveries,
            live_deliveries,
            message_us,
            message_cores,
            connects_at_peak,
            connect_cores,
            connected,
            keep_alive_cores,
            cores,
            memory_bytes: connected * self.device_bytes,
            disk_bytes: messages_a_day * self.retention_days * kept_bytes,
            log_bytes_at_peak: messages_at_peak * handed_bytes * LOG_BY_HANDED,
            written_bytes_a_second: messages_a_second * handed_bytes * self.amplification,
            restart_s: connected * self.connect_us / 1e6 / cores,
            processes_by_connections: (connected / CONNECTIONS_MAX as f64).ceil(),
            processes_by_push: (self.devices / PUSH_DEVICES_MAX as f64).ceil(),
        }
    }
}

/// A table as docs/performance.md has it.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("messages a second and core", whole(self.messages_a_core)),
            ("connected devices a GiB", whole(self.devices_a_gib)),
            ("messages a day", format!("{:.0} million", self.messages_a_day / 1e6)),
            (
                "messages a second, at the peak",
                format!("{}, {}", whole(self.messages_a_second), whole(self.messages_at_peak)),
            ),
            ("entries of inboxes a message", format!("{:.2}", self.entries)),
            ("deliveries a message, at once", format!("{:.2}, {:.2}", self.deliveries, self.live_deliveries)),
            ("processor time of a message with all of these", format!("{:.1} µs", self.message_us)),
            ("cores for messages", format!("{:.2}", self.message_cores)),
            ("connections that begin a second, at the peak", whole(self.connects_at_peak)),
            ("cores for these", format!("{:.2}", self.connect_cores)),
            ("connected devices", format!("{:.2} million", self.connected / 1e6)),
            ("cores for their keep-alives", format!("{:.2}", self.keep_alive_cores)),
            ("**cores**, as busy as they are to be", format!("**{:.1}**", self.cores)),
            ("**memory** of connected devices", format!("**{:.1} GiB**", self.memory_bytes / f64::from(1 << 30))),
            ("**disk**", format!("**{:.0} GB**", self.disk_bytes / 1e9)),
            ("log at the peak", format!("{:.1} MB/s", self.log_bytes_at_peak / 1e6)),
            ("written to the disk, on the average", format!("{:.1} MB/s", self.written_bytes_a_second / 1e6)),
            ("until all are back after a restart", format!("{:.0} s", self.restart_s)),
            (
                "processes at least, by connections, by push",
                format!("{:.0}, {:.0}", self.processes_by_connections, self.processes_by_push),
            ),
        ];
        writeln!(f, "| | |\n|---|---|")?;
        rows.iter().try_for_each(|(what, value)| writeln!(f, "| {what} | {value} |"))
    }
}

/// Without a fraction, in groups of three digits.
fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn above_zero(text: &str) -> Result<f64, String> {
    number(text, f64::MIN_POSITIVE, f64::MAX).ok_or_else(|| "a number above 0".to_owned())
}

fn at_least_one(text: &str) -> Result<f64, String> {
    number(text, 1.0, f64::MAX).ok_or_else(|| "a number from 1".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1.0).ok_or_else(|| "from 0 to 1".to_owned())
}

fn number(text: &str, least: f64, most: f64) -> Option<f64> {
    text.parse().ok().filter(|number| (least..=most).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that can be worked out by head.
    const MODEL: Model = Model {
        devices: 864_000.0,
        devices_of_account: 2.0,
        connected: 0.25,
        sent_a_day: 100.0,
        groups: 0.5,
        group_accounts: 5.0,
        connects_a_day: 10.0,
        peak: 2.0,
        used: 0.5,
        retention_days: 3.0,
        message_us: 50.0,
        inbox_us: 2.0,
        live_us: 20.0,
        drain_us: 4.0,
        connect_us: 1_000.0,
        keep_alive_us: 10.0,
        device_bytes: 65_536.0,
        disk_bytes: 500.0,
        handed_bytes: 600.0,
        amplification: 5.0,
    };

    #[track_caller]
    fn check(measured: f64, expected: f64) {
        assert!((measured - expected).abs() < 1e-9 * expected.abs().max(1.0), "{measured} instead of {expected}");
    }

    #[test]
    fn messages_make_entries_and_deliveries() {
        let need = MODEL.need();
        check(need.messages_a_second, 1_000.0);
        check(need.messages_at_peak, 2_000.0);
        // Half go to one account and half to five, and all to the sender's other device.
        check(need.entries, 3.0 + 1.0);
        check(need.deliveries, 3.0 * 2.0 + 1.0);
        check(need.live_deliveries, 1.75);
    }

    #[test]
    fn work_adds_up_to_cores() {
        let need = MODEL.need();
        check(need.message_us, 50.0 + 3.0 * 2.0 + 0.75 * 20.0 + 5.25 * 4.0);
        check(need.message_cores, 2_000.0 * 92e-6);
        check(need.connect_cores, 200.0 * 1e-3);
        check(need.keep_alive_cores, 21_600.0 * 10e-6);
        check(need.cores, (0.184 + 0.2 + 0.216) / 0.5);
        check(need.restart_s, 216_000.0 * 1e-3 / 1.2);
        check(need.messages_a_core, 20_000.0);
    }

    #[test]
    fn bytes_are_those_of_bodies_and_entries() {
        let need = MODEL.need();
        check(need.devices_a_gib, 16_384.0);
        check(need.memory_bytes, 216_000.0 * 65_536.0);
        check(need.disk_bytes, 86_400_000.0 * 3.0 * (500.0 + 3.0 * 58.0));
        check(need.log_bytes_at_peak, 2_000.0 * (600.0 + 3.0 * 147.0) * 1.05);
        check(need.written_bytes_a_second, 1_000.0 * 1_041.0 * 5.0);
        assert_eq!((need.processes_by_connections, need.processes_by_push), (3.0, 5.0));
    }

    #[test]
    fn an_account_with_one_device_gets_nothing_of_its_own() {
        let need = Model { devices_of_account: 1.0, groups: 0.0, connected: 1.0, ..MODEL }.need();
        check(need.entries, 1.0);
        check(need.message_us, 50.0);
    }

    #[test]
    fn whole_numbers_have_groups_of_digits() {
        for (number, expected) in [(0.4, "0"), (999.0, "999"), (1_000.0, "1,000"), (1_234_567.8, "1,234,568")] {
            assert_eq!(whole(number), expected);
        }
    }

    #[test]
    fn what_is_no_share_or_number_is_refused() {
        assert_eq!((share("0.2"), at_least_one("1"), above_zero("3e6")), (Ok(0.2), Ok(1.0), Ok(3e6)));
        assert!(share("1.1").is_err() && at_least_one("0.9").is_err() && above_zero("0").is_err());
        assert!(share("NaN").is_err() && above_zero("inf").is_err());
    }
}
