//! `gureum load`: loads a server, shows how it goes, and ends with what was measured.

use std::io::IsTerminal;

use gureum_client::load::{
    IdleOptions, Latency, LoadBody, LoadOptions, LoadPace, LoadReport, Progress, run as run_load, run_idle,
};
use serde::Serialize;

use crate::args::LoadArgs;
use crate::output::{Output, printable};
use crate::signal::Interrupt;

#[derive(Serialize)]
struct Report<'a, T> {
    event: &'static str,
    #[serde(flatten)]
    report: &'a T,
}

pub(crate) async fn run(output: Output, args: LoadArgs) -> anyhow::Result<()> {
    let mut interrupt = Interrupt::listen()?;
    tokio::select! {
        biased;
        () = interrupt.wait() => {
            eprintln!("gureum: interrupted; nothing is reported");
            Ok(())
        }
        result = Box::pin(measure(output, args)) => result,
    }
}

async fn measure(output: Output, args: LoadArgs) -> anyhow::Result<()> {
    if let Some(connections) = args.idle {
        let options = IdleOptions { server: args.server, connections, duration: args.duration };
        let report = Box::pin(run_idle(options, |made| eprintln!("{made} of {connections} connections"))).await?;
        if output.json {
            return output.print_json(&Report { event: "idle", report: &report });
        }
        let text = format!(
            "{} of {} connections held for {:.0} s, made in {:.1} s",
            report.held, report.connections, report.held_s, report.set_up_s
        );
        return Ok(output.print(&text)?);
    }
    let options = LoadOptions {
        server: args.server,
        pairs: args.pairs,
        pace: args.rate.map_or(LoadPace::Window(args.window), LoadPace::Rate),
        duration: args.duration,
        body: args.sealed_size.map_or(LoadBody::Text(args.size), LoadBody::Sealed),
    };
    eprintln!("gureum: setting up {} pairs", options.pairs);
    let live = std::io::stderr().is_terminal();
    let report = Box::pin(run_load(options, |progress| show(progress, live))).await?;
    if live {
        eprintln!();
    }
    if output.json {
        output.print_json(&Report { event: "load", report: &report })?;
    } else {
        output.print(&text(&report))?;
    }
    for error in &report.errors {
        eprintln!("gureum: {}", printable(error));
    }
    anyhow::ensure!(report.errors.is_empty(), "{} pairs ended early", report.errors.len());
    Ok(())
}

fn show(progress: &Progress, live: bool) {
    let line = format!(
        "{:4.0} s  accepted {:>8}/s  delivered {:>8}/s  accept p50 {} p99 {}  delivery p50 {} p99 {}  refused {}",
        progress.elapsed.as_secs_f64(),
        progress.accepted_since,
        progress.delivered_since,
        time(progress.accept_us.p50),
        time(progress.accept_us.p99),
        time(progress.delivery_us.p50),
        time(progress.delivery_us.p99),
        progress.refused,
    );
    if live { eprint!("\r\x1b[2K{line}") } else { eprintln!("{line}") }
}

fn text(report: &LoadReport) -> String {
    let row = |name: &str, latency: &Latency| {
        format!(
            "{name:<10}  p50 {:>9}  p90 {:>9}  p99 {:>9}  p99.9 {:>9}  max {:>9}",
            time(latency.p50),
            time(latency.p90),
            time(latency.p99),
            time(latency.p999),
            time(latency.max)
        )
    };
    let refused: u64 = report.refused.values().sum();
    format!(
        "{} pairs, {} bytes a message{}, {:.1} s\n\
         sent {}  accepted {} ({:.0}/s)  delivered {} ({:.0}/s)  refused {refused}  unanswered {}  missing {}\n{}\n{}",
        report.pairs,
        report.body_bytes,
        if report.sealed { " (opaque)" } else { "" },
        report.total_s,
        report.sent,
        report.accepted,
        report.accepted_per_s,
        report.delivered,
        report.delivered_per_s,
        report.unanswered,
        report.missing,
        row("accept", &report.accept_us),
        row("delivery", &report.delivery_us),
    )
}

/// Microseconds as people read them.
fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_fits() {
        for (us, expected) in [(7, "7 µs"), (1_250, "1.2 ms"), (2_340_000, "2.3 s")] {
            assert_eq!(time(us), expected);
        }
    }
}
