//! PostgreSQL that fails, lies or dies is never a complete point, and the next run works.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rekindle_testkit::fixtures::{PostgresStack, postgres_stack};
use rekindle_testkit::{Fault, Postgres, PostgresOptions, Proxy};

use super::stack::{Stack, end, wait_until};

const ROWS: u64 = 3000;

fn stack_of(postgres: &Postgres) -> (Stack, PostgresStack) {
    let mut stack = Stack::new();
    let data = stack.files("data");
    std::fs::write(data.join("a"), "one").unwrap();
    let made = postgres_stack(postgres, ROWS);
    stack.postgres_stack(postgres, &made);
    (stack, made)
}

/// A directory with the real programs, `pg_dump` wrapped: `$REAL` is the real one.
fn programs(stack: &Stack, real: &Path, name: &str, body: &str) -> PathBuf {
    let directory = stack.path(name);
    std::fs::create_dir(&directory).unwrap();
    for program in std::fs::read_dir(real).unwrap().flatten() {
        if program.file_name() != "pg_dump" {
            symlink(program.path(), directory.join(program.file_name())).unwrap();
        }
    }
    let script = format!(
        "#!/bin/sh\nREAL={}/pg_dump\ncase \"$*\" in *--version*) exec \"$REAL\" \"$@\";; esac\n{body}\n",
        real.display()
    );
    std::fs::write(directory.join("pg_dump"), script).unwrap();
    std::fs::set_permissions(directory.join("pg_dump"), std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

#[test]
fn a_dump_that_fails_or_is_not_whole_is_no_success() {
    let postgres = Postgres::start(PostgresOptions::default());
    let (mut stack, made) = stack_of(&postgres);
    stack.complete();
    // What the wrapper does, and the codes that may stand for it.
    let wrappers: [(&str, &str, &[&str]); 6] = [
        ("fails-at-the-end", "\"$REAL\" \"$@\"; exit 1", &["RK-PG-005"]),
        ("is-killed", "\"$REAL\" \"$@\" | head -c 20000; kill -9 $$", &["RK-PG-005"]),
        ("writes-half", "\"$REAL\" \"$@\" | head -c 20000; exit 0", &["RK-PG-006"]),
        ("lacks-its-last-bytes", "\"$REAL\" \"$@\" | head -c -40; exit 0", &["RK-PG-006"]),
        ("writes-nothing", "exit 0", &["RK-PG-006", "RK-PG-007"]),
        ("lacks-the-tables", "\"$REAL\" \"$@\" --exclude-table=cards.users; exit 0", &["RK-PG-007"]),
    ];
    for (name, body, codes) in wrappers {
        let directory = programs(&stack, postgres.bin_dir(), name, body);
        let more = format!("bin-dir = \"{}\"", directory.display());
        stack.postgres(&postgres, postgres.port(), &made.databases, &more);
        let problem = stack.partial("database", codes);
        assert!(problem["message"].as_str().unwrap().contains("dump"), "{name}: {problem}");
        stack.fails_alone("database", 1);
    }
    stack.postgres_stack(&postgres, &made);
    stack.complete();
}

#[test]
fn a_wrong_password_is_20_and_not_shown() {
    let postgres = Postgres::start(PostgresOptions::default());
    let (stack, _made) = stack_of(&postgres);
    stack.place.write("pg-password", "canary-wrong-password\n");
    stack.partial("database", &["RK-PG-002"]);
    let ended = stack.fails_alone("database", 20);
    ended.says("RK-PG-002", &["postgres"]);
    assert!(!format!("{ended:?}").contains("canary"), "{ended:#?}");
    stack.place.ends(4, &["doctor"]).says("RK-CL-003", &[]);
    stack.place.write("pg-password", &format!("{}\n", postgres.password()));
    stack.complete();
}

type Break = fn(&mut Postgres, &Proxy);

#[test]
fn a_server_that_dies_or_is_cut_off_in_the_middle_is_no_success() {
    let mut postgres = Postgres::start(PostgresOptions::default());
    let (mut stack, made) = stack_of(&postgres);
    let proxy = Proxy::start(postgres.port());
    stack.postgres(&postgres, proxy.port(), &made.databases, "");
    let whole = {
        stack.complete();
        proxy.bytes()
    };
    let breaks: [(&str, Break); 3] = [
        ("dies", |postgres, _| postgres.kill9()),
        ("restarts", |postgres, _| {
            postgres.kill9();
            postgres.restart();
        }),
        ("cut off", |_, proxy| proxy.cut_all()),
    ];
    for (name, break_it) in breaks {
        let before = stack.complete_points();
        let start = proxy.bytes();
        // A slow network: the middle is long enough to act in.
        proxy.set(Fault::Delay(Duration::from_millis(1)));
        let child = stack.start(&["backup", "--json"]);
        wait_until(name, || proxy.bytes() > start + whole / 3);
        break_it(&mut postgres, &proxy);
        proxy.set(Fault::None);
        let ended = end(child);
        assert_eq!(ended.code, 3, "{name}: {ended:#?}");
        let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
        let problem = &value["result"]["components"][0]["problem"];
        assert!(problem["message"].as_str().unwrap().contains("database"), "{name}: {problem}");
        assert!(problem["hint"].is_string(), "{name}: {problem}");
        assert_eq!(stack.newest()["state"], "partial", "{name}");
        assert_eq!(stack.complete_points(), before, "{name}");
        if postgres.pid().is_none() {
            stack.partial("database", &["RK-PG-001"]);
            stack.fails_alone("database", 20);
            postgres.restart();
        }
        stack.complete();
    }
}
