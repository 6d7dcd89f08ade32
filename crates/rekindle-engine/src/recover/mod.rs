//! Bringing a whole stack back: choose a point for each component, plan the steps, work them off
//! with a journal, report.

mod choose;
mod journal;
mod plan;
mod report;
mod run;

pub use choose::{Choice, Replay, Wish, choose, skew_ms, usable};
pub use journal::{Entry, Journal, Progress};
pub use plan::{Do, PLAN_VERSION, RecoveryPlan, Services, Step, steps};
pub use report::{RecoveredComponent, RecoveryReport};
pub use run::{AT_ONCE_MAX, Actor, Checks, Commands, Crew, occupied, recover};
