//! The contract on distributed stores; not part of the ordinary run (`scripts/test-clusters`).

use std::sync::Arc;

use rekindle_core::codes;
use rekindle_core::fault::Class;
use rekindle_store::{PutMode, Store, StoreOptions, Support, contract, open, probe};
use rekindle_testkit::{Ceph, Garage, S3Door};

use crate::support::{bytes, key, s3_credentials, short_limits};

fn store(door: &S3Door, bucket: &str) -> Arc<dyn Store> {
    let url = format!("s3://{bucket}/some/prefix?endpoint={}&region={}", door.endpoint(), door.region);
    let mut options = StoreOptions::new(&url).unwrap();
    options.credentials = s3_credentials(&door.owner.access, &door.owner.secret);
    options.limits = short_limits();
    open(&options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Ceph: scripts/test-clusters"]
async fn ceph_keeps_the_contract() {
    let server = Ceph::start();
    let door = server.door();
    let plain = store(&door, server.bucket());
    contract::run(&*plain).await;
    assert_eq!(plain.capabilities().put_if_absent, Support::Kept);
    // In a bucket that keeps versions, as every one with Object Lock does, it writes over an object all the same.
    door.make_locked_bucket("locked");
    let found = probe(&*store(&door, "locked")).await.unwrap();
    assert!(found.is_usable(), "{found:?}");
    assert_eq!(found.put_if_absent, Support::Broken);
    let fault = store(&door, "no-such-bucket").list("").await.unwrap_err();
    assert!(fault.is(codes::STORE_ROOT), "{fault:?}");
}

/// Garage answers 200 to a conditional write and writes over what is there. Everything else is kept.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Garage: scripts/test-clusters"]
async fn garage_keeps_everything_but_conditions() {
    let mut server = Garage::start();
    for node in 0..3 {
        let found = probe(&*store(&server.door(node), server.bucket())).await.unwrap();
        assert!(found.is_usable(), "node {node}: {found:?}");
        assert_eq!(found.put_if_absent, Support::Broken, "node {node}");
    }
    // What one node took, another one gives at once, and lists: also with a node less.
    for missing in [None, Some(2)] {
        if let Some(node) = missing {
            server.kill9(node);
        }
        let (one, other) = (store(&server.door(0), server.bucket()), store(&server.door(1), server.bucket()));
        for number in 0..50 {
            let name = key(&format!("seen/{number}-{}", missing.is_some()));
            one.put(&name, bytes("x"), PutMode::Overwrite).await.unwrap();
            assert_eq!(other.get(&name).await.unwrap(), "x");
            assert!(other.list("seen/").await.unwrap().iter().any(|meta| meta.key == name));
            other.delete(&name).await.unwrap();
            assert_eq!(one.head(&name).await.unwrap(), None);
        }
    }
    // Two of three are gone: an error, never an empty answer.
    server.kill9(1);
    let fault = store(&server.door(0), server.bucket()).list("").await.unwrap_err();
    assert!(fault.class() == Class::Unreachable, "{fault:?}");
}
