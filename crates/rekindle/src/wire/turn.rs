//! Whose turn it is: one service, or one single run, of a stack at a time.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rekindle_core::schedule::Rules;
use rekindle_core::{Fault, Result, codes};
use rekindle_repo::format::Id;

use crate::session::Session;

/// How often somebody who waits looks again.
const POLL: Duration = Duration::from_millis(250);
/// How often a line that waits for the end of a pause looks, and how long it may be in the way of a service.
const GLANCE_EVERY: Duration = Duration::from_secs(2);
const GLANCE_MAX: Duration = Duration::from_secs(1);
/// How long one waits for another of its line that may be about to give up.
const DOUBLED_MAX: Duration = Duration::from_mins(1);
/// The word of a service in the lock file.
const SERVICE: &str = "serve";

/// What became of the wish to run.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Ours until the file is dropped.
    Ours(File),
    /// Another run of the same line waits already, and will do what this one would.
    Doubled,
    /// It did not come in time.
    Never(Fault),
}

/// Keeps a second service, or a single run beside the service, from starting. Ends with the process.
pub(crate) fn service(directory: &Path) -> Result<File> {
    let since = Instant::now();
    loop {
        match take(directory, SERVICE)? {
            Ok(file) => return Ok(file),
            // A line that waits for the end of a pause looks now and then, for a moment.
            Err(_) if since.elapsed() < GLANCE_MAX => std::thread::sleep(POLL),
            Err(holder) => {
                return Err(refused(directory, &format!("it is held by {holder}"))
                    .hint("end the other service, or wait until the scheduled run has ended; one of them is enough"));
            }
        }
    }
}

/// Waits until no other run of this stack goes on and no pause is on, at most `wait`. `line` says what is to run:
/// of two that want the same, one waits. A service runs everything by itself, so it is not waited for.
pub(crate) fn of_line(session: &Session, directory: &Path, line: &str, rules: &Rules, wait: Duration) -> Result<Turn> {
    let Some(_waiting) = first_of_its_line(session, directory, line, wait.min(DOUBLED_MAX))? else {
        return Ok(Turn::Doubled);
    };
    let until = Instant::now().checked_add(wait);
    let (mut told, mut beside_service) = (false, false);
    loop {
        let now = session.now();
        let open_from = rules.open_from(now);
        let why = match take(directory, line)? {
            Ok(file) if open_from <= now => return Ok(Turn::Ours(file)),
            Ok(_) => format!("a pause is on until {open_from}"),
            Err(holder) => {
                // Twice: what a run that just took the lock has not written yet is the word of the one before.
                let serves = holder.starts_with(SERVICE);
                if serves && std::mem::replace(&mut beside_service, true) {
                    return Err(refused(directory, &format!("it is held by {holder}"))
                        .hint("`rekindle serve` runs everything by itself: remove the lines of cron"));
                }
                beside_service = serves;
                format!("another run of this stack is active: {holder}")
            }
        };
        if !std::mem::replace(&mut told, true) {
            tracing::info!(%why, "waiting");
        }
        if !beside_service && until.is_some_and(|until| until <= Instant::now()) {
            return Ok(Turn::Never(
                refused(directory, &why)
                    .hint("rekindle status; look at what runs so long, or give it more time: --wait"),
            ));
        }
        session.cancel.check()?;
        std::thread::sleep(if open_from > now { GLANCE_EVERY } else { POLL });
    }
}

/// The mark of the one run of a line that waits. Held until its turn has come; for a moment it is waited for, as the
/// one before may be about to give up.
fn first_of_its_line(session: &Session, directory: &Path, line: &str, wait: Duration) -> Result<Option<File>> {
    let name = Id::of(line.as_bytes()).hex();
    let path = directory.join(format!("wait-{}.lock", &name[..16]));
    let (file, since) = (open(&path)?, Instant::now());
    loop {
        if lock(&file, &path)? {
            return Ok(Some(file));
        }
        if since.elapsed() >= wait {
            return Ok(None);
        }
        session.cancel.check()?;
        std::thread::sleep(POLL);
    }
}

fn refused(directory: &Path, why: &str) -> Fault {
    Fault::new(codes::ENGINE_RUNNING, format!("lock {}", directory.join("serve.lock").display())).because(why)
}

/// Takes the lock and writes down who has it. `Err`: who holds it.
fn take(directory: &Path, who: &str) -> Result<Result<File, String>> {
    let path = directory.join("serve.lock");
    let mut file = open(&path)?;
    if lock(&file, &path)? {
        let text = format!("{who} (process {})\n", std::process::id());
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        written.map_err(|error| unusable(&path, error))?;
        return Ok(Ok(file));
    }
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    Ok(Err(holder.trim().to_owned()))
}

fn open(path: &Path) -> Result<File> {
    let opened = File::options().create(true).truncate(false).read(true).write(true).open(path);
    opened.map_err(|error| unusable(path, error))
}

fn lock(file: &File, path: &Path) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(unusable(path, error)),
    }
}

fn unusable(path: &Path, error: std::io::Error) -> Fault {
    Fault::new(codes::ENGINE_STATE, format!("lock {}", path.display()))
        .because(error)
        .hint("check the owner of the state directory")
}
