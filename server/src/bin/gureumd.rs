//! The server's command: `gureumd serve`, `invite`, `account`, `check`, `backup` and `restore`.

use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use gureum_server::check::CheckError;
use gureum_server::config::{self, Config, ConfigError, Flags, LogFormat};
use gureum_server::time::{SystemClock, WallClock};
use gureum_server::{account, backup, check, invite, node};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The exit code that clap has for wrong usage; wrong settings are the same, wherever they come from.
const WRONG_USAGE: u8 = 2;

/// The exit code of an audit that finds nothing but that keys and secrets are missing.
const KEYS_MISSING: u8 = 3;

/// The retention of a directory that does not say it.
const DEFAULT_RETENTION: Duration = Duration::from_secs(3 * 24 * 60 * 60);

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
  gureumd invite --data-dir ./data --uses 20 --expires 2d
  gureumd account delete bob --data-dir ./data    for good, while the server runs
  gureumd backup --data-dir ./data --to ./backup  while the server runs, or while it does not
  gureumd check ./backup
  gureumd restore --from ./backup --data-dir ./data";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    #[command(after_help = SERVE_HELP)]
    Serve(Box<Serve>),
    /// Print a URL by which somebody may register; works while the server runs
    #[command(after_help = INVITE_HELP)]
    Invite(Invite),
    /// Do something with one account of the running server
    #[command(subcommand)]
    Account(Account),
    /// Audit a data directory that no server uses, or a backup; changes nothing
    #[command(after_help = CHECK_HELP)]
    Check(Check),
    /// Copy everything but the message keys; works while the server runs
    #[command(after_help = BACKUP_HELP)]
    Backup(Backup),
    /// Make a data directory from a backup
    #[command(after_help = RESTORE_HELP)]
    Restore(Restore),
}

const SERVE_HELP: &str = "Every option may also be given as an environment variable (GUREUM_ and its name: \
GUREUM_DATA_DIR, GUREUM_RETENTION, ...) or in the TOML file of --config (data_dir = \"...\", retention = \"3d\"). A flag \
wins over the environment, the environment over the file. TOKIO_WORKER_THREADS says how many threads serve connections: \
as many as there are processors but one, unless it is set.

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

const DELETE_HELP: &str = "The account's devices are cut off at once, and nothing is stored for it any more. Its \
handle stays taken, so that nobody else is taken for it. Whoever sends to a group that it is in is told that it is \
gone; it stays in the list of members until somebody removes it.

Examples:
  gureumd account delete bob --data-dir ./data";

const CHECK_HELP: &str =
    "The exit code is 0 when all is in order, 1 when something was found, 2 when there is nothing to \
audit, 3 when nothing is missing but keys and secrets: after a restore without them that is as it should be, and else they \
are lost. Of a server that runs, audit a backup.

Examples:
  gureumd check ./data
  gureumd check ./backup --json";

const BACKUP_HELP: &str =
    "The backup holds accounts, conversations and sealed messages, the certificate and the keys of \
invites and of Web Push. It holds no key of a message: without the keyring of the server (keys/) nobody reads a message in \
it. The secrets of push targets and phone numbers are in it as they are in keys/: of no use without the master key.

Examples:
  gureumd backup --data-dir ./data --to /mnt/backup/2027-01-31";

const RESTORE_HELP: &str =
    "The data directory must have no database. If it still has its keys/, messages whose keys are \
there are delivered; for the others devices are told of gaps. The secrets of push targets and phone numbers are put back \
if the master key opens them; without them devices register their targets again by themselves, and numbers have to be \
proven anew.

Examples:
  gureumd restore --from /mnt/backup/2027-01-31 --data-dir ./data
  gureumd restore --from /mnt/backup/2027-01-31 --data-dir ./new --keys ./old/keys
  gureumd restore --from /mnt/backup/2027-01-31 --data-dir ./new --master-key /safe/master.key";

#[derive(Debug, Subcommand)]
enum Account {
    /// Delete an account for good
    #[command(after_help = DELETE_HELP)]
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
struct Delete {
    /// Its handle
    #[arg(value_name = "HANDLE")]
    handle: String,
    /// The data directory of the server
    #[arg(long, value_name = "DIR", env = "GUREUM_DATA_DIR")]
    data_dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Check {
    /// The data directory, or the backup
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// How long messages live [default: as the server had it that last used the directory]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    retention: Option<Duration>,
    /// How long commits live [default: likewise]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    commit_retention: Option<Duration>,
    /// The master key, if it is kept elsewhere
    #[arg(long, value_name = "FILE", env = "GUREUM_MASTER_KEY")]
    master_key: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Backup {
    /// The data directory of the server
    #[arg(long, value_name = "DIR", env = "GUREUM_DATA_DIR")]
    data_dir: PathBuf,
    /// The directory to make; it must not exist
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Restore {
    /// The backup
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The data directory to make
    #[arg(long, value_name = "DIR", env = "GUREUM_DATA_DIR")]
    data_dir: PathBuf,
    /// Message keys that survived, the directory keys/ of the old server
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// The master key, if it is kept elsewhere
    #[arg(long, value_name = "FILE", env = "GUREUM_MASTER_KEY")]
    master_key: Option<PathBuf>,
}

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
        Command::Serve(serve) => run_serve(&serve).map(|()| ExitCode::SUCCESS),
        Command::Invite(invite) => run_invite(&invite).map(|()| ExitCode::SUCCESS),
        Command::Account(Account::Delete(delete)) => run_delete(&delete).map(|()| ExitCode::SUCCESS),
        Command::Check(check) => run_check(&check),
        Command::Backup(backup) => run_backup(&backup).map(|()| ExitCode::SUCCESS),
        Command::Restore(restore) => run_restore(&restore).map(|()| ExitCode::SUCCESS),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gureumd: {error:#}");
            if error.is::<ConfigError>() || error.is::<CheckError>() {
                ExitCode::from(WRONG_USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn run_serve(serve: &Serve) -> Result<()> {
    let env = |name: &str| std::env::var(name).ok();
    let config = Config::load(&serve.flags, env, |path| std::fs::read_to_string(path))?;
    let workers = config::workers(env, std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))?;
    if serve.print_config {
        return Ok(write!(std::io::stdout(), "{config}")?);
    }
    start_log(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    runtime.context("starting the runtime")?.block_on(node::run(config))
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

fn run_delete(delete: &Delete) -> Result<()> {
    let deleted = account::delete(&delete.data_dir, &delete.handle)?;
    Ok(writeln!(std::io::stdout(), "{deleted}")?)
}

fn run_check(check: &Check) -> Result<ExitCode> {
    let known = invite::ServerFile::read(&check.directory).ok().flatten();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let of_server = known.as_ref().and_then(|server| server.retention_ms);
    let retention_ms = check.retention.map(millis).or(of_server).unwrap_or_else(|| millis(DEFAULT_RETENTION));
    let of_server = known.as_ref().and_then(|server| server.commit_retention_ms);
    let commit_retention_ms =
        check.commit_retention.map(millis).or(of_server).unwrap_or(retention_ms.saturating_mul(10));
    let options = check::Options {
        now_ms: SystemClock::new().wall_ms(),
        retention_ms,
        commit_retention_ms,
        master_key: check.master_key.as_deref(),
    };
    let report = check::check(&check.directory, &options)?;
    let mut out = std::io::stdout();
    if check.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(if report.clean {
        ExitCode::SUCCESS
    } else if report.lacks_only_keys() {
        ExitCode::from(KEYS_MISSING)
    } else {
        ExitCode::FAILURE
    })
}

fn run_backup(backup: &Backup) -> Result<()> {
    let manifest = backup::take(&backup.data_dir, &backup.to, SystemClock::new().wall_ms())?;
    let (files, bytes) = (manifest.files.len(), manifest.bytes());
    Ok(writeln!(std::io::stdout(), "{files} files of {bytes} bytes are in {}", backup.to.display())?)
}

fn run_restore(restore: &Restore) -> Result<()> {
    let (keys, master) = (restore.keys.as_deref(), restore.master_key.as_deref());
    let restored = backup::restore(&restore.from, &restore.data_dir, keys, master)?;
    if restored.secrets_left_out > 0 {
        eprintln!(
            "gureumd: the secrets of push targets and phone numbers were left out, since their master key is not there: \
             devices register their targets again, and numbers have to be proven anew; to keep them, restore into \
             another directory with --master-key"
        );
    }
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(&restored)?)?)
}

fn start_log(config: &Config) {
    // OpenMLS logs an ERROR for whatever a peer gets wrong; the answer to the peer says it better.
    let quiet = if config.log_filter.contains("openmls") { "" } else { ",openmls=off" };
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(config.log_filter.clone() + quiet);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let is_told = filter_fn(may_be_told);
    match config.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).finish().with(is_told).init(),
        LogFormat::Json => log.json().finish().with(is_told).init(),
    }
}

/// Whether an event may be in a log at all, whatever the filter says: the libraries of HTTP log headers and paths, which
/// hold the tokens of push targets and services, and that of phone numbers logs the numbers.
fn may_be_told(event: &Metadata<'_>) -> bool {
    match event.target().split("::").next().unwrap_or_default() {
        "h2" | "hyper" | "hyper_util" | "hyper_rustls" | "rlibphonenumber" => false,
        "rustls" | "tokio_rustls" => *event.level() <= Level::WARN,
        _ => true,
    }
}
