//! Tests of the store against real disks and real servers.

mod azure;
mod gcs;
mod local;
mod memory;
mod retrying;
mod s3;
mod s3_faults;
mod support;
