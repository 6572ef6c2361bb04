"""The demo's page: one HTML file that needs nothing else, and reads on paper and on a phone."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kava.demo.arms import Study, train_config
from kava.demo.results import Expectation, Summary
from kava.demo.story import story_of
from kava.demo.table import COLUMNS, note_of
from kava.files.write import write_all
from kava.format import percent
from kava.pictures.drawn import Draw, Picture, draw_picture
from kava.report.page import TEMPLATES

if TYPE_CHECKING:
    from kava.data.records import Record

TEMPLATE = "report.html.j2"


def draw_pictures(study: Study, draws: Mapping[str, Draw], folder: Path) -> list[Picture]:
    """Draw every picture: its wide form as `<name>.png` in the folder, both for the page."""
    captions = story_of(study).captions
    pictures = [draw_picture(name, *captions[name], draw) for name, draw in draws.items()]
    write_all({folder / f"{picture.name}.png": picture.png for picture in pictures})
    return pictures


def example_of(study: Study) -> dict[str, str]:
    """A problem of the study's task, as the teacher and the student meet it."""
    from kava.data.sources import default_template, load_records

    name = study.dataset_name(1, 1)
    record: Record = load_records(name, split="test")[0]
    return {
        "question": record.question,
        "student_question": record.student_question or record.question,
        "reasoning": default_template(name).written_reasoning(record),
        "latents": " ".join("●" * study.num_latents),
        "answer": record.answer,
    }


def budget_of(study: Study, num_steps: int, num_items: int) -> str:
    """What every run gets, in words."""
    config = train_config(study, study.arms[0], 0, num_steps=num_steps, num_items=num_items)
    return (
        f"{num_steps:,} steps of {config.batch_size} problems, AdamW at {config.lr:g} with a "
        f"{config.lr_scheduler.split('_')[0]} schedule and {config.warmup_steps} steps of warm-up; "
        f"{num_items:,} final questions"
    )


def render_report(
    study: Study,
    summaries: Sequence[Summary],
    pictures: Sequence[Picture],
    *,
    verdict: str,
    expectations: Sequence[Expectation] = (),
    reference: str | None = None,
    command: str,
    budget: str,
    versions: Mapping[str, str],
) -> str:
    """The page as text.

    Args:
        study: the comparison.
        summaries: its arms.
        pictures: in their order.
        verdict: what the numbers say.
        expectations: what was expected, and whether it was seen.
        reference: a sentence on what the arms are measured by, beside the verdict.
        command: what makes this page again.
        budget: what every run gets.
        versions: library → version.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["unbroken"] = lambda text: str(text).replace(" %", "\u00a0%")
    return environment.get_template(TEMPLATE).render(
        story=story_of(study),
        example=example_of(study),
        verdict=verdict,
        reference=reference,
        expectations=expectations,
        summaries=summaries,
        columns=COLUMNS[study.kind],
        note=note_of(study.kind),
        pictures=pictures,
        command=command,
        budget=budget,
        versions=versions,
        machine=f"{platform.system()} {platform.machine()}",
    )
