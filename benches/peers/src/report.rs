//! What was measured, as tables for people and lines for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::peer::Peer;
use crate::scenario::{Figures, Scenario};

/// One peer in one scenario: the figures of its rounds.
#[derive(Debug, Default)]
struct Cell {
    rounds: Vec<Figures>,
    errors: Vec<String>,
}

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    cells: BTreeMap<(Scenario, Peer), Cell>,
}

/// A line for programs.
#[derive(Debug, Serialize)]
struct Line<'a> {
    scenario: String,
    peer: String,
    version: Option<&'a str>,
    durability: &'static str,
    /// Medians of the rounds.
    median: &'a BTreeMap<&'static str, f64>,
    /// Each median divided by Gureum's.
    to_gureum: BTreeMap<&'static str, f64>,
    rounds: &'a [Figures],
    errors: &'a [String],
}

impl Report {
    pub(crate) fn add(&mut self, scenario: Scenario, peer: Peer, result: anyhow::Result<Figures>) {
        let cell = self.cells.entry((scenario, peer)).or_default();
        match result {
            Ok(figures) => cell.rounds.push(figures),
            Err(error) => cell.errors.push(format!("{error:#}")),
        }
    }

    /// Whether something failed.
    pub(crate) fn has_errors(&self) -> bool {
        self.cells.values().any(|cell| !cell.errors.is_empty())
    }

    /// A line of JSON for each peer in each scenario.
    pub(crate) fn json(&self, versions: &BTreeMap<Peer, String>) -> anyhow::Result<String> {
        let mut text = String::new();
        for ((scenario, peer), cell) in &self.cells {
            let medians = cell.medians();
            let line = Line {
                scenario: format!("{scenario:?}").to_lowercase(),
                peer: peer.to_string(),
                version: versions.get(peer).map(String::as_str),
                durability: peer.durability(),
                to_gureum: self.ratios(*scenario, &medians),
                median: &medians,
                rounds: &cell.rounds,
                errors: &cell.errors,
            };
            text.push_str(&serde_json::to_string(&line)?);
            text.push('\n');
        }
        Ok(text)
    }

    /// A table of Markdown for each scenario; in brackets, what it is times Gureum's.
    pub(crate) fn tables(&self, versions: &BTreeMap<Peer, String>) -> String {
        let mut text = String::from("| peer | version | an accepted message |\n|---|---|---|\n");
        for (peer, version) in versions {
            text.push_str(&format!("| {peer} | {version} | {} |\n", peer.durability()));
        }
        let mut last = None;
        for ((scenario, peer), cell) in &self.cells {
            let medians = cell.medians();
            if last != Some(scenario) {
                last = Some(scenario);
                text.push_str(&self.head(*scenario));
            }
            let ratios = self.ratios(*scenario, &medians);
            text.push_str(&format!("| {peer} |"));
            for name in self.names(*scenario) {
                text.push_str(&match (medians.get(name), ratios.get(name)) {
                    (Some(value), Some(ratio)) if *peer != Peer::Gureum => {
                        format!(" {} ({ratio:.2}) |", short(*value))
                    }
                    (Some(value), _) => format!(" {} |", short(*value)),
                    (None, _) => " |".to_owned(),
                });
            }
            text.push('\n');
        }
        for ((scenario, peer), cell) in &self.cells {
            for error in &cell.errors {
                text.push_str(&format!("\n{scenario:?}, {peer}: {error}\n"));
            }
        }
        text
    }

    fn head(&self, scenario: Scenario) -> String {
        let names = self.names(scenario);
        let titles: Vec<_> = names.iter().map(|name| name.replace('_', " ")).collect();
        format!("\n{scenario:?}\n\n| peer | {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(names.len()))
    }

    /// The figures that any peer has in a scenario.
    fn names(&self, scenario: Scenario) -> Vec<&'static str> {
        let cells = self.cells.iter().filter(|((of, _), _)| *of == scenario);
        let names = cells.flat_map(|(_, cell)| &cell.rounds).flat_map(|figures| figures.keys().copied());
        names.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    fn ratios(&self, scenario: Scenario, medians: &BTreeMap<&'static str, f64>) -> BTreeMap<&'static str, f64> {
        let gureum = self.cells.get(&(scenario, Peer::Gureum)).map(Cell::medians).unwrap_or_default();
        let ratio = |(name, value): (&&'static str, &f64)| {
            gureum.get(name).filter(|base| **base > 0.0).map(|base| (*name, value / base))
        };
        medians.iter().filter_map(ratio).collect()
    }
}

impl Cell {
    fn medians(&self) -> BTreeMap<&'static str, f64> {
        let mut values: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        for (name, value) in self.rounds.iter().flatten() {
            values.entry(name).or_default().push(*value);
        }
        values.into_iter().filter_map(|(name, values)| Some((name, median(values)?))).collect()
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get(values.len().saturating_sub(1) / 2)?;
    Some((lower + upper) / 2.0)
}

/// Three digits or more, as people read them.
fn short(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_one_in_the_middle() {
        for (values, expected) in
            [(vec![], None), (vec![3.0], Some(3.0)), (vec![9.0, 1.0, 2.0], Some(2.0)), (vec![4.0, 1.0], Some(2.5))]
        {
            assert_eq!(median(values), expected);
        }
    }

    #[test]
    fn a_table_has_the_ratio_to_gureum() {
        let mut report = Report::default();
        report.add(Scenario::Pairs, Peer::Gureum, Ok(Figures::from([("messages_per_s", 200.0)])));
        report.add(Scenario::Pairs, Peer::Mosquitto, Ok(Figures::from([("messages_per_s", 50.0)])));
        report.add(Scenario::Pairs, Peer::Ejabberd, Err(anyhow::anyhow!("it ended")));
        let text = report.tables(&BTreeMap::new());
        assert!(text.contains("| gureum | 200 |\n| mosquitto | 50.0 (0.25) |"), "{text}");
        assert!(text.contains("Pairs, ejabberd: it ended"), "{text}");
        assert!(report.has_errors());
    }
}
