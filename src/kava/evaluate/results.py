"""The results of an evaluation: a file with every item, its summary, and a table.

Statistics need results per item, because two students are compared on the same items.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kava.files.write import write_all
from kava.statistics.intervals import wilson
from kava.student.answering import Answers

CONFIDENCE = 0.95


def summarise(answers: Answers) -> dict[str, Any]:
    """The figures of an evaluation: accuracy with its interval, and costs.

    Returns:
        num_items, num_correct, accuracy (0 to 1), its Wilson interval as `accuracy_low` and
        `accuracy_high` at `confidence`, forward_passes (mean per answer), num_tokens (all),
        seconds (all), seconds_per_answer and tokens_per_second; and where the task counts written
        steps, `by_num_steps`: their number → the same figures of accuracy.
    """
    by_steps = {str(steps): _accuracy(*counts) for steps, counts in answers.by_num_steps.items()}
    return {
        **_accuracy(answers.num_correct, answers.num_items),
        "confidence": CONFIDENCE,
        **({"by_num_steps": by_steps} if by_steps else {}),
        "forward_passes": answers.forward_passes,
        "num_tokens": answers.num_tokens,
        "seconds": answers.seconds,
        "seconds_per_answer": answers.seconds_per_answer,
        "tokens_per_second": answers.tokens_per_second,
    }


def _accuracy(num_correct: int, num_items: int) -> dict[str, Any]:
    interval = wilson(num_correct, num_items, CONFIDENCE)
    return {
        "num_items": num_items,
        "num_correct": num_correct,
        "accuracy": num_correct / num_items,
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
    }


def table(summary: Mapping[str, Any]) -> str:
    """A summary as a table for the terminal."""
    low, high = (100 * summary[name] for name in ("accuracy_low", "accuracy_high"))
    rows = [
        ("items", f"{summary['num_items']}"),
        (
            "accuracy",
            f"{100 * summary['accuracy']:.1f} %  ({summary['num_correct']} right; "
            f"{summary['confidence']:.0%} Wilson interval {low:.1f} to {high:.1f} %)",
        ),
        *(
            (
                f"  {steps} step" + "s" * (steps != "1"),
                f"{100 * found['accuracy']:.1f} %  ({found['num_correct']} of "
                f"{found['num_items']}; {100 * found['accuracy_low']:.1f} to "
                f"{100 * found['accuracy_high']:.1f} %)",
            )
            for steps, found in summary.get("by_num_steps", {}).items()
        ),
        ("forward passes", f"{summary['forward_passes']:.1f} per answer"),
        ("tokens", f"{summary['num_tokens'] / summary['num_items']:.1f} per answer"),
        (
            "time",
            f"{summary['seconds_per_answer']:.4g} s per answer, "
            f"{summary['tokens_per_second']:.4g} tokens per second",
        ),
    ]
    return "\n".join(f"{name:<16}{value}" for name, value in rows)


def summary_path(output: Path) -> Path:
    """The path of the summary that belongs to a file of items."""
    return output.with_name(output.name + ".summary.json")


def write_results(output: Path, answers: Answers, summary: Mapping[str, Any]) -> None:
    """Write one line per item to `output`, and the summary next to it.

    Both files appear, or neither. A missing folder is created.

    Raises:
        OSError: they cannot be written; earlier files are unchanged.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(item.as_row(), ensure_ascii=False) + "\n" for item in answers.items)
    write_all(
        {
            output: "".join(lines),
            summary_path(output): json.dumps(summary, indent=2, ensure_ascii=False) + "\n",
        }
    )
