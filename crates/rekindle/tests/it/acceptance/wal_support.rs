//! What the tests of the WAL log share.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rekindle_testkit::{Postgres, PostgresOptions};
use rustix::process::{Pid, Signal, kill_process};

use crate::run::{Ended, Place};

/// A repository and a configuration for one server.
pub(crate) struct Log {
    pub(crate) place: Place,
    /// The URL of the repository, and further lines of `[repository]`.
    repository: (String, String),
    /// `stream`, `archive` or `both`.
    wal: &'static str,
    /// Where the server's programs are, for recoveries.
    bin: Option<PathBuf>,
}

impl Log {
    /// For the server at this port; 0: nobody asks it.
    pub(crate) fn new(port: u16, password: &str) -> Self {
        Self::made(Place::new(), None, port, password, "both", None)
    }

    fn made(
        place: Place,
        repository: Option<(String, String)>,
        port: u16,
        password: &str,
        wal: &'static str,
        bin: Option<PathBuf>,
    ) -> Self {
        let here = || (format!("file://{}/repo", place.path().display()), String::new());
        let repository = repository.unwrap_or_else(here);
        place.write("key", "canary-repository-of-the-log\n");
        place.write("pg-password", password);
        place.write("some/file", "x\n");
        let init =
            ["init", "--config", "other.toml", "--repo", &repository.0, "--password-file", "key", "--files", "some"];
        place.ends(0, &init);
        let log = Self { place, repository, wal, bin };
        log.configure("database", port);
        log
    }

    pub(crate) fn of(server: &Postgres) -> Self {
        Self::with(server, "both")
    }

    /// For a server whose WAL comes in this way only.
    pub(crate) fn with(server: &Postgres, wal: &'static str) -> Self {
        Self::at(Place::new(), None, server, wal)
    }

    /// In a place that was made before, with a repository elsewhere: its URL, and further lines.
    pub(crate) fn at(place: Place, repository: Option<(String, String)>, server: &Postgres, wal: &'static str) -> Self {
        Self::made(place, repository, server.port(), server.password(), wal, Some(server.bin_dir().to_owned()))
    }

    /// How WAL is meant to come in, from the next [`Log::follow`] on.
    pub(crate) fn set_wal(&mut self, wal: &'static str) {
        self.wal = wal;
    }

    /// From now on the component's server is this one.
    pub(crate) fn follow(&self, server: &Postgres) {
        self.configure("database", server.port());
        self.place.write("pg-password", server.password());
        if self.place.is_run_as_another() {
            self.give_to_server();
        }
    }

    /// From now on everything runs as the servers' user, who writes into the same repository as
    /// `archive_command`.
    pub(crate) fn run_as_server(&mut self) {
        if let Some((uid, gid)) = Postgres::os_user() {
            let program = self.program();
            self.place.run_as(program, uid, gid);
        }
        self.give_to_server();
    }

    /// Recovers into a directory of its own; the answer.
    pub(crate) fn restore(&self, code: i32, to: &Path, target: &[&str]) -> serde_json::Value {
        let to = to.display().to_string();
        let arguments: Vec<&str> = ["restore", "database", "--to", &to].iter().chain(target).copied().collect();
        self.place.json(code, &arguments)
    }

    /// A base backup that must be complete.
    pub(crate) fn backup(&self) {
        assert_eq!(self.place.json(0, &["backup"])["result"]["state"], "complete");
    }

    pub(crate) fn configure(&self, component: &str, port: u16) {
        let (root, wal) = (self.place.path().display(), self.wal);
        let (url, more) = &self.repository;
        let bin = self.bin.as_ref().map(|bin| format!("bin-dir = \"{}\"\n", bin.display())).unwrap_or_default();
        let config = format!(
            "[stack]\nname = \"shop\"\n[repository]\nurl = \"{url}\"\n{more}password = \"file:{root}/key\"\n\
             [component.{component}]\nkind = \"postgres\"\nmethod = \"physical\"\nwal = \"{wal}\"\n{bin}\
             url = \"postgres://postgres@127.0.0.1:{port}/postgres\"\npassword = \"file:{root}/pg-password\"\n"
        );
        self.place.write("rekindle.toml", &config);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The program with the configuration, from another directory.
    pub(crate) fn command_in(&self, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = self.place.command(&[]);
        command.current_dir(directory).arg("--config").arg(self.path("rekindle.toml")).args(arguments);
        command
    }

    pub(crate) fn fetch(&self, directory: &Path, name: &str) -> i32 {
        let ended = self.command_in(directory, &["wal", "fetch", name, "fetched", "--prefetch", "0"]).output().unwrap();
        ended.status.code().unwrap()
    }

    /// Gives everything to the user that servers run as, whose `archive_command` writes into it.
    pub(crate) fn give_to_server(&self) {
        give(self.place.path());
        // A configuration that somebody else could change is refused to root.
        let config = self.path("rekindle.toml");
        let own = rustix::process::getuid().as_raw();
        chown(&config, Some(own), None).unwrap();
        fs::set_permissions(&config, PermissionsExt::from_mode(0o644)).unwrap();
    }

    /// The line for `archive_command` or `restore_command`.
    pub(crate) fn line(&self, rest: &str) -> String {
        format!("{} --config {} wal {rest}", self.program().display(), self.path("rekindle.toml").display())
    }

    /// The program at a place that the server's user can reach.
    fn program(&self) -> PathBuf {
        let built = PathBuf::from(env!("CARGO_BIN_EXE_rekindle"));
        let open = |path: &Path| path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0);
        if built.ancestors().all(open) {
            return built;
        }
        let copy = self.path("rekindle");
        if !copy.exists() {
            fs::copy(&built, &copy).unwrap();
        }
        copy
    }

    /// A running receiver.
    pub(crate) fn receiver(&self, more: &[&str]) -> Receiver {
        let mut command = self.place.command(&[&["wal", "stream"], more].concat());
        let error = fs::OpenOptions::new().create(true).append(true).open(self.path("receiver.log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(error).spawn().unwrap();
        Receiver { child: Some(child), log: self.path("receiver.log") }
    }

    /// What `wal status` says of the only log, without asking the server.
    pub(crate) fn state(&self) -> serde_json::Value {
        let status = self.place.json(0, &["wal", "status", "--no-server"]);
        status["result"]["logs"][0].clone()
    }

    /// The position up to which the log reaches.
    pub(crate) fn head(&self) -> u64 {
        lsn(self.state()["head"].as_str().unwrap_or("0/0"))
    }

    /// Waits until the log reaches a position.
    pub(crate) fn wait_for(&self, position: u64) {
        let begun = Instant::now();
        while self.head() < position {
            let told = fs::read_to_string(self.path("receiver.log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_mins(1), "the log stops before {position:X}: {told}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A running `wal stream`; killed when dropped.
pub(crate) struct Receiver {
    child: Option<Child>,
    log: PathBuf,
}

impl Receiver {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.as_ref().unwrap().id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and its exit code.
    pub(crate) fn stop(self) -> i32 {
        self.stop_by(Signal::TERM)
    }

    /// One signal, and its exit code.
    pub(crate) fn stop_by(mut self, signal: Signal) -> i32 {
        self.signal(signal);
        self.child.take().unwrap().wait().unwrap().code().unwrap_or(-1)
    }

    pub(crate) fn told(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has said something.
    pub(crate) fn wait_told(&self, text: &str) {
        let begun = Instant::now();
        while !self.told().contains(text) {
            assert!(begun.elapsed() < Duration::from_mins(1), "`{text}` is not in: {}", self.told());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) fn lsn(text: &str) -> u64 {
    text.parse::<rekindle_core::wal::Lsn>().unwrap().0
}

/// Where the server's WAL is safe on its disk.
pub(crate) fn position(server: &Postgres) -> u64 {
    lsn(server.psql("postgres", "SELECT pg_current_wal_flush_lsn()").trim())
}

pub(crate) fn give(path: &Path) {
    let Some((uid, gid)) = Postgres::os_user() else {
        return;
    };
    chown(path, Some(uid), Some(gid)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}

pub(crate) fn as_server(command: &mut Command) {
    if let Some((uid, gid)) = Postgres::os_user() {
        command.uid(uid).gid(gid);
    }
}

/// A directory that belongs to the server's user.
pub(crate) fn server_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    give(directory.path());
    directory
}

/// A cluster with WAL segments of one MiB, so that many are sealed in a short time.
pub(crate) fn small_segments(major: u32, directory: &Path, settings: &[(&str, &str)]) -> Postgres {
    let data = directory.join("data");
    let mut command = Command::new(rekindle_testkit::tools::postgres_bin(major).join("initdb"));
    command
        .args(["-U", "postgres", "-A", "trust", "--no-sync", "--wal-segsize=1", "-D"])
        .arg(&data)
        .current_dir(directory);
    as_server(&mut command);
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // What it acknowledges, it has written: tests ask where its log ends.
    let settings = [("synchronous_commit", "on")].iter().chain(settings);
    let settings = settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut server =
        Postgres::start(PostgresOptions { major, data_dir: Some(data), settings, ..PostgresOptions::default() });
    server.psql("postgres", &format!("ALTER ROLE postgres PASSWORD '{}'", server.password()));
    server.restart();
    server
}

/// `pg_basebackup` without WAL: the log has to bring it.
pub(crate) fn base_backup(server: &Postgres, into: &Path) {
    let mut command = server.client("pg_basebackup");
    command.args(["-X", "none", "-c", "fast", "--no-sync", "-D"]).arg(into);
    as_server(&mut command);
    command.current_dir(into.parent().unwrap());
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Makes a base backup a server that recovers from the log.
pub(crate) fn recoverable(data: &Path, restore: &str, more: &str) {
    let settings = format!("restore_command = '{restore}'\narchive_mode = off\n{more}\n");
    fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
    fs::write(data.join("recovery.signal"), "").unwrap();
    for name in ["postgresql.auto.conf", "recovery.signal"] {
        give(&data.join(name));
    }
}

/// Starts a server by hand and waits until it ends or takes writes; what it logged.
pub(crate) fn try_recovery(major: u32, data: &Path) -> String {
    let socket = tempfile::tempdir().unwrap();
    give(socket.path());
    let mut command = Command::new(rekindle_testkit::tools::postgres_bin(major).join("postgres"));
    command.arg("-D").arg(data).args([
        "-c",
        "listen_addresses=",
        "-c",
        "logging_collector=off",
        "-c",
        "fsync=off",
        "-k",
    ]);
    command.arg(socket.path()).current_dir(socket.path()).stdout(Stdio::null());
    let log = data.join("recovery.log");
    command.stderr(fs::File::create(&log).unwrap());
    as_server(&mut command);
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    loop {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let over = child.try_wait().unwrap().is_some();
        if over || text.contains("ready to accept connections") || begun.elapsed() > Duration::from_secs(40) {
            if !over {
                kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::INT).unwrap();
                child.wait().unwrap();
            }
            return text;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The outcome of a command.
pub(crate) fn ended(mut command: Command) -> Ended {
    Ended::of(command.output().unwrap())
}
