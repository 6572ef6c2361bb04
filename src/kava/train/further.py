"""Metrics that a caller computes of an evaluation's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import EvalPrediction

from kava.student.answering import Answers

ComputeMetrics = Callable[[EvalPrediction], dict[str, Any]]
"""As transformers' trainer takes it: predictions and labels → numbers by name."""


def further_metrics(
    compute: ComputeMetrics | None, answers: Answers, measured: Mapping[str, float]
) -> dict[str, float]:
    """The caller's metrics, with the prefix `eval_`.

    Args:
        compute: gets the generated texts as `predictions` and the right answers as `label_ids`,
            each a list in the order of the evaluation; None computes nothing.
        answers: of the evaluation.
        measured: what the run measures itself.

    Raises:
        ValueError: no numbers by name, or the name of what the run measures itself.
    """
    if compute is None:
        return {}
    texts: Any = [item.text for item in answers.items]
    golds: Any = [item.gold for item in answers.items]
    found = compute(EvalPrediction(predictions=texts, label_ids=golds))
    if not isinstance(found, Mapping):
        raise ValueError(
            f"compute_metrics gave a {type(found).__name__}, and a dictionary of numbers is logged"
        )
    named = {f"eval_{name.removeprefix('eval_')}": value for name, value in found.items()}
    for name, value in named.items():
        if name in measured:
            raise ValueError(
                f"compute_metrics gives {name}, which the run measures itself; give it another name"
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"compute_metrics gives {name}={value!r:.40}, which is no number")
    return named
