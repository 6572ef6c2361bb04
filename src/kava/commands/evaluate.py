"""`kava evaluate` and `kava generate`: score a trained student, and let it answer questions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kava.commands.evaluate_flags import (
    EVALUATE,
    GENERATE,
    RECORD_FIELDS,
    EvaluateConfig,
    GenerateConfig,
)
from kava.files.outputs import check_output, check_output_folder
from kava.models.devices import choose_device
from kava.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from kava.student.checkpoint import LoadedStudent


def evaluate_main(argv: list[str]) -> int:
    """Score a student: a table or JSON on stdout, every item in a file where asked for."""
    config = EVALUATE.parse(argv)
    quiet_libraries()

    from kava.evaluate.results import summary_path, table, write_results
    from kava.evaluate.score import score
    from kava.files.locks import lock_file

    fields = {name: value for name in RECORD_FIELDS if (value := vars(config)[name]) is not None}
    if config.tasks is not None:
        return _evaluate_tasks(config)
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


def _evaluate_tasks(config: EvaluateConfig) -> int:
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

    device = choose_device(config.device)
    return load_student(config.checkpoint, best=config.best, device=device, dtype=config.dtype)


def generate_main(argv: list[str]) -> int:
    """Answer questions: one answer per question on stdout."""
    config = GENERATE.parse(argv)
    quiet_libraries()

    from kava.data.answers import extract_answer
    from kava.evaluate.questions import read_questions
    from kava.student.answering import complete
    from kava.student.readout import check_readable, describe
    from kava.train.recorded import new_tokens_of

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
        max_new_tokens=new_tokens_of(student.settings, config.max_new_tokens),
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
