"""Running a command and keeping its figures."""

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass


@dataclass
class Figures:
    wall: float
    cpu: float
    peak_mib: float

    def then(self, other):
        """Both, one after the other."""
        return Figures(self.wall + other.wall, self.cpu + other.cpu, max(self.peak_mib, other.peak_mib))


def run(command, environment=None):
    """Runs a command to its end. A peer that fails ends the benchmark: no figure of a failed run."""
    started = time.monotonic()
    child = subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command[0]} failed with {child.returncode}: {said.decode(errors='replace')[-2000:]}")
    return Figures(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


class Table:
    """Figures by tool and scenario; medians, and ratios to one of the tools."""

    def __init__(self, scenarios):
        self.scenarios = scenarios
        self.figures = {}

    def add(self, tool, scenario, figures, tell=True):
        self.figures.setdefault(scenario, {}).setdefault(tool, []).append(figures)
        if tell:
            print(f"  {scenario}: {tool}: {figures.wall:.2f} s", file=sys.stderr)

    def show(self, ours="rekindle"):
        print("| scenario | tool | wall s | CPU s | peak MiB | rekindle / it |")
        print("|---|---|---|---|---|---|")
        for scenario in self.scenarios:
            rows = self.figures.get(scenario, {})
            # Without a figure of ours there is nothing to compare with.
            base = statistics.median(f.wall for f in rows[ours]) if ours in rows else float("nan")
            for tool in sorted(rows, key=lambda name: name != ours):
                wall = statistics.median(f.wall for f in rows[tool])
                cpu = statistics.median(f.cpu for f in rows[tool])
                peak = max(f.peak_mib for f in rows[tool])
                digits = 2 if wall >= 1 else 3
                print(f"| {scenario} | {tool} | {wall:.{digits}f} | {cpu:.{digits}f} | {peak:.0f} | {base / wall:.2f} |")
