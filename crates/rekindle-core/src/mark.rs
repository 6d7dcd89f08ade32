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

/// Where a mark was made that stands in a copy of that repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// Id of the repository.
    pub repository: String,
    /// Its number in the chain of marks there.
    pub sequence: u64,
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
    /// `None`: it was made in this repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Every mark of a repository, as it stands now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks {
    accepted: BTreeMap<PointId, Mark>,
    /// Who holds a point, by the repository where that was said; `None`: in this one.
    held: BTreeMap<PointId, BTreeMap<Option<String>, Mark>>,
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

impl Mark {
    fn repository(&self) -> Option<String> {
        self.origin.as_ref().map(|origin| origin.repository.clone())
    }
}

impl Marks {
    /// From all marks, oldest first: a later one wins. What another repository released may still be held
    /// here; what is released here is held by nobody.
    pub fn of(marks: impl IntoIterator<Item = Mark>) -> Self {
        let mut all = Self::default();
        for mark in marks {
            match (mark.kind, mark.point.clone()) {
                (MarkKind::Accept, Some(point)) => {
                    all.accepted.insert(point, mark);
                }
                (MarkKind::Hold, Some(point)) => {
                    all.held.entry(point).or_default().insert(mark.repository(), mark);
                }
                (MarkKind::Release, Some(point)) => match (mark.repository(), all.held.get_mut(&point)) {
                    (None, _) => drop(all.held.remove(&point)),
                    (elsewhere, Some(held)) => drop(held.remove(&elsewhere)),
                    (_, None) => {}
                },
                // Whose kit opens another repository says nothing about this one.
                (MarkKind::KitConfirm, _) if mark.origin.is_some() => {}
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
        self.held.get(point)?.values().next()
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
            origin: None,
        }
    }

    #[test]
    fn what_is_said_elsewhere_does_not_undo_what_is_said_here() {
        let elsewhere = |kind| {
            let origin = Some(Origin { repository: "r".to_owned(), sequence: 1 });
            Mark { origin, ..mark(kind, Some("a"), &["k1"]) }
        };
        let here = |kind| mark(kind, Some("a"), &[]);
        let is_held = |marks: &[Mark]| Marks::of(marks.to_vec()).held(&"a".repeat(64).parse().unwrap()).is_some();
        let (hold, release) = (MarkKind::Hold, MarkKind::Release);
        assert!(is_held(&[elsewhere(hold)]));
        assert!(!is_held(&[elsewhere(hold), elsewhere(release)]));
        assert!(is_held(&[here(hold), elsewhere(hold), elsewhere(release)]), "held here all the same");
        assert!(!is_held(&[here(hold), elsewhere(hold), here(release)]), "released by hand");
        let kit = Marks::of([elsewhere(MarkKind::KitConfirm)]);
        assert_eq!(kit.kit(&["k1".to_owned()].into()), KitState::Never);
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
