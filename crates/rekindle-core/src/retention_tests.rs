//! Retention: examples, and what has to hold whatever the history.

use super::*;
use proptest::prelude::*;

const HOUR: i64 = 3600;

fn point(number: u64, second: i64, state: Completeness) -> Candidate {
    let id = format!("{number:064x}").parse().unwrap();
    let time = jiff::Timestamp::from_second(second).unwrap();
    Candidate { id, time, state, proved: false, proved_there: false, held: false, suspicious: false }
}

fn hourly_points(count: i64) -> Vec<Candidate> {
    (0..count).map(|n| point(n.unsigned_abs(), n * HOUR, Completeness::Complete)).collect()
}

fn kept(policy: &Policy, points: &[Candidate]) -> Vec<i64> {
    let now = jiff::Timestamp::from_second(1_000_000_000).unwrap();
    let plan = plan(policy, points, now, &TimeZone::UTC).unwrap();
    plan.iter().filter(|decision| decision.keep).map(|decision| decision.time.as_second() / HOUR).collect()
}

#[test]
fn no_rule_keeps_everything() {
    assert_eq!(kept(&Policy { min_keep: 3, ..Policy::default() }, &hourly_points(50)).len(), 50);
}

#[test]
fn rhythms_keep_the_newest_of_each_period() {
    let points = hourly_points(72);
    assert_eq!(kept(&Policy { last: 2, ..Policy::default() }, &points), [71, 70]);
    assert_eq!(kept(&Policy { daily: 2, ..Policy::default() }, &points), [71, 47]);
    assert_eq!(kept(&Policy { hourly: 2, daily: 3, ..Policy::default() }, &points), [71, 70, 47, 23]);
    assert_eq!(kept(&Policy { yearly: 9, ..Policy::default() }, &points), [71]);
}

/// A point of each noon from the first day on, the oldest first.
fn noons(first: &str, days: i64) -> Vec<Candidate> {
    let start = format!("{first}T12:00:00Z").parse::<jiff::Timestamp>().unwrap().as_second();
    (0..days).map(|day| point(day.unsigned_abs(), start + day * 24 * HOUR, Completeness::Complete)).collect()
}

fn kept_days(policy: &Policy, points: &[Candidate]) -> Vec<String> {
    let now = points.iter().map(|point| point.time).max().unwrap();
    let plan = plan(policy, points, now, &TimeZone::UTC).unwrap();
    plan.iter().filter(|one| one.keep).map(|one| one.time.strftime("%F").to_string()).collect()
}

#[test]
fn weeks_months_and_years_keep_their_newest_days() {
    // 2024-12-25 is a Wednesday; its week, and that of New Year's Day, is the first of 2025 from Monday, 30 December on.
    let points = noons("2022-11-01", 786);
    let of = |policy: Policy| kept_days(&policy, &points);
    assert_eq!(of(Policy { last: 1, ..Policy::default() }), ["2024-12-25"]);
    assert_eq!(
        of(Policy { weekly: 4, ..Policy::default() }),
        ["2024-12-25", "2024-12-22", "2024-12-15", "2024-12-08"],
        "Sundays end weeks"
    );
    assert_eq!(
        of(Policy { monthly: 4, ..Policy::default() }),
        ["2024-12-25", "2024-11-30", "2024-10-31", "2024-09-30"]
    );
    assert_eq!(of(Policy { yearly: 5, ..Policy::default() }), ["2024-12-25", "2023-12-31", "2022-12-31"]);
    assert_eq!(
        of(Policy { within_seconds: Some(3 * 86_400), ..Policy::default() }),
        ["2024-12-25", "2024-12-24", "2024-12-23", "2024-12-22"],
        "from the newest point on, to the second"
    );
    let turn = noons("2024-12-27", 10);
    assert_eq!(
        kept_days(&Policy { weekly: 2, ..Policy::default() }, &turn),
        ["2025-01-05", "2024-12-29"],
        "a week that two years share is one"
    );
}

#[test]
fn failing_runs_stop_retention() {
    let mut points = hourly_points(10);
    for point in &mut points[7..] {
        point.state = Completeness::Partial;
    }
    let policy = Policy { last: 1, ..Policy::default() };
    let now = jiff::Timestamp::from_second(10 * HOUR).unwrap();
    assert_eq!(plan(&policy, &points, now, &TimeZone::UTC), Err(Refusal::NewestArePartial { partial: 3 }));
}

#[test]
fn a_clock_that_went_back_stops_retention() {
    let points = hourly_points(10);
    let now = jiff::Timestamp::from_second(2 * HOUR).unwrap();
    let refused = plan(&Policy { last: 1, ..Policy::default() }, &points, now, &TimeZone::UTC);
    assert!(matches!(refused, Err(Refusal::FromTheFuture { .. })));
}

#[test]
fn a_suspicious_newest_point_holds_retention_back_until_it_is_accepted() {
    let policy = Policy { last: 2, ..Policy::default() };
    let mut points = hourly_points(10);
    points[9].suspicious = true;
    assert_eq!(kept(&policy, &points).len(), 10);
    points[9].suspicious = false;
    assert_eq!(kept(&policy, &points), [9, 8]);
    // A later point is as usual again: the odd one in between takes nobody's place.
    points[8].suspicious = true;
    assert_eq!(kept(&policy, &points), [9, 7]);
}

proptest! {
    #[test]
    fn what_must_stay_stays(
        history in prop::collection::vec((0i64..5_000, any::<bool>(), any::<bool>(), any::<bool>()), 1..60),
        (last, hourly, daily, weekly) in (0u32..4, 0u32..4, 0u32..4, 0u32..4),
        min_keep in 0u32..5,
    ) {
        let points: Vec<Candidate> = history.iter().zip(0u64..).map(|((hour, complete, proved, held), n)| {
            let state = if *complete { Completeness::Complete } else { Completeness::Partial };
            Candidate { proved: *proved, held: *held, ..point(n, hour * HOUR, state) }
        }).collect();
        let policy = Policy { last, hourly, daily, weekly, min_keep, ..Policy::default() };
        let now = jiff::Timestamp::from_second(5_000 * HOUR).unwrap();
        let Ok(plan) = plan(&policy, &points, now, &TimeZone::UTC) else { return Ok(()) };
        prop_assert_eq!(plan.len(), points.len());
        let keep = |id: &PointId| plan.iter().any(|decision| decision.keep && &decision.point == id);
        let complete = points.iter().filter(|p| p.state == Completeness::Complete);
        let kept_complete = complete.clone().filter(|p| keep(&p.id)).count();
        prop_assert!(kept_complete >= complete.count().min(min_keep as usize));
        for held in points.iter().filter(|p| p.held) {
            prop_assert!(keep(&held.id));
        }
        let newest_proved = points.iter().filter(|p| p.proved).max_by_key(|p| (p.time, p.id.clone()));
        prop_assert!(newest_proved.is_none_or(|p| keep(&p.id)));
    }
}

/// What the words of a policy mean, worked out from calendar names and not from the walk over sorted points.
fn oracle(policy: &Policy, points: &[Candidate], zone: &TimeZone) -> Vec<PointId> {
    let mut newest_first: Vec<&Candidate> = points.iter().collect();
    newest_first.sort_by_key(|one| std::cmp::Reverse((one.time, one.id.clone())));
    let named = |format: &str, point: &Candidate| point.time.to_zoned(zone.clone()).strftime(format).to_string();
    let rhythms = [
        (policy.hourly, "%F %H"),
        (policy.daily, "%F"),
        (policy.weekly, "%G week %V"),
        (policy.monthly, "%Y-%m"),
        (policy.yearly, "%Y"),
    ];
    let mut kept = std::collections::BTreeSet::new();
    for (count, format) in rhythms {
        let mut periods: Vec<String> = newest_first.iter().map(|one| named(format, one)).collect();
        periods.dedup();
        for period in periods.into_iter().take(count as usize) {
            let first = newest_first.iter().find(|one| named(format, one) == period).unwrap();
            kept.insert(first.id.clone());
        }
    }
    let most = policy.last.max(policy.min_keep) as usize;
    kept.extend(newest_first.iter().take(most).map(|one| one.id.clone()));
    if let Some(within) = policy.within_seconds {
        let since = newest_first[0].time.as_second() - i64::try_from(within).unwrap();
        kept.extend(newest_first.iter().filter(|one| one.time.as_second() >= since).map(|one| one.id.clone()));
    }
    kept.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn exactly_what_the_words_of_a_policy_mean_is_kept(
        seconds in prop::collection::btree_set(0i64..200_000_000, 1..60),
        (last, hourly, daily) in (0u32..4, 0u32..5, 0u32..5),
        (weekly, monthly, yearly) in (0u32..5, 0u32..5, 0u32..5),
        (within, min_keep) in (prop::option::of(0u64..100_000_000), 0u32..4),
        (zone, close) in (0usize..3, any::<bool>()),
    ) {
        // Spread over six years, or within two weeks around a change of the clock.
        let at = |second: i64| if close { 1_761_000_000 + second / 160 } else { 1_600_000_000 + second };
        let points: Vec<Candidate> =
            seconds.iter().zip(0u64..).map(|(second, n)| point(n, at(*second), Completeness::Complete)).collect();
        let zone = TimeZone::get(["UTC", "Europe/Berlin", "Asia/Tokyo"][zone]).unwrap();
        let policy = Policy { last, hourly, daily, weekly, monthly, yearly, within_seconds: within, min_keep };
        prop_assume!(!policy.keeps_everything());
        let now = jiff::Timestamp::from_second(1_900_000_000).unwrap();
        let decided = plan(&policy, &points, now, &zone).unwrap();
        let mut kept: Vec<PointId> = decided.into_iter().filter(|one| one.keep).map(|one| one.point).collect();
        kept.sort();
        prop_assert_eq!(kept, oracle(&policy, &points, &zone));
    }
}
