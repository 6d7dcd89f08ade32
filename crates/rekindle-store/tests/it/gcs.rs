//! Against fake-gcs-server: reading by GCS's XML interface, as `object_store` does it, writing by the JSON
//! interface. The server checks no credentials: these are proved against none.

use rekindle_core::codes;
use rekindle_store::{PutMode, StoreOptions, contract, open};
use rekindle_testkit::FakeGcs;

use crate::support::{answering, bytes, key, short_limits};

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract() {
    let server = FakeGcs::start();
    let url = format!("gs://{}/some/prefix?endpoint={}&anonymous=true", server.bucket(), server.endpoint());
    let mut options = StoreOptions::new(&url).unwrap();
    options.limits = short_limits();
    contract::run(&*open(&options).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_stored_otherwise_is_an_error() {
    // MD5 of "abc" is kAFQmDzST7DWlj99KOF/cg==.
    let object = |md5: &str| format!(r#"{{"etag":"e","md5Hash":"{md5}"}}"#);
    for (page, good) in [
        (object("kAFQmDzST7DWlj99KOF/cg=="), true),
        (object("kAFQmDzST7DWlj99KOF/cQ=="), false),
        ("<html>welcome</html>".to_owned(), false),
    ] {
        let port = answering("200 OK", "", &page);
        let url = format!("gs://box?endpoint=http://127.0.0.1:{port}&anonymous=true");
        let mut options = StoreOptions::new(&url).unwrap();
        options.limits = short_limits();
        let put = open(&options).unwrap().put(&key("a"), bytes("abc"), PutMode::Overwrite).await;
        assert_eq!(put.is_ok(), good, "{page}: {put:?}");
    }
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
    let fault = open(&options).unwrap().put(&key("a"), bytes("x"), PutMode::IfAbsent).await.unwrap_err();
    assert!(fault.is(codes::STORE_ROOT) || fault.is(codes::STORE_SERVER), "{fault:?}");
    options.credentials.service_account_file = Some(directory.path().join("absent"));
    assert!(open(&options).unwrap_err().is(codes::STORE_CREDENTIALS));
}
