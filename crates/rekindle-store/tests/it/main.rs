//! Tests of the store against real disks and real servers.

#![expect(clippy::unwrap_used, reason = "a helper that cannot prepare its test has to fail it")]

mod azure;
mod clusters;
mod gcs;
mod local;
mod local_fsync;
mod memory;
mod retrying;
mod s3;
mod s3_faults;
mod support;
