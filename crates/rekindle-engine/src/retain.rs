//! Retention as a use case: points in, decisions out, refusals as errors.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use rekindle_core::manifest::Completeness;
use rekindle_core::mark::Marks;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::proof_record::{ProofRecord, Trust, trust};
use rekindle_core::retention::{Candidate, Decision, Policy, Refusal, plan};
use rekindle_core::{ComponentId, Fault, PointId, Result, codes};

/// Every rule that can keep a point.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// For components without one of their own.
    pub usual: Policy,
    /// A point stays when the policy of one of its components keeps it.
    pub of_component: BTreeMap<ComponentId, Policy>,
    /// Points with one of these words stay.
    pub keep_tags: BTreeSet<String>,
}

/// What is known about points besides their manifests.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub marks: &'a Marks,
    pub proofs: &'a [ProofRecord],
    /// Points of a copy that were proved in the repository they come from.
    pub proved_there: &'a BTreeSet<PointId>,
}

impl From<&Policy> for Policies {
    fn from(usual: &Policy) -> Self {
        Self { usual: *usual, ..Self::default() }
    }
}

/// Decides about the points of one stack and host. Points of other stacks in the same repository
/// are not looked at and never removed.
///
/// Points are judged only beside points of the same components: else frequent points of the
/// database alone would use up the places, and the last copy of the files would go. A component with a
/// policy of its own is judged over all points that were to hold it.
pub fn decide(
    policies: impl Into<Policies>,
    points: &[RecoveryPoint],
    known: &Known<'_>,
    stack: &str,
    host: &str,
    now: jiff::Timestamp,
    zone: &TimeZone,
) -> Result<Vec<Decision>> {
    let policies = policies.into();
    let mine: Vec<&RecoveryPoint> =
        points.iter().filter(|point| point.manifest().stack == stack && point.manifest().host == host).collect();
    let mut groups: BTreeMap<BTreeSet<&ComponentId>, Vec<Candidate>> = BTreeMap::new();
    for point in &mine {
        groups.entry(asked_for(point)).or_default().push(candidate(point, known));
    }
    let mut merged: BTreeMap<PointId, Decision> = BTreeMap::new();
    let judge = |policy: &Policy, candidates: &[Candidate]| {
        plan(policy, candidates, now, zone).map_err(|refusal| refused(&refusal))
    };
    for (components, candidates) in &groups {
        if components.is_empty() || components.iter().any(|id| !policies.of_component.contains_key(*id)) {
            merge(&mut merged, judge(&policies.usual, candidates)?, None);
        }
    }
    for (component, policy) in &policies.of_component {
        let held = groups.iter().filter(|(components, _)| components.contains(component));
        let candidates: Vec<Candidate> = held.flat_map(|(_, candidates)| candidates.iter().cloned()).collect();
        merge(&mut merged, judge(policy, &candidates)?, Some(component));
    }
    for point in &mine {
        let tags = point.manifest().tags.iter().filter(|tag| policies.keep_tags.contains(*tag));
        if let Some(decision) = merged.get_mut(point.id()) {
            tags.for_each(|tag| keep(decision, vec![format!("tag {tag}")]));
        }
    }
    let mut decisions: Vec<Decision> = merged.into_values().collect();
    decisions.sort_by(|a, b| (b.time, &b.point).cmp(&(a.time, &a.point)));
    Ok(decisions)
}

/// What one policy decided joins what others did: one that keeps is enough.
fn merge(merged: &mut BTreeMap<PointId, Decision>, decisions: Vec<Decision>, of: Option<&ComponentId>) {
    for mut decision in decisions {
        if let (true, Some(component)) = (decision.keep, of) {
            decision.reasons.iter_mut().for_each(|reason| *reason = format!("{component}: {reason}"));
        }
        match merged.get_mut(&decision.point) {
            None => {
                merged.insert(decision.point.clone(), decision);
            }
            Some(known) if decision.keep => keep(known, decision.reasons),
            Some(_) => {}
        }
    }
}

fn keep(decision: &mut Decision, reasons: Vec<String>) {
    if !decision.keep {
        decision.keep = true;
        decision.reasons.clear();
    }
    decision.reasons.extend(reasons);
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

fn candidate(point: &RecoveryPoint, known: &Known<'_>) -> Candidate {
    let marks = known.marks;
    Candidate {
        id: point.id().clone(),
        time: point.time(),
        state: point.state(),
        proved: trust(point, known.proofs) == Trust::Proved,
        proved_there: known.proved_there.contains(point.id()),
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
