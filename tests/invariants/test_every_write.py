"""Every write goes through `kava.files.write`, whole or absent, or into a staged folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import kava

SOURCE = Path(kava.__file__).parent
WRITES = {
    "write_text", "write_bytes", "writelines", "save_file", "save_pretrained", "rename", "replace",
    "mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory", "tofile", "savez",
}  # fmt: skip
STAGED = {
    # a checkpoint is written into a hidden folder, which is renamed when all is there
    "student/checkpoint.py": {"save_pretrained", "write_text"},
    "train/checkpoint.py": {"save_file", "write_text", "replace"},
    "train/recording.py": {"write_text"},
    "train/sharded.py": {"torch.save"},
    # an exported student, into a folder of `kava.files.write.new_folder`
    "student/exported.py": {"save_file", "save_pretrained", "write_text"},
    "share/folder.py": {"write_text"},
    # the adapters of a checkpoint
    "models/lora.py": {"save_file", "save_pretrained"},
    "student/adapted.py": {"save_file", "save_pretrained"},
}
ELSEWHERE = {
    "profile/measure.py": {"write_text"},  # /proc
    "cli.py": {"open"},  # /dev/null
    "ranks.py": {"open"},  # /dev/null
    "study/packed.py": {"open", "TemporaryDirectory"},  # in memory, and to read what is packed
    "cluster/local.py": {"open"},  # the log of a job
    "cluster/preflight.py": {"NamedTemporaryFile"},  # a script that bash looks at once
    "profile/peak.py": {"TemporaryDirectory"},  # what a measured step writes is thrown away
    "train/choice.py": {"TemporaryDirectory"},  # the same, of steps without an update
    "jobs/worker.py": {"open"},  # the log of a job, to which libraries print too
}


def writes(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of every call that writes a file; `replace` of texts and records is none."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = getattr(function, "attr", getattr(function, "id", ""))
        owner = function.value if isinstance(function, ast.Attribute) else None
        of_os = isinstance(owner, ast.Name) and owner.id == "os"
        if name == "open":
            of_path = owner is not None and not of_os
            given = [
                *node.args[not of_path :],
                *(k.value for k in node.keywords if k.arg == "mode"),
            ]
            modes = {str(n.value) for n in given if isinstance(n, ast.Constant)}
            flags = {getattr(n, "attr", "") for n in ast.walk(node)}
            if any({*mode} & {*"wax+"} for mode in modes) or flags & {"O_WRONLY", "O_RDWR"}:
                yield node.lineno, name
        elif name in WRITES and (name not in {"rename", "replace"} or of_os):
            yield node.lineno, name
        elif name == "save" and isinstance(owner, ast.Name) and owner.id in {"torch", "np"}:
            yield node.lineno, f"{owner.id}.save"


def test_every_write_is_whole_or_absent() -> None:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        name = str(path.relative_to(SOURCE))
        if name == "files/write.py":
            continue
        allowed = {**STAGED, **ELSEWHERE}.get(name, set())
        found += [
            f"{name}:{line} calls {call}" for line, call in writes(path) if call not in allowed
        ]
    assert found == [], (
        "write through kava.files.write, so that a full disk or a kill leaves no half file"
    )


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("Path('x').write_text('a')", "write_text"),
        ("open('x', 'w')", "open"),
        ("path.open(mode='ab')", "open"),
        ("os.open('x', os.O_WRONLY | os.O_CREAT)", "open"),
        ("os.replace('a', 'b')", "replace"),
        ("torch.save(x, 'b')", "torch.save"),
        ("save_file(state, path)", "save_file"),
    ],
)
def test_a_write_of_another_kind_is_found(tmp_path: Path, line: str, call: str) -> None:
    (tmp_path / "x.py").write_text(line)
    assert list(writes(tmp_path / "x.py")) == [(1, call)]


@pytest.mark.parametrize(
    "line", ["'a'.replace('a', 'b')", "replace(run, seed=1)", "path.open()", "open('x', 'rb')"]
)
def test_what_writes_nothing_is_left_alone(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.py").write_text(line)
    assert list(writes(tmp_path / "x.py")) == []
