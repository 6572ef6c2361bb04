"""Per-item files, of both kinds, good and bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kava.statistics import Items, read_items
from kava.statistics.items import pair


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def harness_row(doc_id: int, **fields: Any) -> dict[str, Any]:
    """A line as lm-evaluation-harness writes it with --log_samples."""
    return {
        "doc_id": doc_id,
        "doc": {"question": "2 + 2?"},
        "target": "4",
        "arguments": {"gen_args_0": {"arg_0": "2 + 2?"}},
        "resps": [["4"]],
        "filtered_resps": ["4"],
        "doc_hash": "ab",
        "prompt_hash": "cd",
        "target_hash": "ef",
        **fields,
    }


def test_items_as_evaluate_writes_them(tmp_path: Path) -> None:
    from kava.evaluate.results import write_results
    from kava.student.answering import Answer, Answers

    item = {"prediction": "4", "gold": "4", "text": "4", "num_tokens": 1, "num_passes": 2}
    given = (Answer(id="é", correct=True, **item), Answer(id="b", correct=False, **item))  # type: ignore[arg-type]
    answers = Answers(items=given, seconds=1.0)
    write_results(tmp_path / "items.jsonl", answers, {})
    items = read_items(tmp_path / "items.jsonl")
    assert items.ids == ("é", "b")
    assert items.correct.tolist() == [True, False]
    assert items.correct.dtype == bool
    assert (items.num_correct, items.accuracy) == (1, 0.5)


def test_a_sample_file_of_the_harness(tmp_path: Path) -> None:
    rows = [harness_row(7, filter="none", acc=1.0), harness_row(8, filter="none", acc=0.0)]
    items = read_items(write(tmp_path / "samples.jsonl", rows))
    assert items.ids == ("7", "8")
    assert items.correct.tolist() == [True, False]


def test_of_several_filters_and_metrics_one_must_be_chosen(tmp_path: Path) -> None:
    rows = [
        harness_row(doc, filter=name, exact_match=float(name == "strict-match"), acc=doc)
        for doc in (0, 1)
        for name in ("strict-match", "flexible-extract")
    ]
    path = write(tmp_path / "samples.jsonl", rows)
    with pytest.raises(ValueError, match=r"flexible-extract; choose one with --filter"):
        read_items(path)
    with pytest.raises(ValueError, match=r"exact_match, acc; choose one with --metric"):
        read_items(path, filter_name="strict-match")
    strict = read_items(path, filter_name="strict-match", metric="exact_match")
    flexible = read_items(path, filter_name="flexible-extract", metric="exact_match")
    assert (strict.num_correct, flexible.num_correct) == (2, 0)
    assert read_items(path, filter_name="strict-match", metric="acc").correct.tolist() == [
        False,
        True,
    ]
    with pytest.raises(ValueError, match="no filter 'strict', only strict-match"):
        read_items(path, filter_name="strict", metric="acc")
    with pytest.raises(ValueError, match="has no field 'f1'"):
        read_items(path, filter_name="strict-match", metric="f1")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (
            '{"id": "a", "correct": true}\n{"id": "b", "corr',
            "items.jsonl, line 2 is not JSON: Unterminated string",
        ),
        ("[1]\n", r"line 1 must be a JSON object, got \[1\]"),
        ('{"correct": true}\n', "has no field 'id', only 'correct'"),
        ('{"id": "a", "right": true}\n', "has no field 'correct', only 'id', 'right'"),
        ('{"id": "a", "correct": 1}\n', "line 1 has correct=1, but it must be true or false"),
        ('{"id": "a", "correct": "yes"}\n', "correct='yes'"),
        ('{"id": "a", "correct": null}\n', "correct=None"),
        ('{"id": null, "correct": true}\n', "id=None"),
        ('{"id": true, "correct": true}\n', "id=True"),
        (
            '{"id": "a", "correct": true}\n\n{"id": "a", "correct": true}\n',
            "line 3 has the id 'a' of line 1 again",
        ),
        ('{"doc_id": 0, "acc": 0.5}\n', "acc=0.5, but it must be 0 or 1"),
        ('{"doc_id": 0, "bleu": 0.5}\n', "none of the metrics exact_match, acc, acc_norm"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=complaint) as error:
        read_items(path)
    assert "\n" not in str(error.value)


def test_items_are_paired_by_id_whatever_their_order() -> None:
    a = Items(("x", "y", "z"), np.array([True, False, True]))
    b = Items(("z", "x", "y"), np.array([True, False, False]))
    assert [one.tolist() for one in pair(a, b)] == [[True, False, True], [False, False, True]]


def test_other_ids_are_counted_and_one_is_named() -> None:
    a = Items(("x", "y", "z"), np.ones(3, bool), "a.jsonl")
    b = Items(("x", "q"), np.ones(2, bool), "b.jsonl")
    with pytest.raises(ValueError, match=r"2 of 3 ids are only in a.jsonl, such as 'y' and 1 of 2"):
        pair(a, b)
    with pytest.raises(ValueError, match=r"^1 of 3 ids are only in a.jsonl, such as 'z'; only"):
        pair(a, Items(("x", "y"), np.ones(2, bool), "c.jsonl"))


def test_a_metric_is_for_files_of_the_harness(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"id": 1, "correct": true}\n')
    with pytest.raises(ValueError, match="--metric acc is for the files of lm-evaluation-harness"):
        read_items(path, metric="acc")


def test_items_with_other_gold_answers_are_not_the_same_questions() -> None:
    right = np.array([True, True])
    a, b = (Items(("x", "y"), right, path, golds) for path, golds in (
        ("a.jsonl", ("1", "2")), ("b.jsonl", ("1", "3")),
    ))  # fmt: skip
    with pytest.raises(ValueError, match=r"1 of 2 items have another gold .* such as 'y'"):
        pair(a, b)
    pair(a, b._replace(golds=()))  # a file that names none
