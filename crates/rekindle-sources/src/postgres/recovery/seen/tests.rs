use std::collections::BTreeSet;

use rekindle_core::timeline::{Chain, End, Ends, RecoveryTarget, TimelineChoice};
use rekindle_core::wal::{BaseBackup, Cluster, SegmentSize, SystemId};

use super::*;

fn at(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}

fn plan(stop: Stop) -> RecoveryPlan {
    RecoveryPlan {
        point: "0".repeat(64).parse().unwrap(),
        base: BaseBackup {
            cluster: Cluster { system: SystemId(1), segment_size: SegmentSize::DEFAULT },
            server_version: 150_018,
            timeline: Timeline(1),
            start: Lsn(0x200_0028),
            stop: Lsn(0x200_0100),
            started: at("2026-11-24T10:00:00Z"),
            stopped: at("2026-11-24T10:00:01Z"),
            wal_ranges: Vec::new(),
            tablespaces: Vec::new(),
            checksums: true,
            checksum_failures: 0,
        },
        target: RecoveryTarget { stop, inclusive: true, timeline: TimelineChoice::Latest },
        chain: Chain {
            timeline: Timeline(1),
            path: Vec::new(),
            segments: Vec::new(),
            own: BTreeSet::new(),
            tail: None,
            reach: Lsn(0x900_0000),
            end: End::Head,
        },
        ends: Ends { last_record: Some(Lsn(0x8AB_CDE8)), ..Ends::default() },
    }
}

const COMMON: &str = "2026-11-24 10:05:00.001 UTC [7] LOG:  redo starts at 0/2000028\n\
    2026-11-24 10:05:00.002 UTC [7] LOG:  consistent recovery state reached at 0/2000100\n\
    2026-11-24 10:05:01.000 UTC [7] LOG:  redo done at 0/8ABCDE8 system usage: CPU: user: 0.00 s\n\
    2026-11-24 10:05:01.000 UTC [7] LOG:  last completed transaction was at log time 2026-11-24 10:03:00.123456+00\n\
    2026-11-24 10:05:01.000 UTC [7] LOG:  selected new timeline ID: 2\n\
    2026-11-24 10:05:01.000 UTC [6] LOG:  database system is ready to accept connections\n";

fn seen(stop: &str) -> Seen {
    let mut seen = Seen::default();
    let line = format!("2026-11-24 10:05:00.500 UTC [7] LOG:  recovery stopping {stop}");
    let stop = if stop.is_empty() { "" } else { line.as_str() };
    COMMON.lines().chain(stop.lines()).for_each(|line| seen.line(line));
    assert!(seen.ready);
    seen
}

#[test]
fn each_target_is_proved_by_its_own_words() {
    let time = || Stop::Time(at("2026-11-24T10:03:00.2Z"));
    let commit = "before commit of transaction 745, time 2026-11-24 10:03:00.3+00";
    let proved = [
        (time(), commit),
        (time(), "before abort of transaction 745, time 2026-11-24 10:03:00.200001+00"),
        (Stop::Xid(745), "after commit of transaction 745, time 2026-11-24 10:03:00.3+00"),
        (Stop::Lsn(Lsn(0x300_0000)), "after WAL location (LSN) \"0/3000028\""),
        (Stop::Name("a \"b".into()), "at restore point \"a \"b\", time 2026-11-24 10:03:00+00"),
        (Stop::Immediate, "after reaching consistency"),
        (Stop::Latest, ""),
    ];
    for (stop, said) in proved {
        let proof = seen(said).prove(&plan(stop.clone())).unwrap_or_else(|fault| panic!("{stop}: {fault:?}"));
        assert_eq!(proof.timeline, Timeline(2));
        assert_eq!(proof.consistent_at, Some(Lsn(0x200_0100)));
    }
    let refuted = [
        (time(), ""),
        (time(), "after reaching consistency"),
        // Too early, or beyond what was asked for.
        (time(), "before commit of transaction 745, time 2026-11-24 10:03:00.1+00"),
        (Stop::Time(at("2026-11-24T10:03:00.1Z")), commit),
        (Stop::Xid(745), "before commit of transaction 745, time 2026-11-24 10:03:00.3+00"),
        (Stop::Xid(745), "after commit of transaction 746, time 2026-11-24 10:03:00.3+00"),
        (Stop::Lsn(Lsn(0x300_0030)), "after WAL location (LSN) \"0/3000028\""),
        (Stop::Name("b".into()), "at restore point \"a\", time 2026-11-24 10:03:00+00"),
        (Stop::Immediate, ""),
        (Stop::Latest, commit),
    ];
    for (stop, said) in refuted {
        let fault = seen(said).prove(&plan(stop.clone())).unwrap_err();
        assert!(fault.is(codes::PITR_UNPROVED), "{stop}: {fault:?}");
    }
}

#[test]
fn the_end_of_the_log_is_where_its_last_record_is() {
    let mut short = seen("");
    short.redo_done = Some(Lsn(0x7FF_0000));
    assert!(short.prove(&plan(Stop::Latest)).is_err(), "PostgreSQL took damage for the end");
    short.redo_done = None;
    assert!(short.prove(&plan(Stop::Latest)).is_err());
    let mut same = seen("");
    same.timeline = Some(Timeline(1));
    assert!(same.prove(&plan(Stop::Latest)).is_err());
}

#[test]
fn the_reason_of_a_failure_is_kept() {
    let mut seen = Seen::default();
    seen.line("2026-11-24 10:05:00.001 UTC [7] FATAL:  recovery ended before configured recovery target was reached");
    seen.line("postgres: could not access the server configuration file");
    assert_eq!(seen.words.len(), 2);
    assert!(!seen.ready);
}
