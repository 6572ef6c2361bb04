"""`kava evaluate` and `kava generate`: score a trained student, and let it answer questions."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kava.devices import DEVICE_HELP, DTYPE_HELP, check_dtype_name, choose_device
from kava.quiet import quiet_libraries

if TYPE_CHECKING:
    from kava.student.checkpoint import LoadedStudent

T = TypeVar("T")


def _flag(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


_CHECKPOINT = (
    "a checkpoint, a run's output folder (its newest complete checkpoint), or a plain model: a "
    "folder, a built-in kava/ name or a hub id"
)
_FIELDS = (
    "question_field", "reasoning_field", "answer_field", "text_field", "reasoning_triggers",
    "answer_triggers",
)  # fmt: skip
_NEW_TOKENS = (
    "most tokens to generate per answer; left out, what the run evaluated with, else 32 for a "
    "latent student and 256 for one that writes its reasoning"
)


@dataclass(kw_only=True)
class EvaluateConfig:
    """What `kava evaluate` is asked for."""

    checkpoint: str = field(metadata={"help": _CHECKPOINT})
    best: bool = _flag(False, "of an output folder, the checkpoint that the run found best")
    dataset_name: str | None = _flag(
        None,
        "kava/shell-game, a task (gsm8k, svamp:PATH, …), or the path of a .jsonl, .json, .csv or "
        ".parquet file; left out, "
        "the data that the run evaluated on, or the held-out part of what it was trained on",
    )
    split: str | None = _flag(None, "train or test; left out, the run's evaluation split or test")
    subset_size: int | None = _flag(None, "score this many records, taken at random")
    tasks: list[str] | None = _flag(  # noqa: RUF009
        None,
        "score these tasks in place of one data set: gsm8k, gsm8k_aug, svamp, strategyqa, "
        "arc_easy, arc_challenge, arc (both); TASK:PATH reads a local file or folder",
    )
    task_data: str | None = _flag(
        None, "folder of the tasks' local files, one folder each: gsm8k, svamp, strategyqa, arc, …"
    )
    question_field: str | None = _flag(None, "field of a row; left out, the run's")
    reasoning_field: str | None = _flag(None, "likewise")
    answer_field: str | None = _flag(None, "likewise")
    text_field: str | None = _flag(None, "likewise, of a raw text")
    reasoning_triggers: list[str] | None = _flag(  # noqa: RUF009
        None, "markers of the reasoning in a raw text; left out, the run's"
    )
    answer_triggers: list[str] | None = _flag(None, "likewise, its answer")  # noqa: RUF009
    batch_size: int = _flag(64, "questions at a time")
    max_new_tokens: int | None = _flag(None, _NEW_TOKENS)
    max_length: int | None = _flag(
        None,
        "most positions of prompt, latents and answer; left out, as many as the model's "
        "configuration names. A model with rotary positions can read on past them",
    )
    output: str | None = _flag(
        None,
        "write every item to this jsonl file, and the figures to <output>.summary.json; with "
        "--tasks, a folder for a <task>.jsonl each",
    )
    dtype: str = _flag("auto", DTYPE_HELP)
    device: str = _flag("auto", DEVICE_HELP)
    json: bool = _flag(False, "print the figures as JSON instead of a table")


@dataclass(kw_only=True)
class GenerateConfig:
    """What `kava generate` is asked for."""

    checkpoint: str = field(metadata={"help": _CHECKPOINT})
    best: bool = _flag(False, "of an output folder, the checkpoint that the run found best")
    prompt: str | None = _flag(None, "the question")
    input: str | None = _flag(
        None,
        "a file of questions: one per line, or the field `question` of a .jsonl, .json, .csv or "
        ".parquet file; without --prompt and --input, they are read from stdin, one per line",
    )
    batch_size: int = _flag(64, "questions at a time")
    max_new_tokens: int | None = _flag(None, _NEW_TOKENS)
    written: bool = _flag(
        False, "show the written reasoning before the answer (not for a latent student)"
    )
    show_latents: bool = _flag(
        False,
        "also print what each latent reads as through the output head, under its answer (not for "
        "a student that writes its reasoning)",
    )
    top_k: int | None = _flag(
        None, "with --show_latents, tokens to print for each latent; left out: 3"
    )
    stats: bool = _flag(False, "also tell forward passes, tokens and time, on stderr")
    dtype: str = _flag("auto", DTYPE_HELP)
    device: str = _flag("auto", DEVICE_HELP)


def evaluate_main(argv: list[str]) -> int:
    """Score a student: a table or JSON on stdout, every item in a file where asked for."""
    quiet_libraries()
    config = _parse(EvaluateConfig, argv, "evaluate", "Score a trained student.")

    from kava.evaluate.results import check_output, summary_path, table, write_results
    from kava.evaluate.score import score
    from kava.locks import lock_file

    fields = {name: value for name in _FIELDS if (value := vars(config)[name]) is not None}
    if config.tasks is not None:
        return _evaluate_tasks(config, fields)
    if config.task_data is not None:
        raise ValueError(f"--task_data {config.task_data} is read by --tasks alone: pass it too")
    output = None if config.output is None else Path(config.output)
    if output is not None:
        check_output(output)
    with lock_file(output, "kava evaluate"):
        student = _load(config)
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
        )
        if output is not None:
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


def _evaluate_tasks(config: EvaluateConfig, fields: dict[str, Any]) -> int:
    """Score a student on several tasks; what is finished is written before the next begins."""
    from kava.evaluate.results import check_output_folder, write_results
    from kava.evaluate.score import score
    from kava.evaluate.tasks import check_results, resolve_tasks, run_tasks, tasks_table
    from kava.locks import lock_folder

    given = [f"--{name}" for name in fields]
    given += ["--dataset_name"] if config.dataset_name is not None else []
    if given:
        raise ValueError(f"--tasks and {given[0]} exclude each other: a task knows its own data")
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
        )
        if folder is not None:
            write_results(folder / f"{label}.jsonl", answers, summary)
        return summary

    with lock_folder(folder, "kava evaluate"):
        student = _load(config)
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


def _load(config: EvaluateConfig | GenerateConfig) -> LoadedStudent:
    """The student that is asked for, on its device."""
    from kava.student.checkpoint import load_student

    check_dtype_name(config.dtype)
    device = choose_device(config.device)
    return load_student(config.checkpoint, best=config.best, device=device, dtype=config.dtype)


def generate_main(argv: list[str]) -> int:
    """Answer questions: one answer per question on stdout."""
    quiet_libraries()
    config = _parse(GenerateConfig, argv, "generate", "Let a trained student answer questions.")

    from kava.data.answers import extract_answer
    from kava.evaluate.questions import read_questions
    from kava.student.answering import complete
    from kava.student.readout import check_readable, describe

    if config.prompt is not None and config.input is not None:
        raise ValueError("--prompt and --input exclude each other")
    if config.top_k is not None and not config.show_latents:
        raise ValueError(f"--top_k {config.top_k} is read by --show_latents alone: pass it too")
    top_k = (3 if config.top_k is None else config.top_k) if config.show_latents else 0
    student = _load(config)
    if config.written and student.settings.get("student") == "latent":
        raise ValueError(
            f"--written: {student.path} reasons in latent tokens and writes no reasoning; leave "
            f"it out, or take an explicit student"
        )
    if config.show_latents:
        check_readable(student.model, student.path, top_k)
    names, questions = read_questions(config.prompt, config.input)
    completions, seconds = complete(
        student.model,
        student.tokenizer,
        questions,
        student.template,
        names=names,
        batch_size=config.batch_size,
        max_new_tokens=student.settings.get("config", {}).get("max_new_tokens")
        if config.max_new_tokens is None
        else config.max_new_tokens,
        progress=len(questions) > config.batch_size,
        top_k=top_k,
    )
    for completion in completions:
        text = completion.text.strip()
        print(text if config.written else extract_answer(text, student.template.cue))
        if config.show_latents:
            print(describe(completion.readings))
    if config.stats:
        count = len(completions)
        passes = sum(completion.num_passes for completion in completions) / count
        tokens = sum(completion.num_tokens for completion in completions) / count
        print(
            f"{passes:.1f} forward passes, {tokens:.1f} tokens and {seconds / count:.4g} s per "
            f"answer ({count} in {seconds:.4g} s, {tokens * count / seconds:.4g} tokens per "
            f"second)",
            file=sys.stderr,
        )
    return 0


def _parse(config: Callable[..., T], argv: list[str], name: str, description: str) -> T:
    """Flags as a configuration; an unknown or malformed one leaves by `SystemExit(2)`.

    The checkpoint may stand first without its flag: `kava evaluate outputs/run --json`.
    """
    if argv and not argv[0].startswith("-"):
        argv = ["--checkpoint", *argv]
    from transformers import HfArgumentParser

    parser = HfArgumentParser(
        config,  # type: ignore[arg-type]
        prog=f"kava {name}",
        description=description,
        allow_abbrev=False,
    )
    return config(**vars(parser.parse_args(argv)))
