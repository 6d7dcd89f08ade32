//! The order and the honesty of a run, over small ports. Real servers are tested at the adapters
//! and at the command line.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod backup;
mod fakes;
mod recover;
mod restore;
mod retain;
mod tripwire;
