"""`kava profile`: which configuration is profiled, and what is printed of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kava import names
from kava.flags import Usage, check_fields, flag
from kava.flags.aliases import PROFILING
from kava.models.quiet import quiet_libraries
from kava.profile.defaults import DEFAULTS, LARGER_TEACHER
from kava.train.config import TrainConfig
from kava.train.flags import ConfigFile, config_of, take_own


@dataclass(kw_only=True)
class ProfileConfig(ConfigFile):
    """What is asked of the profile itself, beside a training configuration."""

    mode: str | None = flag(
        None,
        "alignment mode, as --alignment_mode",
        choices=names.ALIGNMENT_MODES,
        group="profile",
        unset="structured where nothing says",
    )
    steps: int = flag(10, "measured steps", least=1, most=10_000)
    json: bool = flag(False, "print the profile as JSON")
    memory: bool = flag(
        False,
        "estimate the memory of the training step that the flags of kava train describe, part by "
        "part, without loading weights",
    )
    measure: bool = flag(False, "with --memory: also run that step, and compare")

    def __post_init__(self) -> None:
        check_fields(self)


USAGE = Usage(
    prog="kava profile",
    kind=TrainConfig,
    beside=ProfileConfig,
    summary="Time the stages of a distillation step and check its values, or count its memory.",
    example="kava profile --mode structured",
    known=PROFILING,
    common=(
        *(
            "mode",
            "steps",
            "json",
            "memory",
            "measure",
            "model_name",
            "teacher_name",
            "dataset_name",
            "max_length",
        ),
        *("target_len", "kv_method", "kv_loss", "batch_size", "device", "config"),
    ),
    more="The flags of `kava train` are taken too, and mean the same. Without --config, "
    "--model_name and --teacher_name a small built-in student is aligned with a larger teacher; "
    "with --model_name alone the model teaches itself.",
)


def parse(argv: Sequence[str]) -> tuple[TrainConfig, ProfileConfig]:
    """The configuration to profile, and the flags of the profile itself."""
    values = USAGE.read(argv)
    own = ProfileConfig(**take_own(values, ProfileConfig))
    if own.measure and not own.memory:
        USAGE.fail("--measure runs the step that --memory estimates: pass it too")
    if own.memory and (own.mode is not None or own.steps != 10):
        USAGE.fail("--memory takes no steps and no mode: leave --mode and --steps out")
    if own.memory:
        return config_of(USAGE, values), own
    if own.mode is not None and values.setdefault("alignment_mode", own.mode) != own.mode:
        USAGE.fail("--mode and --alignment_mode mean the same: leave one out")
    if values.keys().isdisjoint({"config", "model_name", "teacher_name", "teachers"}):
        values["teacher_name"] = LARGER_TEACHER
    beneath = {} if "config" in values else DEFAULTS
    config = config_of(USAGE, {**beneath, **values})
    if config.several:
        USAGE.fail(
            f"--teachers names {len(config.teachers or ())}, and the stages of one teacher's step "
            f"are timed: name it by --teacher_name"
        )
    return config, own


def main(argv: list[str]) -> int:
    """Parse flags, profile, and print what was found."""
    config, own = parse(argv)
    quiet_libraries()

    from kava.profile.memory import profile_memory
    from kava.profile.step import profile_step

    found: Any = (
        profile_memory(config, measure=own.measure)
        if own.memory
        else profile_step(config, own.steps)
    )
    print(json.dumps(asdict(found), ensure_ascii=False) if own.json else found)
    return 0
