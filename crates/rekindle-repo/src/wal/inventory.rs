//! Everything that a log holds, from one complete listing.

use std::collections::{BTreeMap, BTreeSet};

use rekindle_core::Result;
use rekindle_core::wal::{Cluster, Gap, Inventory, Sealed, SegmentName, WalFile};

use super::name::Name;
use super::tail::{self, Pieces};
use super::{Shelf, folder, vanished};
use crate::lease;

pub(super) fn take(shelf: &Shelf<'_>, cluster: Cluster) -> Result<Inventory> {
    // Holds first: one that is written after this listing protects nothing that this inventory
    // shows as free, because whoever wrote it looks at the log afterwards.
    let holds = lease::holds(shelf.repo, cluster.system)?;
    let mut segments = BTreeMap::new();
    let mut pieces: BTreeMap<SegmentName, Pieces> = BTreeMap::new();
    let mut written: BTreeMap<SegmentName, jiff::Timestamp> = BTreeMap::new();
    let (mut histories, mut gaps) = (BTreeSet::new(), Vec::new());
    for meta in shelf.repo.store().list(&folder(cluster.system))? {
        let Some(name) = Name::parse_sized(meta.key.as_str(), cluster.segment_size) else {
            // `rekindle verify` names it.
            tracing::warn!(object = %meta.key, "a foreign object in the WAL log");
            continue;
        };
        match name {
            Name::File(_, WalFile::Segment(segment), _) => {
                segments.insert(segment, Sealed { stored_bytes: meta.size, stored_at: meta.modified });
            }
            Name::File(_, WalFile::History(timeline), _) => {
                histories.insert(timeline);
            }
            Name::Tail { segment, from, to, .. } => {
                tail::add(pieces.entry(segment).or_default(), from, to);
                if let Some(at) = meta.modified {
                    written.entry(segment).and_modify(|known| *known = at.max(*known)).or_insert(at);
                }
            }
            Name::Gap { .. } => {
                let gap: Gap = shelf.record(&name)?.ok_or_else(|| vanished(&name))?;
                gaps.push(gap);
            }
            Name::File(_, WalFile::Extra(_), _) | Name::Cluster(_) | Name::Place(..) | Name::Owner(..) => {}
        }
    }
    let left_tails = pieces.keys().filter(|segment| segments.contains_key(segment)).copied().collect();
    let open = pieces.iter().filter(|(segment, _)| !segments.contains_key(segment));
    let tails: BTreeMap<SegmentName, u32> =
        open.map(|(segment, pieces)| (*segment, tail::reach(pieces))).filter(|(_, reach)| *reach > 0).collect();
    let tails_at = written.into_iter().filter(|(segment, _)| tails.contains_key(segment)).collect();
    Ok(Inventory { cluster, segments, tails, tails_at, left_tails, histories, gaps, holds })
}
