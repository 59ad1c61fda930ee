//! Push services and an SMS gateway on this machine: they speak the real protocols over TLS, and fail as they are told.

pub mod apns;
pub mod fcm;
mod jwt;
mod service;
pub mod sms;
pub mod tls;
pub mod web;

pub use apns::Apns;
pub use fcm::Fcm;
pub use service::{Act, Reply, Seen, Service};
pub use sms::Gateway;
pub use tls::Authority;
pub use web::Distributor;
