//! What the service tells whom and when, and when it starts nothing: states, receivers that are down or slow,
//! pauses, the request to stop.

use std::fs;
use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan};
use rekindle_testkit::{Reply, WebReceiver};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::serve::{Served, stop};
use super::serve_clock::at;
use super::stack::{end, wait_until};

const HOOK: &str = "[notify.ops]\nkind = \"webhook\"\nurl = \"file:hook\"\nallow-private = true";

/// A service that tells a webhook of ours everything; somebody holds its kit.
fn watched(receiver: &WebReceiver) -> Served {
    let mut served = Served::new("");
    served.stack.place.write("hook", &receiver.url("/canary-hook"));
    served.stack.add(HOOK);
    served.stack.place.ends(0, &["kit", "confirm", "--note", "safe"]);
    served
}

/// What came in since the last time, sorted: kind and subject.
struct Heard<'a>(&'a WebReceiver, usize);

impl Heard<'_> {
    fn news(&mut self) -> Vec<String> {
        let all = self.0.requests();
        let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let mut news: Vec<String> = all[self.1..]
            .iter()
            .map(|request| serde_json::from_str::<Value>(&request.body).unwrap())
            .map(|event| format!("{}: {}", word(&event, "kind"), word(&event, "subject")))
            .collect();
        self.1 = all.len();
        news.sort();
        news
    }
}

/// The service was here before: from now on its jobs have a past.
fn began(served: &Served) {
    let child = served.start();
    wait_until("the metrics", || served.metric("rekindle_up").is_some());
    stop(child);
}

fn component(served: &Served, name: &str, directory: &str, more: &str) -> String {
    let path = served.stack.path(directory);
    format!("[component.{name}]\nkind = \"files\"\npaths = [\"{}\"]\nschedule = \"0 * * * *\"\n{more}", path.display())
}

fn serve_table(served: &Served, percent: u32) -> String {
    let text = served.stack.path("text.prom");
    format!("[serve]\ntime-zone = \"UTC\"\nmin-free-percent = {percent}\ntextfile = \"{}\"", text.display())
}

#[test]
fn every_state_is_told_once_and_again_when_it_is_over() {
    let receiver = WebReceiver::start();
    let (mut served, mut heard) = (watched(&receiver), Heard(&receiver, 0));
    served.stack.set(&component(&served, "files", "data", "objective = { rpo = \"2h\", proof = \"1d\" }"));
    // Nearly full, unless the disk of this host is nearly empty.
    served.stack.set(&serve_table(&served, 90));
    let room = rustix::fs::statvfs(served.stack.place.path()).unwrap();
    let full = room.f_bavail * 100 < room.f_blocks * 90;
    let early = at(&served.stack, Timestamp::now() - 3.hours(), &["backup"]);
    assert_eq!(early.code, 0, "{early:#?}");
    served.stack.place.ends(0, &["run", "verify"]);
    let late = ["objective-missed: backup files", "overdue: backup files"];
    let capacity = full.then_some("capacity: repository");
    assert_eq!(heard.news(), capacity.into_iter().chain(late).collect::<Vec<_>>());
    for _ in 0..25 {
        served.an_hour_passes();
    }
    served.stack.place.ends(0, &["run", "verify"]);
    assert_eq!(heard.news(), ["proof-old: drill files"], "and nothing twice");

    served.stack.set(&component(&served, "more", "nowhere", ""));
    served.stack.place.ends(3, &["run", "backup"]);
    assert_eq!(heard.news(), ["partial: backup files more", "recovered: backup files", "recovered: backup files"]);
    fs::create_dir(served.stack.path("nowhere")).unwrap();
    served.stack.set(&serve_table(&served, 1));
    served.stack.place.ends(0, &["drill", "files"]);
    served.stack.place.ends(0, &["run", "backup"]);
    let over = ["recovered: backup files more", "recovered: drill files"];
    let capacity = full.then_some("recovered: repository");
    assert_eq!(heard.news(), over.into_iter().chain(capacity).collect::<Vec<_>>(), "partial, proof, capacity");
    served.stack.place.ends(0, &["run", "verify"]);
    assert_eq!(heard.news(), [] as [&str; 0]);
}

#[test]
fn a_message_waits_for_a_receiver_that_is_down_and_is_not_lost_with_the_process() {
    let receiver = WebReceiver::start();
    let served = watched(&receiver);
    let (data, away) = (served.stack.path("data"), served.stack.path("away"));
    fs::rename(&data, &away).unwrap();
    receiver.set(Reply::Status(500));
    assert_ne!(served.stack.place.run(&["run", "backup"]).code, 0);
    let tried = receiver.requests().len();
    assert_eq!(tried, 1);
    let retried = "rekindle_notifications_total{stack=\"shop\",receiver=\"ops\",result=\"retried\"} 1";
    assert!(served.stack.place.read("text.prom").contains(retried));
    receiver.set(Reply::Status(200));
    // Its time has not come; then it has.
    served.stack.place.ends(0, &["run", "verify"]);
    assert_eq!(receiver.requests().len(), tried);
    served.journal().execute("UPDATE parcel SET next = 0", []).unwrap();
    served.stack.place.ends(0, &["run", "verify"]);
    let requests = receiver.requests();
    assert!(requests.len() == 2 && requests[1].body.contains("failed"), "{requests:#?}");
}

#[test]
fn a_slow_receiver_holds_up_no_run_and_no_stop() {
    let receiver = WebReceiver::start();
    let mut served = watched(&receiver);
    // It hears of every run, and answers in its own time.
    served.stack.set(&format!("{HOOK}\nevents = [\"failed\", \"capacity\", \"recovered\"]"));
    receiver.set(Reply::Late(Duration::from_secs(15)));
    served.stack.set("[hooks]\nbefore = [\"exit 1\"]");
    began(&served);
    served.an_hour_passes();
    let child = served.start();
    wait_until("a failed run", || served.count("SELECT count(*) FROM run WHERE how = 'bad'") == 1);
    wait_until("the message", || receiver.requests().len() == 1);
    served.stack.set("[hooks]\nbefore = [\"true\"]");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let begun = Instant::now();
    assert_eq!(end(child).code, 0);
    assert!(begun.elapsed() < Duration::from_secs(10), "it waited for the receiver");
    served.an_hour_passes();
    // The message is still known, and the next life runs what is due.
    assert_eq!(served.count("SELECT count(*) FROM parcel"), 1);
    let child = served.start();
    wait_until("a good run", || served.count("SELECT count(*) FROM run WHERE how = 'good'") == 1);
    stop(child);
}

#[test]
fn in_a_maintenance_window_what_is_due_waits_and_is_shown() {
    let mut served = Served::new("");
    began(&served);
    served.an_hour_passes();
    // All day but its last minute.
    served.stack.set("[pause.release]\nstart = \"0 0 * * *\"\nlength = \"1439m\"");
    let child = served.start();
    wait_until("the queue", || served.metric("rekindle_queued").as_deref() == Some("1"));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(served.count("SELECT count(*) FROM run"), 0, "nothing starts in it");
    stop(child);
    served.stack.set("[pause.release]\nstart = \"0 0 1 1 *\"\nlength = \"1m\"");
    let child = served.start();
    wait_until("the run", || served.count("SELECT count(*) FROM run WHERE how = 'good'") == 1);
    wait_until("an empty queue", || served.metric("rekindle_queued").as_deref() == Some("0"));
    stop(child);
}

#[test]
fn asked_to_stop_a_run_ends_in_its_grace_and_is_asked_to_after_it() {
    let mut served = Served::new("");
    began(&served);
    let running = "SELECT count(*) FROM run WHERE ended IS NULL";
    served.stack.set("[hooks]\nbefore = [\"sleep 3\"]");
    served.an_hour_passes();
    let child = served.start();
    wait_until("the run", || served.count(running) == 1);
    stop(child);
    assert_eq!(served.count("SELECT count(*) FROM run WHERE how = 'good'"), 1, "it was let end");
    assert_eq!((served.stack.points().len(), served.count(running)), (1, 0));
    // After it, the run is asked to stop, and the next life does what was interrupted.
    served.stack.set("[hooks]\nbefore = [\"sleep 300\"]");
    let file = served.stack.place.read("rekindle.toml");
    served.stack.place.write("rekindle.toml", &file.replace("grace = \"20s\"", "grace = \"1s\""));
    served.an_hour_passes();
    let child = served.start();
    wait_until("the run", || served.count(running) == 1);
    let asked = Instant::now();
    stop(child);
    assert!(asked.elapsed() < Duration::from_secs(30), "it was not asked");
    assert_eq!(served.count("SELECT count(*) FROM run WHERE how = 'interrupted'"), 1);
    assert_eq!((served.stack.points().len(), served.count(running)), (1, 0));
    served.stack.set("[hooks]\nbefore = [\"true\"]");
    let child = served.start();
    wait_until("the second point", || served.count("SELECT count(*) FROM run WHERE how = 'good'") == 2);
    stop(child);
}
