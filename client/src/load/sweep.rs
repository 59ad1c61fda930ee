//! The rates of a sweep: the same load at each of them, one after the other.

use std::str::FromStr;

use crate::limits::{LOAD_RATE_MAX, LOAD_RATES_MAX};

/// Rates in messages a second, from the lowest to the highest, as in `1000,2000,5000`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates(Vec<f64>);

/// Why a list of rates is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RatesError {
    /// One of them is no rate.
    #[error("{0:?} is no rate: write numbers above 0 and up to {LOAD_RATE_MAX}, as in 1000,2000,5000")]
    Rate(String),
    /// A rate is not above the one before.
    #[error("write the rates from the lowest to the highest, each once")]
    Order,
    /// Too many of them.
    #[error("at most {LOAD_RATES_MAX} rates fit into one sweep")]
    Number,
}

impl FromStr for Rates {
    type Err = RatesError;

    fn from_str(text: &str) -> Result<Self, RatesError> {
        let rates: Vec<f64> = text.split(',').take(LOAD_RATES_MAX + 1).map(rate).collect::<Result<_, RatesError>>()?;
        if rates.len() > LOAD_RATES_MAX {
            return Err(RatesError::Number);
        }
        // A server that still works off what came too fast would be measured as slow at the next rate.
        if rates.is_sorted_by(|one, next| one < next) { Ok(Self(rates)) } else { Err(RatesError::Order) }
    }
}

fn rate(text: &str) -> Result<f64, RatesError> {
    let rate = text.trim().parse::<f64>().ok().filter(|rate| *rate > 0.0 && *rate <= LOAD_RATE_MAX);
    rate.ok_or_else(|| RatesError::Rate(text.to_owned()))
}

impl Rates {
    /// All of them, at least one.
    #[must_use]
    pub fn all(&self) -> &[f64] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_from_the_lowest_to_the_highest() {
        let rates: Rates = "1000, 2000,5000.5".parse().unwrap();
        assert_eq!(rates.all(), [1_000.0, 2_000.0, 5_000.5]);
        assert_eq!("7".parse::<Rates>().unwrap().all(), [7.0]);
    }

    #[test]
    fn what_is_no_sweep_is_refused_with_what_to_write() {
        let too_many: Vec<String> = (1..=LOAD_RATES_MAX + 1).map(|rate| rate.to_string()).collect();
        let too_many = too_many.join(",");
        for (text, expected) in [
            ("", "as in 1000,2000,5000"),
            ("1000,", "as in 1000,2000,5000"),
            ("1000;2000", "as in 1000,2000,5000"),
            ("0,1000", "above 0"),
            ("NaN", "above 0"),
            ("inf", "up to"),
            ("2000,1000", "from the lowest"),
            ("1000,1000", "each once"),
            (too_many.as_str(), "at most"),
        ] {
            let error = text.parse::<Rates>().unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
    }
}
