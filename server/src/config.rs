//! What the operator may set: from flags, environment and a TOML file, checked whole before anything is opened.

mod check;
mod phone;
mod push;
mod source;
#[cfg(test)]
mod tests;
mod workers;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

pub use phone::{PhoneSettings, Sms};
pub use push::PushSettings;
pub use source::{Flags, KEYS};
pub use workers::workers;

/// Everything that the server is told. Each field is the key of the same name, as KEYS describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The UDP address for clients.
    pub listen: SocketAddr,
    /// The TCP address for health and metrics.
    pub admin: SocketAddr,
    /// How long a message is kept for a device that does not take it.
    pub retention: Duration,
    /// How long commits are kept; never shorter than the retention.
    pub commit_retention: Duration,
    /// Who may register.
    pub registration: Registration,
    /// The address that clients are told, if it is another than the one listened on.
    pub public_address: Option<PublicAddress>,
    /// The certificate from files; none: a self-signed one, kept in the data directory.
    pub tls: Option<TlsFiles>,
    /// The file with the key that wraps the keyring; none: one in the data directory.
    pub master_key: Option<PathBuf>,
    /// Entries that one inbox may hold.
    pub inbox_entries_max: u64,
    /// Bytes that one inbox may hold.
    pub inbox_bytes_max: u64,
    /// Messages of [`crate::limits::SEND_COUNTED_BYTES`] that one device may send a second, beyond a burst.
    pub sends_per_second: NonZeroU32,
    /// How long a connection may go without a proof.
    pub unproven_timeout: Duration,
    /// Which events are logged, as tracing's filters are written.
    pub log_filter: String,
    /// How they are written.
    pub log_format: LogFormat,
    /// When devices are woken, and by which services.
    pub push: PushSettings,
    /// How codes go out to phone numbers.
    pub phone: PhoneSettings,
}

/// Who may register an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Who holds an invite.
    Invite,
    /// Anybody: for development.
    Open,
    /// Who proves a phone number.
    Phone,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A name or IP address, and a port if it is another than the one listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicAddress {
    /// A DNS name or an IP address, IPv6 without brackets.
    pub host: String,
    /// The UDP port.
    pub port: Option<u16>,
}

/// A certificate chain and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's certificate first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Everything that is wrong with the settings, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// One finding each.
    pub findings: Vec<Finding>,
}

/// What is wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The setting, as its source writes it: `--listen`, `GUREUM_LISTEN`, `listen in FILE`.
    pub setting: String,
    /// What to do about it.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the settings are not right, nothing was started:")?;
        for finding in &self.findings {
            write!(f, "\n  {}: {}", finding.setting, finding.problem)?;
        }
        Ok(())
    }
}

impl Config {
    /// Puts the settings together, flags before environment before file before defaults, and checks them all.
    ///
    /// `env` looks up an environment variable; `read` reads the file that `--config` names.
    ///
    /// # Errors
    /// Everything that is unknown, malformed or does not fit together.
    pub fn load(
        flags: &Flags,
        env: impl Fn(&str) -> Option<String>,
        read: impl Fn(&str) -> std::io::Result<String>,
    ) -> Result<Self, ConfigError> {
        let (settings, findings) = source::collect(flags, env, read);
        check::check(&settings, findings)
    }

    /// The address that clients are told, when the server listens on `bound`. An unspecified address is told as
    /// loopback, which at least works on this machine.
    #[must_use]
    pub fn public_address(&self, bound: SocketAddr) -> (String, u16) {
        let port = self.public_address.as_ref().and_then(|public| public.port).unwrap_or(bound.port());
        (told_host(self.public_address.as_ref(), bound), port)
    }
}

/// The host that clients are told, when the server listens on `bound`.
fn told_host(public: Option<&PublicAddress>, bound: SocketAddr) -> String {
    let loopback = if bound.is_ipv4() { "127.0.0.1" } else { "::1" };
    match public {
        Some(public) => public.host.clone(),
        None if bound.ip().is_unspecified() => loopback.to_owned(),
        None => bound.ip().to_string(),
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for key in KEYS {
            match check::written(self, key.name) {
                Some(value) => writeln!(f, "{} = {value}", key.name)?,
                None => writeln!(f, "# {} is not set: {}", key.name, key.default)?,
            }
        }
        Ok(())
    }
}
