//! A process in a sandbox: started confined, recorded, and surely gone at the end.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rekindle_core::{Cancel, Fault, Result, codes};
use rustix::process::Signal;

use super::confine::User;
use super::proc::Process;
use super::site::{Site, fault};

/// Bytes of an engine's log that an error shows.
const LOG_SHOWN: u64 = 1500;
/// How long an engine may take to end when asked to, before it is killed.
const STOP_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What to start.
pub(crate) struct Spec {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// The whole environment.
    pub(crate) env: Vec<(String, OsString)>,
    /// Its place: where it works, and where its log goes.
    pub(crate) place: PathBuf,
    pub(crate) user: Option<User>,
    pub(crate) log: PathBuf,
    /// The signal that ends it in order.
    pub(crate) end: Signal,
}

/// A started process. Its thread waits for it, so that it is told apart from a later process with its
/// number, and so that the system can kill it with us (PR_SET_PDEATHSIG follows the thread).
#[derive(Debug)]
pub(crate) struct Engine {
    process: Process,
    status: Arc<Mutex<Option<ExitStatus>>>,
    log: PathBuf,
    end: Signal,
}

impl Engine {
    /// Starts it. Blocking, short.
    pub(crate) fn start(site: &Site, spec: Spec) -> Result<Self> {
        let shown = spec.program.display().to_string();
        let not_started = |error: std::io::Error| {
            Fault::new(codes::DRILL_NO_ENGINE, format!("start `{shown}`"))
                .because(error)
                .hint("check that the program may be run by the user of the engine")
        };
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&spec.log);
        let log = log.map_err(|error| fault("write", &spec.log, error))?;
        let mut command = command(site, &spec, &log).map_err(not_started)?;
        let (place, path, end) = (spec.place, spec.log, spec.end);
        let (send, started) = sync_channel(1);
        let status = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&status);
        let spawned =
            std::thread::Builder::new().name("sandbox engine".to_owned()).spawn(move || match command.spawn() {
                Ok(mut child) => {
                    let _ = send.send(Ok(child.id()));
                    let ended = child.wait().ok();
                    *seen.lock().unwrap_or_else(PoisonError::into_inner) = ended;
                }
                Err(error) => {
                    let _ = send.send(Err(error));
                }
            });
        spawned.map_err(not_started)?;
        let pid = started.recv().map_err(|error| not_started(std::io::Error::other(error)))?.map_err(not_started)?;
        // One that has ended already has no start time; nothing has to be ended then.
        let process = Process::of(pid).unwrap_or(Process { pid, started: 0 });
        site.record(&place, process)?;
        Ok(Self { process, status, log: path, end })
    }

    /// How it ended, when it has.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of what it wrote.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// Waits for its end, at most so long; then it is killed.
    pub(crate) fn wait(&self, longest: Duration, cancel: &Cancel) -> Result<ExitStatus> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            let stopped = cancel.check();
            if stopped.is_err() || since.elapsed() > longest {
                self.process.signal(Signal::KILL);
                stopped?;
                let why = format!("it did not end within {} s", longest.as_secs());
                return Err(Fault::new(codes::DRILL_TIMEOUT, "run a program in the sandbox").because(why));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Asks it to end, and kills it when it does not. Blocking.
    pub(crate) fn stop(&self) {
        let since = Instant::now();
        self.process.signal(self.end);
        // A stopped process would keep every signal but SIGKILL waiting.
        self.process.signal(Signal::CONT);
        while self.process.is_alive() && since.elapsed() < STOP_MAX {
            std::thread::sleep(LOOK_EVERY);
        }
        self.process.signal(Signal::KILL);
    }
}

fn command(site: &Site, spec: &Spec, log: &File) -> std::io::Result<Command> {
    let death = if spec.end == Signal::QUIT { "QUIT" } else { "KILL" };
    let mut words = site.confinement.words(spec.user.as_ref(), death).into_iter();
    let mut command = match words.next() {
        Some(first) => {
            let mut command = Command::new(first);
            command.args(words).arg(&spec.program);
            command
        }
        None => Command::new(&spec.program),
    };
    command
        .args(&spec.args)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&spec.place)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?);
    if let Some(user) = spec.user.as_ref().filter(|_| !site.confinement.changes_user()) {
        command.uid(user.uid).gid(user.gid);
    }
    Ok(command)
}

/// The end of a log file.
pub(crate) fn tail(log: &Path) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_SHOWN)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).trim().replace('\n', "; ")
}

/// Gives a tree to the user of an engine. Blocking.
pub(crate) fn give(tree: &Path, user: Option<&User>) -> Result<()> {
    let Some(user) = user else { return Ok(()) };
    lchown(tree, Some(user.uid), Some(user.gid)).map_err(|error| fault("give away", tree, error))?;
    if !tree.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
        return Ok(());
    }
    for entry in fs::read_dir(tree).map_err(|error| fault("list", tree, error))? {
        give(&entry.map_err(|error| fault("list", tree, error))?.path(), Some(user))?;
    }
    Ok(())
}

/// What every engine gets: English messages, a fixed path, nothing of ours.
pub(crate) fn environment() -> Vec<(String, OsString)> {
    vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".into()), ("LC_ALL".to_owned(), "C".into())]
}
