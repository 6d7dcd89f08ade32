//! A Grafana's files without a Grafana: its database with the real schema, written to by a real SQLite
//! in a process of its own, and configuration, provisioning and plugins around it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tempfile::TempDir;

use crate::process::{run, temp_dir};
use crate::tools;

/// The tables of a Grafana of 2025.
const SCHEMA: &str = include_str!("fixtures/grafana.sql");

/// The files of a Grafana; gone when dropped.
#[derive(Debug)]
pub struct GrafanaFiles {
    dir: TempDir,
}

impl GrafanaFiles {
    /// Makes them. `wal` is the journal mode that `[database] wal = true` asks for.
    ///
    /// # Panics
    /// When `sqlite3` is not installed or fails.
    pub fn make(wal: bool) -> Self {
        let dir = temp_dir("grafana");
        let this = Self { dir };
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().expect("a file has a parent")).expect("make a directory of Grafana");
            fs::write(path, text).expect("write a file of Grafana");
        };
        let (etc, data) = (this.etc(), this.data_dir());
        write(
            this.config(),
            &format!(
                "[paths]\ndata = {}\nprovisioning = {}\n[database]\nwal = {wal}\n[security]\nsecret_key = canary-secret-key\n",
                data.display(),
                etc.join("provisioning").display()
            ),
        );
        write(etc.join("provisioning/datasources/prometheus.yaml"), "apiVersion: 1\ndatasources: []\n");
        write(data.join("plugins/panel/plugin.json"), "{\"id\": \"panel\"}\n");
        write(this.home().join("VERSION"), "11.6.0\n");
        let mode = if wal { "PRAGMA journal_mode = WAL;\n" } else { "" };
        this.sql(&format!(
            "{mode}BEGIN;\n{SCHEMA}\
             INSERT INTO migration_log (migration_id, success, timestamp) VALUES ('create migration_log table', 1, '2025-03-01'), ('add uid column to star', 1, '2025-03-01');\n\
             INSERT INTO org (version, name) VALUES (0, 'Main Org.'), (0, 'Second');\n\
             INSERT INTO user (version, login, email, org_id, is_admin) VALUES (0, 'admin', 'admin@localhost', 1, 1);\n\
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)\n\
             INSERT INTO dashboard (uid, org_id, version, title, slug, data) SELECT 'uid-' || i, 1, 1, 'Board ' || i, 'board-' || i, hex(randomblob(2000)) FROM n;\n\
             INSERT INTO dashboard_version (dashboard_id, version, data) SELECT id, 1, data FROM dashboard;\n\
             COMMIT;\n"
        ));
        this
    }

    /// The directory of everything.
    pub fn top(&self) -> &Path {
        self.dir.path()
    }

    /// The directory with `grafana.ini` and `provisioning/`.
    pub fn etc(&self) -> PathBuf {
        self.top().join("etc")
    }

    /// Its `grafana.ini`.
    pub fn config(&self) -> PathBuf {
        self.etc().join("grafana.ini")
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.top().join("data")
    }

    /// The directory with `VERSION`.
    pub fn home(&self) -> PathBuf {
        self.top().join("home")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.data_dir().join("grafana.db")
    }

    /// Runs statements and gives what they print.
    ///
    /// # Panics
    /// When they fail.
    pub fn sql(&self, statements: &str) -> String {
        sqlite(&self.database(), statements)
    }

    /// Starts a process that changes dashboards as fast as it can, each with its version in one
    /// transaction, until the value is dropped.
    pub fn write_in_a_loop(&self) -> GrafanaWriter {
        GrafanaWriter::start(&self.database())
    }
}

/// Runs statements on a database file.
///
/// # Panics
/// When they fail.
pub fn sqlite(database: &Path, statements: &str) -> String {
    let mut command = command(database);
    command.arg(statements);
    String::from_utf8(run(command)).expect("SQLite prints text").trim().to_owned()
}

fn command(database: &Path) -> Command {
    let mut command = tools::command(tools::find("sqlite3"));
    command.args(["-batch", "-bail", "-cmd", ".timeout 60000"]).arg(database);
    command
}

/// A process that writes to a database.
#[derive(Debug)]
pub struct GrafanaWriter {
    child: Child,
    stop: Arc<AtomicBool>,
    feeder: Option<JoinHandle<u64>>,
}

impl GrafanaWriter {
    fn start(database: &Path) -> Self {
        let mut child = command(database).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("start sqlite3");
        let mut stdin = child.stdin.take().expect("its input is a pipe");
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let feeder = std::thread::spawn(move || {
            let mut written = 0;
            while !told.load(Ordering::Relaxed) {
                let uid = format!("loop-{written}");
                let statements = format!(
                    "BEGIN IMMEDIATE;\n\
                     INSERT INTO dashboard (uid, org_id, version, title, slug, data) VALUES ('{uid}', 1, 1, 'Loop', 'loop', hex(randomblob(500)));\n\
                     INSERT INTO dashboard_version (dashboard_id, version, data) VALUES (last_insert_rowid(), 1, 'x');\n\
                     UPDATE dashboard SET data = hex(randomblob(2000)) WHERE uid = 'uid-{}';\nCOMMIT;\n",
                    written % 500 + 1
                );
                if stdin.write_all(statements.as_bytes()).is_err() {
                    break;
                }
                written += 1;
            }
            written
        });
        Self { child, stop, feeder: Some(feeder) }
    }

    /// Ends it in order; how many transactions it was given.
    ///
    /// # Panics
    /// When one of them failed.
    pub fn finish(mut self) -> u64 {
        let written = self.end();
        let status = self.child.wait().expect("wait for our own child");
        assert!(status.success(), "the writer ended with {status}");
        written
    }

    fn end(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.feeder.take().map_or(0, |feeder| feeder.join().expect("the feeder does not panic"))
    }
}

impl Drop for GrafanaWriter {
    fn drop(&mut self) {
        if self.feeder.is_some() {
            // A feeder that waits for a full pipe goes on once nobody reads it.
            let _ = self.child.kill();
            self.end();
            let _ = self.child.wait();
        }
    }
}
