//! Recovery to a moment: from base backups, what the WAL log holds, and a target, to a plan or to
//! an exact refusal.
//!
//! PostgreSQL itself does not refuse enough: at a hole in its log it silently stops and promotes,
//! and a target before the end of the base backup is passed over. So everything is decided here,
//! before anything is copied.

mod chain;
mod plan;
mod refusal;
mod target;
mod time;
mod window;

pub use chain::{Chain, End, Leg};
pub use plan::{BasePoint, ClusterLog, Ends, Found, LogEyes, Moment, RecoveryPlan, Unplanned, plan};
pub use refusal::Refusal;
pub use target::{BadTarget, RecoveryTarget, Stop, TimelineChoice};
pub use time::parse_moment;
pub use window::{Window, windows};
