//! Runs a proof at the size one likes: progress on standard error, what was seen as JSON at the end.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use gureum_tests::disk::FileSystem;
use gureum_tests::prove::{
    contention, devices, disk, expiry, groups, homes, keys, kill, network, peers, power, push, reclaim, soak,
};

/// Proves what Gureum promises, against the real programs and a real disk.
#[derive(Debug, Parser)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Millions of messages over simulated days: nothing expired is served or stays on the disk.
    Expiry(Expiry),
    /// Copies of a data directory from before and after an expiry: what each opens with which keys.
    Keys {
        /// Messages in all.
        #[arg(long, default_value_t = 100_000)]
        messages: u64,
    },
    /// The latency of durable writes at rest and while a large store is reclaimed.
    Reclaim {
        /// Messages in the store.
        #[arg(long, default_value_t = 4_000_000)]
        messages: u64,
    },
    /// Loss, disorder, cuts, moves: every message arrives, once, in order.
    Network(Network),
    /// Three devices of one account and two of another come and go and send at random: every message is on every device,
    /// once, in one order, or told as missed with the right count.
    Devices {
        /// How long: half of it with messages that live for long, half with such that live for seconds.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// The seed of what happens, and of the weather.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Many groups on one server, and a large one: how fast they are made, talked in and changed; and every member has what
    /// was said while it was one, once, in one order, and nothing else.
    Groups(Groups),
    /// One conversation that all its admins change at once while they talk: it converges, nobody is stuck, nothing is lost.
    Contention(Contention),
    /// Bad peers of every kind at scale: good users talk on, memory and descriptors stay within their bounds.
    Peers(Peers),
    /// Push services that hang while thousands of devices are away: live messages are relayed as before, memory stays within
    /// its bound, and when the services are back every device is woken once.
    Push(Push),
    /// A long load with expiry running: memory, descriptors, disk and p99 stay flat.
    Soak(Soak),
    /// SIGKILL under load, at random and at every step of a commit: what was acknowledged is there, once.
    Kill {
        /// How often.
        #[arg(long, default_value_t = 200)]
        rounds: u32,
        /// How often with a retention of seconds, so that keys and tables come and go.
        #[arg(long, default_value_t = 100)]
        short_rounds: u32,
    },
    /// Power cuts under load on ext4 and xfs: what was not synced is gone, what was acknowledged is there, once.
    Power {
        /// How often, on each file system.
        #[arg(long, default_value_t = 70)]
        rounds: u32,
        /// How often on each with a retention of seconds.
        #[arg(long, default_value_t = 30)]
        short_rounds: u32,
        /// Cuts after the first messages of a fresh server, on each.
        #[arg(long, default_value_t = 5)]
        first_starts: u32,
    },
    /// Power cuts under people's homes, on ext4 and xfs, while they send and receive: both have one history.
    Homes {
        /// How often, on each file system.
        #[arg(long, default_value_t = 40)]
        cuts: u32,
    },
    /// A disk that is full, read-only, does not sync or breaks: what the server says, and how it recovers.
    Disk,
}

#[derive(Debug, Args)]
struct Expiry {
    /// Messages in all.
    #[arg(long, default_value_t = 20_000_000)]
    messages: u64,
    /// Simulated days.
    #[arg(long, default_value_t = 10)]
    days: u64,
    /// Accounts.
    #[arg(long, default_value_t = 4_000)]
    accounts: usize,
    /// Bytes of each body.
    #[arg(long, default_value_t = 256)]
    body_bytes: usize,
    /// The seed of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the data directory is made.
    #[arg(long)]
    directory: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Network {
    /// The seed of the weather.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Messages of each of the two in each case.
    #[arg(long, default_value_t = 400)]
    messages: usize,
}

#[derive(Debug, Args)]
struct Groups {
    /// Groups.
    #[arg(long, default_value_t = 100)]
    groups: usize,
    /// Accounts in each.
    #[arg(long, default_value_t = 100)]
    members: usize,
    /// Accounts in the large one; 0 for none.
    #[arg(long, default_value_t = 1_000)]
    large: usize,
    /// Accounts in all, of which the groups are drawn.
    #[arg(long, default_value_t = 1_000)]
    accounts: usize,
    /// Accounts that are connected all along; a tenth of each group, and of the large one, with the defaults.
    #[arg(long, default_value_t = 100)]
    connected: usize,
    /// Accounts that come at the end and take what has waited.
    #[arg(long, default_value_t = 20)]
    late: usize,
    /// Messages in each group one by one, and as many at once.
    #[arg(long, default_value_t = 20)]
    messages: usize,
    /// Who is in which group, and who speaks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct Contention {
    /// Admins, each a client of its own; at most 64.
    #[arg(long, default_value_t = 50)]
    clients: usize,
    /// How long.
    #[arg(long = "for", default_value = "60s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Who does what when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct Peers {
    /// A calm phase and an attack so often for each kind.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each phase is.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    phase: Duration,
    /// Connections without a proof at one time.
    #[arg(long, default_value_t = 4_000)]
    connections: usize,
    /// New ones a second.
    #[arg(long, default_value_t = 600)]
    connections_per_s: u32,
    /// Bad peers that prove themselves.
    #[arg(long, default_value_t = 8)]
    devices: usize,
    /// Spoofed handshakes, and datagrams of noise, a second.
    #[arg(long, default_value_t = 2_000)]
    datagrams_per_s: u32,
    /// Pairs of good users, each of which sends 20 messages a second.
    #[arg(long, default_value_t = 20)]
    pairs: usize,
    /// Only these kinds, by their place in the list, from 0.
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<usize>,
}

#[derive(Debug, Args)]
struct Push {
    /// Devices that are away and can be woken.
    #[arg(long, default_value_t = 10_000)]
    devices: usize,
    /// How long the services hang, and how long the calm is before and after.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    hang: Duration,
    /// Pairs of people who talk all the while.
    #[arg(long, default_value_t = 20)]
    pairs: usize,
}

#[derive(Debug, Args)]
struct Soak {
    /// How long.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Messages a second.
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// Pairs that send them.
    #[arg(long, default_value_t = 50)]
    pairs: usize,
    /// The server's retention.
    #[arg(long, default_value = "2m")]
    retention: String,
    /// Between two samples.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// The server's program, if it is not the one that lies beside this.
    #[arg(long)]
    server: Option<PathBuf>,
}

/// The end of a proof that cannot run; what it lacks was said before.
const NOT_HERE: &str = "this machine cannot run the proof, and it shows nothing";

fn main() -> anyhow::Result<()> {
    let report = match Command::parse().what {
        What::Expiry(args) => serde_json::to_value(expiry::run(&args.options()))?,
        What::Keys { messages } => serde_json::to_value(keys::run(messages))?,
        What::Reclaim { messages } => serde_json::to_value(reclaim::run(messages))?,
        What::Network(args) => {
            let options =
                network::Options { seed: args.seed, messages: args.messages, cases: network::all(), tells: true };
            // The one part that needs rights; without them the rest is still worth its time.
            let cable = network::run_on_a_cable(args.messages, Duration::from_secs(10));
            serde_json::json!({ "relay": network::run(&options), "cable": cable })
        }
        What::Devices { minutes, seed } => {
            let half = |retention| {
                let duration = Duration::from_secs(30 * minutes);
                devices::run(&devices::Options { duration, seed, retention, tells: true })
            };
            serde_json::to_value([half(None), half(Some("5s"))])?
        }
        What::Groups(args) => serde_json::to_value(groups::run(&args.options()))?,
        What::Contention(Contention { clients, duration, seed }) => {
            let options = contention::Options { clients, duration, changes: None, seed, tells: true };
            serde_json::to_value(contention::run(&options))?
        }
        What::Peers(args) => serde_json::to_value(peers::run(&args.options()))?,
        What::Kill { rounds, short_rounds } => {
            serde_json::to_value(kill::run(&kill::Options { rounds, short_rounds, tells: true }))?
        }
        What::Power { rounds, short_rounds, first_starts } => {
            let on = vec![FileSystem::Ext4, FileSystem::Xfs];
            let options = power::Options { rounds, short_rounds, first_starts, on, tells: true };
            serde_json::to_value(power::run(&options).context(NOT_HERE)?)?
        }
        What::Homes { cuts } => {
            let on =
                [FileSystem::Ext4, FileSystem::Xfs].map(|on| homes::run(&homes::Options { cuts, on, tells: true }));
            serde_json::to_value(on.into_iter().collect::<Option<Vec<_>>>().context(NOT_HERE)?)?
        }
        What::Disk => serde_json::to_value(disk::run().context(NOT_HERE)?)?,
        What::Push(Push { devices, hang, pairs }) => {
            let report = push::run(&push::Options { devices, hang, pairs, tells: true });
            if !report.is_within {
                println!("{:#}", serde_json::to_value(&report)?);
                anyhow::bail!("live messages took longer while the services hung than is promised: see p99_ratio");
            }
            serde_json::to_value(report)?
        }
        What::Soak(args) => serde_json::to_value(soak::run(&args.options()?))?,
    };
    println!("{report:#}");
    Ok(())
}

impl Expiry {
    fn options(self) -> expiry::Options {
        let Self { messages, days, accounts, body_bytes, seed, directory } = self;
        expiry::Options { messages, days, accounts, body_bytes, seed, directory, tells: true }
    }
}

impl Groups {
    fn options(&self) -> groups::Options {
        let &Self { groups, members, large, accounts, connected, late, messages, seed } = self;
        groups::Options { groups, members, large, accounts, connected, late, messages, batch: 20, seed, tells: true }
    }
}

impl Peers {
    fn options(&self) -> peers::Options {
        let chosen = self.kinds.iter().filter_map(|index| peers::KINDS.get(*index).copied()).collect();
        peers::Options {
            kinds: if self.kinds.is_empty() { peers::KINDS.to_vec() } else { chosen },
            rounds: self.rounds,
            phase: self.phase,
            force: peers::Force {
                connections: self.connections,
                connections_per_s: self.connections_per_s,
                devices: self.devices,
                datagrams_per_s: self.datagrams_per_s,
            },
            pairs: self.pairs,
            every: Duration::from_millis(50),
            tells: true,
        }
    }
}

impl Soak {
    fn options(self) -> anyhow::Result<soak::Options> {
        let retention = humantime::parse_duration(&self.retention)?;
        let duration = Duration::from_secs(60 * self.minutes);
        // Three lives of a message, in which its table files come and go; but never more than half of the time.
        let warm_up = (3 * retention).min(duration / 2);
        Ok(soak::Options {
            duration,
            rate: self.rate,
            pairs: self.pairs,
            // One setting of one process.
            retention: Box::leak(self.retention.into_boxed_str()),
            warm_up,
            every: self.every,
            server: self.server,
            tells: true,
        })
    }
}
