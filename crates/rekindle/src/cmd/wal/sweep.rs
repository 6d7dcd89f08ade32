//! Retention of WAL, as a part of `forget` (what would go) and `prune` (what goes).

use std::fmt::Write as _;

use jiff::Timestamp;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::wal::lineage::survey;
use rekindle_core::wal::retention::{GRACE_SECONDS, WalPlan, WalRefusal, plan_wal};
use rekindle_core::wal::{Inventory, Lsn, SegmentName, SystemId, Timeline, WalArchive, WalLog};
use rekindle_core::{Fault, Result, codes};
use rekindle_repo::Repo;
use serde::Serialize;

use super::bases;
use crate::human;

/// What happens to one log.
#[derive(Debug, Serialize)]
pub(crate) struct Swept {
    system: SystemId,
    /// File names of the segments that go.
    removed: Vec<String>,
    removed_bytes: u64,
    /// Segments whose left-over tails go: of timelines that were left.
    removed_tails: Vec<String>,
    /// Holds that expired long ago and go.
    removed_holds: u64,
    needed: u64,
    /// Nobody needs them, but they are younger than a day.
    young: u64,
    /// The history of their timeline is not known.
    unknown: u64,
    /// From where on WAL is kept, and for whom.
    kept_from: Vec<(Timeline, Lsn, String)>,
    /// Why nothing goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<WalRefusal>,
}

/// Removes the WAL that none of these points needs, or only says what would go.
pub(crate) fn sweep(repo: &Repo, points: &[&RecoveryPoint], now: Timestamp, dry_run: bool) -> Result<Vec<Swept>> {
    let archive = super::archive(repo);
    let mut swept = Vec::new();
    for cluster in archive.clusters()? {
        let log = archive.log(cluster)?;
        let bases = bases::of(points, cluster)?;
        let (inventory, lineage) = survey(&*log).map_err(|fault| doubtful(&fault))?;
        let plan = match plan_wal(&inventory, &lineage, &bases, now, GRACE_SECONDS) {
            Ok(plan) => plan,
            Err(refused) => {
                let needed = inventory.segments.len() as u64;
                swept.push(Swept { needed, ..Swept::nothing(cluster.system, Some(refused)) });
                continue;
            }
        };
        let segments: Vec<_> = plan.remove.iter().map(|removal| removal.segment).collect();
        if !dry_run {
            remove(&*log, &inventory, &segments, &plan)?;
        }
        let files = |segments: &[SegmentName]| segments.iter().map(|one| one.file(cluster.segment_size)).collect();
        swept.push(Swept {
            removed: files(&segments),
            removed_bytes: plan.remove.iter().map(|removal| removal.stored_bytes).sum(),
            removed_tails: files(&plan.tails),
            removed_holds: plan.expired.len() as u64,
            needed: plan.needed,
            young: plan.young,
            unknown: plan.unknown,
            kept_from: plan.from,
            ..Swept::nothing(cluster.system, None)
        });
    }
    Ok(swept)
}

fn remove(log: &dyn WalLog, inventory: &Inventory, segments: &[SegmentName], plan: &WalPlan) -> Result<()> {
    for hold in &plan.expired {
        log.release(hold)?;
    }
    if segments.is_empty() && plan.tails.is_empty() {
        return Ok(());
    }
    // A hold that was taken after the plan was made stops it.
    let holds = log.inventory()?.holds;
    if holds.iter().any(|hold| inventory.holds.iter().all(|known| known.id != hold.id)) {
        let begun = Fault::new(codes::WAL_HOLD, "remove WAL").because("a backup or recovery has just begun");
        return Err(doubtful(&begun));
    }
    if !segments.is_empty() {
        log.remove(segments)?;
    }
    if !plan.tails.is_empty() {
        log.remove_tails(&plan.tails)?;
    }
    Ok(())
}

impl Swept {
    fn nothing(system: SystemId, refused: Option<WalRefusal>) -> Self {
        Self {
            system,
            removed: Vec::new(),
            removed_bytes: 0,
            removed_tails: Vec::new(),
            removed_holds: 0,
            needed: 0,
            young: 0,
            unknown: 0,
            kept_from: Vec::new(),
            refused,
        }
    }
}

fn doubtful(fault: &Fault) -> Fault {
    Fault::new(codes::WAL_RETENTION, "decide which WAL is needed")
        .because(fault.chain())
        .hint("nothing was removed; rekindle wal verify")
}

/// The same for people. Empty when there is no log.
pub(crate) fn text(swept: &[Swept], dry_run: bool) -> String {
    let mut text = String::new();
    for log in swept {
        let verb = if dry_run { "would remove" } else { "removed" };
        let _ = writeln!(
            text,
            "WAL of cluster {}: {verb} {} segments ({}), kept {}",
            log.system,
            log.removed.len(),
            human::bytes(log.removed_bytes),
            log.needed + log.young + log.unknown,
        );
        for (timeline, from, why) in &log.kept_from {
            let _ = writeln!(text, "  timeline {timeline}: kept from {from} on, for {why}");
        }
        if !log.removed_tails.is_empty() {
            let _ = writeln!(text, "  {verb} {} tails of timelines that were left", log.removed_tails.len());
        }
        if log.young > 0 {
            let _ = writeln!(text, "  {} segments nobody needs are younger than a day", log.young);
        }
        if log.unknown > 0 {
            let _ = writeln!(text, "  {} segments are of timelines without a known history", log.unknown);
        }
        match &log.refused {
            None => {}
            Some(WalRefusal::NoBase) => text.push_str("  nothing is removed before the first base backup\n"),
            Some(WalRefusal::NotCovered { base }) => {
                let _ = writeln!(text, "  nothing is removed: WAL of the newest base backup {base} is missing");
            }
            Some(WalRefusal::FromTheFuture) => {
                text.push_str("  nothing is removed: a segment is from the future, so a clock is wrong\n");
            }
        }
    }
    text
}
