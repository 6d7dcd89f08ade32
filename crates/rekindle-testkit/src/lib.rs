//! Real servers, faults and comparators for tests and for the demo.
//!
//! Every server has its own temporary directory and free loopback ports, and is gone with all
//! its files when its value is dropped, also when the test panics; a watchdog sees to it when
//! the test process is killed. A server that is not installed fails the test
//! (`scripts/setup --tests` installs them; `scripts/setup --clusters` Ceph and Garage).

pub mod azure;
pub mod ceph;
pub mod fixtures;
pub mod garage;
pub mod gcs;
pub mod grafana;
pub mod http;
pub mod http_proxy;
pub mod instance_role;
pub mod podman;
pub mod port;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod receiver;
pub mod redis;
pub mod resp;
pub mod s3;
pub mod s3_request;
pub mod smtp;
pub mod tls;
pub mod tools;
pub mod wal_log;

pub use azure::Azurite;
pub use ceph::Ceph;
pub use garage::Garage;
pub use gcs::FakeGcs;
pub use http_proxy::{Answer, HttpProxy, Seen};
pub use instance_role::InstanceRole;
pub use podman::Podman;
pub use postgres::{Postgres, PostgresOptions};
pub use prometheus::{PROMETHEUS_PASSWORD, PROMETHEUS_USER, Prometheus, PrometheusOptions};
pub use proxy::{Direction, Fault, Proxy};
pub use receiver::{Reply, WebReceiver};
pub use redis::{Redis, RedisOptions, RedisProgram};
pub use resp::Value;
pub use s3::{S3, S3Key, S3Options};
pub use s3_request::S3Door;
pub use smtp::{SmtpReceiver, SmtpTls};
pub use wal_log::{MemoryArchive, MemoryLog};
