"""What a run of a study does: train a student, or take it as it is, and test it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kava.files import write_whole
from kava.jobs.worker import Memory, make_watch
from kava.study import folder as files
from kava.study.run import StudyRun, write_json

if TYPE_CHECKING:
    from kava.data.records import Record
    from kava.student.answering import Answers


def trained(run: StudyRun, connection: Connection, memory: Memory, resume: bool) -> dict[str, Any]:
    """Train a student, test it, and write everything but the log.

    Args:
        run: what to train.
        connection: hears of the progress.
        memory: may hold the encoded data.
        resume: go on from the newest checkpoint.

    Returns:
        The result.
    """
    from kava.student.answering import answer_records
    from kava.student.prompts import check_questions
    from kava.study.alignment import alignment_of
    from kava.train.recording import loss_smoothness, peak_memory_bytes

    built = memory.build(replace(run.config, resume=resume))
    trainer = built.trainer
    for notice in built.start.notices:
        print(f"warning: {notice}")
    if built.calibration is not None:
        write_whole(run.folder / files.CALIBRATION_FILE, built.calibration.to_json() + "\n")
    questions = test_records(run)
    tokenizer: Any = trainer.processing_class
    distiller = trainer.accelerator.unwrap_model(trainer.model)
    check_questions(
        distiller.student, tokenizer, questions, trainer.template, run.config.max_new_tokens
    )
    trainer.add_callback(make_watch(connection))
    trainer.train(resume_from_checkpoint=str(built.checkpoint) if built.checkpoint else None)
    memory_bytes = peak_memory_bytes(trainer.args.device)
    alignment = alignment_of(built)
    if alignment is not None:
        write_json(run.folder / files.ALIGNMENT_FILE, alignment)
    answers = answer_records(
        distiller.student,
        tokenizer,
        questions,
        trainer.template,
        batch_size=run.config.eval_batch_size,
        max_new_tokens=run.config.max_new_tokens,
    )
    write_items(run.folder / files.ITEMS_FILE, answers)
    record = trainer.recorded()
    lines = files.metric_lines(run.folder)
    return run.finish(
        {
            **_scores(answers),
            "budget": {
                "optimizer_steps": trainer.state.global_step,
                "samples": record.samples,
                "tokens": record.tokens,
                "data_order_hash": record.data_order_hash,
                "data_hash": built.data.hash,
                "test_hash": _hash(questions),
            },
            "parameters": num_parameters(distiller.student),
            "aligner_parameters": distiller.map_aligner.num_parameters,
            "train_seconds": round(record.seconds, 3),
            "peak_memory_bytes": memory_bytes,
            "device": str(trainer.args.device),
            "health": {
                "grad_norm_mean": record.grad_norm_mean,
                "grad_norm_max": record.grad_norm_max,
                "nonfinite_steps": record.nonfinite_steps,
                "loss_smoothness": loss_smoothness([x["loss"] for x in lines if "loss" in x]),
            },
            "last": _last(lines),
            "cost": _cost(answers),
        }
    )


def as_it_is(run: StudyRun) -> dict[str, Any]:
    """A model as it is: no budget, and one line of metrics before the first step."""
    from kava.data.sources import default_template
    from kava.devices import choose_device
    from kava.student.answering import answer_records
    from kava.train.build import records_of
    from kava.train.models import build_student, build_tokenizer
    from kava.train.recording import peak_memory_bytes, reset_peak_memory

    config = run.config
    device: Any = choose_device(config.device)
    tokenizer, student = build_tokenizer(config), build_student(config).to(device)
    reset_peak_memory(student.device)
    template = default_template(config.dataset_name, drop_last_step=not config.keep_last_step)
    name = config.eval_dataset_name
    assert name is not None
    curve = [
        record
        for record in records_of(config, name, config.eval_split)[: config.eval_size]
        if not record.missing
    ]
    answer = partial(
        answer_records,
        student,
        tokenizer,
        template=template,
        batch_size=config.eval_batch_size,
        max_new_tokens=config.max_new_tokens,
    )
    first = answer(records=curve)
    line = {"step": 0, "seconds": 0.0, "eval_accuracy": first.accuracy}
    write_whole(run.folder / files.METRICS_FILE, json.dumps(line) + "\n")
    questions = test_records(run)
    answers = answer(records=questions)
    write_items(run.folder / files.ITEMS_FILE, answers)
    return run.finish(
        {
            **_scores(answers),
            "budget": {
                "optimizer_steps": 0,
                "samples": 0,
                "tokens": 0,
                "data_order_hash": None,
                "data_hash": None,
                "test_hash": _hash(questions),
            },
            "parameters": num_parameters(student),
            "aligner_parameters": 0,
            "train_seconds": 0.0,
            "peak_memory_bytes": peak_memory_bytes(student.device),
            "device": str(student.device),
            "health": dict.fromkeys(
                ("grad_norm_mean", "grad_norm_max", "nonfinite_steps", "loss_smoothness")
            ),
            "last": _last([]),
            "cost": _cost(answers),
        }
    )


def test_records(run: StudyRun) -> list[Record]:
    """The questions of the test, which no curve has seen."""
    from kava.train.build import records_of

    config, data = run.config, run.plan.data
    records = records_of(config, data.test, data.test_split)
    found = [record for record in records[config.eval_size :] if not record.missing]
    if data.test_items is not None and len(found) < data.test_items:
        raise ValueError(
            f"data: test_items {data.test_items} is more than the {len(found)} records of "
            f"{data.test} behind the first {config.eval_size}, which draw the curves"
        )
    chosen = found[: data.test_items]
    if not chosen:
        raise ValueError(
            f"data: curve_items {config.eval_size} leaves nothing of {data.test} to test on"
        )
    return chosen


def num_parameters(model: Any) -> int:
    """Of the student, trained or not."""
    return sum(parameter.numel() for parameter in model.parameters())


def write_items(path: Path, answers: Answers) -> None:
    """One line per item, as `kava evaluate --output` writes them."""
    lines = (json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in answers.items)
    write_whole(path, "".join(lines))


def _scores(answers: Answers) -> dict[str, Any]:
    return {
        "accuracy": answers.accuracy,
        "num_items": answers.num_items,
        "num_correct": answers.num_correct,
    }


def _cost(answers: Answers) -> dict[str, Any]:
    return {
        "forward_passes": answers.forward_passes,
        "num_tokens": answers.num_tokens,
        "seconds_per_answer": answers.seconds_per_answer,
    }


def _last(lines: list[dict[str, Any]]) -> dict[str, float | None]:
    names = ("kv", "kv_wrong_sample", "cka_keys", "cka_values", "attention_entropy")
    evaluations = [line for line in lines if "eval_ce" in line]
    found = evaluations[-1] if evaluations else {}
    return {name: found.get(f"eval_{name}") for name in names}


def _hash(records: list[Record]) -> str:
    from kava.data.splits import data_hash

    return data_hash(records)
