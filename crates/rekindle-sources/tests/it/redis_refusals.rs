//! What must not pass for a backup, and what must not be overwritten.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::fs;

use rekindle_core::port::{Component, Level, Target};
use rekindle_core::{Fault, Secret, codes};
use rekindle_sources::redis::RedisOptions;
use rekindle_testkit::fixtures::{compare_redis, redis_data, redis_fingerprint};
use rekindle_testkit::proxy::{Direction, Fault as Broken, Proxy};
use rekindle_testkit::{Redis, RedisOptions as ServerOptions, RedisProgram, Value};

use crate::redis_support::{
    block_on, capture, component, component_of, context, drain, new_directory, options_of, request, restore, server,
    server_options, temporary,
};

const CANARY: &str = "canary-5f1e";
const MEGABYTE: usize = 1 << 20;

fn through(proxy: &Proxy) -> rekindle_sources::redis::RedisComponent {
    component(RedisOptions::new(format!("redis://127.0.0.1:{}", proxy.port())))
}

fn said(fault: &Fault) -> String {
    format!("{fault:#} {fault:?} {:?}", fault.hint_text())
}

#[test]
fn a_connection_cut_anywhere_is_an_error() {
    let source = server(RedisProgram::Redis);
    redis_data(&source, 100);
    let proxy = Proxy::start(source.port());
    capture(&through(&proxy)).unwrap();
    // Everything the server sent in a whole capture, from the greeting to the end mark.
    let whole = proxy.bytes();
    let mut inside_the_stream = 0;
    let positions = (1..60).map(|n| n * whole / 60).chain(whole.saturating_sub(700)..whole - 400);
    for (number, position) in positions.enumerate() {
        let cut = if number % 2 == 0 {
            Broken::CutAfter(Direction::ToClient, position)
        } else {
            Broken::ResetAfter(Direction::ToClient, position)
        };
        proxy.script([cut]);
        match capture(&through(&proxy)) {
            Err(fault) if fault.is(codes::REDIS_TRUNCATED) => inside_the_stream += 1,
            Err(fault) => {
                assert!(fault.is(codes::REDIS_CONNECT) || fault.is(codes::REDIS_SYNC), "{position}: {fault:#}");
            }
            // The positions count both directions; the last ones may lie behind the end.
            Ok(part) => {
                assert!(position > whole - 700, "cut after {position} of {whole}");
                assert!(part.redis_details().rdb.checksum.is_some());
            }
        }
    }
    assert!(inside_the_stream > 20, "{inside_the_stream}");
    capture(&through(&proxy)).unwrap();
}

fn fill(server: &Redis, megabytes: usize) {
    let mut connection = server.connect();
    let mut value = vec![0u8; MEGABYTE];
    for (index, byte) in value.iter_mut().enumerate() {
        *byte = u8::try_from(index * index % 251).unwrap();
    }
    for number in 0..megabytes {
        let key = format!("large:{number}");
        connection.call(&[b"SET", key.as_bytes(), &value]).unwrap();
    }
}

/// Reads the beginning of a capture, lets something happen, and reads on.
fn interrupted(source: &mut Redis, what: impl FnOnce(&mut Redis)) -> Fault {
    let component = component_of(source);
    let mut capture = block_on(component.begin(&context())).unwrap();
    let mut fault = None;
    let mut what = Some(what);
    for entry in capture.entries() {
        let rekindle_core::entry::Content::Stream(mut content) = entry.unwrap().content else { panic!("no stream") };
        let mut piece = vec![0; 100];
        content.read(&mut piece).unwrap();
        if entry_is_large(&piece) {
            what.take().unwrap()(source);
            fault = drain(&mut *content).err();
            break;
        }
        drain(&mut *content).unwrap();
        content.close().unwrap();
    }
    let finished = block_on(capture.finish()).unwrap_err();
    assert!(finished.is(codes::REDIS_TRUNCATED), "{finished:#}");
    fault.unwrap()
}

fn entry_is_large(piece: &[u8]) -> bool {
    piece.starts_with(b"REDIS0")
}

#[test]
fn a_server_killed_in_the_middle_is_an_error() {
    let mut source = server(RedisProgram::Redis);
    fill(&source, 64);
    let fault = interrupted(&mut source, Redis::kill9);
    assert!(fault.is(codes::REDIS_TRUNCATED), "{fault:#}");
}

#[test]
fn a_child_killed_in_the_middle_is_an_error() {
    let mut source = server(RedisProgram::Redis);
    fill(&source, 64);
    let fault = interrupted(&mut source, |server| {
        let pid = server.pid().unwrap();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let child: i32 = children.trim().parse().unwrap();
        let child = rustix::process::Pid::from_raw(child).unwrap();
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    });
    assert!(fault.is(codes::REDIS_TRUNCATED), "{fault:#}");
    capture(&component_of(&source)).unwrap();
}

#[test]
fn a_server_that_cannot_write_its_file_is_an_error() {
    let mut options = server_options(RedisProgram::Redis);
    options.lines.push("repl-diskless-sync no".to_owned());
    let source = Redis::start(options);
    fs::remove_dir_all(source.data_dir()).unwrap();
    let fault = capture(&component_of(&source)).err().unwrap();
    assert!(fault.is(codes::REDIS_SYNC), "{fault:#}");
}

#[test]
fn a_user_with_the_least_rights_is_enough() {
    let rules = "resetkeys -@all +ping +psync +sync +replconf +info";
    let source = Redis::start(ServerOptions {
        password: Some(CANARY.to_owned()),
        users: vec![format!("backup on >{CANARY} {rules}")],
        ..server_options(RedisProgram::Redis)
    });
    redis_data(&source, 10);
    let mut options = options_of(&source);
    options.username = Some("backup".to_owned());
    options.password = Some(Secret::new(CANARY.to_owned()));
    let component = component(options);
    let part = capture(&component).unwrap();
    assert_eq!(part.redis_details().rdb.keys(), redis_fingerprint(&source).keys.len() as u64);
    let names: Vec<_> = part.files.keys().collect();
    assert_eq!(names, ["dump.rdb", "info.json"]);
    assert!(!serde_json::to_string(&part.record).unwrap().contains(CANARY));
    let findings = block_on(component.probe(&context())).unwrap();
    assert!(findings.iter().all(|finding| finding.level != Level::Bad), "{findings:?}");
}

#[test]
fn a_refused_login_names_the_remedy_and_no_secret() {
    let source = Redis::start(ServerOptions {
        password: Some("right".to_owned()),
        users: vec![format!("weak on >{CANARY} -@all +ping +info")],
        ..server_options(RedisProgram::Redis)
    });
    let plain = format!("redis://127.0.0.1:{}", source.port());
    let with = |user: Option<&str>, password: Option<&str>| RedisOptions {
        username: user.map(str::to_owned),
        password: password.map(|word| Secret::new(word.to_owned())),
        ..RedisOptions::new(plain.clone())
    };
    for options in [
        with(None, None),
        with(None, Some(CANARY)),
        with(Some("nobody"), Some(CANARY)),
        with(Some("weak"), Some(CANARY)),
    ] {
        let shown = format!("{options:?}");
        let component = component(options);
        let fault = capture(&component).err().unwrap();
        assert!(fault.is(codes::REDIS_AUTH), "{fault:#}");
        let said = said(&fault) + &shown;
        assert!(said.contains("ACL SETUSER"), "{said}");
        assert!(said.contains("+ping +psync +sync +replconf +info"), "{said}");
        assert!(!said.contains(CANARY), "{said}");
        let findings = block_on(component.probe(&context())).unwrap();
        let bad = findings.iter().find(|finding| finding.level == Level::Bad).unwrap();
        assert!(bad.remedy.as_ref().unwrap().contains("ACL SETUSER"), "{bad:?}");
    }
    let part = capture(&component_of(&source)).unwrap();
    assert!(!serde_json::to_string(&part.record).unwrap().contains("right"));
}

#[test]
fn the_remedy_of_a_refused_login_is_enough_for_everything() {
    let source = server(RedisProgram::Redis);
    redis_data(&source, 1);
    let plain = format!("redis://127.0.0.1:{}", source.port());
    let mut options = RedisOptions::new(plain);
    options.username = Some("saver".to_owned());
    options.password = Some(Secret::new(CANARY.to_owned()));
    let component = component(options);
    let fault = capture(&component).err().unwrap();
    let hint = fault.hint_text().unwrap().to_owned();
    let line = hint.split('`').nth(1).unwrap().replace("PASSWORD", CANARY);
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    source.command(&words);
    let part = capture(&component).unwrap();
    assert_eq!(part.files.len(), 4);
    assert_eq!(part.record.notes.listed, []);
    assert!(!part.text("acl.txt").contains(CANARY), "ACL LIST gives hashes");
}

#[test]
fn replicas_and_cluster_nodes_are_named_and_not_restored_into() {
    let source = server(RedisProgram::Redis);
    redis_data(&source, 5);
    let part = capture(&component_of(&source)).unwrap();
    let replica = server(RedisProgram::Redis);
    let port = source.port().to_string();
    replica.command(&[b"REPLICAOF", b"127.0.0.1", port.as_bytes()]);
    while !replica.command(&[b"INFO", b"replication"]).text().contains("master_link_status:up") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let of_replica = capture(&component_of(&replica)).unwrap();
    assert_eq!(of_replica.redis_details().role, "slave");
    assert_eq!(of_replica.redis_details().rdb.databases, part.redis_details().rdb.databases);
    let mut options = server_options(RedisProgram::Redis);
    options.databases = 1;
    options.lines.push("cluster-enabled yes".to_owned());
    let node = Redis::start(options);
    let of_node = capture(&component_of(&node)).unwrap();
    assert_eq!(of_node.redis_details().mode, "cluster");
    for (captured, word) in [(&of_replica, "replica"), (&of_node, "only the slots")] {
        let notes = &captured.record.notes;
        assert!(notes.listed.iter().any(|note| note.text.contains(word)), "{notes:?}");
    }
    for target in [&replica, &node] {
        let fault = restore(&component_of(target), &part, &request(Target::Live)).unwrap_err();
        assert!(fault.is(codes::REDIS_RESTORE), "{fault:#}");
        let findings = block_on(component_of(target).probe(&context())).unwrap();
        assert!(findings.iter().any(|finding| finding.level == Level::Warning), "{findings:?}");
    }
}

#[test]
fn a_stopped_run_lets_the_capture_go() {
    let mut source = server(RedisProgram::Redis);
    fill(&source, 64);
    let component = component_of(&source);
    let context = context();
    let mut capture = block_on(component.begin(&context)).unwrap();
    let entries = capture.entries();
    // The child of the server waits for us; it would wait for as long as we do.
    let mut contents = entries.map(|entry| entry.unwrap()).filter(|entry| entry.path.as_bytes() == b"dump.rdb");
    let rekindle_core::entry::Content::Stream(mut content) = contents.next().unwrap().content else {
        panic!("no stream")
    };
    let pid = rustix::process::Pid::from_raw(source.pid().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    context.cancel.cancel(rekindle_core::cancel::Reason::Interrupted);
    let fault = drain(&mut *content).unwrap_err();
    assert!(fault.is(codes::RUN_INTERRUPTED), "{fault:#}");
    block_on(capture.abort());
    source.kill9();
}

#[test]
fn a_server_that_is_not_there_is_unreachable() {
    let port = rekindle_testkit::port::Port::take();
    let component = component(RedisOptions::new(format!("redis://:{CANARY}@127.0.0.1:{}", port.number())));
    let fault = capture(&component).err().unwrap();
    assert_eq!(fault.exit_code(), 20);
    assert!(!said(&fault).contains(CANARY));
    let findings = block_on(component.probe(&context())).unwrap();
    assert_eq!(findings[0].level, Level::Bad);
}

/// Writes the dump file; the child of a synchronisation may still be ending.
fn save(server: &Redis) {
    let mut connection = server.connect();
    while let Value::Error(error) = connection.call(&[b"SAVE"]).unwrap() {
        assert!(error.contains("already in progress"), "{error}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn in_place_the_server_must_be_stopped_and_the_old_state_is_kept() {
    for (program, appendonly) in [(RedisProgram::Redis, true), (RedisProgram::Valkey, false)] {
        let mut source = Redis::start(ServerOptions { appendonly, ..server_options(program) });
        redis_data(&source, 20);
        let before = redis_fingerprint(&source);
        let mut options = options_of(&source);
        options.data_dir = Some(source.data_dir().to_owned());
        let component = component(options);
        let part = capture(&component).unwrap();
        source.command(&[b"FLUSHALL"]);
        source.command(&[b"SET", b"newer", b"state"]);
        let request = request(Target::InPlace { discard_old: false });
        let fault = restore(&component, &part, &request).unwrap_err();
        assert!(fault.is(codes::REDIS_TARGET_RUNNING), "{fault:#}");
        save(&source);
        source.stop();
        let report = restore(&component, &part, &request).unwrap();
        let kept = report.kept_old.unwrap();
        assert!(kept.ends_with("pre-restore-01234567"), "{kept}");
        assert!(fs::metadata(format!("{kept}/dump.rdb")).is_ok());
        source.restart();
        let after = redis_fingerprint(&source);
        assert_eq!(compare_redis(&before, &after, 0), Vec::<String>::new());
        source.stop();
        let request = crate::redis_support::request(Target::InPlace { discard_old: true });
        let report = restore(&component, &part, &request).unwrap();
        assert_eq!(report.kept_old, None);
        let left = fs::read_dir(source.data_dir()).unwrap().count();
        assert_eq!(left, 2 + usize::from(appendonly), "dump, old state of the first time, AOF");
    }
}

#[test]
fn a_directory_with_data_is_refused_unless_told() {
    let source = server(RedisProgram::Redis);
    let part = capture(&component_of(&source)).unwrap();
    let (_keep, directory) = temporary();
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("dump.rdb"), "precious").unwrap();
    let mut request = new_directory(&directory);
    let fault = restore(&component_of(&source), &part, &request).unwrap_err();
    assert!(fault.is(codes::REDIS_TARGET_NOT_EMPTY) && fault.exit_code() == 21, "{fault:#}");
    assert_eq!(fs::read(directory.join("dump.rdb")).unwrap(), b"precious");
    request.overwrite = true;
    let report = restore(&component_of(&source), &part, &request).unwrap();
    let kept = report.kept_old.unwrap();
    assert_eq!(fs::read(format!("{kept}/dump.rdb")).unwrap(), b"precious");
    let running = new_directory(source.data_dir());
    let fault = restore(&component_of(&source), &part, &running).unwrap_err();
    assert!(fault.is(codes::REDIS_TARGET_RUNNING), "{fault:#}");
}

#[test]
fn a_target_that_is_too_old_is_refused_before_anything_is_written() {
    let source = server(RedisProgram::Valkey);
    source.command(&[b"SET", b"key", b"value"]);
    let part = capture(&component_of(&source)).unwrap();
    let target = server(RedisProgram::Redis);
    let fault = restore(&component_of(&target), &part, &request(Target::Live)).unwrap_err();
    assert!(fault.is(codes::REDIS_VERSION), "{fault:#}");
    assert_eq!(target.command(&[b"DBSIZE"]).integer(), 0);
    // The other way round is fine.
    target.command(&[b"SET", b"key", b"value"]);
    let part = capture(&component_of(&target)).unwrap();
    source.command(&[b"FLUSHALL"]);
    restore(&component_of(&source), &part, &request(Target::Live)).unwrap();
    assert_eq!(source.command(&[b"GET", b"key"]).bytes(), b"value");
}

#[test]
fn a_target_with_too_few_databases_is_refused_before_anything_is_written() {
    let source = server(RedisProgram::Redis);
    redis_data(&source, 1);
    let part = capture(&component_of(&source)).unwrap();
    let target = Redis::start(ServerOptions { databases: 2, ..server_options(RedisProgram::Redis) });
    let fault = restore(&component_of(&target), &part, &request(Target::Live)).unwrap_err();
    assert!(fault.is(codes::REDIS_RESTORE), "{fault:#}");
    assert!(fault.hint_text().unwrap().contains("databases 16"), "{fault:#}");
    assert_eq!(target.command(&[b"DBSIZE"]).integer(), 0);
}

#[test]
fn damaged_bytes_of_a_real_server_are_never_restored() {
    let source = server(RedisProgram::Redis);
    redis_data(&source, 2);
    // The large values would only make this slow.
    for key in [&b"large"[..], b"compressible", b"bitmap"] {
        for number in [b"0", b"1"] {
            let mut connection = source.connect();
            connection.call(&[b"SELECT", number]).unwrap();
            connection.call(&[b"DEL", key]).unwrap();
        }
        let mut connection = source.connect();
        connection.call(&[b"SELECT", b"15"]).unwrap();
        connection.call(&[b"FLUSHDB"]).unwrap();
    }
    let component = component_of(&source);
    let part = capture(&component).unwrap();
    let bytes = part.dump().to_vec();
    let (_keep, directory) = temporary();
    let step = (bytes.len() / 400).max(1);
    for position in (0..bytes.len()).step_by(step) {
        let mut flipped = bytes.clone();
        flipped[position] ^= 1 << (position % 8);
        for damaged in [flipped, bytes[..position].to_vec()] {
            let damaged = part.with_dump(damaged);
            let fault = restore(&component, &damaged, &new_directory(&directory)).unwrap_err();
            assert!(
                [codes::REDIS_RDB, codes::REDIS_TRUNCATED, codes::REDIS_CHECKSUM].iter().any(|code| fault.is(code)),
                "{position}: {fault:#}"
            );
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "nothing is left");
        }
    }
}
