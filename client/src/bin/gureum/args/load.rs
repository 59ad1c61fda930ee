//! The arguments of the load tester.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use gureum_client::load::{
    AwayTimes, LOAD_ACCOUNTS_MAX, LOAD_AT_ONCE_MAX, LOAD_DEVICES_MAX, LOAD_DURATION_S_MAX, LOAD_GROUPS_MAX,
    LOAD_MEMBERS_MAX, LOAD_MESSAGES_MAX, LOAD_PAIRS_MAX, LoadBody, LoadOptions, LoadPace, MetricsUrl, PlotFile, Rates,
    SEALED_BYTES_MAX, SEALED_BYTES_MIN, Scenario, TEXT_BYTES_MAX, TEXT_BYTES_MIN,
};
use gureum_proto::ServerUrl;

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureumd invite --data-dir DIR --uses 100
  gureum load pairs --server 'gureum://…' --pairs 50 --window 64 --duration 10s --sealed-size 256
  gureum load fanout --server 'gureum://…' --groups 1 --members 100 --window 16 --sealed-size 256
  gureum load offline --server 'gureum://…' --devices 1 --messages 50000 --sealed-size 256
  gureum load idle --server 'gureum://…' --devices 1000 --duration 60s
  gureum load storm --server 'gureum://…' --devices 5000 --restart-command 'systemctl restart gureumd'
  gureum load mixed --server 'gureum://…' --people 50 --members 10 --rate 100 --duration 60s

Every account has keys of its own, so that an invite needs as many uses as there are accounts, or registration is open. \
With --rate, latencies count from the moment a message was due, not from when it left; how late messages left by the load \
tester's own doing is reported beside them. A server takes 1,000 messages a \
second from one device; to load it with more, start it with --sends-per-second 1000000. With --metrics \
http://ADDRESS:PORT/metrics, as its --admin has it, the report says what the load cost the server. The exit code is 1 if \
anything is missing. `gureum load SCENARIO --help` says more.")]
pub(crate) struct LoadArgs {
    /// What to do to the server
    #[command(subcommand)]
    pub(crate) scenario: LoadScenario,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LoadScenario {
    /// Pairs of devices, one sending to the other
    Pairs(PairsArgs),
    /// Groups in which one account sends to all others
    Fanout(FanoutArgs),
    /// Messages for absent devices: stored, then drained when they come back
    Offline(OfflineArgs),
    /// Devices that are subscribed and silent: what one costs in memory
    Idle(IdleArgs),
    /// Devices that all come back after a restart of the server, while others talk
    Storm(StormArgs),
    /// A day's mix: people talk alone and in groups, confirm, go away and come back
    Mixed(MixedArgs),
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum load pairs --server 'gureum://…' --pairs 50 --window 64 --duration 10s --sealed-size 256
  gureum load pairs --server 'gureum://…' --pairs 50 --rate 20000 --duration 30s --sealed-size 256 --json
  gureum load pairs --server 'gureum://…' --pairs 4 --window 16 --metrics http://127.0.0.1:4434/metrics
  gureum load pairs --server 'gureum://…' --pairs 50 --rates 1000,5000,20000 --sealed-size 256 --plot latency.svg

Each pair is two accounts.")]
pub(crate) struct PairsArgs {
    /// Pairs of devices
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = within::<1, LOAD_PAIRS_MAX>)]
    pairs: usize,
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    body: BodyArgs,
    #[command(flatten)]
    plot: PlotArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum load fanout --server 'gureum://…' --members 100 --window 16 --sealed-size 256
  gureum load fanout --server 'gureum://…' --groups 10 --members 20 --rate 50 --duration 30s
  gureum load fanout --server 'gureum://…' --members 100 --connected 0 --sealed-size 256 --metrics http://127.0.0.1:4434/metrics

Groups are real ones, made before the clock starts, so that the server holds each message to its members. Each has \
accounts of its own. With --connected 0 the server only stores: that shows what an inbox costs.")]
pub(crate) struct FanoutArgs {
    /// Groups; in each, one account sends
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = within::<1, LOAD_GROUPS_MAX>)]
    groups: usize,
    /// Accounts of each group
    #[arg(long, value_name = "G", default_value_t = 10, value_parser = within::<2, LOAD_MEMBERS_MAX>)]
    members: usize,
    /// Of those who do not send, so many of each group are connected [default: all]
    #[arg(long, value_name = "N", value_parser = within::<0, LOAD_MEMBERS_MAX>)]
    connected: Option<usize>,
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    body: BodyArgs,
    #[command(flatten)]
    plot: PlotArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum load offline --server 'gureum://…' --devices 1 --messages 50000 --sealed-size 256
  gureum load offline --server 'gureum://…' --devices 20 --messages 500 --metrics http://127.0.0.1:4434/metrics

Each device has a sender of its own, so that it takes two accounts. A server keeps 100,000 entries of an inbox and drops the \
oldest beyond, which are missing then: start it with --inbox-entries-max for more.")]
pub(crate) struct OfflineArgs {
    /// Absent devices
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = within::<1, LOAD_PAIRS_MAX>)]
    devices: usize,
    /// Messages for each
    #[arg(long, value_name = "M", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=LOAD_MESSAGES_MAX))]
    messages: u64,
    /// So many messages of each sender without an answer, at most 64
    #[arg(long, value_name = "W", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=64))]
    window: u32,
    #[command(flatten)]
    body: BodyArgs,
    #[command(flatten)]
    plot: PlotArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  gureum load idle --server 'gureum://…' --devices 1000 --duration 60s --metrics http://127.0.0.1:4434/metrics

Each device is an account without a home, registered anew. Many need descriptors and memory: sockets are shared by 16 of them.")]
pub(crate) struct IdleArgs {
    /// Devices
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = within::<1, LOAD_DEVICES_MAX>)]
    devices: usize,
    /// How long to hold them, at most a day
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = at_most_a_day)]
    duration: Duration,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum load storm --server 'gureum://…' --devices 5000 --restart-command 'systemctl restart gureumd'
  gureum load storm --server 'gureum://…' --devices 1000 --pairs 10 --rate 200 --duration 30s

Without --restart-command it says when to restart the server. The devices come back the moment it answers again; pairs of \
others talk all along, with opaque bodies, and their latency before the restart is told from that while the devices come back.")]
pub(crate) struct StormArgs {
    /// Devices that come back
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = within::<1, LOAD_DEVICES_MAX>)]
    devices: usize,
    /// Pairs that talk beside them
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = within::<1, LOAD_PAIRS_MAX>)]
    pairs: usize,
    /// Messages a second of all these pairs together
    #[arg(long, value_name = "R", default_value_t = 100.0, value_parser = positive)]
    rate: f64,
    /// Bytes of their messages, which are opaque
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = within::<SEALED_BYTES_MIN, SEALED_BYTES_MAX>)]
    sealed_size: usize,
    /// How long they talk before the restart, at most a day
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = at_most_a_day)]
    duration: Duration,
    /// Connections that begin at a time: a server has room for 512 of one address that have not proven themselves
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = within::<1, LOAD_AT_ONCE_MAX>)]
    at_once: usize,
    /// A shell command that ends the server and starts it again at the same address
    #[arg(long, value_name = "COMMAND")]
    restart_command: Option<String>,
    #[command(flatten)]
    plot: PlotArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureum load mixed --server 'gureum://…' --people 50 --members 10 --rate 100 --duration 60s
  gureum load mixed --server 'gureum://…' --people 1000 --rate 1000 --duration 60s --sealed-size 256 --away-every 60s

Of ten messages of a person seven go to one of two others and three to a group of --members. Whoever hears something confirms \
it a second later. Each goes away once in --away-every and catches up; what was said meanwhile counts as caught up.")]
pub(crate) struct MixedArgs {
    /// People, each with one device
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = within::<2, LOAD_ACCOUNTS_MAX>)]
    people: usize,
    /// Accounts of each group
    #[arg(long, value_name = "G", default_value_t = 10, value_parser = within::<2, LOAD_MEMBERS_MAX>)]
    members: usize,
    /// Messages a second, of all together
    #[arg(long, value_name = "R", default_value_t = 20.0, value_parser = positive)]
    rate: f64,
    /// How long to send, at most a day
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = at_most_a_day)]
    duration: Duration,
    /// How often each goes away; 0s for never
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = at_most_a_day)]
    away_every: Duration,
    /// For how long
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = at_most_5_s)]
    away_for: Duration,
    #[command(flatten)]
    body: BodyArgs,
    #[command(flatten)]
    plot: PlotArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, ClapArgs)]
struct PaceArgs {
    /// Closed loop: so many messages of each sender without an answer, at most 64
    #[arg(long, value_name = "W", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=64), conflicts_with = "rate")]
    window: u32,

    /// Open loop: so many messages a second, of all senders together
    #[arg(long, value_name = "R", value_parser = positive)]
    rate: Option<f64>,

    /// One open loop after the other, from the lowest rate to the highest, with accounts of its own for each
    #[arg(long, value_name = "R,R,…", conflicts_with_all = ["rate", "window"])]
    rates: Option<Rates>,

    /// How long to send, at most a day; with --rates, at each of them
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = at_most_a_day)]
    duration: Duration,
}

#[derive(Debug, ClapArgs)]
struct PlotArgs {
    /// Draws latency percentiles of deliveries over time, or with --rates over the rate; PNG or SVG by the name's ending
    #[arg(long, value_name = "FILE")]
    plot: Option<PlotFile>,
}

#[derive(Debug, ClapArgs)]
struct BodyArgs {
    /// Bytes of text a message, encrypted as a conversation is
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = within::<TEXT_BYTES_MIN, TEXT_BYTES_MAX>)]
    size: usize,

    /// Opaque bodies of so many bytes instead, without encryption: loads the server alone
    #[arg(long, value_name = "BYTES", conflicts_with = "size", value_parser = within::<SEALED_BYTES_MIN, SEALED_BYTES_MAX>)]
    sealed_size: Option<usize>,
}

#[derive(Debug, ClapArgs)]
struct CommonArgs {
    /// The server: an invite with enough uses, or its address where registration is open
    #[arg(long, value_name = "URL")]
    server: ServerUrl,

    /// Where the server tells what it takes, as its --admin has it; without it the report does not know
    #[arg(long, value_name = "URL")]
    metrics: Option<MetricsUrl>,

    /// Threads of the load tester
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = within::<1, LOAD_THREADS_MAX>)]
    threads: usize,
}

/// Threads of a load tester: more than any machine on which one makes sense has processors.
const LOAD_THREADS_MAX: usize = 256;
/// The longest that people of a mixed load are away, in seconds: half of what the load tester waits for what is missing.
const AWAY_S_MAX: u64 = 5;

impl LoadArgs {
    /// Threads of the load tester.
    pub(crate) fn threads(&self) -> usize {
        self.shared().0.threads
    }

    /// Where to draw what is measured.
    pub(crate) fn plot(&self) -> Option<PlotFile> {
        self.shared().1?.plot.clone()
    }

    /// The rates of a sweep; none where there is but one run.
    pub(crate) fn rates(&self) -> Vec<f64> {
        let rates = self.shared().2.and_then(|pace| pace.rates.as_ref());
        rates.map(|rates| rates.all().to_vec()).unwrap_or_default()
    }

    /// The options that its scenario shares with others, as far as it has them.
    const fn shared(&self) -> (&CommonArgs, Option<&PlotArgs>, Option<&PaceArgs>) {
        match &self.scenario {
            LoadScenario::Pairs(args) => (&args.common, Some(&args.plot), Some(&args.pace)),
            LoadScenario::Fanout(args) => (&args.common, Some(&args.plot), Some(&args.pace)),
            LoadScenario::Offline(args) => (&args.common, Some(&args.plot), None),
            LoadScenario::Storm(args) => (&args.common, Some(&args.plot), None),
            LoadScenario::Mixed(args) => (&args.common, Some(&args.plot), None),
            LoadScenario::Idle(args) => (&args.common, None, None),
        }
    }

    /// As the load tester takes it.
    pub(crate) fn options(self) -> LoadOptions {
        match self.scenario {
            LoadScenario::Pairs(PairsArgs { pairs, pace, body, common, .. }) => {
                options(common, Scenario::Pairs { pairs }, pace.pace(), pace.duration, body.body())
            }
            LoadScenario::Fanout(FanoutArgs { groups, members, connected, pace, body, common, .. }) => {
                let connected = connected.unwrap_or(members.saturating_sub(1));
                let scenario = Scenario::Fanout { groups, members, connected };
                options(common, scenario, pace.pace(), pace.duration, body.body())
            }
            LoadScenario::Offline(OfflineArgs { devices, messages, window, body, common, .. }) => {
                let scenario = Scenario::Offline { devices, messages };
                let duration = Duration::from_secs(LOAD_DURATION_S_MAX);
                options(common, scenario, LoadPace::Window(window), duration, body.body())
            }
            LoadScenario::Idle(IdleArgs { devices, duration, common }) => {
                let body = LoadBody::Sealed(SEALED_BYTES_MIN);
                options(common, Scenario::Idle { devices }, LoadPace::Window(1), duration, body)
            }
            LoadScenario::Storm(args) => {
                let StormArgs { devices, pairs, rate, sealed_size, duration, at_once, restart_command, common, .. } =
                    args;
                let scenario = Scenario::Storm { devices, pairs, at_once, restart: restart_command };
                options(common, scenario, LoadPace::Rate(rate), duration, LoadBody::Sealed(sealed_size))
            }
            LoadScenario::Mixed(args) => {
                let MixedArgs { people, members, rate, duration, away_every, away_for, body, common, .. } = args;
                let away = (!away_every.is_zero()).then_some(AwayTimes { every: away_every, lasts: away_for });
                let scenario = Scenario::Mixed { people, members, away };
                options(common, scenario, LoadPace::Rate(rate), duration, body.body())
            }
        }
    }
}

fn options(common: CommonArgs, scenario: Scenario, pace: LoadPace, duration: Duration, body: LoadBody) -> LoadOptions {
    let CommonArgs { server, metrics, .. } = common;
    LoadOptions { server, scenario, pace, duration, body, metrics }
}

impl PaceArgs {
    fn pace(&self) -> LoadPace {
        self.rate.map_or(LoadPace::Window(self.window), LoadPace::Rate)
    }
}

impl BodyArgs {
    fn body(&self) -> LoadBody {
        self.sealed_size.map_or(LoadBody::Text(self.size), LoadBody::Sealed)
    }
}

fn within<const LEAST: usize, const MOST: usize>(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(number) if (LEAST..=MOST).contains(&number) => Ok(number),
        _ => Err(format!("from {LEAST} to {MOST}")),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("a number above 0".to_owned()),
    }
}

fn at_most_a_day(text: &str) -> Result<Duration, String> {
    up_to(text, LOAD_DURATION_S_MAX)
}

fn at_most_5_s(text: &str) -> Result<Duration, String> {
    up_to(text, AWAY_S_MAX)
}

fn up_to(text: &str, seconds: u64) -> Result<Duration, String> {
    let most = Duration::from_secs(seconds);
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= most => Ok(duration),
        Ok(_) => Err(format!("at most {}", humantime::format_duration(most))),
        Err(error) => Err(error.to_string()),
    }
}
