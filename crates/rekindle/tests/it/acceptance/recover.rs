//! A lost stack comes back: in order, from the chosen moment, after interruptions, on a bare machine.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rekindle_testkit::fixtures::{
    compare_maps, compare_redis, postgres_fingerprint, postgres_stack, redis_data, redis_fingerprint,
};
use rekindle_testkit::{Postgres, PostgresOptions, Redis, RedisOptions};
use serde_json::{Value, json};

use super::stack::{Random, Stack, assert_same_trees, end};
use crate::run::Place;

/// Keeps journals in the stack's own directory.
fn with_state(stack: &mut Stack) -> PathBuf {
    let state = stack.path("state");
    stack.place.set("XDG_STATE_HOME", state.to_str().unwrap());
    state.join("rekindle/recoveries")
}

fn states(answer: &Value) -> Vec<String> {
    let all = answer["result"]["components"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().map(|one| format!("{} {}", one["component"].as_str().unwrap(), one["state"].as_str().unwrap())).collect()
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    assert!(std::process::Command::new("cp").args(["-a", "-T"]).arg(from).arg(to).status().unwrap().success());
}

/// Databases before caches before files, the applications stopped first and started last.
fn the_plan_has_its_order(place: &Place) {
    let dry = place.json(0, &["recover", "--dry-run"]);
    let steps: Vec<String> = dry["result"]["plan"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| format!("{} {}", step["act"].as_str().unwrap(), step["component"].as_str().unwrap_or("-")))
        .collect();
    assert_eq!(
        steps,
        [
            "stop -",
            "restore database",
            "check database",
            "restore cache",
            "check cache",
            "restore files",
            "check files",
            "start -",
        ]
    );
}

#[test]
fn a_destroyed_stack_comes_back_in_order_and_on_time() {
    let mut stack = Stack::new();
    with_state(&mut stack);
    let data = stack.files("data");
    fs::create_dir_all(data.join("deep/er")).unwrap();
    fs::write(data.join("deep/er/a"), "saved").unwrap();
    let postgres = Postgres::start(PostgresOptions::default());
    let made = postgres_stack(&postgres, 50);
    stack.postgres(&postgres, postgres.port(), &made.databases, "objective = { rto = \"10m\" }\n");
    let directory = stack.path("redis");
    let options = RedisOptions { appendonly: true, dir: Some(directory.clone()), ..RedisOptions::default() };
    let mut redis = Redis::start(options);
    redis_data(&redis, 30);
    stack.redis(&redis, redis.port(), &format!("data-dir = \"{}\"", directory.display()));
    let log = stack.path("log");
    let say = |word: &str| format!("\"echo {word} >> {}\"", log.display());
    stack.add(&format!("[recover]\nstop = [{}]\nstart = [{}]", say("stop-apps"), say("start-apps")));
    stack.complete();
    let place = &stack.place;
    let rows: Vec<_> = made.databases.iter().map(|name| postgres_fingerprint(&postgres, name)).collect();
    let keys = redis_fingerprint(&redis);
    copy(&data, &stack.path("copy"));

    // The stack is not lost: nothing is touched.
    let refused = place.json(21, &["recover"]);
    assert_eq!(refused["error"]["code"], "RK-RC-004");
    for part in ["`files`", "`cache`", "`database`"] {
        assert!(refused["error"]["message"].as_str().unwrap().contains(part), "{refused}");
    }
    assert!(!log.exists());

    redis.stop();
    fs::remove_dir_all(&directory).unwrap();
    fs::remove_dir_all(&data).unwrap();
    for name in &made.databases {
        postgres.psql("postgres", &format!("DROP DATABASE \"{}\"", name.replace('"', "\"\"")));
    }
    the_plan_has_its_order(place);
    assert!(!data.exists() && !log.exists());
    let answer = place.json(0, &["recover"]);
    assert_eq!(states(&answer), ["database recovered", "cache recovered", "files recovered"]);
    assert_eq!(answer["result"]["components"][0]["rto_met"], true);
    assert_eq!(answer["result"]["started"], true);
    assert_eq!(fs::read_to_string(&log).unwrap(), "stop-apps\nstart-apps\n");
    redis.restart();
    for (name, before) in made.databases.iter().zip(&rows) {
        assert_eq!(compare_maps(before, &postgres_fingerprint(&postgres, name)), Vec::<String>::new(), "{name}");
    }
    assert_eq!(compare_redis(&keys, &redis_fingerprint(&redis), 0), Vec::<String>::new());
    assert_same_trees(&stack.path("copy"), &data);

    // What was measured is the forecast of the next one; what stands there now is set aside.
    redis.stop();
    fs::write(data.join("later"), "kept").unwrap();
    let human = place.ends(0, &["recover", "--replace", "--only", "files", "--only", "cache"]);
    assert!(human.err.contains("forecast, from earlier recoveries"), "{human:#?}");
    assert!(human.out.contains("files: the old state is kept at"), "{human:#?}");
    assert!(!data.join("later").exists());
    let aside = fs::read_dir(stack.place.path()).unwrap().flatten();
    assert!(aside.map(|entry| entry.path()).any(|path| path.join("later").exists()), "the old tree is kept");
}

#[test]
fn each_component_comes_from_the_nearest_point_before_the_moment() {
    let mut stack = Stack::new();
    stack.quicken();
    with_state(&mut stack);
    let data = stack.files("data");
    let other = stack.path("other");
    fs::create_dir(&other).unwrap();
    stack.add(&format!("[component.other]\nkind = \"files\"\npaths = [\"{}\"]", other.display()));
    let write = |text: &str| {
        fs::write(data.join("a"), text).unwrap();
        fs::write(other.join("b"), text).unwrap();
    };
    write("one");
    stack.complete();
    std::thread::sleep(Duration::from_millis(1100));
    write("two");
    stack.place.json(0, &["backup", "files"]);
    let between = jiff_now();
    std::thread::sleep(Duration::from_millis(1100));
    write("three");
    stack.complete();
    let lose = || {
        for path in [&data, &other] {
            let _ = fs::remove_dir_all(path);
        }
    };
    let read = || (fs::read_to_string(data.join("a")).unwrap(), fs::read_to_string(other.join("b")).unwrap());
    lose();
    let answer = stack.place.json(0, &["recover", "--at", &between]);
    assert_eq!(read(), ("two".to_owned(), "one".to_owned()));
    assert!(answer["result"]["skew_ms"].as_u64().unwrap() > 1000, "{answer}");
    lose();
    stack.place.json(0, &["recover"]);
    assert_eq!(read(), ("three".to_owned(), "three".to_owned()));
    let first = stack.points()[0]["id"].as_str().unwrap().to_owned();
    lose();
    stack.place.json(0, &["recover", "--point", &first]);
    assert_eq!(read(), ("one".to_owned(), "one".to_owned()));
    lose();
    stack.place.ends(2, &["recover", "--at", "2020-01-01T00:00:00Z"]).says("RK-RC-003", &["`files`", "`other`"]);
    stack.place.ends(2, &["recover", "--at", "2120-01-01T00:00:00Z"]).says("RK-CL-001", &["future"]);
    stack.place.ends(2, &["recover", "--at", "noon"]).says("RK-CL-001", &["noon"]);
    let second = stack.points()[1]["id"].as_str().unwrap().to_owned();
    stack.place.ends(2, &["recover", "--point", &second]).says("RK-RC-003", &["`other`"]);
    stack.place.json(0, &["recover", "--point", &second, "--only", "files"]);
    assert!(!other.exists());
}

/// Now, as a person writes it, by this host's clock: tests run with `TZ=UTC`.
fn jiff_now() -> String {
    let output = std::process::Command::new("date").args(["-u", "+%Y-%m-%d %H:%M:%S.%N"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_suspicious_point_is_passed_over_and_named() {
    let mut stack = Stack::new();
    stack.quicken();
    with_state(&mut stack);
    let data = stack.files("data");
    for n in 0..30 {
        fs::write(data.join(n.to_string()), "good").unwrap();
    }
    stack.complete();
    for n in 1..30 {
        fs::remove_file(data.join(n.to_string())).unwrap();
    }
    fs::remove_file(data.join("0")).unwrap();
    assert!(stack.complete()["suspicions"].is_array());
    fs::remove_dir_all(&data).unwrap();
    let dry = stack.place.ends(0, &["recover", "--dry-run"]);
    assert!(dry.out.contains("ATTENTION: files: a newer point is not used"), "{dry:#?}");
    stack.place.json(0, &["recover"]);
    assert_eq!(fs::read_dir(&data).unwrap().count(), 30);
    fs::remove_dir_all(&data).unwrap();
    stack.place.json(0, &["recover", "--allow-suspicious"]);
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
}

/// Kills the recovery at many moments, all of its steps among them, and lets it go on: the end is equal.
#[test]
fn a_killed_recovery_goes_on_and_ends_equal() {
    let mut stack = Stack::new();
    stack.quicken();
    let journals = with_state(&mut stack);
    let data = stack.files("data");
    let other = stack.path("other");
    for (directory, files) in [(&data, 40), (&other, 10)] {
        fs::create_dir_all(directory).unwrap();
        for n in 0..files {
            fs::write(directory.join(n.to_string()), format!("{n} ").repeat(500 * n + 1)).unwrap();
        }
    }
    let nap = "\"sleep 0.05\"";
    stack.add(&format!(
        "[component.other]\nkind = \"files\"\npaths = [\"{}\"]\nrecover = {{ stop = [{nap}], start = [{nap}] }}",
        other.display()
    ));
    let log = stack.path("log");
    stack.add(&format!("[recover]\nstop = [{nap}]\nstart = [{nap}, \"echo started >> {}\"]", log.display()));
    stack.complete();
    copy(&data, &stack.path("copy"));
    copy(&other, &stack.path("copy-other"));
    let lines = |journals: &PathBuf| -> usize {
        let files = fs::read_dir(journals).into_iter().flatten().flatten();
        let open = files.filter(|file| file.path().extension().is_some_and(|ending| ending == "jsonl"));
        open.map(|file| fs::read_to_string(file.path()).map_or(0, |text| text.lines().count())).max().unwrap_or(0)
    };
    let mut random = Random::new(5);
    let mut interrupted = 0;
    // A line each for the plan, for both ends of eight steps, and for the end.
    for line in 1..=18 {
        for directory in [&data, &other, &stack.path("state")] {
            let _ = fs::remove_dir_all(directory);
        }
        let _ = fs::remove_file(&log);
        let mut child = stack.start(&["recover"]);
        let until = Instant::now() + Duration::from_mins(1);
        while lines(&journals) < line && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "line {line}");
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(random.before(Duration::from_millis(20)));
        child.kill().unwrap();
        let first = end(child);
        if first.code == 0 {
            continue;
        }
        interrupted += 1;
        if lines(&journals) > 0 {
            // Nothing begins on top of it unasked.
            stack.place.ends(21, &["recover"]).says("RK-RC-002", &["--resume"]);
            let resumed = stack.place.json(0, &["recover", "--resume"]);
            assert_eq!(states(&resumed), ["files recovered", "other recovered"], "line {line}");
        } else {
            stack.place.json(0, &["recover"]);
        }
        assert_same_trees(&stack.path("copy"), &data);
        assert_same_trees(&stack.path("copy-other"), &other);
        let started = fs::read_to_string(&log).unwrap();
        assert!((1..=2).contains(&started.lines().count()), "line {line}: {started}");
        let left = fs::read_dir(stack.place.path()).unwrap().flatten().map(|entry| entry.file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains(".rekindle-")).collect();
        assert_eq!(left, Vec::<std::ffi::OsString>::new(), "line {line}");
        stack.place.ends(2, &["recover", "--resume"]).says("RK-RC-003", &["no unfinished one"]);
    }
    assert!(interrupted >= 12, "only {interrupted} were interrupted");
}

#[test]
fn what_does_not_start_is_told_and_goes_on_later() {
    let mut stack = Stack::new();
    stack.quicken();
    with_state(&mut stack);
    let data = stack.files("data");
    fs::write(data.join("a"), "saved").unwrap();
    let mend = stack.path("mended");
    stack.add(&format!("[recover]\nstart = [\"test -e {}\"]", mend.display()));
    stack.complete();
    fs::remove_dir_all(&data).unwrap();
    let failed = stack.place.json(1, &["recover"]);
    assert_eq!((&failed["error"]["code"], &failed["result"]["started"]), (&json!("RK-RC-009"), &json!(false)));
    assert_eq!(fs::read_to_string(data.join("a")).unwrap(), "saved");
    fs::write(&mend, "").unwrap();
    let done = stack.place.json(0, &["recover", "--resume"]);
    assert_eq!(done["result"]["started"], true);
    // Set aside instead.
    fs::remove_dir_all(&data).unwrap();
    fs::remove_file(&mend).unwrap();
    stack.place.json(1, &["recover"]);
    fs::write(&mend, "").unwrap();
    fs::remove_dir_all(&data).unwrap();
    stack.place.json(0, &["recover", "--restart"]);
}

#[test]
fn users_checks_of_a_dump_and_of_files_are_asked_and_can_be_left_out() {
    let mut stack = Stack::new();
    stack.quicken();
    with_state(&mut stack);
    let data = stack.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("a"), "saved").unwrap();
    let path = data.display().to_string();
    stack.add(&format!(
        "[component.files]\nkind = \"files\"\npaths = [\"{path}\"]\n\
         checks = [[\"sh\", \"-c\", 'test -s \"$REKINDLE_PLACE{path}/a\"']]"
    ));
    let postgres = Postgres::start(PostgresOptions::default());
    postgres.psql("postgres", "CREATE DATABASE shop");
    postgres.psql("shop", "CREATE TABLE orders AS SELECT now() - interval '3 days' AS at");
    stack.place.write("pg-password", &format!("{}\n", postgres.password()));
    let database = |check: &str| {
        format!(
            "[component.database]\nkind = \"postgres\"\npassword = \"file:pg-password\"\n\
             url = \"postgres://postgres@127.0.0.1:{}/shop\"\nchecks = [\"{check}\"]",
            postgres.port()
        )
    };
    stack.add(&database("SELECT count(*) = 1 FROM orders"));
    stack.complete();
    fs::remove_dir_all(&data).unwrap();
    postgres.psql("postgres", "DROP DATABASE shop");
    let answer = stack.place.json(0, &["recover"]);
    assert_eq!(states(&answer), ["database recovered", "files recovered"]);
    for (number, says) in [(0, "check `SELECT count(*) = 1 FROM orders` says yes"), (1, "/a\"` says yes")] {
        let findings = &answer["result"]["components"][number]["findings"];
        let said = findings.as_array().unwrap().iter().any(|one| one.as_str().unwrap().contains(says));
        assert!(said, "{says}: {findings}");
    }
    // A check about the age of rows, and an old state that is wanted all the same.
    stack.set(&database("SELECT max(at) > now() - interval '1 day' FROM orders"));
    let only = ["recover", "--replace", "--only", "database"];
    let refused = stack.place.json(4, &only);
    assert_eq!(states(&refused), ["database rolled-back"], "{refused}");
    assert!(refused["error"]["hint"].as_str().unwrap().contains("--no-checks"), "{refused}");
    let answer = stack.place.json(0, &["recover", "--resume", "--no-checks"]);
    assert_eq!(states(&answer), ["database recovered"]);
    assert_eq!(postgres.psql("shop", "SELECT count(*) FROM orders"), "1");
}

#[test]
fn a_bare_machine_needs_only_the_program_the_url_and_the_key() {
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::write(data.join("a"), "saved").unwrap();
    let postgres = Postgres::start(PostgresOptions::default());
    let made = postgres_stack(&postgres, 50);
    stack.postgres(&postgres, postgres.port(), &made.databases[..1], "");
    let directory = stack.path("redis");
    let mut redis = Redis::start(RedisOptions { dir: Some(directory.clone()), ..RedisOptions::default() });
    redis_data(&redis, 30);
    stack.redis(&redis, redis.port(), &format!("data-dir = \"{}\"", directory.display()));
    stack.complete();
    let rows = postgres_fingerprint(&postgres, &made.databases[0]);
    let keys = redis_fingerprint(&redis);
    let configuration = stack.place.read("rekindle.toml");

    // Everything of the host is lost: data, configuration, secrets. A new, empty server runs.
    redis.stop();
    fs::remove_dir_all(&directory).unwrap();
    fs::remove_dir_all(&data).unwrap();
    postgres.psql("postgres", &format!("DROP DATABASE \"{}\"", made.databases[0]));
    for file in ["rekindle.toml", "made.toml", "key", "pg-password"] {
        fs::remove_file(stack.path(file)).unwrap();
    }
    let mut bare = Place::new();
    bare.write("the-key", &format!("{}\n", super::stack::REPOSITORY_PASSWORD));
    let home = bare.path().to_owned();
    bare.set("XDG_STATE_HOME", home.to_str().unwrap());
    let url = format!("file://{}", stack.path("repo").display());
    let recover = |more: &[&str]| {
        let mut arguments = vec!["recover", "--from", &url, "--password-file", "the-key"];
        arguments.extend(more);
        arguments.into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    let run = |code: i32, more: &[&str]| {
        let arguments = recover(more);
        bare.json(code, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    // The secret that was on the lost host is asked for by its name.
    let missing = run(20, &["--dry-run"]);
    assert_eq!(missing["error"]["code"], "RK-RC-007");
    let needs = missing["result"]["needs"].to_string();
    assert!(needs.contains("--set component.database.password=file:"), "{needs}");
    bare.write("pg", postgres.password());
    let set = ["--set", "component.database.password=file:pg"];
    // A configuration that lies here is compared, and not used.
    bare.write("rekindle.toml", &configuration.replace("name = \"shop\"", "name = \"other\""));
    let arguments = recover(&[&set[..], &["--dry-run"]].concat());
    let dry = bare.ends(0, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    for part in ["  - name = \"other\"", "  + name = \"shop\"", "configuration: point "] {
        assert!(dry.out.contains(part), "{part}: {}", dry.out);
    }
    assert!(!data.exists());
    fs::remove_file(bare.path().join("rekindle.toml")).unwrap();

    let answer = run(0, &set);
    assert_eq!(states(&answer), ["database recovered", "cache recovered", "files recovered"]);
    redis.restart();
    assert_eq!(compare_maps(&rows, &postgres_fingerprint(&postgres, &made.databases[0])), Vec::<String>::new());
    assert_eq!(compare_redis(&keys, &redis_fingerprint(&redis), 0), Vec::<String>::new());
    assert_eq!(fs::read_to_string(data.join("a")).unwrap(), "saved");
    // The configuration is back as well, and works with what is here now.
    let written = stack.place.read("rekindle.toml");
    assert!(written.contains(&format!("file:{}/pg", home.display())), "{written}");
    assert!(written.contains(&url) && !written.contains(super::stack::REPOSITORY_PASSWORD), "{written}");
    stack.place.json(0, &["backup"]);
    asked_on_a_terminal(&bare, &url, &data, &postgres, &made.databases[0]);
}

/// Somebody sits at the machine and types the password that was on the lost host.
fn asked_on_a_terminal(bare: &Place, url: &str, data: &std::path::Path, postgres: &Postgres, database: &str) {
    fs::remove_dir_all(data).unwrap();
    postgres.psql("postgres", &format!("DROP DATABASE \"{database}\""));
    fs::remove_file(bare.path().join("pg")).unwrap();
    let program = env!("CARGO_BIN_EXE_rekindle");
    // The written configuration refers to the file that is gone.
    let line = format!(
        "{program} --no-progress recover --from {url} --password-file the-key --only files --only database \
         --set component.database.password=file:gone"
    );
    let plain = bare.command(&[]);
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).current_dir(bare.path()).env_clear();
    script.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = script.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut said = String::new();
    let mut buffer = [0; 4096];
    let mut read = |said: &mut String| {
        let given = std::io::Read::read(&mut out, &mut buffer).unwrap();
        said.push_str(&String::from_utf8_lossy(&buffer[..given]));
        given > 0
    };
    while !said.contains("leave it out): ") {
        assert!(read(&mut said), "it asks: {said}");
    }
    let mut typed = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut typed, format!("{}\n", postgres.password()).as_bytes()).unwrap();
    while read(&mut said) {}
    assert!(child.wait().unwrap().success(), "{said}");
    assert!(said.contains("component.database.password") && said.contains("is back after"), "{said}");
    assert!(!said.contains(postgres.password()), "{said}");
    assert_eq!(fs::read_to_string(data.join("a")).unwrap(), "saved");
    assert_eq!(
        postgres.psql("postgres", &format!("SELECT count(*) FROM pg_database WHERE datname = '{database}'")),
        "1"
    );
    // A secret is never taken from the command line.
    let head = ["recover", "--from", url, "--password-file", "the-key"];
    let refused = bare.json(5, &[&head[..], &["--set", "component.database.password=canary-secret"]].concat());
    assert!(!refused.to_string().contains("canary-secret"), "{refused}");
}
