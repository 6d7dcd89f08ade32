//! A server process: started, awaited, signalled, and surely gone at the end.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group, test_kill_process};

/// How long a server may take until it answers. Generous: the machine may be busy.
pub const READY_MAX: Duration = Duration::from_mins(1);
/// How long a server may take to end after a polite signal, before SIGKILL.
pub const STOP_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
const LOG_TAIL_BYTES: usize = 4000;

/// Kills the server's process group and removes its directory when this process dies without
/// dropping its values, for instance by SIGKILL. It notices by the end of its standard input.
/// A watchdog instead of PR_SET_PDEATHSIG, which follows the *thread* that spawned.
const WATCHDOG: &str = r#"
read -r word && exit 0
kill -s "$2" -- "-$1"; n=0
while kill -0 -- "-$1" && [ $n -lt 50 ]; do n=$((n + 1)); sleep 0.1; done
kill -s KILL -- "-$1"
[ -z "$4" ] || umount -l -- "$4"
rm -rf -- "$3"
"#;

/// What a server leaves behind, for the watchdog to clear.
#[derive(Debug, Clone, Default)]
pub struct Traces {
    /// The server's temporary directory.
    pub dir: PathBuf,
    /// A file system mounted for it.
    pub mount: Option<PathBuf>,
}

/// A running server in a process group of its own.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Child,
    watchdog: Child,
    log: PathBuf,
    end_signal: Signal,
}

impl Server {
    /// Starts the program with its output in the file `log`. `end_signal` is what ends it for
    /// good when the value is dropped.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(name: &str, mut command: Command, log: &Path, end_signal: Signal, traces: &Traces) -> Self {
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(log)
                .unwrap_or_else(|err| panic!("open {}: {err}", log.display()))
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(open())
            .stderr(open())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|err| panic!("start {name}: {command:?}: {err}"));
        let watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(child.id().to_string())
            .arg(signal_name(end_signal))
            .arg(&traces.dir)
            .arg(traces.mount.as_deref().unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|err| panic!("start the watchdog of {name}: {err}"));
        Self { name: name.to_owned(), child, watchdog, log: log.to_owned(), end_signal }
    }

    /// Waits until `probe` succeeds.
    ///
    /// # Panics
    /// With the end of the log when the server exits, or does not answer within [`READY_MAX`].
    pub fn wait_ready(&mut self, mut probe: impl FnMut() -> Result<(), String>) {
        let deadline = Instant::now() + READY_MAX;
        loop {
            if let Some(status) = self.exit_status() {
                panic!("{} ended at once with {status}\n{}", self.name, self.log_tail());
            }
            match probe() {
                Ok(()) => return,
                Err(why) => assert!(
                    Instant::now() < deadline,
                    "{} does not answer after {READY_MAX:?}: {why}\n{}",
                    self.name,
                    self.log_tail()
                ),
            }
            sleep(POLL);
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process still runs (a stopped one does).
    pub fn is_running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    /// Sends a signal to the process itself.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.group(), signal);
    }

    /// Sends a signal to the process and all its children that stayed in its group.
    pub fn signal_group(&self, signal: Signal) {
        let _ = kill_process_group(self.group(), signal);
    }

    /// Ends it politely; by SIGKILL if it has not ended within [`STOP_MAX`].
    pub fn stop(mut self, signal: Signal) -> ExitStatus {
        self.end(signal)
    }

    /// Ends it by SIGKILL, as a crash would.
    pub fn kill9(mut self) {
        self.end(Signal::KILL);
    }

    /// The last part of what the server wrote.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        // Once a killed process is waited for, nobody tells any more which its children were.
        let orphans = if signal == Signal::KILL { self.children() } else { Vec::new() };
        if self.exit_status().is_none() {
            self.signal(signal);
            // A stopped process would keep every signal but SIGKILL waiting.
            self.signal_group(Signal::CONT);
            let deadline = Instant::now() + STOP_MAX;
            while self.exit_status().is_none() && Instant::now() < deadline {
                sleep(POLL);
            }
        }
        let children = self.children();
        self.signal_group(Signal::KILL);
        let status = self.child.wait().expect("wait for our own child");
        end_children(&children);
        end_children(&orphans);
        self.dismiss_watchdog();
        status
    }

    /// Its direct children. Those of PostgreSQL are in sessions, and so in groups, of their own.
    fn children(&self) -> Vec<Pid> {
        let pid = self.pid();
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let words = list.unwrap_or_default();
        words.split_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?)).collect()
    }

    fn dismiss_watchdog(&mut self) {
        if let Some(mut stdin) = self.watchdog.stdin.take() {
            let _ = stdin.write_all(b"done\n");
        }
        let _ = self.watchdog.wait();
    }

    fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("ask about our own child")
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `stop` or `kill9` there is nothing left to end.
        if self.watchdog.stdin.is_some() {
            self.end(self.end_signal);
        }
    }
}

/// Kills what a dead server left running and waits for it: PostgreSQL, for one, refuses to
/// start while a process of its previous life holds the shared memory.
fn end_children(children: &[Pid]) {
    let deadline = Instant::now() + STOP_MAX;
    for &child in children {
        let _ = kill_process(child, Signal::KILL);
        while test_kill_process(child).is_ok() && Instant::now() < deadline {
            sleep(POLL);
        }
    }
}

/// The last part of a log file, for failure messages.
pub(crate) fn log_tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let tail = &bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..];
    format!("--- end of {} ---\n{}", log.display(), String::from_utf8_lossy(tail))
}

/// Runs a program to its end and gives its standard output.
///
/// # Panics
/// With its standard error when it fails.
pub(crate) fn run(mut command: Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|err| panic!("start {command:?}: {err}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::QUIT => "QUIT",
        Signal::INT => "INT",
        Signal::KILL => "KILL",
        _ => "TERM",
    }
}

/// A temporary directory with a short path: a unix socket's path has room for 107 bytes only.
pub(crate) fn temp_dir(prefix: &str) -> tempfile::TempDir {
    tempfile::Builder::new().prefix(&format!("rk-{prefix}-")).tempdir().expect("make a temporary directory")
}
