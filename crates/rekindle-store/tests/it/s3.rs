use std::sync::Arc;

use bytes::Bytes;
use rekindle_core::codes;
use rekindle_store::{Credentials, PutMode, Store, StoreOptions, Support, contract, open, probe};
use rekindle_testkit::{S3, S3Options};

use crate::support::{bytes, key, s3_credentials, s3_options, s3_options_at, s3_store, short_limits};

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract() {
    let server = S3::start(S3Options::default());
    let store = s3_store(&server);
    contract::run(&*store).await;
    assert_eq!(store.capabilities().put_if_absent, Support::Kept);

    // The same bucket without a prefix sees the objects of the one with.
    store.put(&key("inside"), bytes("x"), PutMode::Overwrite).await.unwrap();
    let mut options = StoreOptions::new(&format!("s3://{}?endpoint={}", server.bucket(), server.endpoint())).unwrap();
    options.credentials = s3_credentials(&server.access_key(), &server.secret_key());
    options.limits = short_limits();
    let bare = open(&options).unwrap();
    assert_eq!(bare.list("").await.unwrap()[0].key, key("some/prefix/inside"));
    contract::run(&*bare).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract_in_a_bucket_with_versions() {
    let server = S3::start(S3Options::default());
    server.door().make_locked_bucket("locked");
    let mut options = StoreOptions::new(&format!("s3://locked/x?endpoint={}", server.endpoint())).unwrap();
    options.credentials = s3_credentials(&server.access_key(), &server.secret_key());
    contract::run(&*open(&options).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract_over_tls_and_trusts_only_the_given_authority() {
    let server = S3::start(S3Options { tls: true, ..S3Options::default() });
    contract::run(&*s3_store(&server)).await;
    let mut options = s3_options(&server);
    options.ca_file = None;
    let fault = open(&options).unwrap().list("").await.unwrap_err();
    assert!(fault.is(codes::STORE_TLS), "{fault:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_denied_with_a_remedy_and_without_the_secret() {
    let server = S3::start(S3Options::default());
    let mut options = s3_options(&server);
    options.credentials = s3_credentials(&server.access_key(), "canary-wrong-secret");
    let store = open(&options).unwrap();
    let faults = [
        store.put(&key("a"), bytes("x"), PutMode::IfAbsent).await.unwrap_err(),
        store.get(&key("a")).await.unwrap_err(),
        store.list("").await.unwrap_err(),
        store.delete(&key("a")).await.unwrap_err(),
        store.head(&key("a")).await.unwrap_err(),
        probe(&*store).await.unwrap_err(),
    ];
    for fault in &faults {
        assert!(fault.is(codes::STORE_DENIED), "{fault:?}");
        assert!(!format!("{fault:?}").contains("canary"), "{fault:?}");
    }
    assert!(faults[0].hint_text().unwrap().contains("secret access key is wrong"), "{:?}", faults[0]);
    options.credentials = s3_credentials("NOBODY", "canary-wrong-secret");
    let fault = open(&options).unwrap().list("").await.unwrap_err();
    assert!(fault.is(codes::STORE_DENIED), "{fault:?}");
    assert!(fault.hint_text().unwrap().contains("does not know this access key id"), "{fault:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_key_reads_and_is_denied_writing() {
    let server = S3::start(S3Options { read_only_key: true, ..S3Options::default() });
    let admin = server.admin_key();
    let mut options = s3_options(&server);
    options.credentials = s3_credentials(&admin.access, &admin.secret);
    open(&options).unwrap().put(&key("a"), bytes("x"), PutMode::Overwrite).await.unwrap();

    let reader = s3_store(&server);
    assert_eq!(reader.get(&key("a")).await.unwrap(), "x");
    assert_eq!(reader.list("").await.unwrap().len(), 1);
    for mode in [PutMode::Overwrite, PutMode::IfAbsent] {
        let fault = reader.put(&key("b"), bytes("x"), mode).await.unwrap_err();
        assert!(fault.is(codes::STORE_DENIED), "{fault:?}");
    }
    assert!(reader.delete(&key("a")).await.unwrap_err().is(codes::STORE_DENIED));
    assert_eq!(reader.get(&key("a")).await.unwrap(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_an_error_and_not_an_empty_repository() {
    let server = S3::start(S3Options::default());
    let url = format!("s3://no-such-bucket/x?endpoint={}", server.endpoint());
    let mut options = StoreOptions::new(&url).unwrap();
    options.credentials = s3_credentials(&server.access_key(), &server.secret_key());
    options.limits = short_limits();
    let store = open(&options).unwrap();
    let fault = store.list("").await.unwrap_err();
    assert!(fault.is(codes::STORE_ROOT), "{fault:?}");
    let fault = store.get(&key("config")).await.unwrap_err();
    assert!(fault.is(codes::STORE_ROOT), "{fault:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_several_pages_is_complete() {
    const OBJECTS: usize = 1_500;
    let server = S3::start(S3Options::default());
    let store = s3_store(&server);
    let mut writers = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for number in (worker..OBJECTS).step_by(8) {
                store
                    .put(&key(&format!("data/{number:04}")), Bytes::from(number.to_string()), PutMode::IfAbsent)
                    .await
                    .unwrap();
            }
        });
    }
    writers.join_all().await;
    let listed = store.list("data/").await.unwrap();
    let names: Vec<String> = listed.iter().map(|meta| meta.key.to_string()).collect();
    let wanted: Vec<String> = (0..OBJECTS).map(|number| format!("data/{number:04}")).collect();
    assert_eq!(names, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_is_named_has_to_exist() {
    let server = S3::start(S3Options::default());
    let mut options = s3_options_at(&server, &format!("{}&profile=no-such-profile", server.endpoint()));
    options.credentials = Credentials::default();
    let fault = open(&options).unwrap_err();
    assert!(fault.is(codes::STORE_CREDENTIALS), "{fault:?}");
}
