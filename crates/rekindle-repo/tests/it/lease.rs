//! Leases on a storage that accepts conditional puts and does not keep them, as some do.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rekindle_core::port::{Clock, Repository};
use rekindle_core::{Result, codes};
use rekindle_repo::RepoOptions;
use rekindle_repo::lease::Lease;
use rekindle_store::{Key, Memory, ObjectMeta, PutMode, PutOutcome, Store};

use crate::write_support::{Bench, Now};

/// Writes over whatever is there, whatever was asked for.
#[derive(Debug)]
struct Careless(Memory);

#[async_trait]
impl Store for Careless {
    async fn put(&self, key: &Key, data: Bytes, _: PutMode) -> Result<PutOutcome> {
        self.0.put(key, data, PutMode::Overwrite).await?;
        Ok(PutOutcome::Written)
    }
    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.0.get(key).await
    }
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.0.get_range(key, range).await
    }
    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        self.0.head(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        // Others come between a look and what follows from it.
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..4))).await;
        self.0.list(prefix).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.0.delete(key).await
    }
    fn describe(&self) -> String {
        "careless".to_owned()
    }
}

#[test]
fn a_lease_has_one_holder_even_without_conditional_puts() {
    let bench = Bench::on(|_| Arc::new(Careless(Memory::new())));
    let clock: Arc<dyn Clock> = Arc::new(Now);
    let (holders, taken) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let repo = bench.open_as(RepoOptions::default()).unwrap();
                for _ in 0..20 {
                    match Lease::acquire(&repo, &clock, "sweep") {
                        Ok(lease) => {
                            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                            std::thread::sleep(Duration::from_millis(2));
                            lease.renew().unwrap();
                            holders.fetch_sub(1, Ordering::SeqCst);
                            lease.release().unwrap();
                            taken.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(fault) => assert!(fault.is(codes::REPO_LOCKED), "{fault:?}"),
                    }
                }
            });
        }
    });
    assert!(taken.load(Ordering::SeqCst) >= 8, "somebody gets it");
    let careless = bench.open_as(RepoOptions::default()).unwrap();
    assert!(!careless.may_be_shared().unwrap());
    assert!(Bench::memory().open_as(RepoOptions::default()).unwrap().may_be_shared().unwrap());
}

/// An object in the row of a lease, as somebody writes it who wants it.
fn write_row(bench: &Bench, object: &str) {
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(5);
    let file = serde_json::json!({"name": object, "host": "other", "pid": 1, "until": until});
    let repo = bench.open_as(RepoOptions::default()).unwrap();
    let sealed = repo.key().seal(file.to_string().as_bytes()).unwrap();
    repo.store().put(&Key::new(object).unwrap(), Bytes::from(sealed), PutMode::Overwrite).unwrap();
}

#[test]
fn a_holder_outlasts_whoever_withdraws_and_yields_to_whoever_stays() {
    const HIGHER: &str = "rekindle/leases/sweep/000000000099-aa";
    let bench = Bench::memory();
    let clock: Arc<dyn Clock> = Arc::new(Now);
    let repo = bench.open_as(RepoOptions::default()).unwrap();
    let lease = Lease::acquire(&repo, &clock, "sweep").unwrap();
    // Somebody with an old view writes a higher number, sees this lease, and withdraws.
    write_row(&bench, HIGHER);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(150));
            repo.store().delete(&Key::new(HIGHER).unwrap()).unwrap();
        });
        lease.renew().unwrap();
    });
    // One that stays has the lease.
    write_row(&bench, HIGHER);
    let fault = lease.renew().unwrap_err();
    assert!(fault.is(codes::REPO_LOST_LOCK) && fault.chain().contains("somebody took it over"), "{fault:?}");
}
