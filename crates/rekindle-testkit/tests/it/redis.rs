use rekindle_testkit::resp::Connection;
use rekindle_testkit::{Redis, RedisOptions, RedisProgram, Value};

fn set_and_get(redis: &Redis) {
    redis.command(&[b"SET", b"key", b"value"]);
    assert_eq!(redis.command(&[b"GET", b"key"]), Value::Bytes(b"value".to_vec()));
}

#[test]
fn both_programs_start_and_leave_nothing() {
    for program in [RedisProgram::Redis, RedisProgram::Valkey] {
        let redis = Redis::start(RedisOptions { program, ..RedisOptions::default() });
        set_and_get(&redis);
        assert_eq!(Connection::tcp(redis.port()).unwrap().call(&[b"PING"]).unwrap().text(), "PONG");
        let dir = redis.socket();
        drop(redis);
        assert!(!dir.parent().unwrap().exists());
    }
}

#[test]
fn an_append_only_file_survives_a_crash() {
    let mut redis = Redis::start(RedisOptions {
        appendonly: true,
        lines: vec!["appendfsync always".to_owned()],
        ..RedisOptions::default()
    });
    set_and_get(&redis);
    redis.kill9();
    redis.restart();
    assert_eq!(redis.command(&[b"GET", b"key"]).text(), "value");
    assert!(redis.data_dir().join("appendonlydir").is_dir());
}

#[test]
fn password_users_and_a_missing_config_command() {
    let redis = Redis::start(RedisOptions {
        password: Some("canary-redis".to_owned()),
        users: vec!["backup on >canary-user +@all ~*".to_owned()],
        without_config: true,
        ..RedisOptions::default()
    });
    set_and_get(&redis);
    let mut stranger = Connection::tcp(redis.port()).unwrap();
    assert!(matches!(stranger.call(&[b"GET", b"key"]).unwrap(), Value::Error(_)));
    stranger.call(&[b"AUTH", b"backup", b"canary-user"]).unwrap();
    assert_eq!(stranger.call(&[b"GET", b"key"]).unwrap().text(), "value");
    let answer = redis.connect().call(&[b"CONFIG", b"GET", b"dir"]).unwrap();
    assert!(matches!(answer, Value::Error(_)), "{answer:?}");
}

#[test]
fn tls_only_speaks_tls() {
    let redis = Redis::start(RedisOptions { tls: true, ..RedisOptions::default() });
    set_and_get(&redis);
    let plain = Connection::tcp(redis.port()).unwrap().call(&[b"PING"]);
    assert!(plain.is_err(), "{plain:?}");
    assert!(redis.ca().unwrap().is_file());
}
