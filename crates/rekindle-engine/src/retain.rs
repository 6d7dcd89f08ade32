//! Retention as a use case: points in, decisions out, refusals as errors.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use rekindle_core::manifest::Completeness;
use rekindle_core::mark::Marks;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::proof_record::{ProofRecord, Trust, trust};
use rekindle_core::retention::{Candidate, Decision, Policy, Refusal, plan};
use rekindle_core::{ComponentId, Fault, PointId, Result, codes};

/// Decides about the points of one stack and host. Points of other stacks in the same repository
/// are not looked at and never removed.
///
/// Points are judged only beside points of the same components: else frequent points of the
/// database alone would use up the places, and the last copy of the files would go.
pub fn decide(
    policy: &Policy,
    points: &[RecoveryPoint],
    (marks, proofs): (&Marks, &[ProofRecord]),
    stack: &str,
    host: &str,
    now: jiff::Timestamp,
    zone: &TimeZone,
) -> Result<Vec<Decision>> {
    let mine = points.iter().filter(|point| point.manifest().stack == stack && point.manifest().host == host);
    let mut groups: BTreeMap<BTreeSet<&ComponentId>, Vec<Candidate>> = BTreeMap::new();
    for point in mine {
        groups.entry(asked_for(point)).or_default().push(candidate(point, marks, proofs));
    }
    let mut decisions = Vec::new();
    for candidates in groups.values() {
        decisions.extend(plan(policy, candidates, now, zone).map_err(|refusal| refused(&refusal))?);
    }
    decisions.sort_by(|a, b| (b.time, &b.point).cmp(&(a.time, &a.point)));
    Ok(decisions)
}

/// What the run of a point was asked to save, missing components included.
fn asked_for(point: &RecoveryPoint) -> BTreeSet<&ComponentId> {
    let manifest = point.manifest();
    let captured = manifest.components.iter().map(|record| &record.id);
    captured.chain(manifest.missing.iter().map(|record| &record.id)).collect()
}

/// Checks an explicit wish to remove points: held ones are not removed, and of each component a
/// complete point stays that is not suspicious.
pub fn guard_explicit(points: &[RecoveryPoint], marks: &Marks, wanted: &[PointId]) -> Result<()> {
    for id in wanted {
        let Some(point) = points.iter().find(|point| point.id() == id) else {
            return Err(Fault::new(codes::REPO_NO_POINT, format!("find the point {}", id.short()))
                .hint("`rekindle list` shows the points"));
        };
        if let Some(mark) = marks.held(id) {
            let why = mark.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            return Err(Fault::new(codes::ENGINE_KEEP, format!("forget {}: {} holds it{why}", id.short(), mark.user))
                .hint(format!("rekindle point hold {} --release", id.short())));
        }
        let (stack, host) = (&point.manifest().stack, &point.manifest().host);
        let stays = |component: &ComponentId| {
            points.iter().any(|other| {
                other.state() == Completeness::Complete
                    && !marks.suspicious(other)
                    && !wanted.contains(other.id())
                    && (&other.manifest().stack, &other.manifest().host) == (stack, host)
                    && other.manifest().component(component).is_some()
            })
        };
        if point.state() == Completeness::Partial {
            continue;
        }
        if let Some(lost) = point.manifest().components.iter().find(|record| !stays(&record.id)) {
            let what =
                format!("forget {}: it would leave `{}` of `{stack}` without a complete point", id.short(), lost.id);
            return Err(Fault::new(codes::ENGINE_KEEP, what)
                .hint("take a complete point first, or delete the repository itself if the stack is gone"));
        }
    }
    Ok(())
}

fn candidate(point: &RecoveryPoint, marks: &Marks, proofs: &[ProofRecord]) -> Candidate {
    Candidate {
        id: point.id().clone(),
        time: point.time(),
        state: point.state(),
        proved: trust(point, proofs) == Trust::Proved,
        held: marks.held(point.id()).is_some(),
        suspicious: marks.suspicious(point),
    }
}

fn refused(refusal: &Refusal) -> Fault {
    match refusal {
        Refusal::NewestArePartial { partial } => {
            Fault::new(codes::ENGINE_KEEP, format!("apply the retention: the newest {partial} points are partial"))
                .hint("mend the component that is missing (`rekindle show latest`), then run it again")
        }
        Refusal::FromTheFuture { point, time } => {
            Fault::new(codes::ENGINE_KEEP, format!("apply the retention: point {} is from {time}", point.short()))
                .hint("check this host's clock; nothing is removed while time is in doubt")
        }
    }
}
