//! The lock: who is kept out, what counts as left behind, and that a long run keeps its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rekindle_core::codes;
use rekindle_core::port::{Clock, Reuse, WriteSession};
use rekindle_repo::format::lock::{LockFile, ProcessSpace};
use rekindle_repo::format::{Id, names, unpacked};
use rekindle_repo::lock::{Lock, LockKind};
use rekindle_repo::{Repo, RepoOptions, Session};
use rekindle_store::faulty::{Action, Faulty, Op};
use rekindle_store::{Key as ObjectKey, Memory, PutMode};

use crate::write_support::{Act, Bench, context, store, stream};

/// A clock that is so many minutes ahead of the machine's.
#[derive(Default)]
struct Shifted(AtomicI64);

impl Shifted {
    fn by(minutes: i64) -> Arc<dyn Clock> {
        Arc::new(Self(AtomicI64::new(minutes)))
    }
}

impl Clock for Shifted {
    fn now(&self) -> jiff::Timestamp {
        let minutes = self.0.load(Ordering::SeqCst);
        jiff::Timestamp::now() + jiff::SignedDuration::from_mins(minutes)
    }
}

fn this_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The id of a process that is no more.
fn dead_pid() -> u32 {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

/// Where the process ids of this test mean something.
fn this_space() -> ProcessSpace {
    let machine = std::fs::read_to_string("/etc/machine-id").ok().filter(|text| !text.trim().is_empty());
    ProcessSpace {
        boot: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned(),
        pid_namespace: std::fs::read_link("/proc/self/ns/pid").unwrap().display().to_string(),
        machine: machine.map(|text| Id::of(text.trim().as_bytes()).hex()),
    }
}

/// The lock of some program of this place, so many minutes old.
fn put(repo: &Repo, host: &str, pid: u32, minutes: i64, exclusive: bool) {
    let space = (host == this_host()).then(this_space);
    put_from(repo, (host, space), pid, minutes, exclusive);
}

fn put_from(repo: &Repo, (host, space): (&str, Option<ProcessSpace>), pid: u32, minutes: i64, exclusive: bool) {
    let time = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(minutes);
    let file = LockFile {
        time: time.to_string(),
        exclusive,
        hostname: host.to_owned(),
        username: "somebody".to_owned(),
        pid,
        uid: 1,
        gid: 1,
        process_space: space,
    };
    let (id, sealed) = unpacked::encode(repo.key(), &file.encode().unwrap(), repo.config().compression()).unwrap();
    let key = ObjectKey::new(&names::file(names::LOCKS, &id)).unwrap();
    repo.store().put(&key, Bytes::from(sealed), PutMode::IfAbsent).unwrap();
}

#[test]
fn locks_of_others_keep_out_while_they_live_and_are_removed_when_left_behind() {
    let here = this_host();
    let alive = std::process::id();
    // Host, process, age in minutes, whether it lives.
    let cases = [
        ("elsewhere", dead_pid(), 0, true),
        ("elsewhere", 1, 29, true),
        ("elsewhere", 1, 31, false),
        (here.as_str(), alive, 0, true),
        (here.as_str(), alive, 29, true),
        (here.as_str(), alive, 31, false),
        (here.as_str(), dead_pid(), 0, false),
        // A clock that is ahead of ours is no reason to take a lock away.
        ("elsewhere", 1, -120, true),
    ];
    for (host, pid, age, lives) in cases {
        for exclusive in [false, true] {
            let bench = Bench::memory();
            let repo = bench.open();
            let case = format!("{host} {pid} {age} min, exclusive: {exclusive}");
            put(&repo, host, pid, age, exclusive);
            for wanted in [LockKind::Shared, LockKind::Exclusive] {
                let kept_out = lives && (exclusive || wanted == LockKind::Exclusive);
                match Lock::acquire(&repo, &Shifted::by(0), wanted) {
                    Ok(lock) => {
                        assert!(!kept_out, "{case}: {wanted:?}");
                        lock.release().unwrap();
                    }
                    Err(fault) => {
                        assert!(kept_out, "{case}: {wanted:?}: {fault:?}");
                        assert!(fault.is(codes::REPO_LOCKED) && fault.exit_code() == 11, "{fault:?}");
                        assert!(fault.chain().contains(host) && fault.chain().contains(&pid.to_string()), "{fault:?}");
                        assert!(fault.hint_text().is_some(), "{fault:?}");
                    }
                }
            }
            assert_eq!(bench.keys("locks/").len(), usize::from(lives), "{case}");
        }
    }
}

#[test]
fn a_lock_of_another_place_with_our_name_holds_although_its_process_is_unknown_here() {
    let ours = this_space();
    let other_container = ProcessSpace { pid_namespace: "pid:[1]".to_owned(), ..ours.clone() };
    let other_machine =
        ProcessSpace { boot: "another".to_owned(), machine: Some("another".to_owned()), ..ours.clone() };
    let clone = ProcessSpace { boot: "another".to_owned(), ..ours.clone() };
    // What restic writes says nothing but the name of the host.
    for space in [None, Some(other_container), Some(other_machine), Some(clone)] {
        let bench = Bench::memory();
        let repo = bench.open();
        put_from(&repo, (&this_host(), space.clone()), dead_pid(), 0, true);
        let fault = Lock::acquire(&repo, &Shifted::by(0), LockKind::Shared).unwrap_err();
        assert!(fault.is(codes::REPO_LOCKED), "{space:?}: {fault:?}");
        assert_eq!(bench.keys("locks/").len(), 1, "{space:?}");
        Lock::acquire(&repo, &Shifted::by(31), LockKind::Shared).unwrap().release().unwrap();
        assert!(bench.keys("locks/").is_empty(), "it expires: {space:?}");
    }
}

#[test]
fn a_lock_from_before_this_machine_was_started_is_left_behind() {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let started: i64 = stat.lines().find_map(|line| line.strip_prefix("btime ")).unwrap().trim().parse().unwrap();
    let up = (jiff::Timestamp::now().as_second() - started) / 60;
    let before = ProcessSpace { boot: "the boot before".to_owned(), ..this_space() };
    // Without a machine id nobody can say that it was this machine.
    let known = before.machine.is_some();
    for (minutes_before_start, gone) in [(5, known), (-5, false)] {
        let bench = Bench::memory();
        let repo = bench.open();
        let age = up + minutes_before_start;
        put_from(&repo, (&this_host(), Some(before.clone())), 1, age, true);
        // A clock that shows the time shortly after: it is not the age of the lock that decides.
        let taken = Lock::acquire(&repo, &Shifted::by(1 - age), LockKind::Shared);
        assert_eq!(taken.is_ok(), gone, "{minutes_before_start}: {taken:?}");
    }
}

#[test]
fn a_lock_file_nobody_can_read_keeps_out() {
    let bench = Bench::memory();
    let repo = bench.open();
    let key = ObjectKey::new(&names::file(names::LOCKS, &rekindle_repo::format::Id::of(b"x"))).unwrap();
    repo.store().put(&key, Bytes::from_static(b"not a lock"), PutMode::IfAbsent).unwrap();
    let fault = Lock::acquire(&repo, &Shifted::by(0), LockKind::Shared).unwrap_err();
    assert!(fault.is(codes::REPO_LOCKED) && fault.hint_text().unwrap().contains("unlock"), "{fault:?}");
    assert_eq!(bench.keys("locks/").len(), 1);
    // Once it is older than any run lets its lock become, it goes.
    Lock::acquire(&repo, &Shifted::by(31), LockKind::Shared).unwrap().release().unwrap();
    assert!(bench.keys("locks/").is_empty());
}

/// Waits until the lock is another object than before; there is always one meanwhile.
fn refreshed(bench: &Bench, before: &[String]) -> Vec<String> {
    let until = Instant::now() + Duration::from_mins(1);
    loop {
        let now = bench.keys("locks/");
        assert!(!now.is_empty(), "a moment without a lock");
        if now.len() == 1 && now != before {
            return now;
        }
        assert!(Instant::now() < until, "never refreshed");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_run_of_hours_keeps_its_lock_fresh() {
    let bench = Bench::memory();
    let options = RepoOptions { lock_refresh: Duration::from_millis(30), ..RepoOptions::default() };
    let repo = bench.open_as(options).unwrap();
    let shifted = Arc::new(Shifted::default());
    let clock: Arc<dyn Clock> = shifted.clone();
    let lock = Lock::acquire(&repo, &clock, LockKind::Shared).unwrap();
    let mut file = bench.keys("locks/");
    for _ in 0..6 {
        // Two hours in all, each step shorter than the age at which a lock is given up.
        shifted.0.fetch_add(20, Ordering::SeqCst);
        file = refreshed(&bench, &file);
        // One that was being written when time moved on may still have the old time.
        file = refreshed(&bench, &file);
        lock.check().unwrap();
        let fault = Lock::acquire(&repo, &clock, LockKind::Exclusive).unwrap_err();
        assert!(fault.is(codes::REPO_LOCKED), "{fault:?}");
    }
    lock.release().unwrap();
    assert!(bench.keys("locks/").is_empty());
}

#[test]
fn a_lock_that_cannot_be_refreshed_is_not_relied_on() {
    let faulty = Arc::new(Faulty::new(Memory::new()));
    let store = Arc::clone(&faulty);
    let bench = Bench::on(move |_| store);
    let options = RepoOptions { lock_refresh: Duration::from_millis(30), ..RepoOptions::default() };
    let repo = bench.open_as(options).unwrap();
    let shifted = Arc::new(Shifted::default());
    let clock: Arc<dyn Clock> = shifted.clone();
    let lock = Lock::acquire(&repo, &clock, LockKind::Shared).unwrap();
    faulty.script_times(100_000, Op::Put, "locks/", &Action::Reject(codes::STORE_DENIED));
    shifted.0.store(24, Ordering::SeqCst);
    lock.check().unwrap();
    // Before others may take it for left behind.
    shifted.0.store(26, Ordering::SeqCst);
    let fault = lock.check().unwrap_err();
    assert!(fault.is(codes::REPO_LOST_LOCK) && fault.hint_text().is_some(), "{fault:?}");
    faulty.clear();
    lock.release().unwrap();
}

#[test]
fn who_asks_before_each_step_hears_soon_that_the_lock_is_gone() {
    let bench = Bench::memory();
    let repo = bench.open();
    let shifted = Arc::new(Shifted::default());
    let clock: Arc<dyn Clock> = shifted.clone();
    let lock = Lock::acquire(&repo, &clock, LockKind::Exclusive).unwrap();
    let watch = lock.watch();
    watch.check().unwrap();
    shifted.0.store(26, Ordering::SeqCst);
    assert!(watch.check().unwrap_err().is(codes::REPO_LOST_LOCK), "too old, without asking the storage");
    shifted.0.store(0, Ordering::SeqCst);
    lock.release().unwrap();

    let options = RepoOptions { lock_refresh: Duration::from_secs(2), ..RepoOptions::default() };
    let repo = bench.open_as(options).unwrap();
    let lock = Lock::acquire(&repo, &clock, LockKind::Exclusive).unwrap();
    let watch = lock.watch();
    for name in bench.keys("locks/") {
        repo.store().delete(&ObjectKey::new(&name).unwrap()).unwrap();
    }
    let until = Instant::now() + Duration::from_secs(1);
    while let Ok(()) = watch.check() {
        assert!(Instant::now() < until, "it did not ask the storage");
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = lock.release();
}

#[test]
fn who_takes_the_repository_at_the_same_moment_keeps_a_session_from_storing() {
    let bench = Bench::memory();
    let repo = bench.open();
    let context = context();
    let session = Session::begin(&repo, &context).unwrap();
    put(&repo, "elsewhere", 1, 0, true);
    let entries = || vec![stream("s", vec![1], Act::Good)];
    for _ in 0..2 {
        let fault = store(&session, "files", entries(), Reuse::Nothing).unwrap_err();
        assert!(fault.is(codes::REPO_LOCKED), "{fault:?}");
    }
    session.abandon();
    assert!(bench.keys("data/").is_empty() && bench.keys("index/").is_empty());
    assert_eq!(bench.keys("locks/").len(), 1, "the other one");
}
