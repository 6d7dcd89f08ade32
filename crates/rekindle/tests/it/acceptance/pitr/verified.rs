//! What `restore` lays out, before any server touches it, against the manifest that came with the backup.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Output;

use rekindle_testkit::{Postgres, tools};

use super::{Room, caught_up, mark, marker_table, markers, numbers, options, serve, write_wal};
use crate::acceptance::wal_support::{Log, ended, give};

fn verified(server: &Postgres, data: &Path) -> Output {
    server.client("pg_verifybackup").arg(data).output().unwrap()
}

/// The newest point, laid out and not started; it passes, and it is not passed once a byte is another one.
fn passes(log: &Log, server: &Postgres, data: &Path) {
    log.restore(0, data, &["--immediate", "--no-start"]);
    assert!(data.join("recovery.signal").exists() && data.join("backup_manifest").exists());
    let told = verified(server, data);
    assert!(told.status.success(), "{}: {told:?}", server.major());
    let file = data.join(server.psql("postgres", "SELECT pg_relation_filepath('marker')").trim());
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 8000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 8000).unwrap();
    let told = verified(server, data);
    assert!(!told.status.success(), "another byte is noticed");
    file.write_all_at(&byte, 8000).unwrap();
}

#[test]
fn what_is_laid_out_passes_pg_verifybackup() {
    for major in [15, 17] {
        let settings: &[(&str, &str)] = if major >= 17 { &[("summarize_wal", "on")] } else { &[] };
        let server = Postgres::start(options(major, settings));
        let log = Log::with(&server, "none");
        let room = Room::new();
        let outside = room.path("outside");
        fs::create_dir(&outside).unwrap();
        give(&outside);
        server.psql("postgres", &format!("CREATE TABLESPACE elsewhere LOCATION '{}'", outside.display()));
        server.psql("postgres", "CREATE TABLE there TABLESPACE elsewhere AS SELECT generate_series(1, 5000) n");
        marker_table(&server);
        mark(&server, 1000);
        write_wal(&server, 5);
        log.backup();
        passes(&log, &server, &room.path("full"));
        mark(&server, 200);
        server.psql("postgres", "UPDATE there SET n = n + 1 WHERE n < 100; CHECKPOINT");
        log.backup();
        let shown = log.place.json(0, &["show", "latest"]);
        let taken = &shown["result"]["manifest"]["components"][0]["details"]["taken"]["kind"];
        assert_eq!(taken, if major >= 17 { "incremental" } else { "full" }, "{shown:#}");
        let data = room.path("second");
        passes(&log, &server, &data);
        // And a server agrees: what was laid out is a cluster.
        let copy = serve(major, &data);
        let begun = std::time::Instant::now();
        while copy.psql("postgres", "SELECT pg_is_in_recovery()").trim() == "t" {
            assert!(begun.elapsed().as_secs() < 60, "{}", copy.log_tail());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(markers(&copy), numbers(1200), "{major}");
        assert_eq!(copy.psql("postgres", "SELECT sum(n) FROM there").trim(), "12502599", "{major}");
    }
}

/// What is reported as restored survives a power cut: nothing is written behind the last `syncfs`.
#[test]
fn everything_is_on_the_disk_when_it_is_reported() {
    let server = Postgres::start(options(15, &[]));
    let log = Log::with(&server, "stream");
    let room = Room::new();
    marker_table(&server);
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 1");
    log.backup();
    mark(&server, 3);
    write_wal(&server, 20);
    caught_up(&log, &server);
    assert_eq!(receiver.stop(), 0);
    let (data, trace) = (room.path("laid-out"), room.path("trace"));
    let inner = log.command_in(log.place.path(), &["restore", "database", "--latest", "--no-start", "--to"]);
    let mut command = std::process::Command::new(tools::find("strace"));
    command.arg("-f").arg("-o").arg(&trace).args(["-e", "trace=rename,renameat,renameat2,syncfs,openat"]);
    command.arg(inner.get_program()).args(inner.get_args()).arg(&data).current_dir(log.place.path());
    let restored = ended(command);
    assert_eq!(restored.code, 0, "{restored:#?}");
    let trace = fs::read_to_string(trace).unwrap();
    let target = data.to_str().unwrap();
    let writes = |line: &str| line.contains(target) && (line.contains("rename") || line.contains("O_WRONLY"));
    let last_write = trace.lines().enumerate().filter(|(_, line)| writes(line)).map(|(n, _)| n).max().unwrap();
    let last_sync =
        trace.lines().enumerate().filter(|(_, line)| line.contains("syncfs")).map(|(n, _)| n).max().unwrap();
    assert!(trace.lines().any(|line| line.contains("pg_wal/0000") && writes(line)), "WAL was laid out: {trace:.3000}");
    assert!(last_sync > last_write, "{}", trace.lines().nth(last_write).unwrap());
}
