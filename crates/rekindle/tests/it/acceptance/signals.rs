//! Ctrl-C and SIGTERM: the run stops, says how to go on, and running it again finishes.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use rekindle_testkit::{Fault, Proxy, S3, S3Options};
use rustix::process::{Pid, Signal, kill_process};

use super::s3::stack_on;
use super::stack::{Stack, assert_same_trees, below, end, noise, wait_until};
use crate::run::Ended;

const SIGNALS: [(Signal, i32, &str); 2] = [(Signal::INT, 130, "RK-RUN-001"), (Signal::TERM, 143, "RK-RUN-002")];

/// A stack on S3 behind a line slow enough to stop a run in its middle.
struct Slow {
    _s3: S3,
    proxy: Proxy,
    stack: Stack,
}

impl Slow {
    fn new() -> Self {
        let s3 = S3::start(S3Options::default());
        let proxy = Proxy::start(s3.port());
        let stack = stack_on(&s3, proxy.port());
        let data = stack.path("data");
        for n in 0..24 {
            fs::write(data.join(format!("file-{n}")), noise(n, 1 << 20)).unwrap();
        }
        stack.complete();
        Self { _s3: s3, proxy, stack }
    }

    /// Runs it and sends the signal once so many bytes have passed.
    fn stopped(&self, arguments: &[&str], bytes: u64, signal: Signal) -> Ended {
        self.proxy.set(Fault::Delay(Duration::from_millis(2)));
        let start = self.proxy.bytes();
        let mut child = self.stack.start(arguments);
        wait_until("the middle of the run", || {
            assert!(child.try_wait().unwrap().is_none(), "it ended before its middle");
            self.proxy.bytes() > start + bytes
        });
        let ended = send(child, signal);
        self.proxy.set(Fault::None);
        ended
    }
}

fn send(child: Child, signal: Signal) -> Ended {
    kill_process(Pid::from_child(&child), signal).unwrap();
    end(child)
}

fn said(ended: &Ended, code: i32, id: &str) {
    assert_eq!(ended.code, code, "{ended:#?}");
    ended.says(id, &["again"]);
}

fn no_locks(repository: &Path) -> bool {
    fs::read_dir(repository.join("locks")).is_ok_and(|mut entries| entries.next().is_none())
}

#[test]
fn a_stopped_restore_says_how_to_go_on_and_goes_on() {
    let slow = Slow::new();
    let data = slow.stack.path("data");
    for (signal, code, id) in SIGNALS {
        let to = format!("back-{code}");
        let ended = slow.stopped(&["restore", "latest", "--to", &to], 6 << 20, signal);
        said(&ended, code, id);
        assert!(ended.err.contains("files") && ended.err.contains("--overwrite"), "{ended:#?}");
        slow.stack.place.json(0, &["restore", "latest", "--to", &to, "--overwrite"]);
        assert_same_trees(&data, &below(&slow.stack.path(&to), &data));
    }
}

#[test]
fn a_stopped_restore_in_place_leaves_the_old_state() {
    let slow = Slow::new();
    let (data, copy) = (slow.stack.path("data"), slow.stack.path("copy"));
    fs::rename(&data, &copy).unwrap();
    for (signal, code, id) in SIGNALS {
        let _ = fs::remove_dir_all(&data);
        fs::create_dir(&data).unwrap();
        fs::write(data.join("old"), "old").unwrap();
        let arguments = ["restore", "latest", "--in-place", "--no-safety-point"];
        said(&slow.stopped(&arguments, 6 << 20, signal), code, id);
        assert_eq!(fs::read_to_string(data.join("old")).unwrap(), "old");
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
        slow.stack.place.json(0, &arguments);
        assert_same_trees(&copy, &data);
    }
}

#[test]
fn a_stopped_backup_leaves_no_point_and_the_next_one_works() {
    let slow = Slow::new();
    let before = slow.stack.points();
    for (signal, code, id) in SIGNALS {
        fs::write(slow.stack.path("data/large"), noise(u64::from(code.unsigned_abs()), 24 << 20)).unwrap();
        said(&slow.stopped(&["backup"], 6 << 20, signal), code, id);
        assert_eq!(slow.stack.points(), before);
    }
    slow.stack.complete();
    slow.stack.place.json(0, &["verify", "--read-data"]);
}

#[test]
fn a_stopped_verify_is_no_answer() {
    let slow = Slow::new();
    for (signal, code, id) in SIGNALS {
        let ended = slow.stopped(&["verify", "--read-data"], 6 << 20, signal);
        said(&ended, code, id);
        assert!(!ended.out.contains("nothing is wrong"), "{ended:#?}");
    }
    slow.stack.place.json(0, &["verify", "--read-data"]);
}

#[test]
fn a_stopped_prune_loses_nothing_and_the_next_one_finishes() {
    let slow = Slow::new();
    let stack = &slow.stack;
    // Half of each pack is needed no more: the engine reads and writes them all again.
    for n in (0..24).step_by(2) {
        fs::remove_file(stack.path("data").join(format!("file-{n}"))).unwrap();
    }
    let first = stack.newest()["id"].as_str().unwrap().to_owned();
    stack.complete();
    stack.place.ends(0, &["forget", &first]);
    // Their trust changes: a verification that read everything leaves a proof.
    let ids = || stack.points().iter().map(|point| point["id"].clone()).collect::<Vec<_>>();
    let left = ids();
    let prune = ["prune", "--keep-marked", "0", "--max-unused", "0", "--max-delete", "100"];
    for (signal, code, id) in SIGNALS {
        said(&slow.stopped(&prune, 4 << 20, signal), code, id);
        assert_eq!(ids(), left);
        stack.place.json(0, &["verify", "--read-data"]);
    }
    stack.place.ends(0, &prune);
    stack.place.json(0, &["verify", "--read-data"]);
    stack.place.json(0, &["restore", "latest", "--to", "back"]);
    let data = stack.path("data");
    assert_same_trees(&data, &below(&stack.path("back"), &data));
    stack.complete();
}

#[test]
fn a_stopped_prune_lets_its_lock_go() {
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::write(data.join("a"), noise(1, 1 << 20)).unwrap();
    stack.complete();
    let child = stack.start(&["prune"]);
    let locks = stack.path("repo/locks");
    wait_until("the lock", || !no_locks(&stack.path("repo")) && locks.exists());
    let ended = send(child, Signal::TERM);
    // It may have been done already.
    assert!(matches!(ended.code, 0 | 143), "{ended:#?}");
    assert!(no_locks(&stack.path("repo")));
    stack.complete();
}

#[test]
fn a_hook_ends_with_its_run_and_what_comes_last_is_done_all_the_same() {
    for (signal, code, id) in SIGNALS {
        let mut stack = Stack::new();
        let data = stack.files("data");
        fs::write(data.join("a"), "one").unwrap();
        stack.complete();
        let (pid, closed) = (stack.path("pid"), stack.path("closed"));
        // A shell that starts a process of its own and waits for it.
        let first = format!("sleep 300 & echo $! > {0}.new; mv {0}.new {0}; wait", pid.display());
        stack.add(&format!("[hooks]\nbefore = [\"{first}\"]\nafter = [\"touch {}\"]", closed.display()));
        let child = stack.start(&["backup"]);
        wait_until("the hook", || pid.exists());
        said(&send(child, signal), code, id);
        let process = format!("/proc/{}", fs::read_to_string(&pid).unwrap().trim());
        wait_until("the end of what the hook started", || {
            let state = fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        });
        assert!(closed.exists(), "the after hook was not run");
        assert_eq!(stack.points().len(), 1);
    }
}
