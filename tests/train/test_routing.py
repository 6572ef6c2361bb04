"""What is recorded of a routing, and what the guard makes of it."""

from __future__ import annotations

import pytest
import torch

from kava.data.records import Record
from kava.train.routing import Routing, RoutingCounts, groups_of, routing_verdict

LABELS = ["a", "b"]


def batch(ids: str, shares: list[list[float]], **more: torch.Tensor) -> Routing:
    return Routing(tuple(ids), torch.tensor(shares)[:, None], **more)


def test_shares_are_means_by_teacher_and_by_kind_of_sample() -> None:
    counts = RoutingCounts(LABELS)
    counts.look(batch("wx", [[1.0, 0.0], [0.6, 0.4]], chosen_B=torch.tensor([0, 1])))
    counts.look(None)
    counts.look(batch("y", [[0.2, 0.8]], chosen_B=torch.tensor([1])))
    found = counts.metrics({"w": "add", "x": "mul", "y": "mul"})
    expected = {
        "route_a": 0.6, "route_b": 0.4,
        "route_a_group_add": 1.0, "route_b_group_add": 0.0,
        "route_a_group_mul": 0.4, "route_b_group_mul": 0.6,
        "route_right": 2 / 3, "route_on_named": (1.0 + 0.4 + 0.8) / 3,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert "route_a_layer_0" not in found
    assert RoutingCounts(LABELS).metrics({}) == {}


def test_layers_conflict_and_answers_are_told() -> None:
    counts = RoutingCounts(LABELS)
    weights = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])
    counts.look(
        Routing(
            ("w", "x"),
            weights,
            agreement_BL=torch.tensor([[0.5, -1.0], [0.1, -0.5]]),
            answer_ce_B=torch.tensor([1.0, 3.0]),
            answer_ce_BN=torch.tensor([[0.5, float("nan")], [1.5, 4.0]]),
        )
    )
    found = counts.metrics({})
    expected = {
        "route_a_layer_0": 0.5, "route_a_layer_1": 0.5,
        "teachers_cos_layer_0": 0.3, "teachers_cos_layer_1": -0.75,
        "route_answer_ce": 2.0, "route_answer_ce_a": 1.0, "route_answer_ce_b": 4.0,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shares", "answers", "learned", "said"),
    [
        ((0.5, 0.5), (1.0, 2.0, 1.0), True, None),
        ((0.97, 0.03), (1.0, 1.0, 2.0), True, "the router listens to a alone (97.0 %)"),
        ((0.97, 0.03), (1.0, 1.0, 2.0), False, None),
        ((0.5, 0.5), (1.5, 2.0, 0.9), True, "better from b alone"),
    ],
)
def test_a_router_of_one_teacher_or_of_the_easy_target_is_named(
    shares: tuple[float, ...], answers: tuple[float, ...], learned: bool, said: str | None
) -> None:
    metrics = dict(zip(("eval_route_a", "eval_route_b"), shares))
    names = ("eval_route_answer_ce", "eval_route_answer_ce_a", "eval_route_answer_ce_b")
    found = routing_verdict({**metrics, **dict(zip(names, answers))}, LABELS, learned)
    assert (found is None) == (said is None)
    if said is not None:
        assert found is not None
        assert said in found


def test_kinds_of_samples_come_from_the_data() -> None:
    def record(name: str, **meta: object) -> Record:
        return Record(id=name, question="q", reasoning="r", answer="a", meta=meta)

    records = [record("w", teacher_id="add", num_steps=2), record("x", num_steps=3), record("y")]
    assert groups_of(records) == {"w": "add", "x": "3_steps"}
