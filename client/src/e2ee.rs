//! Everything OpenMLS: groups, key packages, commits and messages, over a database connection that the caller owns.
//!
//! Nothing outside this module names an OpenMLS type that it does not get from here, and nothing here decides what
//! belongs to a conversation: it describes groups and commits for the rule of [`gureum_proto::membership`].

pub(crate) mod content;
mod group;
mod join;
mod provider;
mod read_packages;
pub(crate) mod seal;
mod settings;
#[cfg(test)]
mod testing;
mod typing;

pub(crate) use group::{CommitBundle, CommitError, Created, Group, MessageError, Mls, View, Wanted};
pub(crate) use join::{JoinError, StagedJoin};
pub(crate) use openmls::prelude::KeyPackage;
pub(crate) use provider::{
    RestoreError, Snapshot, forget_key_package, is_of_key_package, key_packages, last_resorts, migrate,
};
pub(crate) use read_packages::ReadPackages;

/// A step of the encryption that failed where it cannot by our rules.
#[derive(Debug, thiserror::Error)]
#[error("the encryption failed while {step}: {why}")]
pub(crate) struct MlsError {
    /// While doing what.
    pub(crate) step: &'static str,
    /// What it said.
    pub(crate) why: String,
}

/// Names the step in which an OpenMLS call failed.
fn at<E: std::fmt::Display>(step: &'static str) -> impl FnOnce(E) -> MlsError {
    move |error| MlsError { step, why: error.to_string() }
}
