"""Every kind of picture on the drawn canvas: what `docs/report.md` asks of pictures holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import combinations
from math import dist

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from kava.demo.story import JOINT_STORY, MAIN_STORY, MAPS_STORY, RANK_STORY, eviction_story
from kava.pictures.theme import FAINT, INK, MUTED, drawing, settle, to_svg
from kava.report.sections import CAPTIONS
from picture_kinds import KINDS, Case, drawers

CASES = (
    Case(1, "zero", seeds=1),
    Case(2, "equal", long=True, narrow=True),
    Case(12, "mixed", long=True),
    Case(12, "right", narrow=True),
)
GUIDES = {"_row", "_end of a step", "_line to a name", "_under cells"}
"""What is drawn from no number, and so needs no name."""

COLOR_BAR = "<colorbar>"


def drawn(kind: str, case: Case) -> Figure:
    with drawing():
        figure = KINDS[kind](case)
        settle(figure)
    FigureCanvasAgg(figure).draw()
    return figure


def shown(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_visible()]


def texts_of(figure: Figure) -> Iterator[tuple[str, Bbox]]:
    """Everything that can be read, with the box that it takes."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    hidden: set[Artist] = set()
    for axes in figure.axes:
        parts = [axes] if not axes.get_visible() else []
        parts += [axes.xaxis, axes.yaxis] if not axes.axison else []
        hidden.update(one for part in parts for one in part.findobj(Text))
    for text in figure.findobj(Text):
        words = text.get_text().strip()
        if words and text.get_visible() and text not in hidden:
            yield words, Text.get_window_extent(text, renderer)


def names_in(figure: Figure) -> str:
    """All words, with no blanks, since names are broken into lines."""
    return "".join(re.sub(r"\s", "", words) for words, _ in texts_of(figure))


def check_texts(figure: Figure) -> None:
    """No text leaves the figure, and none covers another."""
    paper = figure.bbox
    boxes = list(texts_of(figure))
    for words, box in boxes:
        inside = box.x0 > -1 and box.y0 > -1 and box.x1 < paper.x1 + 1 and box.y1 < paper.y1 + 1
        assert inside, f"{words!r} leaves the figure: {box} of {paper}"
    for (words, box), (others, other) in combinations(boxes, 2):
        width = min(box.x1, other.x1) - max(box.x0, other.x0)
        height = min(box.y1, other.y1) - max(box.y0, other.y0)
        assert width <= 1 or height <= 2, f"{words!r} and {others!r} cover one another"


def label_of(axes: Axes, which: str) -> str:
    """The axis's own name, or that of an axis which it is shared with."""
    shared = axes.get_shared_x_axes() if which == "x" else axes.get_shared_y_axes()
    names = [getattr(one, f"get_{which}label")() for one in [axes, *shared.get_siblings(axes)]]
    return next(filter(None, names), "")


def check_ticks(figure: Figure) -> None:
    """Labels of ticks state their places, and each panel has some."""
    for axes in shown(figure):
        for which, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
            unit = 100.0 if re.search("%|points", label_of(axes, which)) else 1.0
            for place, number in numbers_on(axis):
                assert number == pytest.approx(unit * place, rel=1e-9, abs=1e-12), (which, place)
            if not axes.lines or not axes.axison:
                continue
            low, high = sorted(axis.get_view_interval())
            places = zip(axis.get_majorticklocs(), axis.get_ticklabels())
            visible = [place for place, text in places if text.get_text() and low <= place <= high]
            rows = which == "y" and any(line.get_label() == "_row" for line in axes.lines)
            only = len(axis.get_majorticklocs()) == 1
            assert rows or only or len(visible) >= 2, f"no tick labels on {which}"


def numbers_on(axis: Axis) -> Iterator[tuple[float, float]]:
    """Places and the numbers at them; nothing of an axis of words."""
    labels = [
        label.get_text().replace("−", "-").replace(",", "") for label in axis.get_ticklabels()
    ]
    if all(re.fullmatch(r"[+-]?[\d.]+|", text) for text in labels):
        for place, text in zip(axis.get_majorticklocs(), labels):
            if text:
                yield float(place), float(text)


def check_limits(figure: Figure) -> None:
    """Panels in a row share their height axis, and those in a column the other, unless named."""
    panels = [axes for axes in shown(figure) if axes.get_label() != COLOR_BAR and axes.axison]
    for one, other in combinations(panels, 2):
        for which, edge in (("y", "y0"), ("x", "x0")):
            beside = abs(getattr(one.bbox, edge) - getattr(other.bbox, edge)) < 2
            named = all(getattr(axes, f"get_{which}label")() for axes in (one, other))
            if beside and not named:
                limits = [getattr(axes, f"get_{which}lim")() for axes in (one, other)]
                assert limits[0] == limits[1], f"{which} limits differ: {limits}"


def check_names(figure: Figure) -> None:
    """Every line, dot, band and colour has a name in the picture, in the key with its own look."""
    names = names_in(figure)
    handles = [handle for legend in figure.legends for handle in legend.legend_handles]
    named = [to_hex(text.get_color()) for text in figure.findobj(Text) if text.get_text()]
    named += [to_hex(handle.get_color()) for handle in handles if isinstance(handle, Line2D)]
    for axes in shown(figure):
        if axes.get_label() == COLOR_BAR:
            continue
        for artist in (*axes.lines, *axes.patches, *axes.collections):
            label = str(artist.get_label())
            if label in GUIDES:
                continue
            if label == "cells":
                bars = [one for one in shown(figure) if one.get_label() == COLOR_BAR]
                assert [bar.get_ylabel() != "" for bar in bars] == [True]
                assert len(list(numbers_on(bars[0].yaxis))) >= 2
                continue
            assert not label.startswith("_"), f"{artist} has no name"
            assert re.sub(r"\s", "", label) in names, f"{label!r} stands nowhere"
            if isinstance(artist, Line2D):
                check_look(artist, label, handles)
                assert to_hex(artist.get_color()) in {*named, *map(to_hex, (INK, MUTED, FAINT))}


def check_look(line: Line2D, label: str, handles: list[Artist]) -> None:
    """The key shows a line as it is drawn."""
    for handle in handles:
        if handle.get_label().replace("\n", "") == label and isinstance(handle, Line2D):
            assert handle._unscaled_dash_pattern == line._unscaled_dash_pattern, label
            single = len(line.get_xdata()) == 1  # a curve of one value is a dot
            assert single or handle.get_marker() == line.get_marker(), label


def check_dots(figure: Figure) -> None:
    """No dot hides another."""
    for axes in shown(figure):
        lines = [line for line in axes.lines if line.get_marker() in ("o", "s", "^")]
        centres = [
            (*axes.transData.transform(place), line.get_markersize() * figure.dpi / 72)
            for line in lines
            for place in np.column_stack([line.get_xdata(), line.get_ydata()])
        ]
        for (x, y, size), (x2, y2, _) in combinations(centres, 2):
            assert dist((x, y), (x2, y2)) > 0.3 * size, "a dot hides another"


def check_labels(figure: Figure) -> None:
    """A name beside a point stands near it, or has a line to it."""
    for axes in shown(figure):
        leaders = [line for line in axes.lines if line.get_label() == "_line to a name"]
        ends = [axes.transData.transform(line.get_xydata()) for line in leaders]
        renderer = FigureCanvasAgg(figure).get_renderer()
        marks = [text for text in axes.texts if hasattr(text, "xy") and text.xycoords == "data"]
        boxes = [Text.get_window_extent(mark, renderer).padded(4) for mark in marks]
        for mark, box in zip(marks, boxes):
            x, y = axes.transData.transform(mark.xy)
            gap = dist((x, y), (max(box.x0, min(x, box.x1)), max(box.y0, min(y, box.y1))))
            column = [one for one in boxes if abs(one.x0 - box.x0) < 2]
            led = any(one.contains(*stop) for _, stop in ends for one in column)
            near = gap < 0.35 * axes.bbox.height if len(column) > 1 else gap < 40
            assert near or led, f"{mark.get_text()!r} stands {gap:.0f} pixels from its point"


def test_the_list_of_kinds_is_whole() -> None:
    assert {name.partition("/")[0] for name in KINDS} == set(drawers())


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_can_be_read(kind: str, case: Case) -> None:
    figure = drawn(kind, case)
    check_texts(figure)
    check_ticks(figure)
    check_limits(figure)
    check_names(figure)
    check_dots(figure)
    check_labels(figure)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_follows_a_dark_page(kind: str) -> None:
    with drawing():
        svg = to_svg(KINDS[kind](Case(2, "mixed", seeds=2)), "x")
    assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) == set()
    assert "<image" not in svg


def test_titles_say_what_is_shown_and_not_what_came_out() -> None:
    stories = (MAIN_STORY, MAPS_STORY, RANK_STORY, JOINT_STORY, eviction_story(3))
    titles = [title for story in stories for title, _ in story.captions.values()]
    titles += [title for title, _ in CAPTIONS.values()]
    claims = r"better|worse|more|stop|help|learn|teach|works?\b|improve|beat|win|fail|collapse"
    assert [title for title in titles if re.search(claims, title)] == []


def leave_the_figure(axes: Axes) -> None:
    axes.text(0, 0, "a name that leaves the figure", ha="right")


def round_a_tick(axes: Axes) -> None:
    axes.set_yticks([0.025, 0.05], ["2", "5"])


def look_closer(axes: Axes) -> None:
    axes.set_position([*axes.get_position().p0, 0.1, 0.1])
    axes.figure.add_axes((0.8, axes.get_position().y0, 0.1, 0.1)).set_ylim(0, 0.2)


def draw_a_line_without_a_name(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], "--")


def draw_five_dots_on_one(axes: Axes) -> None:
    axes.plot([0.5] * 5, [0] * 5, "o", label="one seed")


def move_a_name_away(axes: Axes) -> None:
    next(text for text in axes.texts if hasattr(text, "xyann")).xyann = (200, 90)


@pytest.mark.parametrize(
    ("check", "kind", "spoil"),
    [
        (check_texts, "report.pictures.curves_by_arm/guess", leave_the_figure),
        (check_ticks, "report.pictures.curves_by_arm/guess", round_a_tick),
        (check_limits, "report.pictures.curves_by_arm/guess", look_closer),
        (check_names, "report.pictures.curves_by_arm/guess", draw_a_line_without_a_name),
        (check_dots, "report.pictures.accuracy_by_arm", draw_five_dots_on_one),
        (check_labels, "demo.pictures.accuracy_by_passes", move_a_name_away),
    ],
)
def test_each_check_sees_its_fault(
    check: Callable[[Figure], None], kind: str, spoil: Callable[[Axes], None]
) -> None:
    figure = drawn(kind, Case(2, "mixed", seeds=2))
    check(figure)
    spoil(figure.axes[0])
    with pytest.raises(AssertionError):
        check(figure)
