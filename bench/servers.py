"""PostgreSQL and Redis capture beside the commands they replace."""

import os
import pathlib
import shutil
import socket
import subprocess
import time

from measure import Table, run
from tools import PASSWORD, REKINDLE, quietly

PG_BIN = pathlib.Path("/usr/lib/postgresql/15/bin")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def as_postgres(command):
    return ["runuser", "-u", "postgres", "--", *command] if os.getuid() == 0 else command


class Postgres:
    """A private server with a database that is not as compressible as pgbench's own rows."""

    def __init__(self, work, rows):
        self.data = work / "postgres"
        self.port = free_port()
        work.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            shutil.chown(work, "postgres")
        quietly(as_postgres([PG_BIN / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust"]), {})
        settings = f"-c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        log = ["-l", work / "log", "-w"]
        quietly(as_postgres([PG_BIN / "pg_ctl", "-D", self.data, *log, "start", "-o", settings]), {})
        self.environment = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "postgres"}
        sql = f"""CREATE TABLE events AS SELECT n AS id, md5(n::text) AS digest, now() + n * interval '1 s' AS at,
            (random() * 1e6)::int AS amount, repeat('some words of text ', (n % 9)::int) AS body
            FROM generate_series(1, {rows}) AS n; ALTER TABLE events ADD PRIMARY KEY (id); VACUUM ANALYZE events"""
        for statement in ["CREATE DATABASE bench", None]:
            database = "postgres" if statement else "bench"
            quietly(["psql", "-q", "-d", database, "-c", statement or sql.split(";")[0]], self.environment)
        for statement in sql.split(";")[1:]:
            quietly(["psql", "-q", "-d", "bench", "-c", statement], self.environment)

    def stop(self):
        quietly(as_postgres([PG_BIN / "pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop"]), {})


class Redis:
    def __init__(self, work, keys):
        self.port = free_port()
        self.directory = work / "redis"
        self.directory.mkdir(parents=True)
        arguments = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", self.directory, "--save", ""]
        self.child = subprocess.Popen(
            ["redis-server", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        while subprocess.run(self.command("ping"), capture_output=True).stdout.strip() != b"PONG":
            time.sleep(0.1)
        quietly(self.command("DEBUG", "populate", str(keys), "key", "400"), {})

    def command(self, *words):
        return ["redis-cli", "-p", str(self.port), *words]

    def seed_procedure(self, target):
        """BGSAVE, then wait until it is really done (what the shell scripts leave out), then copy."""
        script = """until redis-cli -p $PORT BGSAVE | grep -q started; do sleep 0.1; done
            while redis-cli -p $PORT INFO persistence | grep -q rdb_bgsave_in_progress:1; do sleep 0.1; done
            redis-cli -p $PORT INFO persistence | grep -q rdb_last_bgsave_status:ok || exit 1
            cp "$DIR/dump.rdb" "$TARGET" && sync "$TARGET" """
        return ["sh", "-c", script], {"PORT": str(self.port), "DIR": str(self.directory), "TARGET": str(target)}

    def stop(self):
        self.child.kill()
        self.child.wait()


def rekindle(work, name, component):
    place = work / f"rekindle-{name}"
    place.mkdir()
    (place / "key").write_text(PASSWORD)
    (place / "key").chmod(0o600)
    config = place / "rekindle.toml"
    config.write_text(
        f"""[stack]
name = "bench"
state-dir = "{place}/state"
[repository]
url = "file://{place}/repository"
password = "file:{place}/key"
[component.{name}]
{component}
"""
    )
    quietly([REKINDLE, "--config", config, "init"], {})
    return [REKINDLE, "--config", config, "--quiet", "backup"]


def bench(work, options):
    postgres, redis = Postgres(work / "pg", 4_000_000), Redis(work / "rd", 1_500_000)
    try:
        print(f"\n## Servers, {options.rounds} rounds\n")
        bench_postgres(work, options, postgres)
        bench_redis(work, options, redis)
    finally:
        postgres.stop()
        redis.stop()


def bench_postgres(work, options, server):
    table = Table(["PostgreSQL capture"])
    for number in range(options.rounds):
        url = f"postgres://postgres@127.0.0.1:{server.port}/bench"
        component = f'kind = "postgres"\nurl = "{url}"\nmethod = "logical"\nglobals = false'
        command = rekindle(work, f"database-{number}", component)
        table.add("rekindle", "PostgreSQL capture", run(command))
        dump = ["sh", "-c", "exec pg_dump -Fc -Z0 bench >/dev/null"]
        table.add("pg_dump -Z0 to nowhere", "PostgreSQL capture", run(dump, server.environment))
        target = work / "seed.dump"
        seed = ["pg_dump", "--format=custom", "--compress=9", f"--file={target}", "bench"]
        table.add("pg_dump --compress=9", "PostgreSQL capture", run(seed, server.environment))
    table.show("rekindle")


def bench_redis(work, options, server):
    table = Table(["Redis capture"])
    for number in range(options.rounds):
        component = f'kind = "redis"\nurl = "redis://127.0.0.1:{server.port}"'
        table.add("rekindle", "Redis capture", run(rekindle(work, f"cache-{number}", component)))
        command, environment = server.seed_procedure(work / "seed.rdb")
        table.add("BGSAVE, wait, copy", "Redis capture", run(command, environment))
        rdb = server.command("--rdb", str(work / "cli.rdb"))
        table.add("redis-cli --rdb", "Redis capture", run(rdb))
    print()
    table.show("rekindle")
