//! Integration tests of the repository: one binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod admin;
mod copy;
mod key_cache;
mod lease;
mod ledger;
mod lock;
mod marks;
mod read;
mod restore;
mod support;
mod verify;
mod wal;
mod write;
mod write_faults;
mod write_patched;
mod write_restic;
mod write_support;
