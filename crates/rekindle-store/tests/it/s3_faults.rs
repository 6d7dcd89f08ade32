use std::time::Duration;

use bytes::Bytes;
use rekindle_core::codes;
use rekindle_store::{Limits, PutMode, PutOutcome, StoreOptions, open};
use rekindle_testkit::{Answer, Direction, Fault, HttpProxy, Proxy, S3, S3Options};

use crate::support::{bytes, key, s3_credentials, s3_options, s3_options_at, s3_store, short_limits};

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_a_timeout_and_no_hang() {
    let server = S3::start(S3Options::default());
    let mut options = s3_options(&server);
    options.limits = Limits { idle: Duration::from_secs(1), attempts_max: 2, ..short_limits() };
    let store = open(&options).unwrap();
    store.put(&key("a"), bytes("x"), PutMode::Overwrite).await.unwrap();
    server.sigstop();
    let big = Bytes::from(vec![7; 24 << 20]);
    let (a, b) = (key("a"), key("big"));
    let (put, get, list, head) =
        tokio::join!(store.put(&b, big, PutMode::Overwrite), store.get(&a), store.list(""), store.head(&a),);
    server.sigcont();
    for fault in [put.unwrap_err(), get.unwrap_err(), list.unwrap_err(), head.unwrap_err()] {
        assert!(fault.is(codes::STORE_TIMEOUT), "{fault:?}");
        assert!(fault.chain().contains("2 attempts"), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_is_found_again() {
    let mut server = S3::start(S3Options::default());
    let mut options = s3_options(&server);
    options.limits = Limits { retry_budget: Duration::from_mins(2), attempts_max: 200, ..short_limits() };
    let store = open(&options).unwrap();
    store.put(&key("before"), bytes("x"), PutMode::IfAbsent).await.unwrap();
    server.kill9();
    let during = tokio::spawn({
        let store = store.clone();
        async move { store.put(&key("during"), bytes("y"), PutMode::IfAbsent).await }
    });
    let server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    });
    let _server = server.await.unwrap();
    assert_eq!(during.await.unwrap().unwrap(), PutOutcome::Written);
    assert_eq!(store.get(&key("before")).await.unwrap(), "x");
    assert_eq!(store.get(&key("during")).await.unwrap(), "y");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listening_is_unreachable() {
    let port = rekindle_testkit::port::Port::take();
    let mut options = StoreOptions::new(&format!("s3://bucket/x?endpoint=http://127.0.0.1:{}", port.number())).unwrap();
    options.credentials = s3_credentials("a", "b");
    options.limits = short_limits();
    let fault = open(&options).unwrap().list("").await.unwrap_err();
    assert!(fault.is(codes::STORE_UNREACHABLE), "{fault:?}");
    assert_eq!(fault.exit_code(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_is_an_error_and_keeps_what_it_had() {
    let server = S3::start(S3Options { data_dir_tmpfs_mb: Some(96), ..S3Options::default() });
    let store = s3_store(&server);
    store.put(&key("small"), bytes("x"), PutMode::Overwrite).await.unwrap();
    let mut failed = None;
    for number in 0..20 {
        let data = Bytes::from(vec![number; 16 << 20]);
        if let Err(fault) = store.put(&key(&format!("big/{number}")), data, PutMode::IfAbsent).await {
            failed = Some(fault);
            break;
        }
    }
    let fault = failed.expect("the server runs full");
    assert!(fault.is(codes::STORE_SERVER) || fault.is(codes::STORE_FULL), "{fault:?}");
    assert!(fault.hint_text().is_some(), "{fault:?}");
    assert_eq!(store.get(&key("small")).await.unwrap(), "x");
}

/// The connection ends in the middle of the body: never a short object as a success.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_is_repeated_or_an_error_but_never_short() {
    let server = S3::start(S3Options::default());
    let proxy = Proxy::start(server.port());
    let data = Bytes::from(vec![9; 1 << 20]);
    s3_store(&server).put(&key("a"), data.clone(), PutMode::Overwrite).await.unwrap();
    let endpoint = format!("http://127.0.0.1:{}", proxy.port());
    for fault in [Fault::CutAfter(Direction::ToClient, 300_000), Fault::ResetAfter(Direction::ToClient, 300_000)] {
        // A store of its own each time, so that no pooled connection goes around the fault.
        let store = open(&s3_options_at(&server, &endpoint)).unwrap();
        proxy.script([fault]);
        assert_eq!(store.get(&key("a")).await.unwrap(), data, "{fault:?} once");
        let store = open(&s3_options_at(&server, &endpoint)).unwrap();
        proxy.script([fault; 3]);
        let refused = store.get(&key("a")).await.unwrap_err();
        assert!(refused.is(codes::STORE_UNREACHABLE) || refused.is(codes::STORE_SHORT), "{fault:?}: {refused:?}");
        let store = open(&s3_options_at(&server, &endpoint)).unwrap();
        proxy.script([fault; 3]);
        let refused = store.get_range(&key("a"), 0..1_000_000).await.unwrap_err();
        assert!(refused.is(codes::STORE_UNREACHABLE) || refused.is(codes::STORE_SHORT), "{fault:?}: {refused:?}");
    }
}

/// A pause longer than all the time there is for repeating is not begun; without it the call is
/// repeated as often as it may be.
#[tokio::test(flavor = "multi_thread")]
async fn the_pause_a_server_asks_for_is_kept() {
    let server = S3::start(S3Options::default());
    let proxy = HttpProxy::start(server.port());
    let mut options = s3_options_at(&server, &format!("http://127.0.0.1:{}", proxy.port()));
    options.limits = Limits { backoff_max: Duration::from_mins(10), ..short_limits() };
    let store = open(&options).unwrap();
    for (asked, attempts) in [("120", 1), ("0", 3), ("Fri, 31 Dec 1999 23:59:59 GMT", 3)] {
        for status in [429, 503] {
            let headers = vec![("Retry-After".to_owned(), asked.to_owned())];
            proxy.rule("PUT", "/some/prefix/", None, Answer::Instead(status, headers));
            let fault = store.put(&key("a"), bytes("x"), PutMode::Overwrite).await.unwrap_err();
            assert!(fault.is(codes::STORE_SERVER), "{fault:?}");
            assert_eq!(proxy.clear(), attempts, "{status}, {asked}");
        }
    }
    store.put(&key("a"), bytes("x"), PutMode::Overwrite).await.unwrap();
}

/// The server has the object, the client never hears so: the repeated put is a success.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_of_a_conditional_put_is_a_success() {
    let server = S3::start(S3Options::default());
    let proxy = Proxy::start(server.port());
    let store = open(&s3_options_at(&server, &format!("http://127.0.0.1:{}", proxy.port()))).unwrap();
    proxy.script([Fault::ResetAfter(Direction::ToClient, 0)]);
    let outcome = store.put(&key("lease"), bytes("mine"), PutMode::IfAbsent).await.unwrap();
    assert_eq!(outcome, PutOutcome::Written);
    assert_eq!(proxy.connections(), 2, "the first connection was lost");
    let fault = store.put(&key("lease"), bytes("theirs"), PutMode::IfAbsent).await.unwrap_err();
    assert!(fault.is(codes::STORE_EXISTS), "{fault:?}");
}

/// Longer than the idle limit, but moving: a slow line is not a dead one.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upload_that_moves_is_not_cut_off() {
    let server = S3::start(S3Options::default());
    let proxy = Proxy::start(server.port());
    proxy.set(Fault::Delay(Duration::from_millis(5)));
    let mut options = s3_options_at(&server, &format!("http://127.0.0.1:{}", proxy.port()));
    options.limits = Limits {
        // The buffers of the kernel hide several MB from us; at this rate they drain in 3 s.
        idle: Duration::from_secs(6),
        attempt: Duration::from_secs(90),
        attempts_max: 1,
        ..short_limits()
    };
    let store = open(&options).unwrap();
    let data = Bytes::from(vec![5; 40 << 20]);
    let started = std::time::Instant::now();
    store.put(&key("slow"), data.clone(), PutMode::Overwrite).await.unwrap();
    assert!(started.elapsed() > options.limits.idle, "the upload was too fast to prove anything");
    assert_eq!(s3_store(&server).get(&key("slow")).await.unwrap(), data);
}
