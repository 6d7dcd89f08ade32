//! What people and drills said about points, told to the far side: when it is all that is left, it must know
//! which points are held, accepted or had been restored.
//!
//! Not told: that a kit was confirmed (it opens the source, not the copy), and verifications (they read the
//! bytes of the source). A drill of the source goes into a chain of its own, see
//! [`source_proofs`](crate::source_proofs).

use std::collections::{BTreeMap, BTreeSet};

use rekindle_core::mark::{Mark, MarkKind, Origin};
use rekindle_core::proof_record::Work;
use rekindle_core::{Class, PointId, Result};
use serde::Serialize;

use super::root;
use crate::format::Id;
use crate::points::{self, PointsView};
use crate::repo::Repo;
use crate::source_proofs::SourceProof;
use crate::{marks, proofs, source_proofs};

/// What is new at the far side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Mirrored {
    pub marks: u64,
    pub proofs: u64,
}

/// Points by the point that all their copies name.
struct Names {
    /// Of the source.
    roots: BTreeMap<PointId, PointId>,
    /// At the far side.
    there: BTreeMap<PointId, PointId>,
}

/// Tells the far side every mark and drill about points that it holds, each once.
pub(super) fn mirror(source: &Repo, view: &PointsView, far: &Repo) -> Result<Mirrored> {
    let names = Names {
        roots: view.points.iter().map(|point| (point.id().clone(), root(point).clone())).collect(),
        there: there(far)?,
    };
    Ok(Mirrored { marks: mirror_marks(source, far, &names)?, proofs: mirror_proofs(source, far, &names)? })
}

fn there(far: &Repo) -> Result<BTreeMap<PointId, PointId>> {
    let mut there = BTreeMap::new();
    for (id, read) in points::snapshots(far)? {
        match read {
            Ok(snapshot) if snapshot.has_tag(points::POINT_TAG) => {
                let original: &Id = snapshot.original.as_ref().unwrap_or(&id);
                there.insert(points::point_id(original)?, points::point_id(&id)?);
            }
            Err(fault) if fault.class() == Class::Unreachable => return Err(fault),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(there)
}

impl Names {
    /// A point of the source at the far side. One that is gone from the source may still be there.
    fn at_far_side(&self, point: &PointId) -> Option<&PointId> {
        self.there.get(self.root(point))
    }

    fn root<'a>(&'a self, point: &'a PointId) -> &'a PointId {
        self.roots.get(point).unwrap_or(point)
    }
}

fn mirror_marks(source: &Repo, far: &Repo, names: &Names) -> Result<u64> {
    let (here, there) = (source.config().id.clone(), far.config().id.clone());
    // With its time: a chain that was begun anew counts from 1 again.
    let known: BTreeSet<(Origin, jiff::Timestamp)> =
        marks::all(far)?.into_iter().filter_map(|(_, mark)| Some((mark.origin?, mark.time))).collect();
    let mut written = 0;
    for (sequence, mark) in marks::all(source)? {
        if mark.kind == MarkKind::KitConfirm {
            continue;
        }
        // The first repository counts, also in a copy of a copy: else a ring of copies would never end.
        let origin = mark.origin.clone().unwrap_or_else(|| Origin { repository: here.clone(), sequence });
        let Some(point) = mark.point.as_ref().and_then(|point| names.at_far_side(point)) else { continue };
        if origin.repository == there || known.contains(&(origin.clone(), mark.time)) {
            continue;
        }
        marks::add(far, &Mark { point: Some(point.clone()), origin: Some(origin), ..mark })?;
        written += 1;
    }
    Ok(written)
}

fn mirror_proofs(source: &Repo, far: &Repo, names: &Names) -> Result<u64> {
    let there = far.config().id.clone();
    let mut wanted = source_proofs::read_all(source)?;
    if let Some(public_key) = proofs::public_key(source)? {
        for entry in proofs::entries(source)? {
            let Work::Drill(drill) = &entry.record.work else { continue };
            let original = names.root(&drill.point).clone();
            wanted.push(SourceProof::of(source.config().id.clone(), original, public_key.clone(), entry));
        }
    }
    // With the key: a chain that was begun anew counts from 1 again.
    let name = |proof: &SourceProof| (proof.repository.clone(), proof.number, proof.public_key.clone());
    let known: BTreeSet<_> = source_proofs::read_all(far)?.iter().map(name).collect();
    wanted.retain(|proof| {
        proof.repository != there && names.there.contains_key(&proof.original) && !known.contains(&name(proof))
    });
    for proof in &wanted {
        source_proofs::append(far, proof)?;
    }
    Ok(wanted.len() as u64)
}
