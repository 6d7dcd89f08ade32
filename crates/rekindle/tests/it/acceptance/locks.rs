//! Who is kept out of the repository, and by whom.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;

use rekindle_core::Secret;
use rekindle_core::port::Clock;
use rekindle_repo::format::lock::LockFile;
use rekindle_repo::format::{names, unpacked};
use rekindle_repo::lock::{Lock, LockKind};
use rekindle_repo::{Repo, RepoOptions};
use rekindle_store::{Key, PutMode, StoreOptions};
use tokio::runtime::Runtime;

use super::stack::{REPOSITORY_PASSWORD, Stack, wait_until};

struct Now;

impl Clock for Now {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

fn stack() -> Stack {
    let mut stack = Stack::new();
    std::fs::write(stack.files("data").join("a"), "one").unwrap();
    stack.complete();
    stack
}

fn open(stack: &Stack, runtime: &Runtime) -> Repo {
    let options = StoreOptions::new(&format!("file://{}", stack.path("repo").display())).unwrap();
    let store = rekindle_store::open(&options).unwrap();
    let password = Secret::new(REPOSITORY_PASSWORD.to_owned());
    Repo::open(store, runtime.handle().clone(), &password, RepoOptions::default()).unwrap()
}

fn locks(stack: &Stack) -> usize {
    std::fs::read_dir(stack.path("repo/locks")).map_or(0, Iterator::count)
}

#[test]
fn a_running_restic_keeps_prune_out_and_a_killed_one_until_it_is_unlocked() {
    let stack = stack();
    let mut restic = std::process::Command::new(rekindle_testkit::tools::find("restic"))
        .args(["backup", "--stdin", "--quiet"])
        .env("RESTIC_REPOSITORY", stack.path("repo"))
        .env("RESTIC_PASSWORD_FILE", stack.path("key"))
        .env("RESTIC_CACHE_DIR", stack.path("restic-cache"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Its standard input stays open, so it stays.
    let mut input = restic.stdin.take().unwrap();
    input.write_all(b"the beginning").unwrap();
    wait_until("restic's lock", || locks(&stack) == 1);
    let first = stack.newest()["id"].as_str().unwrap().to_owned();
    // restic's lock lets others write.
    stack.complete();
    for arguments in [&["prune"][..], &["forget", &first]] {
        let ended = stack.place.ends(11, arguments);
        ended.says("RK-RP-004", &["repository", &restic.id().to_string()]);
    }
    restic.kill().unwrap();
    restic.wait().unwrap();
    assert_eq!(locks(&stack), 1, "it left its lock behind");
    // That nobody here has its process id says nothing: another host may have the name of this one.
    stack.place.ends(11, &["prune"]).says("RK-RP-004", &["expires after 30 minutes", "restic unlock"]);
    assert_eq!(stack.restic("restic", &["unlock"]).code, 0);
    stack.place.ends(0, &["prune"]);
    assert_eq!(locks(&stack), 0);
    stack.complete();
}

#[test]
fn an_exclusive_lock_keeps_a_backup_out_until_it_is_released() {
    let stack = stack();
    let runtime = Runtime::new().unwrap();
    let repo = open(&stack, &runtime);
    let clock: Arc<dyn Clock> = Arc::new(Now);
    let lock = Lock::acquire(&repo, &clock, LockKind::Exclusive).unwrap();
    let before = stack.points();
    let ended = stack.place.ends(11, &["backup"]);
    ended.says("RK-RP-004", &["repository", &std::process::id().to_string(), "exclusively"]);
    assert_eq!(stack.points(), before);
    lock.release().unwrap();
    stack.complete();
}

#[test]
fn a_lock_of_another_host_holds_for_half_an_hour() {
    let stack = stack();
    let runtime = Runtime::new().unwrap();
    let repo = open(&stack, &runtime);
    for (minutes, code) in [(20, 11), (31, 0)] {
        let time = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(minutes);
        let file = LockFile {
            time: time.to_string(),
            exclusive: true,
            hostname: "another-host".to_owned(),
            username: "root".to_owned(),
            pid: 1,
            uid: 0,
            gid: 0,
            process_space: None,
        };
        let json = file.encode().unwrap();
        let (id, sealed) = unpacked::encode(repo.key(), &json, repo.config().compression()).unwrap();
        let key = Key::new(&names::file(names::LOCKS, &id)).unwrap();
        repo.store().put(&key, sealed.into(), PutMode::IfAbsent).unwrap();
        let ended = stack.place.ends(code, &["backup"]);
        if code == 0 {
            assert_eq!(locks(&stack), 0, "it was left behind");
        } else {
            ended.says("RK-RP-004", &["another-host"]);
            repo.store().delete(&key).unwrap();
        }
    }
    stack.place.json(0, &["verify"]);
}
