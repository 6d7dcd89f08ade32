use rekindle_core::codes;
use rekindle_store::{PutMode, StoreOptions, contract, open};
use rekindle_testkit::FakeGcs;

use crate::support::{bytes, key, short_limits};

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract() {
    let server = FakeGcs::start();
    let url = format!("gs://{}/some/prefix?endpoint={}&anonymous=true", server.bucket(), server.endpoint());
    let mut options = StoreOptions::new(&url).unwrap();
    options.limits = short_limits();
    contract::run(&*open(&options).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_file_is_used_and_a_missing_bucket_is_an_error() {
    let server = FakeGcs::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("account.json");
    std::fs::write(&file, server.service_account_json()).unwrap();
    let url = format!("gs://{}?endpoint={}", server.bucket(), server.endpoint());
    let mut options = StoreOptions::new(&url).unwrap();
    options.credentials.service_account_file = Some(file.clone());
    options.limits = short_limits();
    let store = open(&options).unwrap();
    store.put(&key("a"), bytes("x"), PutMode::IfAbsent).await.unwrap();
    assert_eq!(store.get(&key("a")).await.unwrap(), "x");

    let url = format!("gs://no-such-bucket?endpoint={}", server.endpoint());
    let mut options = StoreOptions { url: url.parse().unwrap(), ..options };
    let fault = open(&options).unwrap().list("").await.unwrap_err();
    assert!(fault.is(codes::STORE_ROOT), "{fault:?}");
    options.credentials.service_account_file = Some(directory.path().join("absent"));
    assert!(open(&options).unwrap_err().is(codes::STORE_CREDENTIALS));
}
