//! What a message costs as everything grows: with the number of connections, with what is stored already, and over the days
//! in which the store throws away as much as it takes in.
//!
//! The first two load a server of its own for each run, the last is the server's store without its network, under a clock
//! that is moved by hand. What that comes to for a given number of devices is arithmetic.

pub mod amplification;
pub mod files;
pub mod fill;
pub mod machine;
pub mod model;
pub mod people;
pub mod report;
pub mod rounds;
