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
}
