//! Stores for the tests, with short limits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rekindle_core::Secret;
use rekindle_store::{Credentials, Key, Limits, Store, StoreOptions, open};
use rekindle_testkit::S3;

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub(crate) fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// Fails within seconds instead of minutes.
pub(crate) fn short_limits() -> Limits {
    Limits {
        connect: Duration::from_secs(2),
        idle: Duration::from_secs(2),
        attempt: Duration::from_secs(20),
        retry_budget: Duration::from_secs(20),
        attempts_max: 3,
        backoff_first: Duration::from_millis(20),
        backoff_max: Duration::from_millis(200),
    }
}

pub(crate) fn s3_credentials(access: &str, secret: &str) -> Credentials {
    Credentials {
        access_key_id: Some(Secret::new(access.to_owned())),
        secret_access_key: Some(Secret::new(secret.to_owned())),
        ..Credentials::default()
    }
}

/// Options for the server's bucket, reached through `port` (its own, or that of a proxy).
pub(crate) fn s3_options_at(server: &S3, endpoint: &str) -> StoreOptions {
    let url = format!("s3://{}/some/prefix?endpoint={endpoint}&region={}", server.bucket(), server.region());
    let mut options = StoreOptions::new(&url).unwrap();
    options.credentials = s3_credentials(&server.access_key(), &server.secret_key());
    options.ca_file = server.ca().map(Into::into);
    options.limits = short_limits();
    options
}

pub(crate) fn s3_options(server: &S3) -> StoreOptions {
    s3_options_at(server, &server.endpoint())
}

pub(crate) fn s3_store(server: &S3) -> Arc<dyn Store> {
    open(&s3_options(server)).unwrap()
}
