//! Copies: further repositories, each with keys of its own, that hold the same points.
//!
//! Blobs are opened with the key of the source, compared with their ids, and sealed with the key of
//! the far side; trees and manifests stay the same bytes. A point of the copy is a snapshot that
//! names the point it is a copy of (`original`, as `restic copy` does). It is written last, and only
//! with two tokens in hand: [`Whole`](far::Whole), which is given when the far side holds every blob, and
//! [`Covered`], when it holds the write-ahead log that the point needs.
//!
//! What was copied before is found again by looking at the far side, so a copy that was stopped goes
//! on where it was: packs that no index names are read back and taken in.

mod far;
mod lag;
mod mirror;
mod plan;
mod transfer;

use std::collections::{BTreeSet, HashSet};

use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::RunContext;
use rekindle_core::{Class, Fault, PointId, Result, codes};
use serde::Serialize;

use crate::format::Id;
use crate::format::snapshot::Snapshot;
use crate::ledger::{self, Action, Event, Ledger};
use crate::lock::{Lock, LockKind};
use crate::points::{self, NamedSnapshot, PointsView, Reader};
use crate::repo::Repo;
use crate::verify::BadBlobs;
use crate::wal::copy::{Covered, WalCopied, copy_logs};
use crate::write::commit::put_snapshot;
use far::{Far, Whole};
use plan::Planned;

pub use lag::{Lag, lag};
pub use mirror::Mirrored;

/// A point that is in the copy now. Only made from what the far side proved to hold.
#[derive(Debug, Clone, Serialize)]
pub struct CopiedPoint {
    /// Its id in the copy.
    point: PointId,
    /// The point it is a copy of.
    original: PointId,
    time: jiff::Timestamp,
    /// Blobs that were missing, and what was written for them.
    blobs: u64,
    bytes: u64,
}

impl CopiedPoint {
    /// Its id in the copy.
    pub fn point(&self) -> &PointId {
        &self.point
    }

    /// The point it is a copy of.
    pub fn original(&self) -> &PointId {
        &self.original
    }
}

/// A point that could not be copied.
#[derive(Debug, Serialize)]
pub struct FailedPoint {
    pub point: PointId,
    /// Error code, as `RK-CP-001`.
    pub code: String,
    pub why: String,
    /// Paths that the source cannot give, escaped for reading.
    pub paths: Vec<String>,
    #[serde(skip)]
    pub fault: Fault,
}

/// What a copy did.
#[derive(Debug, Default, Serialize)]
pub struct CopyReport {
    /// Newest first.
    pub copied: Vec<CopiedPoint>,
    /// Points that were there already.
    pub there: u64,
    /// Points that were removed from the copy on purpose: they are not copied again.
    pub forgotten: u64,
    pub failed: Vec<FailedPoint>,
    /// Points of the copy that had lost something, which is there again.
    pub mended: Vec<PointId>,
    /// Packs of an earlier copy that was stopped, taken in.
    pub packs_taken_in: u64,
    /// Packs that the index of the copy names and its storage does not hold whole.
    pub packs_lost: u64,
    pub blobs: u64,
    /// Written to the far side, without the log.
    pub bytes: u64,
    pub wal: WalCopied,
    /// Marks and proofs of drills that the far side was told.
    pub mirrored: Mirrored,
    /// Why it was not told all of them; the points are there all the same.
    #[serde(skip)]
    pub not_mirrored: Option<Fault>,
}

/// Copies every point and the log that is not at the far side yet. `scope` is the copy's name, for
/// the monitor. `Err` when nothing can be said about the points; a point that cannot be copied is in
/// the report, and the others are copied all the same.
pub fn copy(source: &Repo, far: &Repo, scope: &str, host: &str, context: &RunContext) -> Result<CopyReport> {
    if source.config().id == far.config().id {
        return Err(Fault::new(codes::COPY_SAME, format!("copy {}", source.store().describe()))
            .because(format!("{} is the same repository", far.store().describe()))
            .hint("give the copy a place of its own, and make it with `rekindle copy --init`"));
    }
    context.monitor.phase(scope, "lock and look at the copy");
    let near = Lock::acquire(source, &context.clock, LockKind::Shared)?;
    let result = Lock::acquire(far, &context.clock, LockKind::Exclusive).and_then(|lock| {
        let work = Work { source, far, scope, host, context };
        let result = work.run(&lock);
        crate::admin::finish(lock, result)
    });
    crate::admin::finish(near, result)
}

/// What all steps share.
struct Work<'a> {
    source: &'a Repo,
    far: &'a Repo,
    scope: &'a str,
    host: &'a str,
    context: &'a RunContext,
}

/// The blobs of a point that are at the far side now.
struct Taken {
    planned: Planned,
    /// Written for it.
    bytes: u64,
}

/// Why a point could not be taken.
enum Trouble {
    /// The source has lost something that this point needs; the others are copied.
    Point { fault: Fault, bad: BadBlobs },
    /// Nothing can be copied any more.
    All(Fault),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::All(fault)
    }
}

/// Which points of the source are in the copy.
struct Standing {
    view: PointsView,
    snapshots: Vec<NamedSnapshot>,
    /// Originals that have a copy.
    there: BTreeSet<PointId>,
    forgotten: BTreeSet<PointId>,
}

impl Work<'_> {
    fn run(&self, lock: &Lock) -> Result<CopyReport> {
        let ledger = Ledger::open_or_create(self.far)?;
        let standing = self.standing(&ledger)?;
        let mut far = Far::look(self.far, self.context)?;
        let mut report = CopyReport {
            packs_taken_in: far.taken_in,
            packs_lost: far.lost.len() as u64,
            there: standing.there.len() as u64,
            ..CopyReport::default()
        };
        unreadable(&standing, &mut report);
        let wanted: Vec<&RecoveryPoint> =
            standing.view.points.iter().filter(|point| !standing.forgotten.contains(root(point))).collect();
        report.forgotten = standing.forgotten.len() as u64;
        let logs = copy_logs(self.source, self.far, &wanted, self.scope, self.context)?;
        report.wal = logs.copied();
        let reader = self.source.reader()?;
        let mut settled = HashSet::new();
        for point in wanted.iter().rev() {
            self.context.cancel.check()?;
            let there = standing.there.contains(root(point));
            if there && far.lost.is_empty() {
                continue;
            }
            lock.check()?;
            let Some(snapshot) = standing.snapshots.iter().find(|one| one.id.hex() == point.id().as_str()) else {
                // Cannot be, since the points were made of these; a point that is left out must never be silent.
                let fault = Fault::new(codes::RUN_BUG, format!("find the snapshot of point {}", point.id().short()));
                report.failed.push(FailedPoint::new(point.id(), fault, Vec::new()));
                continue;
            };
            match self.take(&reader, &mut far, snapshot, &settled, &mut report) {
                Ok(taken) if there => {
                    if !taken.planned.missing.is_empty() {
                        report.mended.push(point.id().clone());
                    }
                    settled.extend(taken.planned.trees);
                }
                Ok(taken) => {
                    let whole = far.whole(&taken.planned)?;
                    match logs.cover(point) {
                        Ok(covered) => {
                            let copied = self.commit(&whole, &covered, point, taken.bytes, &ledger)?;
                            report.copied.push(copied);
                        }
                        Err(fault) => report.failed.push(FailedPoint::new(point.id(), fault, Vec::new())),
                    }
                    settled.extend(taken.planned.trees);
                }
                Err(Trouble::Point { fault, bad }) => {
                    report.failed.push(failed(point.id(), &fault, &bad, &reader, snapshot));
                }
                Err(Trouble::All(fault)) => return Err(fault),
            }
        }
        far.drop_lost()?;
        lock.check()?;
        match mirror::mirror(self.source, &standing.view, self.far) {
            Ok(mirrored) => report.mirrored = mirrored,
            Err(fault) if fault.class() == Class::Unreachable => return Err(fault),
            Err(fault) => report.not_mirrored = Some(fault.during("tell the copy which points are held and proved")),
        }
        Ok(report)
    }

    fn standing(&self, ledger: &Ledger<'_>) -> Result<Standing> {
        let snapshots = points::snapshots(self.source)?;
        let readable = snapshots.iter().filter_map(|(id, read)| {
            let snapshot = read.as_ref().ok()?.clone();
            Some(NamedSnapshot { id: *id, snapshot })
        });
        let readable = readable.collect();
        let view = if snapshots.is_empty() {
            PointsView::default()
        } else {
            points::view_with(&self.source.reader()?, snapshots)?
        };
        if let Err(fault) = ledger.adopt_recent(self.host, self.context.clock.now()) {
            self.context.monitor.problem(self.scope, &fault);
        }
        let audit = ledger.audit()?;
        for problem in &audit.problems {
            let fault = Fault::new(codes::REPO_LEDGER, "read the ledger of the copy").because(problem.clone());
            self.context.monitor.problem(self.scope, &fault);
        }
        let there = originals(self.far)?;
        let mut forgotten = ledger::forgotten_originals(&audit.entries);
        forgotten.retain(|original| !there.contains(original));
        Ok(Standing { view, snapshots: readable, there, forgotten })
    }

    /// Brings every blob of a snapshot to the far side that is not there.
    fn take(
        &self,
        reader: &Reader,
        far: &mut Far<'_>,
        snapshot: &NamedSnapshot,
        settled: &HashSet<Id>,
        report: &mut CopyReport,
    ) -> Result<Taken, Trouble> {
        let short = &snapshot.id.hex()[..8];
        self.context.monitor.phase(self.scope, &format!("compare point {short}"));
        let planned = plan::plan(&reader.0, far, snapshot.snapshot.tree, settled, &self.context.cancel)?;
        if planned.missing.is_empty() {
            return Ok(Taken { planned, bytes: 0 });
        }
        self.context.monitor.phase(self.scope, &format!("copy point {short}"));
        self.context.monitor.expect(self.scope, Some(planned.missing.len() as u64), None);
        let sent = transfer::transfer(&reader.0, self.far, &planned.missing, self.scope, self.context)?;
        far.look_again()?;
        report.blobs += sent.blobs;
        report.bytes += sent.bytes;
        match sent.first {
            None => Ok(Taken { planned, bytes: sent.bytes }),
            Some(fault) => Err(Trouble::Point { fault, bad: sent.bad }),
        }
    }

    /// Writes the snapshot of a point that is whole at the far side, and reads the point back there.
    fn commit(
        &self,
        whole: &Whole<'_>,
        _covered: &Covered,
        point: &RecoveryPoint,
        bytes: u64,
        ledger: &Ledger<'_>,
    ) -> Result<CopiedPoint> {
        let near = points::bare(self.source, point.id())?.snapshot;
        let original: Id = root(point).as_str().parse().map_err(|bad: crate::format::BadFormat| {
            Fault::new(codes::RUN_BUG, "name the original of a copy").because(bad)
        })?;
        let snapshot = Snapshot { parent: None, tree: *whole.tree(), original: Some(original), ..near };
        let id = put_snapshot(self.far, &snapshot)?;
        let read = points::read_point(&self.far.reader()?, &id, &snapshot)
            .map_err(|fault| fault.during(format!("read point {} back from the copy", &id.hex()[..8])))?;
        if read.manifest() != point.manifest() {
            return Err(Fault::new(codes::COPY_FAR, format!("read point {} back from the copy", &id.hex()[..8]))
                .because("its manifest is another one than that of the original")
                .hint("rekindle verify --copy NAME"));
        }
        let recorded = ledger.append(&Event {
            action: Action::Committed,
            point: read.id().clone(),
            tree: snapshot.tree.hex(),
            time: self.context.clock.now(),
            host: self.host.to_owned(),
            run: Some(self.context.run.as_str().to_owned()),
            original: Some(root(point).clone()),
        });
        // The point stands; a later copy enters it into the ledger.
        if let Err(fault) = recorded {
            self.context.monitor.problem(self.scope, &fault);
        }
        Ok(CopiedPoint {
            point: read.id().clone(),
            original: root(point).clone(),
            time: point.time(),
            blobs: whole.missing() as u64,
            bytes,
        })
    }
}

/// Points of the source whose manifest cannot be read are not copied, and said to be so.
fn unreadable(standing: &Standing, report: &mut CopyReport) {
    for bad in &standing.view.unreadable {
        if standing.there.contains(&bad.id) || standing.forgotten.contains(&bad.id) {
            continue;
        }
        let fault = lost_at_source(&bad.id, bad.fault.chain());
        report.failed.push(FailedPoint::new(&bad.id, fault, Vec::new()));
    }
}

impl FailedPoint {
    fn new(point: &PointId, fault: Fault, paths: Vec<String>) -> Self {
        Self { point: point.clone(), code: fault.code().id.to_owned(), why: fault.chain(), paths, fault }
    }
}

/// The point that all copies of a point name.
pub(crate) fn root(point: &RecoveryPoint) -> &PointId {
    point.original().unwrap_or(point.id())
}

/// The originals of all points of a copy. A snapshot that cannot be read counts as not there.
pub(crate) fn originals(far: &Repo) -> Result<BTreeSet<PointId>> {
    let mut there = BTreeSet::new();
    for (id, read) in points::snapshots(far)? {
        match read {
            Ok(snapshot) if snapshot.has_tag(points::POINT_TAG) => {
                there.insert(points::point_id(snapshot.original.as_ref().unwrap_or(&id))?);
            }
            Err(fault) if fault.class() == Class::Unreachable => return Err(fault),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(there)
}

fn lost_at_source(point: &PointId, why: String) -> Fault {
    Fault::new(codes::COPY_SOURCE, format!("copy point {}", point.short()))
        .because(why)
        .hint("`rekindle verify` shows everything that is damaged; the other points were copied")
}

fn failed(point: &PointId, fault: &Fault, bad: &BadBlobs, reader: &Reader, snapshot: &NamedSnapshot) -> FailedPoint {
    let paths = crate::verify::paths_of(&reader.0, snapshot, bad);
    let why = match paths.first() {
        Some(first) => format!("`{first}`: {}", fault.chain()),
        None => fault.chain(),
    };
    FailedPoint::new(point, lost_at_source(point, why), paths)
}
