//! The alarm rules of the manual, evaluated as a collector would: exactly the forms of expression that the manual uses,
//! and a panic at any other. A rule's `for` is not waited for.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::admin::Admin;

/// A rule, as it stands in the manual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// When it fires.
    pub expression: String,
}

/// The rules of a manual: what stands in its blocks of YAML.
#[must_use]
pub fn rules(manual: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut is_yaml = false;
    for line in manual.lines().map(str::trim) {
        if line.starts_with("```") {
            is_yaml = line == "```yaml";
        } else if is_yaml && let Some(name) = line.strip_prefix("- alert: ") {
            let name = name.split(" #").next().unwrap_or_default().trim().to_owned();
            rules.push(Rule { name, expression: String::new() });
        } else if is_yaml && let Some(expression) = line.strip_prefix("expr: ") {
            let rule = rules.last_mut().expect("an expression belongs to a rule");
            assert_eq!(rule.expression, "", "{} has two expressions", rule.name);
            expression.clone_into(&mut rule.expression);
        } else {
            assert!(!is_yaml || line.starts_with("for: "), "{line:?} in a rule");
        }
    }
    rules
}

type Labels = BTreeMap<String, String>;

/// One value of a metric.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    labels: Labels,
    value: f64,
}

/// What a collector has of a server: one scrape after the other.
#[derive(Debug, Clone)]
pub struct Seen {
    begun: Instant,
    /// With the second of each.
    scrapes: Vec<(f64, String)>,
}

impl Seen {
    /// Nothing yet.
    #[must_use]
    pub fn nothing() -> Self {
        Self { begun: Instant::now(), scrapes: Vec::new() }
    }

    /// Two scrapes that were made so many seconds apart.
    #[must_use]
    pub fn two(first: &str, seconds: f64, second: &str) -> Self {
        Self { scrapes: vec![(0.0, first.to_owned()), (seconds, second.to_owned())], ..Self::nothing() }
    }

    /// Scrapes once. The collector adds a metric of its own that says whether there was an answer.
    pub fn look(&mut self, admin: Admin) {
        let (up, text) = admin.try_get("/metrics").map_or((0, String::new()), |(_, text)| (1, text));
        self.scrapes.push((self.begun.elapsed().as_secs_f64(), format!("{text}\nup{{job=\"gureum\"}} {up}\n")));
    }

    /// The rules of these that fire now.
    #[must_use]
    pub fn firing(&self, rules: &[Rule]) -> Vec<String> {
        rules.iter().filter(|rule| self.fires(&rule.expression)).map(|rule| rule.name.clone()).collect()
    }

    /// Whether an expression has a value now.
    ///
    /// # Panics
    /// It is of a form that is not known here.
    #[must_use]
    pub fn fires(&self, expression: &str) -> bool {
        let mut parser = Parser { seen: self, whole: expression, rest: expression };
        let found = parser.any();
        parser.end();
        !found.is_empty()
    }

    fn now(&self) -> f64 {
        self.scrapes.last().expect("there is a scrape").0
    }

    /// The values of a metric in the last so many seconds, oldest first, by series; `None`: in the last scrape alone.
    fn series(&self, name: &str, labels: &Labels, window: Option<f64>) -> Vec<(Labels, Vec<f64>)> {
        let mut found: Vec<(Labels, Vec<f64>)> = Vec::new();
        let from = self.now() - window.unwrap_or_default();
        for (_, text) in self.scrapes.iter().filter(|(at, _)| *at >= from) {
            for (of, value) in text.lines().filter_map(|line| sample(line, name)) {
                if labels.iter().all(|(label, wanted)| of.get(label) == Some(wanted)) {
                    match found.iter_mut().find(|(labels, _)| *labels == of) {
                        Some((_, values)) => values.push(value),
                        None => found.push((of, vec![value])),
                    }
                }
            }
        }
        found
    }
}

/// A line of a scrape, if it is of this metric.
fn sample(line: &str, name: &str) -> Option<(Labels, f64)> {
    let rest = line.strip_prefix(name)?;
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.split_once("} ")?,
        None => ("", rest.strip_prefix(' ')?),
    };
    Some((read_labels(labels), value.parse().unwrap()))
}

fn read_labels(text: &str) -> Labels {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once("=\"").expect("a label is equal to something");
        (name.trim().to_owned(), value.strip_suffix('"').expect("a label's value is quoted").to_owned())
    };
    text.split(',').filter(|text| !text.is_empty()).map(pair).collect()
}

/// What a part of an expression is.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(f64),
    Samples(Vec<Sample>),
}

/// Reads an expression and computes it as it goes:
/// `any = compared ("or" compared)*`, `compared = sum ("=="|">"|"<") sum`, `sum = product ("+" product)*`, `product = atom ("*" atom)*`.
struct Parser<'a> {
    seen: &'a Seen,
    whole: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Vec<Sample> {
        let mut found = self.compared();
        while self.takes("or ") {
            found.extend(self.compared());
        }
        found
    }

    fn compared(&mut self) -> Vec<Sample> {
        let left = self.sum();
        let holds: fn(f64, f64) -> bool = match () {
            () if self.takes("==") => |left, right| (left - right).abs() < f64::EPSILON,
            () if self.takes(">") => |left, right| left > right,
            () if self.takes("<") => |left, right| left < right,
            () => self.fail("no comparison"),
        };
        let right = self.sum();
        let Value::Samples(left) = left else { self.fail("nothing to compare") };
        left.into_iter()
            .filter(|sample| match &right {
                Value::Number(right) => holds(sample.value, *right),
                Value::Samples(right) => {
                    right.iter().any(|other| other.labels == sample.labels && holds(sample.value, other.value))
                }
            })
            .collect()
    }

    fn sum(&mut self) -> Value {
        let mut left = self.product();
        while self.takes("+") {
            let right = self.product();
            left = self.combine(left, right, |left, right| left + right);
        }
        left
    }

    fn product(&mut self) -> Value {
        let mut left = self.atom();
        while self.takes("*") {
            let right = self.atom();
            left = self.combine(left, right, |left, right| left * right);
        }
        left
    }

    fn combine(&self, left: Value, right: Value, by: fn(f64, f64) -> f64) -> Value {
        match (left, right) {
            (Value::Number(left), Value::Number(right)) => Value::Number(by(left, right)),
            (Value::Samples(samples), Value::Number(number)) | (Value::Number(number), Value::Samples(samples)) => {
                let by_number = |sample: Sample| Sample { value: by(sample.value, number), ..sample };
                Value::Samples(samples.into_iter().map(by_number).collect())
            }
            (Value::Samples(_), Value::Samples(_)) => self.fail("two metrics in one sum"),
        }
    }

    fn atom(&mut self) -> Value {
        if self.rest.starts_with(|letter: char| letter.is_ascii_digit()) {
            return Value::Number(self.number());
        }
        let name = self.word();
        if !self.takes("(") {
            let (labels, window) = self.selector();
            assert!(window.is_none(), "{}: a window outside of a function", self.whole);
            let last = self.seen.series(name, &labels, None).into_iter();
            return Value::Samples(last.map(|(labels, values)| Sample { labels, value: values[0] }).collect());
        }
        let samples = match name {
            "histogram_quantile" => {
                let quantile = self.number();
                self.must_take(",");
                let Value::Samples(buckets) = self.atom() else { self.fail("a quantile of a number") };
                quantile_of(quantile, buckets)
            }
            _ => self.over_window(name),
        };
        self.must_take(")");
        Value::Samples(samples)
    }

    /// What a function makes of a metric's values in a window.
    fn over_window(&mut self, function: &str) -> Vec<Sample> {
        // Whether or not there is anything to compute it of.
        let value: fn(&[f64], f64) -> Option<f64> = match function {
            "increase" => |values, _| increase(values),
            "rate" => |values, seconds| increase(values).map(|increase| increase / seconds),
            "min_over_time" => |values, _| values.iter().copied().reduce(f64::min),
            "avg_over_time" => |values, _| {
                let count = values.iter().map(|_| 1.0).sum::<f64>();
                Some(values.iter().sum::<f64>() / count)
            },
            _ => self.fail("an unknown function"),
        };
        let name = self.word();
        let (labels, window) = self.selector();
        let Some(window) = window else { self.fail("no window") };
        let series = self.seen.series(name, &labels, Some(window)).into_iter();
        series.filter_map(|(labels, values)| Some(Sample { labels, value: value(&values, window)? })).collect()
    }

    /// Labels in braces and a window in brackets, of which either may be missing.
    fn selector(&mut self) -> (Labels, Option<f64>) {
        let labels = if self.takes("{") { read_labels(self.up_to('}')) } else { Labels::new() };
        let window = self.takes("[").then(|| self.up_to(']'));
        let seconds = window.map(|text| humantime::parse_duration(text).expect("a window is a time").as_secs_f64());
        (labels, seconds)
    }

    fn number(&mut self) -> f64 {
        let is_part = |letter: char| letter.is_ascii_digit() || letter == '.' || letter == 'e';
        self.while_part(is_part).parse().unwrap_or_else(|_| self.fail("no number"))
    }

    fn word(&mut self) -> &'a str {
        let word = self.while_part(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        if word.is_empty() { self.fail("no name") } else { word }
    }

    fn while_part(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|letter| !is_part(letter)).unwrap_or(self.rest.len());
        let (found, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        found
    }

    fn up_to(&mut self, end: char) -> &'a str {
        let Some((found, rest)) = self.rest.split_once(end) else { self.fail("an open bracket") };
        self.rest = rest.trim_start();
        found
    }

    fn takes(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.map_or(self.rest, str::trim_start);
        rest.is_some()
    }

    fn must_take(&mut self, text: &str) {
        if !self.takes(text) {
            self.fail("something is missing");
        }
    }

    fn end(&self) {
        if !self.rest.is_empty() {
            self.fail("more than is known here");
        }
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{what} in {:?} at {:?}", self.whole, self.rest)
    }
}

/// By how much a counter grew, from its first value in the window on. One that fell began anew; one that was not there
/// at first did not grow, however high it began.
fn increase(values: &[f64]) -> Option<f64> {
    let step = |pair: &[f64]| if pair[1] < pair[0] { pair[1] } else { pair[1] - pair[0] };
    (values.len() > 1).then(|| values.windows(2).map(step).sum())
}

/// The quantile of a histogram, as evenly as values may lie in their bucket; in the last one, its lower bound.
fn quantile_of(quantile: f64, buckets: Vec<Sample>) -> Vec<Sample> {
    let bound = |sample: &Sample| sample.labels["le"].replace("+Inf", "inf").parse::<f64>().unwrap();
    let mut buckets: Vec<(f64, f64)> = buckets.iter().map(|sample| (bound(sample), sample.value)).collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    let Some((_, all)) = buckets.last().copied().filter(|(_, all)| *all > 0.0) else { return Vec::new() };
    let rank = quantile * all;
    let at = buckets.iter().position(|(_, below)| *below >= rank).expect("the last bucket holds all");
    let (from, before) = at.checked_sub(1).map_or((0.0, 0.0), |before| buckets[before]);
    let (to, below) = buckets[at];
    let value = if to.is_finite() { from + (to - from) * (rank - before) / (below - before) } else { from };
    vec![Sample { labels: Labels::new(), value }]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "# HELP a what\na 1\nb{of=\"x\"} 5\nb{of=\"y\"} 0\nt_bucket{le=\"1\"} 0\nt_bucket{le=\"2\"} 0\nt_bucket{le=\"+Inf\"} 0\n";
    const SECOND: &str = "a 3\nb{of=\"x\"} 5\nb{of=\"y\"} 2\nnew 9\nt_bucket{le=\"1\"} 0\nt_bucket{le=\"2\"} 100\nt_bucket{le=\"+Inf\"} 100\n";

    #[track_caller]
    fn check(expression: &str, expected: bool) {
        assert_eq!(Seen::two(FIRST, 30.0, SECOND).fires(expression), expected, "{expression}");
    }

    #[test]
    fn expressions_are_what_a_collector_makes_of_them() {
        check("a == 3", true);
        check("a > 1 + 2", false);
        check("a > 1.5 + 2 * 0.5", true);
        check("a > 0.5 * a + 1", true);
        check("b{of=\"x\"} < 5", false);
        check("b > 4", true);
        check("none == 0", false);
        check("none > 0 or a > 2", true);
        check("increase(b{of=\"y\"}[1m]) > 1", true);
        check("increase(b{of=\"x\"}[1m]) > 0", false);
        check("increase(b{of=\"y\"}[10s]) > 0", false);
        check("rate(b{of=\"y\"}[10m]) > 0.003", true);
        check("rate(b{of=\"y\"}[10m]) > 0.004", false);
        check("min_over_time(a[1m]) == 1", true);
        check("avg_over_time(a[1m]) < 2.1", true);
        check("histogram_quantile(0.99, rate(t_bucket[1m])) > 1.98", true);
        check("histogram_quantile(0.99, rate(t_bucket[1m])) > 1.995", false);
    }

    #[test]
    fn a_counter_that_begins_with_its_first_event_shows_no_increase() {
        check("increase(new[1m]) > 0", false);
    }

    #[test]
    fn a_counter_that_began_anew_grew_from_zero() {
        assert!(Seen::two("c 7\n", 30.0, "c 2\n").fires("increase(c[1m]) > 1"));
        assert!(!Seen::two("c 7\n", 30.0, "c 2\n").fires("increase(c[1m]) > 2"));
    }

    #[test]
    fn a_quantile_beyond_the_last_bound_is_that_bound() {
        let first = "t_bucket{le=\"300\"} 0\nt_bucket{le=\"+Inf\"} 0\n";
        let seen = Seen::two(first, 30.0, "t_bucket{le=\"300\"} 0\nt_bucket{le=\"+Inf\"} 9\n");
        assert!(!seen.fires("histogram_quantile(0.99, rate(t_bucket[1m])) > 300"));
        assert!(seen.fires("histogram_quantile(0.99, rate(t_bucket[1m])) > 299"));
    }

    #[test]
    #[should_panic(expected = "an unknown function")]
    fn an_unknown_function_is_not_guessed() {
        check("delta(none[1m]) > 0", true);
    }

    #[test]
    #[should_panic(expected = "more than is known here")]
    fn an_unknown_operator_is_not_guessed() {
        check("a > 1 and a > 2", true);
    }

    #[test]
    #[should_panic(expected = "no comparison")]
    fn a_rule_that_compares_nothing_is_not_guessed() {
        check("a - 1", true);
    }

    #[test]
    fn rules_are_read_from_blocks_of_yaml_alone() {
        let manual = "x\n```yaml\n- alert: One   # why\n  expr: a > 1\n  for: 6h\n```\n```toml\n- alert: no\n```\n";
        assert_eq!(rules(manual), [Rule { name: "One".into(), expression: "a > 1".into() }]);
    }
}
