//! The server that recovers, and later answers questions: on a private socket, with its log in a
//! file of ours, gone when this is dropped.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rekindle_core::{Fault, Result, codes};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::io_fault;
use super::owner::Owner;
use crate::postgres::programs::{Programs, base_environment};

/// How long a server may take to close itself in order: it writes everything out.
const STOP_MAX: Duration = Duration::from_mins(30);
/// How long it may take to go down when told to at once.
const QUIT_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// The number in the name of the socket; nothing else listens in its directory.
pub(super) const PORT: u16 = 5432;
/// Memory of the server beside the one that may be running.
const COPY_BUFFERS: &str = "256MB";
/// What a server without its configuration file may have had.
const PREPARED_MAX: &str = "1000";

/// What to start.
pub(super) struct Launch<'a> {
    pub(super) programs: &'a Programs,
    pub(super) data: &'a Path,
    pub(super) owner: Option<Owner>,
    /// Where its socket and log are for the time; none: the directory for temporary files.
    pub(super) private: Option<&'a Path>,
    /// Whether it is a copy beside the original.
    pub(super) copy: bool,
    pub(super) more: Vec<(&'static str, String)>,
}

/// A running server.
pub(super) struct Running {
    process: Child,
    status: Option<ExitStatus>,
    log: File,
    rest: Vec<u8>,
    private: TempDir,
}

impl Launch<'_> {
    fn settings(&self, private: &Path) -> Vec<(&'static str, String)> {
        let at = |name: &str| private.join(name).display().to_string();
        let mut settings: Vec<(&'static str, String)> = vec![
            ("listen_addresses", String::new()),
            ("unix_socket_directories", private.display().to_string()),
            ("unix_socket_permissions", "0700".to_owned()),
            ("port", PORT.to_string()),
            ("hba_file", at("pg_hba.conf")),
            ("ident_file", at("pg_ident.conf")),
            ("ssl", "off".to_owned()),
            ("external_pid_file", at("pid")),
            ("logging_collector", "off".to_owned()),
            ("log_destination", "stderr".to_owned()),
            ("log_min_messages", "warning".to_owned()),
            ("log_line_prefix", "%m [%p] ".to_owned()),
            ("log_timezone", "UTC".to_owned()),
            ("timezone", "UTC".to_owned()),
            ("lc_messages", "C".to_owned()),
            // Nobody may look before it is proved; and without readers, no setting of the original
            // has to be as large as it was there.
            ("hot_standby", "off".to_owned()),
            // What libraries do on their own (jobs, replication) must not happen in a copy.
            ("shared_preload_libraries", String::new()),
            ("session_preload_libraries", String::new()),
            ("local_preload_libraries", String::new()),
            ("autovacuum", "off".to_owned()),
            ("primary_conninfo", String::new()),
            ("primary_slot_name", String::new()),
            ("synchronous_standby_names", String::new()),
        ];
        if self.copy {
            settings.push(("archive_mode", "off".to_owned()));
            settings.push(("shared_buffers", COPY_BUFFERS.to_owned()));
            settings.push(("huge_pages", "off".to_owned()));
        } else {
            // The new timeline's files are kept for the archive until the real server gives them.
            settings.push(("archive_mode", "on".to_owned()));
            settings.push(("archive_command", "/bin/false".to_owned()));
        }
        if self.programs.major >= 15 {
            settings.push(("archive_library", String::new()));
            // Reading ahead would ask for segments behind the target, which may be damaged.
            settings.push(("recovery_prefetch", "off".to_owned()));
        }
        if !self.data.join("postgresql.conf").exists() {
            settings.push(("config_file", at("postgresql.conf")));
            settings.push(("max_prepared_transactions", PREPARED_MAX.to_owned()));
        }
        settings.extend(self.more.iter().cloned());
        settings
    }

    /// Starts it. It is not ready yet.
    pub(super) fn start(self) -> Result<Running> {
        // Whoever reaches the socket is let in: nobody else may enter.
        let closed = Permissions::from_mode(0o700);
        let mut name = tempfile::Builder::new();
        let name = name.prefix("rekindle-pg-").permissions(closed);
        let made = self.private.map_or_else(|| name.tempdir(), |above| name.tempdir_in(above));
        let private = made.map_err(|error| {
            Fault::new(codes::PITR_IO, "make a private directory")
                .because(error)
                .hint("set TMPDIR to another directory")
        })?;
        let write = |name: &str, text: &str| {
            let file = private.path().join(name);
            fs::write(&file, text).and_then(|()| fs::set_permissions(&file, Permissions::from_mode(0o600)))
        };
        let log_file = private.path().join("log");
        let open = || OpenOptions::new().create(true).append(true).mode(0o600).open(&log_file);
        let prepared = write("pg_hba.conf", "local all all trust\n")
            .and_then(|()| write("pg_ident.conf", ""))
            .and_then(|()| write("postgresql.conf", ""))
            .and_then(|()| Ok((open()?, open()?, File::open(&log_file)?)))
            .and_then(|files| Owner::give_tree(self.owner, private.path()).map(|()| files));
        let (out, err, log) = prepared.map_err(|error| io_fault("prepare", private.path(), error))?;
        let program = self.programs.path("postgres");
        let mut command = Command::new(&program);
        command.arg("-D").arg(self.data);
        for (name, value) in self.settings(private.path()) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command
            .env_clear()
            .envs(base_environment())
            .env("TZ", "UTC")
            .current_dir(private.path())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        Owner::run(self.owner, &mut command);
        let process = command.spawn().map_err(|error| {
            Fault::new(codes::PITR_SERVER, format!("start `{}`", program.display()))
                .because(error)
                .hint("the user who runs the server must be able to reach its programs; see --owner")
        })?;
        Ok(Running { process, status: None, log, rest: Vec::new(), private })
    }
}

impl Running {
    /// The directory of its socket.
    pub(super) fn socket(&self) -> &Path {
        self.private.path()
    }

    /// Whole lines that were written since the last call; at the end also a last one that is not.
    pub(super) fn lines(&mut self) -> Result<Vec<String>> {
        let mut bytes = Vec::new();
        self.log.read_to_end(&mut bytes).map_err(|error| io_fault("read", &self.private.path().join("log"), error))?;
        self.rest.extend(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        if self.status.is_some() && !self.rest.is_empty() {
            lines.push(String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned());
        }
        Ok(lines)
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.process.try_wait().ok().flatten();
        }
        self.status
    }

    fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            // It is not reaped yet: the number is still its own.
            let _ = kill_process(Pid::from_child(&self.process), signal);
        }
    }

    fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let since = Instant::now();
        while self.ended().is_none() && since.elapsed() < patience {
            std::thread::sleep(POLL);
        }
        self.status
    }

    /// Closes it in order: everything is on disk afterwards.
    pub(super) fn stop(mut self) -> Result<()> {
        self.signal(Signal::INT);
        match self.wait(STOP_MAX) {
            Some(status) if status.success() => Ok(()),
            status => Err(Fault::new(codes::PITR_SERVER, "stop the recovered server").because(status.map_or_else(
                || format!("it did not end within {} min", STOP_MAX.as_secs() / 60),
                |status| format!("it ended with {status}"),
            ))),
        }
    }

    /// Keeps its log for somebody to read.
    pub(super) fn keep_log(&self, data: &Path) -> Option<PathBuf> {
        let mut name = data.as_os_str().to_owned();
        name.push(".recovery.log");
        let kept = PathBuf::from(name);
        fs::copy(self.private.path().join("log"), &kept).ok().map(|_| kept)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::QUIT);
        if self.status.is_none() && self.wait(QUIT_MAX).is_none() {
            self.signal(Signal::KILL);
            let _ = self.process.wait();
        }
    }
}
