//! Against fake-gcs-server. `object_store` speaks GCS's XML interface, of which this server has
//! only the reading half, so objects are put there through the JSON interface. Writing to GCS is
//! not proved by these tests.

use rekindle_core::codes;
use rekindle_store::{StoreOptions, open};
use rekindle_testkit::FakeGcs;

use crate::support::{key, short_limits};

async fn upload(server: &FakeGcs, name: &str, data: &'static str) {
    let url = format!(
        "{}/upload/storage/v1/b/{}/o?uploadType=media&name={}",
        server.endpoint(),
        server.bucket(),
        name.replace('/', "%2F")
    );
    let answer =
        reqwest::Client::builder().tls_certs_only([]).build().unwrap().post(url).body(data).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_listed_and_read() {
    let server = FakeGcs::start();
    let url = format!("gs://{}/some/prefix?endpoint={}&anonymous=true", server.bucket(), server.endpoint());
    let mut options = StoreOptions::new(&url).unwrap();
    options.limits = short_limits();
    let store = open(&options).unwrap();
    assert_eq!(store.list("").await.unwrap(), []);
    assert_eq!(store.head(&key("data/a")).await.unwrap(), None);
    assert!(store.get(&key("data/a")).await.unwrap_err().is(codes::STORE_NOT_FOUND));
    for (name, data) in [("some/prefix/data/b", "bb"), ("some/prefix/data/a", "0123456789"), ("some/other", "x")] {
        upload(&server, name, data).await;
    }
    let listed = store.list("data/").await.unwrap();
    let found: Vec<(&str, u64)> = listed.iter().map(|meta| (meta.key.as_str(), meta.size)).collect();
    assert_eq!(found, [("data/a", 10), ("data/b", 2)]);
    assert_eq!(store.get(&key("data/a")).await.unwrap(), "0123456789");
    assert_eq!(store.get_range(&key("data/a"), 3..7).await.unwrap(), "3456");
    assert!(store.get_range(&key("data/a"), 3..11).await.unwrap_err().is(codes::STORE_SHORT));
    assert_eq!(store.head(&key("data/b")).await.unwrap().unwrap().size, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_and_a_missing_key_file_are_errors() {
    let server = FakeGcs::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("account.json");
    std::fs::write(&file, server.service_account_json()).unwrap();
    let url = format!("gs://no-such-bucket?endpoint={}", server.endpoint());
    let mut options = StoreOptions::new(&url).unwrap();
    options.credentials.service_account_file = Some(file);
    options.limits = short_limits();
    let fault = open(&options).unwrap().list("").await.unwrap_err();
    // With files below, this server says 500 where Google says 404.
    assert!(fault.is(codes::STORE_ROOT) || fault.is(codes::STORE_SERVER), "{fault:?}");
    options.credentials.service_account_file = Some(directory.path().join("absent"));
    assert!(open(&options).unwrap_err().is(codes::STORE_CREDENTIALS));
}
