//! Where settings come from, and which one wins.

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
    /// Who may register: `invite` (who holds an invite) or `open` (anybody; for development) [default: invite]
    registration, "invite|open", "invite";
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
