//! What the service tells whom and when, and when it starts nothing: states, receivers that are down or slow,
//! pauses, the request to stop.

use std::fs;
use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan};
use rekindle_testkit::{Reply, WebReceiver};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::serve::{Served, stop};
use super::serve_clock::at;
use super::stack::{end, wait_until};

const HOOK: &str = "[notify.ops]\nkind = \"webhook\"\nurl = \"file:hook\"\nallow-private = true";

/// A service that tells a webhook of ours everything; somebody holds its kit.
pub(super) fn watched(receiver: &WebReceiver) -> Served {
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
fn a_message_that_is_given_up_is_named_and_never_tried_again() {
    let receiver = WebReceiver::start();
    let served = watched(&receiver);
    let (data, away) = (served.stack.path("data"), served.stack.path("away"));
    let lost = || {
        let ended = served.stack.place.run(&["status", "--json"]);
        serde_json::from_str::<Value>(&ended.out).unwrap()["result"]["messages_lost"].take()
    };
    fs::rename(&data, &away).unwrap();
    receiver.set(Reply::Status(500));
    assert_ne!(served.stack.place.run(&["run", "backup"]).code, 0);
    for attempts in 2..=5 {
        assert_eq!((lost(), receiver.requests().len()), (json!([]), attempts - 1), "it is still tried");
        served.journal().execute("UPDATE parcel SET next = 0", []).unwrap();
        served.stack.place.ends(0, &["run", "verify"]);
    }
    assert!(receiver.requests().iter().all(|request| request.body.contains("\"failed\"")));
    let count = |word: &str| {
        let line = format!("rekindle_notifications_total{{stack=\"shop\",receiver=\"ops\",result=\"{word}\"}} ");
        let text = served.stack.place.read("text.prom");
        text.lines().find_map(|one| one.strip_prefix(&line).map(|number| number.parse::<u32>().unwrap()))
    };
    assert_eq!((count("lost"), count("retried"), count("sent")), (Some(1), Some(4), Some(0)));
    // The receiver is well again: what was given up is not sent, and is not taken for sent.
    receiver.set(Reply::Status(200));
    assert_eq!(served.count("SELECT count(*) FROM parcel"), 0);
    served.stack.place.ends(0, &["run", "verify"]);
    assert_eq!((receiver.requests().len(), count("lost"), count("sent")), (5, Some(1), Some(0)));
    let told = lost();
    let (title, why) = (told[0]["title"].as_str().unwrap(), told[0]["why"].as_str().unwrap());
    assert_eq!((told.as_array().unwrap().len(), &told[0]["receiver"]), (1, &json!("ops")), "{told}");
    assert!(title.contains("backup") && title.contains("shop") && why.contains("500"), "{told}");
    let status = served.stack.place.run(&["status"]);
    assert!(status.out.contains("MESSAGE LOST: `ops` never got") && status.out.contains(title), "{status:#?}");
    assert!(!status.out.contains("canary-hook") && !told.to_string().contains("canary-hook"), "the URL is a secret");

    // What can never arrive is given up at the first answer.
    receiver.set(Reply::Status(404));
    fs::rename(&away, &data).unwrap();
    served.stack.place.ends(0, &["run", "backup"]);
    assert_eq!((receiver.requests().len(), count("lost"), count("retried")), (6, Some(2), Some(4)));
    assert!(lost()[0]["why"].as_str().unwrap().contains("404"), "{}", lost());
    // A journal that cannot be read is no proof that everything arrived.
    fs::write(served.stack.path("state/stacks/shop/journal.sqlite"), "no database").unwrap();
    assert_eq!(lost(), Value::Null);
}

/// Digests so far to this path: their titles and texts.
fn digests(receiver: &WebReceiver, path: &str) -> Vec<(String, String)> {
    let mine = receiver.requests().into_iter().filter(|request| request.target == path);
    let events = mine.map(|request| serde_json::from_str::<Value>(&request.body).unwrap());
    let word = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    events
        .filter(|event| event["kind"] == "digest")
        .map(|event| (word(&event, "title"), word(&event, "text")))
        .collect()
}

/// Two receivers, one told each day and one each Monday, at 8.
fn digested(receiver: &WebReceiver) -> Served {
    let mut served = Served::new("");
    for (name, when) in [("day", "0 8 * * *"), ("week", "0 8 * * 1")] {
        served.stack.place.write(name, &receiver.url(&format!("/{name}")));
        served.stack.add(&format!(
            "[notify.{name}]\nkind = \"webhook\"\nurl = \"file:{name}\"\nallow-private = true\ndigest = \"{when}\""
        ));
    }
    // Nothing else is to be told.
    served.stack.place.ends(0, &["kit", "confirm", "--note", "safe"]);
    served
}

#[test]
fn a_digest_comes_once_in_its_period_and_says_what_every_run_became() {
    let receiver = WebReceiver::start();
    let served = digested(&receiver);
    let (data, away) = (served.stack.path("data"), served.stack.path("away"));
    let mut tuesday = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).tomorrow().unwrap().start_of_day().unwrap();
    while tuesday.weekday() != jiff::civil::Weekday::Tuesday {
        tuesday = tuesday.tomorrow().unwrap();
    }
    let counts = || (digests(&receiver, "/day").len(), digests(&receiver, "/week").len());
    // Day, hour and minute; the task and its exit code; digests to `day` and `week` after it.
    let runs = [
        ((0, 9, 0), "backup", 0, (0, 0)),
        ((0, 15, 0), "backup", 0, (0, 0)),
        ((1, 7, 55), "broken", 1, (0, 0)),
        ((1, 8, 1), "verify", 0, (1, 0)),
        ((1, 20, 0), "backup", 0, (1, 0)),
        ((2, 9, 0), "backup", 0, (2, 0)),
        ((2, 10, 0), "verify", 0, (2, 0)),
        // The host was off for days: one for all of them.
        ((6, 8, 1), "backup", 0, (3, 1)),
        ((6, 9, 0), "verify", 0, (3, 1)),
    ];
    for ((day, hour, minute), task, code, expected) in runs {
        let moment = &tuesday + day.days();
        let moment = (moment + hour.hours() + minute.minutes()).timestamp();
        let broken = task == "broken";
        if broken {
            fs::rename(&data, &away).unwrap();
        }
        let ended = at(&served.stack, moment, &["run", if broken { "backup" } else { task }]);
        assert_eq!(ended.code == 0, code == 0, "{moment}: {ended:#?}");
        if broken {
            fs::rename(&away, &data).unwrap();
        }
        assert_eq!(counts(), expected, "{moment}");
    }
    let (daily, weekly) = (digests(&receiver, "/day"), digests(&receiver, "/week"));
    let good: Vec<&str> = daily.iter().chain(&weekly).map(|(title, _)| title.split(" runs").next().unwrap()).collect();
    assert_eq!(good, ["`shop`: 2 of 3", "`shop`: 2 of 2", "`shop`: 2 of 2", "`shop`: 6 of 7"]);
    let (title, text) = &daily[0];
    let date = |day: i32| (&tuesday + day.days()).date().to_string();
    assert!(title.contains(&format!("since {}T09:", date(0))), "{title}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with(&format!("backup files at {}T07:55", date(1))), "the run that failed: {text}");
    assert!(lines[0].contains("files") && !lines[0].contains("no reason"), "and why: {text}");
    assert!(lines[1].starts_with(&format!("files: captured {}T15:", date(0))), "{text}");
    assert!(lines[1].contains("proved never") && lines[1].contains("MiB"), "{text}");
    assert!(weekly[0].0.contains(&format!("since {}T09:", date(0))), "{weekly:?}");
    assert!(!daily[1].1.contains("backup files at"), "nothing failed on that day: {daily:?}");
}

#[test]
fn the_service_sends_a_digest_once_also_after_a_restart() {
    let receiver = WebReceiver::start();
    let served = digested(&receiver);
    began(&served);
    assert_eq!(digests(&receiver, "/day"), [], "nothing was due yet");
    let yesterday = (Timestamp::now() - 25.hours()).to_string();
    served.journal().execute("UPDATE fact SET value = ?1 WHERE name = 'digest day'", [yesterday]).unwrap();
    let child = served.start();
    wait_until("the digest", || !digests(&receiver, "/day").is_empty());
    let sent = "rekindle_notifications_total{stack=\"shop\",receiver=\"day\",result=\"sent\"} 1";
    wait_until("its count", || served.stack.place.read("text.prom").contains(sent));
    stop(child);
    // Another life looks again, and has nothing to say.
    began(&served);
    assert_eq!(digests(&receiver, "/day").len(), 1);
    assert_eq!(served.count("SELECT count(*) FROM parcel"), 0);
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
fn a_test_message_leaves_no_incident_behind() {
    let receiver = WebReceiver::start();
    let mut served = Served::new("");
    served.stack.place.write("routing", "canary-routing-key");
    served.stack.add(&format!(
        "[notify.duty]\nkind = \"pagerduty\"\nrouting-key = \"file:routing\"\nurl = \"{}\"\nallow-private = true",
        receiver.url("/v2/enqueue")
    ));
    served.stack.place.ends(0, &["notify", "test"]);
    let heard: Vec<Value> = receiver.requests().iter().map(|one| serde_json::from_str(&one.body).unwrap()).collect();
    let actions: Vec<&Value> = heard.iter().map(|event| &event["event_action"]).collect();
    assert_eq!(actions, ["trigger", "resolve"], "{heard:#?}");
    assert_eq!(heard[0]["dedup_key"], heard[1]["dedup_key"]);
    // Nothing would end a digest.
    let file = served.stack.place.read("rekindle.toml");
    served.stack.place.write("rekindle.toml", &file.replace("[notify.duty]", "[notify.duty]\ndigest = \"0 8 * * *\""));
    served.stack.place.ends(5, &["check-config"]).says("RK-CF-003", &["notify.duty.digest"]);
}

#[test]
fn what_is_due_while_its_last_run_goes_on_is_in_the_queue() {
    let mut served = Served::new("");
    began(&served);
    served.stack.set("[hooks]\nbefore = [\"sleep 300\"]");
    served.an_hour_passes();
    let child = served.start();
    wait_until("the run", || served.metric("rekindle_running").as_deref() == Some("1"));
    assert_eq!(served.metric("rekindle_queued").as_deref(), Some("0"));
    served.an_hour_passes();
    wait_until("the next one", || served.metric("rekindle_queued").as_deref() == Some("1"));
    assert_eq!(served.count("SELECT count(*) FROM run"), 1, "it waits");
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    end(child);
}

#[test]
fn a_message_that_the_journal_cannot_give_back_is_named_as_lost() {
    let receiver = WebReceiver::start();
    let served = watched(&receiver);
    fs::rename(served.stack.path("data"), served.stack.path("away")).unwrap();
    receiver.set(Reply::Status(500));
    assert_ne!(served.stack.place.run(&["run", "backup"]).code, 0);
    served.journal().execute("UPDATE parcel SET event = '{', next = 0", []).unwrap();
    receiver.set(Reply::Status(200));
    served.stack.place.ends(0, &["run", "verify"]);
    let said: Value = serde_json::from_str(&served.stack.place.run(&["status", "--json"]).out).unwrap();
    let lost = said["result"]["messages_lost"].to_string();
    assert!(lost.contains("(not readable)") && lost.contains("\"receiver\":\"ops\""), "{lost}");
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
