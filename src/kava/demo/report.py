"""The demo's page: one HTML file that needs nothing else, and reads on paper and on a phone."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kava.demo.arms import Demo
from kava.demo.results import Expectation, Summary
from kava.demo.story import story_of
from kava.demo.table import arms_table, runs_table
from kava.files.write import write_all
from kava.pictures.drawn import Draw, Picture, draw_picture
from kava.report.page import html_environment

if TYPE_CHECKING:
    from kava.data.records import Record

TEMPLATE = "demo.html.j2"


@dataclass(frozen=True)
class Telling:
    """What a demo amounts to.

    Args:
        verdict: in words.
        draws: its pictures, in their order.
        expectations: what it is to show, and whether it did.
        reference: what the arms are measured by.
    """

    verdict: str
    draws: Mapping[str, Draw] = field(default_factory=dict)
    expectations: Sequence[Expectation] = ()
    reference: str | None = None


def draw_pictures(demo: Demo, draws: Mapping[str, Draw], folder: Path) -> list[Picture]:
    """Draw every picture: its wide form as `<name>.png` in the folder, both for the page."""
    captions = story_of(demo).captions
    pictures = [draw_picture(name, *captions[name], draw) for name, draw in draws.items()]
    write_all({folder / f"{picture.name}.png": picture.png for picture in pictures})
    return pictures


def example_of(demo: Demo) -> dict[str, str]:
    """A problem of the demo's task, as the teacher and the student meet it."""
    from kava.data.sources import default_template, load_records

    name = demo.dataset_name(1, 1)
    record: Record = load_records(name, split="test")[0]
    return {
        "question": record.question,
        "student_question": record.student_question or record.question,
        "reasoning": default_template(name).written_reasoning(record),
        "latents": " ".join("●" * demo.num_latents),
        "answer": record.answer,
    }


def budget_of(config: Any, num_items: int) -> str:
    """What every run gets, in words."""
    return (
        f"{config.max_steps:,} steps of {config.batch_size} problems, AdamW at {config.lr:g} with "
        f"a {config.lr_scheduler.split('_')[0]} schedule and {config.warmup_steps} steps of "
        f"warm-up; {num_items:,} final questions"
    )


def render_report(
    demo: Demo,
    summaries: Sequence[Summary],
    pictures: Sequence[Picture],
    told: Telling,
    *,
    command: str,
    budget: str,
    versions: Mapping[str, str],
) -> str:
    """The page as text.

    Args:
        demo: the comparison.
        summaries: its arms.
        pictures: in their order.
        told: what the numbers say.
        command: what makes this page again.
        budget: what every run gets.
        versions: library → version.
    """
    return (
        html_environment(Path(__file__).parent)
        .get_template(TEMPLATE)
        .render(
            question=demo.question,
            story=story_of(demo),
            example=example_of(demo),
            told=told,
            arms=arms_table(demo.kind, summaries),
            runs=runs_table(demo.kind, summaries),
            pictures=pictures,
            command=command,
            budget=budget,
            versions={**versions, "machine": f"{platform.system()} {platform.machine()}"},
        )
    )
