//! A stack under test: a directory with the configuration, its components, and what every test
//! asks about runs.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rekindle_repo::format::Id;
use rekindle_repo::format::key::KeyFile;
use rekindle_testkit::fixtures::{CompareOptions, PostgresStack, compare_trees_with};
use rekindle_testkit::{Postgres, Redis};
use serde_json::{Value, json};

use crate::run::{Ended, Place};

/// Longest wait for something that another process is about to do.
const SOON: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(2);

pub(crate) const REPOSITORY_PASSWORD: &str = "canary-repository-password";

/// A directory with a configuration and a repository of its own.
pub(crate) struct Stack {
    pub(crate) place: Place,
    repository: String,
    /// Further lines of `[stack]`.
    more: String,
    sections: Vec<String>,
}

impl Stack {
    /// A stack without components, its repository in `repo/` of its directory.
    pub(crate) fn new() -> Self {
        let place = Place::new();
        let url = format!("file://{}", place.path().join("repo").display());
        Self::at(place, &format!("url = \"{url}\""), &url)
    }

    /// A stack with its repository at `url`; `lines` are those of `[repository]`, with the URL.
    pub(crate) fn at(place: Place, lines: &str, url: &str) -> Self {
        place.write("key", &format!("{REPOSITORY_PASSWORD}\n"));
        place.write("seed/x", "x");
        let init = ["init", "--config", "made.toml", "--repo", url, "--password-file", "key", "--files", "seed"];
        place.ends(0, &init);
        Self {
            place,
            repository: format!("[repository]\n{lines}\npassword = \"file:key\"\n"),
            more: String::new(),
            sections: Vec::new(),
        }
    }

    /// Replaces the key file by one whose password is stretched a hundredth as much: for tests
    /// that start the program hundreds of times, which would take half a second each to try it.
    pub(crate) fn quicken(&self) {
        let keys = self.path("repo/keys");
        let old = std::fs::read_dir(&keys).unwrap().next().unwrap().unwrap().path();
        let key = KeyFile::decode(&std::fs::read(&old).unwrap()).unwrap().open(REPOSITORY_PASSWORD).unwrap();
        let quick = KeyFile::create(&key, REPOSITORY_PASSWORD, 10, "2026-01-01T00:00:00Z".to_owned()).unwrap();
        let bytes = quick.encode().unwrap();
        std::fs::write(keys.join(Id::of(&bytes).hex()), &bytes).unwrap();
        std::fs::remove_file(old).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Adds a part of the configuration.
    pub(crate) fn add(&mut self, section: &str) -> &mut Self {
        self.sections.push(section.to_owned());
        self.write();
        self
    }

    /// Replaces the part that begins with the same line.
    pub(crate) fn set(&mut self, section: &str) -> &mut Self {
        let first = section.lines().next();
        self.sections.retain(|old| old.lines().next() != first);
        self.add(section)
    }

    fn write(&self) {
        let head = format!("[stack]\nname = \"shop\"\nhost = \"test-host\"\n{}\n\n", self.more);
        self.place.write("rekindle.toml", &format!("{head}{}\n{}\n", self.repository, self.sections.join("\n\n")));
    }

    /// Further lines of `[stack]`.
    pub(crate) fn in_stack(&mut self, lines: &str) {
        lines.clone_into(&mut self.more);
        self.write();
    }

    /// A component `files` with one directory below the stack's own.
    pub(crate) fn files(&mut self, directory: &str) -> PathBuf {
        let path = self.path(directory);
        std::fs::create_dir_all(&path).unwrap();
        self.set(&format!("[component.files]\nkind = \"files\"\npaths = [\"{}\"]", path.display()));
        path
    }

    /// A component `database` on a port, with further lines.
    pub(crate) fn postgres(&mut self, server: &Postgres, port: u16, databases: &[String], more: &str) {
        self.place.write("pg-password", &format!("{}\n", server.password()));
        let names: Vec<String> = databases.iter().map(|name| json!(name).to_string()).collect();
        self.set(&format!(
            "[component.database]\nkind = \"postgres\"\nmethod = \"logical\"\n\
             url = \"postgres://postgres@127.0.0.1:{port}/postgres\"\npassword = \"file:pg-password\"\n\
             databases = [{}]\nexact-counts = true\n{more}",
            names.join(", ")
        ));
    }

    /// As [`Stack::postgres`], both databases of the fixture, on the server's own port.
    pub(crate) fn postgres_stack(&mut self, server: &Postgres, made: &PostgresStack) {
        self.postgres(server, server.port(), &made.databases, "");
    }

    /// A component `cache` on a port, with further lines.
    pub(crate) fn redis(&mut self, server: &Redis, port: u16, more: &str) {
        let password = server.options().password.as_ref().map_or(String::new(), |password| {
            self.place.write("redis-password", &format!("{password}\n"));
            "password = \"file:redis-password\"\n".to_owned()
        });
        self.set(&format!("[component.cache]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:{port}\"\n{password}{more}"));
    }

    /// A backup that must be complete; its report.
    pub(crate) fn complete(&self) -> Value {
        let report = self.place.json(0, &["backup"])["result"].take();
        assert_eq!(report["state"], "complete", "{report}");
        assert_eq!(self.newest()["id"], report["point"]);
        assert_eq!(self.newest()["state"], "complete");
        report
    }

    /// Every listed point, oldest first.
    pub(crate) fn points(&self) -> Vec<Value> {
        self.place.json(0, &["list"])["result"]["points"].as_array().unwrap().clone()
    }

    pub(crate) fn newest(&self) -> Value {
        self.points().pop().expect("there is a point")
    }

    /// Ids of complete points, oldest first.
    pub(crate) fn complete_points(&self) -> Vec<String> {
        let points = self.points().into_iter().filter(|point| point["state"] == "complete");
        points.map(|point| point["id"].as_str().unwrap().to_owned()).collect()
    }

    /// A backup in which this component fails and others do not: a partial point, named so
    /// everywhere, with cause and remedy, and no new complete one.
    pub(crate) fn partial(&self, component: &str, codes: &[&str]) -> Value {
        let before = self.complete_points();
        let value = self.place.json(3, &["backup"]);
        assert_eq!(value["error"]["code"], "RK-EN-003", "{value}");
        assert!(value["error"]["message"].as_str().unwrap().contains(component), "{value}");
        assert!(value["error"]["hint"].is_string(), "{value}");
        let report = &value["result"];
        assert_eq!(report["state"], "partial");
        let reports = report["components"].as_array().unwrap();
        let failed = reports.iter().find(|one| one["component"] == component).expect("it is reported");
        assert_eq!(failed["state"], "missing", "{failed}");
        let problem = &failed["problem"];
        assert!(codes.contains(&problem["code"].as_str().unwrap()), "{codes:?}: {problem}");
        assert!(problem["message"].as_str().unwrap().contains(component), "{problem}");
        assert!(problem["hint"].is_string(), "a remedy: {problem}");
        let newest = self.newest();
        assert_eq!((&newest["id"], newest["state"].as_str()), (&report["point"], Some("partial")));
        assert_eq!(newest["missing"], json!([component]));
        assert_eq!(self.complete_points(), before, "no new complete point");
        problem.clone()
    }

    /// A backup of nothing but this component fails: this code, no new point at all.
    pub(crate) fn fails_alone(&self, component: &str, code: i32) -> Ended {
        let before = self.points();
        let ended = self.place.ends(code, &["backup", component]);
        assert!(ended.err.contains(component) && ended.err.contains("\nhint: "), "{ended:#?}");
        assert_eq!(self.points(), before, "no point");
        ended
    }

    /// Starts a command in the background.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.place.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// stock restic on this (local) repository.
    pub(crate) fn restic(&self, program: &str, arguments: &[&str]) -> Ended {
        self.restic_at(&self.path("repo"), program, arguments)
    }

    pub(crate) fn restic_at(&self, repository: &Path, program: &str, arguments: &[&str]) -> Ended {
        let output = std::process::Command::new(rekindle_testkit::tools::find(program))
            .args(arguments)
            .env("RESTIC_REPOSITORY", repository)
            .env("RESTIC_PASSWORD_FILE", self.path("key"))
            .env("RESTIC_CACHE_DIR", self.path("restic-cache"))
            .output()
            .unwrap();
        Ended::of(output)
    }

    /// `restic check` finds nothing wrong.
    pub(crate) fn restic_check(&self, program: &str, more: &[&str]) {
        let arguments: Vec<&str> = ["check"].iter().chain(more).copied().collect();
        let ended = self.restic(program, &arguments);
        assert_eq!(ended.code, 0, "{program}: {ended:#?}");
    }
}

/// Two trees are the same, as far as a restore can make them so.
pub(crate) fn assert_same_trees(before: &Path, after: &Path) {
    let options = CompareOptions { sockets: false, ..CompareOptions::default() };
    assert_eq!(compare_trees_with(before, after, &options), Vec::<String>::new());
}

/// An absolute path below another directory.
pub(crate) fn below(directory: &Path, absolute: &Path) -> PathBuf {
    directory.join(absolute.strip_prefix("/").unwrap())
}

/// Waits for what another process does.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(POLL);
    }
}

/// Waits until a process has a file open.
pub(crate) fn wait_until_open(child: &mut Child, file: &Path) {
    let descriptors = PathBuf::from(format!("/proc/{}/fd", child.id()));
    wait_until(&format!("{} is open", file.display()), || {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it opened {}", file.display());
        let Ok(entries) = std::fs::read_dir(&descriptors) else { return false };
        entries.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|link| link == file))
    });
}

/// The end of a run that was started in the background.
pub(crate) fn end(child: Child) -> Ended {
    Ended::of(child.wait_with_output().unwrap())
}

/// Bytes that do not compress; another seed gives others.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        noise.extend(random.next().to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// Random numbers that repeat with their seed (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A moment before `end`.
    pub(crate) fn before(&mut self, end: Duration) -> Duration {
        let micros = u64::try_from(end.as_micros()).unwrap().max(1);
        Duration::from_micros(self.next() % micros)
    }
}
