"""From finished runs to what is told of them: numbers, pictures, the page, and a few lines."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from kava.data.shell_game import CHANCE
from kava.demo import hetero_verdicts, pictures, verdicts
from kava.demo.arms import Demo, Kind
from kava.demo.costs import student_costs
from kava.demo.rank_picture import accuracy_by_rank
from kava.demo.report import Telling, budget_of, draw_pictures, render_report
from kava.demo.results import CONFIDENCE, Summary, results_of, summarize
from kava.demo.strips import kept_tokens
from kava.demo.table import note_of, text_table
from kava.files.write import write_whole
from kava.pictures.alignment import head_map_picture, layer_map_picture, time_map_picture
from kava.pictures.drawn import Draw
from kava.report.logs import ArmLogs, load_study
from kava.report.pictures import CURVES, accuracy_by_arm, curves_by_arm, with_curves
from kava.study.results import write_json
from kava.study.run import StudyRun

MAPS_DRAWN = ("rank_8", "per_head", "flat", "shared")
"""The arms whose maps are fitted; those of the first that was run are drawn."""


@dataclass(frozen=True)
class Finished:
    """A demo whose runs are done.

    Args:
        runs: all of them.
        arms: what they left, in the plan's order.
        summaries: of the arms.
        folder: of the demo.
    """

    runs: Sequence[StudyRun]
    arms: Sequence[ArmLogs]
    summaries: Sequence[Summary]
    folder: Path


def present(demo: Demo, runs: Sequence[StudyRun], folder: Path, *, command: str) -> None:
    """Write results, pictures and the page; print the table, the verdict and where they are."""
    from kava.student.checkpoint import library_versions

    logs = {arm.name: arm for arm in load_study(folder).arms}
    arms = [logs[name] for name in dict.fromkeys(run.arm.name for run in runs)]
    costs = student_costs(folder, runs, [run for arm in arms for run in arm.finished])
    results = results_of(arms, costs)
    write_json(folder / "results.json", [asdict(result) for result in results])
    summaries = summarize([arm.arm for arm in arms], results)
    told = TELLERS[demo.kind](Finished(runs, arms, summaries, folder))
    page = render_report(
        demo,
        summaries,
        draw_pictures(demo, told.draws, folder),
        told,
        command=command,
        budget=budget_of(runs[0].config, results[0].num_items),
        versions=library_versions(),
    )
    write_whole(folder / "report.html", page)
    print(f"\n{text_table(demo.kind, summaries)}\n{textwrap.fill(note_of(demo.kind), 100)}\n")
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
            **_accuracies(done),
            "losses": partial(pictures.losses_by_step, done.arms),
            "passes": partial(pictures.accuracy_by_passes, done.summaries),
        },
    )


def _eviction(done: Finished) -> Telling:
    from kava.demo.kept import find_kept

    configs = {run.arm.name: run.config for run in reversed(done.runs)}  # of the first seed
    kept = find_kept({arm.name: configs[arm.name] for arm in done.arms})
    write_json(done.folder / "kept.json", asdict(kept))
    accuracies = _accuracies(done)
    return Telling(
        verdict=verdicts.eviction_verdict(done.summaries),
        expectations=verdicts.eviction_expectations(done.summaries),
        reference=verdicts.reference_sentence(kept.teacher, done.summaries),
        draws={
            **{name: draw for name, draw in accuracies.items() if name != "curves"},
            "kept": partial(kept_tokens, kept),
            "curves": accuracies["curves"],
            **_kv_losses(done),
        },
    )


def _maps(done: Finished) -> Telling:
    return Telling(
        verdict=hetero_verdicts.hetero_verdict(done.summaries),
        expectations=hetero_verdicts.hetero_expectations(done.summaries),
        draws={**_accuracies(done), **_kv_losses(done), **_fitted_maps(done)},
    )


def _rank(done: Finished) -> Telling:
    draws = {**_accuracies(done), **_kv_losses(done)}
    if any(hetero_verdicts.rank_of(summary) for summary in done.summaries):
        draws = {"rank": partial(accuracy_by_rank, done.summaries), **draws}
    return Telling(verdict=hetero_verdicts.rank_verdict(done.summaries), draws=draws)


def _joint(done: Finished) -> Telling:
    verdict = hetero_verdicts.joint_verdict(done.summaries)
    return Telling(verdict=verdict, draws={**_accuracies(done), **_kv_losses(done)})


def _accuracies(done: Finished) -> dict[str, Draw]:
    """At the end, and while training."""
    intervals = {summary.arm.name: (summary.low, summary.high) for summary in done.summaries}
    curves, reading = CURVES["accuracy_curves"], CURVES["reading_curves"]
    read = with_curves(done.arms, reading)
    return {
        **({"reading": partial(curves_by_arm, read, reading, guess=CHANCE)} if read else {}),
        "accuracy": partial(
            accuracy_by_arm, done.arms, intervals, confidence=CONFIDENCE, guess=CHANCE
        ),
        "curves": partial(curves_by_arm, with_curves(done.arms, curves), curves, guess=CHANCE),
    }


def _kv_losses(done: Finished) -> dict[str, Draw]:
    """Of the arms that match a cache."""
    curves = CURVES["kv_curves"]
    arms = with_curves(done.arms, curves)
    return {"losses": partial(curves_by_arm, arms, curves)} if arms else {}


def _fitted_maps(done: Finished) -> dict[str, Draw]:
    """Which layers, heads and tokens the first fitted map reads."""
    by_name = {arm.name: arm for arm in done.arms}
    drawn = next((by_name[name] for name in MAPS_DRAWN if name in by_name), None)
    found = drawn.finished[0].alignment if drawn else None
    if not found:
        return {}
    draws: dict[str, Draw] = {"layers": partial(layer_map_picture, found["layers"])}
    if "heads" in found:
        draws["heads"] = partial(head_map_picture, found["heads"], ("student", "teacher"))
    if "time" in found:
        time = found["time"]
        tokens = (time["student"], time["teacher"], time["weights"])
        draws["time"] = lambda narrow: time_map_picture(*tokens, narrow=narrow)
    return draws


TELLERS: Mapping[Kind, Callable[[Finished], Telling]] = {
    "main": _main,
    "eviction": _eviction,
    "maps": _maps,
    "rank": _rank,
    "joint": _joint,
}
"""Kind of demo → what is told of it."""
