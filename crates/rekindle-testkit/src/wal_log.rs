//! A WAL log in memory, whose segments can be damaged and lost, and an archive that holds just this one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rekindle_core::wal::{
    Cluster, Extra, Gap, Hold, Inventory, Lsn, Owner, Put, Sealed, SegmentName, Tail, TailPart, Timeline, WalArchive,
    WalLog,
};
use rekindle_core::{Fault, Result, codes};

#[derive(Debug, Default)]
struct Held {
    segments: BTreeMap<SegmentName, Vec<u8>>,
    tails: BTreeMap<SegmentName, Vec<u8>>,
    histories: BTreeMap<Timeline, Vec<u8>>,
    gaps: Vec<Gap>,
    holds: BTreeSet<String>,
    damaged: BTreeSet<SegmentName>,
    next_hold: u64,
    tail_parts: u64,
    tail_bytes: u64,
    put_takes: Duration,
}

/// A WAL log in memory.
#[derive(Debug)]
pub struct MemoryLog {
    cluster: Cluster,
    held: Mutex<Held>,
}

fn not_here() -> Fault {
    Fault::new(codes::RUN_BUG, "this log of the tests cannot do that")
}

impl MemoryLog {
    /// An empty log.
    pub fn new(cluster: Cluster) -> Arc<Self> {
        Arc::new(Self { cluster, held: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a sealed segment.
    pub fn add(&self, name: SegmentName, bytes: Vec<u8>) {
        self.held().segments.insert(name, bytes);
    }

    /// Puts what is known of the open segment.
    pub fn add_tail(&self, name: SegmentName, bytes: Vec<u8>) {
        self.held().tails.insert(name, bytes);
    }

    /// Puts a history file.
    pub fn add_history(&self, timeline: Timeline, bytes: &[u8]) {
        self.held().histories.insert(timeline, bytes.to_vec());
    }

    /// From now on this segment is listed and cannot be read.
    pub fn damage(&self, name: SegmentName) {
        self.held().damaged.insert(name);
    }

    /// Removes a segment without a trace.
    pub fn forget(&self, name: SegmentName) {
        self.held().segments.remove(&name);
    }

    /// Removes a history file.
    pub fn forget_history(&self, timeline: Timeline) {
        self.held().histories.remove(&timeline);
    }

    /// From now on storing something takes this long.
    pub fn slow(&self, put_takes: Duration) {
        self.held().put_takes = put_takes;
    }

    /// How many parts of open segments were stored so far, and their bytes.
    pub fn tails_put(&self) -> (u64, u64) {
        let held = self.held();
        (held.tail_parts, held.tail_bytes)
    }

    fn store(&self) {
        let takes = self.held().put_takes;
        std::thread::sleep(takes);
    }

    /// How many holds there are.
    pub fn holds(&self) -> usize {
        self.held().holds.len()
    }
}

impl WalLog for MemoryLog {
    fn cluster(&self) -> Cluster {
        self.cluster
    }

    fn put_segment(&self, segment: SegmentName, bytes: &[u8]) -> Result<Put> {
        self.store();
        self.add(segment, bytes.to_vec());
        Ok(Put::New)
    }

    fn put_tail(&self, part: &TailPart) -> Result<()> {
        self.store();
        let mut held = self.held();
        held.tail_parts += 1;
        held.tail_bytes += part.bytes.len() as u64;
        let tail = held.tails.entry(part.segment).or_default();
        if part.from as usize > tail.len() {
            return Err(Fault::new(codes::RUN_BUG, "store a part of an open segment: what lies before it is missing"));
        }
        tail.truncate(part.from as usize);
        tail.extend_from_slice(&part.bytes);
        Ok(())
    }

    fn drop_tail(&self, segment: SegmentName) -> Result<()> {
        self.held().tails.remove(&segment);
        Ok(())
    }

    fn put_history(&self, timeline: Timeline, bytes: &[u8]) -> Result<Put> {
        self.add_history(timeline, bytes);
        Ok(Put::New)
    }

    fn put_extra(&self, _: Extra, _: &[u8]) -> Result<Put> {
        Err(not_here())
    }

    fn put_gap(&self, gap: &Gap) -> Result<()> {
        self.held().gaps.push(gap.clone());
        Ok(())
    }

    fn segment(&self, segment: SegmentName) -> Result<Option<Vec<u8>>> {
        let held = self.held();
        if held.damaged.contains(&segment) {
            return Err(Fault::new(codes::REPO_DAMAGED, "read a segment: it is damaged"));
        }
        Ok(held.segments.get(&segment).cloned())
    }

    fn tail(&self, segment: SegmentName) -> Result<Option<Tail>> {
        Ok(self.held().tails.get(&segment).map(|bytes| Tail { bytes: bytes.clone() }))
    }

    fn history(&self, timeline: Timeline) -> Result<Option<Vec<u8>>> {
        Ok(self.held().histories.get(&timeline).cloned())
    }

    fn extra(&self, _: Extra) -> Result<Option<Vec<u8>>> {
        Err(not_here())
    }

    fn inventory(&self) -> Result<Inventory> {
        let held = self.held();
        let sealed = |bytes: &Vec<u8>| Sealed { stored_bytes: bytes.len() as u64, stored_at: None };
        Ok(Inventory {
            cluster: self.cluster,
            segments: held.segments.iter().map(|(name, bytes)| (*name, sealed(bytes))).collect(),
            tails: held.tails.iter().map(|(name, bytes)| (*name, u32::try_from(bytes.len()).unwrap_or(0))).collect(),
            tails_at: BTreeMap::new(),
            left_tails: BTreeSet::new(),
            histories: held.histories.keys().copied().collect(),
            gaps: held.gaps.clone(),
            holds: Vec::new(),
        })
    }

    fn hold(&self, timeline: Timeline, from: Lsn, why: &str, _: Duration) -> Result<Hold> {
        let mut held = self.held();
        held.next_hold += 1;
        let id = held.next_hold.to_string();
        held.holds.insert(id.clone());
        Ok(Hold { id, timeline, from, why: why.to_owned(), until: jiff::Timestamp::MAX })
    }

    fn extend(&self, hold: &Hold, _: Duration) -> Result<Hold> {
        Ok(hold.clone())
    }

    fn release(&self, hold: &Hold) -> Result<()> {
        self.held().holds.remove(&hold.id);
        Ok(())
    }

    fn remove(&self, _: &[SegmentName]) -> Result<()> {
        Err(not_here())
    }

    fn remove_tails(&self, _: &[SegmentName]) -> Result<()> {
        Err(not_here())
    }
}

/// An archive in memory for one cluster: the first that is bound.
#[derive(Debug, Default)]
pub struct MemoryArchive {
    log: OnceLock<Arc<MemoryLog>>,
}

impl MemoryArchive {
    /// The log of the cluster, once there is one.
    pub fn only(&self) -> Option<Arc<MemoryLog>> {
        self.log.get().cloned()
    }
}

impl WalArchive for MemoryArchive {
    fn clusters(&self) -> Result<Vec<Cluster>> {
        Ok(self.log.get().map(|log| log.cluster).into_iter().collect())
    }

    fn log(&self, cluster: Cluster) -> Result<Arc<dyn WalLog>> {
        let log = self.log.get_or_init(|| MemoryLog::new(cluster));
        if log.cluster == cluster { Ok(Arc::<MemoryLog>::clone(log) as _) } else { Err(not_here()) }
    }

    fn bound(&self, _: &Owner) -> Result<Option<Cluster>> {
        Ok(self.log.get().map(|log| log.cluster))
    }

    fn bind(&self, _: &Owner, cluster: Cluster) -> Result<Arc<dyn WalLog>> {
        self.log(cluster)
    }

    fn rebind(&self, _: &Owner, _: Cluster) -> Result<()> {
        Err(not_here())
    }
}
