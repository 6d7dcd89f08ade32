//! The use cases, over the ports of `rekindle-core`: no adapter is known here.
//!
//! Backup: plan → before hooks → begin (databases first, files last) → store ∥ → finish →
//! `Part::join` → draft → commit → report. Restore: plan → restore → check → report. Drill: the same
//! restore into a sandbox, with a stopwatch.

pub mod around;
mod backup;
mod component_run;
pub mod drill;
mod hooks;
pub mod pitr;
pub mod plan;
pub mod recover;
pub mod report;
pub mod restore;
pub mod retain;
pub mod status;
pub mod tripwire;

pub use backup::{BackupOptions, backup};
pub use plan::{BackupPlan, HookSet, Planned};
pub use tripwire::Tripwire;
