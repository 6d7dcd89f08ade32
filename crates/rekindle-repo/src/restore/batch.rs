//! Restoring the content of one batch of files, in parallel.

use std::collections::HashSet;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use rekindle_core::fault::Class;
use rekindle_core::{Fault, Result, codes};
use rustix::io::Errno;

use super::attributes::set_open;
use super::file::{self, Prepared};
use super::flush::{self, Written};
use super::place::DirectoryCache;
use super::plan::{FileTask, Need, Plan, Start, locate};
use super::site::Site;
use super::space::{self, TargetError};
use crate::format::pack::BlobKind;
use crate::read::blobs::Opener;
use crate::read::parallel;

/// Most threads that restore content; each holds one read of a pack and one blob.
const WORKERS_MAX: usize = 8;

/// Set by the first worker that must stop everything.
#[derive(Default)]
struct Stop {
    stopped: AtomicBool,
    fault: Mutex<Option<Fault>>,
}

impl Stop {
    fn set(&self, fault: Fault) {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
        self.stopped.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn into_result(self) -> Result<()> {
        let fault = self.fault.into_inner().unwrap_or_else(PoisonError::into_inner);
        fault.map_or(Ok(()), Err)
    }
}

/// Restores these files. An `Err` ends the whole restore.
pub(super) fn restore(site: &Site<'_>, tasks: Vec<FileTask>) -> Result<()> {
    if tasks.is_empty() {
        return Ok(());
    }
    let (tasks, needs) = prepare_all(site, tasks)?;
    let plan = Plan::new(needs);
    space::check(site.target.as_fd(), plan.bytes_min(), tasks.len() as u64)?;
    let stop = Stop::default();
    let turns = plan.turns(workers());
    let next = AtomicUsize::new(0);
    let (written, asked) = flush::pair();
    thread::scope(|scope| {
        for _ in 0..workers().min(turns.len()) {
            let written = written.clone();
            let (tasks, plan, stop, turns, next) = (&tasks, &plan, &stop, &turns, &next);
            scope.spawn(move || Worker::new(site, tasks, plan, stop, written).run(turns, next));
        }
        // The flushing ends with the last worker.
        drop(written);
        scope.spawn(|| flush::run(site, &asked).unwrap_or_else(|fault| stop.set(fault)));
    });
    stop.into_result().map_err(|fault| {
        let left = tasks.iter().map(|t| t.pending_bytes.load(Ordering::Relaxed));
        space::with_need(fault, left.sum())
    })
}

fn workers() -> usize {
    (parallel::cores() + 2).min(WORKERS_MAX)
}

/// Files are looked at in groups, so that the results of one group stay small.
const GROUP_FILES: usize = 64;

fn prepare_all(site: &Site<'_>, tasks: Vec<FileTask>) -> Result<(Vec<FileTask>, Vec<Need>)> {
    let stop = Stop::default();
    let slots: Vec<Mutex<FileTask>> = tasks.into_iter().map(Mutex::new).collect();
    let groups: Vec<usize> = (0..slots.len()).step_by(GROUP_FILES).collect();
    let needs = parallel::map(&groups, workers(), |first| {
        let mut cache = DirectoryCache::new(site.target.as_fd());
        let mut needs = Vec::new();
        let last = (first + GROUP_FILES).min(slots.len());
        for (number, slot) in slots.iter().enumerate().take(last).skip(*first) {
            if stop.is_set() {
                break;
            }
            if let Err(fault) = site.check_cancelled() {
                stop.set(fault);
                break;
            }
            let mut task = slot.lock().unwrap_or_else(PoisonError::into_inner);
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            match prepare(site, &mut cache, number, &mut task) {
                Ok(more) => needs.extend(more),
                Err(TargetError::Fatal(fault)) => stop.set(fault),
                Err(TargetError::Entry(why)) => site.lose(task.directory, &task.name, &why),
            }
        }
        needs
    });
    stop.into_result()?;
    let tasks = slots.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
    Ok((tasks, needs.into_iter().flatten().collect()))
}

/// Looks at one file and gives what must be written of it. A file that needs nothing is finished.
fn prepare(
    site: &Site<'_>,
    cache: &mut DirectoryCache<'_>,
    number: u32,
    task: &mut FileTask,
) -> Result<Vec<Need>, TargetError> {
    let (locations, size) = locate(&site.reader, &task.blobs).map_err(TargetError::Entry)?;
    task.blobs = Vec::new();
    task.size = size;
    // Streams written by rustic record no size at all.
    if task.meta.size != size && task.meta.size != 0 {
        return Err(TargetError::Entry(format!("its blobs hold {size} bytes and its record says {}", task.meta.size)));
    }
    let judge = |error| space::judge("make the file", error);
    let prepared = cache
        .with(&site.directories, task.directory, |directory| {
            let prepared = file::prepare(directory, task, &locations)?;
            if prepared.present.iter().all(|present| *present) {
                finish_untouched(site, task, &prepared);
            }
            Ok(prepared)
        })
        .and_then(|result| result)
        .map_err(judge)?;
    task.start = prepared.start;
    let (mut needs, mut at, mut pending_bytes) = (Vec::new(), 0_u64, 0_u64);
    for (location, present) in locations.into_iter().zip(prepared.present) {
        let length = location.blob.content_length();
        if !present {
            pending_bytes += length;
            needs.push(Need { location, file: number, at });
        }
        at += length;
    }
    task.kept = size - pending_bytes;
    task.pending = AtomicU32::new(u32::try_from(needs.len()).unwrap_or(u32::MAX));
    task.pending_bytes = AtomicU64::new(pending_bytes);
    task.failed = OnceLock::new();
    Ok(needs)
}

fn finish_untouched(site: &Site<'_>, task: &FileTask, prepared: &Prepared) {
    if let Some(fd) = &prepared.open {
        finish(site, task, fd.as_fd(), task.size);
    }
}

/// The content stands: sets the attributes and counts the file.
fn finish(site: &Site<'_>, task: &FileTask, fd: BorrowedFd<'_>, kept: u64) {
    let problems = set_open(fd, &task.meta, site.owners());
    if let Some(text) = problems.text() {
        let path = site.path(task.directory, &task.name);
        site.report.attribute_problem(&path, text);
    }
    site.done(task.size, kept);
}

struct Worker<'a> {
    site: &'a Site<'a>,
    tasks: &'a [FileTask],
    plan: &'a Plan,
    stop: &'a Stop,
    cache: DirectoryCache<'a>,
    written: Written,
    /// The file that was written to last, by its number: the next blob is mostly of the same one.
    open: Option<(u32, OwnedFd)>,
    /// Packs that could not be read in one piece: told once each.
    told: HashSet<u32>,
}

impl<'a> Worker<'a> {
    fn new(site: &'a Site<'a>, tasks: &'a [FileTask], plan: &'a Plan, stop: &'a Stop, written: Written) -> Self {
        let cache = DirectoryCache::new(site.target.as_fd());
        Self { site, tasks, plan, stop, cache, written, open: None, told: HashSet::new() }
    }

    fn run(&mut self, turns: &[Range<usize>], next: &AtomicUsize) {
        let mut opener = Opener::new();
        while let Some(turn) = turns.get(next.fetch_add(1, Ordering::Relaxed)) {
            for job in &self.plan.jobs[turn.clone()] {
                if self.stop.is_set() {
                    return;
                }
                let result = self.site.check_cancelled().and_then(|()| self.job(job.clone(), &mut opener));
                if let Err(fault) = result {
                    self.stop.set(fault);
                }
            }
        }
    }

    fn job(&mut self, job: Range<usize>, opener: &mut Opener) -> Result<()> {
        let range = self.plan.range(&job);
        let plan = self.plan;
        let needs = &plan.needs[job];
        let Some(first) = needs.first() else {
            return Ok(());
        };
        let sealed = match self.site.reader.range(first.location.pack, range.clone()) {
            Ok(bytes) => Some(bytes),
            // An unreachable storage is not damage: the restore ends and can be run again.
            Err(fault) if fault.class() == Class::Unreachable => return Err(fault),
            Err(fault) => {
                if self.told.insert(first.location.pack) {
                    self.site.context.monitor.problem(&self.site.scope, &fault);
                }
                None
            }
        };
        for same in needs.chunk_by(|a, b| a.location.blob.offset == b.location.blob.offset) {
            if self.stop.is_set() {
                return Ok(());
            }
            let location = &same[0].location;
            let there = sealed.as_ref().and_then(|bytes| {
                let start = usize::try_from(u64::from(location.blob.offset) - range.start).ok()?;
                bytes.get(start..start + location.blob.length as usize)
            });
            if let Some(bytes) = there
                && let Ok(content) = self.site.reader.open_here(location, bytes, opener)
            {
                self.write_all(same, content)?;
                continue;
            }
            // Alone, and from other packs that hold a copy.
            match self.site.reader.blob(BlobKind::Data, &location.blob.id, opener) {
                Ok(content) => self.write_all(same, &content)?,
                Err(fault) if fault.class() == Class::Unreachable => return Err(fault),
                Err(fault) => {
                    let why = fault.chain();
                    for need in same {
                        self.settle(need, Err(why.clone()))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn write_all(&mut self, needs: &[Need], content: &[u8]) -> Result<()> {
        for need in needs {
            let task = &self.tasks[need.file as usize];
            if task.failed.get().is_some() {
                self.settle(need, Ok(()))?;
                continue;
            }
            match self.write(task, need, content) {
                Ok(()) => {
                    let length = content.len() as u64;
                    self.written.add(length);
                    self.site.context.monitor.advance(&self.site.scope, 0, length);
                    self.settle(need, Ok(()))?;
                }
                Err(error) => match space::judge("write the file", error) {
                    TargetError::Fatal(fault) => return Err(fault),
                    TargetError::Entry(why) => self.settle(need, Err(why))?,
                },
            }
        }
        Ok(())
    }

    /// Writes a blob to its place; the file stays open.
    fn write(&mut self, task: &FileTask, need: &Need, content: &[u8]) -> Result<(), Errno> {
        if self.open.as_ref().is_none_or(|(file, _)| *file != need.file) {
            self.open = None;
            let opened = self
                .cache
                .with(&self.site.directories, task.directory, |directory| match task.start {
                    Start::AtWrite => file::create(directory, &task.name, task.first_mode()),
                    Start::Made { device, inode, .. } => file::reopen(directory, &task.name, device, inode),
                })
                .and_then(|result| result)?;
            self.open = Some((need.file, opened));
        }
        let Some((_, fd)) = &self.open else { return Err(Errno::BADF) };
        match task.start {
            Start::AtWrite => {
                let written = file::write_at(fd.as_fd(), content, 0, true)?;
                if written < content.len() as u64 {
                    rustix::fs::ftruncate(fd, content.len() as u64)?;
                }
            }
            Start::Made { holes, .. } => {
                file::write_at(fd.as_fd(), content, need.at, holes)?;
            }
        }
        Ok(())
    }

    /// One blob of a file is dealt with; after the last one the file is finished or taken away.
    fn settle(&mut self, need: &Need, result: Result<(), String>) -> Result<()> {
        let task = &self.tasks[need.file as usize];
        if let Err(why) = result {
            let _ = task.failed.set(why);
        } else {
            let length = need.location.blob.content_length();
            task.pending_bytes.fetch_sub(length, Ordering::Relaxed);
        }
        if task.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        let fd = self.open.take().filter(|(file, _)| *file == need.file);
        match (task.failed.get(), fd) {
            (None, Some((_, fd))) => {
                finish(self.site, task, fd.as_fd(), task.kept);
                Ok(())
            }
            (Some(why), _) => self.take_away(task, why),
            (None, None) => {
                Err(Fault::new(codes::RUN_BUG, "finish a restored file").because("it was written and is not open"))
            }
        }
    }

    /// A file that is not whole does not stay under its name.
    fn take_away(&mut self, task: &FileTask, why: &str) -> Result<()> {
        let removed = self
            .cache
            .with(&self.site.directories, task.directory, |directory| file::remove(directory, &task.name))
            .and_then(|result| result);
        let why = match removed {
            Ok(()) => why.to_owned(),
            Err(error) => match space::judge("remove the incomplete file", error) {
                TargetError::Fatal(fault) => return Err(fault),
                TargetError::Entry(second) => format!("{why}; {second}"),
            },
        };
        self.site.lose(task.directory, &task.name, &why);
        Ok(())
    }
}
