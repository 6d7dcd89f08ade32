//! Recovery of a physical base backup to a moment, on real servers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rekindle_core::Fault;
use rekindle_core::codes;
use rekindle_core::port::{Level, Target};
use rekindle_core::timeline::{RecoveryTarget, Stop, TimelineChoice};
use rekindle_core::wal::{Timeline, WalMode};
use rekindle_sources::postgres::{
    Heartbeat, PostgresOptions, beat, create_restore_point, look_at_log, prepare_heartbeat,
};
use rekindle_testkit::Postgres;

use crate::recovery_support::{MARKERS, Recovering, World, planned, segment_at, tokio_test};

fn to(stop: Stop) -> RecoveryTarget {
    RecoveryTarget::new(stop)
}

fn all_good(recovering: &Recovering) {
    for finding in &recovering.findings {
        assert_eq!(finding.level, Level::Good, "{finding:?}");
    }
}

fn is_fault<T>(outcome: Result<T, Fault>, code: &'static rekindle_core::ErrorCode) -> Fault {
    match outcome {
        Ok(_) => panic!("this should be {}", code.id),
        Err(fault) => {
            assert!(fault.is(code), "{fault:?}");
            fault
        }
    }
}

#[test]
fn every_version_comes_back_to_a_moment_and_to_its_end() {
    for major in [14, 16, 17, 18] {
        let world = World::new(major);
        let part = world.base("base");
        world.mark();
        let moment = world.now();
        world.mark();
        world.archive();
        let log = world.log();
        let recovery = planned(&to(Stop::Time(moment)), &[&part], &log).unwrap();
        let recovering = world.recover(recovery, &part, "moment").unwrap();
        all_good(&recovering);
        let copy = world.serve(&recovering.data);
        assert_eq!(copy.psql("postgres", MARKERS), "1", "PostgreSQL {major}");
        drop(copy);
        let recovery = planned(&to(Stop::Latest), &[&part], &log).unwrap();
        let recovering = world.recover(recovery, &part, "latest").unwrap();
        all_good(&recovering);
        assert_eq!(world.serve(&recovering.data).psql("postgres", MARKERS), "1,2,3", "PostgreSQL {major}");
    }
}

#[test]
fn every_kind_of_target_is_met_and_damage_is_named() {
    let world = World::new(15);
    let part = world.base("base");
    world.mark();
    world.server.psql("postgres", "SELECT pg_create_restore_point('before ''the'' change')");
    let xid = world.server.psql("postgres", "INSERT INTO marker DEFAULT VALUES RETURNING xmin");
    let lsn = world.server.psql("postgres", "SELECT pg_current_wal_insert_lsn()");
    world.archive();
    world.mark();
    world.archive();
    let log = world.log();
    let name = Stop::name("before 'the' change").unwrap();
    let exclusive = |stop: &Stop| RecoveryTarget { inclusive: false, ..to(stop.clone()) };
    let xid = Stop::xid(&xid).unwrap();
    let wanted = [
        (to(Stop::Immediate), ""),
        (to(name.clone()), "1"),
        (to(xid.clone()), "1,2"),
        (exclusive(&xid), "1"),
        (to(Stop::lsn(&lsn).unwrap()), "1,2"),
        (to(Stop::Latest), "1,2,3,4,5"),
    ];
    for (number, (target, markers)) in wanted.into_iter().enumerate() {
        let recovery = planned(&target, &[&part], &log).unwrap();
        let recovering = world.recover(recovery, &part, &format!("restored-{number}")).unwrap();
        all_good(&recovering);
        let copy = world.serve(&recovering.data);
        // The position is the next record's, which may hold a commit of its own.
        let found = copy.psql("postgres", MARKERS);
        let same = found == markers || (matches!(target.stop, Stop::Lsn(_)) && found == "1,2,3");
        assert!(same, "{target:?}: {found}");
    }
    // A segment that cannot be read: never what looks like the end.
    log.damage(segment_at(&log, 0));
    let mut recovery = planned(&to(Stop::Latest), &[&part], &log).unwrap();
    recovery.plan.ends.last_record = None;
    let fault = is_fault(world.recover(recovery, &part, "damaged"), codes::PITR_WAL);
    let file = segment_at(&log, 0).file(world.cluster().segment_size);
    assert!(fault.chain().contains(&file), "{fault:?}");
    assert!(!world.path("damaged/pg_wal/00000002.history").exists(), "it was not promoted");
    assert!(world.path("damaged/recovery.signal").exists(), "and will not be by a start of its own");
    // What stops before the damage is not concerned.
    let recovery = planned(&to(name), &[&part], &log).unwrap();
    all_good(&world.recover(recovery, &part, "before").unwrap());
    // The end of the log that the server takes for granted is compared with what the log holds.
    let whole = world.log();
    let mut recovery = planned(&to(Stop::Latest), &[&part], &whole).unwrap();
    recovery.plan.chain.segments.pop();
    is_fault(world.recover(recovery, &part, "short"), codes::PITR_UNPROVED);
}

#[test]
fn both_sides_of_a_promotion_come_back() {
    let mut world = World::new(15);
    let first = world.base("first");
    world.mark();
    let before = world.now();
    world.mark();
    let late = world.now();
    world.mark();
    world.archive();
    let recovery = planned(&to(Stop::Time(before)), &[&first], &world.log()).unwrap();
    let promoted = world.recover(recovery, &first, "promoted").unwrap();
    world.go_on_with(&promoted.data);
    assert_eq!(world.server.psql("postgres", MARKERS), "1");
    world.server.psql("postgres", "INSERT INTO marker VALUES (100)");
    let second = world.base("second");
    let between = world.now();
    world.server.psql("postgres", "INSERT INTO marker VALUES (101)");
    world.server.psql("postgres", "INSERT INTO marker VALUES (102)");
    world.archive();
    // The copy recovered with archiving off: its history goes to the archive by hand, as an operator
    // who puts a copy into service does it.
    let history = promoted.data.join("pg_wal/00000002.history");
    fs::copy(&history, world.path("archive/00000002.history")).unwrap();
    let log = world.log();
    let parts = [&first, &second];
    let after = |name: &str, target: &RecoveryTarget| {
        let recovery = planned(target, &parts, &log).unwrap();
        let part = if recovery.plan.base == first.base { &first } else { &second };
        let recovering = world.recover(recovery, part, name).unwrap();
        all_good(&recovering);
        (world.serve(&recovering.data).psql("postgres", MARKERS), recovering.recovered().proof.unwrap().timeline.0)
    };
    assert_eq!(after("old-side", &to(Stop::Time(before))), ("1".to_owned(), 3));
    assert_eq!(after("new-side", &to(Stop::Time(between))), ("1,100".to_owned(), 3));
    let old_line = RecoveryTarget { timeline: TimelineChoice::Number(Timeline(1)), ..to(Stop::Time(late)) };
    // The number of a new timeline is never one that exists.
    assert_eq!(after("left-line", &old_line), ("1,2".to_owned(), 3));
    log.forget_history(Timeline(2));
    is_fault(planned(&to(Stop::Latest), &parts, &log), codes::PITR_HISTORY);
}

#[test]
fn tablespaces_go_to_the_new_place_and_a_directory_can_be_left_to_recover_by_itself() {
    let world = World::new(15);
    let space = world.path("space");
    fs::create_dir(&space).unwrap();
    give(&space);
    let sql = format!("CREATE TABLESPACE fast LOCATION '{}'", space.display());
    world.server.psql("postgres", &sql);
    world.server.psql("postgres", "CREATE TABLE there (id int) TABLESPACE fast");
    world.server.psql("postgres", "INSERT INTO there SELECT generate_series(1, 1000)");
    let part = world.base("base");
    world.server.psql("postgres", "INSERT INTO there VALUES (1001)");
    world.mark();
    let moment = world.now();
    world.server.psql("postgres", "DELETE FROM there");
    world.archive();
    let log = world.log();
    let mut recovery = planned(&to(Stop::Time(moment)), &[&part], &log).unwrap();
    let recovering = world.recover(recovery.clone(), &part, "restored").unwrap();
    all_good(&recovering);
    let copy = world.serve(&recovering.data);
    assert_eq!(copy.psql("postgres", "SELECT count(*), max(id) FROM there"), "1001|1001");
    let location =
        copy.psql("postgres", "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'");
    assert!(location.starts_with(world.path("restored.tablespaces").to_str().unwrap()), "{location}");
    assert_eq!(world.server.psql("postgres", "SELECT count(*) FROM there"), "0", "the original's is another");
    drop(copy);
    // A second restore into a place with something in it is refused before anything is written.
    is_fault(world.recover(recovery.clone(), &part, "restored"), codes::PITR_PLACE);

    recovery.no_start = true;
    let left = world.recover(recovery, &part, "left").unwrap();
    assert_eq!(left.findings.len(), 1);
    assert_eq!(left.findings[0].level, Level::Warning);
    assert!(left.report.warnings.iter().any(|warning| warning.contains("pg_ctl")), "{:?}", left.report.warnings);
    let copy = world.serve(&left.data);
    wait_until(|| copy.try_psql("postgres", "SELECT pg_is_in_recovery()").as_deref() == Ok("f"));
    assert_eq!(copy.psql("postgres", "SELECT count(*), max(id) FROM there"), "1001|1001");
}

#[test]
fn in_place_means_beside_proved_and_then_exchanged() {
    let mut world = World::new(15);
    let part = world.base("base");
    world.mark();
    let moment = world.now();
    world.mark();
    world.archive();
    let log = world.log();
    let recovery = planned(&to(Stop::Time(moment)), &[&part], &log).unwrap();
    let live = world.server.data_dir().to_owned();
    let options = PostgresOptions { data_dir: Some(live.clone()), ..world.options() };
    let in_place = |discard_old| Target::InPlace { discard_old };
    is_fault(world.recover_to(recovery.clone(), &part, in_place(false), options.clone()), codes::PITR_PLACE);
    assert_eq!(world.server.psql("postgres", MARKERS), "1,2,3", "the running server was not touched");
    world.server.stop();
    is_fault(world.recover_to(recovery.clone(), &part, in_place(true), options.clone()), codes::PITR_PLACE);
    let control = live.join("global/pg_control");
    let bytes = fs::read(&control).unwrap();
    let mut other = bytes.clone();
    other[0] ^= 1;
    fs::write(&control, &other).unwrap();
    is_fault(world.recover_to(recovery.clone(), &part, in_place(false), options.clone()), codes::PITR_SYSTEM);
    fs::write(&control, &bytes).unwrap();
    let (report, findings) = world.recover_to(recovery, &part, in_place(false), options).unwrap();
    assert!(findings.iter().all(|finding| finding.level == Level::Good), "{findings:?}");
    let kept = report.kept_old.unwrap();
    assert!(Path::new(&kept).join("global/pg_control").exists());
    world.server.restart();
    assert_eq!(world.server.psql("postgres", MARKERS), "1");
    // The history of the new timeline reaches the archive from the real server.
    wait_until(|| world.path("archive/00000002.history").exists());
}

#[test]
fn a_lost_segment_of_the_base_backup_and_a_closed_directory_are_refused_before_anything_is_written() {
    let world = World::new(15);
    let part = world.base("base");
    let recovery = || {
        let recovery = planned(&to(Stop::Immediate), &[&part], &world.log()).unwrap();
        rekindle_core::port::Recovery { log: None, ..recovery }
    };
    let closed = tempfile::tempdir().unwrap();
    if Postgres::os_user().is_some() {
        fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let name = closed.path().join("x");
        let fault = is_fault(world.recover(recovery(), &part, name.to_str().unwrap()), codes::PITR_PLACE);
        assert!(fault.chain().contains("may not pass"), "{fault:?}");
    }
    for entry in fs::read_dir(world.path("base/data/pg_wal")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let target = to(Stop::Immediate);
    let mut alone = planned(&target, &[&part], &rekindle_testkit::MemoryLog::new(world.cluster())).unwrap();
    alone.log = None;
    is_fault(world.recover(alone, &part, "lost"), codes::PITR_HOLE);
    assert!(!world.path("lost").exists());
}

#[test]
fn a_base_backup_alone_comes_back_without_a_log() {
    let world = World::new(15);
    world.mark();
    let part = world.base("base");
    world.mark();
    let mut alone = planned(&to(Stop::Immediate), &[&part], &world.log()).unwrap();
    alone.log = None;
    let recovering = world.recover(alone, &part, "restored").unwrap();
    all_good(&recovering);
    assert_eq!(world.serve(&recovering.data).psql("postgres", MARKERS), "1");
    let mode = fs::metadata(&recovering.data).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_heartbeat_makes_an_idle_cluster_recoverable_to_now() {
    let world = World::new(15);
    let part = world.base("base");
    world.mark();
    let options = world.options();
    let beat = |how| tokio_test(beat(&options, how)).unwrap();
    tokio_test(prepare_heartbeat(&options)).unwrap();
    let first = beat(Heartbeat::Table);
    let quiet = world.now();
    // Without a later commit nobody can know whether the log goes that far.
    world.server.psql("postgres", "SELECT pg_create_restore_point('no commit')");
    switch_quietly(&world);
    is_fault(planned(&to(Stop::Time(quiet)), &[&part], &world.log()), codes::PITR_AFTER);
    for how in [Heartbeat::Message, Heartbeat::Table] {
        let second = beat(how);
        assert!(second.lsn > first.lsn && second.at > first.at);
        switch_quietly(&world);
        let recovery = planned(&to(Stop::Time(quiet)), &[&part], &world.log()).unwrap();
        let recovering = world.recover(recovery, &part, &format!("{how:?}")).unwrap();
        all_good(&recovering);
        let told =
            recovering.findings.iter().any(|finding| finding.text.contains("heartbeat in `postgres` is number 1,"));
        assert!(told, "{:?}", recovering.findings);
        assert_eq!(world.serve(&recovering.data).psql("postgres", MARKERS), "1");
    }
    let named = tokio_test(create_restore_point(&options, "by name")).unwrap();
    assert!(named.lsn > first.lsn);
    let role = "CREATE ROLE weak LOGIN PASSWORD 'canary-weak'";
    world.server.psql("postgres", role);
    let mut weak = world.options();
    weak.url.user = "weak".to_owned();
    weak.password = Some(rekindle_core::Secret::new("canary-weak".to_owned()));
    let fault = is_fault(tokio_test(create_restore_point(&weak, "no")), codes::PG_PRIVILEGE);
    assert!(fault.hint_text().unwrap().contains("GRANT EXECUTE ON FUNCTION pg_create_restore_point"), "{fault:?}");
    doctor(&world, &weak);
}

/// What the look at a server says to a role without rights, and that its SQL helps.
fn doctor(world: &World, weak: &PostgresOptions) {
    let look = || tokio_test(look_at_log(weak, WalMode::Both, "rekindle_shop_database")).unwrap();
    let findings = look();
    let bad: Vec<_> = findings.iter().filter(|finding| finding.level == Level::Bad).collect();
    assert!(bad.iter().any(|finding| finding.text.contains("replication connection")), "{findings:?}");
    let remedy = bad[0].remedy.clone().unwrap();
    assert!(remedy.contains("hostssl replication") && remedy.contains("LOGIN REPLICATION"), "{remedy}");
    world.server.psql("postgres", "ALTER ROLE weak REPLICATION");
    world.server.psql("postgres", "GRANT EXECUTE ON FUNCTION pg_create_restore_point(text) TO weak");
    world.server.psql("postgres", "SELECT pg_create_physical_replication_slot('rekindle_shop_database', true)");
    world.server.psql("postgres", "ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'");
    world.server.psql("postgres", "SELECT pg_reload_conf()");
    wait_until(|| world.server.psql("postgres", "SHOW max_slot_wal_keep_size") == "1GB");
    let left: Vec<String> =
        look().into_iter().filter(|finding| finding.level > Level::Good).map(|finding| finding.text).collect();
    // The tests' server runs without fsync and full pages, and its archive command is not ours.
    let known = ["full_page_writes", "fsync", "archive_command"];
    assert_eq!(left.len(), known.len(), "{left:?}");
    assert!(known.iter().all(|word| left.iter().any(|text| text.contains(word))), "{left:?}");
}

/// Closes the segment without a commit.
fn switch_quietly(world: &World) {
    let file = world.server.psql("postgres", "SELECT pg_walfile_name(pg_switch_wal())");
    wait_until(|| world.path("archive").join(&file).exists());
}

fn give(path: &Path) {
    if let Some((uid, gid)) = Postgres::os_user() {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    }
}

fn wait_until(mut met: impl FnMut() -> bool) {
    let since = std::time::Instant::now();
    while !met() {
        assert!(since.elapsed() < Duration::from_mins(1), "it did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}
