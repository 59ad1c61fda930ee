//! The arguments of the load tester.

use std::time::Duration;

use clap::Args as ClapArgs;
use gureum_client::load::{
    LOAD_IDLE_MAX, LOAD_PAIRS_MAX, SEALED_BYTES_MAX, SEALED_BYTES_MIN, TEXT_BYTES_MAX, TEXT_BYTES_MIN,
};
use gureum_proto::ServerUrl;

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gureumd invite --data-dir DIR --uses 100
  gureum load --server 'gureum://…' --pairs 50 --window 64 --duration 10s --sealed-size 256
  gureum load --server 'gureum://…' --pairs 50 --rate 20000 --duration 30s --sealed-size 256 --json
  gureum load --server 'gureum://…' --pairs 4 --window 16 --duration 10s
  gureum load --server 'gureum://…' --idle 1000 --duration 60s

Each pair is two accounts with keys of their own, so that an invite needs two uses a pair (one for each idle \
connection). With --rate, latencies count from the moment a message was due, not from when it left. A server takes \
1,000 messages a second from one device; to load it with more, start it with --sends-per-second 1000000.")]
pub(crate) struct LoadArgs {
    /// The server: an invite with enough uses, or its address where registration is open
    #[arg(long, value_name = "URL")]
    pub(crate) server: ServerUrl,

    /// Pairs of devices, one sending to the other
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = within::<1, LOAD_PAIRS_MAX>)]
    pub(crate) pairs: usize,

    /// Closed loop: so many messages of each pair without an answer, at most 64
    #[arg(long, value_name = "W", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=64), conflicts_with = "rate")]
    pub(crate) window: u32,

    /// Open loop: so many messages a second, of all pairs together
    #[arg(long, value_name = "R", value_parser = positive)]
    pub(crate) rate: Option<f64>,

    /// How long to send
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,

    /// Bytes of text a message, encrypted as a conversation is
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = within::<TEXT_BYTES_MIN, TEXT_BYTES_MAX>)]
    pub(crate) size: usize,

    /// Opaque bodies of so many bytes instead, without encryption: loads the server alone
    #[arg(long, value_name = "BYTES", conflicts_with = "size", value_parser = within::<SEALED_BYTES_MIN, SEALED_BYTES_MAX>)]
    pub(crate) sealed_size: Option<usize>,

    /// Instead of pairs: so many connections that are subscribed and silent
    #[arg(long, value_name = "N", conflicts_with_all = ["pairs", "rate", "window", "size", "sealed_size"],
        value_parser = within::<1, LOAD_IDLE_MAX>)]
    pub(crate) idle: Option<usize>,

    /// Threads of the load tester
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = within::<1, LOAD_THREADS_MAX>)]
    pub(crate) threads: usize,
}

/// Threads of a load tester: more than any machine on which one makes sense has processors.
const LOAD_THREADS_MAX: usize = 256;

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
