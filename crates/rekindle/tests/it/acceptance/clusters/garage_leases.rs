//! Leases on a storage without conditional writes, whose nodes are killed in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rekindle_core::fault::Class;
use rekindle_core::port::Clock;
use rekindle_core::{Secret, codes};
use rekindle_repo::lease::Lease;
use rekindle_repo::{Repo, RepoOptions};
use rekindle_store::{Credentials, StoreOptions};
use rekindle_testkit::{Garage, S3Door};
use tokio::runtime::Runtime;

use super::super::stack::REPOSITORY_PASSWORD;
use super::garage::stack_on;

/// Three through each node.
const TAKERS: usize = 9;
const ROUNDS: u32 = 12;
/// A lease that its holder could not give up, because its node was gone, lasts five minutes.
const LEASES_WITH_KILLS: usize = 12;

struct Now;

impl Clock for Now {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

fn open(door: &S3Door, bucket: &str, runtime: &Runtime) -> Repo {
    let url = format!("s3://{bucket}/shop?endpoint={}&region={}", door.endpoint(), door.region);
    let mut options = StoreOptions::new(&url).unwrap();
    options.credentials = Credentials {
        access_key_id: Some(Secret::new(door.owner.access.clone())),
        secret_access_key: Some(Secret::new(door.owner.secret.clone())),
        ..Credentials::default()
    };
    options.limits.attempts_max = 3;
    let store = rekindle_store::open(&options).unwrap();
    let password = Secret::new(REPOSITORY_PASSWORD.to_owned());
    Repo::open(store, runtime.handle().clone(), &password, RepoOptions::default()).unwrap()
}

/// Counts holders, and takings.
#[derive(Default)]
struct Seen {
    holders: AtomicU32,
    taken: AtomicU32,
    refused: AtomicU32,
    broken: AtomicU32,
}

impl Seen {
    /// Wants the lease once. `strict`: no node is missing.
    fn take(&self, repo: &Repo, clock: &Arc<dyn Clock>, name: &str, strict: bool) {
        let lease = match Lease::acquire(repo, clock, name) {
            Ok(lease) => lease,
            Err(fault) if fault.is(codes::REPO_LOCKED) => {
                self.refused.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(rand::random_range(20..200)));
                return;
            }
            Err(fault) => {
                assert!(!strict && fault.class() == Class::Unreachable, "{fault:?}");
                self.broken.fetch_add(1, Ordering::SeqCst);
                return;
            }
        };
        assert_eq!(self.holders.fetch_add(1, Ordering::SeqCst), 0, "two hold `{name}`");
        std::thread::sleep(Duration::from_millis(5));
        let renewed = lease.renew();
        self.holders.fetch_sub(1, Ordering::SeqCst);
        let released = lease.release();
        assert!(!strict || (renewed.is_ok() && released.is_ok()), "{renewed:?} {released:?}");
        self.taken.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
#[ignore = "needs Garage: scripts/test-clusters"]
fn garage_lease_has_one_holder_through_three_nodes() {
    let garage = Garage::start();
    let (_stack, _) = stack_on(&garage, 0);
    let runtime = Runtime::new().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(Now);
    let seen = Seen::default();
    let repos: Vec<Repo> = (0..TAKERS).map(|n| open(&garage.door(n % 3), garage.bucket(), &runtime)).collect();
    std::thread::scope(|scope| {
        for repo in &repos {
            scope.spawn(|| (0..ROUNDS).for_each(|_| seen.take(repo, &clock, "sweep", true)));
        }
    });
    let (taken, refused) = (seen.taken.into_inner(), seen.refused.into_inner());
    println!("taken {taken}, refused {refused}");
    assert!(taken >= 3, "somebody gets it: {taken}, refused {refused}");
    // With nobody else there it is free.
    Lease::acquire(&repos[0], &clock, "sweep").unwrap().release().unwrap();
}

#[test]
#[ignore = "needs Garage: scripts/test-clusters"]
fn garage_lease_has_one_holder_while_nodes_are_killed() {
    let mut garage = Garage::start();
    let (_stack, _) = stack_on(&garage, 0);
    let runtime = Runtime::new().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(Now);
    let repos: Vec<Repo> = (0..TAKERS).map(|n| open(&garage.door(n % 3), garage.bucket(), &runtime)).collect();
    let all: Vec<Seen> = (0..LEASES_WITH_KILLS).map(|_| Seen::default()).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let takers: Vec<_> = repos
            .iter()
            .map(|repo| {
                scope.spawn(|| {
                    for (number, seen) in all.iter().enumerate() {
                        (0..4).for_each(|_| seen.take(repo, &clock, &format!("lease-{number}"), false));
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            for victim in (0..3).cycle() {
                std::thread::sleep(Duration::from_millis(700));
                if done.load(Ordering::SeqCst) {
                    return;
                }
                garage.kill9(victim);
                std::thread::sleep(Duration::from_millis(700));
                garage.restart(victim);
            }
        });
        let ended: Vec<_> = takers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::SeqCst);
        assert!(ended.iter().all(Result::is_ok), "a taker met a second holder, or an error of another kind");
    });
    let sum = |count: fn(&Seen) -> &AtomicU32| all.iter().map(|seen| count(seen).load(Ordering::SeqCst)).sum::<u32>();
    let (taken, refused, broken) = (sum(|s| &s.taken), sum(|s| &s.refused), sum(|s| &s.broken));
    println!("taken {taken}, refused {refused}, unreachable {broken}");
    assert!(taken > 0 && broken > 0, "taken {taken}, unreachable {broken}: the kills came at no time that matters");
}
