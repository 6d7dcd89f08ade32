//! A stack in containers: saved without client programs on the host, destroyed with its volumes, restored.

use serde_json::{Value, json};

use super::container_stack::{ContainerStack, POSTGRES_PASSWORD, REDIS_PASSWORD};
use super::stack::wait_until;

const CARDS: &str = "CREATE ROLE shop_owner LOGIN PASSWORD 'canary-role';
    CREATE TABLE cards (id int PRIMARY KEY, name text NOT NULL, price numeric NOT NULL);
    INSERT INTO cards SELECT n, 'card ' || n, n * 1.5 FROM generate_series(1, 20000) n;
    ALTER TABLE cards OWNER TO shop_owner;";

fn fill(stack: &ContainerStack) {
    stack.sql("shop", CARDS);
    stack.redis_cli(&["SET", "session:1", "somebody"]);
    stack.redis_cli(&["RPUSH", "queue", "a", "b", "c"]);
}

fn findings(doctor: &Value, scope: &str) -> String {
    let sections = doctor["result"]["sections"].as_array().unwrap();
    let section = sections.iter().find(|section| section["scope"] == scope).unwrap_or_else(|| panic!("{doctor}"));
    section["findings"].to_string()
}

#[test]
fn a_stack_comes_back_after_containers_and_volumes_are_gone() {
    let mut one = ContainerStack::start();
    fill(&one);
    let before = one.fingerprint();
    let doctor = one.stack.place.json(0, &["doctor"]);
    assert!(
        findings(&doctor, "database").contains("/usr/lib/postgresql/15/bin of the container `shop-postgres`"),
        "{doctor}"
    );
    assert!(findings(&doctor, "compose").contains("the service `backend` runs"), "{doctor}");
    let report = one.stack.complete();
    let point = report["point"].as_str().unwrap().to_owned();
    no_secret_is_left(&one);

    // The configuration knows what a bare machine needs.
    let text = one.stack.place.ends(0, &["cat", &point, "compose/containers.json"]).out;
    let inventory: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(inventory["project"], "shop");
    let services: Vec<&str> =
        inventory["services"].as_array().unwrap().iter().map(|one| one["service"].as_str().unwrap()).collect();
    assert_eq!(services, ["backend", "frontend", "postgres", "redis"]);
    assert!(inventory["services"][0]["image_id"].as_str().unwrap().len() >= 64, "{inventory}");
    let volumes: Vec<&str> =
        inventory["volumes"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(volumes, ["shop_pg_data", "shop_redis_data"]);
    assert_eq!(inventory["volumes"][0]["labels"]["com.docker.compose.project"], "shop");
    one.stack.place.ends(0, &["restore", &point, "compose", "--to", "bare"]);
    let env = super::stack::below(&one.stack.path("bare"), &one.stack.path("shop/.env"));
    assert_eq!(std::fs::read_to_string(env).unwrap(), "SHOP_SECRET=canary-of-the-environment\n");

    hooks_run_inside(&mut one);
    one.destroy();
    one.create();
    let answer = one.stack.place.json(0, &["restore", &point, "database", "cache", "--in-place", "--no-safety-point"]);
    assert_eq!(one.fingerprint(), before);
    let services = &answer["result"]["services"];
    assert_eq!(services["stopped"], json!(["frontend", "backend", "redis"]), "{answer}");
    assert_eq!(services["started"], json!(["redis", "backend", "frontend"]), "{answer}");
    let started = ["shop-redis", "shop-backend", "shop-frontend"].map(|name| one.podman.started(name));
    assert!(started.is_sorted(), "{started:?}");
    assert!(["shop-postgres", "shop-redis", "shop-backend", "shop-frontend"].iter().all(|name| one.podman.runs(name)));
    let owner = one.sql("shop", "SELECT tableowner FROM pg_tables WHERE tablename = 'cards'");
    assert_eq!(owner, "shop_owner", "roles came back too");

    // And once more over living data, with a safety point.
    one.sql("shop", "DELETE FROM cards");
    one.redis_cli(&["FLUSHALL"]);
    let answer = one.stack.place.json(0, &["restore", &point, "database", "cache", "--in-place"]);
    assert!(answer["result"]["safety_point"].is_string(), "{answer}");
    assert_eq!(one.fingerprint(), before);
    let refused = one.stack.place.ends(2, &["restore", &point, "cache", "--in-place", "--discard-old"]);
    refused.says("RK-CL-001", &["the old state is brought back"]);
}

#[test]
fn a_recovery_stops_the_services_first_and_starts_all_of_them_last_also_after_a_kill() {
    let one = ContainerStack::start();
    fill(&one);
    let before = one.fingerprint();
    one.stack.complete();
    one.destroy();
    one.create();
    // After a loss, not everything runs.
    one.podman.podman(&["stop", "-t", "0", "shop-frontend"]);
    let place = &one.stack.place;
    let only = ["recover", "--replace", "--only", "database", "--only", "cache"];
    let plan = place.json(0, &[&only[..], &["--dry-run"]].concat());
    let steps = plan["result"]["plan"]["steps"].as_array().unwrap();
    let step =
        |step: &Value| format!("{} {}", step["act"].as_str().unwrap(), step["component"].as_str().unwrap_or("-"));
    assert_eq!((step(&steps[0]), step(&steps[steps.len() - 1])), ("stop -".to_owned(), "start -".to_owned()), "{plan}");
    let mut child = one.stack.start(&only);
    wait_until("the services are stopped", || !one.podman.runs("shop-redis"));
    child.kill().unwrap();
    child.wait().unwrap();
    let answer = place.json(0, &["recover", "--resume"]);
    assert_eq!(answer["result"]["started"], true, "{answer}");
    assert_eq!(one.fingerprint(), before);
    let started = ["shop-redis", "shop-backend", "shop-frontend"].map(|name| one.podman.started(name));
    assert!(started.is_sorted(), "{started:?}");
    assert!(["shop-postgres", "shop-redis", "shop-backend", "shop-frontend"].iter().all(|name| one.podman.runs(name)));
}

fn hooks_run_inside(one: &mut ContainerStack) {
    let hook =
        |script: &str| format!("hooks = {{ before = [[\"sh\", \"-c\", \"{script}\"]], container = \"shop-redis\" }}");
    one.cache(&hook("echo $REKINDLE_COMPONENT >/tmp/hooked"));
    one.stack.place.ends(0, &["backup", "cache"]);
    assert_eq!(one.podman.podman(&["exec", "shop-redis", "cat", "/tmp/hooked"]), "cache");
    one.cache(&hook("echo woe >&2; exit 3"));
    let ended = one.stack.place.ends(1, &["backup", "cache"]);
    ended.says("RK-EN-004", &["in the container `shop-redis`", "exit status: 3, it said: woe"]);
    one.cache("");
}

/// Passwords are neither in what execs were created with nor in files of the containers.
fn no_secret_is_left(one: &ContainerStack) {
    for container in ["shop-postgres", "shop-redis"] {
        let inspected = one.podman.podman(&["inspect", container]);
        let created = inspected.find("\"Config\"").map_or("", |at| &inspected[..at]);
        assert!(!created.contains("canary-role"), "{created}");
        let changed = one.podman.podman(&["diff", container]);
        assert!(!changed.contains("pgpass") && !changed.contains("rekindle"), "{changed}");
    }
    let found = one.podman.try_podman(&[
        "exec",
        "shop-postgres",
        "sh",
        "-c",
        &format!("grep -rl {POSTGRES_PASSWORD} /tmp /root /var/tmp"),
    ]);
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "no file with the password");
    assert_ne!(POSTGRES_PASSWORD, REDIS_PASSWORD);
}

#[test]
fn what_does_not_become_healthy_is_rolled_back() {
    let mut one = ContainerStack::start();
    fill(&one);
    // The point holds a shop that its backend refuses to serve.
    one.redis_cli(&["SET", "broken", "yes"]);
    let point = one.stack.complete()["point"].as_str().unwrap().to_owned();
    one.redis_cli(&["DEL", "broken"]);
    one.redis_cli(&["SET", "since", "then"]);
    one.sql("shop", "DELETE FROM cards WHERE id > 100");
    let before = one.fingerprint();

    one.stack.set(&format!(
        "[component.database]\nkind = \"postgres\"\nurl = \"postgres://postgres@127.0.0.1:{}/shop\"\n\
         password = \"file:pg-password\"\nbin-dir = \"no-programs\"\ncontainer = \"shop-postgres\"",
        one.postgres.number()
    ));
    let value = one.stack.place.json(4, &["restore", &point, "database", "cache", "--in-place", "--no-safety-point"]);
    assert_eq!(value["error"]["code"], "RK-EN-020", "{value}");
    let services = &value["result"]["services"];
    assert_eq!(services["rolled_back"]["code"], "RK-EN-020", "{value}");
    assert!(services["rolled_back"]["message"].as_str().unwrap().contains("`backend`"), "{value}");
    assert!(services["problem"].is_null(), "{value}");
    assert_eq!(services["started"], json!(["redis", "backend", "frontend"]), "{value}");
    let states: Vec<&str> =
        value["result"]["items"].as_array().unwrap().iter().map(|item| item["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["rolled-back", "rolled-back"]);
    assert_eq!(one.fingerprint(), before, "the state before");
    assert_eq!(one.redis_cli(&["GET", "since"]), "then");
    assert!(["shop-postgres", "shop-redis", "shop-backend", "shop-frontend"].iter().all(|name| one.podman.runs(name)));
    // What was restored is still there to be looked at.
    let databases = one.sql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'shop%' ORDER BY 1");
    assert_eq!(databases, "shop\nshop_rolled_back");
    assert_eq!(one.sql("shop_rolled_back", "SELECT count(*) FROM cards"), "20000");
    assert!(one.redis_volume().join("rekindle-rolled-back").is_dir());
}
