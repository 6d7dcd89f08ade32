//! The service, run as its users run it: cron expressions, kill -9, metrics, messages.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rekindle_testkit::WebReceiver;
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

use super::stack::{Random, Stack, end, noise, wait_until};

/// Killed services in one test; `REKINDLE_TEST_KILLS` says another number.
const KILLS: u64 = 50;

pub(super) struct Served {
    pub(super) stack: Stack,
    pub(super) port: u16,
}

/// Schedules are hourly: one that comes by itself in the middle of a test would be one too many.
fn away_from_the_full_hour() {
    while jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).minute() == 59 {
        std::thread::sleep(Duration::from_millis(500));
    }
}

impl Served {
    pub(super) fn new(more: &str) -> Self {
        away_from_the_full_hour();
        let mut stack = Stack::new();
        stack.quicken();
        let data = stack.path("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("a"), noise(1, 300_000)).unwrap();
        // Nothing else opens this port in the moment until the service does.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        stack.add(&format!(
            "[component.files]\nkind = \"files\"\npaths = [\"{}\"]\nschedule = \"0 * * * *\"\nobjective = {{ rpo = \"2h\" }}",
            data.display()
        ));
        stack.add(&format!(
            "[serve]\ntime-zone = \"UTC\"\nlisten = \"127.0.0.1:{port}\"\ngrace = \"20s\"\nmin-free-percent = 1\ntextfile = \"{}\"\n{more}",
            stack.path("text.prom").display()
        ));
        let state = stack.path("state");
        // `state-dir` belongs to [stack], which the helper writes.
        fs::create_dir(&state).unwrap();
        stack.place.set("STATE_DIRECTORY", state.to_str().unwrap());
        Self { stack, port }
    }

    pub(super) fn journal(&self) -> Connection {
        Connection::open(self.stack.path("state/stacks/shop/journal.sqlite")).unwrap()
    }

    pub(super) fn start(&self) -> Child {
        self.stack.start(&["serve"])
    }

    /// As if an hour had passed: the next occurrence is due, once.
    pub(super) fn an_hour_passes(&self) {
        let hour = 3_600_000;
        let journal = self.journal();
        journal.execute("UPDATE job SET since = since - ?1, newest_good = newest_good - ?1", [hour]).unwrap();
        journal
            .execute("UPDATE run_job SET slot = slot - ?1, started = started - ?1, ended = ended - ?1", [hour])
            .unwrap();
        journal.execute("UPDATE run SET started = started - ?1, ended = ended - ?1", [hour]).unwrap();
    }

    pub(super) fn count(&self, sql: &str) -> i64 {
        self.journal().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn metrics(&self) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.ends_with("# EOF\n").then_some(text)
    }

    /// All samples of a metric together.
    fn sum(&self, name: &str) -> f64 {
        let text = self.metrics().unwrap();
        let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    pub(super) fn metric(&self, name: &str) -> Option<String> {
        let text = self.metrics()?;
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")))?;
        Some(line.rsplit(' ').next()?.to_owned())
    }
}

pub(super) fn stop(child: Child) {
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ended = end(child);
    assert_eq!(ended.code, 0, "{ended:#?}");
}

const GOOD: &str = "SELECT count(*) FROM run WHERE how = 'good'";
const OPEN: &str = "SELECT count(*) FROM run WHERE ended IS NULL";

#[test]
fn serve_runs_what_is_due_catches_up_once_and_stops_cleanly() {
    let served = Served::new("");
    let child = served.start();
    wait_until("the metrics", || served.metrics().is_some());
    assert_eq!(served.count("SELECT count(*) FROM run"), 0, "nothing was due yet");
    let second = served.stack.place.run(&["serve"]);
    assert_eq!(second.code, 11, "{second:#?}");
    stop(child);
    for _ in 0..3 {
        served.an_hour_passes();
    }
    let child = served.start();
    wait_until("the run", || served.count(GOOD) == 1);
    wait_until("its metrics", || served.metric("rekindle_data_timestamp_seconds").is_some());
    stop(child);
    assert_eq!(served.count("SELECT count(*) FROM run"), 1, "three were missed, one was run");
    assert_eq!(served.count("SELECT missed FROM run_job"), 2);
    assert_eq!(served.stack.points().len(), 1);
    let text = served.stack.place.read("text.prom");
    assert!(
        text.contains("rekindle_last_attempt_success{stack=\"shop\",task=\"backup\",component=\"files\"} 1"),
        "{text}"
    );
}

#[test]
fn serve_killed_at_random_keeps_its_journal_its_metrics_and_never_runs_twice() {
    let served = Served::new("");
    stop_when_ready(&served);
    let whole = time_of_a_run(&served);
    let kills = std::env::var("REKINDLE_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let mut random = Random::new(0x5eed_0006);
    let (mut success, mut ended, mut in_the_middle) = (0.0, 0.0, 0);
    for trial in 0..kills {
        away_from_the_full_hour();
        served.an_hour_passes();
        fs::write(served.stack.path("data/a"), noise(trial, 2_000_000)).unwrap();
        let mut child = served.start();
        std::thread::sleep(Duration::from_millis(random.next() % (whole * 5 / 4)));
        child.kill().unwrap();
        child.wait().unwrap();
        in_the_middle += served.count(OPEN);
        // The next life finds out what became of it, and does what is left to do.
        let before = served.count("SELECT count(*) FROM run");
        let child = served.start();
        wait_until("a clean journal", || {
            let due = "SELECT count(*) FROM run_job WHERE how = 'good' AND slot > (unixepoch() - 3700) * 1000";
            served.count(OPEN) == 0 && served.count(due) > 0
        });
        wait_until("the metrics", || served.metric("rekindle_last_success_timestamp_seconds").is_some());
        let now: f64 = served.metric("rekindle_last_success_timestamp_seconds").unwrap().parse().unwrap();
        assert!(now >= success - 3600.0 * 1.01, "trial {trial}: the last success went back from {success} to {now}");
        success = now;
        // Counted on, never from the beginning.
        wait_until("the run in the metrics", || served.sum("rekindle_runs_total") > ended);
        ended = served.sum("rekindle_runs_total");
        stop(child);
        let after = served.count("SELECT count(*) FROM run");
        assert!(after - before <= 2, "trial {trial}: {} runs for one occurrence", after - before);
        // Each good run is one point, and each point one run.
        let good = served.count("SELECT count(*) FROM run WHERE how = 'good' AND task = 'backup'");
        assert_eq!(usize::try_from(good).unwrap(), served.stack.points().len(), "trial {trial}: {}", told(&served));
        // Each occurrence has its good run, and none has two.
        assert_eq!(u64::try_from(good).unwrap(), trial + 2, "trial {trial}: {}", told(&served));
        let twice = "SELECT count(*) FROM (SELECT 1 FROM run_job WHERE how = 'good' GROUP BY slot HAVING count(*) > 1)";
        assert_eq!(served.count(twice), 0, "trial {trial}: an occurrence was run twice: {}", told(&served));
        let together = "SELECT count(*) FROM run AS a JOIN run AS b ON a.id <> b.id AND a.started < b.started \
                        AND b.started < a.ended";
        assert_eq!(served.count(together), 0, "trial {trial}: two runs at once: {}", told(&served));
    }
    // Else the kills came before and after the runs, and nothing was tried.
    assert!(in_the_middle * 5 >= i64::try_from(kills).unwrap(), "{in_the_middle} of {kills} kills hit a run");
    served.stack.place.json(0, &["verify"]);
}

/// Milliseconds from the start of the service to the end of the run that is due.
fn time_of_a_run(served: &Served) -> u64 {
    served.an_hour_passes();
    fs::write(served.stack.path("data/a"), noise(0x5eed, 2_000_000)).unwrap();
    let started = Instant::now();
    let child = served.start();
    wait_until("a run", || served.count(GOOD) == 1);
    let whole = u64::try_from(started.elapsed().as_millis()).unwrap();
    stop(child);
    whole
}

fn stop_when_ready(served: &Served) {
    let child = served.start();
    wait_until("the metrics", || served.metrics().is_some());
    stop(child);
}

/// The journal, for a failure.
fn told(served: &Served) -> String {
    let journal = served.journal();
    let mut query =
        journal.prepare("SELECT id, started, ended, how, point, message FROM run ORDER BY started").unwrap();
    let mut rows = query.query([]).unwrap();
    let mut text = String::new();
    while let Some(row) = rows.next().unwrap() {
        let number = |n: usize| row.get::<_, Option<i64>>(n).unwrap();
        let word = |n: usize| row.get::<_, Option<String>>(n).unwrap();
        let _ =
            writeln!(text, "{:?} {:?} {:?} {:?} {:?} {:?}", word(0), number(1), number(2), word(3), word(4), word(5));
    }
    text
}

#[test]
fn a_lost_journal_learns_from_the_repository() {
    let served = Served::new("");
    served.stack.place.ends(0, &["backup"]);
    let child = served.start();
    wait_until("the data", || served.metric("rekindle_data_timestamp_seconds").is_some());
    wait_until("the success", || served.metric("rekindle_last_success_timestamp_seconds").is_some());
    assert_eq!(served.metric("rekindle_overdue").unwrap(), "0");
    stop(child);
    assert_eq!(served.count("SELECT count(*) FROM run"), 0);
}

#[test]
fn seed_slack_hears_of_a_failure_once_and_of_the_recovery() {
    let slack = WebReceiver::start();
    let mut served = Served::new("");
    served.stack.place.write("hook", &slack.url("/services/canary-hook"));
    served.stack.add("[notify.ops]\nkind = \"slack\"\nurl = \"file:hook\"\nallow-private = true");
    served.stack.place.ends(0, &["notify", "test"]);
    assert_eq!(slack.requests().len(), 1);
    served.stack.place.ends(0, &["kit", "confirm", "--note", "safe"]);
    let (data, aside) = (served.stack.path("data"), served.stack.path("aside"));
    fs::rename(&data, &aside).unwrap();
    for _ in 0..2 {
        let ended = served.stack.place.run(&["run", "backup"]);
        assert_ne!(ended.code, 0, "{ended:#?}");
        assert!(!format!("{ended:?}").contains("canary-hook"));
    }
    let told = slack.requests();
    assert_eq!(told.len(), 2, "the test and one failure: {told:#?}");
    assert!(told[1].body.contains("backup of files of `shop` failed"), "{}", told[1].body);
    fs::rename(&aside, &data).unwrap();
    served.stack.place.ends(0, &["run", "backup"]);
    let told = slack.requests();
    assert!(told.len() == 3 && told[2].body.contains("works again"), "{told:#?}");
    let text = served.stack.place.read("text.prom");
    assert!(text.contains("rekindle_notifications_total{stack=\"shop\",receiver=\"ops\",result=\"sent\"} 2"), "{text}");
}

#[test]
fn a_missing_kit_and_a_suspicious_point_are_told_once_and_when_they_are_over() {
    let slack = WebReceiver::start();
    let mut served = Served::new("");
    served.stack.place.write("hook", &slack.url("/services/canary-hook"));
    served.stack.add("[notify.ops]\nkind = \"slack\"\nurl = \"file:hook\"\nallow-private = true");
    let data = served.stack.path("data");
    for n in 0..30 {
        fs::write(data.join(format!("f{n}")), "good").unwrap();
    }
    let place = &served.stack.place;
    let backup = || place.run(&["run", "backup"]);
    let told = |count: usize, says: &str| {
        let all = slack.requests();
        assert!(all.len() == count && all[count - 1].body.contains(says), "{says}: {all:#?}");
    };
    backup();
    told(1, "the recovery kit of `shop` is not confirmed");
    backup();
    told(1, "the recovery kit of `shop` is not confirmed");
    place.ends(0, &["kit", "confirm", "--note", "safe"]);
    backup();
    told(2, "Over: kit");
    for entry in fs::read_dir(&data).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    backup();
    told(3, "differs sharply from those before");
    place.ends(0, &["point", "accept", "latest", "--reason", "archived"]);
    backup();
    told(4, "Over: suspicious");
}

#[test]
fn seed_metrics_of_a_single_run_are_in_the_textfile_and_promtool_reads_them() {
    let served = Served::new("");
    served.stack.place.ends(0, &["run", "backup", "files"]);
    let text = served.stack.place.read("text.prom");
    for metric in [
        "rekindle_last_success_timestamp_seconds",
        "rekindle_data_bytes",
        "rekindle_rpo_target_seconds",
        "rekindle_repository_free_bytes",
    ] {
        assert!(text.contains(&format!("\n{metric}{{")), "{metric}: {text}");
    }
    let check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(fs::File::open(served.stack.path("text.prom")).unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(check.status.success(), "{said}");
}

#[test]
fn seed_cron_lines_run_what_they_say() {
    let served = Served::new("verify = \"30 4 * * *\"\nprune = \"0 6 * * *\"");
    let text = served.stack.place.ends(0, &["install", "cron", "--print", "--user", "backup"]).out;
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(" run ")).collect();
    assert_eq!(lines.len(), 3, "{text}");
    for (start, last) in [
        ("0 * * * * backup ", "run backup files"),
        ("30 4 * * * backup ", "run verify"),
        ("0 6 * * * backup ", "run prune"),
    ] {
        let line = lines.iter().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"));
        assert!(line.ends_with(last), "{line}");
        // What cron would do: its fields and the user taken off, the rest given to the shell.
        let command = line.split(' ').skip(6).collect::<Vec<_>>().join(" ");
        let status = Command::new("/bin/sh")
            .args(["-c", &command])
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("STATE_DIRECTORY", served.stack.path("state").to_str().unwrap())])
            .status()
            .unwrap();
        assert!(status.success(), "{command}");
    }
    assert_eq!(served.count(GOOD), 3);
}

#[test]
fn seed_systemd_unit_is_valid_and_exposes_little() {
    let served = Served::new("");
    let root = served.stack.path("root");
    let arguments =
        ["install", "systemd", "--root", root.to_str().unwrap(), "--program", "/bin/true", "--user", "root"];
    served.stack.place.ends(0, &arguments);
    let unit = root.join("etc/systemd/system/rekindle.service");
    let verify = Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&unit).output().unwrap();
    let said = String::from_utf8_lossy(&[verify.stdout, verify.stderr].concat()).into_owned();
    assert!(verify.status.success() && !said.contains("rekindle.service:"), "{said}");
    // As it is shipped: with a user of its own.
    served.stack.place.ends(0, &["install", "systemd", "--root", root.to_str().unwrap(), "--program", "/bin/true"]);
    let text = fs::read_to_string(&unit).unwrap();
    let shown = served.stack.place.ends(0, &["install", "systemd", "--print", "--program", "/bin/true"]).out;
    assert!(shown.contains(&text), "what is shown is what is written: {shown}");
    for line in ["User=rekindle", "ProtectSystem=strict", "NoNewPrivileges=yes", "Type=notify", "WatchdogSec=120"] {
        assert!(text.lines().any(|known| known == line), "{line}: {text}");
    }
    assert!(
        text.contains("\nCapabilityBoundingSet=CAP_DAC_READ_SEARCH\nAmbientCapabilities=CAP_DAC_READ_SEARCH\n"),
        "{text}"
    );
    let credential =
        ["install", "systemd", "--print", "--program", "/bin/true", "--credential", "key:/etc/rekindle/key"];
    let shown = served.stack.place.ends(0, &credential).out;
    assert!(shown.contains("\nLoadCredential=key:/etc/rekindle/key\n"), "{shown}");
    let score = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
        .arg(&unit)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[score.stdout, score.stderr].concat()).into_owned();
    assert!(score.status.success(), "{}", said.lines().last().unwrap_or_default());
    let namespaces = |text: &str| text.lines().find(|line| line.starts_with("RestrictNamespaces=")).unwrap().to_owned();
    assert_eq!(namespaces(&text), "RestrictNamespaces=yes");
    let file = served.stack.place.read("rekindle.toml");
    served.stack.place.write("rekindle.toml", &file.replace("[serve]", "[serve]\ndrill = \"0 5 * * 0\""));
    let shown = served.stack.place.ends(0, &["install", "systemd", "--print", "--program", "/bin/true"]).out;
    assert_eq!(namespaces(&shown), "RestrictNamespaces=user net ipc", "drills hold their servers off the network");
}

#[test]
fn a_service_without_a_schedule_says_so() {
    let mut stack = Stack::new();
    stack.files("data");
    stack.place.set("STATE_DIRECTORY", stack.path("state").to_str().unwrap());
    let ended = stack.place.run(&["serve"]);
    assert_eq!(ended.code, 5, "{ended:#?}");
    ended.says("RK-SV-007", &["schedule"]);
}
