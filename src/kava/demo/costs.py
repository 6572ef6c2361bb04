"""What an answer of each student costs, one question at a time on one thread, all in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kava.inputs import Malformed, read_json
from kava.report.logs import RunLogs
from kava.study.questions import test_records
from kava.study.results import write_json
from kava.study.run import StudyRun

COSTS_FILE = "costs.json"
NUM_TIMED = 50


def student_costs(
    folder: Path, runs: Sequence[StudyRun], logs: Sequence[RunLogs]
) -> Mapping[str, Mapping[str, Any]]:
    """The costs of finished runs, by name: measured once, and then read.

    Args:
        folder: of the demo.
        runs: all of it.
        logs: of the same runs, whose hashes say whether their students are those measured.
    """
    path = folder / COSTS_FILE
    hashes = {log.name: log.result_hash for log in logs}
    if path.is_file():
        with suppress(Malformed):  # a damaged file is measured again
            saved = read_json(path)
            if isinstance(saved, dict) and saved.get("runs") == hashes and "costs" in saved:
                costs: Mapping[str, Mapping[str, Any]] = saved["costs"]
                return costs
    costs = _measure(runs)
    write_json(path, {"runs": hashes, "costs": costs})
    return costs


def _measure(runs: Sequence[StudyRun]) -> dict[str, dict[str, Any]]:
    import torch
    from tqdm.auto import tqdm

    from kava.evaluate.costs import Contender, measure_costs
    from kava.models.devices import choose_device
    from kava.student.checkpoint import load_student

    contenders = []
    for run in runs:
        student = load_student(run.folder, device=choose_device(run.config.device))
        label = f"{run.arm.name}/seed-{run.seed}"
        contenders.append(Contender(label, student, student.template, run.config.max_new_tokens))
    questions = test_records(runs[0].config, runs[0].plan.data, ())[:NUM_TIMED]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tqdm(
            total=len(questions) * len(contenders),
            desc="timing",
            unit="answer",
            leave=False,
            disable=None,
        ) as bar:
            costs = measure_costs(contenders, questions, advance=bar.update)
    finally:
        torch.set_num_threads(threads)
    return {cost.label: cost.as_dict() for cost in costs}
