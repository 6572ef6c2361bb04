"""What the demo compares: arms on one task, and the plan of a study that they become.

An arm is a name and the few settings in which it differs from the demo's common ones; everything
else, the samples, their order and the number of steps too, is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from kava.study.checks import check_plan
from kava.study.plan import Arm, Budget, DataPlan, Plan, Primary, Role

Kind = Literal["main", "eviction", "maps", "rank", "joint"]
"""What a demo asks: it decides what its page tells and draws."""

TEACHER = "kava/shell-teacher"
NUM_LATENTS = 3
NUM_VERBOSE_TOKENS = 15
NUM_ITEMS = 1000
BATCH_SIZE = 64
MAX_SAMPLES = 100_000
MAX_CURVE_ITEMS = 250

COMMON: dict[str, Any] = {
    "target_len": NUM_LATENTS,
    "kv_weight": 0.0,
    "codi_weight": 0.0,
    "text_ce_weight": 0.0,
    "kv_method": "full",
    "kv_loss": "smooth_l1",
    "kv_layer_std": True,
    "lr": 1e-3,
    "lr_scheduler": "cosine",
    "weight_decay": 0.01,
    "max_length": 64,
    "max_new_tokens": 24,
}
"""The settings of every run, where its arm does not say otherwise."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """A comparison, before its flags make it a plan.

    Args:
        name: of its output folder.
        kind: what it asks.
        question: the same in words.
        arms: what is compared, in the order of the table.
        common: settings of all runs.
        task: options of the data set, as in a URL.
        num_steps: optimiser steps of a run, where nothing else is asked for.
        num_seeds: of every arm that has no number of its own, where nothing else is asked for.
        teacher_name: the teacher, where it is not the model that the students start from.
    """

    name: str
    kind: Kind
    question: str
    arms: tuple[Arm, ...]
    common: Mapping[str, Any]
    task: Mapping[str, str] = field(default_factory=dict)
    num_steps: int = 1000
    num_seeds: int = 3
    teacher_name: str | None = None

    @property
    def num_latents(self) -> int:
        """M, of every arm that does not say otherwise."""
        return int(self.common["target_len"])

    def dataset_name(self, num_steps: int, num_test: int) -> str:
        """The data as `load_records` names them: no training sample is met twice if avoidable."""
        options = {
            **self.task,
            "num_train": min(num_steps * BATCH_SIZE, MAX_SAMPLES),
            "num_test": num_test,
        }
        return "kava/shell-game?" + "&".join(f"{key}={value}" for key, value in options.items())


def plan_of(
    demo: Demo,
    *,
    num_steps: int | None = None,
    num_seeds: int | None = None,
    num_items: int = NUM_ITEMS,
    model_name: str = TEACHER,
    device: str = "cpu",
) -> Plan:
    """The plan of a study that describes without a verdict.

    Args:
        demo: the comparison.
        num_steps: optimiser steps of a run; None: as the demo has it.
        num_seeds: of every arm; None: as the demo has them.
        num_items: questions of the final test; the curves use others.
        model_name: the students' start, and the teacher of a demo that names none.
        device: where it runs; models this small are quickest on the CPU.

    Example:
        >>> plan_of(MAIN, num_steps=1500).budget.steps
        1500
    """
    steps = num_steps or demo.num_steps
    curve_items = min(MAX_CURVE_ITEMS, num_items)
    data = demo.dataset_name(steps, curve_items + num_items)
    plan = Plan(
        name=demo.name,
        question=demo.question,
        base={
            **demo.common,
            "model_name": model_name,
            "teacher_name": demo.teacher_name or model_name,
            "eval_batch_size": curve_items,
            "warmup_steps": min(100, steps // 10),
            "device": device,
        },
        data=DataPlan(train=data, test=data, curve_items=curve_items, test_items=num_items),
        budget=Budget(batch_size=BATCH_SIZE, steps=steps),
        seeds=tuple(range(num_seeds or demo.num_seeds)),
        arms=tuple(replace(arm, seeds=None) for arm in demo.arms) if num_seeds else demo.arms,
        primary=Primary(test="none"),
    )
    check_plan(plan)
    return plan


def arm(
    name: str, what: str, role: Role, *changes: Mapping[str, Any], seeds: int | None = None
) -> Arm:
    """An arm whose changes are put together from named parts."""
    merged = {key: value for part in changes for key, value in part.items()}
    return Arm(name=name, what=what, role=role, changes=merged, seeds=seeds)


_WRITES = {"student": "explicit", "max_new_tokens": 24}
_PAUSE = {"decoding": "jacobi", "jacobi_iterations": 0}
_JACOBI = {"decoding": "jacobi", "jacobi_iterations": 2}
_KV = {"kv_weight": 5.0}
_CODI = {"codi_weight": 5.0}
_READS_TEXT = {"text_ce_weight": 1.0}

MAIN = Demo(
    name="demo",
    kind="main",
    question="Which signal makes a student reason in latent tokens?",
    arms=(
        arm("written", "writes its reasoning", "reference", _WRITES, seeds=1),
        arm("none", "answers at once", "control", {"target_len": 0}, seeds=1),
        arm("pause", "3 pause tokens", "control", _PAUSE, seeds=1),
        arm("ce", "3 latents, the answer's loss alone", "baseline", seeds=1),
        arm("text_ce", "the same + learns to read written steps", "control", _READS_TEXT, seeds=1),
        arm("codi", "3 latents + teacher's hidden state", "control", _CODI, seeds=1),
        arm("kv", "3 latents + teacher's KV cache", "treatment", _KV),
        arm("kv_jacobi", "the same, decoded in parallel (T = 2)", "treatment", _KV, _JACOBI),
        arm("codi_kv", "3 latents + hidden state + KV cache", "treatment", _KV, _CODI, seeds=1),
    ),
    # cue, value and end: a student of latents has no room to write its reasoning after all
    common={**COMMON, "max_new_tokens": 3},
    num_steps=600,
    num_seeds=2,
)
"""Of four steps the last, which states the answer, is left out: M = 3 is all of the written
reasoning, and no position has to be chosen."""


def eviction_demo(num_latents: int = NUM_LATENTS) -> Demo:
    """The comparison of eviction rules, for M latents and kept positions.

    Raises:
        ValueError: fewer than the oracle keeps anyway, or more than there are.

    Example:
        >>> eviction_demo(5).name
        'demo-eviction-5'
    """
    if not NUM_LATENTS <= num_latents <= NUM_VERBOSE_TOKENS:
        raise ValueError(
            f"--num_latents {num_latents} is out of range: {NUM_LATENTS} tokens carry the chain, "
            f"of {NUM_VERBOSE_TOKENS} that there are"
        )
    more = "" if num_latents == NUM_LATENTS else ", and is repeated"
    return Demo(
        name="demo-eviction" if num_latents == NUM_LATENTS else f"demo-eviction-{num_latents}",
        kind="eviction",
        question=f"Which {num_latents} of {NUM_VERBOSE_TOKENS} reasoning tokens should the latents "
        f"be matched with?",
        arms=(
            _rule("positions", f"oracle: where each step arrives{more}", "baseline"),
            _rule("knockout", "without which the teacher errs most", "treatment"),
            _rule("rkv", "the KaVa paper's score, per head", "treatment"),
            _rule("rkv_official", "R-KV's public code, per head", "treatment"),
            _rule("h2o", "attention of all later queries, shared", "treatment", kv_scope="model"),
            _rule("random", "at random, drawn anew for every sample", "control"),
            _rule("uniform", "at even distances", "control"),
            _rule("right_crop", f"the last {num_latents}", "control"),
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
    )


def _rule(name: str, what: str, role: Role, **changes: str) -> Arm:
    """An arm that is named after its eviction."""
    return arm(name, what, role, {"kv_method": name, **changes})


EVICTION = eviction_demo()
