"""The tools that back up files, each with the same four moves."""

import filecmp
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
REKINDLE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "rekindle"
PASSWORD = "benchmark-password-that-is-long-enough"


def quietly(command, environment):
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr.decode(errors='replace')}")


class Tool:
    incremental = True

    def __init__(self, work, tree):
        self.work = work / self.name.split()[0]
        self.tree = tree
        self.repository = self.work / "repository"
        self.environment = {}
        self.work.mkdir(parents=True)

    def prepare(self):
        pass

    def restored_tree(self, target):
        """Where the tree stands below the target: most tools keep the whole path."""
        return target / self.tree.relative_to("/")

    def compare(self, tree, target):
        """A fast restore of the wrong bytes is worth nothing: names and sizes of all files, content of some."""
        restored = self.restored_tree(target)
        wanted = sorted(path.relative_to(tree) for path in tree.rglob("*"))
        there = sorted(path.relative_to(restored) for path in restored.rglob("*"))
        if wanted != there:
            sys.exit(f"{self.name} restored {len(there)} entries, not {len(wanted)}")
        files = [path for path in wanted if (tree / path).is_file()]
        _, wrong, errors = filecmp.cmpfiles(tree, restored, files[:: max(1, len(files) // 2000)], shallow=False)
        if wrong or errors:
            sys.exit(f"{self.name} restored other content: {wrong[:3]} {errors[:3]}")


class Rekindle(Tool):
    name = "rekindle"

    def prepare(self):
        key = self.work / "key"
        key.write_text(PASSWORD)
        key.chmod(0o600)
        self.config = self.work / "rekindle.toml"
        self.config.write_text(
            f"""[stack]
name = "bench"
state-dir = "{self.work}/state"
[repository]
url = "file://{self.repository}"
password = "file:{key}"
[component.tree]
kind = "files"
paths = ["{self.tree}"]
"""
        )
        quietly([REKINDLE, "--config", self.config, "init"], {})

    def backup(self):
        return [REKINDLE, "--config", self.config, "--quiet", "backup"]

    def restore(self, target):
        return [REKINDLE, "--config", self.config, "--quiet", "restore", "latest", "tree", "--to", target]


class Restic(Tool):
    name = "restic"
    program = "restic"

    def prepare(self):
        self.environment = {
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_CACHE_DIR": str(self.work / "cache"),
        }
        quietly([self.program, "init"], self.environment)

    def backup(self):
        return [self.program, "backup", "--quiet", self.tree]

    def restore(self, target):
        return [self.program, "restore", "--quiet", "latest", "--target", target]


class NewRestic(Restic):
    name = "restic-new"
    program = str(pathlib.Path(os.environ.get("REKINDLE_TOOLS", ROOT / ".tools")) / "bin" / "restic-new")


class Rustic(Tool):
    name = "rustic"

    def prepare(self):
        self.environment = {"RUSTIC_PASSWORD": PASSWORD, "RUSTIC_REPOSITORY": str(self.repository)}
        quietly(["rustic", "init"], self.environment)

    def backup(self):
        return ["rustic", "--no-progress", "backup", self.tree]

    def restore(self, target):
        return ["rustic", "--no-progress", "restore", f"latest:{self.tree}", target]

    def restored_tree(self, target):
        return target


class Borg(Tool):
    name = "borg"
    turn = 0

    def prepare(self):
        self.environment = {
            "BORG_PASSPHRASE": PASSWORD,
            "BORG_BASE_DIR": str(self.work / "base"),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }
        quietly(["borg", "init", "--encryption=repokey-blake2", self.repository], self.environment)

    def backup(self):
        Borg.turn += 1
        return ["borg", "create", "--compression", "zstd,3", f"{self.repository}::a{Borg.turn}", self.tree]

    def restore(self, target):
        script = 'cd "$1" && exec borg extract "$2::$(borg list --last 1 --short "$2")"'
        return ["sh", "-c", script, "sh", target, self.repository]


class TarZstdAge(Tool):
    name = "tar|zstd|age"
    incremental = False

    def __init__(self, work, tree):
        super().__init__(work, tree)
        self.repository.mkdir()

    def prepare(self):
        key = self.work / "age.key"
        quietly(["age-keygen", "-o", key], {})
        recipient = subprocess.run(["age-keygen", "-y", key], capture_output=True, check=True, text=True)
        self.environment = {
            "TREE": str(self.tree),
            "ARCHIVE": str(self.repository / "archive.tar.zst.age"),
            "KEY": str(key),
            "RECIPIENT": recipient.stdout.strip(),
        }

    def backup(self):
        script = 'set -o pipefail; tar -C / -cf - "${TREE#/}" | zstd -q -3 -T2 | age -r "$RECIPIENT" >"$ARCHIVE"'
        return ["bash", "-c", script]

    def restore(self, target):
        script = 'set -o pipefail; age -d -i "$KEY" "$ARCHIVE" | zstd -q -d | tar -C "$1" -xf -'
        return ["bash", "-c", script, "bash", target]

    def compare(self, tree, target):
        # The archive is from before the change: only the names can be the same.
        if sum(1 for _ in tree.rglob("*")) != sum(1 for _ in self.restored_tree(target).rglob("*")):
            sys.exit("tar restored another number of entries")


def available():
    found = [Rekindle, Restic]
    if pathlib.Path(NewRestic.program).exists():
        found.append(NewRestic)
    optional = [(Borg, "borg"), (TarZstdAge, "age"), (Rustic, "rustic")]
    return found + [tool for tool, program in optional if shutil.which(program)]


def file_tools(work, tree):
    return [tool(work, tree) for tool in available()]


def versions():
    def first_line(command):
        done = subprocess.run(command, capture_output=True, text=True)
        return (done.stdout + done.stderr).splitlines()[0]

    commands = [[REKINDLE, "--version"], ["restic", "version"], ["borg", "--version"], ["age", "--version"]]
    commands += [[NewRestic.program, "version"]] if pathlib.Path(NewRestic.program).exists() else []
    return "; ".join(first_line(command) for command in commands if shutil.which(command[0]))
