//! The repository of a simulated stack: points of several components, tags, holds, proofs, suspicions, and
//! what retention may do to them, worked out in another way than retention does.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rekindle_core::manifest::{Completeness, ComponentRecord, MANIFEST_VERSION, Manifest, MissingRecord};
use rekindle_core::mark::{Mark, MarkKind, Marks};
use rekindle_core::note::Notes;
use rekindle_core::objective::{Objective, Verdict};
use rekindle_core::point::RecoveryPoint;
use rekindle_core::proof_record::{ComponentProof, DrillResult, Outcome, ProofRecord, Work};
use rekindle_core::retention::Policy;
use rekindle_core::tally::Tally;
use rekindle_core::tripwire::Suspicion;
use rekindle_core::{ComponentKind, PointId, RunId};
use rekindle_engine::retain::{Known, Policies, decide, guard_explicit};

pub(crate) const COMPONENTS: [&str; 3] = ["cache", "database", "files"];
pub(crate) const STACK: &str = "shop";
pub(crate) const HOST: &str = "host";
pub(crate) const KEPT_TAG: &str = "release";

/// What a run brought.
pub(crate) struct Saved<'a> {
    pub(crate) stack: &'a str,
    pub(crate) started: Timestamp,
    /// With the moment that each stands for.
    pub(crate) captured: Vec<(&'a str, Timestamp)>,
    pub(crate) missing: Vec<&'a str>,
    pub(crate) tag: Option<&'a str>,
    pub(crate) suspicious: bool,
}

/// The repository, and beside it what the oracle knows in its own words.
#[derive(Default)]
pub(crate) struct Repository {
    /// Oldest first.
    pub(crate) points: Vec<RecoveryPoint>,
    proofs: Vec<ProofRecord>,
    marks: Vec<Mark>,
    held: BTreeSet<PointId>,
    proved: BTreeSet<PointId>,
    proved_there: BTreeSet<PointId>,
    suspicious: BTreeSet<PointId>,
    written: u64,
    /// Points that retention removed.
    pub(crate) removed: usize,
    /// Runs of retention that were refused.
    pub(crate) refused: usize,
}

impl Repository {
    pub(crate) fn write(&mut self, saved: &Saved<'_>, now: Timestamp) {
        self.written += 1;
        let id: PointId = format!("{:064x}", self.written.wrapping_mul(0x9e37_79b9_7f4a_7c15)).parse().unwrap();
        let first = saved.captured.first().map_or("", |(name, _)| name);
        let odd = Suspicion {
            component: first.parse().unwrap(),
            measure: "rows".to_owned(),
            usual: 9,
            found: 0,
            text: "odd".to_owned(),
        };
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            tool: String::new(),
            stack: saved.stack.to_owned(),
            host: HOST.to_owned(),
            run: RunId::new(saved.started, u32::try_from(self.written).unwrap()),
            started: saved.started,
            finished: now,
            state: if saved.missing.is_empty() { Completeness::Complete } else { Completeness::Partial },
            components: saved.captured.iter().map(|(name, at)| record(name, *at)).collect(),
            missing: saved.missing.iter().map(|name| lacking(name)).collect(),
            skew_ms: 0,
            ledger_head: None,
            proof_head: None,
            signing_key: None,
            marks_head: None,
            audit_head: None,
            tags: saved.tag.iter().map(|tag| (*tag).to_owned()).collect(),
            suspicions: if saved.suspicious { vec![odd] } else { Vec::new() },
        };
        if saved.suspicious {
            self.suspicious.insert(id.clone());
        }
        // No two points of one moment: their order would be a matter of their ids.
        let time = now + SignedDuration::from_nanos(i64::try_from(self.written).unwrap());
        self.points.push(RecoveryPoint::stored(id, time, manifest));
    }

    fn mine(&self) -> impl DoubleEndedIterator<Item = &RecoveryPoint> {
        self.points.iter().filter(|point| point.manifest().stack == STACK)
    }

    /// The moment that the newest capture of a component stands for, or its run, if that began later.
    pub(crate) fn newest_capture(&self, component: &str) -> Option<Timestamp> {
        let id = component.parse().unwrap();
        self.mine().filter_map(|point| Some(stands_for(point, point.manifest().component(&id)?))).max()
    }

    pub(crate) fn mark(&mut self, kind: MarkKind, point: &PointId, now: Timestamp) {
        let (user, host) = (String::new(), String::new());
        self.marks.push(Mark {
            kind,
            time: now,
            point: Some(point.clone()),
            reason: None,
            user,
            host,
            keys: BTreeSet::new(),
            origin: None,
        });
        match kind {
            MarkKind::Hold => drop(self.held.insert(point.clone())),
            MarkKind::Release => drop(self.held.remove(point)),
            MarkKind::Accept => drop(self.suspicious.remove(point)),
            MarkKind::KitConfirm => {}
        }
    }

    /// A drill of every component of a point.
    pub(crate) fn drill(&mut self, number: usize, outcome: Outcome, now: Timestamp) {
        let point = &self.points[number];
        self.proofs.push(drilled(point, outcome, now));
        let id = point.id().clone();
        match outcome {
            Outcome::Passed => drop(self.proved.insert(id)),
            Outcome::Failed => drop(self.proved.remove(&id)),
            Outcome::Unproved => {}
        }
    }

    /// As if this were a copy, and the point had been drilled in its source.
    pub(crate) fn proved_there(&mut self, number: usize) {
        self.proved_there.insert(self.points[number].id().clone());
    }

    /// `rekindle forget POINT…`; whether it was done.
    pub(crate) fn forget(&mut self, wanted: &[PointId]) -> bool {
        if guard_explicit(&self.points, &Marks::of(self.marks.clone()), wanted).is_err() {
            return false;
        }
        let held = wanted.iter().find(|id| self.held.contains(*id));
        assert_eq!(held, None, "a held point was forgotten by name");
        let (gone, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.points).into_iter().partition(|one| wanted.contains(one.id()));
        self.points = left;
        for point in gone.iter().filter(|point| point.state() == Completeness::Complete) {
            for component in names(point) {
                let still = self.mine().any(|one| self.good(one) && names(one).contains(&component));
                assert!(still || point.manifest().stack != STACK, "the last good point of {component} was forgotten");
            }
        }
        true
    }

    /// What `rekindle forget` does with [retention]; whether it was done.
    pub(crate) fn prune(&mut self, policies: &Policies, now: Timestamp, zone: &TimeZone) -> bool {
        let marks = Marks::of(self.marks.clone());
        let known = Known { marks: &marks, proofs: &self.proofs, proved_there: &self.proved_there };
        let decided = decide(policies.clone(), &self.points, &known, STACK, HOST, now, zone);
        let Ok(decisions) = decided else {
            let partial = |point: &&RecoveryPoint| point.state() == Completeness::Partial;
            let groups = self.groups(policies);
            let fails = groups.iter().any(|(_, points)| points.iter().copied().rev().take(3).all(|one| partial(&one)));
            assert!(fails, "retention was refused, and no component fails");
            self.refused += 1;
            return false;
        };
        let removed: BTreeSet<PointId> = decisions.into_iter().filter(|one| !one.keep).map(|one| one.point).collect();
        let captures = COMPONENTS.map(|name| self.newest_capture(name));
        let refused = guard_explicit(&self.points, &marks, &Vec::from_iter(removed.clone())).err();
        assert!(refused.is_none(), "retention wants what may not be: {refused:?}");
        self.nothing_goes_that_must_stay(&removed, policies, zone);
        self.points.retain(|point| !removed.contains(point.id()));
        self.removed += removed.len();
        assert_eq!(COMPONENTS.map(|name| self.newest_capture(name)), captures, "a newest capture is gone");
        self.nothing_is_left_for_no_reason(policies);
        true
    }

    fn good(&self, point: &RecoveryPoint) -> bool {
        point.state() == Completeness::Complete && !self.suspicious.contains(point.id())
    }

    /// Points that are judged beside each other, oldest first, with their policy.
    fn groups(&self, policies: &Policies) -> Vec<(Policy, Vec<&RecoveryPoint>)> {
        let mine: Vec<&RecoveryPoint> = self.mine().collect();
        let own = |name: &str| policies.of_component.get(&name.parse().unwrap()).copied();
        let mut sets: BTreeMap<Vec<&str>, Vec<&RecoveryPoint>> = BTreeMap::new();
        for point in &mine {
            sets.entry(asked(point)).or_default().push(point);
        }
        let usual = sets.into_iter().filter(|(set, _)| set.iter().any(|name| own(name).is_none()));
        let mut groups: Vec<_> = usual.map(|(_, points)| (policies.usual, points)).collect();
        for name in COMPONENTS {
            if let Some(policy) = own(name) {
                groups.push((policy, mine.iter().copied().filter(|point| asked(point).contains(&name)).collect()));
            }
        }
        groups.retain(|(_, points)| !points.is_empty());
        groups
    }

    fn nothing_goes_that_must_stay(&self, removed: &BTreeSet<PointId>, policies: &Policies, zone: &TimeZone) {
        let left = |point: &RecoveryPoint| !removed.contains(point.id());
        for point in &self.points {
            let other = point.manifest().stack != STACK;
            let tagged = point.manifest().tags.iter().any(|tag| policies.keep_tags.contains(tag));
            assert!(left(point) || !other, "a point of another stack is gone");
            assert!(left(point) || !self.held.contains(point.id()), "a held point is gone");
            assert!(left(point) || !tagged, "a point with a tag that keeps it is gone");
        }
        let proved = |point: &&RecoveryPoint| self.proved.contains(point.id());
        let there = |point: &&RecoveryPoint| self.proved_there.contains(point.id());
        let newest = |wanted: &dyn Fn(&&RecoveryPoint) -> bool| self.mine().rev().find(wanted);
        assert!(newest(&proved).is_none_or(left), "the newest proved point is gone");
        assert!(newest(&there).is_none_or(left), "the newest point that its source proved is gone");
        for (policy, points) in self.groups(policies) {
            let gone = points.iter().any(|point| !left(point));
            let newest = points.iter().rev().take(3);
            let failing = points.len() >= 3 && newest.clone().all(|point| point.state() == Completeness::Partial);
            let set = asked(points[0]);
            assert!(!gone || !failing, "retention ran while the newest points of {set:?} were partial");
            let odd = points.last().is_some_and(|point| self.suspicious.contains(point.id()));
            assert!(!gone || !odd, "retention ran while the newest point of {set:?} was suspicious");
            assert!(
                points.iter().rev().copied().find(proved).is_none_or(left),
                "the newest proved point of {set:?} is gone"
            );
            let good: Vec<&RecoveryPoint> = points.iter().copied().filter(|point| self.good(point)).collect();
            let kept = good.iter().filter(|point| left(point)).count();
            let least = good.len().min(policy.min_keep as usize);
            assert!(kept >= least, "{kept} of {} good points of {set:?} are left, {least} must be", good.len());
            assert!(good.last().is_none_or(|point| left(point)), "the newest good point of {set:?} is gone");
            // The newest of each of the newest days.
            let mut days: BTreeMap<Date, &RecoveryPoint> = BTreeMap::new();
            days.extend(good.iter().map(|point| (point.time().to_zoned(zone.clone()).date(), *point)));
            for (day, point) in days.iter().rev().take(policy.daily as usize) {
                assert!(left(point), "the point of {day} of {set:?} is gone");
            }
        }
    }

    /// Retention that keeps everything would break no rule above.
    fn nothing_is_left_for_no_reason(&self, policies: &Policies) {
        let (mut most, mut lesser) = (0, 0);
        for (policy, points) in self.groups(policies) {
            if points.last().is_some_and(|point| self.suspicious.contains(point.id())) {
                return;
            }
            most += 2 + (policy.last + policy.daily + policy.weekly + policy.min_keep) as usize;
            lesser += points.iter().rev().take_while(|point| !self.good(point)).count();
        }
        let mine = self.mine().filter(|point| !self.held.contains(point.id()));
        let left = mine.filter(|point| point.manifest().tags.iter().all(|tag| tag != KEPT_TAG)).count();
        assert!(left <= most + lesser, "{left} points are left, {most} and {lesser} lesser ones may be");
    }
}

/// What a run was asked to save.
fn asked(point: &RecoveryPoint) -> Vec<&str> {
    let manifest = point.manifest();
    let mut names = names(point);
    names.extend(manifest.missing.iter().map(|one| one.id.as_str()));
    names.sort_unstable();
    names
}

fn names(point: &RecoveryPoint) -> Vec<&str> {
    point.manifest().components.iter().map(|one| one.id.as_str()).collect()
}

fn stands_for(point: &RecoveryPoint, record: &ComponentRecord) -> Timestamp {
    record.captured_at.max(point.manifest().started)
}

fn record(name: &str, captured_at: Timestamp) -> ComponentRecord {
    ComponentRecord {
        id: name.parse().unwrap(),
        kind: ComponentKind::Files,
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

fn lacking(name: &str) -> MissingRecord {
    let (code, error) = ("RK-PG-001".to_owned(), "connect".to_owned());
    MissingRecord { id: name.parse().unwrap(), kind: ComponentKind::Files, code, error, hint: None }
}

fn drilled(point: &RecoveryPoint, outcome: Outcome, at: Timestamp) -> ProofRecord {
    let proof = |record: &ComponentRecord| ComponentProof {
        component: record.id.clone(),
        kind: record.kind,
        outcome,
        captured_at: record.captured_at,
        recovered_to: None,
        entries: 0,
        bytes: 0,
        engine: None,
        restore_ms: None,
        elapsed_ms: 1,
        age_seconds: 0,
        steps: Vec::new(),
        findings: Vec::new(),
        problem: None,
        objective: Objective::default(),
        rto: Verdict::Met,
        rpo: Verdict::Met,
    };
    let drill = DrillResult {
        stack: point.manifest().stack.clone(),
        point: point.id().clone(),
        point_time: point.time(),
        components: point.manifest().components.iter().map(proof).collect(),
        guarantees: Vec::new(),
    };
    ProofRecord {
        version: 1,
        sequence: 1,
        previous: None,
        started: at - SignedDuration::from_mins(1),
        finished: at,
        outcome,
        user: String::new(),
        host: String::new(),
        run: String::new(),
        tool: String::new(),
        work: Work::Drill(drill),
    }
}
