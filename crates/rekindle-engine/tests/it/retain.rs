use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use rekindle_core::manifest::{Completeness, ComponentRecord, MANIFEST_VERSION, Manifest, MissingRecord};
use rekindle_core::mark::{Mark, MarkKind, Marks};
use rekindle_core::note::Notes;
use rekindle_core::objective::{Objective, Verdict};
use rekindle_core::point::RecoveryPoint;
use rekindle_core::proof_record::{ComponentProof, DrillResult, Outcome, ProofRecord, Trust, Work};
use rekindle_core::retention::Policy;
use rekindle_core::tally::Tally;
use rekindle_core::tripwire::Suspicion;
use rekindle_core::{ComponentKind, PointId, RunId, codes};
use rekindle_engine::retain::{Known, Policies, decide, guard_explicit};
use rekindle_engine::status::{Expectation, status};

fn known<'a>(marks: &'a Marks, proofs: &'a [ProofRecord]) -> Known<'a> {
    static NOTHING: BTreeSet<PointId> = BTreeSet::new();
    Known { marks, proofs, proved_there: &NOTHING }
}

fn point(number: u64, stack: &str, state: Completeness) -> RecoveryPoint {
    point_of(number, stack, state, &["database"])
}

fn point_of(number: u64, stack: &str, state: Completeness, components: &[&str]) -> RecoveryPoint {
    let time = jiff::Timestamp::from_second(i64::try_from(number).unwrap() * 86_400).unwrap();
    let missing = MissingRecord {
        id: "cache".parse().unwrap(),
        kind: ComponentKind::Redis,
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
        components: components.iter().map(|id| record(id, time)).collect(),
        missing: if state == Completeness::Partial { vec![missing] } else { Vec::new() },
        skew_ms: 0,
        ledger_head: None,
        proof_head: None,
        signing_key: None,
        marks_head: None,
        audit_head: None,
        tags: Vec::new(),
        suspicions: Vec::new(),
    };
    RecoveryPoint::stored(format!("{number:064x}").parse().unwrap(), time, manifest)
}

fn record(id: &str, captured_at: jiff::Timestamp) -> ComponentRecord {
    ComponentRecord {
        id: id.parse().unwrap(),
        kind: ComponentKind::Postgres,
        tree: String::new(),
        captured_at,
        tally: Tally::default(),
        streams: Vec::new(),
        added_bytes: 0,
        stored_bytes: 0,
        notes: Notes::default(),
        details: serde_json::Value::Null,
    }
}

#[test]
fn frequent_points_of_one_component_do_not_push_out_the_others() {
    let full = point_of(1, "shop", Completeness::Complete, &["database", "files"]);
    let mut points = vec![full.clone()];
    points.extend((2..20).map(|n| point(n, "shop", Completeness::Complete)));
    let policy = Policy { last: 2, ..Policy::default() };
    let now = jiff::Timestamp::from_second(30 * 86_400).unwrap();
    let decisions =
        decide(&policy, &points, &known(&Marks::default(), &[]), "shop", "host", now, &TimeZone::UTC).unwrap();
    let kept: Vec<_> = decisions.iter().filter(|decision| decision.keep).map(|decision| &decision.point).collect();
    assert_eq!(kept, [points[18].id(), points[17].id(), full.id()]);
    assert!(
        guard_explicit(&points, &Marks::default(), &[full.id().clone()])
            .is_err_and(|fault| fault.chain().contains("`files`"))
    );
    assert!(guard_explicit(&points, &Marks::default(), &[points[3].id().clone()]).is_ok());
}

#[test]
fn other_stacks_are_not_touched() {
    let points: Vec<_> =
        (1..9).map(|n| point(n, if n % 2 == 0 { "shop" } else { "blog" }, Completeness::Complete)).collect();
    let policy = Policy { last: 1, ..Policy::default() };
    let now = jiff::Timestamp::from_second(10 * 86_400).unwrap();
    let decisions =
        decide(&policy, &points, &known(&Marks::default(), &[]), "shop", "host", now, &TimeZone::UTC).unwrap();
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
    assert!(guard_explicit(&points, &Marks::default(), &[id(0)]).is_err_and(|fault| fault.is(codes::ENGINE_KEEP)));
    assert!(guard_explicit(&points, &Marks::default(), &[id(1)]).is_ok());
    assert!(guard_explicit(&points, &Marks::default(), &["f".repeat(64).parse().unwrap()]).is_err());
}

fn mark(kind: MarkKind, point: &RecoveryPoint) -> Mark {
    Mark {
        kind,
        time: point.time(),
        point: Some(point.id().clone()),
        reason: Some("audit".to_owned()),
        user: "ada".to_owned(),
        host: "host".to_owned(),
        keys: BTreeSet::new(),
        origin: None,
    }
}

#[test]
fn a_suspicious_newest_point_and_held_ones_hold_retention_back() {
    let mut points: Vec<_> = (1..6).map(|n| point(n, "shop", Completeness::Complete)).collect();
    let newest = points.pop().unwrap();
    let mut manifest = newest.manifest().clone();
    manifest.suspicions.push(Suspicion {
        component: "database".parse().unwrap(),
        measure: "rows".to_owned(),
        usual: 9,
        found: 0,
        text: "odd".to_owned(),
    });
    points.push(RecoveryPoint::stored(newest.id().clone(), newest.time(), manifest));
    let policy = Policy { last: 1, ..Policy::default() };
    let now = jiff::Timestamp::from_second(10 * 86_400).unwrap();
    let kept = |marks: &Marks| {
        let decisions = decide(&policy, &points, &known(marks, &[]), "shop", "host", now, &TimeZone::UTC).unwrap();
        decisions.iter().filter(|decision| decision.keep).count()
    };
    assert_eq!(kept(&Marks::default()), 5);
    let accepted = Marks::of([mark(MarkKind::Accept, &points[4])]);
    assert_eq!(kept(&accepted), 1);
    let held = Marks::of([mark(MarkKind::Accept, &points[4]), mark(MarkKind::Hold, &points[0])]);
    assert_eq!(kept(&held), 2);
    let wanted = [points[0].id().clone()];
    assert!(guard_explicit(&points, &held, &wanted).is_err_and(|fault| fault.chain().contains("ada holds it: audit")));
    assert!(guard_explicit(&points, &accepted, &wanted).is_ok());
    // The last one that is not suspicious stays.
    let good: Vec<_> = points[..4].iter().map(|point| point.id().clone()).collect();
    assert!(guard_explicit(&points, &Marks::default(), &good).is_err());
}

fn proved(point: &RecoveryPoint, second: i64) -> ProofRecord {
    let at = jiff::Timestamp::from_second(second).unwrap();
    let record = &point.manifest().components[0];
    let component = ComponentProof {
        component: record.id.clone(),
        kind: record.kind,
        outcome: Outcome::Passed,
        captured_at: record.captured_at,
        recovered_to: None,
        entries: 0,
        bytes: 0,
        engine: None,
        restore_ms: Some(1),
        elapsed_ms: 1,
        age_seconds: 0,
        steps: Vec::new(),
        findings: Vec::new(),
        problem: None,
        objective: Objective::default(),
        rto: Verdict::Met,
        rpo: Verdict::Met,
    };
    ProofRecord {
        version: 1,
        sequence: 1,
        previous: None,
        started: at,
        finished: at,
        outcome: Outcome::Passed,
        user: String::new(),
        host: String::new(),
        run: String::new(),
        tool: String::new(),
        work: Work::Drill(DrillResult {
            stack: point.manifest().stack.clone(),
            point: point.id().clone(),
            point_time: point.time(),
            components: vec![component],
            guarantees: Vec::new(),
        }),
    }
}

#[test]
fn the_newest_proved_point_stays() {
    let points: Vec<_> = (1..9).map(|n| point(n, "shop", Completeness::Complete)).collect();
    let proofs = [proved(&points[1], 1), proved(&points[3], 2)];
    let policy = Policy { last: 1, ..Policy::default() };
    let now = jiff::Timestamp::from_second(10 * 86_400).unwrap();
    let kept = |proofs: &[ProofRecord]| -> Vec<_> {
        let decisions =
            decide(&policy, &points, &known(&Marks::default(), proofs), "shop", "host", now, &TimeZone::UTC).unwrap();
        decisions.into_iter().filter(|decision| decision.keep).map(|decision| decision.point).collect()
    };
    assert_eq!(kept(&[]), [points[7].id().clone()]);
    assert_eq!(kept(&proofs), [points[7].id().clone(), points[3].id().clone()]);
}

#[test]
fn status_judges_by_proofs() {
    let points = [point(1, "shop", Completeness::Complete)];
    let expected = |objective| Expectation {
        component: "database".parse().unwrap(),
        kind: ComponentKind::Postgres,
        objective,
        recoverable_until: None,
    };
    let now = jiff::Timestamp::from_second(2 * 86_400).unwrap();
    let judged = |objective, proofs: &[ProofRecord]| {
        let status = status("shop", "host", &[expected(objective)], &points, proofs, now);
        let one = status.components[0].clone();
        (one.verdict.as_str(), one.trust, one.proof_age_seconds, status.exit_code())
    };
    let objective = Objective { proof_seconds: Some(86_400), rto_seconds: Some(60), rpo_seconds: None };
    assert_eq!(judged(objective, &[]), ("at risk", Trust::Unverified, None, 0));
    let fresh = [proved(&points[0], 2 * 86_400 - 100)];
    assert_eq!(judged(objective, &fresh), ("met", Trust::Proved, Some(100), 0));
    let old = [proved(&points[0], 10)];
    assert_eq!(judged(objective, &old), ("missed", Trust::Proved, Some(2 * 86_400 - 10), 4));
    let reaching = Expectation {
        recoverable_until: jiff::Timestamp::from_second(2 * 86_400 - 5).ok(),
        ..expected(Objective { rpo_seconds: Some(60), ..Objective::default() })
    };
    let status = status("shop", "host", &[reaching], &points, &[], now);
    assert_eq!(status.components[0].age_seconds, Some(5), "the log reaches further than the capture");
    assert_eq!(status.exit_code(), 0);
}

fn tagged(point: &RecoveryPoint, tag: &str) -> RecoveryPoint {
    let manifest = Manifest { tags: vec![tag.to_owned()], ..point.manifest().clone() };
    RecoveryPoint::stored(point.id().clone(), point.time(), manifest)
}

#[test]
fn a_component_with_a_policy_of_its_own_keeps_points_for_its_sake_and_tags_keep_the_rest() {
    let mut points: Vec<_> =
        (1..=10).map(|n| point_of(n, "shop", Completeness::Complete, &["database", "files"])).collect();
    points[2] = tagged(&points[2], "release");
    points[3] = tagged(&points[3], "other");
    let now = jiff::Timestamp::from_second(11 * 86_400).unwrap();
    let mut policies = Policies::from(&Policy { last: 2, ..Policy::default() });
    let kept = |policies: &Policies| -> Vec<u64> {
        let decided =
            decide(policies.clone(), &points, &known(&Marks::default(), &[]), "shop", "host", now, &TimeZone::UTC);
        let decided = decided.unwrap();
        assert!(decided.iter().all(|one| !one.reasons.is_empty()));
        let kept = decided.iter().filter(|one| one.keep);
        kept.map(|one| u64::try_from(one.time.as_second() / 86_400).unwrap()).collect()
    };
    assert_eq!(kept(&policies), [10, 9]);
    policies.of_component.insert("files".parse().unwrap(), Policy { last: 4, ..Policy::default() });
    assert_eq!(kept(&policies), [10, 9, 8, 7]);
    policies.keep_tags.insert("release".to_owned());
    assert_eq!(kept(&policies), [10, 9, 8, 7, 3]);
    // With a policy for each, the usual one has nothing to say.
    policies.usual = Policy { last: 9, ..Policy::default() };
    policies.of_component.insert("database".parse().unwrap(), Policy { last: 1, ..Policy::default() });
    assert_eq!(kept(&policies), [10, 9, 8, 7, 3]);
}

proptest::proptest! {
    #[test]
    fn every_component_keeps_its_newest_complete_points(
        history in proptest::collection::vec((0..4_usize, proptest::bool::ANY), 1..40),
        (usual, files) in (1_u32..4, 1_u32..4),
        min_keep in 0_u32..4,
    ) {
        let sets: [&[&str]; 4] = [&["database"], &["files"], &["database", "files"], &["cache", "files"]];
        let points: Vec<_> = history
            .iter()
            .zip(1_u64..)
            .map(|((set, complete), n)| {
                let state = if *complete { Completeness::Complete } else { Completeness::Partial };
                point_of(n, "shop", state, sets[*set])
            })
            .collect();
        let now = jiff::Timestamp::from_second(50 * 86_400).unwrap();
        let mut policies = Policies::from(&Policy { last: usual, min_keep, ..Policy::default() });
        policies.of_component.insert("files".parse().unwrap(), Policy { last: files, min_keep, ..Policy::default() });
        let decided = decide(policies, &points, &known(&Marks::default(), &[]), "shop", "host", now, &TimeZone::UTC);
        let Ok(decided) = decided else { return Ok(()) };
        proptest::prop_assert_eq!(decided.len(), points.len());
        for component in ["database", "files", "cache"] {
            let holds = |point: &&RecoveryPoint| {
                point.state() == Completeness::Complete
                    && point.manifest().component(&component.parse().unwrap()).is_some()
            };
            let newest = points.iter().rfind(holds);
            let kept = |point: &RecoveryPoint| decided.iter().any(|one| one.keep && one.point == *point.id());
            proptest::prop_assert!(newest.is_none_or(kept), "the newest complete point of {} is gone", component);
        }
        let files: Vec<_> = points
            .iter()
            .filter(|point| point.state() == Completeness::Complete)
            .filter(|point| point.manifest().component(&"files".parse().unwrap()).is_some())
            .collect();
        let left = files.iter().filter(|point| decided.iter().any(|one| one.keep && one.point == *point.id())).count();
        proptest::prop_assert!(left >= files.len().min(min_keep as usize));
    }
}
