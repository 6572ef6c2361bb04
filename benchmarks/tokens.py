"""Time of token alignment over tokenization alone, and how much tokenizers agree.

    python benchmarks/tokens.py
    python benchmarks/tokens.py --report

Questions and answers of GSM8K, by the real tokenizers in the folder of development data, are
aligned by `TokenAligner.align`, tokenization included. Beside it stands what any use of two
tokenizers pays: the same texts through both, without offsets and then with them. All take turns,
and the best round of each counts. CPU seconds are those of all threads. Target: 10,000 texts of
GPT-2 and Llama-2 in 20 s on two cores.

With --report: for every ordered pair, over GSM8K's test set, the share of the student's token
ends that are ends of teacher tokens too, and how many teacher tokens a student token reads.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, BertTokenizer, GPT2Tokenizer

from kava.align import TokenAligner, token_offsets
from kava.align.tokens.overlap import align_many
from timing import positive

NAMES = ("gpt2", "qwen2", "llama2", "t5", "bert_uncased")

SHARED = Path(os.environ.get("KAVA_SHARED", Path(__file__).parents[2] / "shared"))


def load_tokenizer(folder: Path) -> Any:
    """A tokenizer of the development data; two of them are bare vocabularies."""
    if folder.name == "gpt2":
        return GPT2Tokenizer(vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe"))
    if folder.name == "bert_uncased":
        return BertTokenizer(vocab=str(folder / "vocab.txt"))
    return AutoTokenizer.from_pretrained(folder)


def load_texts(path: Path) -> list[str]:
    """Question and answer of every record of a file of GSM8K."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [f"{record['question']}\n{record['answer']}" for record in records]


def best_times(
    calls: dict[str, Callable[[], object]], rounds: int
) -> dict[str, tuple[float, float]]:
    """The shortest wall and CPU seconds of each call over rounds in which all take turns."""
    best = dict.fromkeys(calls, (float("inf"), float("inf")))
    for _ in range(rounds):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            best[name] = min(best[name][0], spent[0]), min(best[name][1], spent[1])
    return best


def measure(student: Any, teacher: Any, texts: list[str], rounds: int) -> None:
    """Print the times of aligning and of tokenization alone."""

    def with_offsets() -> None:
        token_offsets(student, texts)
        token_offsets(teacher, texts)

    calls: dict[str, Callable[[], object]] = {
        "tokenized by both": lambda: (student(texts), teacher(texts)),
        "with offsets": with_offsets,
        "aligned": lambda: TokenAligner(student, teacher).align(texts),
    }
    times = best_times(calls, rounds)
    alone, alone_cpu = times["tokenized by both"]
    print(f"{'':<20}{'wall s':>9}{'ratio':>8}{'CPU s':>9}{'ratio':>8}")
    for name, (wall, cpu) in times.items():
        print(f"{name:<20}{wall:>9.2f}{wall / alone:>8.2f}{cpu:>9.2f}{cpu / alone_cpu:>8.2f}")


def report(folder: Path, texts: list[str]) -> None:
    """Print both tables of agreement, students in rows and teachers in columns."""
    offsets = {name: token_offsets(load_tokenizer(folder / name), texts).offsets for name in NAMES}
    exact, read = [], []
    for student in NAMES:
        aligned = [align_many(offsets[student], offsets[teacher]) for teacher in NAMES]
        # of all tokens alike, so that long texts count as what they are
        counts = np.array([np.count_nonzero(np.diff(one)) for one in offsets[student]])
        shares = [np.average([one.exact for one in all_], weights=counts) for all_ in aligned]
        sizes = [np.concatenate([np.diff(one.indptr) for one in all_]).mean() for all_ in aligned]
        exact.append([f"{share:.1%}" for share in shares])
        read.append([f"{size:.2f}" for size in sizes])
    tokens = [f"{sum(map(len, offsets[name])) / len(texts):.0f}" for name in NAMES]
    print(f"{len(texts)} texts; tokens each: {', '.join(map(' '.join, zip(NAMES, tokens)))}")
    for title, rows in (("exact ends", exact), ("tokens read", read)):
        print(f"\n| {title} | {' | '.join(NAMES)} |\n|---|{'---|' * len(NAMES)}")
        for student, row in zip(NAMES, rows):
            print(f"| {student} | {' | '.join(row)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--student", choices=NAMES, default="gpt2")
    parser.add_argument("--teacher", choices=NAMES, default="llama2")
    parser.add_argument("--texts", type=positive, default=10_000, help="texts (default 10,000)")
    parser.add_argument(
        "--rounds",
        type=positive,
        default=3,
        help="repetitions; the best counts (default 3)",
    )
    parser.add_argument("--report", action="store_true", help="the tables of agreement instead")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the development data")
    options = parser.parse_args()
    if not options.shared.is_dir():
        print(f"the development data is not at {options.shared}; set KAVA_SHARED to its folder")
        return
    folder, data = options.shared / "tokenizers", options.shared / "data/gsm8k"
    if options.report:
        report(folder, load_texts(data / "test.jsonl"))
        return
    texts = list(islice(cycle(load_texts(data / "train.jsonl")), options.texts))
    student, teacher = (load_tokenizer(folder / one) for one in (options.student, options.teacher))
    print(
        f"{len(texts)} texts of {np.mean([len(text) for text in texts]):.0f} characters, "
        f"{options.student} and {options.teacher}, {os.cpu_count()} cores"
    )
    measure(student, teacher, texts, options.rounds)


if __name__ == "__main__":
    main()
