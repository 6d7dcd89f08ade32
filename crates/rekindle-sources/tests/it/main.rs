//! Tests of the sources against real things.

mod files_capture;
mod files_changes;
mod files_restore;
mod files_support;
mod redis_refusals;
mod redis_round_trip;
mod redis_support;
