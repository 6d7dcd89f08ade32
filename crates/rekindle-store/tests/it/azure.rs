use rekindle_core::{Secret, codes};
use rekindle_store::{PutMode, StoreOptions, contract, open};
use rekindle_testkit::Azurite;

use crate::support::{answering, bytes, key, short_limits};

fn options(server: &Azurite, container: &str) -> StoreOptions {
    let url = format!("az://{container}/some/prefix?account={}&endpoint={}", server.account(), server.endpoint());
    let mut options = StoreOptions::new(&url).unwrap();
    options.credentials.azure_key = Some(Secret::new(server.account_key().to_owned()));
    options.limits = short_limits();
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract() {
    let server = Azurite::start();
    contract::run(&*open(&options(&server, server.container())).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_stored_otherwise_is_an_error() {
    for (md5, good) in [("kAFQmDzST7DWlj99KOF/cg==", true), ("kAFQmDzST7DWlj99KOF/cQ==", false)] {
        let port = answering("201 Created", &format!("ETag: e\r\nContent-MD5: {md5}\r\n"), "");
        let url = format!("az://box?account=me&endpoint=http://127.0.0.1:{port}/me");
        let mut options = StoreOptions::new(&url).unwrap();
        options.credentials.azure_key = Some(Secret::new("Y2FuYXJ5".to_owned()));
        options.limits = short_limits();
        let put = open(&options).unwrap().put(&key("a"), bytes("abc"), PutMode::Overwrite).await;
        assert_eq!(put.is_ok(), good, "{put:?}");
        if let Err(fault) = put {
            assert!(fault.is(codes::STORE_SERVER) && fault.chain().contains("MD5"), "{fault:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_denied_and_a_missing_container_is_an_error() {
    let server = Azurite::start();
    let store = open(&options(&server, "no-such-container")).unwrap();
    let fault = store.list("").await.unwrap_err();
    assert!(fault.is(codes::STORE_ROOT), "{fault:?}");
    let mut wrong = options(&server, server.container());
    wrong.credentials.azure_key = Some(Secret::new("Y2FuYXJ5LXdyb25nLWtleQ==".to_owned()));
    let store = open(&wrong).unwrap();
    for fault in [
        store.put(&key("a"), bytes("x"), PutMode::Overwrite).await.unwrap_err(),
        store.list("").await.unwrap_err(),
        store.head(&key("a")).await.unwrap_err(),
    ] {
        assert!(fault.is(codes::STORE_DENIED), "{fault:?}");
        assert!(!format!("{fault:?}").contains("Y2FuYXJ5"), "{fault:?}");
    }
    let mut nameless = StoreOptions::new(&format!("az://{}", server.container())).unwrap();
    nameless.credentials.azure_key = Some(Secret::new("Y2FuYXJ5".to_owned()));
    assert!(open(&nameless).unwrap_err().is(codes::STORE_CREDENTIALS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_never_shows_in_an_error() {
    let server = Azurite::start();
    let mut signed = options(&server, server.container());
    signed.credentials.azure_key = None;
    signed.credentials.azure_sas =
        Some(Secret::new("sv=2021-08-06&ss=b&srt=sco&sp=rl&se=2020-01-01&sig=canary%3D".to_owned()));
    let mut nobody = signed.clone();
    let port = rekindle_testkit::port::Port::take();
    nobody.url = format!("az://x?account=me&endpoint=http://127.0.0.1:{}/me", port.number()).parse().unwrap();
    for (options, code) in [(signed, codes::STORE_DENIED), (nobody, codes::STORE_UNREACHABLE)] {
        assert!(!format!("{options:?}").contains("canary"));
        let store = open(&options).unwrap();
        for fault in [
            store.list("").await.unwrap_err(),
            store.get(&key("a")).await.unwrap_err(),
            store.put(&key("a"), bytes("x"), PutMode::IfAbsent).await.unwrap_err(),
            store.delete(&key("a")).await.unwrap_err(),
        ] {
            assert!(fault.is(code), "{fault:?}");
            assert!(!format!("{fault:?}").contains("canary"), "{fault:?}");
        }
    }
}
