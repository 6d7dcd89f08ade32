//! Gives the recovering server its log: segments are fetched and checked ahead of it, in a bounded
//! window, and handed over by a small script that needs neither a key nor a password nor this
//! program's own file.
//!
//! The script keeps the contract of `restore_command` (PostgreSQL manual, 26.3.4; `postgres.md`
//! 4.7): exit 1 means that the log ends there, for sure; above 125, that the server must stop and
//! not take it for the end. It also stops when this process is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rekindle_core::fault::Class;
use rekindle_core::timeline::RecoveryPlan;
use rekindle_core::wal::{Hold, SegmentName, SegmentSize, WalFile, WalLog, history_file};
use rekindle_core::{Fault, Result, codes};

use super::io_fault;
use super::owner::Owner;
use super::tree::make_directory;

/// Bytes of the log that stand ready before the server asks.
const WINDOW_BYTES: u64 = 192 << 20;
const WINDOW_SEGMENTS: u64 = 12;
/// Threads that fetch; fewer for large segments, which are held in memory.
const FETCHERS: u64 = 3;
const FETCH_BYTES: u64 = 256 << 20;
/// How often the wishes of the server are looked at.
const POLL: Duration = Duration::from_millis(4);
/// How long a storage that does not answer is asked again.
const PATIENCE: Duration = Duration::from_mins(5);
const PAUSE: Duration = Duration::from_secs(2);
/// How long retention is kept away from the log; renewed long before.
const HOLD: Duration = Duration::from_hours(1);
const RENEW: Duration = Duration::from_mins(10);

/// Directory of the handed files, in the data directory: on its file system, for its owner.
pub(super) const SPOOL: &str = "rekindle-recovery";

/// Where a segment of the plan comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Sealed,
    /// The open segment, with so many bytes.
    Tail(u32),
    /// The base backup itself: the server has it.
    Own,
}

/// What recovery may ask for, in order.
#[derive(Debug, Clone)]
struct Supply {
    size: SegmentSize,
    items: Vec<(SegmentName, Source)>,
}

impl Supply {
    fn of(plan: &RecoveryPlan) -> Self {
        let chain = &plan.chain;
        let source = |name: &SegmentName| if chain.own.contains(name) { Source::Own } else { Source::Sealed };
        let mut items: Vec<(SegmentName, Source)> = chain.segments.iter().map(|name| (*name, source(name))).collect();
        items.extend(chain.tail.map(|(name, bytes)| (name, Source::Tail(bytes))));
        Self { size: plan.base.cluster.segment_size, items }
    }

    fn position(&self, name: SegmentName) -> Option<usize> {
        self.items.iter().position(|(item, source)| *item == name && *source != Source::Own)
    }

    fn file(&self, index: usize) -> String {
        self.items[index].0.file(self.size)
    }

    /// The bytes of a segment, whole: of an open one, zeros behind what is known, as the server
    /// itself lays files out.
    fn fetch(&self, log: &dyn WalLog, index: usize) -> Result<Vec<u8>> {
        let (name, source) = self.items[index];
        let gone = || {
            Fault::new(
                codes::PITR_WAL,
                format!("fetch the segment {}: it is not in the log any more", self.file(index)),
            )
        };
        let tail = || log.tail(name).map(|tail| tail.map(|tail| tail.bytes));
        let (bytes, known) = match source {
            // A tail of full length counts as sealed.
            Source::Sealed => (log.segment(name)?.map_or_else(tail, |bytes| Ok(Some(bytes)))?, self.size.bytes()),
            // It may have been sealed since the plan was made.
            Source::Tail(known) => (tail()?.map_or_else(|| log.segment(name), |bytes| Ok(Some(bytes)))?, known),
            Source::Own => (None, 0),
        };
        let mut bytes = bytes.ok_or_else(gone)?;
        if bytes.len() < known as usize {
            return Err(gone().because(format!("{} bytes of {known} are left", bytes.len())));
        }
        bytes.truncate(known as usize);
        bytes.resize(self.size.bytes() as usize, 0);
        Ok(bytes)
    }
}

#[derive(Default)]
struct Shared {
    end: AtomicBool,
    taken: AtomicU64,
    failure: Mutex<Option<Fault>>,
}

/// A running supply. Dropping it ends it; the server then cannot get anything more.
pub(super) struct Giver {
    spool: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Giver {
    /// Starts to fetch. `warnings` gets what somebody should know.
    pub(super) fn start(
        data: &Path,
        owner: Option<Owner>,
        plan: &RecoveryPlan,
        log: Option<Arc<dyn WalLog>>,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let spool = data.join(SPOOL);
        for directory in ["", "want", "ready", "absent"] {
            make_directory(&spool.join(directory))?;
        }
        let script = spool.join("give");
        write_file(&script, script_text(&spool).as_bytes(), 0o700, None)?;
        Owner::give_tree(owner, &spool).map_err(|error| io_fault("set the owner of", &spool, error))?;
        let hold = log.as_ref().and_then(|log| keep(&**log, plan, warnings));
        let shared = Arc::new(Shared::default());
        let mut supply = Supply::of(plan);
        if log.is_none() {
            // What there is, the server has from the base backup.
            supply.items.iter_mut().for_each(|item| item.1 = Source::Own);
        }
        let control = Control {
            spool: spool.clone(),
            owner,
            window: window(supply.size),
            supply: Arc::new(supply),
            log,
            shared: Arc::clone(&shared),
            states: BTreeMap::new(),
            wanted: BTreeSet::new(),
            position: 0,
        };
        let name = || std::thread::Builder::new().name("give the log".to_owned());
        let thread = name()
            .spawn(move || control.run(hold))
            .map_err(|error| Fault::new(codes::RUN_BUG, "start a thread").because(error))?;
        Ok(Self { spool, shared, thread: Some(thread) })
    }

    /// The setting of the server.
    pub(super) fn restore_command(&self) -> String {
        let script = shell_quoted(&self.spool.join("give").to_string_lossy());
        format!("/bin/sh {} \"%f\" \"%p\"", script.replace('%', "%%"))
    }

    /// Why the log cannot be given, once the server wanted what is not to be had.
    pub(super) fn failure(&self) -> Option<Fault> {
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Segments that the server has taken.
    pub(super) fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Release);
        let _ = fs::write(self.spool.join("stop"), b"");
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Everything at once into `pg_wal`, for a directory that recovers without this program.
pub(super) fn put_all(data: &Path, plan: &RecoveryPlan, log: Option<&dyn WalLog>) -> Result<u64> {
    let supply = Supply::of(plan);
    let Some(log) = log else { return Ok(0) };
    let mut put = 0;
    for index in 0..supply.items.len() {
        if supply.items[index].1 == Source::Own {
            continue;
        }
        let bytes = supply.fetch(log, index).map_err(|fault| unreadable(fault, &supply, index))?;
        write_file(&data.join("pg_wal").join(supply.file(index)), &bytes, 0o600, None)?;
        put += 1;
    }
    for leg in plan.chain.path.iter().filter(|leg| leg.timeline.0 > 1) {
        if let Some(bytes) = log.history(leg.timeline)? {
            write_file(&data.join("pg_wal").join(history_file(leg.timeline)), &bytes, 0o600, None)?;
        }
    }
    Ok(put)
}

fn unreadable(fault: Fault, supply: &Supply, index: usize) -> Fault {
    let before = supply.items[index].0.number.start(supply.size);
    let what = format!("recover: the segment {} cannot be had", supply.file(index));
    Fault::new(codes::PITR_WAL, what).because(fault).hint(format!(
        "rekindle wal verify --deep names every damaged segment; what is before this one can be recovered with \
         --lsn {before} or an earlier --at"
    ))
}

/// Retention must not remove what is being replayed. A key that may only read cannot say so.
fn keep(log: &dyn WalLog, plan: &RecoveryPlan, warnings: &mut Vec<String>) -> Option<Hold> {
    let timeline = plan.chain.segments.first().map_or(plan.base.timeline, |name| name.timeline);
    match log.hold(timeline, plan.base.start, "a recovery is running", HOLD) {
        Ok(hold) => Some(hold),
        Err(fault) => {
            warnings.push(format!("retention could not be told of this recovery: {}", fault.chain()));
            None
        }
    }
}

fn window(size: SegmentSize) -> usize {
    let segments = (WINDOW_BYTES / u64::from(size.bytes())).clamp(2, WINDOW_SEGMENTS);
    usize::try_from(segments).unwrap_or(2)
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn script_text(spool: &Path) -> String {
    let spool = shell_quoted(&spool.to_string_lossy());
    let pid = std::process::id();
    format!(
        "#!/bin/sh\n\
         # Hands PostgreSQL a file of its log. Exit 1: the log ends there, for sure. 200: stop.\n\
         name=$1; to=$2; spool={spool}\n\
         asked=\n\
         while :; do\n\
         \x20 if [ -e \"$spool/ready/$name\" ]; then mv \"$spool/ready/$name\" \"$to\" || exit 200; \
         rm -f \"$spool/want/$name\"; exit 0; fi\n\
         \x20 if [ -e \"$spool/absent/$name\" ]; then exit 1; fi\n\
         \x20 if [ -e \"$spool/stop\" ] || [ ! -d /proc/{pid} ]; then exit 200; fi\n\
         \x20 if [ -z \"$asked\" ]; then : > \"$spool/want/$name\" || exit 200; asked=1; fi\n\
         \x20 sleep 0.01 || exit 200\n\
         done\n"
    )
}

/// Writes a file of the spool under its name only when it is whole.
fn write_file(path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> Result<()> {
    let part = path.with_extension("part");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&part)?;
        file.write_all(bytes)?;
        Owner::give(owner, &part)?;
        fs::rename(&part, path)
    };
    write().map_err(|error| io_fault("write", path, error))
}

/// What became of a segment of the plan.
enum State {
    Fetching,
    Ready,
    Failed(Fault),
}

struct Control {
    spool: PathBuf,
    owner: Option<Owner>,
    window: usize,
    supply: Arc<Supply>,
    log: Option<Arc<dyn WalLog>>,
    shared: Arc<Shared>,
    states: BTreeMap<usize, State>,
    /// What the server waits for.
    wanted: BTreeSet<usize>,
    /// Behind the last segment that the server took.
    position: usize,
}

type Job = Sender<usize>;
type Done = (usize, Result<()>);

impl Control {
    fn run(mut self, mut hold: Option<Hold>) {
        let (jobs, done, threads) = self.fetchers();
        let mut renewed = Instant::now();
        while !self.shared.end.load(Ordering::Acquire) {
            if let Err(fault) = self.step(&jobs, &done) {
                self.fail(fault);
                break;
            }
            if let (Some(log), Some(old)) = (&self.log, &hold)
                && renewed.elapsed() > RENEW
            {
                renewed = Instant::now();
                // When it cannot be renewed, the old one still lasts for a while: tried again.
                if let Ok(new) = log.extend(old, HOLD) {
                    hold = Some(new);
                }
            }
            std::thread::sleep(POLL);
        }
        drop(jobs);
        self.shared.end.store(true, Ordering::Release);
        for thread in threads {
            let _ = thread.join();
        }
        if let (Some(log), Some(hold)) = (&self.log, &hold) {
            // One that stays behind expires by itself.
            let _ = log.release(hold);
        }
    }

    fn fetchers(&self) -> (Job, Receiver<Done>, Vec<JoinHandle<()>>) {
        let (jobs, take) = channel::<usize>();
        let (tell, done) = channel();
        let take = Arc::new(Mutex::new(take));
        let mut threads = Vec::new();
        let Some(log) = &self.log else { return (jobs, done, threads) };
        for _ in 0..(FETCH_BYTES / u64::from(self.supply.size.bytes())).clamp(1, FETCHERS) {
            let (take, tell, log) = (Arc::clone(&take), tell.clone(), Arc::clone(log));
            let (supply, shared) = (Arc::clone(&self.supply), Arc::clone(&self.shared));
            let (ready, owner) = (self.spool.join("ready"), self.owner);
            threads.push(std::thread::spawn(move || {
                loop {
                    let job = take.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(index) = job else { return };
                    let fetched = patiently(&shared, || supply.fetch(&*log, index))
                        .and_then(|bytes| write_file(&ready.join(supply.file(index)), &bytes, 0o600, owner));
                    if tell.send((index, fetched)).is_err() {
                        return;
                    }
                }
            }));
        }
        (jobs, done, threads)
    }

    fn fail(&self, fault: Fault) {
        *self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        let _ = fs::write(self.spool.join("stop"), b"");
    }

    fn step(&mut self, jobs: &Job, done: &Receiver<Done>) -> Result<()> {
        loop {
            match done.try_recv() {
                Ok((index, Ok(()))) => self.states.insert(index, State::Ready),
                Ok((index, Err(fault))) => self.states.insert(index, State::Failed(fault)),
                Err(TryRecvError::Disconnected) if self.log.is_some() => {
                    return Err(Fault::new(codes::RUN_BUG, "fetch the log: the threads for it ended"));
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            };
        }
        self.notice_taken();
        self.wishes()?;
        for index in self.wanted.clone() {
            match self.states.remove(&index) {
                // Only what the server wants may end the recovery: it may stop before damage.
                Some(State::Failed(fault)) => return Err(unreadable(fault, &self.supply, index)),
                Some(state) => drop(self.states.insert(index, state)),
                None => self.ask(jobs, index),
            }
        }
        let last = (self.position + self.window).min(self.supply.items.len());
        for index in self.position..last {
            if !self.states.contains_key(&index) && self.supply.items[index].1 != Source::Own {
                self.ask(jobs, index);
            }
        }
        Ok(())
    }

    fn ask(&mut self, jobs: &Job, index: usize) {
        if jobs.send(index).is_ok() {
            self.states.insert(index, State::Fetching);
        }
    }

    fn notice_taken(&mut self) {
        let ready: Vec<usize> =
            self.states.iter().filter(|(_, state)| matches!(state, State::Ready)).map(|(index, _)| *index).collect();
        for index in ready {
            if !self.spool.join("ready").join(self.supply.file(index)).exists() {
                self.states.remove(&index);
                self.wanted.remove(&index);
                self.position = self.position.max(index + 1);
                self.shared.taken.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn wishes(&mut self) -> Result<()> {
        let want = self.spool.join("want");
        let entries = fs::read_dir(&want).map_err(|error| io_fault("list", &want, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| io_fault("list", &want, error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match WalFile::parse(&name, self.supply.size) {
                Ok(WalFile::Segment(segment)) => match self.supply.position(segment) {
                    Some(index) => {
                        self.wanted.insert(index);
                        // Waiting for something already means that it was taken away before.
                        self.position = self.position.max(index);
                    }
                    None => self.absent(&name)?,
                },
                Ok(WalFile::History(timeline)) => {
                    let history = match &self.log {
                        Some(log) => patiently(&self.shared, || log.history(timeline))?,
                        None => None,
                    };
                    match history {
                        Some(bytes) => {
                            write_file(&self.spool.join("ready").join(&name), &bytes, 0o600, self.owner)?;
                        }
                        None => self.absent(&name)?,
                    }
                }
                Ok(WalFile::Extra(_)) | Err(_) => self.absent(&name)?,
            }
            let _ = fs::remove_file(entry.path());
        }
        Ok(())
    }

    fn absent(&self, name: &str) -> Result<()> {
        write_file(&self.spool.join("absent").join(name), b"", 0o600, self.owner)
    }
}

/// Tries again while the storage does not answer.
fn patiently<T>(shared: &Shared, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let since = Instant::now();
    loop {
        match attempt() {
            Err(fault) if fault.class() == Class::Unreachable && since.elapsed() < PATIENCE => {
                if shared.end.load(Ordering::Acquire) {
                    return Err(fault);
                }
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests;
