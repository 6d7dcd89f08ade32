//! Base backups of PostgreSQL in commands about whole points: how far their log is replayed.

use std::sync::Arc;

use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::{Recovery, RunContext};
use rekindle_core::timeline::{RecoveryTarget, Stop, TimelineChoice};
use rekindle_core::{ComponentId, Result, codes};
use rekindle_engine::pitr::Recoverable;
use rekindle_repo::Repo;
use rekindle_repo::wal::Archive;

use crate::session::SystemClock;

/// How far a base backup is brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// The end of the log, or of the base backup where the repository holds no log of its cluster.
    Newest,
    /// Exactly this moment.
    Moment(jiff::Timestamp),
    /// Its own end.
    Itself,
}

/// The way from the base backups of a component in these points, or the exact reason why there is none. Blocking: it
/// reads the end of the log.
pub(crate) fn way(
    repository: &Repo,
    points: &[&RecoveryPoint],
    component: &ComponentId,
    until: Until,
    context: &RunContext,
) -> Result<Recovery> {
    let archive = Archive::new(repository, Arc::new(SystemClock));
    let points: Vec<RecoveryPoint> = points.iter().map(|point| (*point).clone()).collect();
    let world = Recoverable::gather(&points, component, &archive)?;
    let target = match until {
        Until::Newest => world.newest(),
        Until::Moment(at) => RecoveryTarget::new(Stop::Time(at)),
        Until::Itself => RecoveryTarget::new(Stop::Immediate),
    };
    match world.resolve(&target, context) {
        // The cluster went on elsewhere: the newest that this base backup leads to is on its own line.
        Err(fault) if until == Until::Newest && points.len() == 1 && fault.is(codes::PITR_TIMELINE) => {
            world.resolve(&RecoveryTarget { timeline: TimelineChoice::Current, ..target }, context)
        }
        found => found,
    }
}
