"""The sample before each in its set."""

from __future__ import annotations

import numpy as np

from kava.data.collate import Collator
from kava.data.encoded import Encoded
from kava.data.neighbours import with_neighbours


def sample(name: str) -> Encoded:
    ids = np.arange(6, dtype=np.int32)
    return Encoded(id=name, input_ids=ids, prompt_length=2, answer_start=4, value_start=5)


def test_each_has_the_one_before_and_the_first_the_last() -> None:
    found = with_neighbours([sample(name) for name in "abc"])
    assert [own.id for own in found] == ["a", "b", "c"]
    assert [own.before.id for own in found if own.before] == ["c", "a", "b"]
    assert all(own.before is not None and own.before.before is None for own in found)


def test_a_single_sample_has_no_other() -> None:
    (own,) = with_neighbours([sample("a")])
    assert own.before is None
    assert with_neighbours([]) == []


def test_a_batch_of_one_brings_its_neighbour_along_and_others_where_asked() -> None:
    found = with_neighbours([sample(name) for name in "abc"])
    assert Collator(0)(found[1:2])["before"]["ids"] == ["a"]
    assert "before" not in Collator(0)(found[1:])
    assert Collator(0, neighbours=True)(found[1:])["before"]["ids"] == ["a"]
    assert "before" not in Collator(0)([sample("a")])
