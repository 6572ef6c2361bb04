"""Decide which numbers of two arms may be compared.

Correct answers to the same items can be compared between all arms. A KV loss cannot: its target,
space and formula depend on the arm's own settings, so a lower loss need not be better. Such numbers
are shown next to their own control and never ranked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kava.report.logs import ArmLogs, RunLogs

TRAINING_ONLY = frozenset(
    {"kv_weight", "cka_weight", "codi_weight", "latent_ce_weight", "ce_weight", "lr"}
    | {"lr_scheduler", "warmup_steps", "weight_decay", "max_grad_norm", "projection_dropout"}
    | {"epochs", "max_steps", "batch_size", "gradient_accumulation_steps", "seed"}
    | {"logging_steps", "save_steps", "save_total_limit", "save_only_model", "eval_steps"}
    | {"eval_batch_size"}
)
"""Settings that change how a student is trained, but not how its cache is measured."""

STUDENT = frozenset({"student", "model_name", "reasoning_form"})
"""Settings that change the tokens of a cross-entropy."""

CACHE = ("eval_kv", "eval_kv_wrong_sample", "eval_cka_keys", "eval_cka_values")
NAMES = {
    "eval_accuracy": "accuracy",
    "eval_ce": "held-out cross-entropy",
    "eval_kv": "KV loss",
    "eval_kv_wrong_sample": "KV loss against another sample",
    "eval_cka_keys": "CKA of keys",
    "eval_cka_values": "CKA of values",
}
"""Quantity of a log → its name in a sentence."""


def differing_settings(quantity: str, one: ArmLogs, other: ArmLogs) -> tuple[str, ...]:
    """The settings through which two arms measure different things under the same name.

    Args:
        quantity: its name in the logs, one of `NAMES`.
        one: an arm.
        other: another.

    Raises:
        ValueError: a quantity whose dependence on settings is unknown.
    """
    if quantity not in NAMES:
        raise ValueError(f"{quantity!r} is none of the quantities that are compared: {[*NAMES]}")
    differing = {
        name
        for name in {*one.settings, *other.settings}
        if one.settings.get(name) != other.settings.get(name)
    }
    if quantity == "eval_accuracy":
        return ()
    return tuple(
        sorted(differing & STUDENT if quantity == "eval_ce" else differing - TRAINING_ONLY)
    )


def check_same_kind(quantity: str, one: ArmLogs, other: ArmLogs) -> None:
    """Refuse to compare numbers that only share their name.

    Raises:
        ValueError: the arms measure the quantity differently; the message names the settings.

    Example:
        >>> check_same_kind("eval_kv", flat, structured)
        Traceback (most recent call last):
        ...
        ValueError: the KV losses of flat and structured are of different kinds: …
    """
    settings = differing_settings(quantity, one, other)
    if settings:
        raise ValueError(
            f"the {NAMES[quantity]} of {one.name} and that of {other.name} are of different kinds: "
            f"the arms differ in {', '.join(settings)}"
        )


def change_of_last(quantity: str, arm: ArmLogs, baseline: ArmLogs) -> float:
    """Difference between the last value of a quantity and the baseline's, averaged over runs.

    Raises:
        ValueError: the two are of different kinds, or one of them has no value.
    """
    check_same_kind(quantity, arm, baseline)
    means = [last_of(quantity, one) for one in (arm, baseline)]
    if means[0] is None or means[1] is None:
        raise ValueError(f"{arm.name} or {baseline.name} has no {NAMES[quantity]}")
    return means[0] - means[1]


def last_of(quantity: str, arm: ArmLogs) -> float | None:
    """The last value of the log, averaged over finished runs; None if there is none."""

    def last(run: RunLogs) -> float | None:
        values = run.curve(quantity)[1]
        return values[-1] if values else None

    return arm.mean(last)


def groups_of_kind(quantity: str, arms: Sequence[ArmLogs]) -> Mapping[str, str]:
    """Map each arm to a letter; arms with the same letter measure the same quantity.

    Example:
        >>> groups_of_kind("eval_kv", [flat, structured, structured_slow])
        {'flat': 'a', 'structured': 'b', 'structured_slow': 'b'}
    """
    firsts: list[ArmLogs] = []
    letters = {}
    for arm in arms:
        alike = (
            i for i, first in enumerate(firsts) if not differing_settings(quantity, arm, first)
        )
        place = next(alike, len(firsts))
        if place == len(firsts):
            firsts.append(arm)
        letters[arm.name] = chr(ord("a") + place) if place < 26 else f"a{place}"
    return letters
