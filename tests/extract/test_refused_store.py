"""Stores that are damaged, or of which another cannot be made, are refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from extract.stores import SMALL_STORE, TEACHER, manifest_of, store, use
from kava.commands.extract import main as extract_main
from kava.commands.store import main as store_main
from kava.store import reader as reader_module
from kava.store.manifest import TARGETS
from kava.store.reader import Tier
from kava.store.tensor_file import DamagedFile
from kava.train.scores import FILE_NAME
from one_line import refusal
from train.runs import SMALL


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a small run."""
    folder = tmp_path_factory.mktemp("usual") / "store"
    store(folder, kv_scope="model")
    return folder


def test_nothing_to_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing would be stored: pass --full"):
        store(tmp_path / "store", use_segment_resampling=True, kv_method="full")
    assert not (tmp_path / "store").exists()


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a list": (lambda told: [told], r"it holds no JSON object"),
    "without format": (lambda told: told.pop("format") and told, "it lacks 'format'"),
    "another format": (lambda told: {**told, "format": 2}, "is of format 2, this version reads 1"),
    "other settings": (lambda told: {**told, "settings": {}}, "was changed"),
    "errors": (lambda told: {**told, "errors": 3}, "its errors are no JSON object"),
    "shards": (lambda told: {**told, "shards": "x"}, "a shard is no JSON object"),
    "sizes": (
        lambda told: {**told, "shards": [{**told["shards"][0], "num_bytes": "many"}]},
        r"the sizes of shard-00000\.safetensors are no numbers",
    ),
}


@pytest.mark.parametrize("harm", MANIFESTS)
def test_a_damaged_manifest_is_one_line_with_its_mend(
    harm: str, usual: Path, tmp_path: Path
) -> None:
    change, message = MANIFESTS[harm]
    folder = tmp_path / "store"
    shutil.copytree(usual, folder)
    path = folder / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    for part in ("info", "verify"):
        with pytest.raises(ValueError, match=f"{message}.*with --overwrite$"):
            store_main([part, str(folder)])


def test_a_file_in_place_of_that_of_the_teacher_is_named(
    usual: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "store"
    shutil.copytree(usual, folder)
    path = folder / "teacher.safetensors"
    (shard,) = (folder / TARGETS).iterdir()
    for harm in (lambda: shutil.copy(shard, path), path.unlink):
        harm()
        with pytest.raises((OSError, ValueError), match=r"teacher\.safetensors is .*extract again"):
            use(folder, kv_scope="model")
        with pytest.raises(ValueError, match="has 1 problem"):
            store_main(["verify", str(folder)])
        assert "teacher.safetensors is " in capsys.readouterr().out


def test_a_store_is_not_cleared_to_make_another_of_it(tmp_path: Path) -> None:
    store(tmp_path / "all" / "store", full=True)
    flags = ["--output", str(tmp_path / "all"), "--overwrite"]
    with pytest.raises(ValueError, match=r"--output .*all holds the store .* itself"):
        store_main(["recompress", str(tmp_path / "all" / "store"), *flags])
    assert store_main(["verify", str(tmp_path / "all" / "store")]) == 0


def test_flags_of_another_version_are_named(usual: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    shutil.copytree(usual, folder)
    path = folder / "manifest.json"
    told = json.loads(path.read_text())
    told["data"]["config"]["nonsense"] = 3
    path.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"flags that this version cannot read .*'nonsense'"):
        store_main(["recompress", str(folder), "--output", str(tmp_path / "new")])


def test_a_zero_changes_what_is_kept_as_any_other_number_does(tmp_path: Path) -> None:
    store(tmp_path / "store", full=True, kv_scope="model", rkv_lambda=0.5, seed=3)
    flags = ["--output", str(tmp_path / "new"), "--rkv_lambda", "0", "--seed", "0"]
    assert store_main(["recompress", str(tmp_path / "store"), *flags]) == 0
    manifest = manifest_of(tmp_path / "new")
    assert manifest.settings["targets"]["lam"] == 0.0
    assert manifest.data["config"].get("seed", 0) == 0


def test_a_number_of_samples_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--teacher_name", TEACHER, "--store", str(tmp_path / "store"), "--batch_size", "auto"]
    assert "--batch_size auto measures steps of training" in refusal(extract_main, argv, capsys)
    assert not (tmp_path / "store").exists()


def test_the_file_of_a_run_that_reads_the_store_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    said = {**SMALL, **SMALL_STORE, "kv_method": "knockout", "store": ["of/the/run"]}
    path.write_text(yaml.safe_dump({**said, "output_dir": str(tmp_path / "run")}))
    argv = ["--config", str(path), "--store", str(tmp_path / "store")]
    assert extract_main(argv) == 0
    assert manifest_of(tmp_path / "store").of_tier(TARGETS)


def test_scores_belong_to_the_store_that_they_are_made_for(tmp_path: Path) -> None:
    folder, options = tmp_path / "store", {"kv_method": "knockout"}
    store(folder, full=True, **options)
    scores = (folder / FILE_NAME).read_bytes()
    with pytest.raises(ValueError, match="this extraction has 2"):
        store(folder, full=True, target_len=2, **options)
    assert (folder / FILE_NAME).read_bytes() == scores
    (folder / FILE_NAME).write_bytes(b"of another teacher")
    store(folder, full=True, overwrite=True, **options)
    assert (folder / FILE_NAME).read_bytes() == scores
    assert store_main(["recompress", str(folder), "--output", str(tmp_path / "new")]) == 0


def test_what_is_stored_already_keeps_its_rotation(tmp_path: Path) -> None:
    """Kept positions of rotated keys alone need no rotation, and whole texts beside them do."""
    rotated = {"key_space": "rotated", "kv_method": "uniform"}
    flags = ["--key_space", "unrotated"]
    for name, again in (("once", False), ("twice", True)):
        store(tmp_path / name, full=True, **rotated)
        if again:
            store(tmp_path / name, dataset_name="kava/shell-game?num_train=70", **rotated)
        argv = ["recompress", str(tmp_path / name), "--output", str(tmp_path / f"new {name}")]
        assert store_main([*argv, *flags]) == 0
    once, twice = (
        Tier(p, manifest_of(p), TARGETS) for p in (tmp_path / "new once", tmp_path / "new twice")
    )
    for digest, row in once._row_of.items():
        theirs = twice.row(digest)
        assert theirs is not None
        assert torch.equal(once.read(row)["keys"], twice.read(theirs)["keys"])


def test_a_store_that_is_written_again_is_not_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "MAPPED", 1)
    folder = tmp_path / "store"
    store(folder, shard_bytes=2**13)
    tier = Tier(folder, manifest_of(folder), TARGETS)
    assert len(tier.shards) > 1
    tier.read(0)
    store(folder, shard_bytes=2**13, overwrite=True, seed=1)
    with pytest.raises(DamagedFile, match="was written again while this command read it: start"):
        tier.read(len(tier) - 1)
