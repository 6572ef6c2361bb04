"""Pictures of an alignment: what is drawn is what the maps hold."""

import pytest
import torch

from kava.align import FlatStack, HeadwiseMapProjector, LayerwiseProjector, layer_map
from kava.align.heads.head_norms import head_norms
from kava.pictures.alignment import (
    MAX_TOKENS,
    head_map_picture,
    layer_map_picture,
    time_map_picture,
)
from kava.pictures.theme import KV, drawing, to_png, to_svg


def blues(axes) -> dict[tuple[float, float], float]:
    """Centre of each blue cell → how blue it is."""
    (boxes,) = (one for one in axes.collections if one.get_label() == "cells")
    assert {tuple(color[:3]) for color in boxes.get_facecolors()} == {rgb(KV)}
    centres = [path.vertices[:4].mean(0).round(6).tolist() for path in boxes.get_paths()]
    return {
        tuple(centre): alpha
        for centre, alpha in zip(centres, boxes.get_facecolors()[:, 3].tolist())
        if alpha
    }


def rgb(color: str) -> tuple[float, ...]:
    return tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))


@pytest.mark.parametrize("rank", [1, 3, None])
def test_the_norm_of_each_block_equals_a_slow_loop(rank: int | None) -> None:
    torch.manual_seed(0)
    projector = LayerwiseProjector(2, 3, 4, 6, 5, rank=rank, init_uniform=False)
    norms = head_norms(projector)
    dense = projector.dense()
    for layer in range(2):
        for h in range(4):
            for g in range(3):
                block = dense[layer, 5 * h : 5 * (h + 1), 6 * g : 6 * (g + 1)]
                assert norms[layer][h][g] == pytest.approx(block.norm().item(), rel=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_a_map_for_all_layers_has_one_panel_of_norms(shared: bool) -> None:
    torch.manual_seed(0)
    projector = HeadwiseMapProjector(3, 4, 6, 5, share_dim_proj=shared, init_uniform=False)
    ((*rows,),) = head_norms(projector)
    dims = projector.dim_weight if not shared else projector.dim_weight.expand(4, 5, 6)
    for h, row in enumerate(rows):
        for g, norm in enumerate(row):
            block = projector.head_mixer.weight[h, g] * dims[h]
            assert norm == pytest.approx(block.norm().item(), rel=1e-5)


def test_a_map_that_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="is no single matrix of heads"):
        head_norms(FlatStack(24, 32))


@pytest.mark.parametrize("narrow", [False, True])
def test_the_layer_map_has_a_cell_for_every_weight(narrow: bool) -> None:
    weights = layer_map(6, 3, "uniform").tolist()
    axes, bar = layer_map_picture(weights, narrow).axes
    assert bar.get_ylabel() == "weight"
    drawn = blues(axes)
    expected = {
        (column, row): weight
        for row, some in enumerate(weights)
        for column, weight in enumerate(some)
        if weight > 0
    }
    assert drawn == pytest.approx(expected)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first layer stands on top


def test_every_part_and_layer_has_a_panel_of_its_heads() -> None:
    norms = {"keys": [[[2.0, 1.0]], [[0.0, 4.0]]], "values": [[[3.0, 3.0]], [[0.0, 0.0]]]}
    figure = head_map_picture(norms, ("teacher", "student"))
    *panels, bar = figure.axes
    titles = [axes.get_title("left") for axes in panels]
    assert titles == ["keys, layer 0", "keys, layer 1", "values, layer 0", "values, layer 1"]
    assert [blues(axes) for axes in panels] == [
        {(0, 0): 1.0, (1, 0): 0.5}, {(1, 0): 1.0}, {(0, 0): 1.0, (1, 0): 1.0}, {},
    ]  # fmt: skip
    assert panels[0].get_ylabel() == "teacher's head"
    assert panels[-1].get_xlabel() == "student's head"
    assert "norm of the block" in bar.get_ylabel()


def test_many_layers_are_drawn_in_part_with_the_ends() -> None:
    norms = {"keys": [[[1.0]]] * 24}
    wide = [axes.get_title("left") for axes in head_map_picture(norms).axes[:-1]]
    assert wide == ["keys, layer 0", "keys, layer 8", "keys, layer 15", "keys, layer 23"]
    narrow = [axes.get_title("left") for axes in head_map_picture(norms, narrow=True).axes[:-1]]
    assert narrow == ["keys, layer 0", "keys, layer 23"]


def words(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_a_line_runs_wherever_a_token_is_read() -> None:
    weights = [[1.0, 0, 0, 0], [0, 0.25, 0.75, 0]]
    figure = time_map_picture(["Cups", "abcd"], ["Cups", " ab", "cd", "\n"], weights, bold={1})
    (axes,) = figure.axes
    assert words(figure) == ["student", "teacher", "Cups", "Cups", "abcd", "·ab", "cd", "↵"]
    assert [line.get_alpha() for line in axes.lines] == [1.0, 0.25, 0.75]
    middle = {text.get_text(): text.get_position()[0] for text in axes.texts}
    ends = [tuple(line.get_xdata()) for line in axes.lines]
    assert ends[1:] == [(middle["abcd"], middle["·ab"]), (middle["abcd"], middle["cd"])]
    bold = [text.get_text() for text in axes.texts if text.get_weight() == "bold"]
    assert bold == ["abcd"]


@pytest.mark.parametrize("narrow", [False, True])
def test_a_long_text_is_broken_into_lines_and_cut(narrow: bool) -> None:
    tokens = [f"token{i}" for i in range(200)]
    figure = time_map_picture(tokens, tokens, torch.eye(200).tolist(), narrow=narrow)
    assert len(figure.axes) > (6 if narrow else 3)
    assert words(figure).count("token47") == 2
    assert "token48" not in words(figure)
    for axes in figure.axes:
        assert all(text.get_position()[0] < axes.get_xlim()[1] for text in axes.texts)


def test_what_a_cut_text_does_not_reach_is_left_out() -> None:
    ours, theirs = ["x"] * (2 * MAX_TOKENS), ["yy"] * MAX_TOKENS
    weights = [[float(t == s // 2) for t in range(MAX_TOKENS)] for s in range(2 * MAX_TOKENS)]
    figure = time_map_picture(ours, theirs, weights)
    assert words(figure).count("x") == MAX_TOKENS
    assert words(figure).count("yy") == MAX_TOKENS // 2


def test_all_of_them_become_files() -> None:
    with drawing():
        for figure in (
            layer_map_picture([[0.5, 0.5]]),
            head_map_picture({"keys": [[[1.0]]]}),
            time_map_picture(["a"], ["a"], [[1.0]]),
        ):
            assert to_png(figure).startswith(b"\x89PNG")
            assert "var(--kv)" in to_svg(figure, "x")
