"""Text, JSON and YAML are read in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import kava

SOURCE = Path(kava.__file__).parent
ROOT = SOURCE.parent.parent
READERS = {
    "json.load", "json.loads", "yaml.load", "yaml.safe_load", "yaml.safe_load_all", "gzip.open",
    "csv.reader", "csv.DictReader",
}  # fmt: skip
# what is read elsewhere, and why that is no file a person wrote
ALLOWED = {
    "data/tables.py: csv.reader",  # of text that `kava.inputs` opened
    "jobs/crew.py: read_text",  # a log, the last words of a process that died
    "cluster/standing.py: read_text",  # a log, the last words of a job
    "files/locks.py: json.loads",  # a lock, read while it may be half written
    "files/locks.py: read_text",
    "machine/cgroups.py: read_text",  # the kernel's
    "machine/host.py: read_text",  # the kernel's
    "profile/peak.py: json.loads",  # the last line of a process of its own
    "student/checkpoint.py: read_text",  # searched for a word
    "study/plan.py: json.loads",  # a value made JSON and back
    "study/run.py: read_text",  # searched for a hash
    "train/callbacks.py: json.loads",  # a log that a killed run may have left half lines in
    "train/callbacks.py: read_text",
    "train/recording.py: read_text",  # the kernel's
}


def readers_in(folder: Path) -> set[str]:
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name in READERS or name.endswith(".read_text"):
                    read = name if name in READERS else "read_text"
                    found.add(f"{path.relative_to(folder)}: {read}")
    return {one for one in found if not one.startswith("inputs/")}


def test_files_are_read_by_the_readers_of_inputs() -> None:
    assert readers_in(SOURCE) - ALLOWED == set()
    assert readers_in(ROOT / "experiments") == set()


def test_what_is_allowed_is_still_there() -> None:
    assert ALLOWED - readers_in(SOURCE) == set()
