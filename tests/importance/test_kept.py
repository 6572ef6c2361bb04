"""What evictions keep, and the table of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from families import llama
from importance.texts import LENGTHS, sample
from kava.commands.compare_evictions import ComparisonConfig, compare, main
from kava.data.encode import encode
from kava.data.records import Record, Template
from kava.data.shell_game import SHELL_GAME_TEMPLATE, shell_game, shell_game_tokenizer
from kava.eviction import EVICTIONS
from kava.importance.kept import ARMS, EvictionArm, kept_shares, rank_agreement, summarize
from kava.importance.roles import oracle_ranks, token_roles
from kava.models.tokenizers import byte_tokenizer

SAMPLES = [sample(index) for index in range(len(LENGTHS))]


def scores_of(samples) -> list[np.ndarray]:
    return [np.arange(s.answer_start - s.prompt_length, dtype=np.float32) % 4 for s in samples]


def test_shares_sum_to_what_is_kept_and_do_not_hang_on_the_batch(monkeypatch) -> None:
    model = llama()
    scores = {"knockout": scores_of(SAMPLES), "knockout_gradient": scores_of(SAMPLES)}
    whole = kept_shares(model, SAMPLES, [2, 5], scores=scores)
    assert set(whole) == {(arm.name, M) for arm in ARMS for M in (2, 5)}
    monkeypatch.setattr("kava.importance.batches.CPU_TOKENS", 1)
    single = kept_shares(model, SAMPLES, [2, 5], scores=scores)
    for (name, M), rows in whole.items():
        for row, alone, (_, reasoning, _) in zip(rows, single[name, M], LENGTHS):
            assert row.shape == (reasoning,)
            assert row.sum() == pytest.approx(min(M, reasoning))
            np.testing.assert_allclose(row, alone, atol=1e-6)
    # chosen per head, so that some tokens are kept by a part of them
    assert any(0 < share < 1 for share in whole["key_norm", 2][0])
    assert whole["knockout", 2][0].tolist() == [0, 0, 1, 1, 0, 0, 0]


def test_every_eviction_is_an_arm_and_scores_are_asked_for() -> None:
    assert {arm.method for arm in ARMS} == set(EVICTIONS) - {"full", "positions"}
    with pytest.raises(ValueError, match="the arm 'x' needs the scores of 'knockout'"):
        kept_shares(llama(), SAMPLES, [2], arms=[EvictionArm(name="x", method="knockout")])


def test_a_summary_weighs_tokens_by_their_shares() -> None:
    shares = [np.array([1.0, 0.5, 0.5]), np.array([0.0, 1.0])]
    roles = [["a", "b", "a"], ["a", "b"]]
    oracles = [np.array([True, False, True]), None]
    kept = summarize(shares, roles, oracles, [np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0])])
    assert kept.roles == pytest.approx({"a": (0.75 + 0) / 2, "b": (0.25 + 1) / 2})
    assert kept.place == pytest.approx(((0.25 * 0.5 + 0.25) + 1) / 2)
    assert kept.oracle == pytest.approx(0.75)
    assert kept.overlap == pytest.approx((0.75 + 0) / 2)
    assert summarize(shares, roles, [None, None]).oracle is None


def test_ranks_agree_whatever_the_scale_and_constant_scores_say_nothing() -> None:
    ours = [np.array([1.0, 3.0, 2.0]), np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0])]
    theirs = [np.array([10.0, 30.0, 25.0]), np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0])]
    assert rank_agreement(ours, theirs) == pytest.approx(1.0)
    assert rank_agreement(ours, [-row for row in theirs]) == pytest.approx(-1.0)


def test_roles_of_the_shell_game_and_of_other_text() -> None:
    record = shell_game(1, form="verbose")[0]
    tokenizer = shell_game_tokenizer()
    encoded = encode(record, tokenizer, SHELL_GAME_TEMPLATE, 64)
    step = ("state before", "move", ">", "state after", ";")
    assert token_roles(record, encoded, tokenizer) == step * 3
    assert oracle_ranks(record, encoded).nonzero()[0].tolist() == [3, 8, 13]
    text = Record(id="a", question="Q?", reasoning="In 7+x.\nend", answer="4")
    encoded = encode(text, byte_tokenizer(), Template(), 64)
    assert token_roles(text, encoded, byte_tokenizer()) == (
        "word", "word", "mark", "number", "operator", "word", "mark", "mark",
    )  # fmt: skip
    assert oracle_ranks(text, encoded) is None


def test_the_command_prints_a_table_for_every_target_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kept.json"
    flags = ["--num_samples", "24", "--target_len", "2,3", "--output", str(path), "--no_progress"]
    assert main(flags) == 0
    printed = capsys.readouterr().out
    for M in (2, 3):
        assert f"| M = {M} | oracle found | as knockout | place | `state before` |" in printed
    figures = json.loads(path.read_text())
    assert figures["num_samples"] == 24
    assert set(figures["kept"]["3"]) == {arm.name for arm in ARMS}
    for arm in figures["kept"]["3"].values():
        assert sum(arm["roles"].values()) == pytest.approx(1.0)
    assert figures["kept"]["3"]["knockout"]["oracle"] > 0.9
    assert figures["kept"]["3"]["knockout"]["overlap"] == pytest.approx(1.0)
    assert figures["reasoning"]["roles"]["move"] == pytest.approx(0.2)
    assert figures["agreement"]["knockout_gradient"] > 0.7


@pytest.mark.shared
def test_it_reads_gsm8k_with_a_pretrained_model(shared: Path) -> None:
    config = ComparisonConfig(
        teacher_name=str(shared / "models" / "stories260K"),
        dataset_name=str(shared / "data" / "gsm8k" / "test.jsonl"),
        num_samples=2,
        max_length=400,
        overflow="skip",
        target_len="8",
        no_progress=True,
    )
    with torch.no_grad():
        comparison = compare(config)
    assert set(comparison.reasoning.roles) == {"word", "number", "operator", "mark"}
    assert comparison.kept[8]["knockout"].oracle is None
    assert "| M = 8 | as knockout | place |" in str(comparison)


def test_bad_flags_are_named() -> None:
    with pytest.raises(ValueError, match="--target_len '3,x' must be numbers from 1 to 4,096"):
        ComparisonConfig(target_len="3,x")
    with pytest.raises(ValueError, match="--reach 'far' is unknown; choose later_steps, all"):
        ComparisonConfig(reach="far")
    with pytest.raises(ValueError, match="--num_samples 0 must be at least 1"):
        ComparisonConfig(num_samples=0)
