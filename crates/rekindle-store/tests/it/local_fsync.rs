//! A disk that fails at fsync: `strace` makes the system call fail in a process of its own.

use std::fs;
use std::process::Command;

use rekindle_core::codes;
use rekindle_store::{Local, PutMode, PutOutcome, Store};
use rekindle_testkit::tools;

use crate::support::{bytes, key};

const ROOT_VARIABLE: &str = "REKINDLE_TEST_FSYNC_ROOT";

/// Runs in the process whose fsync fails; prints the code of the error.
#[tokio::test]
#[ignore = "run by the tests below, under strace"]
async fn put_one_object() {
    let root = std::env::var(ROOT_VARIABLE).unwrap();
    let put = Local::new(root).put(&key("object"), bytes("x"), PutMode::IfAbsent).await;
    println!("answer={}", put.map_or_else(|fault| fault.code().id, |_| "ok"));
}

/// The answer of a put into `root` whose fsync number `failing` gives EIO.
fn put_with_failing_fsync(root: &std::path::Path, failing: u32) -> String {
    let output = Command::new(tools::find("strace"))
        .args(["-f", "-o", "/dev/null", "-e", "trace=fsync", "-e"])
        .arg(format!("inject=fsync:error=EIO:when={failing}"))
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "local_fsync::put_one_object"])
        .env(ROOT_VARIABLE, root)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer = text.split("answer=").nth(1).unwrap_or_else(|| panic!("no answer: {output:?}"));
    answer.split_whitespace().next().unwrap().to_owned()
}

#[tokio::test]
async fn a_failed_fsync_of_the_file_leaves_no_object() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(put_with_failing_fsync(directory.path(), 1), codes::STORE_IO.id);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "neither the object nor its unfinished file");
}

/// The name may or may not survive a crash, so the call must not say `Ok`; the same put again does.
#[tokio::test]
async fn a_failed_fsync_of_the_directory_is_an_error_and_can_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(put_with_failing_fsync(directory.path(), 2), codes::STORE_IO.id);
    let again = Local::new(directory.path()).put(&key("object"), bytes("x"), PutMode::IfAbsent).await;
    assert_eq!(again.unwrap(), PutOutcome::Existed);
}

/// The tests above fail the right calls: there is no third fsync to fail.
#[tokio::test]
async fn a_put_syncs_the_file_and_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(put_with_failing_fsync(directory.path(), 3), "ok");
    assert_eq!(fs::read(directory.path().join("object")).unwrap(), b"x");
}
