"""Base backups of PostgreSQL beside pg_basebackup, pgBackRest and barman.

Debian's PostgreSQL 15 for full backups and restores (its pgBackRest knows no newer one), 17 of
`scripts/setup` for incremental ones. Peers run with two processes or threads where they can, and without
encryption; rekindle always encrypts.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time

from measure import Table, run
from servers import as_postgres, free_port
from tools import PASSWORD, REKINDLE, ROOT, quietly

TOOLS = pathlib.Path(os.environ.get("REKINDLE_TOOLS", ROOT / ".tools"))


def own(directory):
    """A new directory that the server's user may write to."""
    directory.mkdir(mode=0o700)
    shutil.chown(directory, "postgres") if os.getuid() == 0 else None
    return directory


class Cluster:
    """A server with a database of so many MiB, like pgbench's but less compressible."""

    def __init__(self, work, name, binaries, mebibytes, settings=""):
        self.work, self.bin, self.port = work / name, binaries, free_port()
        own(self.work)
        self.data = self.work / "data"
        quietly(as_postgres([self.bin / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-k"]), {})
        fixed = f"-c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        log = ["-l", self.work / "log", "-w"]
        options = f"{fixed} -c max_wal_size=8GB {settings}"
        quietly(as_postgres([self.bin / "pg_ctl", "-D", self.data, *log, "start", "-o", options]), {})
        self.environment = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "postgres"}
        rows = mebibytes * 6800
        self.sql(
            f"""CREATE TABLE events AS SELECT n AS id, md5(n::text) AS digest, now() + n * interval '1 s' AS at,
            (random() * 1e6)::int AS amount, repeat('some words of text ', (n % 9)::int) AS body
            FROM generate_series(1, {rows}) AS n""",
            "ALTER TABLE events ADD PRIMARY KEY (id)",
            "VACUUM FREEZE ANALYZE events",
            "CHECKPOINT",
        )
        self.rows = rows

    def sql(self, *statements):
        for statement in statements:
            quietly([self.bin / "psql", "-X", "-q", "-c", statement], self.environment)

    def change(self, number):
        """One row in a hundred, other ones for each number."""
        low = number * self.rows // 50
        self.sql(f"UPDATE events SET amount = amount + 1 WHERE id BETWEEN {low} AND {low + self.rows // 100}")

    def stop(self):
        quietly(as_postgres([self.bin / "pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop"]), {})


class Rekindle:
    def __init__(self, work, cluster):
        self.work = work
        work.mkdir()
        (work / "key").write_text(PASSWORD)
        (work / "key").chmod(0o600)
        self.config = work / "rekindle.toml"
        self.config.write_text(
            f"""[stack]
name = "bench"
state-dir = "{work}/state"
[repository]
url = "file://{work}/repository"
password = "file:{work}/key"
[component.database]
kind = "postgres"
method = "physical"
url = "postgres://postgres@127.0.0.1:{cluster.port}/postgres"
bin-dir = "{cluster.bin}"
"""
        )
        quietly([REKINDLE, "--config", self.config, "init"], {})

    def backup(self):
        return [REKINDLE, "--config", self.config, "--quiet", "backup"]

    def restic(self, target):
        """Stock restic, of the same repository."""
        environment = {"RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": str(self.work / "repository")}
        return ["restic", "--no-cache", "restore", "latest", "--target", target], environment

    def restore(self, target, *more):
        return [REKINDLE, "--config", self.config, "--quiet", "restore", "database", "--immediate", "--to", target, *more]


class PgBackRest:
    def __init__(self, work, cluster):
        self.work = work
        self.config = work / "pgbackrest.conf"
        self.config.write_text(
            f"""[global]
repo1-path={work}/repository
repo1-bundle=y
compress-type=zst
compress-level=3
process-max=2
start-fast=y
log-level-console=warn
log-level-file=off
lock-path={work}/lock
spool-path={work}/spool
[bench]
pg1-path={cluster.data}
pg1-port={cluster.port}
pg1-socket-path={cluster.work}
pg1-user=postgres
"""
        )

    def command(self, *arguments):
        return as_postgres(["pgbackrest", f"--config={self.config}", "--stanza=bench", *arguments])


class Barman:
    """As Debian has it: pg_basebackup behind it, gzip the only compression; WAL streamed beside it."""

    def __init__(self, work, cluster):
        self.work = work
        self.config = work / "barman.conf"
        server = f"host=127.0.0.1 port={cluster.port} user=postgres"
        self.config.write_text(
            f"""[barman]
barman_home={work}/home
barman_user={"postgres" if os.getuid() == 0 else os.environ.get("USER", "postgres")}
log_file={work}/log
configuration_files_directory={work}/none
barman_lock_directory={work}
[bench]
description=bench
conninfo={server} dbname=postgres
streaming_conninfo={server}
backup_method=postgres
streaming_archiver=on
slot_name=barman
create_slot=auto
path_prefix={cluster.bin}
immediate_checkpoint=true
backup_compression=gzip
backup_compression_format=tar
recovery_staging_path={work}/staging
"""
        )
        for name in ["home", "none", "staging"]:
            (work / name).mkdir()
            shutil.chown(work / name, "postgres") if os.getuid() == 0 else None
        self.receiver = subprocess.Popen(
            self.command("receive-wal"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        time.sleep(3)
        quietly(self.command("switch-wal", "--force", "--archive", "--archive-timeout", "60"), {})

    def command(self, verb, *arguments, after=()):
        return as_postgres(["barman", "-c", self.config, verb, *arguments, "bench", *after])

    def stop(self):
        quietly(self.command("receive-wal", "--stop"), {})
        self.receiver.wait()


def size_of(path):
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def bench(work, options):
    for program in ["pgbackrest", "barman", "zstd"]:
        if not shutil.which(program):
            sys.exit(f"{program} is not installed: apt-get install pgbackrest barman zstd")
    print(f"\n## Base backups, {options.size} MiB of rows, {options.rounds} rounds\n")
    table = Table(["full", "second on 15, 1 % changed", "second on 17, 1 % changed", "restore"])
    bench_15(work, options, table)
    bench_17(work, options, table)
    table.show()


def bench_15(work, options, table):
    binaries = pathlib.Path("/usr/lib/postgresql/15/bin")
    peer_work, barman_work = own(work / "pgbackrest"), own(work / "barman")
    socket = work / "base15"
    archive = f"pgbackrest --config={peer_work}/pgbackrest.conf --stanza=bench archive-push %p"
    settings = f"-c archive_mode=on -c unix_socket_directories={socket}"
    cluster = Cluster(work, "base15", binaries, options.size, settings)
    try:
        peer = PgBackRest(peer_work, cluster)
        quietly(peer.command("stanza-create"), {})
        cluster.sql(f"ALTER SYSTEM SET archive_command = '{archive}'", "SELECT pg_reload_conf()")
        barman = Barman(barman_work, cluster)
        for number in range(options.rounds):
            ours = Rekindle(work / f"rekindle-{number}", cluster)
            table.add("rekindle", "full", run(ours.backup()))
            pipe = f"exec {binaries}/pg_basebackup -D - -Ft -X fetch -c fast | zstd -q -3 -T2 -o {work}/base.tar.zst -f"
            table.add("pg_basebackup|zstd -T2", "full", run(["bash", "-c", f"set -o pipefail; {pipe}"], cluster.environment))
            table.add("pgBackRest", "full", run(peer.command("backup", "--type=full")))
            table.add("barman", "full", run(barman.command("backup", "--wait")))
            # A directory that recovers when it is started, as the peers leave one.
            table.add("rekindle", "restore", run(ours.restore(work / "restored-rekindle", "--no-start")))
            command, environment = ours.restic(work / "restored-restic")
            table.add("restic, of rekindle's files", "restore", run(command, environment))
            if options.restore:
                proved = run(ours.restore(work / "restored-proved"))
                table.add("rekindle, started and proved", "restore", proved)
            target = own(work / "restored-pgbackrest")
            table.add("pgBackRest", "restore", run(peer.command("restore", f"--pg1-path={target}")))
            target = own(work / "restored-barman")
            table.add("barman", "restore", run(barman.command("recover", after=["latest", target / "data"])))
            pipe = f"zstd -q -dc -T2 {work}/base.tar.zst | tar -x -C {work}/restored-tar"
            (work / "restored-tar").mkdir()
            table.add("zstd|tar", "restore", run(["bash", "-c", f"set -o pipefail; {pipe}"]))
            print(
                f"stored, MiB: rekindle {size_of(ours.work / 'repository') >> 20}, "
                f"pg_basebackup|zstd {(work / 'base.tar.zst').stat().st_size >> 20}",
                file=sys.stderr,
            )
            cluster.change(number)
            # 15 sends everything; what did not change is not stored again. pgBackRest 2.45 copies whole changed files.
            table.add("rekindle", "second on 15, 1 % changed", run(ours.backup()))
            table.add("pgBackRest", "second on 15, 1 % changed", run(peer.command("backup", "--type=incr")))
            for place in work.glob("restored-*"):
                shutil.rmtree(place)
            shutil.rmtree(ours.work)
        barman.stop()
    finally:
        cluster.stop()


def bench_17(work, options, table):
    cluster = Cluster(work, "base17", TOOLS / "pg" / "17" / "bin", options.size, "-c summarize_wal=on")
    scenario = "second on 17, 1 % changed"
    try:
        ours = Rekindle(work / "rekindle-17", cluster)
        run(ours.backup())
        before = size_of(ours.work / "repository")
        first = work / "first"
        basebackup = [cluster.bin / "pg_basebackup", "-c", "fast", "-X", "fetch", "-D"]
        run([*basebackup, first], cluster.environment)
        for number in range(options.rounds):
            cluster.change(number)
            table.add("rekindle", scenario, run(ours.backup()))
            target = work / f"second-{number}"
            arguments = [f"--incremental={first}/backup_manifest"]
            figures = run([*basebackup, target, *arguments], cluster.environment)
            table.add("pg_basebackup --incremental", scenario, figures)
            print(
                f"stored, MiB: rekindle {(size_of(ours.work / 'repository') - before) >> 20}, "
                f"pg_basebackup --incremental {size_of(target) >> 20}",
                file=sys.stderr,
            )
            before = size_of(ours.work / "repository")
    finally:
        cluster.stop()
