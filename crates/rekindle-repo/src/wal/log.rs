//! The log of one cluster.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rekindle_core::port::Clock;
use rekindle_core::wal::{
    Cluster, Extra, Gap, History, Hold, Inventory, LongHeader, Lsn, Put, SegmentName, Tail, TailPart, Timeline,
    WalFile, WalLog, check_segment,
};
use rekindle_core::{Fault, Result, codes};

use super::name::Name;
use super::place::Place;
use super::{Shelf, Stored, inventory, json, tail};
use crate::lease::{self, Lease};
use crate::read::parallel;
use crate::repo::Repo;

/// Pieces may be merged or sealed while they are read: so often it begins again.
const TAIL_READS_MAX: u32 = 4;
/// Longest history file: a line of about 60 bytes for each promotion.
const HISTORY_BYTES_MAX: usize = 1 << 20;

/// The log of one cluster in a repository.
pub(super) struct Log {
    repo: Repo,
    clock: Arc<dyn Clock>,
    cluster: Cluster,
    /// Found out with the first write: whoever only reads may have a key that only reads.
    place: OnceLock<Place>,
}

impl Log {
    pub(super) fn new(repo: Repo, clock: Arc<dyn Clock>, cluster: Cluster) -> Self {
        Self { repo, clock, cluster, place: OnceLock::new() }
    }

    /// Makes the log, when it is not there, and finds out what its storage can do.
    pub(super) fn place(&self) -> Result<&Place> {
        if let Some(known) = self.place.get() {
            return Ok(known);
        }
        let found = Place::of(&self.shelf(), self.cluster)?;
        Ok(self.place.get_or_init(|| found))
    }

    fn shelf(&self) -> Shelf<'_> {
        Shelf { repo: &self.repo }
    }

    fn file(&self, file: WalFile) -> Name {
        Name::File(self.cluster.system, file, self.cluster.segment_size)
    }

    fn put(&self, name: &Name, content: &[u8]) -> Result<Put> {
        match self.shelf().put_once(name, content, self.place()?.put_if_absent)? {
            Stored::New => Ok(Put::New),
            Stored::Same => Ok(Put::Same),
        }
    }

    fn piece(&self, segment: SegmentName, from: u32, to: u32) -> Name {
        Name::Tail { system: self.cluster.system, segment, size: self.cluster.segment_size, from, to }
    }

    fn pieces(&self, segment: SegmentName) -> Result<Vec<(u32, u32)>> {
        tail::list(&self.shelf(), self.cluster.system, segment, self.cluster.segment_size)
    }

    fn delete(&self, name: &Name) -> Result<()> {
        self.repo.store().delete(&name.key()?)
    }

    fn remove_pieces(&self, segment: SegmentName) -> Result<()> {
        self.pieces(segment)?.into_iter().try_for_each(|(from, to)| self.delete(&self.piece(segment, from, to)))
    }

    fn remove_one(&self, segment: SegmentName) -> Result<()> {
        self.remove_pieces(segment)?;
        self.delete(&self.file(WalFile::Segment(segment)))
    }

    /// Removes many things, alone in the repository.
    fn remove_all(
        &self,
        segments: &[SegmentName],
        remove: impl Fn(SegmentName) -> Result<()> + Send + Sync,
    ) -> Result<()> {
        let lease = Lease::acquire(&self.repo, &self.clock, &format!("wal-sweep-{}", self.cluster.system))?;
        let removed: Result<()> = segments.chunks(parallel::waiters() * 8).try_for_each(|portion| {
            lease.renew()?;
            parallel::map(portion, parallel::waiters(), |segment| remove(*segment)).into_iter().collect()
        });
        let released = lease.release();
        removed.and(released)
    }
}

fn not_wal(segment: SegmentName, cluster: Cluster, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    let file = segment.file(cluster.segment_size);
    Fault::new(codes::WAL_NOT_WAL, format!("store `{file}` in the WAL log"))
        .because(why)
        .hint("nothing was stored; look at the file with pg_waldump")
}

impl WalLog for Log {
    fn cluster(&self) -> Cluster {
        self.cluster
    }

    fn put_segment(&self, segment: SegmentName, bytes: &[u8]) -> Result<Put> {
        check_segment(bytes, segment, self.cluster).map_err(|bad| not_wal(segment, self.cluster, bad))?;
        self.put(&self.file(WalFile::Segment(segment)), bytes)
    }

    fn put_tail(&self, part: &TailPart) -> Result<()> {
        let length = u32::try_from(part.bytes.len()).unwrap_or(u32::MAX);
        let to = part.from.saturating_add(length);
        if length == 0 || to > self.cluster.segment_size.bytes() {
            return Err(not_wal(part.segment, self.cluster, "the piece is empty or longer than the segment"));
        }
        if part.from == 0 {
            let header = LongHeader::parse(&part.bytes);
            header
                .and_then(|header| header.check(part.segment, self.cluster))
                .map_err(|bad| not_wal(part.segment, self.cluster, bad))?;
        }
        self.put(&self.piece(part.segment, part.from, to), &part.bytes)?;
        if part.from == 0 {
            for (from, covered) in self.pieces(part.segment)? {
                if covered <= to && (from, covered) != (0, to) {
                    self.delete(&self.piece(part.segment, from, covered))?;
                }
            }
        }
        Ok(())
    }

    fn drop_tail(&self, segment: SegmentName) -> Result<()> {
        let sealed = self.file(WalFile::Segment(segment));
        if self.repo.store().head(&sealed.key()?)?.is_none() {
            let file = segment.file(self.cluster.segment_size);
            return Err(Fault::new(codes::RUN_BUG, format!("drop the tail of `{file}`, which is not sealed")));
        }
        self.remove_pieces(segment)
    }

    fn put_history(&self, timeline: Timeline, bytes: &[u8]) -> Result<Put> {
        let what = || format!("store the history of timeline {timeline}");
        let bad = |why: Box<dyn std::error::Error + Send + Sync>| {
            Fault::new(codes::WAL_NOT_WAL, what())
                .because(why)
                .hint("nothing was stored; look at the file on the server")
        };
        if bytes.len() > HISTORY_BYTES_MAX {
            return Err(bad("it is longer than a history file can be".into()));
        }
        History::parse(timeline, bytes).map_err(|error| bad(error.into()))?;
        self.put(&self.file(WalFile::History(timeline)), bytes)
    }

    fn put_extra(&self, extra: Extra, bytes: &[u8]) -> Result<Put> {
        if let Extra::Partial(segment) = extra {
            check_segment(bytes, segment, self.cluster).map_err(|bad| not_wal(segment, self.cluster, bad))?;
        }
        self.put(&self.file(WalFile::Extra(extra)), bytes)
    }

    fn put_gap(&self, gap: &Gap) -> Result<()> {
        let name = Name::Gap { system: self.cluster.system, timeline: gap.timeline, from: gap.from };
        match self.put(&name, &json(gap)?) {
            // The hole is known; what was written first stays.
            Err(fault) if fault.is(codes::WAL_CONFLICT) => Ok(()),
            other => other.map(drop),
        }
    }

    fn segment(&self, segment: SegmentName) -> Result<Option<Vec<u8>>> {
        self.shelf().read(&self.file(WalFile::Segment(segment)))
    }

    fn tail(&self, segment: SegmentName) -> Result<Option<Tail>> {
        let mut tries = 1;
        loop {
            match tail::read(&self.shelf(), self.cluster.system, segment, self.cluster.segment_size) {
                Ok(bytes) if bytes.is_empty() => return Ok(None),
                Ok(bytes) => return Ok(Some(Tail { bytes })),
                Err(fault) if fault.is(codes::STORE_NOT_FOUND) && tries < TAIL_READS_MAX => tries += 1,
                Err(fault) => return Err(fault),
            }
        }
    }

    fn history(&self, timeline: Timeline) -> Result<Option<Vec<u8>>> {
        self.shelf().read(&self.file(WalFile::History(timeline)))
    }

    fn extra(&self, extra: Extra) -> Result<Option<Vec<u8>>> {
        self.shelf().read(&self.file(WalFile::Extra(extra)))
    }

    fn inventory(&self) -> Result<Inventory> {
        inventory::take(&self.shelf(), self.cluster)
    }

    fn hold(&self, timeline: Timeline, from: Lsn, why: &str, lasts: Duration) -> Result<Hold> {
        let id = lease::new_id()?;
        let until = self.clock.now() + lasts;
        let hold = Hold { id, timeline, from, why: why.to_owned(), until };
        lease::write_hold(&self.repo, self.cluster.system, &hold)?;
        Ok(hold)
    }

    fn extend(&self, hold: &Hold, lasts: Duration) -> Result<Hold> {
        let now = self.clock.now();
        let known = lease::read_hold(&self.repo, self.cluster.system, &hold.id)?;
        let what = || format!("keep the hold of {} on the WAL log", hold.why);
        match known {
            Some(known) if known.until > now => {}
            Some(_) => return Err(gone(what(), "it has expired")),
            None => return Err(gone(what(), "somebody removed it")),
        }
        let hold = Hold { until: now + lasts, ..hold.clone() };
        lease::write_hold(&self.repo, self.cluster.system, &hold)?;
        Ok(hold)
    }

    fn release(&self, hold: &Hold) -> Result<()> {
        lease::remove_hold(&self.repo, self.cluster.system, &hold.id)
    }

    fn remove(&self, segments: &[SegmentName]) -> Result<()> {
        self.remove_all(segments, |segment| self.remove_one(segment))
    }

    fn remove_tails(&self, segments: &[SegmentName]) -> Result<()> {
        self.remove_all(segments, |segment| self.remove_pieces(segment))
    }
}

fn gone(what: String, why: &'static str) -> Fault {
    Fault::new(codes::WAL_HOLD, what).because(why).hint("run the command again")
}
