//! The replication client against real servers of every version that backups are taken of.

use std::time::Duration;

use rekindle_core::wal::{Lsn, SegmentNumber, SegmentSize, SlotName, Timeline};
use rekindle_core::{Cancel, Secret, codes};
use rekindle_sources::postgres::replication::{
    BaseCommand, BaseItem, Checkpoint, Replication, ReplicationOptions, Started, WalMessage, WalStream, server_error,
};
use rekindle_sources::postgres::{ServerUrl, SslMode};
use rekindle_testkit::{Postgres, PostgresOptions as ServerOptions};

/// Every version in one table: one that is not installed fails.
const MAJORS: [u32; 5] = [14, 15, 16, 17, 18];
const WAIT: Duration = Duration::from_secs(20);

fn options(server: &Postgres) -> ReplicationOptions {
    let (url, password) = ServerUrl::parse(&server.url()).unwrap();
    ReplicationOptions { connect_timeout: Duration::from_secs(30), ..ReplicationOptions::new(url, password) }
}

fn connect(server: &Postgres) -> Replication {
    Replication::connect(&options(server), &Cancel::new()).unwrap()
}

fn slot(name: &str) -> SlotName {
    name.parse().unwrap()
}

fn stream(session: Replication, slot: Option<&SlotName>, from: Lsn, timeline: Timeline) -> WalStream {
    match session.start_physical(slot, from, timeline).unwrap() {
        Started::Stream(stream) => stream,
        Started::AtEnd(..) => panic!("the timeline has not ended"),
    }
}

#[test]
fn every_version_answers() {
    for major in MAJORS {
        let server = Postgres::start(ServerOptions { major, ..ServerOptions::default() });
        let mut session = connect(&server);
        assert_eq!(session.major(), major);
        assert!(session.version_text().starts_with(&major.to_string()));
        let identity = session.identify().unwrap();
        let system = server.psql("postgres", "SELECT system_identifier FROM pg_control_system()");
        assert_eq!((identity.system.to_string(), identity.timeline), (system, Timeline(1)));
        assert_eq!(session.segment_size().unwrap(), SegmentSize::DEFAULT);
        slots(&mut session, major);
        wal(&server, session);
        base(&server);
        let error = connect(&server).timeline_history(Timeline(9)).unwrap_err();
        assert!(server_error(&error).is_some_and(|error| !error.code.is_empty()), "{error:?}");
    }
}

fn slots(session: &mut Replication, major: u32) {
    let name = slot("of_a_test");
    assert_eq!(session.read_slot(&name).unwrap(), None, "{major}");
    session.create_slot(&name).unwrap();
    let again = session.create_slot(&name).unwrap_err();
    assert!(server_error(&again).unwrap().is_duplicate(), "{again:?}");
    let read = session.read_slot(&name).unwrap().unwrap();
    assert!(read.restart.is_some(), "{major}");
    let state = session.slot_state(&name).unwrap().unwrap();
    assert_eq!((state.slot.restart, state.active), (read.restart, false));
    assert_eq!(state.wal_status.as_deref(), Some("reserved"));
    session.drop_idle_slot(&name).unwrap();
    assert_eq!(session.slot_state(&name).unwrap(), None);
    let gone = session.drop_slot(&name).unwrap_err();
    assert!(server_error(&gone).unwrap().is_absent(), "{gone:?}");
}

/// From the start of a segment on: no hole, the server's own bytes, a status that it believes.
fn wal(server: &Postgres, mut session: Replication) {
    let name = slot("stream");
    session.create_slot(&name).unwrap();
    let (now, mut session) = session.clock().unwrap();
    assert!(jiff::Timestamp::now().duration_since(now).abs() < jiff::SignedDuration::from_mins(1));
    let identity = session.identify().unwrap();
    let from = SegmentNumber::of(identity.position, SegmentSize::DEFAULT).start(SegmentSize::DEFAULT);
    let mut stream = stream(session, Some(&name), from, identity.timeline);
    server.psql("postgres", "CREATE TABLE streamed AS SELECT generate_series(1, 5000) n");
    let end: Lsn = server.psql("postgres", "SELECT pg_current_wal_flush_lsn()").parse().unwrap();
    let (mut at, mut bytes) = (from, Vec::new());
    while at < end {
        match stream.next(WAIT).unwrap().expect("the server sends what it wrote") {
            WalMessage::Data { start, bytes: piece, .. } => {
                assert_eq!(start, at, "no hole");
                bytes.extend_from_slice(piece);
                at = Lsn(at.0 + piece.len() as u64);
            }
            WalMessage::KeepAlive { .. } => {}
            WalMessage::TimelineEnd(end) => panic!("{end:?}"),
        }
    }
    let file = server.psql("postgres", &format!("SELECT pg_walfile_name('{from}'::pg_lsn + 1)"));
    let there = std::fs::read(server.data_dir().join("pg_wal").join(file)).unwrap();
    let same = bytes.len().min(there.len());
    assert!(bytes[..same] == there[..same], "the bytes of pg_wal");
    stream.status(at, at, Lsn(0), jiff::Timestamp::now()).unwrap();
    let sql = format!("SELECT flush_lsn >= '{end}' FROM pg_stat_replication WHERE application_name = 'rekindle'");
    let believed = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        server.psql("postgres", &sql) == "t"
    });
    assert!(believed, "{}", server.psql("postgres", "SELECT * FROM pg_stat_replication"));
    assert!(stream.next(Duration::from_millis(10)).is_ok(), "silence is no error");
    let mut session = stream.stop().unwrap();
    session.identify().unwrap();
    session.drop_slot(&name).unwrap();
}

/// Whatever the form, it begins with archives and ends with the manifest; damage is not checked here.
fn base(server: &Postgres) {
    let command = BaseCommand {
        label: "it's".to_owned(),
        checkpoint: Checkpoint::Fast,
        wal: true,
        incremental: false,
        max_rate: None,
    };
    let mut stream = connect(server).base_backup(&command).unwrap();
    assert_eq!(stream.start().tablespaces.len(), 1);
    let (mut archive, mut manifest, mut in_manifest) = (0_u64, Vec::new(), false);
    while let Some(item) = stream.item().unwrap() {
        match item {
            BaseItem::Archive(index) => assert_eq!((index, in_manifest), (0, false)),
            BaseItem::Manifest => in_manifest = true,
            BaseItem::Data(bytes) if in_manifest => manifest.extend_from_slice(bytes),
            BaseItem::Data(bytes) => archive += bytes.len() as u64,
        }
    }
    let start = stream.start().start;
    let (end, mut session) = stream.finish().unwrap();
    assert!(end.stop > start && end.damage.is_none() && archive > 20 << 20, "{end:?} {archive}");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["WAL-Ranges"][0]["End-LSN"], end.stop.to_string());
    session.identify().unwrap();
}

#[test]
fn every_login_works_and_a_wrong_password_does_not() {
    let access = |line: &str| ServerOptions {
        tls: true,
        access: vec![line.to_owned()],
        settings: vec![("password_encryption".to_owned(), "scram-sha-256".to_owned())],
        ..ServerOptions::default()
    };
    let server = Postgres::start(access(
        "hostssl replication postgres 127.0.0.1/32 scram-sha-256\n\
         hostssl replication clear 127.0.0.1/32 password\nhostnossl replication clear 127.0.0.1/32 password\n\
         host replication old 127.0.0.1/32 md5",
    ));
    server.psql(
        "postgres",
        "CREATE ROLE clear LOGIN REPLICATION PASSWORD 'canary-clear'; SET password_encryption = 'md5'; \
         CREATE ROLE old LOGIN REPLICATION PASSWORD 'canary-old'; CREATE ROLE plain LOGIN PASSWORD 'canary-plain'",
    );
    let as_user = |user: &str, password: Option<&str>, mode: SslMode| {
        let mut options = options(&server);
        user.clone_into(&mut options.url.user);
        options.url.ssl_mode = mode;
        options.url.root_certificate = server.ca().map(ToOwned::to_owned);
        options.password = password.map(|password| Secret::new(password.to_owned()));
        Replication::connect(&options, &Cancel::new())
    };
    let right = server.password().to_owned();
    for mode in [SslMode::Disable, SslMode::Prefer, SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
        as_user("postgres", Some(&right), mode).unwrap();
    }
    as_user("old", Some("canary-old"), SslMode::Disable).unwrap();
    as_user("clear", Some("canary-clear"), SslMode::Require).unwrap();
    for (user, password, mode) in [
        ("postgres", Some("wrong"), SslMode::Require),
        ("postgres", None, SslMode::Require),
        ("clear", Some("canary-clear"), SslMode::Disable),
        ("old", Some("wrong"), SslMode::Disable),
        ("plain", Some("canary-plain"), SslMode::Disable),
    ] {
        let fault = as_user(user, password, mode).unwrap_err();
        assert!(fault.is(codes::PG_AUTH) || fault.is(codes::PG_PRIVILEGE), "{user}: {fault:?}");
        assert!(!fault.chain().contains("canary"), "{fault:?}");
    }
    // Whose certificate nobody knows.
    let mut unknown = options(&server);
    unknown.url.ssl_mode = SslMode::VerifyFull;
    assert!(Replication::connect(&unknown, &Cancel::new()).unwrap_err().is(codes::PG_CONNECT));
}

#[test]
fn a_cancelled_or_silent_session_ends() {
    let server = Postgres::start(ServerOptions::default());
    let cancel = Cancel::new();
    let mut session = Replication::connect(&options(&server), &cancel).unwrap();
    let identity = session.identify().unwrap();
    let mut stream = stream(session, None, identity.position, identity.timeline);
    let flag = cancel.clone();
    let raiser = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        flag.cancel(rekindle_core::cancel::Reason::Interrupted);
    });
    let started = std::time::Instant::now();
    let ended = loop {
        match stream.next(Duration::from_mins(5)) {
            Ok(_) => {}
            Err(fault) => break fault,
        }
    };
    assert!(ended.is(codes::RUN_INTERRUPTED) && started.elapsed() < Duration::from_secs(10), "{ended:?}");
    raiser.join().unwrap();
    let silent = ReplicationOptions { idle_timeout: Duration::from_millis(500), ..options(&server) };
    // Nobody answers a listener that never accepts.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut nobody = ReplicationOptions { connect_timeout: Duration::from_millis(500), ..silent };
    nobody.url.port = listener.local_addr().unwrap().port();
    let started = std::time::Instant::now();
    let fault = Replication::connect(&nobody, &Cancel::new()).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(10), "{fault:?}");
}
