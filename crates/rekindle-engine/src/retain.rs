//! Retention as a use case: points in, decisions out, refusals as errors.

use jiff::tz::TimeZone;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::retention::{Candidate, Decision, Policy, Refusal, plan};
use rekindle_core::{Fault, PointId, Result, codes};

/// Decides about the points of one stack and host. Points of other stacks in the same repository
/// are not looked at and never removed.
pub fn decide(
    policy: &Policy,
    points: &[RecoveryPoint],
    stack: &str,
    host: &str,
    now: jiff::Timestamp,
    zone: &TimeZone,
) -> Result<Vec<Decision>> {
    let mine = points.iter().filter(|point| point.manifest().stack == stack && point.manifest().host == host);
    let candidates: Vec<Candidate> = mine.map(candidate).collect();
    plan(policy, &candidates, now, zone).map_err(|refusal| refused(&refusal))
}

/// Checks an explicit wish to remove points: the newest complete one of each stack stays.
pub fn guard_explicit(points: &[RecoveryPoint], wanted: &[PointId]) -> Result<()> {
    for id in wanted {
        let Some(point) = points.iter().find(|point| point.id() == id) else {
            return Err(Fault::new(codes::REPO_NO_POINT, format!("find the point {}", id.short()))
                .hint("`rekindle list` shows the points"));
        };
        let same_stack = points.iter().filter(|other| other.manifest().stack == point.manifest().stack);
        let complete = same_stack.filter(|p| p.state() == rekindle_core::manifest::Completeness::Complete);
        let was_some = complete.clone().next().is_some();
        if was_some && complete.clone().all(|p| wanted.contains(p.id())) {
            let what =
                format!("forget {}: it would leave `{}` without a complete point", id.short(), point.manifest().stack);
            return Err(Fault::new(codes::ENGINE_KEEP, what)
                .hint("take a complete point first, or delete the repository itself if the stack is gone"));
        }
    }
    Ok(())
}

fn candidate(point: &RecoveryPoint) -> Candidate {
    Candidate { id: point.id().clone(), time: point.time(), state: point.state(), proved: false, held: false }
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
