"""Going on from a checkpoint: what a run logs, records and learns is as if it had not stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kava.train.build import build_run
from train.runs import WALL_CLOCK, all_rows, interrupted, metrics, run, small

HELD_OUT = {
    "eval_dataset_name": "kava/shell-game", "eval_size": 9, "eval_batch_size": 4,
    "max_new_tokens": 2, "projection_dropout": 0.1,
}  # fmt: skip
JOINT = {
    "teacher_name": "kava/shell-teacher", "alignment_mode": "structured", "aligner_fit": "joint",
    "cka_weight": 0.5,
}  # fmt: skip


def case(stops: tuple[int, ...], **changes: Any) -> dict[str, Any]:
    settings = {"max_steps": 6, "logging_steps": 2, "save_steps": 2, "eval_steps": 3}
    return {"stops": stops, **settings, **HELD_OUT, **changes}


CASES = {
    "saves between two logs": case((5,), logging_steps=3, save_steps=4, codi_weight=1.0),
    "saves at logs and evaluations": case((4,), save_steps=3, logging_steps=3),
    "several resumes, a save at each step": case((2, 4, 5), save_steps=1, logging_steps=4),
    "accumulation": case((4,), batch_size=2, gradient_accumulation_steps=4, logging_steps=3),
    "ends of epochs, the last batches accumulated fewer": case(
        (4, 5), dataset_name="kava/shell-game?num_train=20", batch_size=4, save_steps=3,
        gradient_accumulation_steps=2, max_steps=-1, epochs=2.0,
    ),
    "a target that can move": case((5,), save_steps=4, logging_steps=5, **JOINT),
}  # fmt: skip


def scalars(output_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard draws, without what the machine's speed decides."""
    events = EventAccumulator(str(output_dir / "tensorboard"), {"scalars": 0}).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag.rpartition("/")[2] not in WALL_CLOCK | {"runtime"} and "_per_second" not in tag
    }


def assert_same_end(ours: Path, theirs: Path) -> None:
    """Two runs ended alike: metrics row for row, curves, records, weights."""
    assert all_rows(ours) == all_rows(theirs)
    assert scalars(ours) == scalars(theirs)
    newest = max(theirs.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])).name
    records = [json.loads((end / newest / "recording.json").read_text()) for end in (ours, theirs)]
    for record in records:
        for part in (record, *(share["record"] for share in record["processes"])):
            del part["seconds"]
    assert records[0] == records[1]
    a, b = (load_file(end / newest / "model.safetensors") for end in (ours, theirs))
    assert all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("name", CASES)
def test_an_interrupted_run_logs_what_an_uninterrupted_one_does(name: str, tmp_path: Path) -> None:
    settings = dict(CASES[name])
    stops = settings.pop("stops")
    run(small(tmp_path / "whole", **settings))
    for count, stop in enumerate(stops):
        interrupted(small(tmp_path / "cut", resume=count > 0, **settings), stop)
    run(small(tmp_path / "cut", resume=True, **settings))
    assert_same_end(tmp_path / "cut", tmp_path / "whole")


def test_an_evaluation_changes_nothing_of_the_training_around_it(tmp_path: Path) -> None:
    often, never = ({**HELD_OUT, "eval_steps": 1}, {**HELD_OUT, "eval_size": 0})
    for name, settings in (("often", often), ("never", never)):
        run(small(tmp_path / name, max_steps=3, **settings))
    a, b = ([r for r in all_rows(tmp_path / name) if "loss" in r] for name in ("often", "never"))
    assert a == b


@pytest.mark.parametrize("step", [3, 6])
def test_what_ends_an_evaluation_costs_no_step_and_the_evaluation_is_made_up_for(
    step: int, tmp_path: Path
) -> None:
    """The checkpoint of a step is written before the evaluation of the step."""
    settings = case((), save_steps=3)
    del settings["stops"]
    run(small(tmp_path / "whole", **settings))
    cut = build_run(small(tmp_path / "cut", **settings))
    evaluate = cut.trainer.held_out_losses

    def failing(*args: Any) -> Any:
        if cut.trainer.state.global_step == step:
            raise ValueError("a batch that cannot be evaluated")
        return evaluate(*args)

    cut.trainer.held_out_losses = failing  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="cannot be evaluated"):
        cut.trainer.train()
    assert (tmp_path / "cut" / f"checkpoint-{step}").is_dir()
    run(small(tmp_path / "cut", resume=True, **settings))
    assert_same_end(tmp_path / "cut", tmp_path / "whole")


def test_the_last_row_of_a_run_that_was_killed_before_it_is_made_up_for(tmp_path: Path) -> None:
    """The row of the whole run is logged behind its last checkpoint."""
    settings = case((), save_steps=3)
    del settings["stops"]
    run(small(tmp_path / "whole", **settings))
    cut = build_run(small(tmp_path / "cut", **settings))

    def killed(*args: Any) -> Any:
        raise KeyboardInterrupt

    cut.trainer._finalize_training = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        cut.trainer.train()
    run(small(tmp_path / "cut", resume=True, **settings))
    assert_same_end(tmp_path / "cut", tmp_path / "whole")


def test_a_finished_run_is_not_gone_on_with(tmp_path: Path) -> None:
    settings = {**HELD_OUT, "max_steps": 3}
    first = run(small(tmp_path, **settings))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = run(small(tmp_path, resume=True, **settings))
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
    assert again.trainer.state.global_step == 3
    assert again.trainer.guard.verdict == first.trainer.guard.verdict is not None
    ours, theirs = (r.trainer.model.state_dict() for r in (again, first))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("length", [{"max_steps": 6}, {"max_steps": -1, "epochs": 1.5}])
def test_a_finished_run_of_a_steady_schedule_can_be_extended(
    length: dict[str, Any], tmp_path: Path
) -> None:
    """64 samples in batches of 16 are four steps an epoch; the run ends after four."""
    steady: dict[str, Any] = {
        "lr_scheduler": "constant_with_warmup", "warmup_steps": 2, "batch_size": 16,
    }  # fmt: skip
    first = {
        name: 4 if name == "max_steps" and value > 0 else value for name, value in length.items()
    }
    first = {**first, "epochs": 1.0} if "epochs" in length else first
    run(small(tmp_path / "cut", **steady, **first))
    run(small(tmp_path / "whole", **steady, **length))
    built = run(small(tmp_path / "cut", resume=True, **steady, **length))
    assert built.trainer.state.global_step == 6
    assert metrics(tmp_path / "cut")[-1]["loss"] == metrics(tmp_path / "whole")[-1]["loss"]
    a, b = (
        load_file(tmp_path / end / "checkpoint-6" / "model.safetensors") for end in ("cut", "whole")
    )
    assert all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ({}, {"max_steps": 4}, "--lr_scheduler cosine spans the whole run, so that a longer one"),
        (
            {"lr_scheduler": "constant", "layer_weight_annealing": "deep_first"},
            {"max_steps": 4},
            "--layer_weight_annealing deep_first spans the whole run",
        ),
        *(
            (
                {"lr_scheduler": "constant", "teacher_name": "kava/shell-teacher", **fading},
                {"max_steps": 4},
                f"{flag} 1.0 without {flag.replace('weight', 'steps')} spans the whole run",
            )
            for flag, fading in (
                ("--text_ce_weight", {"text_ce_weight": 1.0}),
                ("--inject_weight", {"text_ce_weight": 0.0, "inject_weight": 1.0}),
            )
        ),
        ({"lr_scheduler": "constant"}, {"max_steps": 1}, "can be extended, but not cut or"),
        (
            {"lr_scheduler": "constant"},
            {"max_steps": -1},
            "with --max_steps 2, this run has -1: a run can be extended, but not cut or counted",
        ),
    ],
)
def test_another_length_of_a_run_is_refused(
    before: dict[str, Any], now: dict[str, Any], message: str, tmp_path: Path
) -> None:
    run(small(tmp_path, **{"max_steps": 2, **before}))
    with pytest.raises(ValueError, match=message):
        build_run(small(tmp_path, resume=True, **before, **now))


def test_a_run_goes_on_in_another_folder_with_the_whole_of_its_log(tmp_path: Path) -> None:
    settings = case((), logging_steps=3)
    del settings["stops"]
    whole = run(small(tmp_path / "whole", save_total_limit=0, **settings))
    assert whole.checkpoint is None
    fork = small(
        tmp_path / "fork", resume_from=str(tmp_path / "whole" / "checkpoint-4"), **settings
    )
    run(fork)
    assert all_rows(tmp_path / "fork") == all_rows(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "fork").glob("checkpoint-*")) == [
        "checkpoint-6"
    ]


def test_a_resumed_run_may_save_at_other_steps(tmp_path: Path) -> None:
    interrupted(small(tmp_path, save_steps=2, max_steps=7), 3)
    run(small(tmp_path, save_steps=5, max_steps=7, resume=True))
    names = {path.name for path in tmp_path.glob("checkpoint-*")}
    assert names == {"checkpoint-5", "checkpoint-7"}


def test_a_checkpoint_of_an_earlier_version_is_gone_on_with(tmp_path: Path) -> None:
    """Without a manifest, sums between logs, a machine, and rows with their time."""
    settings = {**HELD_OUT, "max_steps": 4, "save_steps": 2, "logging_steps": 2}
    run(small(tmp_path / "whole", **settings))
    interrupted(small(tmp_path / "old", **settings), 3)
    folder = tmp_path / "old" / "checkpoint-2"
    (folder / "manifest.json").unlink()
    for name, keys in (("recording.json", ("processes", "verdict")), ("kava.json", ("machine",))):
        saved = json.loads((folder / name).read_text())
        for key in keys:
            del saved[key]
        (folder / name).write_text(json.dumps(saved))
    state = json.loads((folder / "trainer_state.json").read_text())
    for row in state["log_history"]:
        del row["seconds"]
    (folder / "trainer_state.json").write_text(json.dumps(state))
    run(small(tmp_path / "old", resume=True, **settings))
    assert all_rows(tmp_path / "old") == all_rows(tmp_path / "whole")
