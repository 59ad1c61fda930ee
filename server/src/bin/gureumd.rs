//! The server's command: `gureumd serve` and `gureumd invite`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use gureum_server::config::{Config, ConfigError, Flags, LogFormat};
use gureum_server::time::{SystemClock, WallClock};
use gureum_server::{invite, node};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The exit code that clap has for wrong usage; wrong settings are the same, wherever they come from.
const WRONG_USAGE: u8 = 2;

/// The Gureum server: keeps end-to-end encrypted messages for devices that are away, and relays at once to those
/// that are not.
#[derive(Debug, Parser)]
#[command(name = "gureumd", version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  gureumd serve --data-dir ./data
  gureumd invite --data-dir ./data                one person may register with the URL printed
  gureumd invite --data-dir ./data --uses 20 --expires 2d";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    #[command(after_help = SERVE_HELP)]
    Serve(Box<Serve>),
    /// Print a URL by which somebody may register; works while the server runs
    #[command(after_help = INVITE_HELP)]
    Invite(Invite),
}

const SERVE_HELP: &str = "Every option may also be given as an environment variable (GUREUM_ and its name: \
GUREUM_DATA_DIR, GUREUM_RETENTION, ...) or in the TOML file of --config (data_dir = \"...\", retention = \"3d\"). A flag \
wins over the environment, the environment over the file.

When it is ready the server prints one JSON line on standard output:
  {\"event\":\"ready\",\"listen\":\"IP:PORT\",\"admin\":\"IP:PORT\",\"url\":\"gureum://HOST:PORT#PIN\"}
Logs go to standard error. SIGTERM and SIGINT stop it gracefully.

Examples:
  gureumd serve --data-dir ./data
  gureumd serve --data-dir ./data --listen 0.0.0.0:4433 --public-address chat.example.org
  gureumd serve --data-dir ./data --retention 1d --print-config";

const INVITE_HELP: &str = "Examples:
  gureumd invite --data-dir ./data
  gureumd invite --data-dir ./data --uses 20 --expires 2d";

#[derive(Debug, clap::Args)]
struct Serve {
    #[command(flatten)]
    flags: Flags,
    /// Print the settings that would be used, as TOML, and end
    #[arg(long)]
    print_config: bool,
}

#[derive(Debug, clap::Args)]
struct Invite {
    /// The data directory of the server
    #[arg(long, value_name = "DIR", env = "GUREUM_DATA_DIR")]
    data_dir: PathBuf,
    /// How many people may register with it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// For how long, e.g. 7d, 12h, 90m
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = humantime::parse_duration)]
    expires: Duration,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(serve) => run_serve(&serve),
        Command::Invite(invite) => run_invite(&invite),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gureumd: {error:#}");
            if error.is::<ConfigError>() { ExitCode::from(WRONG_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn run_serve(serve: &Serve) -> Result<()> {
    let config = Config::load(&serve.flags, |name| std::env::var(name).ok(), |path| std::fs::read_to_string(path))?;
    if serve.print_config {
        return Ok(write!(std::io::stdout(), "{config}")?);
    }
    start_log(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(node::run(config))
}

fn run_invite(invite: &Invite) -> Result<()> {
    let now_ms = SystemClock::new().wall_ms();
    let lifetime_ms = u64::try_from(invite.expires.as_millis()).ok();
    let Some(expires_ms) = lifetime_ms.and_then(|lifetime_ms| now_ms.checked_add(lifetime_ms)) else {
        bail!("--expires is too far away");
    };
    let url = invite::mint(&invite.data_dir, invite.uses, expires_ms)?;
    Ok(writeln!(std::io::stdout(), "{url}")?)
}

fn start_log(config: &Config) {
    // OpenMLS logs an ERROR for whatever a peer gets wrong; the answer to the peer says it better.
    let quiet = if config.log_filter.contains("openmls") { "" } else { ",openmls=off" };
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(config.log_filter.clone() + quiet);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
}
