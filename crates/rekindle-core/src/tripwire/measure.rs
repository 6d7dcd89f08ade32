//! What is compared of a capture.

use std::collections::{BTreeMap, BTreeSet};

use crate::figures::{Counted, Unit, figures};
use crate::manifest::ComponentRecord;

/// Figures of one capture.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Measure {
    pub entries: u64,
    pub bytes: u64,
    /// New bytes before compression, and what they took.
    pub added: u64,
    pub stored: u64,
    /// Counted rows, keys and so on.
    pub counts: BTreeMap<Counted, u64>,
    /// What was only estimated.
    pub unsure: BTreeSet<Counted>,
}

/// Fewer new bytes say nothing about how well content compresses.
const TELLING_BYTES: u64 = 64 << 10;

impl Measure {
    pub(super) const UNITS: [Unit; 4] = [Unit::Rows, Unit::Keys, Unit::Samples, Unit::Series];

    /// Of a component in a manifest.
    pub fn of(record: &ComponentRecord) -> Self {
        let mut measure = Self {
            entries: record.tally.entries,
            bytes: record.tally.bytes,
            added: record.added_bytes,
            stored: record.stored_bytes,
            ..Self::default()
        };
        for (counted, figure) in figures(record) {
            if figure.exact {
                measure.counts.insert(counted, figure.value);
            } else {
                measure.unsure.insert(counted);
            }
        }
        measure
    }

    /// Sum of a unit; `None` when there is none or some of it is only estimated.
    pub(super) fn total(&self, unit: Unit) -> Option<u64> {
        let of_unit = |counted: &&Counted| counted.unit == unit;
        if self.unsure.iter().any(|counted| counted.unit == unit) || !self.counts.keys().any(|one| of_unit(&one)) {
            return None;
        }
        Some(self.counts.iter().filter(|(counted, _)| of_unit(counted)).map(|(_, value)| value).sum())
    }

    /// New bytes per hundred bytes.
    pub(super) fn changed_percent(&self) -> Option<f64> {
        (self.bytes > 0).then(|| 100.0 * super::real(self.added) / super::real(self.bytes))
    }

    /// What a hundred new bytes took.
    pub(super) fn stored_percent(&self) -> Option<f64> {
        (self.added >= TELLING_BYTES).then(|| 100.0 * super::real(self.stored) / super::real(self.added))
    }
}
