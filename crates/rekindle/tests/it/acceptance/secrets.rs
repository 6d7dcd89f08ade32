//! No password is seen by other users of the host, printed, logged, or kept.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use rekindle_testkit::fixtures::{postgres_stack, redis_data};
use rekindle_testkit::{Postgres, PostgresOptions, Redis, RedisOptions, S3, S3Options};

use super::stack::{REPOSITORY_PASSWORD, Stack};
use crate::run::{Ended, Place};

/// Every password of this test holds it.
const CANARY: &str = "canary";
const SAMPLE_EVERY: Duration = Duration::from_millis(2);

/// Runs it while every process below it is looked at, and gives its end and what was seen.
fn watched(place: &Place, arguments: &[&str]) -> (Ended, BTreeSet<String>) {
    let mut command = place.command(arguments);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut seen = BTreeSet::new();
    let output = std::thread::scope(|scope| {
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let out = scope.spawn(move || std::io::read_to_string(out).unwrap());
        let err = scope.spawn(move || std::io::read_to_string(err).unwrap());
        while running(&mut child) {
            look(child.id(), child.id(), &mut seen);
            std::thread::sleep(SAMPLE_EVERY);
        }
        (out.join().unwrap(), err.join().unwrap())
    });
    let code = child.wait().unwrap().code().unwrap_or(-1);
    (Ended { code, out: output.0, err: output.1 }, seen)
}

fn running(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_none()
}

/// Looks at the command line and the environment of a process and of all below it.
fn look(pid: u32, root: u32, seen: &mut BTreeSet<String>) {
    let arguments = |pid: u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let read =
        |name: &str| String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default()).into_owned();
    let command = read("cmdline").replace('\0', " ");
    if !command.is_empty() {
        seen.insert(format!("command line: {command}"));
        // Our own environment is the user's choice; a child that has not begun its program yet has it, too.
        for variable in read("environ").split('\0').filter(|_| arguments(pid) != arguments(root)) {
            seen.insert(format!("environment of {command}: {variable}"));
        }
    }
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut all: Vec<u32> = children.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // A child belongs to the thread that started it.
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(list.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
    }
    all.sort_unstable();
    all.dedup();
    for child in all {
        look(child, root, seen);
    }
}

/// Runs it in every way of talking, and finds no password in anything it shows.
fn keeps_secrets(place: &Place, arguments: &[&str], code: i32) {
    let (ended, seen) = watched(place, arguments);
    assert_eq!(ended.code, code, "{arguments:?}: {ended:#?}");
    assert!(!ended.out.contains(CANARY) && !ended.err.contains(CANARY), "{arguments:?} {ended:#?}");
    let shown: Vec<&String> = seen.iter().filter(|line| line.contains(CANARY)).collect();
    assert!(shown.is_empty(), "{arguments:?}: {shown:#?}");
    assert!(seen.iter().any(|line| line.contains("rekindle")), "the sampler sees the program itself");
}

/// Files that hold a password and are not those the test wrote it into.
fn files_with_canaries(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        if meta.is_dir() {
            files_with_canaries(&path, found);
        } else if meta.is_file() {
            let bytes = fs::read(&path).unwrap();
            if bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()) {
                found.push(format!("{} ({:o})", path.display(), meta.mode() & 0o777));
            }
        }
    }
}

#[test]
fn no_password_leaves_its_place() {
    let s3 = S3::start(S3Options::default());
    let postgres = Postgres::start(PostgresOptions { password: "canary-pg-password".to_owned(), ..Default::default() });
    let made = postgres_stack(&postgres, 500);
    let redis = Redis::start(RedisOptions { password: Some("canary-redis".to_owned()), ..RedisOptions::default() });
    redis_data(&redis, 10);
    let mut place = Place::new();
    let key = s3.admin_key();
    assert!(key.secret.contains(CANARY) && REPOSITORY_PASSWORD.contains(CANARY));
    place.set("AWS_ACCESS_KEY_ID", &key.access);
    place.set("AWS_SECRET_ACCESS_KEY", &key.secret);
    place.set("TMPDIR", &place.path().join("tmp").display().to_string());
    fs::create_dir(place.path().join("tmp")).unwrap();
    let endpoint = s3.endpoint();
    let url = format!("s3://{}/shop?endpoint={endpoint}&region={}", s3.bucket(), s3.region());
    place.write("s3-secret", &key.secret);
    let lines = format!(
        "url = \"s3://{}/shop\"\nendpoint = \"{endpoint}\"\nregion = \"{}\"\naccess-key-id = \"{}\"\n\
         secret-access-key = \"file:s3-secret\"",
        s3.bucket(),
        s3.region(),
        key.access
    );
    let mut stack = Stack::at(place, &lines, &url);
    // From here on the configuration has them.
    stack.place.set("AWS_ACCESS_KEY_ID", "");
    stack.place.set("AWS_SECRET_ACCESS_KEY", "");
    let data = stack.files("data");
    fs::write(data.join("a"), "one").unwrap();
    stack.postgres(&postgres, postgres.port(), &made.databases, "");
    stack.redis(&redis, redis.port(), "");
    stack.add("[hooks]\nbefore = [\"sleep 0.1\"]\nafter = [\"sleep 0.1\"]");

    let place = &stack.place;
    keeps_secrets(place, &["doctor"], 0);
    keeps_secrets(place, &["backup", "-vv"], 0);
    keeps_secrets(place, &["backup", "--json"], 0);
    keeps_secrets(place, &["show", "--json"], 0);
    keeps_secrets(place, &["check-config"], 0);
    keeps_secrets(place, &["key", "list", "--json"], 0);
    keeps_secrets(place, &["verify", "-vv"], 0);
    keeps_secrets(place, &["restore", "latest", "database", "-vv"], 0);
    keeps_secrets(place, &["restore", "latest", "files", "cache", "--to", "back", "--json"], 0);
    // Errors repeat nothing either.
    for file in ["pg-password", "redis-password"] {
        let right = fs::read_to_string(place.path().join(file)).unwrap();
        place.write(file, "canary-but-wrong\n");
        keeps_secrets(place, &["backup", "-vv"], 3);
        keeps_secrets(place, &["backup", "--json"], 3);
        keeps_secrets(place, &["doctor", "-vv"], 4);
        place.write(file, &right);
    }
    place.write("wrong", "canary-wrong-key\n");
    keeps_secrets(place, &["list", "-vv", "--password-file", "wrong"], 12);
    place.write("s3-secret", "canary-wrong-secret");
    keeps_secrets(place, &["list", "-vv"], 20);

    // What is written holds none: the repository, temporary files, state. The captured Redis
    // configuration is data of the component.
    let mut found = Vec::new();
    files_with_canaries(&s3.data_dir(), &mut found);
    assert_eq!(found, Vec::<String>::new());
    let mut found = Vec::new();
    files_with_canaries(place.path(), &mut found);
    let mine = ["key ", "pg-password ", "redis-password ", "s3-secret ", "wrong "];
    found.retain(|path| !mine.iter().any(|name| path.contains(&format!("/{name}"))));
    assert_eq!(found, Vec::<String>::new());
    let left = fs::read_dir(place.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "no temporary file is left behind");
}
