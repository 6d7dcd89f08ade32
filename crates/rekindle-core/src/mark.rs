//! Marks: what people say about points. They are signed records of the repository.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::PointId;
use crate::point::RecoveryPoint;

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarkKind {
    /// A suspicious point is as it should be.
    Accept,
    /// The point must not be forgotten.
    Hold,
    /// It may be forgotten again.
    Release,
    /// A person holds the recovery kit, away from the hosts it is for.
    KitConfirm,
}

/// One such statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub kind: MarkKind,
    pub time: jiff::Timestamp,
    /// The point it is about, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<PointId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who said it, and on which host.
    pub user: String,
    pub host: String,
    /// Ids of the repository's keys when a kit was confirmed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub keys: BTreeSet<String>,
}

/// Every mark of a repository, as it stands now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks {
    accepted: BTreeMap<PointId, Mark>,
    held: BTreeMap<PointId, Mark>,
    kit: Option<Mark>,
}

/// Whether somebody holds the recovery kit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KitState<'a> {
    /// Nobody ever confirmed it.
    Never,
    /// The keys of the repository are others since then.
    Outdated(&'a Mark),
    Confirmed(&'a Mark),
}

impl Marks {
    /// From all marks, oldest first: a later one wins.
    pub fn of(marks: impl IntoIterator<Item = Mark>) -> Self {
        let mut all = Self::default();
        for mark in marks {
            match (mark.kind, mark.point.clone()) {
                (MarkKind::Accept, Some(point)) => {
                    all.accepted.insert(point, mark);
                }
                (MarkKind::Hold, Some(point)) => {
                    all.held.insert(point, mark);
                }
                (MarkKind::Release, Some(point)) => {
                    all.held.remove(&point);
                }
                (MarkKind::KitConfirm, _) => all.kit = Some(mark),
                // A mark about a point that names none says nothing.
                (MarkKind::Accept | MarkKind::Hold | MarkKind::Release, None) => {}
            }
        }
        all
    }

    /// Who accepted the point, if somebody did.
    pub fn accepted(&self, point: &PointId) -> Option<&Mark> {
        self.accepted.get(point)
    }

    /// Who holds the point, if somebody does.
    pub fn held(&self, point: &PointId) -> Option<&Mark> {
        self.held.get(point)
    }

    /// Whether the tripwire found the point odd and nobody has accepted it.
    pub fn suspicious(&self, point: &RecoveryPoint) -> bool {
        !point.manifest().suspicions.is_empty() && self.accepted(point.id()).is_none()
    }

    /// Whether a person holds a kit that still opens the repository with these keys.
    pub fn kit(&self, keys: &BTreeSet<String>) -> KitState<'_> {
        match &self.kit {
            None => KitState::Never,
            // A key that was added does not make the kit worthless; one that is gone may.
            Some(mark) if mark.keys.is_subset(keys) => KitState::Confirmed(mark),
            Some(mark) => KitState::Outdated(mark),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(kind: MarkKind, point: Option<&str>, keys: &[&str]) -> Mark {
        Mark {
            kind,
            time: jiff::Timestamp::UNIX_EPOCH,
            point: point.map(|digit| digit.repeat(64).parse().unwrap()),
            reason: None,
            user: "u".to_owned(),
            host: "h".to_owned(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        }
    }

    #[test]
    fn a_later_mark_wins() {
        let held = [mark(MarkKind::Hold, Some("a"), &[])];
        let released = [held[0].clone(), mark(MarkKind::Release, Some("a"), &[])];
        let again = [released[0].clone(), released[1].clone(), held[0].clone()];
        let is_held = |marks: &[Mark]| Marks::of(marks.to_vec()).held(&"a".repeat(64).parse().unwrap()).is_some();
        assert_eq!([is_held(&[]), is_held(&held), is_held(&released), is_held(&again)], [false, true, false, true]);
    }

    #[test]
    fn a_kit_is_outdated_when_a_key_is_gone() {
        let keys = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let marks = Marks::of([mark(MarkKind::KitConfirm, None, &["k1"])]);
        assert!(matches!(marks.kit(&keys(&["k1", "k2"])), KitState::Confirmed(_)));
        assert!(matches!(marks.kit(&keys(&["k2"])), KitState::Outdated(_)));
        assert_eq!(Marks::default().kit(&keys(&["k1"])), KitState::Never);
    }
}
