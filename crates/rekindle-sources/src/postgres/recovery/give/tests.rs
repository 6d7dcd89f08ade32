use std::process::Command;

use rekindle_core::timeline::{BasePoint, ClusterLog, RecoveryTarget, Stop, plan};
use rekindle_core::wal::{BaseBackup, Cluster, Lsn, SegmentNumber, SystemId, Timeline, WalRange};
use rekindle_testkit::MemoryLog;

use super::*;
use crate::postgres::recovery::NoEyes;

const SIZE: u32 = 1 << 20;

fn byte(number: u64) -> u8 {
    u8::try_from(number).unwrap()
}

fn cluster() -> Cluster {
    Cluster { system: SystemId(7), segment_size: SegmentSize::try_from(SIZE).unwrap() }
}

fn name(number: u64) -> SegmentName {
    SegmentName { timeline: Timeline(1), number: SegmentNumber(number) }
}

fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(second).unwrap()
}

/// A base backup in segment 2 that holds it itself, and the log up to the open segment 9.
fn world() -> (RecoveryPlan, Arc<MemoryLog>) {
    let log = MemoryLog::new(cluster());
    for number in 3..9 {
        log.add(name(number), vec![byte(number); SIZE as usize]);
    }
    log.add_tail(name(9), vec![9; 1000]);
    log.add_history(Timeline(2), b"1\t0/500000\tx\n");
    let (start, stop) = (Lsn(0x20_0028), Lsn(0x20_0190));
    let base = BaseBackup {
        cluster: cluster(),
        server_version: 150_000,
        timeline: Timeline(1),
        start,
        stop,
        started: at(0),
        stopped: at(1),
        wal_ranges: vec![WalRange { timeline: Timeline(1), start, end: stop }],
        tablespaces: Vec::new(),
        checksums: true,
        checksum_failures: 0,
    };
    let base = BasePoint { point: "0".repeat(64).parse().unwrap(), base };
    let mut logs = [ClusterLog { inventory: log.inventory().unwrap(), histories: BTreeMap::new() }];
    // The plan follows timeline 1.
    logs[0].inventory.histories.clear();
    let plan = plan(&RecoveryTarget::new(Stop::Latest), &[base], &logs, &mut NoEyes).unwrap();
    (plan, log)
}

struct Served {
    _place: tempfile::TempDir,
    data: PathBuf,
    giver: Giver,
}

fn serve(plan: &RecoveryPlan, log: &Arc<MemoryLog>) -> Served {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("it's 100% data");
    fs::create_dir(&data).unwrap();
    let mut warnings = Vec::new();
    let giver = Giver::start(&data, None, plan, Some(Arc::clone(log) as _), &mut warnings).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    Served { _place: place, data, giver }
}

impl Served {
    /// What PostgreSQL does: `%f`, `%p` and `%%` are replaced, a shell runs it.
    fn ask(&self, file: &str) -> (i32, Vec<u8>) {
        let to = self.data.join("RECOVERYXLOG");
        let _ = fs::remove_file(&to);
        let command = self.giver.restore_command();
        let command = command.replace("%f", file).replace("%p", to.to_str().unwrap()).replace("%%", "%");
        let status = Command::new("/bin/sh").arg("-c").arg(command).status().unwrap();
        (status.code().unwrap(), fs::read(&to).unwrap_or_default())
    }

    fn ask_for(&self, number: u64) -> (i32, Vec<u8>) {
        self.ask(&name(number).file(cluster().segment_size))
    }
}

#[test]
fn what_the_plan_holds_is_given_and_everything_else_is_absent() {
    let (plan, log) = world();
    let served = serve(&plan, &log);
    assert_eq!(served.ask("00000002.history"), (0, b"1\t0/500000\tx\n".to_vec()));
    assert_eq!(served.ask("00000003.history").0, 1);
    assert_eq!(served.ask_for(2).0, 1, "the server has it from the base backup");
    for number in 3..9 {
        assert_eq!(served.ask_for(number), (0, vec![byte(number); SIZE as usize]));
    }
    // The last one is asked for again at the end of recovery.
    assert_eq!(served.ask_for(8).0, 0);
    let (code, tail) = served.ask_for(9);
    assert_eq!((code, tail.len(), &tail[..1000], tail[1000]), (0, SIZE as usize, &[9; 1000][..], 0));
    for absent in [&name(10).file(cluster().segment_size), "000000020000000000000005", "nonsense"] {
        assert_eq!(served.ask(absent).0, 1, "{absent}");
    }
    assert!(served.giver.taken() >= 6);
    assert!(served.giver.failure().is_none());
    assert_eq!(log.holds(), 1, "retention is kept away");
    drop(served);
    assert_eq!(log.holds(), 0);
}

#[test]
fn damage_stops_the_server_only_when_it_is_wanted() {
    let (plan, log) = world();
    log.damage(name(5));
    let served = serve(&plan, &log);
    assert_eq!(served.ask_for(3).0, 0);
    assert_eq!(served.ask_for(4).0, 0);
    assert!(served.giver.failure().is_none(), "fetched ahead, not wanted yet");
    assert!(served.ask_for(5).0 > 125, "never what looks like the end of the log");
    let fault = served.giver.failure().unwrap();
    assert!(fault.is(codes::PITR_WAL), "{fault:?}");
    assert!(fault.what().contains("000000010000000000000005"), "{fault:?}");
    assert!(fault.hint_text().unwrap().contains("--lsn 0/500000"), "{fault:?}");
    let next = served.ask_for(6).0;
    assert!(next > 125 || next == 0, "stopped, or it stood ready: {next}");
    assert!(served.ask_for(10).0 > 125, "after a failure nothing looks like the end");
}

#[test]
fn a_segment_that_vanished_is_no_end_of_the_log() {
    let (plan, log) = world();
    log.forget(name(3));
    let served = serve(&plan, &log);
    assert!(served.ask_for(3).0 > 125);
}

#[test]
fn everything_can_be_laid_out_at_once() {
    let (plan, log) = world();
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("pg_wal")).unwrap();
    assert_eq!(put_all(place.path(), &plan, Some(&*log)).unwrap(), 7);
    let file = |number| place.path().join("pg_wal").join(name(number).file(cluster().segment_size));
    assert!(!file(2).exists());
    assert_eq!(fs::read(file(9)).unwrap().len(), SIZE as usize);
    log.damage(name(4));
    assert!(put_all(place.path(), &plan, Some(&*log)).unwrap_err().is(codes::PITR_WAL));
}
