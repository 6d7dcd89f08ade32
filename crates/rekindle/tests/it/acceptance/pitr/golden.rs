//! Repositories of earlier programs: each stored format stays readable. A fixture is recorded once and
//! never again; a change of a format adds one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Room, caught_up, mark, marker_table, markers, serve};
use crate::acceptance::wal_support::{Log, server_directory, small_segments};
use crate::run::Place;

const MAJOR: u32 = 15;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures")
}

fn tar(arguments: &[&str], directory: &Path) {
    let done = Command::new("tar").args(arguments).current_dir(directory).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

/// Files, a base backup and its log, as the first published format stored them.
#[test]
fn the_first_format_is_read_and_restored() {
    let place = Place::new();
    fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    tar(&["-xf", fixtures().join("repository-1.tar").to_str().unwrap()], place.path());
    place.write("key", "canary-repository-of-the-log\n");
    let url = format!("file://{}/repo", place.path().display());
    let at = ["--repo", &url, "--password-file", "key"];
    let run = |arguments: &[&str]| place.json(0, &[arguments, &at[..]].concat());
    run(&["verify", "--read-data"]);
    let points = run(&["list"])["result"]["points"].as_array().unwrap().clone();
    assert_eq!(points.len(), 2, "{points:#?}");
    assert!(points.iter().all(|point| point["state"] == "complete"), "{points:#?}");
    run(&["show", "latest"]);
    run(&["restore", "latest", "files", "--to", "files"]);
    let mut found = Vec::new();
    names(&place.path().join("files"), &mut found);
    assert_eq!(found, ["a.txt: one\n", "b.txt: two\n"]);

    let moment = place.read("moment");
    let room = Room::new();
    let comes_back = |name: &str, target: &[&str]| {
        let to = room.path(name);
        run(&[&["restore", "database", "--to", to.to_str().unwrap()], target].concat());
        markers(&serve(MAJOR, &to))
    };
    assert_eq!(comes_back("moment", &["--at", moment.trim()]), "1,2,3");
    assert_eq!(comes_back("end", &["--latest"]), "1,2,3,4,5");
    let checked = Command::new(rekindle_testkit::tools::find("restic"))
        .args(["--no-cache", "-r", place.path().join("repo").to_str().unwrap(), "check", "--read-data"])
        .env("RESTIC_PASSWORD_FILE", place.path().join("key"))
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

fn names(directory: &Path, found: &mut Vec<String>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            names(&path, found);
        } else {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            found.push(format!("{name}: {}", fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Makes a fixture of today's format: `cargo test -p rekindle --test it golden::record -- --ignored`.
#[test]
#[ignore = "writes a fixture; run by hand when a stored format changes, under a new name"]
fn record() {
    let directory = server_directory();
    let server = small_segments(MAJOR, directory.path(), &[]);
    // A small cluster makes a small fixture.
    server.psql("postgres", "UPDATE pg_database SET datistemplate = false");
    for name in ["template1", "template0"] {
        server.psql("postgres", &format!("DROP DATABASE {name}"));
    }
    let log = Log::with(&server, "stream");
    marker_table(&server);
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 1");
    log.place.write("data/a.txt", "one\n");
    let named = log.place.read("rekindle.toml").replace("name = \"shop\"", "name = \"shop\"\nhost = \"golden\"");
    let component = format!("\n[component.files]\nkind = \"files\"\npaths = [\"{}\"]\n", log.path("data").display());
    log.place.write("rekindle.toml", &(named + &component));
    log.place.write("data/b.txt", "two\n");
    log.backup();
    log.place.write("moment", &mark(&server, 3).to_string());
    mark(&server, 1);
    log.backup();
    mark(&server, 1);
    caught_up(&log, &server);
    assert_eq!(receiver.stop(), 0);
    let to = fixtures().join("repository-new.tar");
    tar(&["--sort=name", "--owner=0", "--group=0", "-cf", to.to_str().unwrap(), "repo", "moment"], log.place.path());
}
