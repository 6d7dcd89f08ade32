//! Taking in points whose run died between writing the snapshot and writing its record.

use std::time::Duration;

use rekindle_core::{PointId, Result};

use super::{Ledger, Present, READERS};
use crate::format::{Id, names};
use crate::points::{self, POINT_TAG};
use crate::read::parallel;

/// So many of the newest records are read; older snapshots were looked at by earlier runs.
const RECORDS_LOOKED_AT: usize = 32;
/// The storage's clock and the recording host's may differ by this much.
const CLOCK_MARGIN: Duration = Duration::from_mins(15);

impl Ledger<'_> {
    /// Records recent points that the ledger does not know. Cheap enough for every run: one
    /// listing and the newest records, unless there is something to adopt.
    pub fn adopt_recent(&self, host: &str, now: jiff::Timestamp) -> Result<Vec<PointId>> {
        let numbers = self.chain.numbers()?;
        let newest = &numbers[numbers.len().saturating_sub(RECORDS_LOOKED_AT)..];
        let entries: Vec<_> =
            parallel::map(newest, READERS, |number| self.chain.read(*number)).into_iter().collect::<Result<_>>()?;
        // With every record read, no snapshot is too old to be looked at.
        let oldest = entries.first().filter(|_| newest.len() < numbers.len()).map(|entry| entry.record.time);
        let mut unknown = Vec::new();
        for meta in self.repo.store().list(&format!("{}/", names::SNAPSHOTS))? {
            let name = meta.key.as_str().rsplit('/').next().unwrap_or_default();
            let (Ok(point), Ok(id)) = (name.parse::<PointId>(), name.parse::<Id>()) else { continue };
            let old = oldest
                .zip(meta.modified)
                .is_some_and(|(oldest, modified)| modified.checked_add(CLOCK_MARGIN).is_ok_and(|late| late < oldest));
            if old || entries.iter().any(|entry| entry.record.point == point) {
                continue;
            }
            let snapshot = points::read_snapshot(self.repo, &id)?;
            if snapshot.has_tag(POINT_TAG) {
                let original = snapshot.original.as_ref().map(points::point_id).transpose()?;
                unknown.push(Present { point, tree: snapshot.tree.hex(), original });
            }
        }
        if unknown.is_empty() { Ok(Vec::new()) } else { self.reconcile(&unknown, host, now) }
    }
}
