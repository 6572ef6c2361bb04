"""What the rules keep, read off a teacher's pass."""

import pytest

from kava.demo.arms import EVICTION, Demo, eviction_demo, plan_of
from kava.demo.kept import KeptTokens, find_kept
from kava.study.settings import train_config


def kept_in(demo: Demo, *rules: str) -> KeptTokens:
    plan = plan_of(demo, num_steps=1, num_items=200, model_name="kava/shell-llama")
    arms = plan.choose(rules or None)
    return find_kept({arm.name: train_config(plan, arm, 0, "unused") for arm in arms})


@pytest.fixture(scope="module")
def kept_by_rule() -> KeptTokens:
    return kept_in(EVICTION)


def test_every_rule_keeps_three_of_fifteen(kept_by_rule) -> None:
    assert set(kept_by_rule.frequency) == {arm.name for arm in EVICTION.arms}
    for shares in kept_by_rule.frequency.values():
        assert len(shares) == 15
        assert sum(shares) == pytest.approx(3, abs=0.01)


def test_the_rules_whose_choice_is_known_keep_it(kept_by_rule) -> None:
    def kept(rule: str) -> list[int]:
        return [place for place, share in enumerate(kept_by_rule.frequency[rule]) if share == 1]

    assert kept("positions") == kept_by_rule.results == [3, 8, 13]
    assert kept("right_crop") == [12, 13, 14]
    assert kept("uniform") == [0, 7, 14]
    assert kept("random") == []


def test_with_more_latents_every_rule_keeps_more() -> None:
    kept = kept_in(eviction_demo(5), "positions", "knockout", "right_crop")
    for shares in kept.frequency.values():
        assert sum(shares) == pytest.approx(5, abs=0.01)
    oracle = [place for place, share in enumerate(kept.frequency["positions"]) if share == 1]
    assert oracle == [3, 5, 8, 10, 13]
    assert kept.results == [3, 8, 13]


def test_the_examples_are_the_tokens_that_the_oracle_keeps(kept_by_rule) -> None:
    for tokens, shares in zip(kept_by_rule.tokens, kept_by_rule.examples["positions"]):
        results = [token for token, share in zip(tokens, shares) if share]
        assert results == [tokens[3], tokens[8], tokens[13]]
        # the next step starts from the row that the last one arrived at
        assert results[:2] == [tokens[5], tokens[10]]
