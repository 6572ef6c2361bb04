"""`kava evaluate`: score a trained student."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kava.commands.answering import StudentConfig, load
from kava.data_settings import RowFields, Source
from kava.dataset_names import check_dataset_name
from kava.files.outputs import check_output, check_output_folder
from kava.flags import Usage, again, flag, flags_of
from kava.flags.aliases import EVALUATING
from kava.models.quiet import quiet_libraries
from kava.ranks import Ranks, ranks_of_launcher

THE_RUNS = "the run's"


@dataclass(kw_only=True)
class EvaluateConfig(StudentConfig):
    """What `kava evaluate` is asked for.

    Raises:
        ValueError: a value outside its range, or flags that exclude each other.
    """

    dataset_name: str | None = again(
        Source,
        "dataset_name",
        None,
        unset="the data that the run evaluated on, or the held-out part of what it was trained on",
    )
    split: str | None = again(Source, "split", None, unset="the run's evaluation split, or test")
    subset_size: int | None = flag(
        None, "score this many records, taken at random", least=1, unset="all"
    )
    tasks: list[str] | None = flag(
        None,
        "score these tasks in place of one data set: gsm8k, gsm8k_aug, gsm_hard, svamp, "
        "multiarith, asdiv, math500, strategyqa, arc_easy, arc_challenge, arc (both); TASK:PATH "
        "reads a local file or folder",
        check=check_dataset_name,
    )
    task_data: str | None = flag(
        None, "folder of the tasks' local files, one folder each: gsm8k, svamp, strategyqa, arc, …"
    )
    question_field: str | None = again(RowFields, "question_field", None, unset=THE_RUNS)
    reasoning_field: str | None = again(RowFields, "reasoning_field", None, unset=THE_RUNS)
    answer_field: str | None = again(RowFields, "answer_field", None, unset=THE_RUNS)
    text_field: str | None = again(RowFields, "text_field", None, unset=THE_RUNS)
    reasoning_triggers: list[str] | None = again(
        RowFields, "reasoning_triggers", None, unset=THE_RUNS
    )
    answer_triggers: list[str] | None = again(RowFields, "answer_triggers", None, unset=THE_RUNS)
    max_length: int | None = flag(
        None,
        "most positions of prompt, latents and answer; left out, as many as the model's "
        "configuration names. A model with rotary positions can read on past them",
        least=1,
        unset="the model's",
        group="answers",
    )
    output: str | None = flag(
        None,
        "write every item to this jsonl file, and the figures to <output>.summary.json; with "
        "--tasks, a folder for a <task>.jsonl each",
        group="output",
    )
    json: bool = flag(False, "print the figures as JSON instead of a table")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tasks is None:
            if self.task_data is not None:
                raise ValueError(
                    f"--task_data {self.task_data} is read by --tasks alone: pass it too"
                )
            return
        for name in (*flags_of(RowFields), "dataset_name"):
            if getattr(self, name) is not None:
                raise ValueError(f"--tasks and --{name} exclude each other: a task knows its data")


USAGE = Usage(
    prog="kava evaluate",
    kind=EvaluateConfig,
    summary="Score a trained student.",
    example="kava evaluate outputs/run --dataset_name gsm8k --split test",
    known=EVALUATING,
    common=tuple(flags_of(EvaluateConfig).keys() - flags_of(RowFields).keys()),
)


def main(argv: list[str]) -> int:
    """Score a student: a table or JSON on stdout, every item in a file where asked for.

    Of several processes the first prints and writes.
    """
    with ranks_of_launcher() as ranks:
        return _main(argv, ranks)


def _main(argv: list[str], ranks: Ranks) -> int:
    config = USAGE.parse(argv)
    quiet_libraries()

    from kava.evaluate.results import summary_path, table, write_results
    from kava.evaluate.score import score
    from kava.files.locks import lock_file

    fields = {
        name: value for name in flags_of(RowFields) if (value := vars(config)[name]) is not None
    }
    if config.tasks is not None:
        return _evaluate_tasks(config, ranks)
    output = None if config.output is None else Path(config.output)
    if output is not None:
        check_output(output)
    ranks.take_device(config.device)
    with lock_file(output if ranks.first else None, "kava evaluate"):
        student = load(config)
        answers, summary = score(
            student,
            dataset_name=config.dataset_name,
            split=config.split,
            subset_size=config.subset_size,
            fields=fields,
            batch_size=config.batch_size,
            max_new_tokens=config.max_new_tokens,
            max_length=config.max_length,
            progress=True,
            ranks=ranks,
        )
        if output is not None and ranks.first:
            write_results(output, answers, summary)
    if config.json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
        return 0
    print(f"{'checkpoint':<16}{student.path}, {summary['student']}")
    print(f"{'data':<16}{summary['dataset_name']}, {summary['split']}")
    print(table(summary))
    if output is not None:
        print(f"{'written to':<16}{output}, {summary_path(output)}")
    return 0


def _evaluate_tasks(config: EvaluateConfig, ranks: Ranks) -> int:
    """Score a student on several tasks; what is finished is written before the next begins."""
    from kava.evaluate.results import write_results
    from kava.evaluate.score import score
    from kava.evaluate.tasks import check_results, resolve_tasks, run_tasks, tasks_table
    from kava.files.locks import lock_folder

    assert config.tasks is not None
    sources = resolve_tasks(config.tasks, config.task_data)
    folder = None if config.output is None else Path(config.output)
    if folder is not None:
        check_output_folder(folder)

    def one(label: str, source: str) -> dict[str, Any]:
        answers, summary = score(
            student,
            dataset_name=source,
            split=config.split,
            subset_size=config.subset_size,
            batch_size=config.batch_size,
            max_new_tokens=config.max_new_tokens,
            max_length=config.max_length,
            progress=True,
            ranks=ranks,
        )
        if folder is not None and ranks.first:
            write_results(folder / f"{label}.jsonl", answers, summary)
        return summary

    ranks.take_device(config.device)
    with lock_folder(folder if ranks.first else None, "kava evaluate"):
        student = load(config)
        results = run_tasks(sources, one)
    if config.json:
        found = {result.name: result.summary or {"error": result.error} for result in results}
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print(f"checkpoint  {student.path}, {student.settings.get('student', 'explicit')}\n")
        print(tasks_table(results))
        if folder is not None and any(result.summary for result in results):
            print(f"\nwritten to  {folder}, <task>.jsonl and <task>.jsonl.summary.json")
    check_results(results)
    return 0
