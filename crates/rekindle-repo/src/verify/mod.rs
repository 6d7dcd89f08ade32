//! Verifying a repository: every object against its name, every tree, every tally, the ledger,
//! and by choice the data itself. Goes on past everything it finds, and says which points and
//! paths are affected.

mod affected;
mod data;
pub(crate) mod objects;
mod report;
mod subset;
mod trees;

use std::collections::HashSet;

use rekindle_core::point::RecoveryPoint;
use rekindle_core::{Cancel, Fault, Result, codes};

use crate::audit;
use crate::format::Id;
use crate::format::pack::BlobKind;
use crate::ledger::{self, Ledger};
use crate::marks;
use crate::points::{self, PointsView};
use crate::proofs;
use crate::repo::Repo;
use crate::source_proofs;
use crate::trust;

pub(crate) use affected::paths_of;
pub use report::{AffectedPoint, Damage, VerifyReport};
pub use subset::Subset;

/// What to verify beyond the metadata.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct VerifyOptions {
    /// Read packs back, decrypt them and compare every blob with its id. Without it packs are
    /// only looked for and their sizes compared; blobs of trees are read in any case.
    pub read_data: Option<Subset>,
}

/// A blob that is missing or damaged.
pub(crate) type BadBlobs = HashSet<(BlobKind, Id)>;

/// Verifies the repository. `Err` only when it cannot be looked at (storage unreachable, LIST
/// failed), or when `cancel` is raised; everything that is wrong is in the report.
pub fn verify(repo: &Repo, options: &VerifyOptions, cancel: &Cancel) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    objects::keys(repo, &mut report)?;
    cancel.check()?;
    let catalogue = objects::indexes(repo, cancel, &mut report)?;
    let packs = objects::packs(repo, &catalogue, &mut report)?;
    let snapshots = points::snapshots(repo)?;
    report.objects += snapshots.len() as u64;
    for (id, read) in &snapshots {
        match read {
            Ok(_) => report.snapshots += 1,
            Err(fault) => {
                refuse_unreachable(fault)?;
                report.damage(format!("snapshots/{id}"), fault);
            }
        }
    }
    let reader = repo.reader()?;
    let mut bad = BadBlobs::new();
    bad.extend(packs.lost_blobs.iter().copied());
    let roots: Vec<Id> = snapshots.iter().filter_map(|(_, s)| s.as_ref().ok().map(|s| s.tree)).collect();
    let forest = trees::read(&reader.0, &roots, cancel, &mut bad, &mut report)?;
    if let Some(subset) = options.read_data {
        data::read(repo, &reader.0, subset, &packs, cancel, &mut bad, &mut report)?;
    }
    let readable: Vec<_> = snapshots.iter().filter_map(|(id, s)| Some((*id, s.as_ref().ok()?.clone()))).collect();
    let view = points::view_with(&reader, snapshots)?;
    manifests(&view, &forest, &mut report);
    if check_ledger(repo, &view, &mut report)? {
        proofs::verify(repo, &view, &mut report)?;
        source_proofs::verify(repo, &view, &mut report)?;
        marks::verify(repo, &view, &mut report)?;
        audit::verify(repo, &view, &mut report)?;
    }
    check_wal(repo, options, cancel, &mut report)?;
    affected::name(&reader.0, &readable, &bad, &mut report);
    report.finish();
    Ok(report)
}

/// A storage that does not answer is not damage: verification ends instead of crying wolf.
pub(crate) fn refuse_unreachable(fault: &Fault) -> Result<()> {
    if fault.class() == rekindle_core::Class::Unreachable {
        return Err(Fault::new(fault.code(), "verify the repository").because(fault.chain()));
    }
    Ok(())
}

/// Every manifest against the trees of its point.
fn manifests(view: &PointsView, forest: &trees::Forest, report: &mut VerifyReport) {
    report.points = (view.points.len() + view.unreadable.len()) as u64;
    for bad in &view.unreadable {
        report.point_damage(&bad.id, "", &bad.fault.chain(), bad.fault.code());
    }
    for point in &view.points {
        for record in &point.manifest().components {
            let sums = record.tree.parse::<Id>().ok().and_then(|tree| forest.sums(&tree));
            let why = match sums {
                None => "its tree is not whole".to_owned(),
                Some((entries, bytes)) if (entries, bytes) == (record.tally.entries, record.tally.bytes) => continue,
                Some((entries, bytes)) => format!(
                    "the manifest counts {} entries with {} bytes, the trees hold {entries} with {bytes}",
                    record.tally.entries, record.tally.bytes
                ),
            };
            report.point_damage(point.id(), record.id.as_str(), &why, codes::REPO_MANIFEST);
        }
    }
}

/// Everything below `rekindle/wal/`.
fn check_wal(repo: &Repo, options: &VerifyOptions, cancel: &Cancel, report: &mut VerifyReport) -> Result<()> {
    let checked = crate::wal::check(repo, options.read_data, cancel)?;
    report.objects += checked.objects;
    report.wal_segments = checked.segments;
    report.wal_segments_read = checked.segments_read;
    report.bytes_read += checked.bytes_read;
    for (object, fault) in checked.damage {
        report.damage(object, &fault);
    }
    Ok(())
}

/// The points against the ledger, and the heads the points have seen against its records. False when its
/// key cannot be had, so that nothing else that it signed can be checked.
fn check_ledger(repo: &Repo, view: &PointsView, report: &mut VerifyReport) -> Result<bool> {
    let ledger = match Ledger::open(repo) {
        Ok(ledger) => ledger,
        Err(fault) => {
            refuse_unreachable(&fault)?;
            report.damage("rekindle/signing-key".to_owned(), &fault);
            return Ok(false);
        }
    };
    let Some(ledger) = ledger else {
        // A point that knows a signing key was written with a ledger: it has been taken away.
        if trust::knows_a_key(view) {
            let fault = Fault::new(codes::REPO_LEDGER, "find the ledger")
                .because("points were written with one, and its signing key is not there");
            report.damage("rekindle/signing-key".to_owned(), &fault);
        }
        return Ok(false);
    };
    let audit = ledger.audit()?;
    report.ledger_records = audit.entries.len() as u64;
    for problem in audit.problems {
        let fault = Fault::new(codes::REPO_LEDGER, "read the ledger").because(problem);
        report.damage("rekindle/ledger".to_owned(), &fault);
    }
    let key = ledger.public_key();
    if trust::replaced(view, &key, || audit::read(repo))? {
        let fault = Fault::new(codes::REPO_LEDGER, "trust the records").because(trust::REPLACED);
        report.damage("rekindle/signing-key".to_owned(), &fault);
    }
    for point in &view.points {
        let manifest = point.manifest();
        // A point copied from elsewhere has seen the ledger of that repository.
        if manifest.signing_key.as_ref() != Some(&key) {
            continue;
        }
        let contradiction = manifest.ledger_head.as_ref().and_then(|head| ledger::contradiction(&audit.entries, head));
        if let Some(why) = contradiction {
            let fault = Fault::new(codes::REPO_LEDGER, format!("compare point {} with the ledger", point.id().short()))
                .because(why);
            report.damage("rekindle/ledger".to_owned(), &fault);
        }
    }
    let present: HashSet<_> =
        view.points.iter().map(RecoveryPoint::id).chain(view.unreadable.iter().map(|u| &u.id)).collect();
    for id in ledger::live(&audit.entries).keys() {
        if !present.contains(id) {
            report.point_damage(id, "", "its snapshot is not in the repository", codes::REPO_LEDGER);
        }
    }
    let recorded: HashSet<_> = audit.entries.iter().map(|e| &e.record.point).collect();
    report.unrecorded =
        view.points.iter().map(RecoveryPoint::id).filter(|id| !recorded.contains(id)).cloned().collect();
    Ok(true)
}
