use std::path::Path;

use rekindle_testkit::{Postgres, PostgresOptions};

#[test]
fn each_installed_major_starts_and_leaves_nothing() {
    for major in [15, 16, 17] {
        let postgres = Postgres::start(PostgresOptions { major, ..PostgresOptions::default() });
        let version = postgres.psql("postgres", "SHOW server_version_num");
        assert!(version.starts_with(&major.to_string()), "{version}");
        let dir = postgres.host_socket_dir().to_owned();
        let pid = postgres.pid().unwrap();
        drop(postgres);
        assert!(!dir.exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}

#[test]
fn committed_rows_survive_a_crash_and_a_restart() {
    let mut postgres = Postgres::start(PostgresOptions { durable: true, ..PostgresOptions::default() });
    postgres.psql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    // A session that is busy when the server dies, and would go on for an hour.
    let mut busy = postgres
        .client("psql")
        .args(["-Xqd", "postgres", "-c", "SELECT pg_sleep(3600)"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while postgres.psql("postgres", sleeping) != "1" {
        assert!(busy.try_wait().unwrap().is_none());
    }
    postgres.kill9();
    assert!(!busy.wait().unwrap().success());
    assert!(postgres.try_psql("postgres", "SELECT 1").is_err());
    postgres.restart();
    assert_eq!(postgres.psql("postgres", "SELECT count(*), sum(n) FROM t"), "1000|500500");
    postgres.restart();
    assert_eq!(postgres.psql("postgres", "SELECT count(*) FROM t"), "1000");
}

#[test]
fn tcp_asks_for_the_password_and_tls_has_an_own_authority() {
    let postgres = Postgres::start(PostgresOptions { tls: true, ..PostgresOptions::default() });
    let ask = |password: &str| {
        postgres
            .client("psql")
            .args(["-XAtw", "-h", "localhost", "-d"])
            .arg(format!("dbname=postgres sslmode=verify-full sslrootcert={}", postgres.ca().unwrap().display()))
            .args(["-c", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"])
            .env("PGHOST", "localhost")
            .env("PGPASSWORD", password)
            .output()
            .unwrap()
    };
    let right = ask(postgres.password());
    assert_eq!(String::from_utf8_lossy(&right.stdout), "t\n", "{right:?}");
    assert!(!ask("wrong").status.success());
}
