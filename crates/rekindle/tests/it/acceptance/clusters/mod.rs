//! Distributed stores that take minutes to install and to run: not part of the ordinary run.
//! `scripts/test-clusters` installs them and runs these.

mod ceph;
mod garage;
mod garage_kills;
mod garage_leases;
