use proptest::prelude::*;

use super::*;
use crate::figures::{Counted, Unit};

const MIB: u64 = 1 << 20;

fn rows(name: &str) -> Counted {
    Counted { unit: Unit::Rows, name: name.to_owned() }
}

/// A database of 100 MiB with two tables, of which one per cent changes each time.
fn database(orders: u64, users: u64) -> Measure {
    Measure {
        entries: 3,
        bytes: 100 * MIB,
        added: MIB,
        stored: MIB / 4,
        counts: [(rows("shop.public.orders"), orders), (rows("shop.public.users"), users)].into(),
        ..Measure::default()
    }
}

fn tree(entries: u64, bytes: u64, added: u64, stored: u64) -> Measure {
    Measure { entries, bytes, added, stored, ..Measure::default() }
}

fn alarms(history: &[Measure], now: &Measure) -> Vec<String> {
    alarms_with(&Thresholds::default(), history, now)
}

fn alarms_with(thresholds: &Thresholds, history: &[Measure], now: &Measure) -> Vec<String> {
    let id = "c".parse().unwrap();
    judge(thresholds, &id, now, history).into_iter().map(|one| one.measure).collect()
}

#[test]
fn a_quiet_stack_is_quiet_and_an_empty_table_is_not() {
    let history: Vec<Measure> = (0..10).map(|n| database(1000 + n * 10, 50)).collect();
    assert_eq!(alarms(&history, &database(1100, 50)), [""; 0]);
    assert_eq!(alarms(&history, &database(1100, 0)), ["rows"], "the total hardly moves");
    assert_eq!(alarms(&history[..1], &database(1000, 0)), ["rows"], "one earlier capture is enough for this");
    assert_eq!(alarms(&[], &database(0, 0)), [""; 0]);
    let mut dropped = database(1100, 50);
    dropped.counts.remove(&rows("shop.public.users"));
    assert_eq!(alarms(&history, &dropped), ["rows"], "a dropped table");
    dropped.unsure.insert(rows("shop.public.users"));
    assert_eq!(alarms(&history, &dropped), [""; 0], "an estimate is not judged");
}

#[test]
fn sharp_falls_and_growth_alarm_and_slow_ones_do_not() {
    let history: Vec<Measure> = (0..10).map(|n| database(1000 + n, 50)).collect();
    assert_eq!(alarms(&history, &database(300, 50)), ["rows"]);
    assert_eq!(alarms(&history, &database(5000, 50)), ["rows"]);
    assert_eq!(alarms(&history, &database(700, 50)), [""; 0]);
    let growing: Vec<Measure> = (0..14).map(|n| database(1000 << (n / 4), 50)).collect();
    assert_eq!(alarms(&growing, &database(8000, 50)), [""; 0], "it has always grown");
    let off = Thresholds { enabled: false, ..Thresholds::default() };
    assert_eq!(alarms_with(&off, &history, &database(0, 0)), [""; 0]);
}

#[test]
fn keys_that_come_and_go_every_day_do_not_alarm() {
    let cache = |keys| Measure {
        entries: 1,
        bytes: keys * 100,
        added: keys * 100,
        stored: keys * 50,
        counts: [(Counted { unit: Unit::Keys, name: "database 0".to_owned() }, keys)].into(),
        ..Measure::default()
    };
    let day: Vec<Measure> = (0..14).map(|n| cache(if n % 2 == 0 { 90_000 } else { 20_000 })).collect();
    assert_eq!(alarms(&day, &cache(20_000)), [""; 0]);
    assert_eq!(alarms(&day, &cache(9000)), ["bytes", "keys"]);
    assert_eq!(alarms(&day, &cache(0)), ["keys", "bytes"]);
}

#[test]
fn encrypted_files_alarm_and_photos_do_not() {
    let texts: Vec<Measure> = (0..10).map(|n| tree(500, 50 * MIB, MIB + n * 1000, MIB / 3)).collect();
    assert_eq!(alarms(&texts, &tree(500, 50 * MIB, 50 * MIB, 50 * MIB)), ["changed", "incompressible"]);
    assert_eq!(alarms(&texts, &tree(500, 50 * MIB, 15 * MIB, 15 * MIB)), [""; 0], "twelve per cent more are new");
    assert_eq!(alarms(&texts, &tree(500, 50 * MIB, 25 * MIB, 25 * MIB)), ["incompressible"]);
    let photos: Vec<Measure> = (0..10).map(|_| tree(500, 50 * MIB, 5 * MIB, 5 * MIB)).collect();
    assert_eq!(alarms(&photos, &tree(540, 54 * MIB, 8 * MIB, 8 * MIB)), [""; 0]);
    // Renamed, every one of them, as some malware does.
    assert_eq!(alarms(&texts, &tree(1000, 50 * MIB, MIB, MIB / 3)), [""; 0]);
    assert_eq!(alarms(&texts, &tree(1, 0, 0, 0)), ["entries", "bytes"]);
}

#[test]
fn the_first_capture_and_one_odd_one_do_not_poison_the_history() {
    // Everything is new at first; one capture in between was empty.
    let mut history = vec![tree(500, 50 * MIB, 50 * MIB, 20 * MIB), tree(1, 0, 0, 0)];
    history.extend((0..8).map(|_| tree(500, 50 * MIB, MIB, MIB / 3)));
    assert_eq!(alarms(&history, &tree(510, 51 * MIB, 2 * MIB, MIB)), [""; 0]);
    assert_eq!(alarms(&history, &tree(100, 10 * MIB, MIB, MIB)), ["entries", "bytes"]);
}

/// Steps of a simulated history, with a fixed generator (SplitMix64) so that it repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// Captures of a year, one a day, of the demo's stack: orders come in by the week, carts are
/// emptied at night, uploads grow by photos and texts, samples come and expire.
fn year(seed: u64) -> [Vec<Measure>; 4] {
    let mut random = Random(seed);
    let (mut orders, mut files, mut bytes) = (2000_u64, 300_u64, 30 * MIB);
    let mut all: [Vec<Measure>; 4] = Default::default();
    for day in 0..365_u64 {
        let weekend = day % 7 >= 5;
        orders += if weekend { random.below(10) } else { 30 + random.below(60) };
        // Old orders are archived on the first of each month.
        if day % 30 == 29 {
            orders -= orders / 10;
        }
        let dump = orders * 900 + 4 * MIB;
        let churn = dump / 20 + random.below(dump / 10);
        let mut database = database(orders, 60 + day / 5);
        (database.bytes, database.added, database.stored) = (dump, churn, churn / 4 + random.below(churn / 8));
        all[0].push(database);
        let keys = if weekend { 3000 } else { 8000 } + random.below(4000);
        let mut cache = tree(1, keys * 120, keys * 120, keys * 50);
        cache.counts.insert(Counted { unit: Unit::Keys, name: "database 0".to_owned() }, keys);
        all[1].push(cache);
        // Now and then somebody uploads an album, or clears out a tenth.
        let new = match random.below(20) {
            0 => 40 + random.below(80),
            _ => random.below(8),
        };
        let added = new * (100_000 + random.below(400_000));
        (files, bytes) = (files + new, bytes + added);
        if random.below(60) == 0 {
            (files, bytes) = (files - files / 10, bytes - bytes / 10);
        }
        all[2].push(tree(files, bytes, added, added - added / (2 + random.below(40))));
        let samples = 4_000_000 + random.below(400_000);
        let mut metrics = tree(20 + random.below(8), samples * 2, samples / 3, samples / 4);
        metrics.counts.insert(Counted { unit: Unit::Samples, name: String::new() }, samples);
        all[3].push(metrics);
    }
    all
}

/// False alarms in the captures of ten years of four components, and alarms missed of disasters
/// put into each of them.
#[test]
fn false_alarms_are_rare_and_disasters_are_seen() {
    let thresholds = Thresholds::default();
    let (mut judged, mut false_alarms, mut disasters, mut missed) = (0_u64, Vec::new(), 0_u64, Vec::new());
    for seed in 0..10 {
        for (component, captures) in year(seed).into_iter().enumerate() {
            for day in 1..captures.len() {
                let history = &captures[day.saturating_sub(thresholds.history)..day];
                judged += 1;
                let found = alarms(history, &captures[day]);
                if !found.is_empty() {
                    false_alarms.push((seed, component, day, found));
                }
                if day >= thresholds.history_min && day % 13 == 0 {
                    for (name, broken) in disaster(component, &captures[day]) {
                        disasters += 1;
                        if alarms(history, &broken).is_empty() {
                            missed.push((seed, component, day, name));
                        }
                    }
                }
            }
        }
    }
    println!("judged {judged}, false alarms {}, disasters {disasters}, missed {}", false_alarms.len(), missed.len());
    assert!(false_alarms.len() as u64 * 1000 <= judged, "more than one in a thousand: {false_alarms:?}");
    assert!(missed.is_empty(), "{missed:?}");
}

fn disaster(component: usize, now: &Measure) -> Vec<(&'static str, Measure)> {
    let mut lost = now.clone();
    lost.counts.values_mut().for_each(|count| *count /= 10);
    (lost.bytes, lost.entries) = (now.bytes / 10, now.entries.div_ceil(10));
    let mut empty = now.clone();
    empty.counts.values_mut().for_each(|count| *count = 0);
    (empty.bytes, empty.added, empty.stored) = (0, 0, 0);
    empty.entries = if component == 2 { 1 } else { now.entries };
    let mut encrypted = now.clone();
    (encrypted.added, encrypted.stored) = (now.bytes, now.bytes);
    let mut all = vec![("nine tenths lost", lost), ("empty", empty)];
    // A cache is written anew each time, so encryption looks like every other day.
    if component == 2 || component == 0 {
        all.push(("encrypted", encrypted));
    }
    all
}

proptest! {
    #[test]
    fn a_capture_like_one_of_the_history_never_alarms(
        history in prop::collection::vec((0..10_000_u64, 0..(1_u64 << 40)), 1..20),
        pick in any::<prop::sample::Index>(),
    ) {
        // With everything the same but noise of two per cent.
        let (entries, bytes) = *pick.get(&history);
        let all: Vec<Measure> = history.iter().enumerate()
            .map(|(n, _)| tree(entries + entries * (n as u64 % 3) / 100, bytes, bytes / 50, bytes / 100)).collect();
        prop_assert_eq!(alarms(&all, &tree(entries, bytes, bytes / 49, bytes / 98)), Vec::<String>::new());
    }

    #[test]
    fn no_figures_make_it_panic(values in prop::collection::vec(any::<(u64, u64, u64, u64)>(), 0..8), now in any::<(u64, u64, u64, u64)>()) {
        let measure = |(a, b, c, d): (u64, u64, u64, u64)| tree(a, b, c, d);
        let history: Vec<Measure> = values.into_iter().map(measure).collect();
        let _ = alarms(&history, &measure(now));
    }
}
