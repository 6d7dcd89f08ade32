use rekindle_core::manifest::{ComponentRecord, Manifest};
use rekindle_core::mark::{Mark, MarkKind, Marks};
use rekindle_core::note::Notes;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::tally::Tally;
use rekindle_core::tripwire::Suspicion;
use rekindle_core::{ComponentId, ComponentKind};
use rekindle_engine::Tripwire;
use rekindle_engine::recover::{Wish, choose, usable};
use serde_json::json;

fn record(rows: u64, method: &str) -> ComponentRecord {
    let table = json!({"schema": "public", "name": "orders", "kind": "r", "estimated_rows": rows, "exact_rows": rows});
    ComponentRecord {
        id: "database".parse().unwrap(),
        kind: ComponentKind::Postgres,
        tree: String::new(),
        captured_at: jiff::Timestamp::UNIX_EPOCH,
        tally: Tally { entries: 2, bytes: 1000, ..Tally::default() },
        streams: Vec::new(),
        added_bytes: 0,
        stored_bytes: 0,
        notes: Notes::default(),
        details: json!({"method": method, "databases": [{"name": "shop", "tables": [table]}]}),
    }
}

fn point(number: u64, rows: u64, odd: bool) -> RecoveryPoint {
    let manifest: Manifest = serde_json::from_value(json!({
        "version": 1, "tool": "rekindle", "stack": "shop", "host": "host", "run": "r",
        "started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:00:00Z", "state": "complete",
        "components": [record(rows, "logical")], "missing": [], "skew_ms": 0,
    }))
    .unwrap();
    let suspicion = || Suspicion {
        component: "database".parse().unwrap(),
        measure: "rows".to_owned(),
        usual: 0,
        found: 0,
        text: String::new(),
    };
    let manifest = Manifest { suspicions: if odd { vec![suspicion()] } else { Vec::new() }, ..manifest };
    RecoveryPoint::stored(format!("{number:064x}").parse().unwrap(), jiff::Timestamp::UNIX_EPOCH, manifest)
}

fn odd(tripwire: &Tripwire, now: &ComponentRecord, points: &[RecoveryPoint]) -> bool {
    !tripwire.judge(std::slice::from_ref(now), points, "shop", "host").is_empty()
}

#[test]
fn a_change_stays_suspicious_until_it_is_accepted_and_is_normal_from_then_on() {
    let mut points: Vec<_> = (0..8).map(|n| point(n, 1000 + n, false)).collect();
    let mut tripwire = Tripwire::default();
    assert!(!odd(&tripwire, &record(1010, "logical"), &points));
    assert!(odd(&tripwire, &record(100, "logical"), &points));
    assert!(!odd(&tripwire, &record(100, "physical"), &points), "captured in another way: nothing to compare with");
    assert!(tripwire.judge(&[record(100, "logical")], &points, "blog", "host").is_empty(), "another stack");
    // The odd captures do not become the history, however many there are.
    points.extend((8..20).map(|n| point(n, 100, true)));
    assert!(odd(&tripwire, &record(100, "logical"), &points));
    assert!(!odd(&tripwire, &record(1010, "logical"), &points));
    let accept = Mark {
        kind: MarkKind::Accept,
        time: jiff::Timestamp::UNIX_EPOCH,
        point: Some(points[19].id().clone()),
        reason: None,
        user: String::new(),
        host: String::new(),
        keys: std::collections::BTreeSet::new(),
        origin: None,
    };
    tripwire.marks = Marks::of([accept]);
    assert!(!odd(&tripwire, &record(100, "logical"), &points));
    assert!(odd(&tripwire, &record(0, "logical"), &points), "gone altogether");
    points.extend((20..24).map(|n| point(n, 100, false)));
    assert!(odd(&tripwire, &record(20, "logical"), &points));
}

/// The log behind a capture leads on to the next one: whoever replays it has to know that this is suspicious.
#[test]
fn a_capture_before_a_suspicious_one_is_known_as_such() {
    let points = [point(1, 100, false), point(2, 0, true)];
    let all: Vec<&RecoveryPoint> = points.iter().collect();
    let (id, marks): (ComponentId, Marks) = ("database".parse().unwrap(), Marks::default());
    let chosen = |wish: &Wish| {
        let one = choose(wish, &all, std::slice::from_ref(&id), &marks).unwrap().remove(0);
        let usable = usable(wish, &all, &id, &marks).into_iter().map(|point| point.id().clone()).collect::<Vec<_>>();
        (one.point, one.before_suspicious, usable)
    };
    let [first, second] = points.each_ref().map(|point| point.id().clone());
    assert_eq!(chosen(&Wish::default()), (first.clone(), true, vec![first.clone()]));
    let wish = Wish { allow_suspicious: true, ..Wish::default() };
    assert_eq!(chosen(&wish), (second.clone(), false, vec![first, second.clone()]));
    let wish = Wish { point: Some(second.clone()), ..Wish::default() };
    assert_eq!(chosen(&wish), (second.clone(), false, vec![second]));
}
