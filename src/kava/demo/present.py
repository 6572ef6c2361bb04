"""From finished runs to what is told of them: numbers, pictures, the page, and a few lines."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from kava.demo import hetero_verdicts, pictures, verdicts
from kava.demo.arms import Arm, Kind, Study
from kava.demo.logs import RunLog, read_log
from kava.demo.rank_picture import accuracy_by_rank
from kava.demo.report import budget_of, draw_pictures, render_report
from kava.demo.results import Expectation, Result, Summary, save_json, save_results, summarize
from kava.demo.strips import kept_tokens
from kava.demo.table import note_of, text_table
from kava.demo.worker import RunJob
from kava.files.write import write_whole
from kava.pictures.drawn import Draw


@dataclass(frozen=True)
class Finished:
    """A study whose runs are done.

    Args:
        study: the comparison.
        arms: those that were run.
        runs: their jobs.
        results: of the runs, in their order.
        summaries: of the arms.
        logs: of the runs, in their order.
        folder: of the study.
    """

    study: Study
    arms: Sequence[Arm]
    runs: Sequence[RunJob]
    results: Sequence[Result]
    summaries: Sequence[Summary]
    logs: Sequence[RunLog]
    folder: Path


@dataclass(frozen=True)
class Telling:
    """What a study amounts to.

    Args:
        verdict: in words.
        draws: its pictures, in their order.
        expectations: what it is to show, and whether it did.
        reference: what the arms are measured by.
    """

    verdict: str
    draws: dict[str, Draw]
    expectations: list[Expectation] = field(default_factory=list)
    reference: str | None = None


def present(
    study: Study,
    arms: Sequence[Arm],
    runs: Sequence[RunJob],
    results: Sequence[Result],
    folder: Path,
    *,
    steps: int,
    command: str,
) -> None:
    """Write results, pictures and the page; print the table, the verdict and where they are."""
    from kava.student.checkpoint import library_versions

    save_results(folder / "results.json", results)
    by_name = {arm.name: arm for arm in arms}
    logs = [read_log(by_name[run.arm], result, run.folder) for run, result in zip(runs, results)]
    summaries = summarize(arms, results)
    told = TELLERS[study.kind](Finished(study, arms, runs, results, summaries, logs, folder))
    page = render_report(
        study,
        summaries,
        draw_pictures(study, told.draws, folder),
        verdict=told.verdict,
        expectations=told.expectations,
        reference=told.reference,
        command=command,
        budget=budget_of(study, steps, results[0].num_items),
        versions=library_versions(),
    )
    write_whole(folder / "report.html", page)
    print(f"\n{text_table(study.kind, summaries)}\n{textwrap.fill(note_of(study.kind), 100)}\n")
    for paragraph in filter(None, (told.verdict, told.reference)):
        print(textwrap.fill(paragraph, 100))
    for expectation in told.expectations:
        print(expectation)
    print(
        f"\npage:     {folder / 'report.html'}\n"
        f"numbers:  {folder / 'results.json'}\n"
        f"pictures: {', '.join(str(folder / f'{name}.png') for name in told.draws)}\n"
        f"runs:     {folder / 'runs'} (students, metrics, logs)"
    )


def _main(done: Finished) -> Telling:
    return Telling(
        verdict=verdicts.main_verdict(done.summaries),
        expectations=verdicts.main_expectations(done.summaries),
        draws={
            "accuracy": partial(pictures.accuracy_by_arm, done.summaries),
            "curves": partial(pictures.accuracy_by_step, done.logs),
            "losses": partial(pictures.losses_by_step, done.logs),
            "passes": partial(pictures.accuracy_by_passes, done.summaries),
        },
    )


def _eviction(done: Finished) -> Telling:
    from kava.demo.kept import find_kept

    kept = find_kept(done.arms, {run.arm: run.config for run in done.runs})
    save_json(done.folder / "kept.json", asdict(kept))
    return Telling(
        verdict=verdicts.eviction_verdict(done.summaries),
        expectations=verdicts.eviction_expectations(done.summaries),
        reference=verdicts.reference_sentence(kept.teacher, done.summaries),
        draws={
            "accuracy": partial(pictures.accuracy_by_arm, done.summaries),
            "kept": partial(kept_tokens, done.arms, kept),
            "curves": partial(pictures.accuracy_by_step, done.logs),
            "losses": partial(pictures.kv_by_step, done.logs),
        },
    )


def _maps(done: Finished) -> Telling:
    from kava.demo.maps import draw_maps, run_to_draw

    draws = _curves(done)
    drawn = run_to_draw(done.runs)
    if drawn is not None:
        draws |= draw_maps(drawn)
    return Telling(
        verdict=hetero_verdicts.hetero_verdict(done.summaries),
        expectations=hetero_verdicts.hetero_expectations(done.summaries),
        draws=draws,
    )


def _rank(done: Finished) -> Telling:
    draws = _curves(done)
    if any(hetero_verdicts.rank_of(summary) for summary in done.summaries):
        draws = {"rank": partial(accuracy_by_rank, done.summaries), **draws}
    return Telling(verdict=hetero_verdicts.rank_verdict(done.summaries), draws=draws)


def _joint(done: Finished) -> Telling:
    return Telling(verdict=hetero_verdicts.joint_verdict(done.summaries), draws=_curves(done))


def _curves(done: Finished) -> dict[str, Draw]:
    """What every study of maps shows."""
    draws: dict[str, Draw] = {
        "accuracy": partial(pictures.accuracy_by_arm, done.summaries),
        "curves": partial(pictures.accuracy_by_step, done.logs),
    }
    if any(log.curve("eval_kv")[0] for log in done.logs):
        draws["losses"] = partial(pictures.kv_by_step, done.logs)
    return draws


TELLERS: Mapping[Kind, Callable[[Finished], Telling]] = {
    "main": _main,
    "eviction": _eviction,
    "maps": _maps,
    "rank": _rank,
    "joint": _joint,
}
"""Kind of study → what is told of it."""
