//! The whole system in one process, on a seeded network, virtual time and a faulty disk, checked against a model.
//!
//! Client and server are the real ones, and so is QUIC between them; simulated is what is under them: sockets ([`net`]),
//! clocks ([`clock`]), the disk (the server's `SimDisk`, which also audits what is written), the way from the writer to
//! the sessions ([`wake`]), and push services ([`push`]). What the server writes goes into a [`ledger`] that the model judges by. Everything runs as tasks
//! of one thread under tokio's paused clock, which jumps to the next timer when there is nothing to do, so that a night
//! without news costs almost nothing. All decisions come from the seed. Bytes of ciphertexts do not, and nothing depends on
//! them.
//!
//! To make a new capability part of it:
//!
//! - what people do with it, and what can go wrong with it, becomes a kind in [`faults::Happening`], and an arm of
//!   `World::act`; what lasts a while ends by a `Due`. A fault is one of those that seeds must bring about
//!   (`Happening::musts`), so that a dozen runs see it;
//! - what must hold becomes a rule: checked at once where it can be seen at once (`Model::told`, `World::look`), or else
//!   one of the open questions of `model::balance`, of which none may be left at the end;
//! - a bug that it finds becomes a small test beside the code that was wrong;
//! - a rule is worth what it finds: a bug that breaks it becomes a [`Sabotage`], with its line in `sabotage::CASES` (the
//!   rule that must find it, and the life in which it shows) and in the table of docs/reliability.md. It stands in what the
//!   simulation puts under the product, never in the product: `sabotage::store` for what is written and read, and so on. What
//!   the auditor must not see is done to what is read. `simulate --sabotage NAME --seed N --days 1 --verbose` shows it.

pub mod clock;
pub mod faults;
pub mod installation;
pub mod journal;
pub mod ledger;
pub mod model;
pub mod net;
pub mod person;
pub mod push;
pub mod sabotage;
pub mod server;
pub mod wake;
pub mod world;

pub use journal::{Journal, Violation};
pub use sabotage::Sabotage;
pub use world::{Options, Summary, World};
