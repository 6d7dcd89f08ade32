"""WAL archiving beside pgBackRest and pg_receivewal: one segment pushed and fetched, and a stream that catches up.

Debian's PostgreSQL 15. pgBackRest archives one segment per process, as `archive_command` runs it, with zstd and
without encryption; rekindle always encrypts. `cp, sync` is what PostgreSQL's manual shows, made durable.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from base import Cluster, PgBackRest, own
from measure import Figures, Table, run
from tools import PASSWORD, REKINDLE, quietly

BINARIES = pathlib.Path("/usr/lib/postgresql/15/bin")
SEGMENTS = 24
SEGMENT_MIB = 16
STREAM_LONGEST_S = 300


class Rekindle:
    def __init__(self, work, cluster):
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
wal = "both"
slot = "bench_rekindle"
bin-dir = "{cluster.bin}"
"""
        )
        quietly([REKINDLE, "--config", self.config, "init"], {})

    def command(self, *arguments):
        return [REKINDLE, "--config", self.config, "wal", *arguments]


def bench(work, options):
    if not shutil.which("pgbackrest"):
        sys.exit("pgbackrest is not installed: apt-get install pgbackrest")
    settings = "-c archive_mode=on -c archive_command=/bin/true -c wal_keep_size=16GB"
    cluster = Cluster(work, "wal15", BINARIES, 1, settings + f" -c unix_socket_directories={work}/wal15")
    try:
        ours = Rekindle(work / "rekindle-wal", cluster)
        print(f"\n## WAL, {options.rounds} rounds\n")
        table = Table(["push of a segment", "fetch of a segment", "stream that catches up"])
        bench_segments(work, options, cluster, ours, table)
        bench_stream(work, options, cluster, ours, table)
        table.show()
    finally:
        cluster.stop()


def write_wal(cluster, mebibytes):
    """Rows that compress about three times, as WAL of real tables does."""
    rows = mebibytes * 3600
    cluster.sql(
        f"""INSERT INTO events SELECT n, md5(random()::text), now(), (random() * 1e6)::int,
        repeat('some words of text ', (n % 9)::int) FROM generate_series({time.time_ns() % 10**9 + 10**6},
        {time.time_ns() % 10**9 + 10**6 + rows}) AS n ON CONFLICT DO NOTHING""",
        "SELECT pg_switch_wal()",
    )


def value(cluster, query):
    command = [cluster.bin / "psql", "-X", "-q", "-A", "-t", "-c", query]
    done = subprocess.run(command, env={**os.environ, **cluster.environment}, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def bench_segments(work, options, cluster, ours, table):
    place = own(work / "pgbackrest-wal")
    peer = PgBackRest(place, cluster)
    quietly(peer.command("stanza-create"), {})
    copies, fetched = own(work / "copies"), own(work / "fetched")
    done = set()
    for _ in range(options.rounds):
        while len(left := finished(cluster, done)) < SEGMENTS:
            write_wal(cluster, SEGMENT_MIB * 4)
        for segment in left[:SEGMENTS]:
            done.add(segment.name)
            table.add("rekindle", "push of a segment", run(ours.command("push", segment)), tell=False)
            table.add("pgBackRest", "push of a segment", run(peer.command("archive-push", segment)), tell=False)
            copy = ["sh", "-c", f"cp '{segment}' '{copies}' && sync '{copies}/{segment.name}' '{copies}'"]
            table.add("cp, sync", "push of a segment", run(copy), tell=False)
        for name in sorted(segment.name for segment in left[:SEGMENTS]):
            table.add("rekindle", "fetch of a segment", run(ours.command("fetch", name, fetched / "ours")), tell=False)
            command = peer.command("archive-get", name, fetched / "theirs")
            table.add("pgBackRest", "fetch of a segment", run(command), tell=False)
            wanted = (copies / name).read_bytes()
            for tool in ["ours", "theirs"]:
                if (fetched / tool).read_bytes() != wanted:
                    sys.exit(f"{tool}: another segment came back as {name}")
                (fetched / tool).unlink()


def finished(cluster, done):
    """Segments before the one being written, which the manual calls complete."""
    current = value(cluster, "SELECT pg_walfile_name(pg_current_wal_lsn())")
    names = [path for path in (cluster.data / "pg_wal").iterdir() if len(path.name) == 24]
    return sorted(path for path in names if path.name < current and path.name not in done)


def bench_stream(work, options, cluster, ours, table):
    scenario = "stream that catches up"
    for number in range(options.rounds):
        place = own(work / f"received-{number}")
        slots = ["bench_rekindle", "bench_receivewal"]
        for slot in slots:
            there = value(cluster, f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'")
            if there == "0":
                cluster.sql(f"SELECT pg_create_physical_replication_slot('{slot}', true)")
        write_wal(cluster, options.size // 4)
        cluster.sql("CHECKPOINT")
        end = value(cluster, "SELECT pg_current_wal_lsn()")
        receive = [cluster.bin / "pg_receivewal", "-D", place, "-S", slots[1], "--synchronous", "--no-loop", "--endpos", end]
        turns = [
            ("rekindle", lambda end=end: until(cluster, ours.command("stream", "--no-backup"), slots[0], end)),
            ("pg_receivewal --synchronous", lambda receive=receive: run(receive, cluster.environment)),
        ]
        for tool, turn in turns[number % 2 :] + turns[: number % 2]:
            table.add(tool, scenario, turn())
        shutil.rmtree(place)


def until(cluster, command, slot, end):
    """Until the server knows that everything up to this position is durable; then the receiver is stopped."""
    started = time.monotonic()
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    query = f"SELECT restart_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = '{slot}'"
    while value(cluster, query) != "t":
        if child.poll() is not None or time.monotonic() - started > STREAM_LONGEST_S:
            child.kill()
            sys.exit(f"{command[0]} did not receive up to {end}: {child.stderr.read()}")
        time.sleep(0.02)
    wall = time.monotonic() - started
    child.send_signal(signal.SIGTERM)
    child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command[0]} ended with {child.returncode}")
    return Figures(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
