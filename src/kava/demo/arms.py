"""What the demo compares: its arms, and the settings that they share.

A study is a set of arms on one data set. An arm is a name and the few settings in which it
differs from the study's common ones; everything else, the samples, their order and the number of
steps too, is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kava.flags.words import listed, near

if TYPE_CHECKING:
    from kava.train.config import TrainConfig

Group = Literal["reference", "without", "kv"]
"""How an arm is drawn: what the others are measured by, without the teacher's cache, with it."""

Kind = Literal["main", "eviction", "maps", "rank", "joint"]
"""What a study asks: it decides what its page tells and draws."""

TEACHER = "kava/shell-teacher"
NUM_LATENTS = 3
NUM_VERBOSE_TOKENS = 15
BATCH_SIZE = 64
MAX_SAMPLES = 100_000
MAX_CURVE_ITEMS = 250
NUM_EVALUATIONS = 12
NUM_LOGS = 60

COMMON: dict[str, Any] = {
    "target_len": NUM_LATENTS,
    "kv_weight": 0.0,
    "codi_weight": 0.0,
    "kv_method": "full",
    "kv_loss": "smooth_l1",
    "kv_layer_std": True,
    "lr": 1e-3,
    "lr_scheduler": "cosine",
    "weight_decay": 0.01,
    "batch_size": BATCH_SIZE,
    "max_length": 64,
    "max_new_tokens": 24,
    "no_progress": True,
    "overwrite": True,
}
"""The settings of every run, where its arm does not say otherwise."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train the student.

    Args:
        name: its name in tables, files and flags.
        what: what it is, in a few words.
        group: how it is drawn.
        changes: the settings in which it differs from the common ones.
        num_seeds: how many seeds it is run with, where nothing else is asked for.
    """

    name: str
    what: str
    group: Group
    changes: Mapping[str, Any]
    num_seeds: int = 1


@dataclass(frozen=True, kw_only=True)
class Study:
    """A comparison: arms on one data set.

    Args:
        name: of its output folder.
        kind: what it asks.
        arms: what is compared, in the order of the table.
        task: options of the data set, as in a URL.
        common: settings of all runs.
        num_steps: optimiser steps of a run, where nothing else is asked for.
        teacher_name: the teacher, where it is not the model that the students start from.
    """

    name: str
    kind: Kind
    arms: tuple[Arm, ...]
    task: Mapping[str, str]
    common: Mapping[str, Any]
    num_steps: int
    teacher_name: str | None = None

    @property
    def num_latents(self) -> int:
        """M, of every arm that does not say otherwise."""
        return int(self.common["target_len"])

    def choose(self, names: Sequence[str] | None) -> tuple[Arm, ...]:
        """The arms of these names, in the study's order; None is all of them.

        Raises:
            ValueError: a name that the study does not have.
        """
        known = [arm.name for arm in self.arms]
        for name in names or ():
            if name not in known:
                hint = near(name, known)
                raise ValueError(f"--arms {name!r} is unknown{hint}; choose {listed(known)}")
        return tuple(arm for arm in self.arms if names is None or arm.name in names)

    def dataset_name(self, num_steps: int, num_test: int) -> str:
        """The data as `load_records` names them: no training sample is met twice if avoidable."""
        options = {
            **self.task,
            "num_train": min(num_steps * BATCH_SIZE, MAX_SAMPLES),
            "num_test": num_test,
        }
        return "kava/shell-game?" + "&".join(f"{key}={value}" for key, value in options.items())


def num_curve_items(num_items: int) -> int:
    """How many held-out questions the curves are drawn from, beside `num_items` final ones."""
    return min(MAX_CURVE_ITEMS, num_items)


def train_config(
    study: Study,
    arm: Arm,
    seed: int,
    *,
    num_steps: int,
    num_items: int,
    model_name: str = TEACHER,
    device: str = "cpu",
    output_dir: str | Path = "outputs/run",
) -> TrainConfig:
    """The configuration of one run.

    The teacher is the study's own, or else a frozen copy of the model that the student starts
    from. Arms without a signal from it run without it.

    Args:
        study: the comparison.
        arm: one of its arms.
        seed: of the initialisation and of the order of the samples.
        num_steps: optimiser steps.
        num_items: questions of the final test; the curves use others.
        model_name: the student's start, and the teacher of a study that names none.
        device: where it runs; models this small are quickest on the CPU.
        output_dir: folder of the run.

    Example:
        >>> train_config(MAIN, MAIN.arms[0], 0, num_steps=1500, num_items=1000).student
        'explicit'
    """
    from kava.train.config import TrainConfig

    curve_items = num_curve_items(num_items)
    dataset = study.dataset_name(num_steps, curve_items + num_items)
    settings: dict[str, Any] = {
        **study.common,
        "model_name": model_name,
        "teacher_name": study.teacher_name or model_name,
        "dataset_name": dataset,
        "eval_dataset_name": dataset,
        "eval_size": curve_items,
        "eval_batch_size": curve_items,
        "max_steps": num_steps,
        "warmup_steps": min(100, num_steps // 10),
        "eval_steps": max(num_steps // NUM_EVALUATIONS, 1),
        "logging_steps": max(num_steps // NUM_LOGS, 1),
        "save_steps": num_steps,
        "seed": seed,
        "device": device,
        "output_dir": str(output_dir),
        **arm.changes,
    }
    return TrainConfig(**settings)


MAIN = Study(
    name="demo",
    kind="main",
    arms=(
        Arm(
            name="written",
            what="writes its reasoning",
            group="reference",
            changes={"student": "explicit", "max_new_tokens": 24},
        ),
        Arm(
            name="none",
            what="answers at once",
            group="without",
            changes={"target_len": 0},
        ),
        Arm(
            name="pause",
            what="3 pause tokens",
            group="without",
            changes={"decoding": "jacobi", "jacobi_iterations": 0},
        ),
        Arm(
            name="ce",
            what="3 latents, the answer's loss alone",
            group="without",
            changes={},
        ),
        Arm(
            name="codi",
            what="3 latents + teacher's hidden state",
            group="without",
            changes={"codi_weight": 5.0},
            num_seeds=2,
        ),
        Arm(
            name="kv",
            what="3 latents + teacher's KV cache",
            group="kv",
            changes={"kv_weight": 5.0},
            num_seeds=2,
        ),
        Arm(
            name="kv_jacobi",
            what="the same, decoded in parallel (T = 2)",
            group="kv",
            changes={"kv_weight": 5.0, "decoding": "jacobi", "jacobi_iterations": 2},
            num_seeds=2,
        ),
        Arm(
            name="codi_kv",
            what="3 latents + hidden state + KV cache",
            group="kv",
            changes={"kv_weight": 5.0, "codi_weight": 5.0},
            num_seeds=2,
        ),
    ),
    task={},
    # cue, value and end: a student of latents has no room to write its reasoning after all
    common={**COMMON, "max_new_tokens": 3},
    num_steps=1000,
)
"""Which signal makes a student reason in latent tokens? Of four steps the last, which states the
answer, is left out: M = 3 is all of the written reasoning, and no position has to be chosen."""


def eviction_study(num_latents: int = NUM_LATENTS) -> Study:
    """The comparison of eviction rules, for so many latents and kept positions.

    Raises:
        ValueError: fewer than the oracle keeps anyway, or more than there are.

    Example:
        >>> eviction_study(5).name
        'demo-eviction-5'
    """
    if not NUM_LATENTS <= num_latents <= NUM_VERBOSE_TOKENS:
        raise ValueError(
            f"--num_latents {num_latents} is out of range: {NUM_LATENTS} tokens carry the chain, "
            f"of {NUM_VERBOSE_TOKENS} that there are"
        )
    more = "" if num_latents == NUM_LATENTS else ", and is repeated"
    return Study(
        name="demo-eviction" if num_latents == NUM_LATENTS else f"demo-eviction-{num_latents}",
        kind="eviction",
        arms=(
            _rule("positions", f"oracle: where each step arrives{more}", "reference"),
            _rule("knockout", "without which the teacher errs most", "kv"),
            _rule("rkv", "the KaVa paper's score, per head", "kv"),
            _rule("rkv_official", "R-KV's public code, per head", "kv"),
            _rule("h2o", "attention of all later queries, shared", "kv", kv_scope="model"),
            _rule("random", "by lot, another for every sample", "without"),
            _rule("uniform", "at even distances", "without"),
            _rule("right_crop", f"the last {num_latents}", "without"),
        ),
        task={"form": "verbose", "student_form": "compact"},
        # In the long form the next move is read after the row, not at it: the second layer's cache
        # at a row holds no trace of it, and latents that have to look like that must do both in
        # their last layer, which they learn, but late. The first layer's says which token was kept.
        common={
            **COMMON,
            "target_len": num_latents,
            "kv_weight": 5.0,
            "distill_layers": "0",
            "ce_weight": 0.2,
            "lr": 2e-3,
            "lr_scheduler": "constant_with_warmup",
        },
        num_steps=1000,
    )


def _rule(name: str, what: str, group: Group, **changes: str) -> Arm:
    """An arm that is named after its eviction."""
    return Arm(
        name=name, what=what, group=group, changes={"kv_method": name, **changes}, num_seeds=3
    )


EVICTION = eviction_study()
"""Which of 15 reasoning tokens should 3 latents be matched with?"""
