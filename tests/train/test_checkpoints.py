"""A checkpoint is whole or it is not one: what is missing, cut or changed is named, never read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kava.commands.train import train
from kava.errors import KavaError
from kava.student import LatentStudent
from kava.student import manifest as manifest_module
from kava.student.checkpoint import latest_checkpoint, load_student
from kava.student.manifest import amend, find_damage, write_manifest
from kava.student.settings import read_settings
from kava.student.whole import run_damage, student_damage
from kava.train.build import build_run
from kava.train.config import TrainConfig
from kava.train.resume import check_same_machine, find_start, machine_of
from train.runs import run, small

TEACHER = {"teacher_name": "kava/shell-teacher"}
FILES = (
    "model.safetensors", "map_aligner.safetensors", "optimizer.pt", "scheduler.pt",
    "rng_state.pth", "trainer_state.json", "recording.json", "kava.json", "config.json",
    "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja",
    "manifest.json",
)  # fmt: skip
OF_THE_STUDENT = {
    "model.safetensors", "kava.json", "config.json", "tokenizer.json", "tokenizer_config.json",
    "generation_config.json", "chat_template.jinja",
}  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's output folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("two")
    run(small(folder, max_steps=2, save_steps=1, **TEACHER))
    return folder


@pytest.fixture
def folder(two: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(two, tmp_path / "run"))


def config(folder: Path, **changes: Any) -> TrainConfig:
    return small(folder, **{"max_steps": 2, "save_steps": 1, **TEACHER, **changes})


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip(path: Path) -> None:
    """Change one byte: in a text a letter, so that it can still be read."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_others_may_read_a_checkpoint_as_they_may_any_new_file(two: Path) -> None:
    (two / "new").touch()
    mode = (two / "new").stat().st_mode
    for path in (two / "checkpoint-2").iterdir():
        assert path.stat().st_mode == mode, path.name


def test_a_checkpoint_lists_all_of_its_files(two: Path) -> None:
    newest = two / "checkpoint-2"
    assert {path.name for path in newest.iterdir()} == {*FILES}
    listed = json.loads((newest / "manifest.json").read_text())
    assert {*listed["files"]} == {*FILES} - {"manifest.json"}
    assert run_damage(newest) is None


@pytest.mark.parametrize("damage", [remove, empty, cut, flip])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_named_and_the_older_one_gone_on_from(
    name: str, damage: Callable[[Path], None], folder: Path
) -> None:
    damage(folder / "checkpoint-2" / name)
    start = find_start(config(folder, resume=True))
    if name == "manifest.json" and damage is remove:
        # then all the others are there, as in a checkpoint of an earlier version
        assert start == (folder / "checkpoint-2", (), ())
        return
    assert start.checkpoint == folder / "checkpoint-1"
    (notice,) = start.notices
    assert notice.startswith("checkpoint-2 is not whole (")
    assert name in notice
    assert notice.endswith("; going on from checkpoint-1")


@pytest.mark.parametrize("damage", [remove, empty, cut])
@pytest.mark.parametrize("name", FILES[:8])
def test_without_a_manifest_the_files_must_be_there_and_end_where_they_should(
    name: str, damage: Callable[[Path], None], folder: Path
) -> None:
    for step in (1, 2):
        (folder / f"checkpoint-{step}" / "manifest.json").unlink()
    damage(folder / "checkpoint-2" / name)
    start = find_start(config(folder, resume=True))
    assert start.checkpoint == folder / "checkpoint-1"
    assert name in start.notices[0]


@pytest.mark.parametrize("damage", [remove, empty, cut])
@pytest.mark.parametrize("name", FILES[:-1])
def test_a_student_is_read_where_its_own_files_are_whole(
    name: str, damage: Callable[[Path], None], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(folder / "checkpoint-2" / name)
    newest = latest_checkpoint(folder)
    assert newest is not None
    assert newest.name == ("checkpoint-1" if name in OF_THE_STUDENT else "checkpoint-2")
    assert Path(load_student(folder).path) == newest
    said = [record.getMessage() for record in caplog.records]
    if name in OF_THE_STUDENT:
        assert said[0].startswith("kava: warning: checkpoint-2: ")
        assert said[0].endswith("; taking checkpoint-1")
        with pytest.raises((ValueError, OSError), match=name):
            load_student(folder / "checkpoint-2")
    else:
        assert said == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_from_pretrained_refuses_a_student_with_a_cut_file(name: str, folder: Path) -> None:
    cut(folder / "checkpoint-2" / name)
    with pytest.raises(ValueError, match=rf"{name} .*damaged or truncated.*take another"):
        LatentStudent.from_pretrained(folder / "checkpoint-2")


def test_a_plain_save_of_a_student_has_nothing_to_be_held_to(tmp_path: Path, two: Path) -> None:
    LatentStudent.from_pretrained(two / "checkpoint-2").save_pretrained(tmp_path / "x")
    LatentStudent.from_pretrained(tmp_path / "x")
    LatentStudent.from_pretrained(pretrained_model_name_or_path=str(tmp_path / "x"))


def test_a_run_says_which_checkpoint_it_takes_and_why(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(folder / "checkpoint-2" / "optimizer.pt")
    assert train(config(folder, resume=True)) == folder / "checkpoint-2"
    said = capsys.readouterr()
    assert "kava: warning: checkpoint-2 is not whole (" in said.err
    assert f"resumed: {folder / 'checkpoint-1'}" in said.out
    assert run_damage(folder / "checkpoint-2") is None  # written anew


def test_without_a_whole_checkpoint_the_newest_is_named(folder: Path) -> None:
    for step in (1, 2):
        (folder / f"checkpoint-{step}" / "scheduler.pt").unlink()
    message = r"--resume: .*run holds no complete checkpoint \(checkpoint-2: .*scheduler\.pt is mis"
    with pytest.raises(ValueError, match=message):
        find_start(config(folder, resume=True))
    with pytest.raises(ValueError, match="holds checkpoint-2 already: pass --resume"):
        find_start(config(folder))


def test_a_checkpoint_is_gone_on_from_by_name(folder: Path, tmp_path: Path) -> None:
    first, second = folder / "checkpoint-1", folder / "checkpoint-2"
    for named in ("checkpoint-2", str(second)):
        assert find_start(config(folder, resume_from=named)) == (second, (), ())
    message = r"holds checkpoint-2, which .*: pass --overwrite to take them away, or another"
    with pytest.raises(ValueError, match=message):
        find_start(config(folder, resume_from="checkpoint-1"))
    allowed = find_start(config(folder, resume_from="checkpoint-1", overwrite=True))
    assert allowed == (first, (second,), ())
    elsewhere = find_start(config(tmp_path / "fork", resume_from=str(first)))
    assert elsewhere == (first, (), ())
    with pytest.raises(ValueError, match="--resume_from checkpoint-7: there is no such folder"):
        find_start(config(folder, resume_from="checkpoint-7"))
    cut(second / "optimizer.pt")
    with pytest.raises(ValueError, match=r"--resume_from checkpoint-2: .*optimizer.pt is damaged"):
        find_start(config(folder, resume_from="checkpoint-2"))


def test_what_gives_way_is_taken_away_when_the_run_begins(folder: Path) -> None:
    settings = {"save_steps": 100, "overwrite": True}
    marks = {step: (folder / f"checkpoint-{step}").stat().st_ino for step in (1, 2)}
    train(config(folder, resume_from="checkpoint-1", **settings))
    now = {path.name: path.stat().st_ino for path in folder.glob("checkpoint-*")}
    assert now["checkpoint-1"] == marks[1]
    assert now["checkpoint-2"] != marks[2]
    train(config(folder, **settings))
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-2"]
    assert list(folder.glob(".checkpoint-*")) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_weighted_kv": True, "kv_method": "full", "target_len": 2}, "keeps 3, which"),
        (
            {"kv_weight": 1e38, "use_cka_layer_mapping": True, "alignment_mode": "structured"},
            "(loss|norm) is",
        ),
    ],
)
def test_what_is_refused_in_the_first_step_takes_nothing_away(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = contents()
    with pytest.raises(KavaError, match=message):
        train(config(folder, overwrite=True, **changes))
    assert contents() == before


def test_a_checkpoint_of_the_model_alone_can_be_evaluated_and_not_gone_on_from(
    tmp_path: Path,
) -> None:
    settings = config(tmp_path, max_steps=1, save_only_model=True)
    run(settings)
    names = {path.name for path in (tmp_path / "checkpoint-1").iterdir()}
    assert names == {*FILES} - {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    assert load_student(tmp_path).settings["step"] == 1
    with pytest.raises(ValueError, match="was written with --save_only_model: it can be evaluated"):
        find_start(config(tmp_path, resume=True))


def test_a_moved_folder_keeps_its_best_checkpoint(tmp_path: Path) -> None:
    """By held-out accuracy, which the second step has best, over further saves."""
    options = {"eval_dataset_name": "kava/shell-game", "eval_size": 4, "max_new_tokens": 1}
    settings: dict[str, Any] = {"save_total_limit": 1, "eval_steps": 1, "max_steps": 6, **options}
    accuracies = {1: 0.1, 2: 0.9, 3: 0.3, 4: 0.2, 5: 0.5, 6: 0.4}

    def go_on(folder: Path, until: int, **changes: Any) -> None:
        built = build_run(config(folder, **{**settings, **changes}))
        trainer, log = built.trainer, built.trainer.log

        def accurate(logs: dict[str, float], *args: Any) -> None:
            if "eval_accuracy" in logs:
                logs["eval_accuracy"] = accuracies[trainer.state.global_step]
            log(logs, *args)
            if trainer.state.global_step == until and "eval_loss" in logs:
                raise KeyboardInterrupt

        trainer.log = accurate  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            trainer.train(str(built.checkpoint) if built.checkpoint else None)

    go_on(tmp_path / "here", 4)
    (tmp_path / "here").rename(tmp_path / "there")
    go_on(tmp_path / "there", 6, resume=True)
    names = {path.name for path in (tmp_path / "there").glob("checkpoint-*")}
    assert names == {"checkpoint-2", "checkpoint-6"}
    assert load_student(tmp_path / "there", best=True).settings["step"] == 2
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "an accelerator"}, "device an accelerator, now cpu: losses can differ"),
        ({"versions": {"torch": "2.0"}}, f"torch 2.0, now {torch.__version__.split('+')[0]}"),
    ],
)
def test_another_device_or_version_is_told(
    changes: dict[str, Any], message: str, folder: Path
) -> None:
    path = folder / "checkpoint-2" / "kava.json"
    settings = json.loads(path.read_text())
    machine = {**settings["machine"], "device": changes.get("device", "cpu")}
    versions = settings["versions"] | changes.get("versions", {})
    path.write_text(json.dumps({**settings, "machine": machine, "versions": versions}))
    config = TrainConfig(**settings["config"])
    told = check_same_machine(path.parent, machine_of(torch.device("cpu"), 1), config)
    assert len(told) == 1
    assert message in told[0]


def test_another_split_of_the_same_samples_goes_on(folder: Path) -> None:
    path, alone = folder / "checkpoint-2", machine_of(torch.device("cpu"), 1)
    config = TrainConfig(**read_settings(path)["config"])
    assert check_same_machine(path, alone, config) == ()
    both = machine_of(torch.device("cpu"), 2)
    halved = replace(config, batch_size=config.batch_size // 2)
    for machine, ours in (
        (both, halved),
        (alone, replace(halved, gradient_accumulation_steps=2)),
    ):
        (told,) = check_same_machine(path, machine, ours)
        assert "each step sees the same samples" in told
    for machine, ours in ((both, config), (alone, halved)):
        with pytest.raises(ValueError, match="each step would see other samples; choose values"):
            check_same_machine(path, machine, ours)
    (path / "rng_state.pth").rename(path / "rng_state_0.pth")
    shutil.copy(path / "rng_state_0.pth", path / "rng_state_1.pth")
    with pytest.raises(ValueError, match=r"2 processes \(16 samples a step\), this run has"):
        check_same_machine(path, alone, config)


@pytest.mark.parametrize("writes", range(5))
def test_files_that_are_amended_fit_the_manifest_whenever_it_stops(
    writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_text("1")
    (tmp_path / "b.json").write_text("22")
    write_manifest(tmp_path)
    left = [writes]
    write = manifest_module.write_whole

    def stopping(*args: Any) -> None:
        if not left[0]:
            raise OSError("stopped")
        left[0] -= 1
        write(*args)

    monkeypatch.setattr(manifest_module, "write_whole", stopping)
    if writes < 4:
        with pytest.raises(OSError, match="stopped"):
            amend(tmp_path, {"a.json": "333", "b.json": "4444"})
    else:
        amend(tmp_path, {"a.json": "333", "b.json": "4444"})
    assert find_damage(tmp_path, hashes=True) is None
    cut(tmp_path / "b.json")
    assert "b.json" in str(find_damage(tmp_path, hashes=True))


def test_a_file_that_only_training_needs_does_not_matter_to_a_student(folder: Path) -> None:
    cut(folder / "checkpoint-2" / "optimizer.pt")
    assert student_damage(folder / "checkpoint-2") is None
    assert "optimizer.pt is damaged or truncated" in str(run_damage(folder / "checkpoint-2"))
