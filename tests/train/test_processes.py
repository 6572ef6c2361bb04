"""Several processes train as one does, through the entry point that users start."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kava.data.encoded import Encoded
from kava.data.records import Record
from kava.ranks import Ranks
from kava.student.answering import Answer, Answers
from kava.train.processes import Samples, ShareOfBatches, share_questions

TASK = ["--dataset_name", "kava/word-problems?num_train=60", "--eval_size", "9", "--epochs", "2"]
RUN = [
    *TASK,
    *("--model_name", "kava/tiny-llama", "--target_len", "3", "--max_length", "512"),
    *("--overflow", "skip", "--device", "cpu", "--max_new_tokens", "3", "--logging_steps", "1"),
    *("--text_ce_steps", "100", "--calibration_samples", "40", "--no_progress"),
]
OTHER = ["--teacher_name", "kava/tiny-gpt2"]
ROUTED = [
    *("--teachers", "a=kava/tiny-gpt2", "b=kava/tiny-gpt-neox"),
    *("--fusion", "learnable", "--router_learning", "gradient"),
]
OF_THE_MACHINE = {"seconds", "peak_memory_bytes", "train_runtime"}


def train(folder: Path, *flags: str, processes: int = 1) -> list[dict[str, Any]]:
    """Start `kava train`, under torchrun if there are several processes; the rows it logged."""
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "-m", "kava"]
    program = [sys.executable, *(launch if processes > 1 else ["-m", "kava"])]
    done = subprocess.run(
        [*program, "train", *RUN, "--output_dir", str(folder), *flags],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("checkpoint: ") == 1  # one process speaks
    return rows_of(folder)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """What a run logged."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def assert_same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """The training rows agree, but for what depends on the machine."""
    for name in ("eval_accuracy", "eval_num_items", "eval_ce", "eval_kv", "eval_forward_passes"):
        assert ours[-2][name] == pytest.approx(theirs[-2][name], rel=2e-5), name
    ours, theirs = ([row for row in rows if "ce" in row] for rows in (ours, theirs))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for one, other in zip(ours, theirs):
        assert one.keys() == other.keys()
        for name in one.keys() - OF_THE_MACHINE:
            if isinstance(one[name], float) and not math.isnan(one[name]):
                assert one[name] == pytest.approx(other[name], rel=2e-5, abs=1e-5), name
            else:
                assert one[name] == other[name], name


def assert_same_weights(ours: Path, theirs: Path, step: int) -> None:
    one, other = (
        load_file(folder / f"checkpoint-{step}" / "model.safetensors") for folder in (ours, theirs)
    )
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("num_samples", [1, 5, 8, 9, 11, 16])
@pytest.mark.parametrize("processes", [2, 3])
def test_the_shares_of_a_batch_are_the_batch(num_samples: int, processes: int) -> None:
    order = sorted(range(num_samples), key=lambda index: 7 * index % 16)
    shares = [list(ShareOfBatches(order, 2, processes, rank)) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1
    assert len(shares[0]) == len(ShareOfBatches(order, 2, processes, 0))
    for number, parts in enumerate(zip(*shares)):
        read = [index for part in parts for index in part if index < num_samples]
        assert read == order[number * 2 * processes :][: 2 * processes]
        assert all(parts)


def test_an_index_behind_the_end_is_a_copy_that_counts_nothing() -> None:
    ids = torch.arange(4).numpy()
    sample = Encoded(id="a", input_ids=ids, prompt_length=1, answer_start=2, value_start=3)
    samples = Samples([sample])
    assert samples[0].counts
    assert not samples[1].counts
    assert samples[1].input_ids is ids
    assert len(samples) == 1


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("alone")
    return folder, train(folder, *OTHER, "--batch_size", "8", "--save_steps", "4")


@pytest.mark.slow
def test_two_processes_train_as_one(
    tmp_path: Path, alone: tuple[Path, list[dict[str, Any]]]
) -> None:
    """Of 47 samples one is left for the two at the end of an epoch."""
    folder, rows = alone
    flags = ["--batch_size", "1", "--gradient_accumulation_steps", "4"]
    ours = train(tmp_path, *OTHER, *flags, "--save_steps", "4", processes=2)
    assert_same(ours, rows)
    assert_same_weights(tmp_path, folder, 12)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(
    tmp_path: Path, alone: tuple[Path, list[dict[str, Any]]]
) -> None:
    folder, rows = alone
    shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint-12")
    flags = ["--batch_size", "4", "--save_steps", "4", "--resume"]
    assert_same(train(tmp_path / "run", *OTHER, *flags, processes=2), rows)
    assert_same_weights(tmp_path / "run", folder, 12)


@pytest.mark.slow
def test_a_router_learns_the_same_in_two_processes(tmp_path: Path) -> None:
    one = train(tmp_path / "one", *ROUTED, "--batch_size", "8", "--max_steps", "3")
    two = train(tmp_path / "two", *ROUTED, "--batch_size", "4", "--max_steps", "3", processes=2)
    assert_same(two, one)
    assert_same_weights(tmp_path / "two", tmp_path / "one", 3)


@pytest.mark.parametrize("num_questions", [1, 4, 5])
def test_shared_questions_are_answered_in_their_order(
    num_questions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [
        Record(id=str(n), question=f"What is {n}?", reasoning="", answer=str(n))
        for n in range(num_questions)
    ]
    asked: list[str] = []

    def answer(some: list[Record]) -> Answers:
        asked.extend(record.id for record in some)
        items = (Answer(r.id, r.answer, r.answer, True, r.answer, 1, 1) for r in some)
        return Answers(tuple(items), float(len(some)))

    shares: list[tuple[Answers, None]] = []

    def gather(self: Ranks, own: tuple[Answers, None]) -> list[tuple[Answers, None]]:
        if len(shares) == 3:
            return shares
        shares.append(own)
        return [own, own, own]

    monkeypatch.setattr(Ranks, "gather", gather)
    for rank in range(3):  # what each process gives
        with suppress(IndexError):  # the last share is shorter than the first
            share_questions(Ranks(rank, 3), records, answer)
    assert sorted(asked) == [record.id for record in records]
    found = share_questions(Ranks(0, 3), records, answer)
    assert [item.id for item in found.items] == [record.id for record in records]
    assert found.seconds == max(share.seconds for share, _ in shares)
