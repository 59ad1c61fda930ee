//! Where settings come from, and which one wins.

#![allow(rustdoc::bare_urls, reason = "what stands beside a setting is the text of --help as well")]

use std::collections::BTreeMap;

use super::Finding;
use crate::limits::CONFIG_FILE_BYTES_MAX;

/// A setting that exists.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in a file; `--name-with-dashes` as a flag, `GUREUM_NAME` in the environment.
    pub name: &'static str,
    /// What it is when nobody sets it, for people.
    pub default: &'static str,
}

macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $name:ident, $value:literal, $default:literal;)*) => {
        /// Every setting, in the order in which they are printed.
        pub const KEYS: &[Key] = &[$(Key { name: stringify!($name), default: $default }),*];

        /// The settings that were given as flags, still text.
        #[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
        pub struct Flags {
            /// A TOML file with any of these settings, e.g. `retention = "3d"`
            #[arg(long, value_name = "FILE")]
            pub config: Option<String>,
            $($(#[doc = $doc])+ #[arg(long, value_name = $value)] pub $name: Option<String>,)*
        }

        impl Flags {
            fn pairs(&self) -> impl Iterator<Item = (&'static str, Option<&String>)> {
                [$((stringify!($name), self.$name.as_ref())),*].into_iter()
            }
        }
    };
}

keys! {
    /// The directory that holds everything the server keeps; made if it is not there
    data_dir, "DIR", "must be given";
    /// The UDP address that clients connect to; port 0 picks a free one [default: 127.0.0.1:4433]
    listen, "IP:PORT", "127.0.0.1:4433";
    /// The TCP address of /healthz, /readyz and /metrics [default: 127.0.0.1:4434]
    admin, "IP:PORT", "127.0.0.1:4434";
    /// How long a message is kept for a device that does not take it, e.g. 3d, 90m, 5s [default: 3d]
    retention, "TIME", "3d";
    /// How long commits are kept, at least the retention [default: ten times the retention]
    commit_retention, "TIME", "ten times the retention";
    /// Who may register: `invite` (who holds an invite), `phone` (who proves a phone number; needs --sms) or `open`
    /// (anybody; for development) [default: invite]
    registration, "invite|phone|open", "invite";
    /// The address to put into URLs, if clients reach the server by another than the one it listens on
    public_address, "HOST[:PORT]", "the address that the server listens on";
    /// A certificate chain (PEM) that clients trust by a public authority, with --tls-key
    tls_cert, "FILE", "a self-signed certificate, kept in the data directory";
    /// The private key (PEM) of --tls-cert
    tls_key, "FILE", "the key of the self-signed certificate";
    /// A file with the 32-byte key that wraps the message keys [default: one in the data directory]
    master_key, "FILE", "one in the data directory";
    /// Entries that one account's inbox may hold; past it the oldest go [default: 100000]
    inbox_entries_max, "N", "100000";
    /// Bytes that one account's inbox may hold; past it the oldest go [default: 268435456]
    inbox_bytes_max, "BYTES", "268435456";
    /// Messages of 4 KiB that one device may send a second, beyond a burst of 4096; more wait [default: 1000]
    sends_per_second, "N", "1000";
    /// How long a connection may go without proving itself [default: 3s]
    unproven_timeout, "TIME", "3s";
    /// Which events are logged, e.g. `info` or `warn,gureum_server=debug` [default: info]
    log_filter, "FILTER", "info";
    /// How they are written: `text` or `json` [default: text]
    log_format, "text|json", "text";
    /// How long a message waits for a device before it is woken [default: 5s]
    push_delay, "TIME", "5s";
    /// The same after a device has closed its connection, and after a start [default: 60s]
    push_close_delay, "TIME", "60s";
    /// The least time between two wake-ups of a device that show something [default: 30s]
    push_interval, "TIME", "30s";
    /// Certificates (PEM) that push services and the SMS gateway may have, besides those of public authorities
    push_roots, "FILE", "the public authorities alone";
    /// Whether devices may name Web Push endpoints inside your own network: `deny` or `allow` [default: deny]
    push_private_endpoints, "deny|allow", "deny";
    /// Whether Web Push is offered, which browsers and UnifiedPush speak: `on` or `off` [default: on]
    web_push, "on|off", "on";
    /// Whom Web Push services may turn to, mailto: or https: [default: https:// and the server's address]
    vapid_subject, "URL", "https:// and the server's address";
    /// The key (PEM) that Apple gave you for APNs, with the next three
    apns_key, "FILE", "APNs is not offered";
    /// Its id
    apns_key_id, "ID", "APNs is not offered";
    /// Your team's id
    apns_team_id, "ID", "APNs is not offered";
    /// Your app's bundle id
    apns_topic, "ID", "APNs is not offered";
    /// Where APNs is [default: https://api.push.apple.com]
    apns_endpoint, "URL", "https://api.push.apple.com";
    /// Where APNs is for apps under development [default: https://api.sandbox.push.apple.com]
    apns_sandbox_endpoint, "URL", "https://api.sandbox.push.apple.com";
    /// The service account (JSON) that Google gave you for FCM
    fcm_account, "FILE", "FCM is not offered";
    /// Where FCM is [default: https://fcm.googleapis.com]
    fcm_endpoint, "URL", "https://fcm.googleapis.com";
    /// How codes go out to phone numbers: `off`, `log` (development) or the URL of your SMS gateway [default: off]
    sms, "off|log|URL", "off";
    /// A file with the key, at least 32 bytes, that signs what goes to the gateway
    sms_key, "FILE", "none is needed";
    /// Codes that go out in an hour [default: 200]
    sms_per_hour, "N", "200";
    /// Codes that go out on a day: what SMS pumping can cost you at most [default: 1000]
    sms_per_day, "N", "1000";
    /// Country codes that codes go to, e.g. `82,1` [default: any]
    sms_countries, "CODES", "any";
}

/// A value and how its source calls it.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) value: String,
    pub(super) source: String,
}

/// Settings by the name of their key.
pub(super) type Settings = BTreeMap<&'static str, Setting>;

/// Takes each setting from the first source that has it.
pub(super) fn collect(
    flags: &Flags,
    env: impl Fn(&str) -> Option<String>,
    read: impl Fn(&str) -> std::io::Result<String>,
) -> (Settings, Vec<Finding>) {
    let (mut settings, mut findings) = (Settings::new(), Vec::new());
    let file = flags.config.clone().or_else(|| env("GUREUM_CONFIG"));
    if let Some(path) = file {
        match read(&path).map_err(|error| error.to_string()).and_then(|text| parse(&text)) {
            Ok(table) => take_table(table, &path, &mut settings, &mut findings),
            Err(problem) => findings.push(Finding { setting: format!("the file {path}"), problem }),
        }
    }
    for (name, flag) in flags.pairs() {
        let variable = format!("GUREUM_{}", name.to_ascii_uppercase());
        let setting = match (flag, env(&variable)) {
            (Some(value), _) => Setting { value: value.clone(), source: format!("--{}", name.replace('_', "-")) },
            (None, Some(value)) => Setting { value, source: variable },
            (None, None) => continue,
        };
        settings.insert(name, setting);
    }
    (settings, findings)
}

fn parse(text: &str) -> Result<toml::Table, String> {
    if text.len() > CONFIG_FILE_BYTES_MAX {
        return Err(format!("has more than {CONFIG_FILE_BYTES_MAX} bytes"));
    }
    text.parse::<toml::Table>().map_err(|error| error.to_string().trim_end().to_owned())
}

fn take_table(table: toml::Table, path: &str, settings: &mut Settings, findings: &mut Vec<Finding>) {
    for (name, value) in table {
        let source = format!("{name} in {path}");
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            let known: Vec<_> = KEYS.iter().map(|key| key.name).collect();
            let problem = format!("there is no such setting; there are {}", known.join(", "));
            findings.push(Finding { setting: source, problem });
            continue;
        };
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            _ => {
                findings.push(Finding { setting: source, problem: "must be text or a whole number".into() });
                continue;
            }
        };
        settings.insert(key.name, Setting { value, source });
    }
}
