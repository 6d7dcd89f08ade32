//! Drills of base backups: the log behind them is replayed, and proved with them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::super::logged::{Logged, MARKERS};
use super::super::stack::Random;
use super::{nothing_is_left, outcomes, pairs, set_drill};

fn with_check(one: &mut Logged, markers: u32) {
    one.configure(&format!("checks = [\"SELECT count(*) = {markers} FROM marker\"]"));
}

fn database(answer: &Value) -> &Value {
    &answer["result"]["drills"][0]["work"]["components"][0]
}

#[test]
fn drill_catches_missing_wal_and_proves_the_log_to_its_end_or_to_a_moment() {
    let mut one = Logged::start();
    set_drill(&mut one.stack, "");
    one.mark();
    one.stack.complete();
    one.mark();
    let wanted = one.mark();
    one.switch();
    let newest = one.mark();
    one.received();

    // To the end of the log: rows that no base backup holds are there.
    with_check(&mut one, 4);
    let begun = Instant::now();
    let answer = one.stack.place.json(0, &["drill"]);
    let usual = begun.elapsed();
    assert_eq!(outcomes(&answer), pairs(&[("database", "passed")]), "{answer:#}");
    let proof = database(&answer);
    let to: jiff::Timestamp = proof["recovered_to"].as_str().unwrap().parse().unwrap();
    assert!(to > wanted && to <= newest, "{proof:#}");
    let captured: jiff::Timestamp = proof["captured_at"].as_str().unwrap().parse().unwrap();
    assert!(captured < to, "{proof:#}");
    assert!(proof["steps"].to_string().contains("restore: replay"), "{proof:#}");
    nothing_is_left(&one.stack);
    assert_eq!(one.stack.newest()["trust"], "proved");

    // To a moment: exactly what was committed until then.
    with_check(&mut one, 3);
    let answer = one.stack.place.json(0, &["drill", "--at", &wanted.to_string()]);
    assert_eq!(outcomes(&answer), pairs(&[("database", "passed")]), "{answer:#}");
    assert_eq!(database(&answer)["recovered_to"], wanted.to_string());
    a_look_at_the_moment(&one, &wanted.to_string());

    // Nothing in the log is newer: nobody can say whether it goes as far.
    let future = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let answer = one.stack.place.json(4, &["drill", "--at", &future.to_string()]);
    assert_eq!(outcomes(&answer), pairs(&[("database", "unproved")]), "{answer:#}");
    killed_drills(&one, usual);
    missing_wal(&mut one, &wanted.to_string());
}

fn a_look_at_the_moment(one: &Logged, at: &str) {
    let mut child = one.stack.start(&["peek", "database", "--at", at]);
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let url = lines.find_map(|line| line.ok().filter(|line| line.contains("://"))).expect("the way in is printed");
    let mut psql = one.server.client("psql");
    let asked = psql.args(["-X", "-A", "-t", "-d", &url, "-c", MARKERS]).output().unwrap();
    assert_eq!(String::from_utf8(asked.stdout).unwrap().trim(), Logged::numbers(3), "{url}");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    nothing_is_left(&one.stack);
}

/// Also while the log is replayed.
fn killed_drills(one: &Logged, usual: Duration) {
    let mut random = Random::new(0x5eed);
    for _ in 0..4 {
        let mut child = one.stack.start(&["drill"]);
        std::thread::sleep(random.before(usual));
        child.kill().unwrap();
        child.wait().unwrap();
        one.stack.place.json(0, &["drill", "--clean"]);
        nothing_is_left(&one.stack);
    }
}

fn missing_wal(one: &mut Logged, before: &str) {
    one.switch();
    one.mark();
    one.switch();
    one.mark();
    one.received();
    let sealed = one.segments();
    // Neither the first, which the base backup needs, nor the last: a hole.
    let lost = sealed[sealed.len() - 1].clone();
    let name = lost.file_name().unwrap().to_str().unwrap()[..24].to_owned();
    let kept = fs::read(&lost).unwrap();
    fs::remove_file(&lost).unwrap();
    let answer = one.stack.place.json(4, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("database", "failed")]), "{answer:#}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains(&name), "{name}: {message}");
    assert_eq!(database(&answer)["problem"]["code"], "RK-PT-005", "{answer:#}");
    assert_eq!(one.stack.newest()["trust"], "unverified", "what was proved is not any more");
    // The way to a moment before it is whole.
    with_check(one, 3);
    one.stack.place.json(0, &["drill", "--at", before]);
    // A segment that is there and damaged.
    let mut damaged = kept;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&lost, &damaged).unwrap();
    let answer = one.stack.place.json(4, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("database", "failed")]), "{answer:#}");
    assert!(answer["error"]["message"].as_str().unwrap().contains(&name), "{answer:#}");
    nothing_is_left(&one.stack);
}
