//! A stack whose PostgreSQL is saved by base backups, with its log received while it runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rekindle_testkit::{Postgres, PostgresOptions};

use super::stack::{Stack, wait_until};
use super::wal_support::{lsn, position};

pub(crate) const MARKERS: &str = "SELECT string_agg(n::text, ',' ORDER BY n) FROM marker";

pub(crate) struct Logged {
    pub(crate) stack: Stack,
    pub(crate) server: Postgres,
    receiver: Option<Child>,
    marked: u32,
}

impl Logged {
    /// The server runs, its log is received, nothing is saved yet.
    pub(crate) fn start() -> Self {
        // A commit is in the log before it is answered, so that its position can be waited for.
        let settings = vec![("synchronous_commit".to_owned(), "on".to_owned())];
        let server = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() });
        server.psql("postgres", "CREATE TABLE marker (n int PRIMARY KEY)");
        let stack = Stack::new();
        fs::set_permissions(stack.place.path(), fs::Permissions::from_mode(0o711)).unwrap();
        stack.quicken();
        stack.place.write("pg-password", &format!("{}\n", server.password()));
        let mut this = Self { stack, server, receiver: None, marked: 0 };
        this.configure("");
        this.receive();
        this
    }

    /// The component `database`, with further lines.
    pub(crate) fn configure(&mut self, more: &str) {
        let (port, data) = (self.server.port(), self.server.data_dir().display());
        let section = format!(
            "[component.database]\nkind = \"postgres\"\nmethod = \"physical\"\nwal = \"stream\"\n\
             data-dir = \"{data}\"\nurl = \"postgres://postgres@127.0.0.1:{port}/postgres\"\n\
             password = \"file:pg-password\"\n{more}"
        );
        self.stack.set(&section);
    }

    fn receive(&mut self) {
        let mut command = self.stack.place.command(&["wal", "stream", "--no-backup"]);
        let log = fs::File::create(self.stack.path("receiver.log")).unwrap();
        self.receiver = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let slots = "SELECT count(*) FROM pg_replication_slots WHERE active";
        wait_until("the receiver is connected", || self.server.psql("postgres", slots) == "1");
    }

    /// Commits the next marker; gives a moment after its commit and before whatever comes next.
    pub(crate) fn mark(&mut self) -> jiff::Timestamp {
        self.marked += 1;
        self.server.psql("postgres", &format!("INSERT INTO marker VALUES ({})", self.marked));
        let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        self.server.psql("postgres", now).parse().unwrap()
    }

    /// As [`MARKERS`] gives them, up to a number.
    pub(crate) fn numbers(upto: u32) -> String {
        (1..=upto).map(|number| number.to_string()).collect::<Vec<_>>().join(",")
    }

    /// Begins a new segment.
    pub(crate) fn switch(&self) {
        self.server.psql("postgres", "SELECT pg_switch_wal()");
    }

    /// Waits until everything that was written is in the log.
    pub(crate) fn received(&self) {
        let wanted = position(&self.server);
        wait_until("the log is received", || {
            let status = self.stack.place.json(0, &["wal", "status", "--no-server"]);
            status["result"]["logs"][0]["head"].as_str().is_some_and(|head| lsn(head) >= wanted)
        });
    }

    /// Objects of sealed segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        files(&self.stack.path("repo/rekindle/wal"), &mut found);
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        found.retain(|path| {
            name(path).starts_with("00000001") && name(path)[..24].bytes().all(|b| b.is_ascii_hexdigit())
        });
        found.retain(|path| !path.to_str().unwrap().contains("tail"));
        found.sort_by_key(name);
        found
    }

    /// The server's machine is lost: everything of it, without a goodbye.
    pub(crate) fn lose(&mut self) {
        self.stop_receiver();
        self.server.kill9();
        fs::remove_dir_all(self.server.data_dir()).unwrap();
    }

    pub(crate) fn stop_receiver(&mut self) {
        if let Some(mut receiver) = self.receiver.take() {
            receiver.kill().unwrap();
            receiver.wait().unwrap();
        }
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        self.stop_receiver();
    }
}

fn files(directory: &std::path::Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}
