"""Pictures: what is drawn is what was logged."""

import pytest

from demo.conftest import MakeLogs, MakeResults
from kava.demo.arms import MAIN
from kava.demo.hetero import RANK
from kava.demo.pictures import accuracy_by_passes, losses_by_step
from kava.demo.rank_picture import accuracy_by_rank
from kava.demo.results import summarize

Good = dict[str, list[float]]


def test_losses_show_the_terms_there_are_and_the_control(
    make_results: MakeResults, make_logs: MakeLogs, good: Good
) -> None:
    figure = losses_by_step(make_logs(make_results(good)))
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["Answer, training", "KV cache, held-out", "Hidden state, training"]
    answer, kv, codi = (len(axes.lines) for axes in figure.axes)
    assert (answer, kv, codi) == (10, 10, 2)  # written has no latents; two lines for a KV run
    drawn = [line.get_ydata().tolist() for line in figure.axes[1].lines]
    assert drawn.count([0.35] * 3) == drawn.count([0.3, 0.15, 0.3 / 3]) == 5
    only = losses_by_step(make_logs(make_results({"none": [0.04]})))
    assert [axes.get_title("left") for axes in only.axes] == ["Answer, training"]


def test_each_arm_is_named_where_it_stands(make_results: MakeResults, good: Good) -> None:
    summaries = summarize(MAIN.arms, make_results(good))
    (axes,) = accuracy_by_passes(summaries).axes
    places = {text.get_text(): text.xy for text in axes.texts}
    for summary in summaries:
        x, y = places[summary.arm.name]
        assert y == summary.accuracy
        assert x == pytest.approx(summary.forward_passes, abs=0.3)  # arms alike stand side by side


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
