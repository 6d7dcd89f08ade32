//! Making and tending a repository: keys, forgetting, pruning.
//!
//! What deletes or rewrites packs is done by `rustic_core` (years of use) behind our own strict
//! store adapter and our own guards; keys are our own, as they are small and must be two-phase.

mod backend;
mod engine;
mod forget;
mod init;
mod keys;
mod password;
mod prune;
mod run;

pub(crate) use forget::finish;
pub use forget::{Actor, forget, forget_by};
pub use init::{init, init_copy};
pub use keys::{KeyInfo, KeyLabel, key_add, key_ids, key_list, key_passwd, key_remove};
pub use password::check_password;
pub use prune::{PruneOptions, PruneReport, prune};
