"""`kava rationales`: let teachers write their own chains of thought for a data set."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kava.commands.answering import AnsweringConfig, StudentConfig
from kava.data_settings import Source
from kava.files.locks import lock_file
from kava.files.outputs import check_output
from kava.files.write import write_whole
from kava.flags import Usage, again, check_once, flag, needed
from kava.flags.aliases import ANYWHERE
from kava.models.devices import check_device, choose_device
from kava.models.quiet import quiet_libraries
from kava.train.teacher_names import split_label


@dataclass(kw_only=True)
class RationalesConfig(AnsweringConfig):
    """What `kava rationales` is asked for.

    Raises:
        ValueError: a value outside its range, or two teachers of one label.
    """

    teachers: list[str] = needed(
        "models that write their reasoning: names, or LABEL=NAME where the label is what kava "
        "train --teachers calls it",
        metavar="TEACHER",
        group="teachers",
    )
    dataset_name: str = again(Source, "dataset_name", Source.dataset_name)
    split: str = again(Source, "split", "train")
    subset_size: int | None = flag(None, "only this many records, from the first on", least=1)
    batch_size: int = again(StudentConfig, "batch_size", 64)
    output: str = needed("the .jsonl file to write", group="output")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_once("the label", [split_label(name)[0] for name in self.teachers], "name each once")
        if not self.output.endswith(".jsonl"):
            raise ValueError(f"--output {self.output} must end with .jsonl: a row is an object")


USAGE = Usage(
    prog="kava rationales",
    kind=RationalesConfig,
    summary="Let teachers write their own chains of thought, for --teacher_reasoning.",
    example="kava rationales --teachers a=gpt2 b=gpt2-medium --dataset_name gsm8k "
    "--output rationales.jsonl",
    known=ANYWHERE,
)


def main(argv: list[str]) -> int:
    """Write a row for each record: what each teacher wrote, and whether its answer is right."""
    config = USAGE.parse(argv)
    quiet_libraries()
    check_output(config.output)
    check_device(config.device)
    with lock_file(config.output, "kava rationales"):
        return _write(config)


def _write(config: RationalesConfig) -> int:
    from kava.data.sources import load_records
    from kava.evaluate.rationales import write_rationales
    from kava.student.checkpoint import load_student

    records = load_records(config.dataset_name, split=config.split)[: config.subset_size]
    rows: list[dict[str, Any]] = [
        {"id": record.id, "question": record.question, "reasoning": {}, "right": {}}
        for record in records
    ]
    for name in config.teachers:
        label, model = split_label(name)
        teacher = load_student(
            model,
            device=choose_device(config.device),
            dtype=config.dtype,
            chat_template=config.chat_template,
        )
        found = write_rationales(
            teacher,
            records,
            dataset_name=config.dataset_name,
            batch_size=config.batch_size,
            max_new_tokens=config.max_new_tokens,
        )
        for row, (reasoning, right) in zip(rows, found):
            row["reasoning"][label] = reasoning
            row["right"][label] = right
        share = sum(right for _, right in found) / len(found)
        print(f"teacher {label}: {share:.1%} of {len(found):,} answers right", file=sys.stderr)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_whole(Path(config.output), "".join(lines))
    print(f"written to {config.output}: {len(rows):,} rows")
    return 0
