//! The pieces of an open segment.

use std::collections::BTreeMap;

use rekindle_core::wal::{SegmentName, SegmentSize, SystemId};

use super::name::{self, Name};
use super::{Shelf, vanished};
use rekindle_core::Result;

/// Offsets of the pieces of one segment: where each begins, and the furthest it reaches.
pub(super) type Pieces = BTreeMap<u32, u32>;

/// How far the pieces reach from the start of the segment without a hole.
pub(super) fn reach(pieces: &Pieces) -> u32 {
    chain(pieces).last().map_or(0, |(_, to)| *to)
}

/// The fewest pieces that cover everything up to the reach: from each position the one that goes
/// furthest.
fn chain(pieces: &Pieces) -> Vec<(u32, u32)> {
    let (mut at, mut chain) = (0, Vec::new());
    loop {
        let next = pieces.range(..=at).max_by_key(|(_, to)| **to).map(|(from, to)| (*from, *to));
        match next {
            Some((from, to)) if to > at => {
                chain.push((from, to));
                at = to;
            }
            _ => return chain,
        }
    }
}

/// Adds a piece; of two with the same start the longer one counts.
pub(super) fn add(pieces: &mut Pieces, from: u32, to: u32) {
    let known = pieces.entry(from).or_insert(to);
    *known = to.max(*known);
}

/// Every piece of a segment there is, also those that longer ones cover.
pub(super) fn list(
    shelf: &Shelf<'_>,
    system: SystemId,
    segment: SegmentName,
    size: SegmentSize,
) -> Result<Vec<(u32, u32)>> {
    let listed = shelf.repo.store().list(&name::tail_folder(system, segment, size))?;
    let piece = |path: &str| match Name::parse_sized(path, size) {
        Some(Name::Tail { from, to, .. }) => Some((from, to)),
        _ => None,
    };
    Ok(listed.iter().filter_map(|meta| piece(meta.key.as_str())).collect())
}

/// The bytes of an open segment from its start; empty when there is no piece.
pub(super) fn read(shelf: &Shelf<'_>, system: SystemId, segment: SegmentName, size: SegmentSize) -> Result<Vec<u8>> {
    let mut pieces = Pieces::new();
    for (from, to) in list(shelf, system, segment, size)? {
        add(&mut pieces, from, to);
    }
    let mut bytes: Vec<u8> = Vec::new();
    for (from, to) in chain(&pieces) {
        let name = Name::Tail { system, segment, size, from, to };
        let piece = shelf.read(&name)?.ok_or_else(|| vanished(&name))?;
        if piece.len() != (to - from) as usize {
            return Err(super::damaged(&name, "its length is not what its name says"));
        }
        let known = bytes.len() - from as usize;
        // Pieces of two receivers may overlap: they must agree.
        if bytes[from as usize..] != piece[..known.min(piece.len())] {
            return Err(super::conflict(&name));
        }
        bytes.extend_from_slice(&piece[known..]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaches(pieces: &[(u32, u32)]) -> u32 {
        let mut all = Pieces::new();
        for (from, to) in pieces {
            add(&mut all, *from, *to);
        }
        reach(&all)
    }

    #[test]
    fn only_what_hangs_together_from_the_start_counts() {
        assert_eq!(reaches(&[]), 0);
        assert_eq!(reaches(&[(0, 10), (10, 20), (25, 30)]), 20);
        assert_eq!(reaches(&[(5, 10)]), 0);
        assert_eq!(reaches(&[(0, 10), (5, 8), (8, 30), (0, 4)]), 30);
        assert_eq!(reaches(&[(0, 4), (0, 10), (10, 11)]), 11);
    }
}
