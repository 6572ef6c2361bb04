"""Several processes extract the store of one, through the entry point that users start."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extract.stores import manifest_of, store, use
from extract.test_store import SMALL_SHARD, asked, same_contents
from kava.commands.store import main as store_main
from kava.errors import KavaError
from kava.files.locks import lock_file
from kava.ranks import Ranks
from kava.store import writer as writer_module
from kava.store.manifest import FULL, TARGETS, TIERS
from kava.store.parts import part_file, part_paths
from kava.store.verify import foreign_files, whole_shards
from launch import Threads, launch, said

__all__ = ["asked"]

FLAGS = [
    *("--teacher_name", "kava/shell-gpt2-teacher", "--model_name", "kava/shell-teacher"),
    *("--dataset_name", "kava/shell-game?num_train=50", "--target_len", "2", "--max_length", "64"),
    *("--include", "calibration", "--calibration_samples", "30", "--batch_size", "4"),
    *("--device", "cpu", "--no_progress"),
]
STOPPING = """
import os, signal, sys
sys.path.insert(0, "src")
from kava.store import writer
flush = writer.TierWriter.flush
done = []
def dying(self, manifest):
    found = flush(self, manifest)
    done.append(found)
    if os.environ.get("RANK") == "1" and len(done) == 3:
        {how}
    return found
writer.TierWriter.flush = dying
from kava.extract import request
request.MIB = 2**13
from kava.cli import main
main()
"""
"""`kava` with shards of 8 KiB, of which the second process comes to an end at its third."""


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Extract with threads in place of processes; a thread can be made to end at a shard."""
    threads = Threads(monkeypatch)
    flush = writer_module.TierWriter.flush
    ends: dict[str, int] = {}
    written: list[str] = []

    def dying(self: writer_module.TierWriter, manifest: Any) -> Any:
        found = flush(self, manifest)
        written.append(self.file)
        if written.count(self.file) == ends.get(self.file, -1):
            raise OSError("the disk has gone")
        return found

    monkeypatch.setattr(writer_module.TierWriter, "flush", dying)

    def extract(
        folder: Path, count: int, end: dict[int, int] | None = None, **changes: Any
    ) -> None:
        ends.clear()
        ends.update({part_file(index): at for index, at in (end or {}).items()})
        written.clear()
        shares = {"shard_bytes": SMALL_SHARD, "full": True, **changes}
        threads.run(count, lambda ranks: store(folder, ranks=ranks, **shares))

    return extract


def check_same(ours: Path, theirs: Path) -> None:
    """The stores hold the same numbers, in whole shards, and nothing else."""
    manifest, other = manifest_of(ours), manifest_of(theirs)
    assert manifest.store_id == other.store_id
    assert (
        part_paths(ours) == foreign_files(ours, manifest) == whole_shards(ours, manifest)[1] == []
    )
    for tier in TIERS:
        assert same_contents(ours, theirs, tier)
        sizes = (sum(s.num_samples for s in one.of_tier(tier)) for one in (manifest, other))
        assert len(set(sizes)) == 1
        for name, parts in other.errors[tier].items():
            assert manifest.errors[tier][name] == pytest.approx(parts), name


@pytest.mark.parametrize(("count", "form"), [(2, "float32"), (3, "int8")])
def test_the_shares_make_the_store_of_one_process(
    tmp_path: Path, count: int, form: str, asked: list[str], together: Callable[..., None]
) -> None:
    store(tmp_path / "one", full=True, form=form)
    asked.clear()
    together(tmp_path / "several", count, form=form)
    assert len(asked) == count + 64  # a look of each at the first sample
    assert len(set(asked)) == 64
    check_same(tmp_path / "several", tmp_path / "one")
    use(tmp_path / "several")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_another_number_of_processes_goes_on(
    tmp_path: Path, count: int, asked: list[str], together: Callable[..., None]
) -> None:
    with pytest.raises(OSError, match="the disk has gone"):
        together(tmp_path / "some", 2, {1: 3})
    parts = [json.loads(path.read_text())["shards"] for path in part_paths(tmp_path / "some")]
    full = sum(s["num_samples"] for part in parts for s in part if s["tier"] == FULL)
    targets = sum(s["num_samples"] for part in parts for s in part if s["tier"] == TARGETS)
    assert 0 < min(full, targets) < 64
    asked.clear()
    together(tmp_path / "some", count)
    assert len(asked) == count + 64 - min(full, targets)
    store(tmp_path / "one", full=True)
    check_same(tmp_path / "some", tmp_path / "one")


@pytest.mark.parametrize("count", [2, 3])
def test_kept_positions_and_whole_texts_of_a_fit_are_shared_alike(
    tmp_path: Path, count: int, asked: list[str], together: Callable[..., None]
) -> None:
    """The texts that a map is fitted on are fewer, and are read beside those of the targets."""
    fit = {"alignment_mode": "structured", "calibration_samples": 10}
    parts = {"full": False, "include": ("calibration",), **fit}
    store(tmp_path / "one", **parts)
    with pytest.raises(OSError, match="the disk has gone"):
        together(tmp_path / "several", count, {1: 2}, **parts)
    asked.clear()
    together(tmp_path / "several", count, **parts)
    check_same(tmp_path / "several", tmp_path / "one")
    manifest = manifest_of(tmp_path / "several")
    assert sum(shard.num_samples for shard in manifest.of_tier(FULL)) == 10
    assert sum(shard.num_samples for shard in manifest.of_tier(TARGETS)) == 64
    asked.clear()
    together(tmp_path / "several", count, **parts)
    assert len(asked) == count  # a look of each at the first sample
    use(tmp_path / "several", **fit)


@pytest.mark.parametrize("what", ["batch_size", "dataset_name"])
def test_processes_that_would_share_differently_are_refused(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes every second batch of its own list: of two lists, samples would be left out."""
    values = {
        "batch_size": (4, 2),
        "dataset_name": [f"kava/shell-game?num_train={n}" for n in (64, 60)],
    }

    def share(ranks: Ranks) -> None:
        store(tmp_path / "store", ranks=ranks, **{what: values[what][ranks.index]})

    with pytest.raises(KavaError, match="the samples or --batch_size of the processes differ"):
        Threads(monkeypatch).run(2, share)
    assert not manifest_of(tmp_path / "store").shards


@pytest.fixture
def cut(tmp_path: Path, together: Callable[..., None]) -> Path:
    """The folder of an extraction whose second process has ended."""
    with pytest.raises(OSError, match="the disk has gone"):
        together(tmp_path / "cut", 2, {1: 3}, form="int8")
    return tmp_path / "cut"


def test_a_part_that_was_taken_in_counts_once(cut: Path) -> None:
    part = cut / part_file(1)
    content = part.read_bytes()
    store(cut, full=True, form="int8")
    once = manifest_of(cut)
    part.write_bytes(content)  # the first process was killed before it removed the part
    store(cut, full=True, form="int8")
    assert manifest_of(cut) == once
    assert not part.exists()


def test_what_processes_leave_is_named_and_guarded(
    cut: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="has 2 problems"):
        store_main(["verify", str(cut)])
    assert f"{part_file(1)} lists 3 shards of an extraction" in capsys.readouterr().out
    for overwrite in (False, True):
        with (
            lock_file(cut / part_file(1), "kava extract"),
            pytest.raises(KavaError, match=rf"{part_file(1)} is in use: kava extract has been"),
        ):
            store(cut, full=True, form="int8", overwrite=overwrite)
    store(tmp_path / "other", full=True)
    shutil.copy(cut / part_file(1), tmp_path / "other")
    with pytest.raises(ValueError, match=rf"{part_file(1)} is of another store: take it away"):
        store(tmp_path / "other", full=True)


def test_a_shard_that_was_not_listed_is_removed(cut: Path, tmp_path: Path) -> None:
    part = cut / part_file(1)
    content = json.loads(part.read_text())
    last = content["shards"].pop()  # its process was killed before it listed it
    part.write_text(json.dumps(content))
    assert (cut / last["tier"] / last["file"]).exists()
    store(cut, full=True, form="int8")  # in fewer, larger shards
    store(tmp_path / "one", full=True, form="int8")
    assert foreign_files(cut, manifest_of(cut)) == []
    assert same_contents(cut, tmp_path / "one", last["tier"])


def test_what_is_refused_with_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path / "store")
    monkeypatch.setattr(Ranks, "gather", lambda self, own: [own])
    with pytest.raises(ValueError, match=r"holds target len 3, this extraction has 2: its files"):
        store(tmp_path / "store", ranks=Ranks(1, 2), target_len=2)
    with pytest.raises(ValueError, match=r"--device cuda:0 names one GPU, and there are 2 proc"):
        store(tmp_path / "store", ranks=Ranks(1, 2), device="cuda:0")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "store"
    done = launch(["extract", *FLAGS, "--store", str(folder)])
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_two_processes_extract_the_store_of_one(tmp_path: Path, alone: Path, launcher: str) -> None:
    folder = tmp_path / "store"
    argv = ["extract", *FLAGS, "--store", str(folder)]
    accelerate = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    accelerate += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    done = (
        launch(argv, 2)
        if launcher == "torchrun"
        else launch(argv, program=[*accelerate, "-m", "kava"])
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("store:    ") == 1  # one process speaks
    ours, theirs = manifest_of(folder), manifest_of(alone)
    assert ours.settings == theirs.settings
    assert len(ours.of_tier(TARGETS)) == 2
    for tier in TIERS:
        assert same_contents(folder, alone, tier)
    assert foreign_files(folder, ours) == []
    assert not list(folder.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "the same command goes on where this one stopped"),
        ("raise OSError('the disk has gone')", "kava: error: the disk has gone"),
    ],
    ids=["killed", "failed"],
)
def test_a_process_that_dies_ends_all_and_the_rest_goes_on(
    tmp_path: Path, alone: Path, how: str, line: str
) -> None:
    program, folder = tmp_path / "program.py", tmp_path / "store"
    program.write_text(STOPPING.format(how=how), encoding="utf-8")
    argv = ["extract", *FLAGS, "--store", str(folder)]
    done = launch(argv, 2, [str(program)])
    assert done.returncode != 0
    (spoken,) = said(done)
    assert line in spoken
    parts = [json.loads(path.read_text())["shards"] for path in part_paths(folder)]
    assert len(parts) == 2
    assert parts[1]
    again = launch(argv)  # in one process
    assert again.returncode == 0, again.stderr[-3000:]
    manifest = manifest_of(folder)
    assert {shard["sha256"] for shard in parts[1]} <= {shard.sha256 for shard in manifest.shards}
    for tier in (FULL, TARGETS):
        assert same_contents(folder, alone, tier)
    assert foreign_files(folder, manifest) == []


@pytest.mark.slow
def test_what_all_processes_are_refused_is_said_once(tmp_path: Path) -> None:
    flags = [flag if flag != "kava/shell-gpt2-teacher" else "kava/no-teacher" for flag in FLAGS]
    done = launch(["extract", *flags, "--store", str(tmp_path / "store")], 2)
    assert done.returncode == 1
    (line,) = said(done)
    assert line.startswith("kava: error: ")
    assert "kava/no-teacher" in line
    assert not (tmp_path / "store").exists()
