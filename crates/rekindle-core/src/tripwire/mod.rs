//! The tripwire: whether a capture is sharply different from the ones before it.
//!
//! A pure function over figures. Sizes and counts are compared with what the last comparable
//! captures know as low and as high, so that a cache which is small every weekend does not alarm;
//! shares with their median and their spread. 1.4826 times the median absolute deviation is the
//! standard deviation of a normal distribution, and a single odd capture moves neither. So a
//! component that always changes a lot does not alarm, and one that never does alarms early.

mod measure;

pub use measure::Measure;

use serde::{Deserialize, Serialize};

use crate::id::ComponentId;

/// When a change is sharp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    pub enabled: bool,
    /// So many of the newest comparable captures are the history.
    pub history: usize,
    /// With fewer than this only what is gone altogether alarms.
    pub history_min: usize,
    /// A figure that falls by more than this share of its median.
    pub drop_percent: u64,
    /// A figure that grows to more than this share of its median.
    pub growth_percent: u64,
    /// New bytes as a share of all bytes.
    pub change_percent: u64,
    /// What new bytes take after compression, as a share: encrypted bytes take about 100.
    pub incompressible_percent: u64,
    /// How far a share must be from its median, in spreads.
    pub deviations: u64,
    /// Rows, keys and entries below this are not judged.
    pub count_min: u64,
    /// Bytes below this are not judged.
    pub bytes_min: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            enabled: true,
            history: 14,
            history_min: 3,
            drop_percent: 50,
            growth_percent: 300,
            change_percent: 60,
            incompressible_percent: 85,
            deviations: 6,
            count_min: 20,
            bytes_min: 1 << 20,
        }
    }
}

/// Why a point is suspicious.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicion {
    pub component: ComponentId,
    /// `rows`, `keys`, `entries`, `bytes`, `changed`, `incompressible`, …
    pub measure: String,
    /// What is usual: the median of the history. Shares are in percent.
    pub usual: u64,
    pub found: u64,
    /// For reading, with the name of the table or database where one matters.
    pub text: String,
}

/// 1.4826 times the median absolute deviation estimates the standard deviation.
const NORMAL: f64 = 1.4826;
/// The smallest spread of a share that is believed, in percent: shares that never moved would else
/// make the first small step an alarm.
const SHARE_FLOOR: f64 = 5.0;
/// One of so many captures of the history may be odd at either end without moving what is low or
/// high; among fewer, none may.
const ASIDE: usize = 10;

/// Judges one capture against the ones before it, in any order. No history: nothing is odd.
pub fn judge(thresholds: &Thresholds, component: &ComponentId, now: &Measure, history: &[Measure]) -> Vec<Suspicion> {
    if !thresholds.enabled || history.is_empty() {
        return Vec::new();
    }
    let judge = Judge { thresholds, component, history };
    let mut found = judge.gone(now);
    if history.len() >= thresholds.history_min {
        let sizes = judge.sizes(now);
        // What is gone altogether is told once, with its name.
        let untold: Vec<_> =
            sizes.into_iter().filter(|one| found.iter().all(|told| told.measure != one.measure)).collect();
        found.extend(untold);
        found.extend(judge.content(now));
    }
    found
}

struct Judge<'a> {
    thresholds: &'a Thresholds,
    component: &'a ComponentId,
    history: &'a [Measure],
}

/// Median and spread of some figures.
#[derive(Debug, Clone, Copy)]
struct Usual {
    median: f64,
    spread: f64,
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.len() % 2, values.get(half)) {
        (_, None) => None,
        (1, Some(middle)) => Some(*middle),
        (_, Some(upper)) => Some(f64::midpoint(values[half - 1], *upper)),
    }
}

fn usual(mut values: Vec<f64>, floor: f64) -> Option<Usual> {
    let median_of = median(&mut values)?;
    let mut distances: Vec<f64> = values.iter().map(|value| (value - median_of).abs()).collect();
    let spread = (NORMAL * median(&mut distances)?).max(floor);
    Some(Usual { median: median_of, spread })
}

#[expect(clippy::cast_precision_loss, reason = "figures are compared in percents")]
fn real(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded for reading, never negative")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

impl Judge<'_> {
    fn suspicion(&self, measure: &str, usual: f64, found: f64, text: String) -> Suspicion {
        Suspicion {
            component: self.component.clone(),
            measure: measure.to_owned(),
            usual: whole(usual),
            found: whole(found),
            text,
        }
    }

    /// Tables, databases, entries that held something and hold nothing now, or are not there.
    fn gone(&self, now: &Measure) -> Vec<Suspicion> {
        let mut found = Vec::new();
        let least = real(self.thresholds.count_min);
        let mut names: Vec<_> = self.history.iter().flat_map(|one| one.counts.keys()).collect();
        names.sort();
        names.dedup();
        for counted in names {
            // One that is not there counts as empty; one that is only estimated is not judged.
            if now.unsure.contains(counted) || now.counts.get(counted).copied().unwrap_or(0) > 0 {
                continue;
            }
            let before = self.history.iter().map(|one| real(one.counts.get(counted).copied().unwrap_or(0)));
            let Some(usual) = usual(before.collect(), 0.0) else { continue };
            if usual.median >= least {
                let unit = counted.unit.as_str();
                let name = if counted.name.is_empty() { self.component.as_str() } else { &counted.name };
                let text = format!("{name} has no {unit}; usual are {}", whole(usual.median));
                found.push(self.suspicion(unit, usual.median, 0.0, text));
            }
        }
        found.extend(self.emptied(now, least));
        found
    }

    /// No content is left of many entries. The directories above a file tree stay in any case.
    fn emptied(&self, now: &Measure, least: f64) -> Option<Suspicion> {
        let entries = usual(self.history.iter().map(|one| real(one.entries)).collect(), 0.0)?.median;
        let bytes = usual(self.history.iter().map(|one| real(one.bytes)).collect(), 0.0)?.median;
        if now.bytes > 0 || bytes < 1.0 || entries < least || real(now.entries) * 2.0 > entries {
            return None;
        }
        let text = format!("nothing is left of usually {} entries with {} bytes", whole(entries), whole(bytes));
        Some(self.suspicion("entries", entries, real(now.entries), text))
    }

    /// Totals that fall or grow sharply.
    fn sizes(&self, now: &Measure) -> Vec<Suspicion> {
        let (counts, bytes) = (self.thresholds.count_min, self.thresholds.bytes_min);
        let mut found = Vec::new();
        let mut judge = |measure: &str, least: u64, now: Option<u64>, of: &dyn Fn(&Measure) -> Option<u64>| {
            let before: Option<Vec<f64>> = self.history.iter().map(|one| of(one).map(real)).collect();
            let (Some(now), Some(before)) = (now.map(real), before) else { return };
            found.extend(self.size(measure, real(least), now, before));
        };
        judge("entries", counts, Some(now.entries), &|one| Some(one.entries));
        judge("bytes", bytes, Some(now.bytes), &|one| Some(one.bytes));
        for unit in Measure::UNITS {
            judge(unit.as_str(), counts, now.total(unit), &|one| one.total(unit));
        }
        found
    }

    /// Beyond the percentage of what the history knows as low or high.
    fn size(&self, measure: &str, least: f64, now: f64, mut before: Vec<f64>) -> Option<Suspicion> {
        before.sort_by(f64::total_cmp);
        let usual = median(&mut before)?;
        if usual < least {
            // What begins from nearly nothing may grow to any size.
            return None;
        }
        let aside = before.len() / ASIDE;
        let (low, high) = (*before.get(aside)?, *before.get(before.len() - 1 - aside)?);
        let drop = real(self.thresholds.drop_percent.min(100));
        let growth = real(self.thresholds.growth_percent);
        let word = match () {
            () if now < low * (100.0 - drop) / 100.0 => "fell",
            () if now > high * growth / 100.0 => "grew",
            () => return None,
        };
        let text = format!("{measure} {word} from usually {} to {}", whole(usual), whole(now));
        Some(self.suspicion(measure, usual, now, text))
    }

    /// Most of the content is new, or what is new does not compress as it used to.
    fn content(&self, now: &Measure) -> Vec<Suspicion> {
        let mut found = Vec::new();
        if now.bytes < self.thresholds.bytes_min || now.added < self.thresholds.bytes_min {
            return found;
        }
        let changed = usual(self.history.iter().filter_map(Measure::changed_percent).collect(), SHARE_FLOOR);
        let share = now.changed_percent().unwrap_or(0.0);
        let odd = |usual: &Usual, share: f64| share - usual.median > real(self.thresholds.deviations) * usual.spread;
        let much = changed.filter(|usual| odd(usual, share));
        if let Some(usual) = much.filter(|_| share > real(self.thresholds.change_percent)) {
            let text = format!("{} % of its bytes are new; usual are {} %", whole(share), whole(usual.median));
            found.push(self.suspicion("changed", usual.median, share, text));
        }
        // Alone, some photos among texts are no alarm: it takes unusually much new as well.
        let dense = usual(self.history.iter().filter_map(Measure::stored_percent).collect(), SHARE_FLOOR);
        let share = now.stored_percent().unwrap_or(0.0);
        let limit = real(self.thresholds.incompressible_percent);
        let rises = |usual: &Usual| share > limit && usual.median < limit && share - usual.median > 2.0 * usual.spread;
        if let Some(usual) = dense.filter(rises).filter(|_| much.is_some()) {
            let text = format!(
                "new bytes do not compress, as encrypted ones do: to {} %; usual are {} %",
                whole(share),
                whole(usual.median)
            );
            found.push(self.suspicion("incompressible", usual.median, share, text));
        }
        found
    }
}

#[cfg(test)]
mod tests;
