//! The service does every kind of task by itself, tells a watcher of each run, and keeps its word to systemd and to
//! the clock of its zone.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use rekindle_testkit::WebReceiver;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::serve::{Served, stop};
use super::stack::{end, wait_until};

const TASKS: [&str; 6] = ["backup", "verify", "drill", "prune", "copy", "maintenance"];

/// Every hour all of it.
fn busy(pulse: &WebReceiver) -> Served {
    let hourly = ["verify", "drill", "prune", "daily"].map(|key| format!("{key} = \"0 * * * *\"")).join("\n");
    let mut served = Served::new(&format!("{hourly}\nverify-data = \"50%\""));
    let place = &mut served.stack.place;
    place.write("pulse", &pulse.url("/canary-pulse"));
    place.write("copy-key", "canary-password-of-the-copy");
    let url = format!("file://{}", place.path().join("copy").display());
    served.stack.set(&format!("[copy.near]\nurl = \"{url}\"\npassword = \"file:copy-key\"\nschedule = \"0 * * * *\""));
    served.stack.set("[retention]\nkeep-last = 2\nmin-keep = 1");
    served.stack.add("[notify.pulse]\nkind = \"ping\"\nurl = \"file:pulse\"\nallow-private = true");
    served
}

/// The scheduled jobs as `status` shows them.
fn jobs(served: &Served) -> Vec<Value> {
    let said: Value = serde_json::from_str(&served.stack.place.run(&["status", "--json"]).out).unwrap();
    said["result"]["jobs"].as_array().unwrap_or_else(|| panic!("{said:#}")).clone()
}

#[test]
fn every_task_is_done_by_itself_and_each_run_is_a_sign_of_life() {
    let pulse = WebReceiver::start();
    let served = busy(&pulse);
    served.stack.complete();
    served.stack.place.json(0, &["copy", "--init"]);
    let child = served.start();
    wait_until("the metrics", || served.metric("rekindle_up").is_some());
    stop(child);
    assert_eq!(served.count("SELECT count(*) FROM run"), 0, "nothing was due yet");
    served.an_hour_passes();
    // The data has to look new to the copy.
    served.stack.complete();
    let child = served.start();
    let done =
        |task: &str| served.count(&format!("SELECT count(*) FROM run WHERE task = '{task}' AND ended IS NOT NULL"));
    wait_until("all of it", || TASKS.iter().all(|task| done(task) == 1));
    for task in TASKS {
        assert_eq!(
            served.count(&format!("SELECT count(*) FROM run WHERE task = '{task}' AND how = 'good'")),
            1,
            "{task}"
        );
    }
    wait_until("its signs of life", || pulse.requests().len() >= 2 * TASKS.len());
    stop(child);
    let heard = pulse.requests();
    let of = |path: &str| heard.iter().filter(|one| one.target.split('?').next() == Some(path)).count();
    assert_eq!((of("/canary-pulse/start"), of("/canary-pulse")), (TASKS.len(), TASKS.len()), "{heard:#?}");
    assert!(served.stack.points().len() <= 2, "retention was applied");
    served.stack.place.json(0, &["list", "--copy", "near"]);
    let shown = jobs(&served);
    assert_eq!(shown.len(), TASKS.len());
    assert!(shown.iter().all(|job| job["newest_good"].is_string() && job["overdue_since"].is_null()), "{shown:#?}");
}

#[test]
fn what_somebody_did_by_hand_is_overdue_no_more() {
    let served = busy(&WebReceiver::start());
    served.stack.complete();
    served.stack.place.json(0, &["copy", "--init"]);
    served.stack.place.json(0, &["run", "verify"]);
    served.an_hour_passes();
    served.an_hour_passes();
    let overdue = || -> Vec<String> {
        let late = jobs(&served).into_iter().filter(|job| job["overdue_since"].is_string());
        late.map(|job| job["task"].as_str().unwrap().to_owned()).collect()
    };
    // The point of a moment ago is in the repository.
    assert_eq!(overdue(), ["verify", "drill", "prune", "copy", "maintenance"]);
    let shown = served.stack.place.run(&["status"]).out;
    assert!(shown.contains("OVERDUE since"), "{shown}");
    for verb in [&["verify"][..], &["drill"], &["prune"], &["copy"], &["maintenance", "daily"]] {
        served.stack.place.json(0, verb);
    }
    // These did less than the schedule wants: no data was read, nothing was forgotten.
    assert_eq!(overdue(), ["verify", "prune"]);
    let elsewhere = format!("file://{}", served.stack.path("copy").display());
    let there = ["verify", "--read-data=50%", "--repo", &elsewhere, "--password-file", "copy-key"];
    served.stack.place.ends(0, &there);
    assert_eq!(overdue(), ["verify", "prune"], "who names a repository says nothing about this stack");
    served.stack.place.json(0, &["verify", "--read-data=50%"]);
    assert_eq!(overdue(), ["prune"]);
    served.stack.place.json(0, &["run", "prune"]);
    assert_eq!(overdue(), [] as [&str; 0]);
}

#[test]
fn systemd_is_told_of_the_start_of_each_look_and_of_the_end() {
    let mut served = Served::new("");
    let path = served.stack.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    served.stack.place.set("NOTIFY_SOCKET", path.to_str().unwrap());
    // A third of it is the longest sleep.
    served.stack.place.set("WATCHDOG_USEC", "1500000");
    let child = served.start();
    let hear = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let mut heard = Vec::new();
    while heard.iter().filter(|word| *word == "WATCHDOG=1").count() < 4 {
        heard.push(hear());
    }
    assert_eq!(heard[0], "READY=1", "{heard:?}");
    stop(child);
    let mut last = hear();
    while last == "WATCHDOG=1" {
        last = hear();
    }
    assert_eq!(last, "STOPPING=1");
}

#[test]
fn jitter_of_the_configuration_puts_a_task_off_by_the_same_time_each_day() {
    let served = Served::new("jitter = \"14m\"");
    served.stack.place.json(0, &["run", "verify"]);
    let next = || jobs(&served)[0]["next"].as_str().unwrap().parse::<Timestamp>().unwrap();
    let put_off = next().as_second().rem_euclid(3600);
    assert!((1..=14 * 60).contains(&put_off), "{put_off}");
    let file = served.stack.place.read("rekindle.toml");
    served.stack.place.write("rekindle.toml", &file.replace("host = \"test-host\"", "host = \"another\""));
    assert_ne!(next().as_second().rem_euclid(3600), put_off, "hosts do not come together");
    served.stack.place.write("rekindle.toml", &file);
    assert_eq!(next().as_second().rem_euclid(3600), put_off);
}

/// The service on a clock that shows this moment at first.
fn serve_at(served: &Served, moment: &str) -> std::process::Child {
    let real = served.stack.place.command(&["serve"]);
    let mut command = Command::new("faketime");
    let at = moment.parse::<Timestamp>().unwrap().strftime("@%Y-%m-%d %H:%M:%S").to_string();
    command.args(["-m", "-f", &at]).arg(real.get_program()).args(real.get_args());
    command.current_dir(served.stack.place.path()).env_clear();
    for (name, value) in real.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null()).spawn().unwrap()
}

/// Ends it: faketime waits for the program it has started, and gives no signal on.
fn stop_faked(child: std::process::Child) {
    let parent = child.id().to_string();
    let started = fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // After the name, which may hold anything: state and parent.
        (stat.rsplit(") ").next()?.split(' ').nth(1)? == parent).then_some(pid)
    });
    kill_process(Pid::from_raw(started.expect("the service")).unwrap(), Signal::TERM).unwrap();
    let ended = end(child);
    assert_eq!(ended.code, 0, "{ended:#?}");
}

#[test]
fn on_the_days_of_a_clock_change_the_service_runs_each_occurrence_once() {
    let served = Served::new("");
    let file = served.stack.place.read("rekindle.toml");
    let file = file.replace("time-zone = \"UTC\"", "time-zone = \"Europe/Berlin\"").replace("0 * * * *", "30 2 * * *");
    let file = file.replace("rpo = \"2h\"", "rpo = \"3d\"");
    served.stack.place.write("rekindle.toml", &file);
    let slots = || -> Vec<String> {
        let journal = served.journal();
        let mut query = journal.prepare("SELECT slot FROM run_job WHERE how = 'good' ORDER BY started, rowid").unwrap();
        let slots = query.query_map([], |row| row.get::<_, i64>(0)).unwrap();
        slots.map(|slot| Timestamp::from_millisecond(slot.unwrap()).unwrap().to_string()).collect()
    };
    // The day before, so that the job has a past.
    let child = serve_at(&served, "2026-03-27T12:00:00Z");
    wait_until("the metrics", || served.metric("rekindle_up").is_some());
    stop_faked(child);
    // 02:30 of the 29th is skipped: it runs when the clock shows 03:00, and what was missed on the 28th is in it.
    let child = serve_at(&served, "2026-03-29T00:59:20Z");
    wait_until("the missed one", || !slots().is_empty());
    wait_until("the one after the skipped hour", || slots().len() >= 2);
    stop_faked(child);
    // Seven months of absence are one run; then 02:30 comes twice and is meant once.
    let child = serve_at(&served, "2026-10-25T00:29:20Z");
    wait_until("what was missed", || slots().len() >= 3);
    wait_until("the first 02:30", || slots().len() >= 4);
    stop_faked(child);
    assert!(served.count("SELECT max(missed) FROM run_job") > 200);
    let child = serve_at(&served, "2026-10-25T01:29:50Z");
    wait_until("the metrics", || served.metric("rekindle_up").is_some());
    std::thread::sleep(Duration::from_secs(15));
    stop_faked(child);
    let expected = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z"];
    assert_eq!(slots(), expected, "the second 02:30 is none");
}
