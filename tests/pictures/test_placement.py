"""Dots and names: none hides another, and the same numbers give the same picture."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kava.pictures.placement import DOT, Mark, direct_labels, spread, text_width, wrapped
from kava.pictures.theme import INK, drawing, new_figure

Places = st.lists(st.floats(0, 300, allow_nan=False), min_size=1, max_size=20)


@given(Places)
def test_dots_with_room_do_not_touch(places: list[float]) -> None:
    moved, size = spread(places, room=1e6)
    assert size == DOT
    for i, j in combinations(range(len(places)), 2):
        assert math.dist((places[i], moved[i]), (places[j], moved[j])) >= DOT - 1e-6


@given(Places, st.floats(4, 20))
def test_dots_without_room_stay_in_it(places: list[float], room: float) -> None:
    moved, size = spread(places, room=room)
    assert max(map(abs, moved)) <= room + 1e-9
    assert DOT / 2 <= size <= DOT
    assert (moved, size) == spread(places, room=room)


def test_equal_dots_stand_side_by_side_about_the_middle() -> None:
    moved, _ = spread([7.0] * 5, room=100)
    assert moved == [0.0, DOT, -DOT, 2 * DOT, -2 * DOT]
    assert spread([0.0, 100.0], room=10)[0] == [0.0, 0.0]
    assert spread([], room=10) == ([], DOT)


@given(st.text("ab_ -,", min_size=1, max_size=60), st.floats(20, 200))
def test_lines_fit_and_lose_nothing_but_blanks(text: str, room: float) -> None:
    lines = wrapped(text, room, 9).split("\n")
    assert all(text_width(line, 9) <= room + 1e-6 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_name_breaks_behind_its_parts() -> None:
    assert wrapped("structured_per_head", 70, 9) == "structured_\nper_head"


@pytest.mark.parametrize("count", [1, 5, 12])
def test_names_of_points_in_one_place_stand_in_one_column(count: int) -> None:
    with drawing():
        axes = new_figure(5, 3.5).add_subplot()
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        direct_labels(axes, [Mark(0.5, 0.9, f"arm{i}", INK) for i in range(count)])
    places = [text.xyann for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == [f"arm{i}" for i in range(count)]
    assert len({round(x, 6) for x, _ in places}) == 1
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)


def test_a_far_name_has_a_line_to_its_point() -> None:
    with drawing():
        axes = new_figure(2.2, 2.2).add_subplot()
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        marks = [Mark(0.5 + 0.04 * i, 0.5, "a_name_of_some_length", INK) for i in range(-3, 4, 2)]
        direct_labels(axes, marks)
    leaders = [line for line in axes.lines if line.get_label() == "_line to a name"]
    assert leaders
    assert axes.get_xlim() == (0, 1)
