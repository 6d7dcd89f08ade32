//! Tests of the sources against real things.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod files_capture;
mod files_changes;
mod files_restore;
mod files_support;
mod memory_part;
mod postgres_kinds;
mod postgres_receiver;
mod postgres_recovery;
mod postgres_refusals;
mod postgres_replication;
mod postgres_round_trip;
mod postgres_support;
mod recovery_support;
mod redis_refusals;
mod redis_round_trip;
mod redis_support;
mod roll_back;
