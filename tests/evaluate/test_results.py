"""What is written about an evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kava.evaluate import results
from kava.evaluate.results import (
    summarise,
    summary_path,
    table,
    write_results,
)
from kava.statistics import read_items
from kava.student.answering import Answer, Answers

ANSWERS = Answers(
    items=tuple(
        Answer(
            id=f"r{i}",
            prediction="ä",
            gold="ä" if i else "b",
            correct=bool(i),
            text=f"1\n#### ä{i}",
            num_tokens=2 + i,
            num_passes=7,
        )
        for i in range(4)
    ),
    seconds=2.0,
)


def test_the_figures() -> None:
    summary = summarise(ANSWERS)
    assert summary["accuracy_low"] == pytest.approx(0.3006, abs=1e-4)
    assert summary["accuracy_high"] == pytest.approx(0.9544, abs=1e-4)
    del summary["accuracy_low"], summary["accuracy_high"]
    assert summary == {
        "num_items": 4,
        "num_correct": 3,
        "accuracy": 0.75,
        "confidence": 0.95,
        "forward_passes": 7.0,
        "num_tokens": 14,
        "seconds": 2.0,
        "seconds_per_answer": 0.5,
        "tokens_per_second": 7.0,
    }


def test_accuracy_is_told_by_written_steps_where_the_task_counts_them(tmp_path: Path) -> None:
    items = tuple(replace(item, num_steps=2 + i % 2) for i, item in enumerate(ANSWERS.items))
    answers = Answers(items, seconds=2.0)
    summary = summarise(answers)
    assert {
        steps: (found["num_correct"], found["num_items"], found["accuracy"])
        for steps, found in summary["by_num_steps"].items()
    } == {"2": (1, 2, 0.5), "3": (2, 2, 1.0)}
    assert table(summary).splitlines()[2:4] == [
        "  2 steps       50.0 %  (1 of 2; 9.5 to 90.5 %)",
        "  3 steps       100.0 %  (2 of 2; 34.2 to 100.0 %)",
    ]
    output = tmp_path / "items.jsonl"
    write_results(output, answers, summary)
    assert read_items(output).num_steps == (2, 3, 2, 3)
    write_results(output, ANSWERS, summarise(ANSWERS))
    assert read_items(output).num_steps == ()
    assert "num_steps" not in output.read_text()


def test_the_table() -> None:
    assert table(summarise(ANSWERS)).splitlines() == [
        "items           4",
        "accuracy        75.0 %  (3 right; 95% Wilson interval 30.1 to 95.4 %)",
        "forward passes  7.0 per answer",
        "tokens          3.5 per answer",
        "time            0.5 s per answer, 7 tokens per second",
    ]


def test_every_item_is_a_line_and_the_summary_lies_beside_them(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "items.jsonl"
    write_results(output, ANSWERS, summarise(ANSWERS))
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert rows[0] == {
        "id": "r0",
        "prediction": "ä",
        "gold": "b",
        "correct": False,
        "text": "1\n#### ä0",
        "num_tokens": 2,
        "num_passes": 7,
    }
    assert [row["id"] for row in rows] == ["r0", "r1", "r2", "r3"]
    assert summary_path(output).name == "items.jsonl.summary.json"
    assert json.loads(summary_path(output).read_text()) == summarise(ANSWERS)
    assert len(list(output.parent.iterdir())) == 2


def test_a_failure_leaves_the_old_file_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "items.jsonl"
    output.write_text("old")
    calls = []

    def dumps(value: object, **options: object) -> str:
        calls.append(value)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return "{}"

    monkeypatch.setattr(results.json, "dumps", dumps)
    with pytest.raises(OSError, match="No space"):
        write_results(output, ANSWERS, {})
    assert output.read_text() == "old"
    assert list(tmp_path.iterdir()) == [output]
