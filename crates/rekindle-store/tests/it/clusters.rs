//! The contract on distributed stores; not part of the ordinary run (`scripts/test-clusters`).

use std::sync::Arc;

use rekindle_core::codes;
use rekindle_store::{Store, StoreOptions, Support, contract, open, probe};
use rekindle_testkit::{Ceph, S3Door};

use crate::support::{s3_credentials, short_limits};

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
