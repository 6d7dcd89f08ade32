//! Lines of cron without a service: they take turns, keep to pauses, and one that never has its turn is told.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rekindle_testkit::WebReceiver;

use super::serve::{Served, stop};
use super::serve_events::watched;
use super::stack::{end, wait_until};

const RUNS: &str = "SELECT count(*) FROM run";
const GOOD: &str = "SELECT count(*) FROM run WHERE how = 'good'";

/// From now on a backup goes on until the second file is there; then the first one says that it has begun.
fn held(served: &mut Served) -> (PathBuf, PathBuf) {
    let (begun, go) = (served.stack.path("begun"), served.stack.path("go"));
    let script = served.stack.path("wait.sh");
    let text = format!("touch {}; while [ ! -e {} ]; do sleep 0.1; done", begun.display(), go.display());
    fs::write(&script, text).unwrap();
    served.stack.set(&format!("[hooks]\nbefore = [\"sh {}\"]", script.display()));
    (begun, go)
}

/// How many kinds of lines have ever waited.
fn lines(served: &Served) -> usize {
    let entries = fs::read_dir(served.stack.path("state/stacks/shop")).unwrap().flatten();
    entries.filter(|one| one.file_name().to_string_lossy().starts_with("wait-")).count()
}

#[test]
fn lines_of_one_minute_take_turns_and_what_waits_twice_waits_once() {
    let mut served = Served::new("");
    let (begun, go) = held(&mut served);
    let backup = served.stack.start(&["run", "backup"]);
    wait_until("the backup", || begun.exists());
    let verify = served.stack.start(&["run", "verify"]);
    wait_until("the verification waits", || lines(&served) == 2);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(served.count(RUNS), 1, "it has not begun");
    // The next line of the same kind has nothing to add.
    let doubled = served.stack.place.json(75, &["run", "verify", "--wait", "0"]);
    assert_eq!(doubled["result"]["waits"], true);
    fs::write(&go, "").unwrap();
    assert_eq!((end(backup).code, end(verify).code), (0, 0));
    assert_eq!(served.count(GOOD), 2);
}

#[test]
fn a_line_that_never_has_its_turn_is_written_down_and_told() {
    let receiver = WebReceiver::start();
    let mut served = watched(&receiver);
    let (begun, go) = held(&mut served);
    let backup = served.stack.start(&["run", "backup"]);
    wait_until("the backup", || begun.exists());
    let ended = served.stack.place.ends(11, &["run", "verify", "--wait", "1"]);
    ended.says("RK-EN-006", &["run verify", "backup files", "--wait"]);
    let again = "SELECT count(*) FROM run WHERE task = 'verify' AND how = 'again' AND code = 'RK-EN-006'";
    assert_eq!(served.count(again), 1);
    let told = receiver.requests();
    assert!(told.len() == 1 && told[0].body.contains("verify of `shop` failed"), "{told:#?}");
    fs::write(&go, "").unwrap();
    assert_eq!(end(backup).code, 0);
    served.stack.place.ends(0, &["run", "verify"]);
    assert!(receiver.requests().last().unwrap().body.contains("recovered"));
}

#[test]
fn a_line_beside_a_service_is_refused_at_once() {
    let mut served = Served::new("");
    let child = served.start();
    wait_until("the metrics", || served.metric("rekindle_up").is_some());
    served.stack.place.ends(11, &["run", "verify"]).says("RK-EN-006", &["serve", "cron"]);
    // Also while nothing starts.
    served.stack.set("[pause.release]\nstart = \"0 0 * * *\"\nlength = \"1439m\"");
    served.stack.place.ends(11, &["run", "verify"]).says("RK-EN-006", &["serve", "cron"]);
    served.stack.set("[pause.release]\nstart = \"0 0 1 1 *\"\nlength = \"1m\"");
    stop(child);
    assert_eq!(served.count(RUNS), 0, "nothing was written into the journal of the service");
    served.stack.place.ends(0, &["run", "verify"]);
}

#[test]
fn a_line_waits_for_the_end_of_a_pause() {
    let mut served = Served::new("");
    // All day but its last minute.
    served.stack.set("[pause.release]\nstart = \"0 0 * * *\"\nlength = \"1439m\"");
    served.stack.place.ends(11, &["run", "backup", "--wait", "1"]).says("RK-EN-006", &["a pause is on until"]);
    assert_eq!((served.stack.points().len(), served.count(GOOD)), (0, 0));
    let waiting = served.stack.start(&["run", "backup"]);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(served.stack.points().len(), 0);
    // Asked to stop, it does not wait on.
    rustix::process::kill_process(rustix::process::Pid::from_child(&waiting), rustix::process::Signal::TERM).unwrap();
    assert_eq!(end(waiting).code, 143);
    served.stack.set("[pause.release]\nstart = \"0 0 1 1 *\"\nlength = \"1m\"");
    served.stack.place.ends(0, &["run", "backup"]);
    assert_eq!(served.stack.points().len(), 1);
}

#[test]
fn lines_for_a_clock_that_cron_does_not_have_are_refused() {
    let mut served = Served::new("");
    served.stack.place.set("TZ", "Asia/Tokyo");
    served.stack.place.ends(1, &["install", "cron", "--print"]).says("RK-SV-006", &["time-zone", "UTC", "serve"]);
    served.stack.place.set("TZ", "UTC");
    served.stack.place.ends(0, &["install", "cron", "--print"]);
}

#[test]
fn a_hook_that_leaves_a_run_out_makes_no_failure_of_it() {
    let receiver = WebReceiver::start();
    let mut served = watched(&receiver);
    served.stack.place.ends(0, &["run", "backup"]);
    served.stack.set("[hooks]\nbefore = [\"sh -c 'exit 75'\"]");
    served.stack.place.ends(75, &["run", "backup"]);
    assert_eq!(served.count("SELECT count(*) FROM run_job WHERE how = 'skipped'"), 1);
    assert_eq!(receiver.requests().len(), 0, "nothing is wrong");
    let text = served.stack.place.read("text.prom");
    let line = |name: &str| format!("{name}{{stack=\"shop\",task=\"backup\",component=\"files\"}} 1");
    assert!(text.contains(&line("rekindle_last_attempt_success")), "{text}");
    assert!(text.contains("result=\"skipped\"} 1"), "{text}");
}
