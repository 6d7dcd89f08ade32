//! `wal push` and `wal fetch` as `archive_command` and `restore_command` need them: every exit code.

use std::fs;
use std::path::{Path, PathBuf};

use rekindle_core::wal::{Cluster, SegmentName, SegmentNumber, SegmentSize, SystemId, Timeline, sample_segment};

use super::wal_support::{Log, ended};

const MIB: u32 = 1 << 20;

fn cluster() -> Cluster {
    Cluster { system: SystemId(7_434_000_000_000_000_001), segment_size: SegmentSize::try_from(MIB).unwrap() }
}

fn segment(timeline: u32, number: u64) -> SegmentName {
    SegmentName { timeline: Timeline(timeline), number: SegmentNumber(number) }
}

fn file(timeline: u32, number: u64) -> String {
    segment(timeline, number).file(cluster().segment_size)
}

/// A data directory with segments in `pg_wal`, and no server.
struct Data {
    log: Log,
    directory: tempfile::TempDir,
}

impl Data {
    fn new() -> Self {
        let data = Self { log: Log::new(1, "unused"), directory: tempfile::tempdir().unwrap() };
        fs::create_dir(data.path().join("pg_wal")).unwrap();
        data
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = format!("pg_wal/{name}");
        fs::write(self.path().join(&path), bytes).unwrap();
        path
    }

    fn sample(&self, timeline: u32, number: u64) -> String {
        let bytes = sample_segment(segment(timeline, number), cluster(), 15, u8::try_from(number % 250).unwrap());
        self.write(&file(timeline, number), &bytes)
    }

    /// Exit code of `wal push`.
    fn push(&self, path: &str) -> i32 {
        let ended = ended(self.log.command_in(self.path(), &["wal", "push", path]));
        assert!(ended.out.is_empty(), "archive_command is silent: {ended:#?}");
        ended.code
    }

    fn fetch(&self, name: &str) -> i32 {
        self.log.fetch(self.path(), name)
    }

    fn object(&self, path: &str) -> PathBuf {
        self.log.path(&format!("repo/rekindle/wal/{}/{path}", cluster().system))
    }
}

#[test]
fn what_was_pushed_comes_back_and_nothing_is_overwritten() {
    let data = Data::new();
    let path = data.sample(1, 5);
    assert_eq!(data.push(&path), 0);
    assert_eq!(data.push(&path), 0, "the same again");
    assert_eq!(data.fetch(&file(1, 5)), 0);
    assert_eq!(fs::read(data.path().join("fetched")).unwrap(), fs::read(data.path().join(&path)).unwrap());
    // A second server with the same configuration: split brain.
    let mut other = fs::read(data.path().join(&path)).unwrap();
    other[9000] ^= 1;
    fs::write(data.path().join(&path), &other).unwrap();
    let conflict = ended(data.log.command_in(data.path(), &["wal", "push", &path]));
    assert_eq!(conflict.code, 21);
    conflict.says("RK-WA-001", &["nothing was overwritten"]);
    assert!(conflict.err.contains("CONFLICT"), "{conflict:#?}");
    assert_eq!(data.fetch(&file(1, 5)), 0);
    assert_ne!(fs::read(data.path().join("fetched")).unwrap(), other);
    // The other kinds of files.
    let partial = data.write(&format!("{}.partial", file(1, 6)), &sample_segment(segment(1, 6), cluster(), 15, 1));
    let label = data.write(&format!("{}.00000028.backup", file(1, 5)), b"START WAL LOCATION: 0/500028\n");
    let history = data.write("00000002.history", b"1\t0/680000\tno recovery target specified\n");
    for path in [&partial, &label, &history] {
        assert_eq!(data.push(path), 0, "{path}");
    }
    assert_eq!(data.fetch("00000002.history"), 0);
}

#[test]
fn push_refuses_with_a_code_that_the_archiver_counts() {
    let data = Data::new();
    assert_eq!(data.push(&data.sample(1, 5)), 0);
    let whole = sample_segment(segment(1, 6), cluster(), 15, 1);
    let stranger = Cluster { system: SystemId(99), ..cluster() };
    let cut = data.write(&file(1, 6), &whole[..40_000]);
    assert_eq!(data.push(&cut), 21, "truncated");
    assert_eq!(data.push(&data.write(&file(1, 7), &whole)), 21, "under another name");
    assert_eq!(data.push(&data.write(&file(1, 6), &[0; 100])), 21, "no WAL");
    assert_eq!(data.push(&data.write("000000010000000000000006.gz", &whole)), 21, "no name of PostgreSQL's");
    let foreign = data.write(&file(1, 6), &sample_segment(segment(1, 6), stranger, 15, 1));
    let refused = ended(data.log.command_in(data.path(), &["wal", "push", &foreign]));
    assert_eq!(refused.code, 21);
    refused.says("RK-WA-002", &["wal bind database --system 99"]);
    assert_eq!(data.push("pg_wal/000000010000000000000099"), 1, "no such file");
    for arguments in [&["wal", "push"][..], &["wal", "push", "a", "b"]] {
        assert_eq!(ended(data.log.command_in(data.path(), arguments)).code, 2);
    }
    fs::rename(data.log.path("repo"), data.log.path("away")).unwrap();
    let away = data.push(&data.sample(1, 6));
    assert!((1..=125).contains(&away), "{away}");
    fs::rename(data.log.path("away"), data.log.path("repo")).unwrap();
    fs::write(data.log.path("key"), "another key of this length").unwrap();
    assert_eq!(data.push(&data.sample(1, 6)), 12);
    // Bound to the new cluster on purpose.
    fs::write(data.log.path("key"), "canary-repository-of-the-log\n").unwrap();
    data.log.place.ends(0, &["wal", "bind", "database", "--system", "99", "--segment-size", "1048576"]);
    assert_eq!(data.push(&data.write(&file(1, 6), &sample_segment(segment(1, 6), stranger, 15, 1))), 0);
    assert_eq!(data.push(&data.sample(1, 8)), 21, "the old one is the wrong one now");
}

#[test]
fn fetch_says_absent_only_when_it_is_proved() {
    let data = Data::new();
    for number in [5, 6, 8] {
        assert_eq!(data.push(&data.sample(1, number)), 0);
    }
    assert_eq!(data.fetch(&file(1, 9)), 1, "the end of the archive");
    assert_eq!(data.fetch("00000002.history"), 1);
    assert_eq!(data.fetch(&file(1, 7)), 200, "a hole is not the end");
    assert_eq!(data.push(&data.sample(2, 9)), 0);
    assert_eq!(data.fetch("00000002.history"), 200, "the timeline exists");
    for wrong in ["nonsense", "000000010000000000000005.gz"] {
        assert_eq!(data.fetch(wrong), 200, "{wrong}");
    }
    let code = |arguments: &[&str]| ended(data.log.command_in(data.path(), arguments)).code;
    assert_eq!(code(&["wal", "fetch"]), 200, "a wrong command line");
    assert_eq!(code(&["wal", "fetch", &file(1, 5), "fetched", "--nonsense"]), 200);
    assert_eq!(code(&["wal", "fetch", &file(1, 5), "no/such/place", "--prefetch", "0"]), 200);
    assert_eq!(code(&["wal", "fetch", &file(1, 5), "fetched", "--system", "5"]), 200, "no such log");
    // A data directory of another cluster.
    fs::create_dir(data.path().join("global")).unwrap();
    let mut control = vec![0_u8; 8192];
    control[..8].copy_from_slice(&5_u64.to_le_bytes());
    control[200..208].copy_from_slice(&1_234_567.0_f64.to_le_bytes());
    control[220..224].copy_from_slice(&MIB.to_le_bytes());
    fs::write(data.path().join("global/pg_control"), &control).unwrap();
    assert_eq!(data.fetch(&file(1, 5)), 200, "another cluster");
    fs::remove_dir_all(data.path().join("global")).unwrap();
    fs::write(data.path().join("standby.signal"), "").unwrap();
    assert_eq!(data.fetch(&file(1, 7)), 1, "a standby asks again");
    fs::remove_file(data.path().join("standby.signal")).unwrap();
    // Storage and key.
    fs::rename(data.log.path("repo"), data.log.path("away")).unwrap();
    assert_eq!(data.fetch(&file(1, 5)), 200);
    fs::create_dir(data.log.path("repo")).unwrap();
    assert_eq!(data.fetch(&file(1, 9)), 200, "an empty disk is not an empty log");
    fs::remove_dir(data.log.path("repo")).unwrap();
    fs::rename(data.log.path("away"), data.log.path("repo")).unwrap();
    fs::rename(data.log.path("key"), data.log.path("lost")).unwrap();
    assert_eq!(data.fetch(&file(1, 9)), 200, "no key");
    fs::write(data.log.path("key"), "another key of this length").unwrap();
    assert_eq!(data.fetch(&file(1, 9)), 200, "a wrong key");
}

#[test]
fn a_damaged_segment_is_named_and_stops_the_server() {
    let data = Data::new();
    for number in 5..8 {
        assert_eq!(data.push(&data.sample(1, number)), 0);
    }
    let object = data.object(&format!("00000001/{}", file(1, 6)));
    let good = fs::read(&object).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    for (what, bytes) in [("bit flip", &bad[..]), ("truncated", &good[..100]), ("empty", &[])] {
        fs::write(&object, bytes).unwrap();
        assert_eq!(data.fetch(&file(1, 6)), 200, "{what}");
        let ended = data.log.place.run(&["wal", "verify", "--deep"]);
        assert_eq!(ended.code, 4, "{what}: {ended:#?}");
        assert!(ended.out.contains(&file(1, 6)), "{what}: {ended:#?}");
    }
    let whole = data.log.place.run(&["verify", "--read-data"]);
    assert_eq!(whole.code, 13, "{whole:#?}");
    assert!(format!("{whole:?}").contains(&file(1, 6)), "{whole:#?}");
    // A good object under another name.
    fs::copy(data.object(&format!("00000001/{}", file(1, 5))), &object).unwrap();
    assert_eq!(data.fetch(&file(1, 6)), 200);
    fs::write(&object, good).unwrap();
    data.log.place.ends(0, &["wal", "verify", "--deep"]);
    fs::remove_file(&object).unwrap();
    assert_eq!(data.fetch(&file(1, 6)), 200, "hidden in the middle");
}

#[test]
fn segments_are_fetched_ahead_and_no_process_stays() {
    let data = Data::new();
    for number in 5..16 {
        assert_eq!(data.push(&data.sample(1, number)), 0);
    }
    let spool = data.path().join("spool");
    fs::create_dir(&spool).unwrap();
    std::os::unix::fs::chown(&spool, None, None).unwrap();
    fs::set_permissions(&spool, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let spool = spool.display().to_string();
    let mut from = Vec::new();
    for number in 5..16 {
        let name = file(1, number);
        let arguments = ["wal", "fetch", &name, "fetched", "--spool", &spool, "--prefetch", "4", "--json"];
        let ended = ended(data.log.command_in(data.path(), &arguments));
        assert_eq!(ended.code, 0, "{ended:#?}");
        let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
        from.push(value["result"]["from"].as_str().unwrap().to_owned());
        assert_eq!(
            fs::read(data.path().join("fetched")).unwrap(),
            fs::read(data.path().join("pg_wal").join(&name)).unwrap()
        );
        std::thread::sleep(std::time::Duration::from_millis(150));
    }
    assert!(from.iter().any(|from| from == "fetched ahead"), "{from:?}");
    // What lies in the spool is checked again.
    let inside = fs::read_dir(&spool).unwrap().next().unwrap().unwrap().path();
    let name = file(1, 12);
    fs::write(inside.join(format!("{name}.{}", "ab".repeat(32))), b"nonsense").unwrap();
    let ended = ended(data.log.command_in(data.path(), &["wal", "fetch", &name, "fetched", "--spool", &spool]));
    assert_eq!(ended.code, 0, "{ended:#?}");
    assert_eq!(
        fs::read(data.path().join("fetched")).unwrap(),
        fs::read(data.path().join("pg_wal").join(&name)).unwrap()
    );
    let begun = std::time::Instant::now();
    while prefetchers(&spool) > 0 {
        assert!(begun.elapsed().as_secs() < 20, "a helper stays");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Helpers that use this spool, by their command lines.
fn prefetchers(spool: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines
        .filter(|line| {
            let line = String::from_utf8_lossy(line);
            line.contains(spool) && line.contains("prefetch")
        })
        .count()
}
