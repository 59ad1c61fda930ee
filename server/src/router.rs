//! The router: everything that changes the store goes through its one writer, which plans a batch, makes it durable,
//! and only then answers and wakes.

mod plan;
#[cfg(feature = "node")]
mod submit;

pub(crate) use plan::counts;
pub use plan::{
    Change, Changed, ClaimPlan, CodePlan, CommitPlan, CreatePlan, KeyPackagesPlan, LeavePlan, LogPlan, Op,
    PhoneChangePlan, PhonePlan, Plan, PlanConfig, Planner, PushTargetPlan, RegisterPlan, Seal,
};
#[cfg(feature = "node")]
pub(crate) use submit::{Answers, Router, RouterParts, Submission, WriterEnd};
