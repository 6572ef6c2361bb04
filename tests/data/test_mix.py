"""Mixes: exact shares, the same draw whatever the order, unique names, bad ones in one line."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kava.data import load_records
from kava.data.mix import draw_shares, load_mix, mix_parts, mix_sizes, shares_of


def write(folder: Path, name: str, size: int, *, shuffled: bool = False) -> str:
    rows = [
        {"id": i, "question": f"{name} {i}?", "reasoning": "a\nb", "answer": i} for i in range(size)
    ]
    if shuffled:
        random.Random(3).shuffle(rows)
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    return write(tmp_path, "one", 100), write(tmp_path, "two", 30)


def test_shares_hold_exactly_until_a_source_runs_out(two: tuple[str, str]) -> None:
    one, other = two
    records = load_records(f"mix:{one}=0.5,{other}=0.5")
    assert mix_sizes(records) == {one: 30, other: 30}
    assert mix_sizes(load_records(f"mix:{one}=3,{other}=1")) == {one: 90, other: 30}
    assert mix_sizes(load_records(f"mix:{one}=0.9,{other}=0.1")) == {one: 100, other: 11}
    assert len({record.id for record in records}) == 60
    assert all(record.id.startswith(f"{record.meta['source']}-") for record in records)
    assert mix_sizes(load_records(one)) == {}


def test_the_draw_depends_on_the_seed_and_not_on_the_order(
    two: tuple[str, str], tmp_path: Path
) -> None:
    name = f"mix:{two[0]}=1,{two[1]}=1"
    drawn = load_records(name)
    assert load_records(name) == drawn
    other = load_records(name, seed=1)
    assert {r.question for r in other} != {r.question for r in drawn}
    write(tmp_path, "one", 100, shuffled=True)
    assert load_records(name) == drawn
    # the sources are mingled, so that the first samples of a mix are one too
    assert min(mix_sizes(drawn[:20]).values()) > 3


def test_a_subset_keeps_the_shares_and_grows(two: tuple[str, str]) -> None:
    name = f"mix:{two[0]}=2,{two[1]}=1"
    small, large = (load_records(name, subset_size=size) for size in (30, 60))
    assert mix_sizes(small) == {two[0]: 20, two[1]: 10}
    assert {r.id for r in small} < {r.id for r in large}
    assert draw_shares(load_records(name), 30, 0) == small
    with pytest.raises(ValueError, match="subset_size=91 must be from 1 to the 90"):
        load_records(name, subset_size=91)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(0, 500))
def test_parts_of_a_total_sum_to_it_and_are_near(weights: list[int], total: int) -> None:
    shares = [weight / sum(weights) for weight in weights]
    sizes = shares_of(total, shares)
    assert sum(sizes) == total
    assert all(abs(size - total * share) < 1 + 1e-6 for size, share in zip(sizes, shares))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mix:", "'' must be a source and its weight"),
        ("mix:gsm8k", "'gsm8k' must be a source and its weight, NAME=0.5"),
        ("mix:gsm8k=0.5,,svamp=0.5", "'' must be a source"),
        ("mix:=1", "'=1' must be a source"),
        ("mix:gsm8k=0", "the weight '0' of gsm8k must be a finite number"),
        ("mix:gsm8k=-1", "the weight '-1' of gsm8k must be a finite number"),
        ("mix:gsm8k=much", "the weight 'much' of gsm8k must be a finite number"),
        ("mix:gsm8k=inf", "the weight 'inf'"),
        ("mix:gsm8k=nan", "the weight 'nan'"),
        ("mix:gsm8k=1e308,svamp=1e308", "the weights sum to more than a number holds"),
        (
            "mix:gsm8k=1,svamp=1e-12",
            "the share of svamp is 1e-12, less than one sample in a billion",
        ),
        ("mix:gsm8k=1,gsm8k=2", "names gsm8k twice"),
        ("mix:swamp=1", "'swamp' is no task, file or folder"),
        ("mix:kava/shell-game=1,gsm8k=1", "its sources have different cues"),
    ],
)
def test_a_bad_mix_is_one_line(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as problem:
        load_records(name)
    assert "\n" not in str(problem.value)


def test_a_share_too_small_for_one_sample_is_refused(tmp_path: Path) -> None:
    name = f"mix:{write(tmp_path, 'one', 3)}=0.99,{write(tmp_path, 'two', 9)}=0.01"
    with pytest.raises(ValueError, match="is less than one of the 3 samples"):
        load_records(name)


def test_the_game_mixes_with_itself() -> None:
    game = "kava/shell-game?num_train=10"
    name = f"mix:{game}&num_moves=3=0.5,{game}&num_moves=4=0.5"
    assert list(mix_parts(name)) == [f"{game}&num_moves=3", f"{game}&num_moves=4"]
    assert len(load_records(name)) == 20


@pytest.mark.shared
def test_the_real_tasks_mix(shared: Path) -> None:
    data = shared / "data"
    name = (
        f"mix:gsm8k:{data}/gsm8k=0.4,svamp:{data}/svamp=0.2,"
        f"strategyqa:{data}/strategyqa=0.2,arc:{data}/arc=0.2"
    )
    records = load_records(name)
    sizes = {source.partition(":")[0]: size for source, size in mix_sizes(records).items()}
    assert sizes == {"gsm8k": 2000, "svamp": 1000, "strategyqa": 1000, "arc": 1000}
    heads = Counter(record.id.partition("-")[0] for record in records)
    assert set(heads) == {"gsm8k", "svamp", "strategyqa", "arc_easy", "arc_challenge"}
    assert len({record.id for record in records}) == 5000


def test_an_unknown_source_is_refused_before_any_other_is_read() -> None:
    read: list[str] = []
    with pytest.raises(ValueError, match="'nope' is no task, file or folder; choose from gsm8k"):
        load_mix("mix:gsm8k=0.5,nope=0.5", lambda name: [read.append(name)])  # type: ignore[list-item]
    assert not read
