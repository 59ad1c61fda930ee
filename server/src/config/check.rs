//! From text to values: every setting on its own, then all of them together.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gureum_proto::ServerUrl;

use super::source::Settings;
use super::{Config, ConfigError, Finding, LogFormat, PublicAddress, Registration, TlsFiles, phone, push, told_host};

const LISTEN: &str = "127.0.0.1:4433";
/// Stands for an address that is wrong, so that this alone is said.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const ADMIN: &str = "127.0.0.1:4434";
const RETENTION: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// Below a second, expiry would race with the round trip of a live message.
const RETENTION_MIN: Duration = Duration::from_secs(1);
/// A year of 365.25 days: the keyring has room for the hours of 680.
const RETENTION_MAX: Duration = Duration::from_secs(31_557_600);
const COMMIT_RETENTION_MAX: Duration = Duration::from_secs(10 * 31_557_600);
/// Commits outlive messages by this factor unless told otherwise: 30 days beside 3.
const COMMIT_RETENTION_FACTOR: u32 = 10;
/// 5,000 messages on each of 20 days.
const INBOX_ENTRIES_MAX: u64 = 100_000;
const INBOX_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The least inbox: a batch of commits and Welcomes must fit.
const INBOX_ENTRIES_LEAST: u64 = 16;
/// The largest single message and its commit must fit.
const INBOX_BYTES_LEAST: u64 = 1024 * 1024;
/// Far above any person's client. 100 busy devices at this pace are what two processors can do.
const SENDS_PER_SECOND: u64 = 1_000;
/// The limiter counts in nanoseconds, of which each send takes at least some.
const SENDS_PER_SECOND_MOST: u64 = 1_000_000;
const UNPROVEN_TIMEOUT: Duration = Duration::from_secs(3);
const UNPROVEN_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Reads every setting, remembering each finding.
pub(super) struct Reader<'a> {
    settings: &'a Settings,
    findings: Vec<Finding>,
}

pub(super) fn check(settings: &Settings, findings: Vec<Finding>) -> Result<Config, ConfigError> {
    let mut reader = Reader { settings, findings };
    let config = reader.config();
    match config {
        Some(config) if reader.findings.is_empty() => Ok(config),
        _ => Err(ConfigError { findings: reader.findings }),
    }
}

impl Reader<'_> {
    fn config(&mut self) -> Option<Config> {
        let data_dir = self.path("data_dir");
        if !self.has("data_dir") {
            self.find("--data-dir", "must say where the server keeps its data, e.g. --data-dir ./data");
        }
        let listen = self.value("listen", LISTEN, address);
        let admin = self.value("admin", ADMIN, address);
        let retention = self.duration("retention", RETENTION, RETENTION_MIN..=RETENTION_MAX);
        let commit_default = retention.unwrap_or(RETENTION).saturating_mul(COMMIT_RETENTION_FACTOR);
        let commit_range = retention.unwrap_or(RETENTION_MIN)..=COMMIT_RETENTION_MAX;
        let commit_retention = self.duration("commit_retention", commit_default, commit_range);
        let registration = self.value("registration", "invite", registration);
        let public_address = self.optional("public_address", public_address);
        let (cert, key) = (self.path("tls_cert"), self.path("tls_key"));
        let tls = self.tls(cert, key);
        let master_key = self.path("master_key");
        let entries = self.number("inbox_entries_max", INBOX_ENTRIES_MAX, INBOX_ENTRIES_LEAST..=u64::MAX);
        let bytes = self.number("inbox_bytes_max", INBOX_BYTES_MAX, INBOX_BYTES_LEAST..=u64::MAX);
        let sends = self.number("sends_per_second", SENDS_PER_SECOND, 1..=SENDS_PER_SECOND_MOST);
        let timeout_range = Duration::from_millis(100)..=UNPROVEN_TIMEOUT_MAX;
        let unproven_timeout = self.duration("unproven_timeout", UNPROVEN_TIMEOUT, timeout_range);
        let log_filter = self.value("log_filter", "info", log_filter);
        let log_format = self.value("log_format", "text", log_format);
        let host = told_host(public_address.as_ref(), listen.unwrap_or(LOOPBACK));
        let (push, phone) = (self.push(&host), self.phone(registration));
        Some(Config {
            data_dir: data_dir?,
            listen: listen?,
            admin: admin?,
            retention: retention?,
            commit_retention: commit_retention?,
            registration: registration?,
            public_address,
            tls,
            master_key,
            inbox_entries_max: entries?,
            inbox_bytes_max: bytes?,
            sends_per_second: sends.and_then(|sends| u32::try_from(sends).ok()).and_then(NonZeroU32::new)?,
            unproven_timeout: unproven_timeout?,
            log_filter: log_filter?,
            log_format: log_format?,
            push: push?,
            phone: phone?,
        })
    }

    pub(super) fn value<T>(&mut self, name: &str, default: &str, read: fn(&str) -> Result<T, String>) -> Option<T> {
        let setting = self.settings.get(name);
        let text = setting.map_or(default, |setting| setting.value.trim());
        match read(text) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.find_of(name, &format!("`{text}` {problem}"));
                None
            }
        }
    }

    pub(super) fn optional<T>(&mut self, name: &str, read: fn(&str) -> Result<T, String>) -> Option<T> {
        self.has(name).then(|| self.value(name, "", read)).flatten()
    }

    pub(super) fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.optional(name, |text| if text.is_empty() { Err("is no path".into()) } else { Ok(PathBuf::from(text)) })
    }

    pub(super) fn duration(
        &mut self,
        name: &str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let Some(setting) = self.settings.get(name) else { return Some(default) };
        let found = self.value(name, "", |text| {
            humantime::parse_duration(text).map_err(|_| "is no duration; write it like 3d, 90m or 5s".into())
        })?;
        if range.contains(&found) {
            return Some(found);
        }
        let (least, most) = (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
        self.find(&setting.source, &format!("`{}` must be from {least} to {most}", setting.value));
        None
    }

    pub(super) fn number(&mut self, name: &str, default: u64, range: RangeInclusive<u64>) -> Option<u64> {
        let Some(setting) = self.settings.get(name) else { return Some(default) };
        let found =
            self.value(name, "", |text| text.replace('_', "").parse().map_err(|_| "is no whole number".into()))?;
        if range.contains(&found) {
            return Some(found);
        }
        let allowed = match (range.start(), range.end()) {
            (least, &u64::MAX) => format!("at least {least}"),
            (least, most) => format!("from {least} to {most}"),
        };
        self.find(&setting.source, &format!("`{}` must be {allowed}", setting.value));
        None
    }

    fn tls(&mut self, cert: Option<PathBuf>, key: Option<PathBuf>) -> Option<TlsFiles> {
        self.together(&["tls_cert", "tls_key"]);
        cert.zip(key).map(|(cert, key)| TlsFiles { cert, key })
    }

    /// Settings of which one is nothing without the others.
    pub(super) fn together(&mut self, names: &[&str]) {
        let (given, missing): (Vec<_>, Vec<_>) = names.iter().copied().partition(|name| self.has(name));
        if let Some(first) = given.first() {
            for name in missing {
                self.find_of(first, &format!("needs --{} beside it", name.replace('_', "-")));
            }
        }
    }

    /// Whether a setting is given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.settings.contains_key(name)
    }

    /// Something is wrong with a setting, called as its source does.
    pub(super) fn find_of(&mut self, name: &str, problem: &str) {
        let said = self.settings.get(name).map_or_else(|| name.to_owned(), |setting| setting.source.clone());
        self.find(&said, problem);
    }

    fn find(&mut self, setting: &str, problem: &str) {
        self.findings.push(Finding { setting: setting.to_owned(), problem: problem.to_owned() });
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is no IP:PORT, e.g. 127.0.0.1:4433 or [::]:4433".into())
}

fn registration(text: &str) -> Result<Registration, String> {
    match text {
        "invite" => Ok(Registration::Invite),
        "open" => Ok(Registration::Open),
        "phone" => Ok(Registration::Phone),
        _ => Err("is none of `invite`, `open` and `phone`".into()),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("is neither `text` nor `json`".into()),
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    let parsed = tracing_subscriber::EnvFilter::builder().parse(text);
    parsed.map(|_| text.to_owned()).map_err(|error| format!("is no log filter: {error}"))
}

fn public_address(text: &str) -> Result<PublicAddress, String> {
    let url: ServerUrl = text.parse().map_err(|_| "is no HOST or HOST:PORT, e.g. chat.example.org:4433")?;
    if url.pin.is_some() || url.token.is_some() {
        return Err("holds more than HOST:PORT".into());
    }
    // The parser fills in the default port; without one here, it is the port listened on.
    let after_name = text.rsplit_once(']').map_or(text, |(_, after)| after);
    let has_port = after_name.rsplit_once(':').is_some_and(|(_, port)| !port.starts_with("//"));
    Ok(PublicAddress { host: url.host, port: has_port.then_some(url.port) })
}

/// A setting's value as TOML, if it is set or has a default.
pub(super) fn written(config: &Config, name: &str) -> Option<String> {
    match name {
        "data_dir" => Some(path(&config.data_dir)),
        "listen" => Some(quoted(&config.listen.to_string())),
        "admin" => Some(quoted(&config.admin.to_string())),
        "retention" => Some(duration(config.retention)),
        "commit_retention" => Some(duration(config.commit_retention)),
        "registration" => Some(quoted(match config.registration {
            Registration::Invite => "invite",
            Registration::Open => "open",
            Registration::Phone => "phone",
        })),
        "public_address" => config.public_address.as_ref().map(|public| {
            let host = if public.host.contains(':') { format!("[{}]", public.host) } else { public.host.clone() };
            quoted(&public.port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")))
        }),
        "tls_cert" => config.tls.as_ref().map(|tls| path(&tls.cert)),
        "tls_key" => config.tls.as_ref().map(|tls| path(&tls.key)),
        "master_key" => config.master_key.as_deref().map(path),
        "inbox_entries_max" => Some(config.inbox_entries_max.to_string()),
        "inbox_bytes_max" => Some(config.inbox_bytes_max.to_string()),
        "sends_per_second" => Some(config.sends_per_second.to_string()),
        "unproven_timeout" => Some(duration(config.unproven_timeout)),
        "log_filter" => Some(quoted(&config.log_filter)),
        "log_format" => Some(quoted(match config.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })),
        _ => push::written(&config.push, name).or_else(|| phone::written(&config.phone, name)),
    }
}

pub(super) fn duration(value: Duration) -> String {
    quoted(&humantime::format_duration(value).to_string().replace(' ', ""))
}

pub(super) fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Text as a basic string of TOML, whose escapes are those of JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
