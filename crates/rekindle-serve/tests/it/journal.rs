//! The journal: what it says after runs, crashes and damage.

use std::slice::from_ref;
use std::time::Duration;

use jiff::Timestamp;
use rekindle_core::RunId;
use rekindle_core::schedule::{Ended, JobName, Queued, Run, RunState, Task};
use rekindle_serve::notice::{Event, EventKind, Teller};
use rekindle_serve::notify::{Channel, Lookup, Receiver, Web};
use rekindle_serve::{Journal, Report};
use serde_json::json;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_780_000_000 + second).unwrap()
}

fn job(component: &str) -> JobName {
    JobName { task: Task::Backup, component: Some(component.parse().unwrap()) }
}

fn run_of(components: &[&str], slot: Timestamp) -> Run {
    let queued = |name: &&str| Queued { job: job(name), slot, since: slot, missed: 2, attempt: 1, hold: None };
    Run { task: Task::Backup, jobs: components.iter().map(queued).collect() }
}

fn id(n: u32) -> RunId {
    RunId::new(at(0), n)
}

#[test]
fn a_run_is_known_before_it_ends_and_after() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path(), at(0)).unwrap();
    assert!(journal.fresh);
    assert_eq!(journal.known(&job("db"), at(0)).unwrap().newest, None);
    journal.known(&job("files"), at(0)).unwrap();
    journal.begin(&id(1), &run_of(&["db", "files"], at(60)), at(61)).unwrap();
    drop(journal);
    // Another life.
    let mut journal = Journal::open(directory.path(), at(70)).unwrap();
    assert!(!journal.fresh);
    assert_eq!(journal.known(&job("db"), at(70)).unwrap().newest.unwrap().state, RunState::Running);
    assert_eq!(journal.open_runs().unwrap().len(), 1);
    let answer = json!({"exit_code": 3, "result": {"point": "ab", "components": [
        {"component": "db", "state": "captured", "bytes": 7, "stored_bytes": 5, "captured_at": at(65).to_string(), "notes": {"partial": 0}},
        {"component": "files", "state": "missing"},
    ]}});
    let problem = Some(("RK-EN-003".to_owned(), "missing: files".to_owned()));
    let report = Report { how: Ended::Bad, exit_code: Some(3), answer: Some(answer), problem };
    journal.end(id(1).as_str(), &report, at(80)).unwrap();
    assert!(journal.open_runs().unwrap().is_empty());
    let (db, files) = (journal.known(&job("db"), at(81)).unwrap(), journal.known(&job("files"), at(81)).unwrap());
    assert_eq!(db.newest.unwrap().state, RunState::Ended { how: Ended::Good, at: at(80) });
    assert_eq!(files.newest.unwrap().state, RunState::Ended { how: Ended::Bad, at: at(80) });
    assert_eq!((db.newest_good, files.newest_good), (Some(at(65)), None));
    let (newest, _) = journal.record(&job("db")).unwrap();
    assert_eq!((newest.as_ref().unwrap().bytes, newest.unwrap().stored_bytes), (Some(7), Some(5)));
    let totals = journal.totals().unwrap();
    assert_eq!(totals[&("missed".to_owned(), "backup".to_owned())], 4);
    assert_eq!(totals[&("runs".to_owned(), "backup good".to_owned())], 1);
    let list = journal.runs(10).unwrap();
    assert_eq!((list.len(), list[0].point.as_deref(), list[0].code.as_deref()), (1, Some("ab"), Some("RK-EN-003")));
}

#[test]
fn a_damaged_journal_is_put_aside_and_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.sqlite");
    for damage in ["not a database at all, but long enough to be looked at".repeat(200).into_bytes(), vec![0; 8192]] {
        drop(Journal::open(directory.path(), at(0)).unwrap());
        std::fs::write(&path, &damage).unwrap();
        let journal = Journal::open(directory.path(), at(5)).unwrap();
        assert!(journal.runs(1).unwrap().is_empty());
    }
    let aside = std::fs::read_dir(directory.path()).unwrap().flatten();
    assert!(aside.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("damaged")), "kept for a look");
}

fn secret(text: &'static str) -> Lookup {
    std::sync::Arc::new(move || Ok(rekindle_core::Secret::new(text.to_owned())))
}

fn receiver(channel: Channel) -> Receiver {
    Receiver {
        name: "ops".to_owned(),
        channel,
        events: EventKind::CHOICES.into_iter().collect(),
        tasks: Vec::new(),
        web: Web { timeout: Duration::from_secs(1), allow_private: false, ca_file: None },
    }
}

fn event(kind: EventKind) -> Event {
    Event {
        kind,
        stack: "shop".to_owned(),
        host: "web".to_owned(),
        subject: "backup db".to_owned(),
        title: "x".to_owned(),
        text: "y".to_owned(),
        at: at(0),
        key: "run backup db".to_owned(),
        run: None,
        point: None,
        code: None,
    }
}

#[test]
fn an_incident_ends_with_its_own_condition_only() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path(), at(0)).unwrap();
    let channel = Channel::PagerDuty { url: "https://events.example".to_owned(), routing_key: secret("rk") };
    let receivers = [receiver(channel)];
    let [db, files] = ["run backup db".to_owned(), "run backup files".to_owned()];
    let mut told = |keys: &[String], kind: EventKind| {
        let mut teller = Teller { journal: &mut journal, receivers: &receivers, now: at(1) };
        match kind {
            EventKind::Recovered => teller.close(keys, &event(kind)).unwrap(),
            _ => teller.open(keys, &event(kind)).unwrap(),
        }
        let due = journal.parcels_due(at(1), 10).unwrap();
        let told = due.iter().map(|one| {
            journal.parcel_done(one.id).unwrap();
            serde_json::from_str::<Event>(&one.event).unwrap()
        });
        told.map(|one| (one.kind, one.key)).collect::<Vec<_>>()
    };
    let both = [db.clone(), files.clone()];
    // Both fail in one run, and end in two.
    assert_eq!(told(&both, EventKind::Failed), [(EventKind::Failed, db.clone()), (EventKind::Failed, files.clone())]);
    assert_eq!(told(from_ref(&db), EventKind::Recovered), [(EventKind::Recovered, db.clone())]);
    assert_eq!(told(from_ref(&files), EventKind::Failed), [], "known");
    assert_eq!(told(from_ref(&files), EventKind::Recovered), [(EventKind::Recovered, files.clone())]);
    // They fail in two runs, and end in one.
    assert_eq!(told(from_ref(&db), EventKind::Failed).len(), 1);
    assert_eq!(told(from_ref(&files), EventKind::Failed).len(), 1);
    assert_eq!(told(&both, EventKind::Recovered), [(EventKind::Recovered, db), (EventKind::Recovered, files)]);
}

#[test]
fn a_condition_is_told_once_repeated_daily_and_closed() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path(), at(0)).unwrap();
    let receivers = [receiver(Channel::Slack { url: secret("http://x") })];
    let keys = ["run backup db".to_owned(), "run backup files".to_owned()];
    let mut count = |second: i64, kind: EventKind| {
        let mut teller = Teller { journal: &mut journal, receivers: &receivers, now: at(second) };
        match kind {
            EventKind::Recovered => teller.close(&keys, &event(kind)).unwrap(),
            _ => teller.open(&keys, &event(kind)).unwrap(),
        }
        journal.parcels_waiting().unwrap()
    };
    assert_eq!(count(0, EventKind::Recovered), 0, "nothing was wrong");
    assert_eq!(count(1, EventKind::Failed), 1);
    assert_eq!(count(100, EventKind::Failed), 1, "known");
    assert_eq!(count(200, EventKind::Partial), 2, "another matter");
    assert_eq!(count(300, EventKind::Partial), 2);
    assert_eq!(count(200 + 86_400, EventKind::Partial), 3, "still, after a day");
    assert_eq!(count(90_000, EventKind::Recovered), 4);
    assert_eq!(count(90_001, EventKind::Recovered), 4, "over is over");
}
