"""The section on several teachers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kava.pictures.routing import heat_maps_picture
from kava.pictures.theme import to_svg
from kava.report import load_study, write_report
from kava.report.logs import StudyLogs
from kava.report.teachers import heat_maps_of, labels_of, routing_table
from report.made_up import write_study

SHARES = {"additive": (0.9, 0.1), "multiplicative": (0.2, 0.8)}


def with_routing(folder: Path) -> StudyLogs:
    """A study whose arm `per_head` has two teachers."""
    write_study(folder, {"flat": 0.5, "per_head": 0.7, "wrong": 0.5}, seeds=range(3))
    lock = json.loads((folder / "plan.lock.json").read_text())
    assert lock["plan"]["arms"]["per_head"]
    return load_study(folder)


def test_labels_are_those_of_several_teachers() -> None:
    assert labels_of({"teachers": ["a=x", "org/b"]}) == ["a", "b"]
    assert labels_of({"teachers": ["a=x"]}) == []
    assert labels_of({}) == []


def test_a_study_of_one_teacher_has_no_such_section(tmp_path: Path) -> None:
    study = with_routing(tmp_path)
    assert heat_maps_of(study.arms, "group") == []
    assert routing_table(study) is None
    assert "Which teacher is listened to" not in write_report(tmp_path).read_text("utf-8")


@pytest.mark.parametrize("narrow", [False, True])
def test_shares_are_drawn_by_kind_of_sample(tmp_path: Path, narrow: bool) -> None:
    from dataclasses import replace

    study = with_routing(tmp_path)
    arm = study.arms[1]
    row = {"step": 200, "eval_route_a": 0.55, "eval_route_b": 0.45, "eval_route_right": 0.93}
    for group, shares in SHARES.items():
        row |= {f"eval_route_{n}_group_{group}": s for n, s in zip("ab", shares)}
    runs = tuple(replace(run, metrics=(*run.metrics, row)) for run in arm.runs)
    arm = replace(arm, runs=runs, settings={**arm.settings, "teachers": ["a=x", "b=y"]})
    (found,) = heat_maps_of([arm], "group")
    assert list(found.rows) == list(SHARES)
    assert [list(row) for row in found.shares] == [pytest.approx(s) for s in SHARES.values()]
    picture = to_svg(heat_maps_picture([found, found], "kind of sample", narrow), "routing")
    assert picture.count("<svg") == 1
    table = routing_table(replace(study, arms=(study.arms[0], arm)))
    assert table is not None
    assert "a 55.0 %, b 45.0 %" in str(table)
    assert "93.0 %" in str(table)
