//! Storing one component: entries are pulled in order, their content goes to the workers, and
//! directories are put together in the same order from what comes back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rekindle_core::entry::{Content, ContentSource, Entries, Entry, EntryKind, EntryPath, Meta};
use rekindle_core::proof::StoredPart;
use rekindle_core::tally::{Counted, Pieces, Tally};
use rekindle_core::{Fault, Result, codes};

use super::Shared;
use super::cut::Cut;
use super::directories::Finished;
use super::earlier::{Earlier, held, parts, unchanged};
use super::feed::Feed;
use super::job::{Batch, ComponentRun, FileOutcome, Job, Report, Stored};
use super::links::{LinkKey, LinkRole, Links};
use super::placement::Placement;
use super::worker::send;
use crate::format::Id;
use crate::format::node::{Node, NodeContent};

/// Entries whose content is not settled yet, per component.
const ENTRIES_IN_FLIGHT_MAX: usize = 512;
/// Files from here on are cut on the pulling thread, so that all workers share one file.
const BIG_FILE_BYTES: u64 = 16 << 20;
/// Chunks go to a worker together when they have this length.
pub(super) const BATCH_BYTES: usize = 1 << 20;
/// Batches that are kept to be used again, and the most memory that one of them may hold.
const SPARE_MAX: usize = 4;
const SPARE_BYTES_MAX: usize = 4 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// An entry on its way.
pub(super) struct Waiting {
    path: EntryPath,
    meta: Meta,
    /// Other names of this file wait for it.
    link: Option<LinkKey>,
    pub(super) state: State,
}

/// How far its content is.
pub(super) enum State {
    Settled(Settled),
    AtWorker,
    /// Another name of an entry before it.
    Linked(Box<dyn ContentSource>, LinkKey),
    /// Cut on the pulling thread.
    Cut(Box<Cut>),
}

/// What its content came to.
pub(super) enum Settled {
    Nothing,
    Skipped,
    Unchanged(Vec<Id>, u64),
    Read(Stored, Box<Meta>),
    /// In part read, in part taken over.
    Patched(Vec<Id>, u64, Box<Pieces>, Box<Meta>),
}

/// What the earlier tree has for an entry.
enum Before {
    Nothing,
    /// All of it, in these blobs.
    Same(Vec<Id>),
    /// These chunks of it, with their lengths.
    Parts(Vec<(Id, u64)>),
}

/// Stores one component.
pub(super) struct Puller<'a> {
    pub(super) shared: &'a Shared,
    pub(super) queue: Sender<(Arc<ComponentRun>, Job)>,
    pub(super) run: Arc<ComponentRun>,
    reports: Receiver<Report>,
    pub(super) window: VecDeque<Waiting>,
    /// Number of the entry at the front of the window.
    first: u64,
    trees_out: usize,
    placement: Placement,
    earlier: Option<Earlier>,
    links: Links,
    tally: Tally,
    pub(super) files: u64,
    pub(super) feed: Feed,
    /// Chunks that wait for others to go with.
    pub(super) batch: Batch,
    spare: Vec<Batch>,
}

impl<'a> Puller<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        queue: Sender<(Arc<ComponentRun>, Job)>,
        run: Arc<ComponentRun>,
        reports: Receiver<Report>,
        earlier: Option<Earlier>,
        placement: Placement,
    ) -> Self {
        Self {
            shared,
            queue,
            run,
            reports,
            window: VecDeque::new(),
            first: 0,
            trees_out: 0,
            placement,
            earlier,
            links: Links::default(),
            tally: Tally::default(),
            files: 0,
            feed: Feed::default(),
            batch: Batch::default(),
            spare: Vec::new(),
        }
    }

    /// Pulls everything; gives the part and the number of files in it.
    pub(super) fn pull(mut self, entries: Entries) -> Result<(StoredPart, u64)> {
        for entry in entries {
            self.shared.check()?;
            self.take(entry?)?;
            self.settle(ENTRIES_IN_FLIGHT_MAX)?;
        }
        self.settle(0)?;
        let placement = std::mem::replace(&mut self.placement, Placement::new(false));
        let root = placement.finish(&mut |finished| {
            self.send_trees(finished)?;
            self.drain()
        })?;
        while self.trees_out > 0 {
            self.receive()?;
        }
        self.shared.check()?;
        let load = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        let part = StoredPart {
            component: self.run.id.clone(),
            tree: root.hex(),
            tally: self.tally,
            added_bytes: load(&self.run.counts.added_bytes),
            stored_bytes: load(&self.run.counts.stored_bytes),
        };
        Ok((part, self.files))
    }

    fn take(&mut self, entry: Entry) -> Result<()> {
        let depth = self.placement.check(&entry)?;
        let Entry { path, meta, content } = entry;
        let shared = self.shared;
        let node = self.earlier.as_mut().and_then(|earlier| match self.placement {
            Placement::Ordered { .. } => earlier.step(shared, depth, path.name(), &meta),
            Placement::Any(_) => earlier.find_path(shared, &path),
        });
        let before = match (&content, node) {
            (_, None) => Before::Nothing,
            (Content::Patched(_), Some(node)) => parts(shared, node, &meta).map_or(Before::Nothing, Before::Parts),
            (Content::Unchanged(_), Some(node)) => held(shared, node, &meta).map_or(Before::Nothing, Before::Same),
            (_, Some(node)) => unchanged(shared, node, &meta).map_or(Before::Nothing, Before::Same),
        };
        let big = meta.size >= BIG_FILE_BYTES;
        let number = self.first + self.window.len() as u64;
        let mut waiting = Waiting { path, meta, link: None, state: State::Settled(Settled::Nothing) };
        let source = match content {
            Content::None => {
                self.window.push_back(waiting);
                return Ok(());
            }
            Content::Stream(read) | Content::Member(read) => {
                waiting.state = State::Cut(Box::default());
                self.window.push_back(waiting);
                return self.cut_stream(number, read);
            }
            Content::Patched(source) => {
                waiting.state = State::Cut(Box::default());
                self.window.push_back(waiting);
                let parts = if let Before::Parts(parts) = before { parts } else { Vec::new() };
                return self.cut_patched(number, source, &parts);
            }
            Content::File(source) | Content::Unchanged(source) => source,
        };
        match self.links.role(&waiting.meta) {
            LinkRole::Single => {}
            LinkRole::First(key) => waiting.link = Some(key),
            LinkRole::Further(key) => {
                waiting.state = State::Linked(source, key);
                self.window.push_back(waiting);
                return Ok(());
            }
        }
        if let Before::Same(blobs) = before {
            let size = waiting.meta.size;
            source.unchanged(size);
            waiting.state = State::Settled(Settled::Unchanged(blobs, size));
            self.window.push_back(waiting);
            return Ok(());
        }
        if big {
            waiting.state = State::Cut(Box::default());
            self.window.push_back(waiting);
            return self.cut_file(number, source);
        }
        waiting.state = State::AtWorker;
        self.window.push_back(waiting);
        self.send(Job::File { entry: number, source })
    }

    /// Hands the chunks over when there are enough of them.
    pub(super) fn send_full_batch(&mut self) -> Result<()> {
        if self.batch.len() >= BATCH_BYTES { self.send_batch() } else { Ok(()) }
    }

    fn send_batch(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let fresh = self.spare.pop().unwrap_or_default();
        let batch = std::mem::replace(&mut self.batch, fresh);
        self.send(Job::Chunks(batch))
    }

    pub(super) fn send(&self, job: Job) -> Result<()> {
        send(self.shared, &self.queue, &self.run, job)
    }

    /// Brings settled entries into their directories until at most `most` are in flight.
    fn settle(&mut self, most: usize) -> Result<()> {
        loop {
            self.drain()?;
            while self.front_is_settled()? {
                if let Some(waiting) = self.window.pop_front() {
                    self.first += 1;
                    self.record(waiting)?;
                }
            }
            if self.window.len() <= most {
                return Ok(());
            }
            self.receive()?;
        }
    }

    fn front_is_settled(&mut self) -> Result<bool> {
        let Some(front) = self.window.front_mut() else {
            return Ok(false);
        };
        let State::Linked(_, key) = front.state else {
            return Ok(front.state.is_settled());
        };
        let State::Linked(source, _) = std::mem::replace(&mut front.state, State::AtWorker) else {
            return Ok(false);
        };
        if let Some((blobs, size)) = self.links.take(key) {
            source.unchanged(size);
            front.state = State::Settled(Settled::Unchanged(blobs, size));
            return Ok(true);
        }
        self.send(Job::File { entry: self.first, source })?;
        Ok(false)
    }

    /// Takes in every report there is, without waiting.
    pub(super) fn drain(&mut self) -> Result<()> {
        while let Ok(report) = self.reports.try_recv() {
            self.take_report(report)?;
        }
        Ok(())
    }

    /// Waits for one report.
    pub(super) fn receive(&mut self) -> Result<()> {
        // What is waited for may be among the chunks that were not handed over yet.
        self.send_batch()?;
        loop {
            match self.reports.recv_timeout(LOOK_EVERY) {
                Ok(report) => return self.take_report(report),
                Err(RecvTimeoutError::Timeout) => self.shared.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Fault::new(codes::RUN_BUG, "store: the workers are gone"));
                }
            }
        }
    }

    fn take_report(&mut self, report: Report) -> Result<()> {
        match report {
            Report::Tree(result) => {
                self.trees_out -= 1;
                result
            }
            Report::File { entry, outcome } => {
                let settled = match outcome? {
                    FileOutcome::Skipped => Settled::Skipped,
                    FileOutcome::Kept(stored, meta) => Settled::Read(stored, meta),
                };
                self.waiting(entry)?.state = State::Settled(settled);
                Ok(())
            }
            Report::Chunks { batch, ids } => {
                for ((chunk, _), id) in batch.chunks().zip(ids?) {
                    match &mut self.waiting(chunk.entry)?.state {
                        State::Cut(cut) => cut.stored(chunk.part, id)?,
                        _ => return Err(misplaced()),
                    }
                }
                if self.spare.len() < SPARE_MAX && batch.capacity() <= SPARE_BYTES_MAX {
                    self.spare.push(batch.renewed());
                }
                Ok(())
            }
        }
    }

    pub(super) fn waiting(&mut self, entry: u64) -> Result<&mut Waiting> {
        entry
            .checked_sub(self.first)
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| self.window.get_mut(at))
            .ok_or_else(misplaced)
    }

    /// Brings an entry into its directory, and counts it.
    fn record(&mut self, waiting: Waiting) -> Result<()> {
        let Waiting { path, mut meta, link, state } = waiting;
        let given = meta.kind.clone();
        let (blobs, counted) = match state.into_settled().ok_or_else(misplaced)? {
            Settled::Skipped => {
                self.settle_link(link, None);
                return Ok(());
            }
            Settled::Nothing => (Vec::new(), Counted::Nothing),
            Settled::Unchanged(blobs, bytes) => {
                meta.size = bytes;
                self.settle_link(link, Some(&blobs));
                (blobs, Counted::Unchanged { bytes })
            }
            Settled::Patched(blobs, bytes, pieces, kept) => {
                self.settle_link(link, None);
                meta = *kept;
                meta.size = bytes;
                (blobs, pieces.of(bytes))
            }
            Settled::Read(stored, kept) => {
                let same = kept.modified == meta.modified && stored.bytes == meta.size;
                self.settle_link(link, same.then_some(&stored.blobs));
                meta = *kept;
                meta.size = stored.bytes;
                let (bytes, hash) = (stored.bytes, stored.hash);
                (stored.blobs, Counted::Read { bytes, hash })
            }
        };
        if meta.kind != given {
            let what = format!("store `{path}`: its kind changed while it was read");
            return Err(Fault::new(codes::RUN_BUG, what));
        }
        let content = match meta.kind {
            EntryKind::File => NodeContent::Blobs(blobs),
            _ => NodeContent::Nothing,
        };
        if matches!(counted, Counted::Nothing) {
            meta.size = 0;
        }
        // As restic does: reading a file for a backup would otherwise change its directory's blob.
        meta.accessed = meta.modified;
        self.files += u64::from(meta.kind == EntryKind::File);
        let bytes = meta.size;
        let node = Node { name: path.name().to_vec(), meta, content };
        let mut finished = Vec::new();
        self.placement.add(path.clone(), node, &mut finished)?;
        self.tally.add(&path, &given, counted);
        self.shared.monitor.advance(self.run.id.as_str(), 1, bytes);
        self.send_trees(finished)
    }

    fn settle_link(&mut self, link: Option<LinkKey>, blobs: Option<&Vec<Id>>) {
        if let Some(key) = link {
            self.links.settle(key, blobs.map(Vec::as_slice));
        }
    }

    fn send_trees(&mut self, finished: Vec<Finished>) -> Result<()> {
        for (id, json) in finished {
            self.send(Job::Tree { id, json })?;
            self.trees_out += 1;
        }
        Ok(())
    }
}

impl State {
    fn is_settled(&self) -> bool {
        match self {
            Self::Settled(_) => true,
            Self::AtWorker | Self::Linked(..) => false,
            Self::Cut(cut) => cut.is_settled(),
        }
    }

    fn into_settled(self) -> Option<Settled> {
        match self {
            Self::Settled(settled) => Some(settled),
            Self::Cut(cut) => cut.into_settled(),
            Self::AtWorker | Self::Linked(..) => None,
        }
    }
}

fn misplaced() -> Fault {
    Fault::new(codes::RUN_BUG, "store: a report belongs to no entry")
}
