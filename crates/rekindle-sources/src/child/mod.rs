//! A child process whose bad exit is an error at the end of its stream.
//!
//! The process gets its own group (so that helpers it starts end with it), a cleaned environment,
//! no terminal, and its diagnostics are drained on a thread, so that a talkative program never
//! blocks. Nothing here waits without looking at the run's cancel flag.

mod feed;
mod inside;
mod read;

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child as Process, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rekindle_core::{Cancel, ErrorCode, Fault, Result, Secret};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::container::Inside;

pub use feed::feed;
pub use read::{ChildRead, Judge, output};

/// How often a waiting thread looks at the cancel flag.
const POLL_MILLIS: u64 = 100;
/// How long a child may live on after it closed its output.
const EXIT_MAX: Duration = Duration::from_mins(1);
/// How long we wait for the rest of the diagnostics after the child ended.
const STDERR_MAX: Duration = Duration::from_secs(2);
/// Bytes of diagnostics that are kept, from the end.
const STDERR_TAIL_MAX: usize = 32 * 1024;

/// What to start, and how it is watched.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    pub program: PathBuf,
    /// Visible to every user of the machine: never a secret.
    pub args: Vec<OsString>,
    /// The whole environment of the child.
    pub env: Vec<(String, OsString)>,
    /// The longest pause without a byte passing before the child is ended.
    pub idle_max: Duration,
    /// Verb and object for errors: ``dump the database `app` ``.
    pub what: String,
    /// The code of errors that are not about the exit.
    pub code: &'static ErrorCode,
    /// Texts that must not appear in errors, should the child print them.
    pub secrets: Vec<Secret<String>>,
    /// The container it runs in; none: this host.
    pub inside: Option<Inside>,
}

/// Two reasons to stop: the run was cancelled, or the work the child belongs to was given up.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    cancel: Cancel,
    given_up: Arc<AtomicBool>,
}

impl Stop {
    /// Listens to the run's cancel flag.
    pub fn new(cancel: Cancel) -> Self {
        Self { cancel, given_up: Arc::default() }
    }

    /// Makes every child that listens to this end soon.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    fn check(&self) -> Result<()> {
        self.cancel.check()?;
        if self.given_up.load(Ordering::Acquire) {
            return Err(Fault::new(rekindle_core::codes::RUN_SIBLING, "stop: the work was given up"));
        }
        Ok(())
    }
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Whether it said that all went well.
    pub success: bool,
    /// `exit status: 1`, `signal: 9 (SIGKILL)`, …
    pub status: String,
    /// The end of its diagnostics, without secrets, trimmed.
    pub stderr: String,
}

impl Ended {
    /// Status and diagnostics in one line.
    pub fn describe(&self) -> String {
        let said: Vec<&str> = self.stderr.lines().filter(|l| !l.is_empty()).collect();
        let first = said.len().saturating_sub(12);
        if said.is_empty() {
            format!("it ended with {} and said nothing", self.status)
        } else {
            format!("it ended with {}: {}", self.status, said[first..].join("; "))
        }
    }
}

/// A started child. Dropping it kills the group and reaps the child.
pub(crate) struct Child {
    process: Process,
    group: Pid,
    status: Option<ExitStatus>,
    tail: Arc<Mutex<Vec<u8>>>,
    tail_done: Receiver<()>,
    spec: ChildSpec,
    stop: Stop,
}

/// Which of the child's streams are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pipe {
    Stdin,
    Stdout,
}

impl Child {
    /// Starts the program.
    pub(crate) fn start(spec: ChildSpec, stop: Stop, pipe: Pipe) -> Result<Self> {
        stop.check()?;
        let wire = |wanted| {
            if pipe == wanted { Stdio::piped() } else { Stdio::null() }
        };
        let mut process =
            command(&spec).stdin(wire(Pipe::Stdin)).stdout(wire(Pipe::Stdout)).stderr(Stdio::piped()).spawn().map_err(
                |error| {
                    Fault::new(spec.code, format!("start `{}`", spec.program.display()))
                        .because(error)
                        .during(spec.what.clone())
                },
            )?;
        let group = Pid::from_child(&process);
        let tail = Arc::default();
        let tail_done = match process.stderr.take() {
            Some(stderr) => drain(stderr, Arc::clone(&tail)),
            None => sync_channel(1).1,
        };
        Ok(Self { process, group, status: None, tail, tail_done, spec, stop })
    }

    /// Kills the whole group and reaps the child. Does nothing once it is reaped.
    fn kill(&mut self) {
        if self.status.is_none() {
            // The child is not reaped yet, so its number cannot belong to anybody else.
            let _ = kill_process_group(self.group, Signal::KILL);
            self.status = self.process.wait().ok();
        }
    }

    /// Waits for the end, at most [`EXIT_MAX`] unless `patience` is longer.
    fn wait(&mut self, patience: Duration) -> Result<Ended> {
        let since = Instant::now();
        while self.status.is_none() {
            self.status = self.process.try_wait().map_err(|error| self.fault("wait for the program").because(error))?;
            if self.status.is_some() {
                break;
            }
            if let Err(fault) = self.stop.check() {
                self.kill();
                return Err(fault);
            }
            if since.elapsed() > patience {
                self.kill();
                return Err(self.fault(format!(
                    "end `{}`: it did not end within {} s after its last byte",
                    self.spec.program.display(),
                    patience.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(POLL_MILLIS / 10));
        }
        Ok(self.ended())
    }

    /// Status and diagnostics of a child that is reaped.
    fn ended(&mut self) -> Ended {
        // A helper that outlives the child may hold the pipe open; do not wait for it for long.
        let _: std::result::Result<(), RecvTimeoutError> = self.tail_done.recv_timeout(STDERR_MAX);
        let bytes = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stderr = String::from_utf8_lossy(&bytes).trim().to_owned();
        for secret in &self.spec.secrets {
            if !secret.expose().is_empty() {
                stderr = stderr.replace(secret.expose().as_str(), "[secret]");
            }
        }
        Ended {
            success: self.status.is_some_and(|status| status.success()),
            status: self.status.map_or_else(|| "no status".to_owned(), |status| status.to_string()),
            stderr,
        }
    }

    fn fault(&self, what: impl Into<String>) -> Fault {
        Fault::new(self.spec.code, what)
    }

    /// The child sent or took nothing for too long.
    fn idle(&mut self) -> Fault {
        self.kill();
        let fault = self.fault(format!(
            "wait for `{}`: nothing passed for {} s (idle limit)",
            self.spec.program.display(),
            self.spec.idle_max.as_secs()
        ));
        fault.during(self.spec.what.clone())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

fn command(spec: &ChildSpec) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.args)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .process_group(0);
    command
}

fn drain(mut stderr: ChildStderr, tail: Arc<Mutex<Vec<u8>>>) -> Receiver<()> {
    let (done, wait) = sync_channel(1);
    std::thread::spawn(move || {
        let mut buffer = [0_u8; 4096];
        while let Ok(given @ 1..) = stderr.read(&mut buffer) {
            let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
            tail.extend_from_slice(&buffer[..given]);
            let excess = tail.len().saturating_sub(STDERR_TAIL_MAX);
            tail.drain(..excess);
        }
        let _ = done.send(());
    });
    wait
}

#[cfg(test)]
mod tests;
