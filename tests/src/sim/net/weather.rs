//! How datagrams fare: the chances of each mishap, and how long the way takes.

/// The state of a network, the same for all ways.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weather {
    /// The shortest and the longest way, in milliseconds.
    pub delay_ms: (u64, u64),
    /// The chance that a datagram takes much longer, and is overtaken.
    pub straggling: f64,
    /// How much longer at most, in milliseconds.
    pub straggler_ms: u64,
    /// The chance that it is lost.
    pub loss: f64,
    /// The chance that it arrives twice.
    pub doubling: f64,
    /// The chance that its end is missing.
    pub cutting: f64,
    /// The chance that a bit is wrong.
    pub spoiling: f64,
}

impl Weather {
    /// A good line.
    #[must_use]
    pub const fn fine() -> Self {
        Self {
            delay_ms: (5, 25),
            straggling: 0.0,
            straggler_ms: 0,
            loss: 0.0,
            doubling: 0.0,
            cutting: 0.0,
            spoiling: 0.0,
        }
    }

    /// A train: some of everything.
    #[must_use]
    pub const fn changeable() -> Self {
        Self {
            delay_ms: (20, 120),
            straggling: 0.05,
            straggler_ms: 800,
            loss: 0.03,
            doubling: 0.02,
            cutting: 0.005,
            spoiling: 0.005,
        }
    }

    /// A tunnel: a fifth is lost and hardly anything comes in order.
    #[must_use]
    pub const fn foul() -> Self {
        Self {
            delay_ms: (50, 600),
            straggling: 0.2,
            straggler_ms: 3_000,
            loss: 0.2,
            doubling: 0.1,
            cutting: 0.03,
            spoiling: 0.03,
        }
    }

    /// Nothing arrives.
    #[must_use]
    pub const fn out() -> Self {
        Self { loss: 1.0, ..Self::fine() }
    }
}
