//! The peers: how each is started, what it keeps and when, and which protocol it speaks.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::ValueEnum;

use crate::certificate::Certificate;

/// What clients say to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Nats,
    Mqtt,
    Redis,
    Xmpp,
}

/// A server with a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Peer {
    Gureum,
    RedisAlways,
    RedisEverysec,
    NatsAlways,
    NatsDefault,
    Mosquitto,
    Ejabberd,
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Gureum => "gureum",
            Self::RedisAlways => "redis-always",
            Self::RedisEverysec => "redis-everysec",
            Self::NatsAlways => "nats-always",
            Self::NatsDefault => "nats-default",
            Self::Mosquitto => "mosquitto",
            Self::Ejabberd => "ejabberd",
        })
    }
}

/// Where the programs are that no package of the distribution has put in its place.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// The directory with `gureumd` and `gureum`.
    pub(crate) gureum: PathBuf,
    /// `nats-server`.
    pub(crate) nats: PathBuf,
}

impl Peer {
    /// Whether an accepted message survives a power cut, as its documentation says.
    pub(crate) fn durability(self) -> &'static str {
        match self {
            Self::Gureum => "fsync before the answer, grouped",
            Self::RedisAlways => "fsync before the answer, grouped",
            Self::RedisEverysec => "answers first, fsync once a second",
            Self::NatsAlways => "fsync before the answer, each message",
            Self::NatsDefault => "answers first, fsync every 2 minutes",
            Self::Mosquitto => "answers first, a snapshot every 30 minutes, no fsync",
            Self::Ejabberd => "stores for the absent only, answers first, no fsync",
        }
    }

    /// What clients of the driver say; Gureum has a load tester of its own.
    pub(crate) fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Gureum => None,
            Self::RedisAlways | Self::RedisEverysec => Some(Protocol::Redis),
            Self::NatsAlways | Self::NatsDefault => Some(Protocol::Nats),
            Self::Mosquitto => Some(Protocol::Mqtt),
            Self::Ejabberd => Some(Protocol::Xmpp),
        }
    }

    /// The name of the configuration file and its text; Gureum's is on its command line.
    fn template(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Gureum => None,
            Self::RedisAlways | Self::RedisEverysec => Some(("redis.conf", include_str!("../configs/redis.conf"))),
            Self::NatsAlways | Self::NatsDefault => Some(("nats.conf", include_str!("../configs/nats.conf"))),
            Self::Mosquitto => Some(("mosquitto.conf", include_str!("../configs/mosquitto.conf"))),
            Self::Ejabberd => Some(("ejabberd.yml", include_str!("../configs/ejabberd.yml"))),
        }
    }

    fn fsync(self) -> &'static str {
        match self {
            Self::RedisAlways | Self::NatsAlways => "always",
            Self::RedisEverysec => "everysec",
            Self::NatsDefault => "2m",
            Self::Gureum | Self::Mosquitto | Self::Ejabberd => "",
        }
    }

    /// Writes the configuration into `directory`.
    pub(crate) fn configure(self, directory: &Path, port: u16, certificate: &Certificate) -> anyhow::Result<PathBuf> {
        let Some((name, template)) = self.template() else { return Ok(directory.to_owned()) };
        let text = template
            .replace("{port}", &port.to_string())
            .replace("{fsync}", self.fsync())
            .replace("{data}", utf8(directory)?)
            .replace("{certificate}", utf8(&certificate.certificate)?)
            .replace("{key}", utf8(&certificate.key)?)
            .replace("{certificate_and_key}", utf8(&certificate.both)?);
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// How it is started in the foreground, with its configuration at `config` and its data in `directory`.
    pub(crate) fn command(
        self,
        programs: &Programs,
        config: &Path,
        directory: &Path,
        port: u16,
    ) -> anyhow::Result<Command> {
        let mut command = match self {
            Self::Gureum => {
                let mut command = Command::new(programs.gureum.join("gureumd"));
                command.args(["serve", "--registration", "open", "--sends-per-second", "1000000"]);
                command.args(["--inbox-entries-max", "1000000", "--admin", "127.0.0.1:0"]);
                command.args(["--listen", &format!("127.0.0.1:{port}")]);
                command.arg("--data-dir").arg(directory.join("data"));
                command
            }
            Self::RedisAlways | Self::RedisEverysec => with(Command::new("redis-server"), &[config]),
            Self::NatsAlways | Self::NatsDefault => with(Command::new(&programs.nats), &[Path::new("-c"), config]),
            Self::Mosquitto => with(Command::new("mosquitto"), &[Path::new("-c"), config]),
            Self::Ejabberd => erlang(config, directory)?,
        };
        command.current_dir(directory);
        Ok(command)
    }

    /// What the program says of its version.
    pub(crate) fn version(self, programs: &Programs) -> anyhow::Result<String> {
        let mut command = match self {
            Self::Gureum => with(Command::new(programs.gureum.join("gureumd")), &[Path::new("--version")]),
            Self::RedisAlways | Self::RedisEverysec => with(Command::new("redis-server"), &[Path::new("--version")]),
            Self::NatsAlways | Self::NatsDefault => with(Command::new(&programs.nats), &[Path::new("--version")]),
            Self::Mosquitto => with(Command::new("mosquitto"), &[Path::new("-h")]),
            Self::Ejabberd => {
                let format = ["--showformat", "ejabberd ${Version}", "--show", "ejabberd"].map(Path::new);
                with(Command::new("dpkg-query"), &format)
            }
        };
        let output = command.output().with_context(|| format!("{self} is not installed: scripts/peers.sh"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    }
}

fn with(mut command: Command, arguments: &[&Path]) -> Command {
    command.args(arguments);
    command
}

fn utf8(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}

/// ejabberd as `ejabberdctl foreground` starts it, but without a node name, so that no port mapper is left behind, and
/// without busy waiting: the client runs on the same processors.
fn erlang(config: &Path, directory: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new("erl");
    command.args(["+K", "true", "+P", "250000", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"]);
    command.args(["-noinput", "-mnesia", "dir", &format!("\"{}\"", utf8(&directory.join("mnesia"))?)]);
    command.args(["-s", "ejabberd"]);
    command.env("EJABBERD_CONFIG_PATH", config).env("EJABBERD_LOG_PATH", directory.join("ejabberd.log"));
    command.env("ERL_LIBS", format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    command.env("ERL_MAX_PORTS", "32000").env("ERL_CRASH_DUMP_BYTES", "0").env("HOME", directory);
    Ok(command)
}
