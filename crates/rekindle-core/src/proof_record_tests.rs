use super::*;
use crate::manifest::{Completeness, ComponentRecord, Manifest};

fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(second).unwrap()
}

fn id(number: u8) -> PointId {
    format!("{number:064x}").parse().unwrap()
}

fn component(name: &str) -> ComponentId {
    name.parse().unwrap()
}

fn point(number: u8, names: &[&str]) -> RecoveryPoint {
    let record = |name: &&str| ComponentRecord {
        id: component(name),
        kind: ComponentKind::Files,
        tree: String::new(),
        captured_at: at(0),
        tally: crate::tally::Tally::default(),
        streams: Vec::new(),
        added_bytes: 0,
        stored_bytes: 0,
        notes: crate::note::Notes::default(),
        details: serde_json::Value::Null,
    };
    let manifest = Manifest {
        version: 1,
        tool: String::new(),
        stack: "s".to_owned(),
        host: "h".to_owned(),
        run: crate::RunId::new(at(0), 1),
        started: at(0),
        finished: at(0),
        state: Completeness::Complete,
        components: names.iter().map(record).collect(),
        missing: Vec::new(),
        skew_ms: 0,
        ledger_head: None,
        proof_head: None,
        signing_key: None,
        marks_head: None,
        audit_head: None,
        tags: Vec::new(),
        suspicions: Vec::new(),
    };
    RecoveryPoint::stored(id(number), at(0), manifest)
}

fn record(second: i64, work: Work) -> ProofRecord {
    ProofRecord {
        version: PROOF_VERSION,
        sequence: 1,
        previous: None,
        started: at(second),
        finished: at(second),
        outcome: Outcome::Passed,
        user: String::new(),
        host: String::new(),
        run: String::new(),
        tool: String::new(),
        work,
    }
}

fn drill(second: i64, number: u8, found: &[(&str, Outcome)]) -> ProofRecord {
    timed(second, number, found, 1000, 100)
}

fn timed(second: i64, number: u8, found: &[(&str, Outcome)], ms: u64, bytes: u64) -> ProofRecord {
    let one = |(name, outcome): &(&str, Outcome)| ComponentProof {
        component: component(name),
        kind: ComponentKind::Files,
        outcome: *outcome,
        captured_at: at(0),
        recovered_to: None,
        entries: 1,
        bytes,
        engine: None,
        restore_ms: Some(ms),
        elapsed_ms: ms,
        age_seconds: 0,
        steps: Vec::new(),
        findings: Vec::new(),
        problem: None,
        objective: Objective::default(),
        rto: Verdict::Met,
        rpo: Verdict::Met,
    };
    record(
        second,
        Work::Drill(DrillResult {
            stack: "s".to_owned(),
            point: id(number),
            point_time: at(0),
            components: found.iter().map(one).collect(),
            guarantees: Vec::new(),
        }),
    )
}

fn read(second: i64, part: Option<(u32, u32)>, good: &[u8], bad: &[u8]) -> ProofRecord {
    let ids = |numbers: &[u8]| numbers.iter().map(|number| id(*number)).collect();
    let part = part.map(|(part, of)| PartOf { part, of });
    record(
        second,
        Work::Verification(VerificationResult {
            part,
            packs_read: 1,
            bytes_read: 1,
            damage: bad.len() as u64,
            points: ids(good),
            damaged: ids(bad),
        }),
    )
}

#[test]
fn a_point_is_proved_when_every_component_came_back() {
    let (mine, passed) = (point(1, &["a", "b"]), Outcome::Passed);
    assert_eq!(trust(&mine, &[]), Trust::Unverified);
    let half = drill(1, 1, &[("a", passed)]);
    assert_eq!(trust(&mine, std::slice::from_ref(&half)), Trust::Unverified);
    assert_eq!(trust(&mine, &[half.clone(), drill(2, 1, &[("b", passed)])]), Trust::Proved);
    let other = drill(2, 2, &[("b", passed)]);
    assert_eq!(trust(&mine, &[half.clone(), other]), Trust::Unverified, "another point");
    let unproved = drill(2, 1, &[("b", Outcome::Unproved)]);
    assert_eq!(trust(&mine, &[half, unproved]), Trust::Unverified);
}

#[test]
fn the_newest_evidence_counts() {
    let (mine, passed) = (point(1, &["a"]), Outcome::Passed);
    let good = drill(1, 1, &[("a", passed)]);
    assert_eq!(trust(&mine, &[good.clone(), drill(2, 1, &[("a", Outcome::Failed)])]), Trust::Unverified);
    assert_eq!(trust(&mine, &[good.clone(), drill(2, 1, &[("a", Outcome::Unproved)])]), Trust::Proved);
    assert_eq!(trust(&mine, &[good.clone(), read(2, Some((1, 30)), &[], &[1])]), Trust::Unverified, "damage");
    assert_eq!(trust(&mine, &[drill(0, 1, &[("a", Outcome::Failed)]), good]), Trust::Proved);
}

#[test]
fn only_a_whole_reading_verifies() {
    let mine = point(1, &["a"]);
    assert_eq!(trust(&mine, &[read(1, None, &[1], &[])]), Trust::Verified);
    assert_eq!(trust(&mine, &[read(1, Some((1, 1)), &[1], &[])]), Trust::Unverified);
    assert_eq!(trust(&mine, &[read(1, None, &[2], &[])]), Trust::Unverified, "it was not there yet");
}

#[test]
fn forecasts_scale_up_and_take_the_slowest() {
    let ask = |records: &[ProofRecord], bytes| forecast(records, "s", &component("a"), bytes);
    assert_eq!(ask(&[], 100), None);
    let passed = [("a", Outcome::Passed)];
    let history = [timed(1, 1, &passed, 2000, 100), timed(2, 1, &passed, 1000, 100)];
    assert_eq!(ask(&history, 100), Some(Forecast { seconds: 2, measured: 2 }));
    assert_eq!(ask(&history, 250), Some(Forecast { seconds: 5, measured: 2 }));
    assert_eq!(ask(&history, 1), Some(Forecast { seconds: 2, measured: 2 }), "never faster than measured");
    let failed = [timed(3, 1, &[("a", Outcome::Failed)], 9000, 100)];
    assert_eq!(ask(&failed, 100), None);
    let many: Vec<ProofRecord> = (0..9).map(|n| timed(n, 1, &passed, if n < 4 { 9000 } else { 1000 }, 100)).collect();
    assert_eq!(ask(&many, 100), Some(Forecast { seconds: 1, measured: 5 }));
}

#[test]
fn parts_rotate_and_make_a_whole() {
    assert_eq!(next_part(&[], 3), PartOf { part: 1, of: 3 });
    let mut records = vec![read(1, Some((1, 3)), &[], &[]), read(2, Some((1, 2)), &[], &[])];
    assert_eq!(next_part(&records, 3), PartOf { part: 2, of: 3 });
    records.push(read(3, Some((2, 3)), &[], &[]));
    assert_eq!(all_read_at(&records), None);
    records.push(read(4, Some((3, 3)), &[], &[]));
    assert_eq!(all_read_at(&records), Some(at(1)));
    assert_eq!(next_part(&records, 3), PartOf { part: 1, of: 3 });
    records.push(read(5, Some((1, 3)), &[], &[]));
    assert_eq!(all_read_at(&records), Some(at(3)));
    records.push(read(9, None, &[], &[]));
    assert_eq!(all_read_at(&records), Some(at(9)));
}

#[test]
fn a_record_comes_back_from_json() {
    let before = drill(1, 1, &[("a", Outcome::Failed)]);
    let text = serde_json::to_string(&before).unwrap();
    assert_eq!(serde_json::from_str::<ProofRecord>(&text).unwrap(), before);
}
