//! Containers that stop, sockets that refuse, images that are gone.

use std::os::unix::net::UnixListener;

use rekindle_testkit::port::Port;
use rekindle_testkit::{Direction, Fault, Proxy};

use super::container_stack::ContainerStack;
use super::stack::{end, wait_until};

#[test]
fn a_container_that_stops_in_the_middle_of_a_dump_is_a_missing_component() {
    let one = ContainerStack::start();
    one.redis_cli(&["SET", "a", "b"]);
    // Some hundred MB, so that the dump takes a while.
    one.sql("shop", "CREATE TABLE cards AS SELECT n AS id, repeat(md5(n::text), 300) AS name, 1 AS price FROM generate_series(1, 30000) n");
    let child = one.stack.start(&["backup", "--json"]);
    let dumping = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rekindle' AND query LIKE 'COPY %'";
    wait_until("a dump", || one.sql("postgres", dumping) != "0");
    one.podman.podman(&["kill", "shop-postgres"]);
    let ended = end(child);
    assert_eq!(ended.code, 3, "{ended:#?}");
    let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    let components = value["result"]["components"].as_array().unwrap();
    let database = components.iter().find(|one| one["component"] == "database").unwrap();
    assert_eq!(database["state"], "missing", "{database}");
    let code = database["problem"]["code"].as_str().unwrap();
    assert!(["RK-CT-003", "RK-CT-004", "RK-PG-010"].contains(&code), "{database}");
    assert_eq!(components.iter().find(|one| one["component"] == "cache").unwrap()["state"], "captured");
    assert_eq!(one.stack.newest()["state"], "partial");

    // It stays down: the next run says so, with the remedy, and `doctor` too.
    let problem = one.stack.partial("database", &["RK-CT-003"]);
    assert!(problem["hint"].as_str().unwrap().contains("docker start shop-postgres"), "{problem}");
    let doctor = one.stack.place.json(4, &["doctor"]);
    assert!(doctor.to_string().contains("the container `shop-postgres`: it is exited"), "{doctor}");
}

#[test]
fn a_container_or_image_that_is_gone_is_named_with_the_remedy() {
    let one = ContainerStack::start();
    one.sql("shop", "CREATE TABLE cards (id int)");
    // An image of its own, which can be removed together with its container.
    one.podman.podman(&["rm", "-f", "-t", "0", "shop-backend"]);
    one.podman.podman(&["commit", "-q", "shop-frontend", "localhost/gone:1"]);
    one.podman.podman(&["rm", "-f", "-t", "0", "shop-redis"]);
    one.podman.podman(&[
        "run",
        "-d",
        "--name",
        "shop-redis",
        "--label",
        "com.docker.compose.project=shop",
        "--label",
        "com.docker.compose.service=redis",
        "localhost/gone:1",
        "sleep",
        "600",
    ]);
    one.podman.podman(&["rmi", "-f", "localhost/gone:1"]);
    let compose = one.stack.path("shop/docker-compose.yml");
    let text = std::fs::read_to_string(&compose).unwrap();
    std::fs::write(
        &compose,
        text.replace("redis: { image: 'localhost/rekindle-test-stack:1' }", "redis: { image: 'localhost/gone:1' }"),
    )
    .unwrap();
    let problem = one.stack.partial("cache", &["RK-CT-002"]);
    assert!(problem["hint"].as_str().unwrap().contains("up -d"), "{problem}");
    let doctor = one.stack.place.json(4, &["doctor"]).to_string();
    assert!(doctor.contains("its image `localhost/gone:1` is not here") && doctor.contains("pull redis"), "{doctor}");
    assert!(doctor.contains("the service `backend` has no container"), "{doctor}");
    // A restore in place touches nothing when it cannot stop what it has to.
    let point = one.stack.newest()["id"].as_str().unwrap().to_owned();
    let ended = one.stack.place.run(&["restore", &point, "database", "--in-place", "--no-safety-point"]);
    assert_eq!(ended.code, 0, "the containers that are there are enough: {ended:#?}");
}

#[test]
fn a_socket_that_refuses_is_named_with_the_remedy() {
    let mut one = ContainerStack::start();
    one.sql("shop", "CREATE TABLE cards (id int)");
    one.podman.stop_service();
    // Nobody is there.
    let before = one.stack.points();
    one.stack.place.ends(20, &["backup"]).says("RK-CT-001", &["start Docker"]);
    assert_eq!(one.stack.points(), before, "no point");
    // Somebody is there and says nothing.
    let silent = UnixListener::bind(one.podman.socket()).unwrap();
    let ended = one.stack.place.ends(20, &["backup", "database"]);
    ended.says("RK-CT-001", &["no answer within"]);
    drop(silent);
    std::fs::remove_file(one.podman.socket()).unwrap();
    // A restore that could not stop the services is refused before anything is touched.
    one.podman.start_service();
    let point = one.stack.complete()["point"].as_str().unwrap().to_owned();
    one.podman.stop_service();
    let ended = one.stack.place.ends(20, &["restore", &point, "cache", "--in-place", "--no-safety-point"]);
    ended.says("RK-CT-001", &[]);
    one.podman.start_service();
    assert!(one.podman.runs("shop-redis") && one.podman.runs("shop-backend"));
}

/// Some bytes more than every answer of the API, and fewer than a dump.
const CUT_AFTER: u64 = 3_000_000;

#[test]
fn a_socket_proxy_that_cuts_a_stream_never_makes_a_success() {
    let mut one = ContainerStack::start();
    one.sql("shop", "CREATE TABLE cards AS SELECT n AS id, repeat(md5(n::text), 30) AS name, 1 AS price FROM generate_series(1, 10000) n");
    let port = Port::take();
    let _service = one.podman.serve_tcp(port.number());
    let proxy = Proxy::start(port.number());
    one.reach(&format!("tcp://127.0.0.1:{}", proxy.port()));
    // In order, as if the program had ended.
    proxy.set(Fault::CutAfter(Direction::ToClient, CUT_AFTER));
    let problem = one.stack.partial("database", &["RK-CT-004"]);
    assert!(problem["message"].as_str().unwrap().contains("its output was cut"), "{problem}");
    proxy.set(Fault::None);
    let point = one.stack.complete()["point"].as_str().unwrap().to_owned();

    let databases = one.sql("postgres", "SELECT datname FROM pg_database ORDER BY 1");
    proxy.set(Fault::CutAfter(Direction::ToServer, CUT_AFTER));
    let ended = one.stack.place.run(&["restore", &point, "database", "--to", "back"]);
    assert!(ended.code != 0 && (ended.err.contains("RK-CT-00") || ended.err.contains("RK-PG-")), "{ended:#?}");
    assert_eq!(one.sql("postgres", "SELECT datname FROM pg_database ORDER BY 1"), databases, "no half of it is left");
    proxy.set(Fault::None);
    one.stack.place.json(0, &["restore", &point, "database", "--to", "back"]);
    assert_eq!(one.sql("back", "SELECT count(*) FROM cards"), "10000");
}
