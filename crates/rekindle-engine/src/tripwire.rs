//! The tripwire of a run: what was just captured against the points before it.

use std::collections::BTreeMap;

use rekindle_core::ComponentId;
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::mark::Marks;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::tripwire::{Measure, Suspicion, Thresholds, judge};

/// How the captures of a run are judged. Without it nothing is.
#[derive(Debug, Clone, Default)]
pub struct Tripwire {
    /// For components that are not named below.
    pub usual: Thresholds,
    pub components: BTreeMap<ComponentId, Thresholds>,
    /// Who accepted what: an accepted change is the new normal.
    pub marks: Marks,
}

impl Tripwire {
    fn thresholds(&self, component: &ComponentId) -> &Thresholds {
        self.components.get(component).unwrap_or(&self.usual)
    }

    /// What is odd about these captures. `points` in any stack and host, oldest first.
    pub fn judge(
        &self,
        records: &[ComponentRecord],
        points: &[RecoveryPoint],
        stack: &str,
        host: &str,
    ) -> Vec<Suspicion> {
        let mine: Vec<&RecoveryPoint> =
            points.iter().filter(|point| point.manifest().stack == stack && point.manifest().host == host).collect();
        let judged = records.iter().filter(|record| !record.notes.make_partial()).flat_map(|record| {
            let thresholds = self.thresholds(&record.id);
            let history = self.history(record, &mine, thresholds.history);
            judge(thresholds, &record.id, &Measure::of(record), &history)
        });
        judged.collect()
    }

    /// The newest comparable captures, newest first: whole, taken the same way, and not suspicious
    /// themselves. Those before an accepted change tell nothing any more.
    fn history(&self, now: &ComponentRecord, points: &[&RecoveryPoint], longest: usize) -> Vec<Measure> {
        let mut history = Vec::new();
        for point in points.iter().rev() {
            if history.len() == longest {
                break;
            }
            let Some(record) = point.manifest().component(&now.id).filter(|record| comparable(record, now)) else {
                continue;
            };
            let odd = point.manifest().suspicions.iter().any(|one| one.component == now.id);
            if odd && self.marks.suspicious(point) {
                continue;
            }
            history.push(Measure::of(record));
            if odd {
                break;
            }
        }
        history
    }
}

fn comparable(record: &ComponentRecord, now: &ComponentRecord) -> bool {
    let method = |record: &ComponentRecord| record.details.get("method").cloned();
    record.kind == now.kind && !record.notes.make_partial() && method(record) == method(now)
}
