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

/// A server that gives every request the same answer; ends with the test. Its port.
pub(crate) fn answering(status: &str, headers: &str, body: &str) -> u16 {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut read = BufReader::new(connection.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while read.read_line(&mut line).is_ok_and(|count| count > 2) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            // A client that goes away is no failure of this test.
            let _ = read.read_exact(&mut vec![0; length]);
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    port
}
