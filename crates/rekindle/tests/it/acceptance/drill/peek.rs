//! A look at the past.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Child;

use rekindle_testkit::fixtures::redis_data;
use rekindle_testkit::{Postgres, PostgresOptions, Redis, RedisOptions};
use rustix::process::{Pid, Signal, kill_process};

use super::{nothing_is_left, small_database, stack};

/// The line that says how to connect.
fn way_in(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    lines.find_map(|line| line.ok().filter(|line| line.contains("://"))).expect("the way in is printed")
}

fn interrupt(child: Child) -> i32 {
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child.wait_with_output().unwrap().status.code().unwrap()
}

#[test]
fn the_past_can_be_read_and_not_written_and_is_gone_afterwards() {
    let postgres = Postgres::start(PostgresOptions::default());
    small_database(&postgres);
    let mut stack = stack();
    stack.postgres(&postgres, postgres.port(), &["shop".to_owned()], "");
    stack.complete();
    let then = jiff::Timestamp::now();
    postgres.psql("shop", "INSERT INTO orders VALUES (1000, 'later')");
    stack.complete();
    let mut child = stack.start(&["peek", "database", "--at", &then.to_string()]);
    let url = way_in(&mut child);
    let psql = |sql: &str| {
        let mut command = postgres.client("psql");
        command.args(["-X", "-A", "-t", "-d", &url, "-c", sql]);
        command.output().unwrap()
    };
    assert_eq!(String::from_utf8(psql("SELECT count(*) FROM orders").stdout).unwrap().trim(), "200", "{url}");
    let refused = psql("INSERT INTO orders VALUES (2000, 'no')");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("read-only"), "{refused:?}");
    assert_eq!(interrupt(child), 0, "ending it is no failure");
    nothing_is_left(&stack);
    assert_eq!(postgres.psql("shop", "SELECT count(*) FROM orders"), "201");
}

#[test]
fn a_redis_of_the_past_ends_by_itself() {
    let redis = Redis::start(RedisOptions::default());
    redis_data(&redis, 5);
    let mut stack = stack();
    stack.redis(&redis, redis.port(), "");
    stack.complete();
    let mut child = stack.start(&["peek", "cache", "--for", "4s"]);
    let url = way_in(&mut child);
    let socket = url.strip_prefix("unix://").unwrap();
    let ask = |words: &[&str]| {
        let mut command = std::process::Command::new(rekindle_testkit::tools::find("redis-cli"));
        command.args(["-s", socket]).args(words);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert_ne!(ask(&["DBSIZE"]).trim(), "0");
    assert!(ask(&["SET", "x", "y"]).contains("NOPERM"), "{}", ask(&["SET", "x", "y"]));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(fs::metadata(socket).is_err());
    nothing_is_left(&stack);
}
