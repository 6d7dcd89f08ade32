//! The order and the honesty of a run, over small ports. Real servers are tested at the adapters
//! and at the command line.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod backup;
mod fakes;
mod history;
mod history_points;
mod recover;
mod restore;
mod retain;
mod tripwire;
#[expect(dead_code, reason = "the core's own histories use the rest")]
#[path = "../../../rekindle-core/tests/it/world.rs"]
mod world;
