//! Full disks, and a repository that is away for a minute.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rekindle_testkit::s3::Mount;
use rekindle_testkit::{Fault, Postgres, PostgresOptions, Proxy, S3, S3Options};

use super::{Room, caught_up, mark, marker_table, markers, options, write_wal};
use crate::acceptance::faults_storage::enlarge;
use crate::acceptance::wal_support::{Log, Receiver, ended, give, lsn, position, server_directory, small_segments};
use crate::run::Place;

/// Fills a file system to its last byte.
fn fill(directory: &Path) {
    let mut file = fs::File::create(directory.join("ballast")).unwrap();
    for size in [1 << 20, 4096] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

fn confirmed(server: &Postgres) -> u64 {
    lsn(server.psql("postgres", "SELECT restart_lsn FROM pg_replication_slots").trim())
}

#[test]
fn full_disks_lose_nothing() {
    let place = Place::new();
    let _disk = Mount::tmpfs(place.path(), 96);
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let directory = server_directory();
    let server = small_segments(15, directory.path(), &[]);
    let log = Log::at(place, None, &server, "stream");
    let room = Room::new();
    marker_table(&server);
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 1");
    log.backup();
    mark(&server, 3);
    caught_up(&log, &server);
    let head = log.head();
    // The repository's disk is full: said, not confirmed, and the server keeps what is not stored.
    fill(log.place.path());
    write_wal(&server, 4);
    mark(&server, 3);
    let last = server.psql("postgres", "SELECT pg_walfile_name(pg_switch_wal())");
    std::thread::sleep(Duration::from_secs(3));
    assert!(confirmed(&server) < position(&server));
    assert!(confirmed(&server) <= log.head(), "confirmed is stored");
    let push = ended(log.command_in(server.data_dir(), &["wal", "push", &format!("pg_wal/{last}")]));
    assert!((1..=125).contains(&push.code) && push.err.contains("RK-ST-006"), "{push:#?}");
    assert!(log.head() >= head);
    fs::remove_file(log.path("ballast")).unwrap();
    caught_up(&log, &server);
    assert_eq!(receiver.stop(), 0);
    let state = log.state();
    assert_eq!((state["runs"].as_array().unwrap().len(), state["gaps"].as_array().unwrap().len()), (1, 0));
    log.place.ends(0, &["wal", "verify", "--deep"]);
    scratch_is_full(&log);
    assert_eq!(markers(&room.recovered(&log, 15, "back", &["--latest"])), markers(&server));
}

/// The disk of `pg_wal` runs full because nobody receives: the server goes down, as PostgreSQL does.
/// `wal status` says what is wrong, and with room and a receiver nothing was lost.
#[test]
fn a_full_disk_under_pg_wal_is_caught_up_with() {
    let room = Room::new();
    let wal = room.path("wal");
    fs::create_dir(&wal).unwrap();
    let _disk = Mount::tmpfs(&wal, 24);
    give(&wal);
    let initdb = ["--wal-segsize", "1", "-X", wal.join("pg_wal").to_str().unwrap()].map(ToOwned::to_owned).to_vec();
    let settings = [("max_wal_size", "4MB"), ("min_wal_size", "2MB")];
    let mut server = Postgres::start(PostgresOptions { initdb, ..options(15, &settings) });
    let log = Log::with(&server, "stream");
    marker_table(&server);
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 1");
    log.backup();
    assert_eq!(receiver.stop(), 0);
    let filled = (0..60).any(|_| {
        let insert = "INSERT INTO marker (at) SELECT clock_timestamp() FROM generate_series(1, 5000)";
        server.try_psql("postgres", insert).is_err()
    });
    assert!(filled && server.log_text().contains("No space left on device"), "{}", server.log_tail());
    let status = log.place.run(&["wal", "status"]);
    assert_eq!(status.code, 4, "{status:#?}");
    server.kill9();
    enlarge(&wal, 200);
    server.restart();
    let kept = markers(&server);
    let receiver = log.receiver(&[]);
    mark(&server, 1);
    caught_up(&log, &server);
    assert_eq!(receiver.stop(), 0);
    assert!(log.state()["gaps"].as_array().unwrap().is_empty());
    log.place.ends(0, &["wal", "verify", "--deep"]);
    let back = markers(&room.recovered(&log, 15, "back", &["--latest"]));
    assert!(back.starts_with(&kept) && back == markers(&server));
}

/// The disk where WAL is fetched to, and the one of the prefetched.
fn scratch_is_full(log: &Log) {
    let scratch = tempfile::tempdir().unwrap();
    let _disk = Mount::tmpfs(scratch.path(), 3);
    let spool = scratch.path().join("spool");
    fs::create_dir(&spool).unwrap();
    fs::set_permissions(&spool, PermissionsExt::from_mode(0o700)).unwrap();
    fill(scratch.path());
    let name = log.state()["runs"][0]["first"].as_str().unwrap().to_owned();
    assert_eq!(log.fetch(scratch.path(), &name), 200, "never taken for the end of the archive");
    assert!(!scratch.path().join("fetched").exists());
    // What is fetched ahead is a convenience: without room for it each segment comes by itself.
    let elsewhere = tempfile::tempdir().unwrap();
    let spool = spool.display().to_string();
    for _ in 0..2 {
        let fetch = ["wal", "fetch", &name, "fetched", "--spool", &spool, "--prefetch", "4"];
        let fetched = ended(log.command_in(elsewhere.path(), &fetch));
        assert_eq!(fetched.code, 0, "{fetched:#?}");
        assert_eq!(fs::metadata(elsewhere.path().join("fetched")).unwrap().len(), 1 << 20);
    }
    // A cluster does not fit: known before anything is written.
    let to = scratch.path().join("cluster").display().to_string();
    let refused = log.place.json(21, &["restore", "database", "--to", &to, "--latest"]);
    assert!(refused.to_string().contains("RK-PT-011"), "{refused:#}");
    assert!(!Path::new(&to).exists());
}

/// A log on S3, behind a proxy.
fn log_on(s3: &S3, port: u16, server: &Postgres) -> Log {
    let mut place = Place::new();
    let key = s3.admin_key();
    place.set("AWS_ACCESS_KEY_ID", &key.access);
    place.set("AWS_SECRET_ACCESS_KEY", &key.secret);
    place.write("s3-access", &key.access);
    place.write("s3-secret", &key.secret);
    let url = format!("s3://{}/shop?endpoint=http://127.0.0.1:{port}&region={}", s3.bucket(), s3.region());
    let root = place.path().display();
    let more = format!("access-key-id = \"file:{root}/s3-access\"\nsecret-access-key = \"file:{root}/s3-secret\"\n");
    Log::at(place, Some((url, more)), server, "stream")
}

/// Nothing of the repository answers for a minute, as behind a broken network: nobody hangs for ever,
/// nothing is confirmed that is not stored, and afterwards everything is there.
#[test]
fn a_repository_that_is_away_for_a_minute() {
    let (s3, server) = (S3::start(S3Options::default()), Postgres::start(options(15, &[])));
    let proxy = Proxy::start(s3.port());
    let log = log_on(&s3, proxy.port(), &server);
    let room = Room::new();
    marker_table(&server);
    let receiver: Receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 1");
    log.backup();
    mark(&server, 3);
    let first = server.psql("postgres", "SELECT pg_walfile_name(pg_switch_wal())");
    caught_up(&log, &server);
    proxy.set(Fault::Stall);
    let begun = Instant::now();
    mark(&server, 10);
    std::thread::sleep(Duration::from_secs(1));
    let unconfirmed = position(&server);
    // `archive_command` gives up in time to be asked again.
    let push = ended(log.command_in(server.data_dir(), &["wal", "push", &format!("pg_wal/{first}")]));
    assert!((1..=125).contains(&push.code), "{push:#?}");
    assert!(begun.elapsed() < Duration::from_secs(75), "{:?}", begun.elapsed());
    mark(&server, 10);
    std::thread::sleep(Duration::from_mins(1).saturating_sub(begun.elapsed()));
    assert!(confirmed(&server) < unconfirmed, "nothing of this minute is stored");
    proxy.set(Fault::None);
    caught_up(&log, &server);
    assert_eq!(receiver.stop(), 0);
    assert!(log.state()["gaps"].as_array().unwrap().is_empty());
    log.place.ends(0, &["wal", "verify", "--deep"]);
    assert_eq!(markers(&room.recovered(&log, 15, "back", &["--latest"])), markers(&server));
}
