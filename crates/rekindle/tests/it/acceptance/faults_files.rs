//! Files that vanish, change or cannot be read are counted, listed and judged; never left out in
//! silence.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::stack::{Stack, end, noise, wait_until_open};
use crate::run::Ended;

/// Time to act in while it is read: holes are read as zeros.
const LARGE_BYTES: u64 = 6 << 30;

fn files_of(report: &Value) -> &Value {
    &report["result"]["components"][0]
}

/// Starts a backup of a directory with `a-large`, and acts while that one is read.
fn backup_and_meanwhile(stack: &Stack, act: impl FnOnce()) -> Value {
    let mut child = stack.start(&["backup", "--json"]);
    wait_until_open(&mut child, &stack.path("data/a-large"));
    act();
    let ended = end(child);
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:#?}"))
}

fn stack_with_a_large_file(policy: &str) -> Stack {
    let mut stack = Stack::new();
    let data = stack.files("data");
    File::create(data.join("a-large")).unwrap().set_len(LARGE_BYTES).unwrap();
    fs::write(data.join("z-last"), "the last").unwrap();
    let paths = format!("[component.files]\nkind = \"files\"\npaths = [\"{}\"]\n", data.display());
    stack.set(&format!("{paths}{policy}"));
    stack
}

#[test]
fn a_vanished_file_is_listed() {
    let stack = stack_with_a_large_file("");
    let data = stack.path("data");
    let value = backup_and_meanwhile(&stack, || fs::remove_file(data.join("z-last")).unwrap());
    let listed = stack.place.json(0, &["ls", "latest", "files", "--recursive"])["result"]["entries"].to_string();
    assert!(!listed.contains("z-last"), "{listed}");
    let files = files_of(&value);
    assert_eq!(files["notes"]["counts"]["vanished"], 1, "{value}");
    assert!(files["notes"]["listed"].to_string().contains("z-last"), "{files}");
    assert_eq!((value["exit_code"].as_u64(), value["result"]["state"].as_str()), (Some(0), Some("complete")));
    assert!(stack.place.ends(0, &["show"]).out.contains("z-last"));
}

#[test]
fn a_vanished_file_makes_the_point_partial_where_the_policy_says_so() {
    let stack = stack_with_a_large_file("policy = { vanished = \"partial\" }");
    let data = stack.path("data");
    let value = backup_and_meanwhile(&stack, || fs::remove_file(data.join("z-last")).unwrap());
    assert_eq!((value["exit_code"].as_u64(), value["result"]["state"].as_str()), (Some(3), Some("partial")), "{value}");
    assert_eq!(stack.complete_points(), Vec::<String>::new());
    fs::remove_file(data.join("a-large")).unwrap();
    stack.complete();
}

#[test]
fn a_file_that_grows_while_it_is_read_is_listed() {
    let stack = stack_with_a_large_file("policy = { changed = \"partial\" }");
    let large = stack.path("data/a-large");
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (seen, path) = (over.clone(), large.clone());
    let value = std::thread::scope(|scope| {
        let value = backup_and_meanwhile(&stack, || {
            scope.spawn(move || {
                let mut file = File::options().append(true).open(path).unwrap();
                while !seen.load(std::sync::atomic::Ordering::SeqCst) {
                    file.write_all(b"more").unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            });
        });
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        value
    });
    assert_eq!(files_of(&value)["notes"]["counts"]["changed-while-read"], 1, "{value}");
    assert_eq!((value["exit_code"].as_u64(), value["result"]["state"].as_str()), (Some(3), Some("partial")), "{value}");
    // Whatever was stored is one whole state: it can be read back.
    stack.place.json(0, &["verify", "--read-data"]);
    fs::remove_file(large).unwrap();
    stack.complete();
}

#[test]
fn a_file_that_cannot_be_read_makes_the_point_partial() {
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::write(data.join("open"), "open").unwrap();
    fs::write(data.join("closed"), "closed").unwrap();
    fs::set_permissions(data.join("closed"), Permissions::from_mode(0o000)).unwrap();
    fs::create_dir(data.join("closed-directory")).unwrap();
    fs::write(data.join("closed-directory/inside"), "x").unwrap();
    fs::set_permissions(data.join("closed-directory"), Permissions::from_mode(0o000)).unwrap();
    give_to_nobody(&stack);
    let value = as_nobody(&stack, &["backup", "--json"]);
    let value: Value = serde_json::from_str(&value.out).unwrap_or_else(|error| panic!("{error}: {value:#?}"));
    assert_eq!((value["exit_code"].as_u64(), value["result"]["state"].as_str()), (Some(3), Some("partial")), "{value}");
    let notes = &files_of(&value)["notes"];
    assert_eq!(notes["counts"]["unreadable"], 2, "{notes}");
    let listed = notes["listed"].to_string();
    assert!(listed.contains("closed-directory") && listed.contains("/closed\""), "{listed}");
    assert!(
        value["error"]["hint"].is_string() && value["error"]["message"].as_str().unwrap().contains("files"),
        "{value}"
    );
    for name in ["closed", "closed-directory"] {
        fs::set_permissions(data.join(name), Permissions::from_mode(0o700)).unwrap();
    }
    let ended = as_nobody(&stack, &["backup"]);
    assert_eq!(ended.code, 0, "{ended:#?}");
    let ended = as_nobody(&stack, &["restore", "latest", "--to", "back"]);
    assert_eq!(ended.code, 0, "{ended:#?}");
    super::stack::assert_same_trees(&data, &super::stack::below(&stack.path("back"), &data));
}

#[test]
fn a_path_that_is_not_there_is_no_empty_backup() {
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::write(data.join("noise"), noise(1, 100_000)).unwrap();
    stack.complete();
    // As if its disk was not mounted.
    fs::rename(&data, stack.path("elsewhere")).unwrap();
    stack.fails_alone("files", 20).says("RK-FS-001", &["data"]);
    fs::rename(stack.path("elsewhere"), &data).unwrap();
    stack.complete();
}

/// 65534 on every Linux.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn give_to_nobody(stack: &Stack) {
    if !is_root() {
        return;
    }
    let status = Command::new("chown").arg("-R").arg(format!("{NOBODY}:{NOBODY}")).arg(stack.place.path()).status();
    assert!(status.unwrap().success());
}

/// Runs the program as a user who may not read everything.
fn as_nobody(stack: &Stack, arguments: &[&str]) -> Ended {
    if !is_root() {
        return stack.place.run(arguments);
    }
    // The checkout may be closed to others.
    let program = stack.path("rekindle-program");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_rekindle"), &program).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        chown(&program, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let (user, group) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
    let output = Command::new("setpriv")
        .args([&user, &group, "--clear-groups", "--"])
        .arg(&program)
        .args(arguments)
        .current_dir(stack.place.path())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", stack.place.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ended::of(output)
}
