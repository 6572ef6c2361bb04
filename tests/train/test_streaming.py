"""`--streaming`: order, place after a resume, what is held, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from runs import all_rows, interrupted, run, small

from kava.commands.train import main
from kava.data.sources import load_records
from kava.data.stream import RecordStream
from kava.data_settings import RowSettings
from kava.errors import KavaError
from kava.train.build import build_run
from one_line import refusal

ROWS = [
    {"question": one.question, "reasoning": one.reasoning, "answer": one.answer}
    for one in load_records("kava/shell-game?num_train=48")
]
READ: dict[str, Any] = {
    "model_name": "kava/tiny-llama", "streaming": True, "keep_last_step": True, "max_length": 256,
}  # fmt: skip
HELD_OUT = {"eval_dataset_name": "kava/shell-game", "eval_size": 4, "max_new_tokens": 2}


def jsonl(folder: Path, rows: list[dict[str, str]] = ROWS) -> Path:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def parquet(folder: Path) -> Path:
    Dataset.from_list(ROWS).to_parquet(str(folder / "train.parquet"))
    return folder / "train.parquet"


def csv(folder: Path) -> Path:
    Dataset.from_list(ROWS).to_csv(str(folder / "train.csv"), index=False)
    return folder / "train.csv"


def saved(folder: Path) -> Path:
    Dataset.from_list(ROWS).save_to_disk(str(folder / "saved"))
    return folder / "saved"


def stream(path: Path | str, **changes: Any) -> RecordStream:
    return RecordStream(str(path), "train", RowSettings(), **{"buffer": 16, "seed": 0, **changes})


def questions(stream: RecordStream, number: int = 0) -> list[str]:
    return [record.question for record in stream.records(number)]


@pytest.mark.parametrize("write", [jsonl, parquet, csv, saved])
def test_every_kind_of_file_is_streamed_in_the_same_order(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    found = questions(stream(write(tmp_path)))
    assert found == questions(stream(jsonl(tmp_path)))
    assert sorted(found) == sorted(row["question"] for row in ROWS)


def test_passes_and_seeds_have_orders_of_their_own(tmp_path: Path) -> None:
    path = jsonl(tmp_path)
    orders = [questions(stream(path), 0), questions(stream(path), 1)]
    orders.append(questions(stream(path, seed=5)))
    plain = [row["question"] for row in ROWS]
    assert all(sorted(order) == sorted(plain) for order in orders)
    assert len({tuple(order) for order in [*orders, plain]}) == 4
    assert questions(stream(path, buffer=1)) == plain
    # a row can come before its turn by no more than the buffer
    assert all(plain.index(q) <= place + 16 for place, q in enumerate(orders[0]))


def test_a_set_of_the_hub_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, bool]] = []

    def load_dataset(name: str, *, split: str, streaming: bool) -> Any:
        asked.append((name, split, streaming))
        if name == "some/other":
            raise ConnectionError("no route")
        return Dataset.from_list(ROWS).to_iterable_dataset()

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    hub = stream("owner/name")
    hub.check()
    assert len(questions(hub)) == len(ROWS)
    assert asked == [("owner/name", "train", True)]
    with pytest.raises(ValueError, match=r"'some/other' \(train\) could not be read .*no route"):
        questions(stream("some/other"))


def test_rows_are_read_no_further_than_they_are_used(tmp_path: Path) -> None:
    path = jsonl(tmp_path, ROWS[:40])
    with path.open("a", encoding="utf-8") as file:
        file.write("no JSON\n")
    few = stream(path, buffer=4)
    assert len(list(islice(few.records(0), 10))) == 10
    with pytest.raises(ValueError, match=r"train.jsonl, line 41"):
        list(few.records(0))


def test_a_run_goes_on_where_it_was_in_the_stream(tmp_path: Path) -> None:
    """Over the end of a pass: 6 steps of 16 samples read 48 twice."""
    path = str(jsonl(tmp_path))
    options: dict[str, Any] = {
        "dataset_name": path, **READ, "shuffle_buffer": 8, "batch_size": 8,
        "gradient_accumulation_steps": 2, "max_steps": 6, "save_steps": 2, "eval_steps": 3,
        **HELD_OUT,
    }  # fmt: skip
    whole = run(small(tmp_path / "whole", **options))
    assert len(whole.data.train) == 48
    interrupted(small(tmp_path / "cut", **options), step=5)
    run(small(tmp_path / "cut", **options, resume=True))
    assert all_rows(tmp_path / "cut") == all_rows(tmp_path / "whole")
    records = [
        json.loads((tmp_path / name / "checkpoint-6/recording.json").read_text())
        for name in ("cut", "whole")
    ]
    assert records[0]["data_order_hash"] == records[1]["data_order_hash"]
    assert records[0]["samples"] == 96
    jsonl(tmp_path, ROWS[:-1])
    with pytest.raises(ValueError, match="was trained on other data"):
        build_run(small(tmp_path / "cut", **options, resume=True))


def test_a_map_is_fitted_on_the_beginning_of_the_stream(tmp_path: Path) -> None:
    config = small(
        tmp_path / "run", dataset_name=str(jsonl(tmp_path)), max_steps=1, **READ,
        teacher_name="kava/tiny-gpt2",
        alignment_mode="structured", kv_method="full", calibration_samples=32,
    )  # fmt: skip
    built = run(config)
    assert built.calibration is not None
    assert built.trainer.state.global_step == 1


def test_a_held_out_question_in_the_stream_stops_the_run(tmp_path: Path) -> None:
    held = load_records("kava/shell-game", split="test")[0]
    rows = [*ROWS * 2, {**ROWS[0], "question": held.question}]
    config = small(
        tmp_path / "run", dataset_name=str(jsonl(tmp_path, rows)), **READ, shuffle_buffer=1,
        max_steps=40, **HELD_OUT,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"train-96.* which is held out"):
        run(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reasoning": "a"}, r"line 97: .*reasoning tokens"),
        ({"answer": "18\nand 19"}, r"line 97"),
    ],
)
def test_a_late_sample_is_checked_when_its_turn_comes(
    changes: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = jsonl(tmp_path, [*ROWS * 2, {**ROWS[0], **changes}])
    options = {"dataset_name": str(path), **READ, "shuffle_buffer": 1, "max_steps": 1}
    samples = build_run(small(tmp_path / "run", **options)).data.stream
    assert samples is not None
    with pytest.raises(ValueError, match=message):
        list(islice(samples, 97))


def test_tokenizers_that_differ_late_in_the_stream_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = {"teacher_name": "kava/tiny-gpt2", "alignment_mode": "structured"}
    path = jsonl(tmp_path, ROWS)
    options = {"dataset_name": str(path), **READ, **teacher, "shuffle_buffer": 1, "max_steps": 1}
    samples = build_run(small(tmp_path / "run", **options)).data.stream
    assert samples is not None
    monkeypatch.setattr("kava.train.streaming.reads_alike", lambda *args: False)
    with pytest.raises(ValueError, match=r"give .*line 1.* other ids"):
        next(iter(samples))


def test_a_stream_without_a_sample_that_fits_ends(tmp_path: Path) -> None:
    path = jsonl(tmp_path)
    fits = {"dataset_name": str(path), **READ, "overflow": "skip", "max_steps": 1}
    built = build_run(small(tmp_path / "run", **fits))
    assert built.data.stream is not None
    jsonl(tmp_path, [{**ROWS[0], "reasoning": "a"}])
    with pytest.raises(KavaError, match=r"no sample of .*train.jsonl fits"):
        next(iter(built.data.stream))


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ("--epochs 2", "counts passes over data of a known size: give --max_steps"),
        ("--max_steps 2 --subset_size 5", "--subset_size draws from all samples"),
        ("--max_steps 2 --eval_size 5", "name an --eval_dataset_name"),
        ("--max_steps 2 --wrong_sample", "--wrong_sample needs the sample before each"),
        (
            "--max_steps 2 --teacher_name kava/shell-gpt2 --store x",
            "--store looks all samples up before training",
        ),
        ("--max_steps 2 --kv_method knockout", "scores all samples before training"),
        ("--max_steps 2 --dataset_name kava/shell-game", "kava/shell-game is read or made whole"),
        ("--max_steps 2 --dataset_name gsm8k", "gsm8k is read or made whole"),
        ("--max_steps 2 --question_field problem", "train.jsonl, line 1 has no field 'problem'"),
        ("--max_steps 2 --dataset_name nowhere.jsonl", "'nowhere.jsonl' is neither a file"),
    ],
)
def test_what_needs_the_whole_of_the_data_is_refused(
    flags: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = "--model_name kava/shell-llama --streaming --shuffle_buffer 1 --device cpu "
    argv += f"--dataset_name {jsonl(tmp_path)} --output_dir {tmp_path / 'run'} {flags}"
    words = argv.split()
    if words.count("--dataset_name") > 1:
        at = words.index("--dataset_name")
        del words[at : at + 2]
    assert part in refusal(main, words, capsys)


def test_a_list_of_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(ROWS), encoding="utf-8")
    with pytest.raises(ValueError, match="write a row on each line"):
        stream(path).check()
