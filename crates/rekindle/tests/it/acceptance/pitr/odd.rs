//! Clusters that are not laid out as usual, through stream, base backup and recovery.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::chown;

use rekindle_testkit::{Postgres, PostgresOptions};

use super::{Room, amcheck, caught_up, mark, marker_table, markers, numbers, options};
use crate::acceptance::wal_support::Log;

fn own(path: &std::path::Path) {
    if let Some((uid, gid)) = Postgres::os_user() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

/// Segments of 1 and of 64 MiB; `pg_wal` elsewhere; a tablespace; an unlogged table; a file whose name is
/// no text; databases that come and go while the backup runs and after it.
#[test]
fn odd_clusters_come_back_to_a_moment() {
    for (major, size) in [(15, "64"), (17, "1")] {
        let room = Room::new();
        let (wal, space) = (room.path("wal"), room.path("space"));
        std::fs::create_dir(&space).unwrap();
        own(&space);
        let initdb = ["--wal-segsize", size, "-X", wal.to_str().unwrap()].map(ToOwned::to_owned).to_vec();
        let server = Postgres::start(PostgresOptions { initdb, ..options(major, &[]) });
        let odd = server.data_dir().join(OsStr::from_bytes(b"odd-\xff\xfe name"));
        std::fs::write(&odd, "odd").unwrap();
        own(&odd);
        marker_table(&server);
        server.psql("postgres", &format!("CREATE TABLESPACE elsewhere LOCATION '{}'", space.display()));
        server.psql("postgres", "CREATE UNLOGGED TABLE fleeting AS SELECT generate_series(1, 1000)");
        server.psql("postgres", "CREATE TABLE there TABLESPACE elsewhere AS SELECT generate_series(1, 1000) n");
        let log = Log::with(&server, "stream");
        let receiver = log.receiver(&[]);
        receiver.wait_told("streaming timeline 1");
        std::thread::scope(|scope| {
            let backup = scope.spawn(|| log.backup());
            for n in 0..4 {
                server.psql("postgres", &format!("CREATE DATABASE come_{n}"));
                server.psql("postgres", &format!("DROP DATABASE come_{n}"));
            }
            backup.join().unwrap();
        });
        server.psql("postgres", "CREATE DATABASE later TABLESPACE elsewhere");
        server.psql("postgres", "INSERT INTO there SELECT generate_series(1001, 1500)");
        let moment = mark(&server, 4);
        // PostgreSQL removes a database before it commits that: a commit has to stand between.
        mark(&server, 1);
        server.psql("postgres", "DROP DATABASE later");
        server.psql("postgres", "DROP TABLE there");
        mark(&server, 1);
        caught_up(&log, &server);
        let copy = room.recovered(&log, major, "copy", &["--at", &moment.to_string()]);
        assert_eq!(markers(&copy), numbers(4), "{major}");
        assert_eq!(copy.psql("postgres", "SELECT count(*), max(n) FROM there"), "1500|1500");
        assert_eq!(copy.psql("postgres", "SELECT count(*) FROM fleeting"), "0");
        assert_eq!(copy.psql("later", "SELECT 1"), "1");
        let name = OsStr::from_bytes(b"odd-\xff\xfe name");
        assert_eq!(std::fs::read(room.path("copy").join(name)).unwrap(), b"odd");
        assert!(!room.path("copy").join("pg_wal").is_symlink());
        amcheck(&copy);
        drop(copy);
        assert_eq!(receiver.stop(), 0);
        log.place.ends(0, &["wal", "verify", "--deep"]);
    }
}
