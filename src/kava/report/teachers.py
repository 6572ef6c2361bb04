"""The section on several teachers: who was listened to, by kind of sample, layer and step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from kava.format import NOTHING, fixed, percent
from kava.pictures.drawn import Picture, draw_picture
from kava.pictures.routing import HeatMap, heat_maps_picture
from kava.report.kinds import last_of
from kava.report.logs import ArmLogs, StudyLogs
from kava.report.tables import Row, Table, arm_cell, make_table
from kava.train.teacher_names import split_label


def labels_of(settings: Mapping[str, Any]) -> list[str]:
    """The labels of an arm's teachers; empty with one teacher."""
    named: Sequence[str] = settings.get("teachers") or ()
    return [split_label(name)[0] for name in named] if len(named) > 1 else []


def heat_maps_of(arms: Sequence[ArmLogs], part: str) -> list[HeatMap]:
    """The map of each arm that logged shares by `part`, "group" or "layer"; means over seeds."""
    maps = []
    for arm in arms:
        labels = labels_of(arm.settings)
        if not labels:
            continue
        prefix = f"eval_route_{labels[0]}_{part}_"
        names = {
            key.removeprefix(prefix)
            for run in arm.finished
            for line in run.metrics
            for key in line
            if key.startswith(prefix)
        }
        rows = sorted(names, key=lambda name: (len(name), name))
        if rows:
            shares = [
                [last_of(f"eval_route_{label}_{part}_{row}", arm) or 0.0 for label in labels]
                for row in rows
            ]
            maps.append(HeatMap(arm.name, rows, labels, shares))
    return maps


def routing_pictures(study: StudyLogs) -> list[Picture]:
    """Teacher × kind of sample, and teacher × layer, for the arms that have them."""
    drawn = []
    for part, what, title in (
        ("group", "kind of sample", "Which teacher is listened to, by kind of sample"),
        ("layer", "layer of the student", "Which teacher is listened to, by layer"),
    ):
        maps = heat_maps_of(study.arms, part)
        if maps:
            caption = "Shares at the last evaluation, on held-out samples; means over seeds."
            draw = partial(heat_maps_picture, maps, what)
            drawn.append(draw_picture(f"routing_{part}", title, caption, draw))
    return drawn


def routing_table(study: StudyLogs) -> Table | None:
    """Shares, how often the named teacher has most of them, and what answers can be read from."""
    rows: list[Row] = []
    for arm in study.arms:
        labels = labels_of(arm.settings)
        if not labels or not arm.has(f"eval_route_{labels[0]}"):
            continue
        shares = [last_of(f"eval_route_{label}", arm) for label in labels]
        layers = [
            key
            for key in {k for run in arm.finished for line in run.metrics for k in line}
            if key.startswith("eval_teachers_cos_layer_")
        ]
        cosines = [last_of(key, arm) for key in sorted(layers)]
        rows.append(
            [
                arm_cell(arm, ""),
                ", ".join(f"{n} {percent(s)}" for n, s in zip(labels, shares) if s is not None),
                _share(last_of("eval_route_right", arm)),
                _fixed(last_of("eval_route_answer_ce", arm)),
                ", ".join(_fixed(last_of(f"eval_route_answer_ce_{n}", arm)) for n in labels),
                ", ".join(_fixed(cosine) for cosine in cosines) or NOTHING,
            ]
        )
    note = (
        "At the last evaluation, on held-out samples; means over seeds. Named: samples whose "
        "largest share is that of the teacher which the data name. Answer: cross-entropy of the "
        "answer, in nats, that the student reads from the fused target, and from each teacher's "
        "alone. Cosine: between the directions in which the teachers pull the student's cache, by "
        "layer; below 0 they pull it apart."
    )
    head = ("arm", "shares", "named", "answer", "from each", "cosine by layer")
    return make_table("routing", "Which teacher is listened to", head, rows, note) if rows else None


def _share(value: float | None) -> str:
    return NOTHING if value is None else percent(value)


def _fixed(value: float | None) -> str:
    return NOTHING if value is None else fixed(value)
