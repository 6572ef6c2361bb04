"""Choose the checkpoint that a run resumes from, and check that it is the same run.

`--resume` takes the newest complete checkpoint of the output folder and names damaged ones that it
skips; `--resume_from` takes only the named one. Settings that decide the run must be unchanged;
differences that may change its last digits are reported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kava.student.adapted import BASE_DTYPE
from kava.student.checkpoint import checkpoints_by_step, library_versions
from kava.student.settings import SETTINGS_FILE, read_settings
from kava.student.whole import run_damage, written_by
from kava.train.config import RESUMABLE, TrainConfig

LENGTHS = ("max_steps", "epochs")
"""The settings that say how long a run is."""

SAMPLES_PER_STEP = ("batch_size", "gradient_accumulation_steps")
"""The settings that say, with the number of processes, how many samples a step sees."""

STEADY_SCHEDULERS = ("constant", "constant_with_warmup", "inverse_sqrt")
"""Those whose rate at a step does not depend on the length of the run."""


class Start(NamedTuple):
    """Where a run starts: at a checkpoint, or from the beginning.

    Attributes:
        checkpoint: the checkpoint to resume from; None to start from the beginning.
        gives_way: checkpoints in the output folder that the run may remove.
        notices: messages for the user, one sentence each.
    """

    checkpoint: Path | None
    gives_way: tuple[Path, ...] = ()
    notices: tuple[str, ...] = ()


def find_start(config: TrainConfig) -> Start:
    """Find the checkpoint that a configuration resumes from, if any.

    Raises:
        ValueError: the output folder holds checkpoints and no flag says what to do with them, or
            none is complete; the message says what is wrong with the newest.
    """
    there = checkpoints_by_step(config.output_dir)
    if config.resume_from is not None:
        return _named(config, there)
    if config.resume:
        return _newest(config, there)
    if there and not config.overwrite:
        raise ValueError(
            f"--output_dir {config.output_dir} holds {there[max(there)].name} already: pass "
            f"--resume to go on from it, --overwrite to start anew, or another folder"
        )
    return Start(None, tuple(there.values()))


def _newest(config: TrainConfig, there: dict[int, Path]) -> Start:
    damaged: list[tuple[Path, str]] = []
    for path in reversed(there.values()):
        problem = damage_for_resume(path)
        if problem is None:
            notices = [
                f"{wrong.name} is not whole ({why}); going on from {path.name}"
                for wrong, why in damaged
            ]
            return Start(path, notices=tuple(notices))
        damaged.append((path, problem))
    reason = f" ({damaged[0][0].name}: {damaged[0][1]})" if damaged else ""
    raise ValueError(f"--resume: {config.output_dir} holds no complete checkpoint{reason}")


def _named(config: TrainConfig, there: dict[int, Path]) -> Start:
    assert config.resume_from is not None
    inside = Path(config.output_dir) / config.resume_from
    path = inside if inside.is_dir() else Path(config.resume_from).expanduser()
    if not path.is_dir():
        raise ValueError(
            f"--resume_from {config.resume_from}: there is no such folder, nor one of this name "
            f"in {config.output_dir}"
        )
    problem = damage_for_resume(path)
    if problem is not None:
        raise ValueError(f"--resume_from {config.resume_from}: {problem}; name another checkpoint")
    own = [step for step, folder in there.items() if folder.samefile(path)]
    later = [folder for step, folder in there.items() if not own or step > own[0]]
    if later and not config.overwrite:
        names = ", ".join(folder.name for folder in later)
        raise ValueError(
            f"--resume_from {config.resume_from}: {config.output_dir} holds {names}, which are not "
            f"of this run's way: pass --overwrite to take them away, or another --output_dir"
        )
    return Start(path, tuple(later))


def whole_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest checkpoint in a folder that a run can resume from; None if there is none."""
    newest_first = reversed(checkpoints_by_step(output_dir).values())
    return next((path for path in newest_first if damage_for_resume(path) is None), None)


def damage_for_resume(folder: Path) -> str | None:
    """Why a run cannot resume from a checkpoint; None if it can."""
    try:
        settings = read_settings(folder)
    except (OSError, ValueError) as error:
        return str(error)
    for name in ("config", "data_hash"):
        if name not in settings:
            return f"{folder / SETTINGS_FILE} has no {name!r}: no run of kava train wrote it"
    if settings["config"].get("save_only_model"):
        return (
            f"{folder} was written with --save_only_model: it can be evaluated, but holds nothing "
            f"to go on with"
        )
    return run_damage(folder)


def check_same_run(directory: Path, config: TrainConfig, data_hash: str) -> None:
    """Refuse to resume from a checkpoint of another configuration or other data.

    Raises:
        ValueError: the message names the first key that differs, and both values.
    """
    theirs = read_settings(directory)
    ours = asdict(config)
    kept = {*RESUMABLE, *SAMPLES_PER_STEP}  # `check_same_machine` looks at the second
    for name, value in theirs["config"].items():
        if name not in kept and name in ours and ours[name] != value:
            if name in LENGTHS:
                _check_longer(directory, config, name, value)
                continue
            raise ValueError(
                f"{directory} was written with --{name} {value!r}, this run has {ours[name]!r}: "
                f"give the same value, or another --output_dir"
            )
    before, now = theirs.get(BASE_DTYPE, "float32"), config.base_dtype
    if before != now:
        raise ValueError(
            f"{directory} has the adapters of a base that was read in {before}, by an earlier "
            f"version, and this run reads it in {now}: train anew, with another --output_dir"
        )
    if theirs["data_hash"] != data_hash:
        raise ValueError(
            f"{directory} was trained on other data (hash {theirs['data_hash'][:12]}, now "
            f"{data_hash[:12]}): give the same data, or another --output_dir"
        )


def _check_longer(directory: Path, config: TrainConfig, name: str, value: Any) -> None:
    """Refuse another length of a run, unless it is longer and every step of it stays the same.

    Raises:
        ValueError: a shorter run, or a schedule that spans the whole run.
    """
    now = getattr(config, name)
    before = f"{directory} was written with --{name} {value!r}, this run has {now!r}"
    spanning = None
    if config.lr_scheduler not in STEADY_SCHEDULERS:
        spanning = f"--lr_scheduler {config.lr_scheduler}"
    elif config.layer_weight_annealing != "none" and config.layer_weight_annealing_steps is None:
        spanning = f"--layer_weight_annealing {config.layer_weight_annealing}"
    elif config.fusion_temperature_end is not None:
        spanning = f"--fusion_temperature_end {config.fusion_temperature_end}"
    elif config.text_ce_weight and config.text_ce_steps is None:
        spanning = f"--text_ce_weight {config.text_ce_weight} without --text_ce_steps"
    elif config.inject_weight and config.inject_steps is None:
        spanning = f"--inject_weight {config.inject_weight} without --inject_steps"
    if spanning is not None:
        raise ValueError(
            f"{before}: {spanning} spans the whole run, so that a longer one differs from its "
            f"first step on; give the same value, or train anew with another --output_dir (only "
            f"a run whose --lr_scheduler is {' or '.join(STEADY_SCHEDULERS)} can be extended)"
        )
    if not 0 < value < now:
        raise ValueError(
            f"{before}: a run can be extended, but not cut or counted in another unit; give a "
            f"larger --{name} than before, or another --output_dir"
        )


def machine_of(device: torch.device, num_processes: int) -> dict[str, Any]:
    """Device and number of processes, which a checkpoint stores: they affect the last digits.

    Example:
        >>> machine_of(torch.device("cpu"), 1)
        {'device': 'cpu', 'num_processes': 1}
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "num_processes": num_processes}


def check_same_machine(
    directory: Path, machine: dict[str, Any], config: TrainConfig
) -> tuple[str, ...]:
    """Refuse another number of samples a step; report what else may change the last digits.

    Args:
        directory: the checkpoint.
        machine: the result of `machine_of` for this run.
        config: this run's configuration.

    Returns:
        A sentence if batches are split otherwise, or if device or versions differ, since losses
        may then differ slightly.

    Raises:
        ValueError: each step would see other samples.
    """
    settings = read_settings(directory)
    theirs = settings.get("machine", {})
    now = machine["num_processes"]
    before = written_by(directory) or now
    earlier = [int(settings["config"].get(name, 1)) for name in SAMPLES_PER_STEP] + [before]
    ours = [int(getattr(config, name)) for name in SAMPLES_PER_STEP] + [now]
    if math.prod(earlier) != math.prod(ours):
        raise ValueError(
            f"{directory} was written with {_step(earlier)}, this run has {_step(ours)}: each step "
            f"would see other samples; choose values of the same product, or another --output_dir"
        )
    told = []
    if earlier != ours:
        told.append(
            f"{directory.name} was written with {_step(earlier)}, this run has {_step(ours)}: each "
            f"step sees the same samples, but losses can differ from it on in their last digits, "
            f"and dropout draws anew"
        )
    then = {"device": theirs.get("device"), **settings.get("versions", {})}
    current = {"device": machine["device"], **library_versions()}
    parts = [
        f"{name} {then[name]}, now {current[name]}"
        for name in current
        if then.get(name) is not None and then[name] != current[name]
    ]
    if parts:
        told.append(
            f"{directory.name} was written with {'; '.join(parts)}: losses can differ from it on"
        )
    return tuple(told)


def _step(counts: Sequence[int]) -> str:
    batch, accumulated, processes = counts
    return (
        f"--batch_size {batch} × --gradient_accumulation_steps {accumulated} × "
        f"{_processes(processes)} ({math.prod(counts)} samples a step)"
    )


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"
