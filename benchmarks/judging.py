"""How the judge of answers agrees with published labels, and with the gold answers themselves.

    python benchmarks/judging.py

The first table: for every task and split of the development data, how many gold answers are judged
right in the text that a student is trained to write, alone behind the cue (a latent student) and
behind the reasoning. The second: GSM8K's published solutions of four models, judged here and
labelled there (OpenAI's grade-school-math). All should agree; the command fails where one does not.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from kava.data import default_template, load_records
from kava.data.answers import judge
from kava.data.records import Record, Template

SHARED = Path(os.environ.get("KAVA_SHARED", Path(__file__).parents[2] / "shared"))
GOLDS = (
    ("gsm8k", "gsm8k", ("train", "test")),
    ("gsm8k_aug", "gsm8k_aug", ("valid", "test")),
    ("svamp", "svamp", ("test",)),
    ("strategyqa", "strategyqa", ("train", "test")),
    ("arc_easy", "arc", ("test",)),
    ("arc_challenge", "arc", ("test",)),
    ("kava/shell-game", "", ("train", "test")),
)
"""Task, its folder of the development data, and the splits that are there."""
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


class Count(NamedTuple):
    """How many of a set are judged right, and the ids of those that should be judged otherwise."""

    name: str
    right: int
    total: int
    disagreeing: list[str]


def is_right(record: Record, template: Template) -> bool:
    """Whether a gold answer is judged right in both texts that a student may learn to write."""
    text = replace(template, drop_last_step=False).render(record)
    return all(
        judge(
            text.text[start:],
            record.answer,
            template.cue,
            record.meta.get("choices", ()),
            record.meta.get("judge"),
        ).correct
        for start in (text.answer_start, text.reasoning_start)
    )


def count_golds(shared: Path) -> Iterator[Count]:
    """The gold answers of every task and split that are judged right as they are trained."""
    for name, folder, splits in GOLDS:
        source = f"{name}:{shared / 'data' / folder}" if folder else name
        template = default_template(name)
        for split in splits:
            records = load_records(source, split=split)
            wrong = [record.id for record in records if not is_right(record, template)]
            yield Count(f"{name} {split}", len(records) - len(wrong), len(records), wrong)


def count_labels(shared: Path) -> Iterator[Count]:
    """The published solutions that are judged right, and those whose label says otherwise."""
    path = shared / "data/gsm8k/example_model_solutions.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for model in MODELS:
        right, wrong = 0, []
        for index, row in enumerate(rows):
            gold = row["ground_truth"].rpartition("A: ")[2].strip()
            correct = judge(row[model]["solution"], gold, "A: ").correct
            right += correct
            if correct != row[model]["is_correct"]:
                wrong.append(f"{model}-{index}")
        yield Count(model, right, len(rows), wrong)


def table(head: str, counts: list[Count], last: str) -> str:
    """Counts as lines, and their sum."""
    right, total = sum(count.right for count in counts), sum(count.total for count in counts)
    wrong = [name for count in counts for name in count.disagreeing]
    rows = [
        f"{count.name:<22}{count.right:>7}{count.total:>7}{len(count.disagreeing):>{len(last) + 2}}"
        for count in [*counts, Count("together", right, total, wrong)]
    ]
    return "\n".join([f"{head:<22}{'right':>7}{'of':>7}  {last}", *rows])


def main() -> int:
    """Print both tables; 1 where a gold answer is not right, or a label is another one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of development data")
    shared = parser.parse_args().shared
    golds, labels = list(count_golds(shared)), list(count_labels(shared))
    print(table("gold answers", golds, "wrong"))
    print()
    print(table("published solutions", labels, "labelled otherwise"))
    return int(any(count.disagreeing for count in [*golds, *labels]))


if __name__ == "__main__":
    raise SystemExit(main())
