"""Pictures: what is drawn is what was logged."""

import json
from pathlib import Path

import pytest

from demo.conftest import MakeLogs, MakeResults
from kava.data.shell_game import CHANCE
from kava.demo.arms import EVICTION, MAIN
from kava.demo.hetero import HETERO, RANK
from kava.demo.logs import read_log
from kava.demo.pictures import (
    accuracy_by_arm,
    accuracy_by_passes,
    accuracy_by_step,
    kv_by_step,
    losses_by_step,
)
from kava.demo.rank_picture import accuracy_by_rank
from kava.demo.results import summarize

Good = dict[str, list[float]]


def test_a_log_gives_the_curves_of_its_file(tmp_path: Path, make_results: MakeResults) -> None:
    lines = [
        {"step": 1, "ce": 3.0, "kv": 0.5},
        {"step": 2, "eval_accuracy": 0.1, "eval_kv": 0.4},
        {"step": 2, "ce": 2.0, "kv": 0.3},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    (result,) = make_results({"kv": [1.0]})
    log = read_log(MAIN.arms[0], result, tmp_path)
    assert log.curve("ce") == ([1, 2], [3.0, 2.0])
    assert log.curve("eval_kv") == ([2], [0.4])
    assert log.curve("codi") == ([], [])


def test_an_empty_log_is_refused(tmp_path: Path, make_results: MakeResults) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    (result,) = make_results({"kv": [1.0]})
    with pytest.raises(ValueError, match=r"metrics\.jsonl is empty: the run logged nothing"):
        read_log(MAIN.arms[0], result, tmp_path)


@pytest.mark.parametrize("narrow", [False, True])
def test_every_arm_has_its_interval_seeds_and_number(
    make_results: MakeResults, good: Good, narrow: bool
) -> None:
    summaries = summarize(MAIN.arms, make_results(good))
    (axes,) = accuracy_by_arm(summaries, narrow).axes
    lines = [line.get_xydata().tolist() for line in axes.lines]
    for place, summary in zip(range(len(summaries) - 1, -1, -1), summaries):
        assert [[summary.low, place], [summary.high, place]] in lines
        assert [r.accuracy for r in summary.results] in [
            [x for x, y in line if abs(y - place) < 0.4] for line in lines
        ]
    assert [[CHANCE, 0], [CHANCE, 1]] in lines
    words = [text.get_text() for text in axes.texts]
    assert {s.arm.name for s in summaries} <= set(words)
    assert ("writes its reasoning" in words) == (not narrow)


@pytest.mark.parametrize("narrow", [False, True])
def test_every_arm_has_a_panel_with_one_line_a_seed(
    make_results: MakeResults, make_logs: MakeLogs, good: Good, narrow: bool
) -> None:
    figure = accuracy_by_step(make_logs(make_results(good)), narrow)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title("left") for axes in shown] == list(good)
    for axes, accuracies in zip(shown, good.values()):
        ends = [line.get_ydata()[-1] for line in axes.lines[1:]]
        assert ends == pytest.approx(accuracies)


def test_losses_show_the_terms_there_are_and_the_control(
    make_results: MakeResults, make_logs: MakeLogs, good: Good
) -> None:
    figure = losses_by_step(make_logs(make_results(good)))
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["Answer, training", "KV cache, held-out", "Hidden state, training"]
    answer, kv, codi = (len(axes.lines) for axes in figure.axes)
    assert (answer, kv, codi) == (11, 12, 4)  # written has no latents; two lines for a KV run
    drawn = [line.get_ydata().tolist() for line in figure.axes[1].lines]
    assert drawn.count([0.35] * 3) == drawn.count([0.3, 0.15, 0.3 / 3]) == 6
    only = losses_by_step(make_logs(make_results({"none": [0.04]})))
    assert [axes.get_title("left") for axes in only.axes] == ["Answer, training"]


def test_the_kv_loss_of_every_rule_stands_beside_its_control(
    make_results: MakeResults, make_logs: MakeLogs
) -> None:
    logs = make_logs(make_results({"rkv": [0.04, 0.05], "random": [0.04]}), EVICTION)
    shown = [axes for axes in kv_by_step(logs).axes if axes.get_visible()]
    assert [axes.get_title("left") for axes in shown] == ["rkv", "random"]
    for axes, num_seeds in zip(shown, (2, 1)):
        lines = [line.get_ydata().tolist() for line in axes.lines]
        assert lines == [[0.3, 0.15, 0.3 / 3], [0.35] * 3] * num_seeds


def test_each_arm_is_named_where_it_stands(make_results: MakeResults, good: Good) -> None:
    summaries = summarize(MAIN.arms, make_results(good))
    (axes,) = accuracy_by_passes(summaries).axes
    places = {text.get_text(): text.xy for text in axes.texts}
    for summary in summaries:
        x, y = places[summary.arm.name]
        assert y == summary.accuracy
        assert x == pytest.approx(summary.forward_passes, abs=0.3)  # arms alike stand side by side


def test_arms_without_a_cache_have_no_panel_of_losses(
    make_results: MakeResults, make_logs: MakeLogs
) -> None:
    logs = make_logs(make_results({"ce": [0.04], "flat": [1.0], "joint": [0.04]}), HETERO)
    shown = [axes for axes in kv_by_step(logs).axes if axes.get_visible()]
    assert [axes.get_title("left") for axes in shown] == ["flat", "joint"]


@pytest.mark.parametrize("narrow", [False, True])
def test_accuracy_and_fit_stand_over_the_number_of_terms(
    make_results: MakeResults, narrow: bool
) -> None:
    explained = {"rank_1": 0.3, "rank_4": 0.5, "rank_12": 0.56, "full": 0.57}
    accuracies = {"rank_1": [0.1, 0.2], "rank_4": [0.9, 0.8], "rank_12": [1.0], "full": [0.99]}
    measured = {name: {"r_squared": value} for name, value in explained.items()}
    summaries = summarize(RANK.arms, make_results(accuracies, measured=measured))
    upper, lower = accuracy_by_rank(summaries, narrow).axes
    above = [line.get_xydata().tolist() for line in upper.lines]
    assert [[1, 0.15], [4, pytest.approx(0.85)], [12, 1.0]] in [
        [[x, pytest.approx(y)] for x, y in line] for line in above
    ]
    for summary, rank in zip(summaries, (1, 4, 12)):
        assert [[rank, summary.low], [rank, summary.high]] in above
        seeds = [result.accuracy for result in summary.results]
        assert seeds in [
            [y for x, y in line if x == pytest.approx(rank, rel=0.1)] for line in above
        ]
    assert [[0, 0.99], [1, 0.99]] in above
    below = [line.get_xydata().tolist() for line in lower.lines]
    assert below == [[[0, 0.57], [1, 0.57]], [[1, 0.3], [4, 0.5], [12, 0.56]]]
    assert lower.get_xscale() == "log"
    assert [label.get_text() for label in lower.get_xticklabels()] == ["1", "4", "12"]
