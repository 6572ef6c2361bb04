"""`kava costs`: written reasoning, none, and latents on one set of items, and what each costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kava import names
from kava.commands.answering import AnsweringConfig
from kava.data_settings import Source
from kava.files.outputs import check_output_folder
from kava.flags import Usage, again, check_once, flag, needed
from kava.flags.aliases import ANYWHERE
from kava.models.devices import choose_device
from kava.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from kava.evaluate.costs import Contender, Cost
    from kava.evaluate.data import Evaluation
    from kava.student.checkpoint import LoadedStudent

NAME = "costs"


@dataclass(kw_only=True)
class CostsConfig(AnsweringConfig):
    """What `kava costs` is asked for.

    Raises:
        ValueError: a value outside its range, or one that stands twice.
    """

    models: list[str] = needed("checkpoints or models", positional=True, metavar="MODEL")
    labels: list[str] | None = flag(None, "what to call them", unset="their names", group="models")
    dataset_name: str | None = again(
        Source,
        "dataset_name",
        None,
        unset="the evaluation data of the first model that kava trained",
    )
    split: str | None = again(Source, "split", None, unset="that run's, or test")
    subset_size: int | None = flag(
        None, "answer this many items, taken at random", least=1, unset="all"
    )
    batch_size: list[int] = flag(
        [1],
        "questions at a time, one or more numbers",
        least=1,
        most=names.MOST_BATCH,
        group="running",
    )
    rounds: int = flag(5, "turns that the models take", least=1, most=10_000)
    output: str | None = flag(
        None, "a folder for costs.json, costs.png and costs.svg", group="output"
    )
    json: bool = flag(False, "print JSON instead of the table")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None and len(self.labels) != len(self.models):
            raise ValueError(
                f"--labels names {len(self.labels)} models, and there are {len(self.models)}: "
                f"give one each"
            )
        check_once("the label", self.model_labels, "name each model by --labels")
        check_once("--batch_size", self.batch_size, "name each once")

    @property
    def model_labels(self) -> list[str]:
        """What the models are called."""
        return self.labels or [model.rstrip("/") for model in self.models]


USAGE = Usage(
    prog="kava costs",
    kind=CostsConfig,
    summary="Compare what answers cost. Every model answers the same items, in turns.\n"
    "A model is a checkpoint, a run's output folder (its newest complete checkpoint), or a plain "
    "model, which writes its reasoning: a folder, a built-in kava/ name or a hub id. Costs are "
    "divided by those of the first model that writes its reasoning.",
    example="kava costs outputs/written outputs/latent --batch_size 1 32 --output outputs/costs",
    known=ANYWHERE,
)


def main(argv: list[str]) -> int:
    """Measure, print the table or JSON, and write JSON and pictures where asked for."""
    options = USAGE.parse(argv)
    quiet_libraries()
    output = None if options.output is None else Path(options.output)
    labels = options.model_labels

    from kava.evaluate.costs_table import costs_table
    from kava.files.locks import lock_folder

    if output is not None:
        check_output_folder(output)
    with lock_folder(output, "kava costs"):
        costs, data, report = _measure(labels, options)
        if output is not None:
            _write(output, costs, report)
    if options.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return 0
    print(f"{len(data.records)} items of {data.dataset_name}, {data.split}\n")
    print(costs_table(costs))
    if output is not None:
        print(f"\nwritten to {output}: {NAME}.json, {NAME}.png, {NAME}.svg")
    return 0


def _measure(
    labels: Sequence[str], options: CostsConfig
) -> tuple[Sequence[Cost], Evaluation, dict[str, Any]]:
    """The costs, the items that they were measured on, and all figures for a file."""
    from kava.evaluate.costs import check_costs, measure_costs
    from kava.student.checkpoint import load_student

    device = choose_device(options.device)
    students = [
        load_student(m, device=device, dtype=options.dtype, chat_template=options.chat_template)
        for m in options.models
    ]
    data = _data(students, options)
    check_costs(labels, len(data.records), options.batch_size, options.rounds)
    contenders = _contenders(labels, students, data, options.max_new_tokens)

    from tqdm.auto import tqdm

    total = len(contenders) * len(data.records) * len(options.batch_size)
    with tqdm(total=total, desc="answering", unit="answer") as bar:
        costs = measure_costs(
            contenders,
            data.records,
            batch_sizes=options.batch_size,
            num_rounds=options.rounds,
            advance=bar.update,
        )
    return costs, data, _report(costs, data, device)


def _data(students: Sequence[LoadedStudent], options: CostsConfig) -> Evaluation:
    """The one set of items; warns of every model that was trained on them."""
    from kava.evaluate.data import evaluation_records

    first = next((s for s in students if s.settings), students[0])
    data = evaluation_records(
        first.settings,
        dataset_name=options.dataset_name,
        split=options.split,
        subset_size=options.subset_size,
    )
    for student in students:
        warning = (
            data.warning
            if student is first
            else "it was trained on these very records"
            if data.data_hash == student.settings.get("data_hash")
            else None
        )
        if warning is not None:
            print(f"kava: warning: {student.path}: {warning}", file=sys.stderr)
    return data


def _contenders(
    labels: Sequence[str],
    students: Sequence[LoadedStudent],
    data: Evaluation,
    max_new_tokens: int | None,
) -> list[Contender]:
    from kava.data.sources import default_template
    from kava.evaluate.costs import Contender
    from kava.train.recorded import new_tokens_of

    return [
        Contender(
            label,
            student,
            student.asked_by(default_template(data.dataset_name)),
            new_tokens_of(student.settings, max_new_tokens),
        )
        for label, student in zip(labels, students)
    ]


def _report(costs: Sequence[Cost], data: Evaluation, device: str) -> dict[str, Any]:
    import torch

    from kava.student.checkpoint import library_versions

    return {
        "dataset_name": data.dataset_name,
        "split": data.split,
        "data_hash": data.data_hash,
        "num_items": len(data.records),
        "device": device,
        "threads": torch.get_num_threads(),
        "written": next((cost.label for cost in costs if cost.writes), None),
        "costs": [cost.as_dict() for cost in costs],
        "versions": library_versions(),
    }


def _write(folder: Path, costs: Sequence[Cost], report: dict[str, Any]) -> None:
    """The pictures and the figures: all of them, or none."""
    from kava.files.write import write_all
    from kava.pictures.costs import costs_picture
    from kava.pictures.theme import drawing, to_png, to_svg_file

    folder.mkdir(parents=True, exist_ok=True)
    with drawing():
        figure = costs_picture(costs)
        png, svg = to_png(figure), to_svg_file(figure, NAME)
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    write_all(
        {folder / f"{NAME}.png": png, folder / f"{NAME}.svg": svg, folder / f"{NAME}.json": text}
    )
