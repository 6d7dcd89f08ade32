//! Runs that a dead service left open: written down by what the repository holds, and told.

use std::fs;

use rekindle_testkit::WebReceiver;
use serde_json::Value;

use super::serve::{Served, stop};
use super::serve_events::watched;
use super::stack::wait_until;

/// As a service leaves it that is killed between the last write of a run and the journal.
fn left_open(served: &Served, run: &str, attempt: u32) {
    let journal = served.journal();
    let now = jiff::Timestamp::now().as_millisecond();
    journal.execute("INSERT INTO run (id, task, started) VALUES (?1, 'backup', ?2)", (run, now)).unwrap();
    journal
        .execute(
            "INSERT INTO run_job (run, task, component, slot, attempt, missed, started) VALUES (?1, 'backup', 'files', ?2, ?3, 0, ?2)",
            (run, now, attempt),
        )
        .unwrap();
}

fn titles(receiver: &WebReceiver) -> Vec<String> {
    let all = receiver.requests();
    let title = |body: &str| serde_json::from_str::<Value>(body).unwrap()["title"].as_str().unwrap().to_owned();
    all.iter().map(|request| title(&request.body)).collect()
}

#[test]
fn a_run_stays_open_while_the_repository_cannot_be_asked_and_is_good_when_its_point_is_found() {
    let receiver = WebReceiver::start();
    let served = watched(&receiver);
    served.stack.place.ends(0, &["run", "verify"]);
    let run = served.stack.complete()["run"].as_str().unwrap().to_owned();
    left_open(&served, &run, 1);
    let (repo, away) = (served.stack.path("repo"), served.stack.path("away"));
    fs::rename(&repo, &away).unwrap();
    let child = served.start();
    wait_until("the message", || titles(&receiver).iter().any(|one| one.contains("what became of a run of `shop`")));
    wait_until("the metrics", || served.metric("rekindle_up").is_some());
    let open = "SELECT count(*) FROM run WHERE ended IS NULL";
    assert_eq!((served.count(open), served.count("SELECT count(*) FROM run")), (1, 2), "nothing is run meanwhile");
    fs::rename(&away, &repo).unwrap();
    wait_until("the truth", || served.count(open) == 0);
    assert_eq!(served.count("SELECT count(*) FROM run_job WHERE task = 'backup' AND how = 'good'"), 1);
    assert_eq!(served.stack.points().len(), 1, "it was not run again");
    wait_until("the end of it", || titles(&receiver).iter().any(|one| one.contains("is well again")));
    stop(child);
}

#[test]
fn a_run_that_was_lost_at_its_last_attempt_is_told() {
    let receiver = WebReceiver::start();
    let served = watched(&receiver);
    served.stack.place.ends(0, &["run", "verify"]);
    left_open(&served, "20260101T000000Z-00000000", 3);
    served.stack.place.ends(0, &["run", "verify"]);
    assert_eq!(titles(&receiver), ["backup of files of `shop` failed"]);
    served.stack.place.ends(0, &["run", "backup"]);
    assert_eq!(titles(&receiver).len(), 2, "and when it works again");
}
