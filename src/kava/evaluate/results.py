"""The results of an evaluation: a file with every item, its summary, and a table.

Statistics need results per item, because two students are compared on the same items.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
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
        seconds (all), seconds_per_answer and tokens_per_second.
    """
    interval = wilson(answers.num_correct, answers.num_items, CONFIDENCE)
    return {
        "num_items": answers.num_items,
        "num_correct": answers.num_correct,
        "accuracy": answers.accuracy,
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "confidence": CONFIDENCE,
        "forward_passes": answers.forward_passes,
        "num_tokens": answers.num_tokens,
        "seconds": answers.seconds,
        "seconds_per_answer": answers.seconds_per_answer,
        "tokens_per_second": answers.tokens_per_second,
    }


def table(summary: Mapping[str, Any]) -> str:
    """A summary as a table for the terminal."""
    accuracy, low, high = (
        100 * summary[name] for name in ("accuracy", "accuracy_low", "accuracy_high")
    )
    rows = [
        ("items", f"{summary['num_items']}"),
        (
            "accuracy",
            f"{accuracy:.1f} %  ({summary['num_correct']} right; {summary['confidence']:.0%} "
            f"Wilson interval {low:.1f} to {high:.1f} %)",
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
    lines = (json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in answers.items)
    write_all(
        {
            output: "".join(lines),
            summary_path(output): json.dumps(summary, indent=2, ensure_ascii=False) + "\n",
        }
    )
