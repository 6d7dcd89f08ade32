//! Hooks around runs and components, and what two runs at a time do.

use std::fs;

use serde_json::json;

use super::stack::{Stack, end, wait_until};

/// A stack whose hooks write a line each into `log`.
fn stack_with_hooks(before_of_run: &str, before_of_files: &str) -> Stack {
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::write(data.join("a"), "one").unwrap();
    let log = stack.path("log").display().to_string();
    let note = |word: &str| {
        let variables = "$REKINDLE_HOOK $REKINDLE_STATUS ${REKINDLE_COMPONENT:-run} $REKINDLE_ERROR_CODE";
        json!(format!("echo {word} {variables} >> {log}")).to_string()
    };
    let hooks = |before: &str, word: &str| {
        let first = if before.is_empty() { note(word) } else { json!(before).to_string() };
        format!("before = [{first}]\nafter = [{}]\non-error = [{}]", note(word), note(word))
    };
    let paths = format!("[component.files]\nkind = \"files\"\npaths = [\"{}\"]\n", data.display());
    let of_files = hooks(before_of_files, "files");
    stack.set(&format!("{paths}[component.files.hooks]\n{of_files}"));
    stack.add(&format!("[hooks]\n{}", hooks(before_of_run, "run")));
    stack
}

fn log_of(stack: &Stack) -> Vec<String> {
    let text = fs::read_to_string(stack.path("log")).unwrap_or_default();
    fs::remove_file(stack.path("log")).ok();
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn hooks_run_in_their_order() {
    let stack = stack_with_hooks("", "");
    stack.complete();
    let expected =
        ["run before starting run", "files before starting files", "files after done files", "run after done run"];
    assert_eq!(log_of(&stack), expected);
}

#[test]
fn a_hook_that_fails_ends_its_component_and_after_runs_all_the_same() {
    let stack = stack_with_hooks("", "echo broken >&2; exit 3");
    let ended = stack.fails_alone("files", 1);
    ended.says("RK-EN-004", &["files", "3"]);
    let log = log_of(&stack);
    let expected = [
        "run before starting run",
        "files on-error failed files RK-EN-004",
        "files after failed files RK-EN-004",
        "run on-error failed run RK-EN-004",
        "run after failed run RK-EN-004",
    ];
    assert_eq!(log, expected);
    let stack = stack_with_hooks("exit 1", "");
    stack.place.ends(1, &["backup"]).says("RK-EN-004", &["exit status: 1"]);
    assert_eq!(stack.points(), Vec::<serde_json::Value>::new());
    assert!(!log_of(&stack).iter().any(|line| line.starts_with("files")), "no component was begun");
}

#[test]
fn a_hook_can_skip_a_run_softly() {
    let stack = stack_with_hooks("exit 75", "");
    let ended = stack.place.ends(75, &["backup"]);
    assert!(ended.err.contains("RK-EN-005"), "{ended:#?}");
    assert_eq!(log_of(&stack), ["run after skipped run RK-EN-005"]);
    assert_eq!(stack.points(), Vec::<serde_json::Value>::new());
}

#[test]
fn a_hook_that_hangs_is_ended() {
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::write(data.join("a"), "one").unwrap();
    stack.add("[hooks]\nbefore = [\"sleep 600\"]\ntimeout = \"1s\"");
    stack.place.ends(1, &["backup"]).says("RK-EN-004", &["did not end within 1 s"]);
}

#[test]
fn a_second_run_of_a_stack_waits_for_nobody_and_is_11() {
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::write(data.join("a"), "one").unwrap();
    let (hold, begun) = (stack.path("hold"), stack.path("begun"));
    fs::write(&hold, "").unwrap();
    let hook = format!("touch {}; while test -e {}; do sleep 0.05; done", begun.display(), hold.display());
    let paths = format!("[component.files]\nkind = \"files\"\npaths = [\"{}\"]\n", data.display());
    stack.set(&format!("{paths}hooks = {{ before = [{}] }}", json!(hook)));
    let first = stack.start(&["backup"]);
    wait_until("the first run has begun", || begun.exists());
    let second = stack.place.ends(11, &["backup"]);
    second.says("RK-EN-006", &[]);
    fs::remove_file(&hold).unwrap();
    let ended = end(first);
    assert_eq!(ended.code, 0, "{ended:#?}");
    assert_eq!(stack.points().len(), 1);
}

#[test]
fn retention_refuses_while_the_newest_points_are_partial() {
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::write(data.join("a"), "one").unwrap();
    stack.add("[retention]\nkeep-last = 1\nmin-keep = 1");
    for _ in 0..3 {
        stack.complete();
    }
    // Port 9 (discard) has no server on a test host.
    stack.add("[component.cache]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:9\"");
    for _ in 0..4 {
        stack.partial("cache", &["RK-RD-001"]);
    }
    let before = stack.points();
    stack.place.ends(21, &["forget"]).says("RK-EN-010", &["partial"]);
    assert_eq!(stack.points(), before);
}
