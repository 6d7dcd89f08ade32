//! What one batch of files needs, pack by pack.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rekindle_core::entry::Meta;

use super::place::DirectoryNumber;
use crate::format::Id;
use crate::format::pack::{BlobKind, PackedBlob};
use crate::read::blobs::BlobReader;
use crate::read::index::Location;

/// Files restored together; bounds the memory for names and attributes.
pub(super) const FILES_PER_BATCH_MAX: usize = 50_000;
/// Blobs restored together, 72 bytes each.
pub(super) const BLOBS_PER_BATCH_MAX: usize = 400_000;
/// Bytes of a pack read in one request, unless a single blob is longer.
const RANGE_BYTES_MAX: u32 = 4 << 20;
/// Bytes that are read and thrown away rather than starting a second request.
const GAP_BYTES_MAX: u32 = 128 << 10;
/// Jobs that one worker takes at once, as long as all workers have enough to do.
const JOBS_PER_TURN_MAX: usize = 8;
/// Turns per worker below which single jobs are given out instead.
const TURNS_PER_WORKER_MIN: usize = 4;
/// Content that takes less than this part of its size in the repository is probably zeros and
/// becomes a hole; it is not counted when free space is looked at.
const HOLE_RATIO: u64 = 200;

/// A file to restore.
#[derive(Debug)]
pub(super) struct FileTask {
    pub(super) directory: DirectoryNumber,
    pub(super) name: Box<[u8]>,
    pub(super) meta: Box<Meta>,
    /// Ids of its content, in order; emptied once the needs are planned.
    pub(super) blobs: Vec<Id>,
    /// Whether its directory was there before this restore.
    pub(super) may_exist: bool,
    /// Sum of the blobs' lengths.
    pub(super) size: u64,
    /// Bytes that were there already.
    pub(super) kept: u64,
    pub(super) start: Start,
    /// Blobs still to be written.
    pub(super) pending: AtomicU32,
    /// Bytes still to be written, for the error of a full target.
    pub(super) pending_bytes: AtomicU64,
    /// Why it is lost, once it is.
    pub(super) failed: OnceLock<String>,
}

impl FileTask {
    /// The mode a file is made with. In a directory that this restore made, which is closed to others
    /// until the end, it is the final one, so that it need not be set again; set-id bits wait for the
    /// owner. Anywhere else only the owner can open it until it is whole.
    pub(super) fn first_mode(&self) -> u32 {
        if self.may_exist { 0o600 } else { self.meta.mode & 0o777 }
    }
}

/// How the first write finds the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// It has one blob: made, written and finished in one go.
    AtWrite,
    /// It was made or opened before; later opens must find the same one.
    Made { device: u64, inode: u64, holes: bool },
}

/// One blob of one file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    pub(super) location: Location,
    pub(super) file: u32,
    /// Where it belongs in the file.
    pub(super) at: u64,
}

/// Needs of one batch in pack order, cut into jobs of one read each.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) needs: Vec<Need>,
    pub(super) jobs: Vec<Range<usize>>,
}

impl Plan {
    /// Sorts and cuts.
    pub(super) fn new(mut needs: Vec<Need>) -> Self {
        needs.sort_unstable_by_key(|n| (n.location.pack, n.location.blob.offset, n.file, n.at));
        let mut jobs = Vec::new();
        let mut first = 0;
        for next in 1..=needs.len() {
            if next == needs.len() || !fits(&needs[first], &needs[next - 1], &needs[next]) {
                jobs.push(first..next);
                first = next;
            }
        }
        if needs.is_empty() {
            jobs.clear();
        }
        Self { needs, jobs }
    }

    /// The jobs in turns, each for one worker: the jobs of one pack. What stands together in a pack
    /// mostly belongs into the same directories, and two threads that make files in one directory wait
    /// for each other in the kernel.
    pub(super) fn turns(&self, workers: usize) -> Vec<Range<usize>> {
        let pack = |job: usize| self.needs.get(self.jobs[job].start).map(|need| need.location.pack);
        let mut turns: Vec<Range<usize>> = Vec::new();
        for job in 0..self.jobs.len() {
            match turns.last_mut() {
                Some(turn) if pack(turn.start) == pack(job) && turn.len() < JOBS_PER_TURN_MAX => turn.end = job + 1,
                _ => turns.push(job..job + 1),
            }
        }
        if turns.len() < workers * TURNS_PER_WORKER_MIN {
            return (0..self.jobs.len()).map(|job| job..job + 1).collect();
        }
        turns
    }

    /// Bytes of the pack that a job reads.
    pub(super) fn range(&self, job: &Range<usize>) -> Range<u64> {
        let needs = &self.needs[job.clone()];
        let start = needs.first().map_or(0, |n| n.location.blob.offset);
        let end = needs.last().map_or(0, |n| end(&n.location.blob));
        u64::from(start)..u64::from(end)
    }

    /// Bytes that surely have to be written.
    pub(super) fn bytes_min(&self) -> u64 {
        self.needs
            .iter()
            .map(|need| &need.location.blob)
            .filter(|blob| u64::from(blob.length) * HOLE_RATIO > blob.content_length())
            .map(PackedBlob::content_length)
            .sum()
    }
}

fn end(blob: &PackedBlob) -> u32 {
    blob.offset.saturating_add(blob.length)
}

fn fits(first: &Need, last: &Need, next: &Need) -> bool {
    let (from, to) = (&last.location.blob, &next.location.blob);
    last.location.pack == next.location.pack
        && to.offset.saturating_sub(end(from)) <= GAP_BYTES_MAX
        && end(to).saturating_sub(first.location.blob.offset) <= RANGE_BYTES_MAX
}

/// Finds where the blobs of a file stand, and its size.
pub(super) fn locate(reader: &BlobReader, blobs: &[Id]) -> Result<(Vec<Location>, u64), String> {
    let mut locations = Vec::with_capacity(blobs.len());
    let mut size = 0_u64;
    for id in blobs {
        let location = reader
            .index
            .find(BlobKind::Data, id)
            .next()
            .ok_or_else(|| reader.index.absent(BlobKind::Data, id).chain())?;
        size = size.saturating_add(location.blob.content_length());
        locations.push(location);
    }
    Ok((locations, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(pack: u32, offset: u32, length: u32) -> Need {
        let blob = PackedBlob { kind: BlobKind::Data, id: Id([0; 32]), offset, length, uncompressed: None };
        Need { location: Location { pack, blob }, file: 0, at: 0 }
    }

    #[test]
    fn neighbours_are_read_together_and_distant_ones_are_not() {
        let plan = Plan::new(vec![
            need(1, 0, 100),
            need(0, 500, 100),
            need(0, 600, 100),
            need(0, 600, 100),
            need(0, 700 + GAP_BYTES_MAX, 50),
            need(0, 751 + 2 * GAP_BYTES_MAX, 50),
            need(1, 100, RANGE_BYTES_MAX),
        ]);
        let sizes: Vec<usize> = plan.jobs.iter().map(ExactSizeIterator::len).collect();
        assert_eq!(sizes, [4, 1, 1, 1]);
        assert_eq!(plan.range(&plan.jobs[0]), 500..u64::from(750 + GAP_BYTES_MAX));
        assert!(Plan::new(Vec::new()).jobs.is_empty());
    }

    #[test]
    fn the_jobs_of_a_pack_are_one_turn_when_there_are_enough_packs() {
        let far = RANGE_BYTES_MAX + GAP_BYTES_MAX;
        let needs = (0..8).flat_map(|pack| (0..3).map(move |part| need(pack, part * far, 100))).collect();
        let plan = Plan::new(needs);
        assert_eq!(plan.jobs.len(), 24);
        assert_eq!(plan.turns(2), (0..8).map(|pack| pack * 3..pack * 3 + 3).collect::<Vec<_>>());
        assert_eq!(plan.turns(3), (0..24).map(|job| job..job + 1).collect::<Vec<_>>());
        let one_pack = Plan::new((0..64).map(|part| need(0, part * far, 100)).collect());
        assert!(one_pack.turns(1).iter().all(|turn| turn.len() == JOBS_PER_TURN_MAX));
        assert!(Plan::new(Vec::new()).turns(2).is_empty());
    }
}
