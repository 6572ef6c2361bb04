"""Raw texts: split at markers of one's own, and reported where there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from kava.data import Template, load_records
from kava.data.encode import encode_records
from kava.data.encoded import DoesNotFit
from kava.data_settings import RowSettings
from kava.evaluate.data import evaluation_records
from kava.models.load import load_tokenizer
from kava.train.config import TrainConfig
from kava.train.data import load_data
from kava.train.flags import parse_config

MARKERS: dict[str, Any] = {
    "text_field": "story",
    "reasoning_triggers": ["<think>"],
    "answer_triggers": ["</think>"],
}
ROWS = RowSettings(**MARKERS)
GOOD = [
    {"story": f"What is {n} + 1? <think>One step.\nOne more.\nIt is {n + 1}.</think> {n + 1}"}
    for n in range(8)
]
BAD = [
    {"story": "Nothing is marked here."},
    {"story": "What is 1 + 1? <think>Two, I think.", "id": "endless"},
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer("kava/tiny-llama")


@pytest.fixture
def raw(tmp_path: Path) -> str:
    """Ten raw texts, two of them without markers."""
    path = tmp_path / "thoughts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*GOOD[:4], *BAD, *GOOD[4:]]))
    return str(path)


def config(path: str, **changes: Any) -> TrainConfig:
    return TrainConfig(
        **{
            "model_name": "kava/tiny-llama",
            "dataset_name": path,
            "output_dir": str(Path(path).parent / "run"),
            "target_len": 4,
            "max_length": 256,
            **MARKERS,
            **changes,
        }
    )


def test_texts_are_split_at_the_markers_given(raw: str) -> None:
    records = load_records(raw, on_missing="report", rows=ROWS)
    assert len(records) == 10
    first = records[0]
    assert first.question == "What is 0 + 1?"
    assert first.reasoning == "<think>One step.\nOne more.\nIt is 1."
    assert (first.answer, first.missing) == ("1", ())
    assert [(record.id, record.missing) for record in records if record.missing] == [
        ("thoughts-4", ("reasoning", "answer")),
        ("endless", ("answer",)),
    ]


def test_a_text_without_markers_is_an_error_by_its_line(raw: str) -> None:
    with pytest.raises(ValueError, match=r"thoughts.jsonl, line 5: no marker of the reasoning and"):
        load_records(raw, rows=ROWS)
    with pytest.raises(ValueError, match=r"line 1 has no field 'tale' \(it has 'story'\)"):
        load_records(raw, rows=RowSettings(text_field="tale"))


def test_a_named_text_field_goes_before_a_question(tmp_path: Path) -> None:
    path = tmp_path / "both.jsonl"
    path.write_text(json.dumps({"question": "Q", "answer": "#### 1", "text": "a?\nb\n#### 3"}))
    (by_field,) = load_records(str(path), rows=RowSettings(text_field="text"))
    assert by_field.answer == "3"


def test_answers_that_hold_their_reasoning_may_have_markers_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"question": "1 + 1?", "answer": "One and one. => 2"}))
    (record,) = load_records(str(path), rows=RowSettings(answer_triggers=["=>"]))
    assert (record.reasoning, record.answer) == ("One and one.", "2")
    with pytest.raises(ValueError, match="give the markers it uses"):
        load_records(str(path))


def test_texts_without_markers_are_counted_or_stop_the_run(
    raw: str, tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    records = load_records(raw, on_missing="report", rows=ROWS)
    with pytest.raises(DoesNotFit, match="sample 'thoughts-4': no marker of the reasoning and"):
        encode_records(records, tokenizer, Template(), 256)
    encoded, report = encode_records(records, tokenizer, Template(), 256, overflow="skip")
    assert len(encoded) == 8
    assert dict(report.skipped) == {"segments not found": ["thoughts-4", "endless"]}
    assert "2 segments not found (thoughts-4, endless)" in caplog.text


def test_a_run_skips_them_and_counts_them(raw: str, tokenizer: PreTrainedTokenizerBase) -> None:
    data = load_data(config(raw, overflow="skip"), tokenizer)
    assert len(data.train) == 8
    assert "8 of 10 records" in str(data.report)
    assert "2 segments not found (thoughts-4, endless)" in str(data.report)
    with pytest.raises(ValueError, match=r"give the markers it uses by --reasoning_triggers"):
        load_data(config(raw), tokenizer)


def test_held_out_texts_without_markers_are_not_asked(
    raw: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    other = Path(raw).with_name("other.jsonl")
    rows = [{**row, "story": row["story"].replace("What", "Tell what")} for row in [*BAD, *GOOD]]
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_data(
        config(raw, overflow="skip", eval_dataset_name=str(other), eval_size=10), tokenizer
    )
    assert len(data.eval_records) == len(data.eval) == 8


def test_an_evaluation_reads_the_runs_data_as_the_run_did(raw: str) -> None:
    settings = {"config": vars(config(raw, overflow="skip"))}
    found = evaluation_records(settings, dataset_name=raw)
    assert len(found.records) == 8
    assert found.warning is not None
    assert "2 records without their segments are left out (thoughts-4, endless)" in found.warning
    strict = {"config": vars(config(raw))}
    with pytest.raises(ValueError, match="line 5: no marker"):
        evaluation_records(strict, dataset_name=raw)


def test_triggers_are_lists_on_the_command_line_and_in_a_file(tmp_path: Path) -> None:
    flags = ["--output_dir", "x", "--reasoning_triggers", "<think>", "Reasoning:"]
    assert parse_config(flags).reasoning_triggers == ["<think>", "Reasoning:"]
    file = tmp_path / "run.yaml"
    file.write_text("answer_triggers: ['</think>']\noutput_dir: y\n")
    assert parse_config(["--config", str(file)]).answer_triggers == ["</think>"]
    assert parse_config(["--output_dir", "x"]).answer_triggers is None
    for bad in ("'####'", "[1, 2]"):
        file.write_text(f"answer_triggers: {bad}\n")
        with pytest.raises(ValueError, match=r"answer_triggers: .* is not a list of texts"):
            parse_config(["--config", str(file)])


def test_empty_triggers_are_refused(raw: str) -> None:
    with pytest.raises(ValueError, match="reasoning_triggers='' is empty"):
        load_records(raw, rows=RowSettings(reasoning_triggers=[""]))
    with pytest.raises(ValueError, match=r"reasoning_triggers=\[\] must be a list of non-empty"):
        load_records(raw, rows=RowSettings(reasoning_triggers=[]))
