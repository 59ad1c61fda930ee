//! Gureum's own row: its load tester against its server, with opaque bodies, since the peers' clients encrypt nothing
//! beyond TLS either.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use super::{Figures, Scenario, Work};
use crate::limits::{DRAIN, TAIL};
use crate::server::Server;

/// How long idle devices are held before the memory is read.
const HOLD: &str = "2s";

/// A figure, where the load tester's report has it, and what it is multiplied with for our unit.
type Found = (&'static str, &'static str, f64);

const PAIRS: [Found; 7] = [
    ("messages_per_s", "/delivered_per_s", 1.0),
    ("server_us", "/cost/cpu_us_per_message", 1.0),
    ("server_mb", "/cost/resident_bytes", 1e-6),
    ("accept_p50_us", "/accept_us/p50", 1.0),
    ("accept_p99_us", "/accept_us/p99", 1.0),
    ("delivery_p50_us", "/delivery_us/p50", 1.0),
    ("delivery_p99_us", "/delivery_us/p99", 1.0),
];
const DRAINED: [Found; 5] = [
    ("messages", "/messages", 1.0),
    ("stored_per_s", "/offline/stored_per_s", 1.0),
    ("store_server_us", "/offline/store/cpu_us_per_message", 1.0),
    ("drained_per_s", "/offline/drained_per_s", 1.0),
    ("drain_server_us", "/offline/drain/cpu_us_per_message", 1.0),
];
const IDLE: [Found; 2] = [("kb_each", "/idle/bytes_per_device", 1e-3), ("set_up_s", "/idle/set_up_s", 1.0)];

pub(super) async fn run(server: &Server, scenario: Scenario, work: &Work) -> anyhow::Result<Figures> {
    let ready = server.ready.as_ref().context("Gureum has said where it is")?;
    let duration = humantime::format_duration(work.duration).to_string().replace(' ', "");
    let numbers = [work.pairs, work.bytes, work.connections].map(|number| number.to_string());
    let [pairs, bytes, connections] = numbers.each_ref().map(String::as_str);
    let (window, rate, messages) = (work.window.to_string(), work.rate.to_string(), work.messages.to_string());
    let (arguments, found, patience): (Vec<&str>, &[Found], Duration) = match scenario {
        Scenario::Pairs => {
            let pace =
                ["pairs", "--pairs", pairs, "--window", &window, "--duration", &duration, "--sealed-size", bytes];
            (pace.to_vec(), &PAIRS, work.duration + 3 * TAIL)
        }
        Scenario::Latency => {
            let pace = ["pairs", "--pairs", pairs, "--rate", &rate, "--duration", &duration, "--sealed-size", bytes];
            (pace.to_vec(), &PAIRS, work.duration + 3 * TAIL)
        }
        Scenario::Drain => {
            let away = ["offline", "--devices", "1", "--messages", &messages, "--sealed-size", bytes];
            (away.to_vec(), &DRAINED, 2 * DRAIN)
        }
        Scenario::Idle => (vec!["idle", "--devices", connections, "--duration", HOLD], &IDLE, DRAIN),
    };
    let mut command = Command::new(work.programs.gureum.join("gureum"));
    command.args(["--json", "load"]).args(arguments).args(["--server", &ready.url]);
    command.args(["--metrics", &format!("http://{}/metrics", ready.admin)]);
    command.stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    let output = timeout(patience, command.output()).await.context("gureum load takes too long")??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "gureum load: {}", said.lines().last().unwrap_or_default());
    let report: Value = serde_json::from_slice(&output.stdout).context("the report of gureum load")?;
    let read = |(name, path, factor): &Found| {
        let value = report.pointer(path).and_then(Value::as_f64).with_context(|| format!("gureum load has no {path}"));
        anyhow::Ok((*name, value? * factor))
    };
    found.iter().map(read).collect()
}
