//! Which points to keep: a pure decision with a reason for every point.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde::Serialize;

use crate::id::PointId;
use crate::manifest::Completeness;

/// How many points of each rhythm to keep. All zero and no `within`: keep everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    pub last: u32,
    pub hourly: u32,
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
    /// Keep everything younger than this, counted from the newest point (not from the clock: a
    /// host that was off for a year must not lose its points at the first run).
    pub within_seconds: Option<u64>,
    /// Never go below this many complete points.
    pub min_keep: u32,
}

impl Policy {
    fn keeps_everything(&self) -> bool {
        let Self { last, hourly, daily, weekly, monthly, yearly, within_seconds, min_keep: _ } = *self;
        last + hourly + daily + weekly + monthly + yearly == 0 && within_seconds.is_none()
    }
}

/// What retention has to know about a point.
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub id: PointId,
    pub time: jiff::Timestamp,
    pub state: Completeness,
    /// Whether a drill proved it.
    pub proved: bool,
    /// Whether a drill in the repository that this one is a copy of proved it there.
    pub proved_there: bool,
    /// Whether somebody put a hold on it.
    pub held: bool,
    /// Whether the tripwire found it odd and nobody has accepted it.
    pub suspicious: bool,
}

/// What happens to one point, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    pub point: PointId,
    pub time: jiff::Timestamp,
    pub keep: bool,
    /// Every rule that keeps it; for a removed point, why nothing does.
    pub reasons: Vec<String>,
}

/// Why nothing may be removed at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The newest points are partial: removing older, complete ones now could remove the last
    /// good copy.
    NewestArePartial { partial: usize },
    /// A point is from the future: the clock or the repository is wrong.
    FromTheFuture { point: PointId, time: jiff::Timestamp },
}

/// So many of the newest points must hold at least one complete one.
const NEWEST_LOOKED_AT: usize = 3;
/// Clocks of several hosts may differ by this much.
const CLOCK_TOLERANCE_SECONDS: i64 = 15 * 60;

/// Decides about every point. Points in any order; decisions newest first.
///
/// Only complete points use up a rhythm's places; a partial point is kept while it is newer than
/// the newest complete one or a rule without rhythm (`within`, hold, proof) keeps it. A suspicious
/// point uses up no place either, and while the newest is suspicious everything older stays.
pub fn plan(
    policy: &Policy,
    points: &[Candidate],
    now: jiff::Timestamp,
    zone: &TimeZone,
) -> Result<Vec<Decision>, Refusal> {
    let mut sorted: Vec<&Candidate> = points.iter().collect();
    sorted.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| b.id.cmp(&a.id)));
    let mut reasons: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    if policy.keeps_everything() {
        return Ok(decisions(
            &sorted,
            &(0..sorted.len()).map(|n| (n, vec!["no rule removes anything".into()])).collect(),
        ));
    }
    guard(&sorted, now)?;
    for (index, point) in sorted.iter().enumerate() {
        for reason in fixed_reasons(policy, &sorted, index, point) {
            reasons.entry(index).or_default().push(reason);
        }
    }
    for (name, count, period) in rhythms(policy) {
        let mut left = count;
        let mut seen = None;
        for (ordinal, (index, point)) in complete(&sorted).enumerate() {
            let this = period(&point.time.to_zoned(zone.clone()), ordinal);
            if left > 0 && seen.as_ref() != Some(&this) {
                left -= 1;
                reasons.entry(index).or_default().push(format!("{name} {}", count - left));
                seen = Some(this);
            }
        }
    }
    for (number, (index, _)) in complete(&sorted).take(policy.min_keep as usize).enumerate() {
        reasons.entry(index).or_default().push(format!("min-keep {}", number + 1));
    }
    Ok(decisions(&sorted, &reasons))
}

fn complete<'a>(sorted: &'a [&'a Candidate]) -> impl Iterator<Item = (usize, &'a Candidate)> {
    sorted.iter().copied().enumerate().filter(|(_, point)| point.state == Completeness::Complete && !point.suspicious)
}

fn guard(sorted: &[&Candidate], now: jiff::Timestamp) -> Result<(), Refusal> {
    let newest = &sorted[..sorted.len().min(NEWEST_LOOKED_AT)];
    if let Some(point) = newest.first()
        && point.time.duration_since(now).as_secs() > CLOCK_TOLERANCE_SECONDS
    {
        return Err(Refusal::FromTheFuture { point: point.id.clone(), time: point.time });
    }
    if !newest.is_empty() && newest.iter().all(|point| point.state == Completeness::Partial) {
        return Err(Refusal::NewestArePartial { partial: newest.len() });
    }
    Ok(())
}

/// Reasons that do not depend on how many points share an hour, a day, …
fn fixed_reasons(policy: &Policy, sorted: &[&Candidate], index: usize, point: &Candidate) -> Vec<String> {
    let mut reasons = Vec::new();
    if point.held {
        reasons.push("held".to_owned());
    }
    if point.proved && !sorted[..index].iter().any(|newer| newer.proved) {
        reasons.push("newest proved point".to_owned());
    }
    if point.proved_there && !sorted[..index].iter().any(|newer| newer.proved_there) {
        reasons.push("newest point proved in the repository it is a copy of".to_owned());
    }
    let lesser = point.state == Completeness::Partial || point.suspicious;
    if lesser && complete(sorted).next().is_none_or(|(first, _)| index < first) {
        reasons.push("newer than the newest complete point that is not suspicious".to_owned());
    }
    if sorted.first().is_some_and(|newest| newest.suspicious) {
        reasons.push("the newest point is suspicious and not accepted".to_owned());
    }
    if let (Some(within), Some(newest)) = (policy.within_seconds, sorted.first()) {
        let age = newest.time.duration_since(point.time).as_secs();
        if u64::try_from(age).unwrap_or(0) <= within {
            reasons.push("within".to_owned());
        }
    }
    reasons
}

type Period = fn(&jiff::Zoned, usize) -> (i16, i16);

/// Each rhythm with the number that names its period; equal numbers mean the same period.
fn rhythms(policy: &Policy) -> [(&'static str, u32, Period); 6] {
    fn last(_: &jiff::Zoned, ordinal: usize) -> (i16, i16) {
        // Every point is a period of its own; it is only compared with its neighbour.
        (i16::from(ordinal.is_multiple_of(2)), 0)
    }
    fn hourly(time: &jiff::Zoned, _: usize) -> (i16, i16) {
        (time.year(), time.day_of_year() * 24 + i16::from(time.hour()))
    }
    fn daily(time: &jiff::Zoned, _: usize) -> (i16, i16) {
        (time.year(), time.day_of_year())
    }
    fn weekly(time: &jiff::Zoned, _: usize) -> (i16, i16) {
        let week = time.date().iso_week_date();
        (week.year(), i16::from(week.week()))
    }
    fn monthly(time: &jiff::Zoned, _: usize) -> (i16, i16) {
        (time.year(), i16::from(time.month()))
    }
    fn yearly(time: &jiff::Zoned, _: usize) -> (i16, i16) {
        (time.year(), 0)
    }
    [
        ("last", policy.last, last),
        ("hourly", policy.hourly, hourly),
        ("daily", policy.daily, daily),
        ("weekly", policy.weekly, weekly),
        ("monthly", policy.monthly, monthly),
        ("yearly", policy.yearly, yearly),
    ]
}

fn decisions(sorted: &[&Candidate], reasons: &BTreeMap<usize, Vec<String>>) -> Vec<Decision> {
    sorted
        .iter()
        .enumerate()
        .map(|(index, point)| {
            let kept_by = reasons.get(&index).cloned().unwrap_or_default();
            let keep = !kept_by.is_empty();
            let reasons = if keep { kept_by } else { vec!["no rule keeps it".to_owned()] };
            Decision { point: point.id.clone(), time: point.time, keep, reasons }
        })
        .collect()
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
