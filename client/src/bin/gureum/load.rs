//! `gureum load`: loads a server, shows how it goes, and ends with what was measured.

use std::io::IsTerminal;

use gureum_client::load::{
    Cost, Latency, LoadOptions, LoadPace, LoadReport, Over, PlotFile, Point, Progress, Standing, run as run_load,
};
use serde::Serialize;

use crate::args::LoadArgs;
use crate::output::{Output, printable};
use crate::signal::Interrupt;

#[derive(Serialize)]
struct Report<'a> {
    event: &'static str,
    #[serde(flatten)]
    report: &'a LoadReport,
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
    let (plot, rates) = (args.plot(), args.rates());
    let options = args.options();
    let mut reports = Vec::new();
    if rates.is_empty() {
        reports.push(once(output, options).await?);
    } else {
        for rate in &rates {
            reports.push(once(output, LoadOptions { pace: LoadPace::Rate(*rate), ..options.clone() }).await?);
        }
    }
    if let Some(plot) = plot {
        draw(&plot, &rates, &reports)?;
    }
    match reports.iter().find_map(LoadReport::fault) {
        None => Ok(()),
        Some(fault) => Err(anyhow::anyhow!("not everything came about: {fault}")),
    }
}

async fn once(output: Output, options: LoadOptions) -> anyhow::Result<LoadReport> {
    let live = std::io::stderr().is_terminal();
    let report = Box::pin(run_load(options, |progress| show(progress, live))).await;
    if live {
        eprintln!();
    }
    let report = report?;
    if output.json {
        output.print_json(&Report { event: "load", report: &report })?;
    } else {
        output.print(&text(&report))?;
    }
    for error in &report.errors {
        eprintln!("gureum: {}", printable(error));
    }
    Ok(report)
}

/// The seconds of one run, or the rates of several.
fn draw(plot: &PlotFile, rates: &[f64], reports: &[LoadReport]) -> anyhow::Result<()> {
    let Some(report) = reports.last() else { return Ok(()) };
    let title = format!("delivery latency\n{}", headline(report));
    if rates.is_empty() {
        let points: Vec<_> = report.series.iter().map(|moment| Point::new(moment.at_s, &moment.delivery_us)).collect();
        plot.draw(&title, Over::Time, &points)?;
    } else {
        let points = rates.iter().zip(reports).map(|(rate, report)| Point::new(*rate, &report.delivery_us));
        plot.draw(&title, Over::Rate, &points.collect::<Vec<_>>())?;
    }
    eprintln!("gureum: drawn in {}", plot.path().display());
    Ok(())
}

/// One line that is written over on a terminal, else a line for each step that is done and for each second.
fn show(progress: &Progress, live: bool) {
    let line = match progress {
        Progress::SetUp { done, of, .. } if !live && done < of => return,
        Progress::SetUp { what, done, of } => format!("{done} of {of} {what}"),
        Progress::Second(standing) => second(standing),
        Progress::Say(text) if live => {
            eprintln!("\r\x1b[2Kgureum: {}", printable(text));
            return;
        }
        Progress::Say(text) => format!("gureum: {}", printable(text)),
    };
    if live { eprint!("\r\x1b[2K{line}") } else { eprintln!("{line}") }
}

fn second(standing: &Standing) -> String {
    format!(
        "{:4.0} s  accepted {:>8}/s  delivered {:>8}/s  accept p50 {} p99 {}  delivery p50 {} p99 {}  refused {}",
        standing.elapsed.as_secs_f64(),
        standing.accepted_since,
        standing.delivered_since,
        time(standing.accept_us.p50),
        time(standing.accept_us.p99),
        time(standing.delivery_us.p50),
        time(standing.delivery_us.p99),
        standing.refused,
    )
}

fn text(report: &LoadReport) -> String {
    let mut lines = vec![headline(report)];
    if report.sent > 0 {
        lines.extend(traffic(report));
    }
    lines.extend(particulars(report));
    lines.push(match &report.cost {
        Some(cost) => format!("server      {}", spent(cost, "delivered message")),
        None => "server      its cost is not known; --metrics http://ADDRESS:PORT/metrics tells it".to_owned(),
    });
    lines.join("\n")
}

fn headline(report: &LoadReport) -> String {
    let setting = &report.setting;
    let counts = [
        (setting.people, "people"),
        (setting.groups, "groups"),
        (setting.members, "accounts a group"),
        (setting.connected, "connected of each"),
        (setting.devices, "devices"),
        (setting.pairs, "pairs"),
    ];
    let mut parts: Vec<_> =
        counts.iter().filter_map(|(count, what)| count.map(|count| format!("{count} {what}"))).collect();
    if let Some(bytes) = setting.body_bytes {
        let opaque = if setting.sealed == Some(true) { " (opaque)" } else { "" };
        parts.push(format!("{bytes} bytes a message{opaque}"));
    }
    format!("{}: {}, {:.1} s", setting.scenario, parts.join(", "), report.total_s)
}

fn traffic(report: &LoadReport) -> Vec<String> {
    let refused: u64 = report.refused.values().sum();
    let mut lines = vec![
        format!(
            "sent {}  accepted {} ({:.0}/s)  delivered {} ({:.0}/s)  refused {refused}  unanswered {}  missing {}",
            report.sent,
            report.accepted,
            report.accepted_per_s,
            report.delivered,
            report.delivered_per_s,
            report.unanswered,
            report.missing,
        ),
        row("accept", &report.accept_us),
        row("delivery", &report.delivery_us),
    ];
    lines.extend(report.send_lateness_us.as_ref().map(|lateness| row("sent late", lateness)));
    if report.unsent > 0 {
        lines.push(format!(
            "due at the end and not sent any more: {}; many of them mean that the rate is too high",
            report.unsent
        ));
    }
    if report.caught_up > 0 {
        lines.push(row("catch up", &report.catch_up_us));
    }
    if report.receipts + report.reconnects > 0 {
        let (caught_up, receipts, reconnects) = (report.caught_up, report.receipts, report.reconnects);
        lines.push(format!("receipts {receipts}  connected again {reconnects}  caught up {caught_up}"));
    }
    lines
}

/// What belongs to one scenario alone.
fn particulars(report: &LoadReport) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(fanout) = &report.fanout {
        let cpu = fanout.cpu_us_per_inbox.map(|us| format!(", {us} µs of the server's CPU each")).unwrap_or_default();
        lines.push(format!("inboxes     {}{cpu}", fanout.inboxes));
    }
    if let Some(offline) = &report.offline {
        let (store, drain) = (offline.store.as_ref(), offline.drain.as_ref());
        for (name, seconds, rate, cost) in [
            ("stored", offline.stored_s, offline.stored_per_s, store),
            ("drained", offline.drained_s, offline.drained_per_s, drain),
        ] {
            let cost = cost.map(|cost| format!("; {}", spent(cost, "message"))).unwrap_or_default();
            lines.push(format!("{name:<10}  {seconds:.2} s, {rate:.0}/s{cost}"));
        }
    }
    if let Some(idle) = &report.idle {
        let each = idle.bytes_per_device.map(|bytes| format!(", {bytes:.0} bytes of the server's memory each"));
        let each = each.unwrap_or_default();
        let (held, of) = (idle.held, report.setting.devices.unwrap_or_default());
        lines.push(format!(
            "{held} of {of} devices held for {:.0} s, made in {:.1} s{each}",
            idle.held_s, idle.set_up_s
        ));
    }
    if let Some(storm) = &report.storm {
        let of = report.setting.devices.unwrap_or_default();
        lines.push(format!(
            "{} of {of} devices subscribed again within {:.2} s of the server's answer; it was away for {:.2} s, {} attempts \
             failed",
            storm.subscribed, storm.all_subscribed_s, storm.down_s, storm.attempts_failed
        ));
        lines.extend(storm.errors.iter().map(|(error, count)| format!("  {count} × {}", printable(error))));
        lines.push(row("subscribed", &storm.subscribed_us));
        lines.push(row("before", &storm.before_us));
        lines.push(row("during", &storm.during_us));
        lines.push(row("late then", &storm.during_lateness_us));
    }
    lines
}

fn row(name: &str, latency: &Latency) -> String {
    format!(
        "{name:<10}  p50 {:>9}  p90 {:>9}  p99 {:>9}  p99.9 {:>9}  max {:>9}",
        time(latency.p50),
        time(latency.p90),
        time(latency.p99),
        time(latency.p999),
        time(latency.max)
    )
}

fn spent(cost: &Cost, each: &str) -> String {
    let per = cost.cpu_us_per_message.map(|us| format!(" ({us} µs a {each})")).unwrap_or_default();
    format!(
        "{:.2} s of CPU{per}, {:.1} MB of memory, {:.1} MB before",
        cost.cpu_s,
        cost.resident_bytes / 1e6,
        cost.resident_bytes_before / 1e6
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
