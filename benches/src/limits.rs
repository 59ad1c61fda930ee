//! What Gureum costs beside the parts that it cannot do without: the same load on the bare transport, the same writes to the
//! bare database, and on Gureum, one after the other on one machine.
//!
//! Both parts have the server's own settings, and run in processes of their own, whose processor time is read from outside
//! or is counted without what stands in for the load.

pub mod bare_store;
pub mod clients;
pub mod echo;
pub mod gureum;
pub mod metrics;
pub mod process;
pub mod report;
pub mod rounds;
pub mod shape;
pub mod used;
pub mod writes;

use serde::{Deserialize, Serialize};

/// What was done in some time, and what it cost whoever serves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Messages that came through.
    pub messages: u64,
    /// Processor time of all threads, in seconds.
    pub cpu_s: f64,
    /// How long it took.
    pub wall_s: f64,
}

impl Measured {
    /// Processor time of one message, in microseconds.
    #[must_use]
    pub fn cpu_us(&self) -> f64 {
        if self.messages == 0 { 0.0 } else { self.cpu_s * 1e6 / self.messages as f64 }
    }

    /// Messages a second.
    #[must_use]
    pub fn per_s(&self) -> f64 {
        if self.wall_s > 0.0 { self.messages as f64 / self.wall_s } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_costs_its_part_of_the_time() {
        let measured = Measured { messages: 2_000, cpu_s: 0.01, wall_s: 4.0 };
        assert!((measured.cpu_us() - 5.0).abs() < 1e-9);
        assert!((measured.per_s() - 500.0).abs() < 1e-9);
        let nothing = Measured { messages: 0, cpu_s: 1.0, wall_s: 0.0 };
        assert_eq!((nothing.cpu_us(), nothing.per_s()), (0.0, 0.0));
    }
}
