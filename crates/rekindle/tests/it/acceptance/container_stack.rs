//! A stack in containers of a private Podman, made as compose would make it: PostgreSQL and Redis with their
//! data in volumes, a backend that needs both, a frontend that needs the backend.

use std::path::PathBuf;

use rekindle_testkit::Podman;
use rekindle_testkit::podman::IMAGE;
use rekindle_testkit::port::Port;

use super::stack::Stack;
use crate::run::Place;

pub(crate) const POSTGRES_PASSWORD: &str = "canary-pg-in-container";
pub(crate) const REDIS_PASSWORD: &str = "canary-redis-in-container";
const VOLUMES: [&str; 2] = ["shop_pg_data", "shop_redis_data"];

/// `$1` is the password, `$2` the port. PostgreSQL refuses root, and the volume belongs to root at first.
const POSTGRES: &str = r#"set -e; d=/var/lib/postgresql/data; b=/usr/lib/postgresql/15/bin
chown postgres "$d"; chmod 700 "$d"; export PGUSER=postgres
if [ ! -s "$d/PG_VERSION" ]; then
  printf '%s' "$1" >/tmp/pw; chown postgres /tmp/pw
  su postgres -c "$b/initdb -N -D $d -A scram-sha-256 --pwfile=/tmp/pw"; rm /tmp/pw
fi
exec su postgres -c "exec $b/postgres -D $d -p $2 -c listen_addresses=127.0.0.1 -c unix_socket_directories=/tmp -c fsync=off -c dynamic_shared_memory_type=mmap -c shared_buffers=16MB"
"#;

pub(crate) struct ContainerStack {
    pub(crate) stack: Stack,
    pub(crate) podman: Podman,
    pub(crate) postgres: Port,
    pub(crate) redis: Port,
}

impl ContainerStack {
    /// Everything runs, and the configuration names all of it. No client program of PostgreSQL is found on
    /// this host.
    pub(crate) fn start() -> Self {
        let podman = Podman::start();
        let place = Place::new();
        let url = format!("file://{}", place.path().join("repo").display());
        let mut stack = Stack::at(place, &format!("url = \"{url}\""), &url);
        std::fs::create_dir(stack.path("no-programs")).unwrap();
        stack.place.set("PATH", "/nowhere");
        let (postgres, redis) = (Port::take(), Port::take());
        stack.place.write("pg-password", POSTGRES_PASSWORD);
        stack.place.write("redis-password", REDIS_PASSWORD);
        stack.place.write("shop/docker-compose.yml", COMPOSE);
        stack.place.write("shop/.env", "SHOP_SECRET=canary-of-the-environment\n");
        let mut this = Self { stack, podman, postgres, redis };
        let host = this.podman.host();
        this.reach(&host);
        let postgres = this.postgres.number();
        this.stack.add(&format!(
            "[component.database]\nkind = \"postgres\"\nurl = \"postgres://postgres@127.0.0.1:{postgres}/shop\"\n\
             password = \"file:pg-password\"\nexact-counts = true\nbin-dir = \"no-programs\"\ncontainer = \"shop-postgres\""
        ));
        this.cache("");
        this.create();
        this.sql("postgres", "CREATE DATABASE shop");
        this
    }

    /// The engine is at this place.
    pub(crate) fn reach(&mut self, host: &str) {
        self.stack.in_stack(&format!(
            "docker-host = \"{host}\"\ncompose = \"shop/docker-compose.yml\"\napp-services = [\"frontend\", \"backend\"]\nstart-timeout = \"20s\""
        ));
    }

    /// The component `cache`, with further lines.
    pub(crate) fn cache(&mut self, more: &str) {
        let port = self.redis.number();
        self.stack.set(&format!(
            "[component.cache]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:{port}\"\npassword = \"file:redis-password\"\n\
             container = \"shop-redis\"\n{more}"
        ));
    }

    /// Makes volumes and containers, and waits for the servers.
    pub(crate) fn create(&self) {
        for volume in VOLUMES {
            self.podman.podman(&["volume", "create", "--label", "com.docker.compose.project=shop", volume]);
        }
        let (postgres, redis) = (self.postgres.number().to_string(), self.redis.number().to_string());
        let data = "shop_pg_data:/var/lib/postgresql/data";
        self.run("postgres", &["-v", data], &["sh", "-c", POSTGRES, "sh", POSTGRES_PASSWORD, &postgres]);
        let check = format!("redis-cli -a {REDIS_PASSWORD} -p {redis} ping | grep PONG");
        self.run(
            "redis",
            &["-v", "shop_redis_data:/data", "--health-cmd", &check],
            &[
                "redis-server",
                "--port",
                &redis,
                "--dir",
                "/data",
                "--appendonly",
                "yes",
                "--requirepass",
                REDIS_PASSWORD,
            ],
        );
        self.podman.wait("shop-redis", &["sh", "-c", &check]);
        self.podman
            .wait("shop-postgres", &["/usr/lib/postgresql/15/bin/pg_isready", "-h", "127.0.0.1", "-p", &postgres]);
        // Healthy as long as the shop is not marked broken.
        let check = format!("redis-cli -a {REDIS_PASSWORD} -p {redis} get broken | grep -v yes");
        self.run("backend", &["--health-cmd", &check], &["sleep", "600"]);
        self.run("frontend", &[], &["sleep", "600"]);
    }

    fn run(&self, service: &str, more: &[&str], command: &[&str]) {
        let label = format!("com.docker.compose.service={service}");
        let labels = ["--label", "com.docker.compose.project=shop", "--label", &label, "--stop-timeout", "5"];
        let more: Vec<&str> = labels.iter().chain(more).copied().collect();
        self.podman.run(&format!("shop-{service}"), &more, command);
    }

    /// Removes every container and every volume: what is not in the repository is gone.
    pub(crate) fn destroy(&self) {
        for service in ["frontend", "backend", "redis", "postgres"] {
            self.podman.podman(&["rm", "-f", "-t", "0", &format!("shop-{service}")]);
        }
        for volume in VOLUMES {
            self.podman.podman(&["volume", "rm", volume]);
        }
    }

    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        let port = self.postgres.number().to_string();
        let password = format!("PGPASSWORD={POSTGRES_PASSWORD}");
        let head = ["exec", "--env", &password, "shop-postgres", "/usr/lib/postgresql/15/bin/psql", "-XqAt"];
        let rest =
            ["-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-p", &port, "-d", database, "-c", sql];
        let arguments: Vec<&str> = head.iter().chain(&rest).copied().collect();
        self.podman.podman(&arguments)
    }

    pub(crate) fn redis_cli(&self, arguments: &[&str]) -> String {
        let port = self.redis.number().to_string();
        let head = ["exec", "shop-redis", "redis-cli", "--no-auth-warning", "-a", REDIS_PASSWORD, "-p", &port];
        let arguments: Vec<&str> = head.iter().chain(arguments).copied().collect();
        self.podman.podman(&arguments)
    }

    /// What the data is, for comparing.
    pub(crate) fn fingerprint(&self) -> (String, String) {
        let rows = "SELECT count(*), sum(price), md5(string_agg(name, ',' ORDER BY id)) FROM cards";
        (self.sql("shop", rows), self.redis_cli(&["DEBUG", "DIGEST"]))
    }

    pub(crate) fn redis_volume(&self) -> PathBuf {
        self.podman.volume("shop_redis_data")
    }
}

/// As a user writes it. The image name is one that the engine has.
const COMPOSE: &str = "
services:
  frontend: { image: 'localhost/rekindle-test-stack:1', depends_on: [backend] }
  backend:
    image: localhost/rekindle-test-stack:1
    depends_on:
      postgres: { condition: service_healthy }
      redis: { condition: service_healthy }
  postgres: { image: 'localhost/rekindle-test-stack:1' }
  redis: { image: 'localhost/rekindle-test-stack:1' }
";

/// The image stands in the file above as its users would write it.
#[test]
fn the_compose_file_names_the_image_of_the_test_kit() {
    assert!(COMPOSE.contains(IMAGE));
}
