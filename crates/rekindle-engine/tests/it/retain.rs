use jiff::tz::TimeZone;
use rekindle_core::manifest::{Completeness, MANIFEST_VERSION, Manifest, MissingRecord};
use rekindle_core::point::RecoveryPoint;
use rekindle_core::retention::Policy;
use rekindle_core::{ComponentKind, RunId, codes};
use rekindle_engine::retain::{decide, guard_explicit};

fn point(number: u64, stack: &str, state: Completeness) -> RecoveryPoint {
    let time = jiff::Timestamp::from_second(i64::try_from(number).unwrap() * 86_400).unwrap();
    let missing = MissingRecord {
        id: "database".parse().unwrap(),
        kind: ComponentKind::Postgres,
        code: "RK-PG-001".into(),
        error: "connect".into(),
        hint: None,
    };
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        tool: "rekindle".into(),
        stack: stack.into(),
        host: "host".into(),
        run: RunId::new(time, 0),
        started: time,
        finished: time,
        state,
        components: Vec::new(),
        missing: if state == Completeness::Partial { vec![missing] } else { Vec::new() },
        skew_ms: 0,
        ledger_head: None,
        signing_key: None,
    };
    RecoveryPoint::stored(format!("{number:064x}").parse().unwrap(), time, manifest)
}

#[test]
fn other_stacks_are_not_touched() {
    let points: Vec<_> =
        (1..9).map(|n| point(n, if n % 2 == 0 { "shop" } else { "blog" }, Completeness::Complete)).collect();
    let policy = Policy { last: 1, ..Policy::default() };
    let now = jiff::Timestamp::from_second(10 * 86_400).unwrap();
    let decisions = decide(&policy, &points, "shop", "host", now, &TimeZone::UTC).unwrap();
    assert_eq!(decisions.len(), 4);
    assert_eq!(decisions.iter().filter(|decision| decision.keep).count(), 1);
}

#[test]
fn the_last_complete_point_cannot_be_named_away() {
    let points = [
        point(1, "shop", Completeness::Complete),
        point(2, "shop", Completeness::Partial),
        point(3, "blog", Completeness::Complete),
    ];
    let id = |n: usize| points[n].id().clone();
    assert!(guard_explicit(&points, &[id(0)]).is_err_and(|fault| fault.is(codes::ENGINE_KEEP)));
    assert!(guard_explicit(&points, &[id(1)]).is_ok());
    assert!(guard_explicit(&points, &["f".repeat(64).parse().unwrap()]).is_err());
}
