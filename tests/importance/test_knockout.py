"""Knockout against a slow loop of whole forwards, on every family."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from attention_families import refused
from families import SLIDING_WINDOW, build, llama, mistral
from importance.texts import LENGTHS, batch, sample
from kava.eviction import compress
from kava.importance.hiding import hiding
from kava.importance.knockout import knockout
from kava.trace import KVTrace


def losses(model: PreTrainedModel, ids_T: torch.Tensor, hidden: int | None) -> torch.Tensor:
    """[T − 1] −log p of tokens 1 to T − 1 of one text, by a mask of pairs.

    Query q sees key k where k ≤ q, inside its sliding window, and k is not hidden from q.
    """
    T = len(ids_T)
    queries, keys = torch.arange(T)[:, None], torch.arange(T)[None]
    seen_TT = keys <= queries
    if getattr(model.config, "sliding_window", None):
        seen_TT = seen_TT & (queries - keys < SLIDING_WINDOW)
    if hidden is not None:
        seen_TT = seen_TT & ~((keys == hidden) & (queries > hidden))
    mask = torch.where(seen_TT, 0.0, torch.finfo(torch.float32).min)[None, None]
    with torch.no_grad():
        logits = model(ids_T[None], attention_mask=mask, position_ids=keys).logits[0, :-1]
    return -logits.log_softmax(-1).gather(1, ids_T[1:, None])[:, 0]


def slow(model: PreTrainedModel, index: int, stages: list[int] | None = None) -> list[float]:
    """The score of each reasoning token of one sample."""
    prompt, reasoning, _ = LENGTHS[index]
    ids_T = torch.from_numpy(sample(index).input_ids).long()
    stages = stages or list(range(len(ids_T)))
    plain = losses(model, ids_T, None)
    scores = []
    for column in range(prompt, prompt + reasoning):
        hidden = losses(model, ids_T, column)
        counted = [t for t in range(prompt, len(ids_T)) if stages[t] > stages[column]]
        scores.append(float(sum(hidden[t - 1] - plain[t - 1] for t in counted)))
    return scores


def rows(scores_BT: torch.Tensor, *indices: int) -> list[list[float]]:
    start = max(LENGTHS[index][0] for index in indices)
    return [
        scores_BT[row, start : start + LENGTHS[index][1]].tolist()
        for row, index in enumerate(indices)
    ]


def test_it_equals_whole_forwards_with_a_mask_of_pairs(family_model: PreTrainedModel) -> None:
    scores_BT = knockout(family_model, batch())
    wanted = [slow(family_model, index) for index in range(len(LENGTHS))]
    for got, expected in zip(rows(scores_BT, *range(len(LENGTHS))), wanted):
        assert got == pytest.approx(expected, abs=5e-5, rel=1e-4)
    assert max(abs(score) for row in wanted for score in row) > 0.03


@pytest.mark.parametrize("family", [llama, mistral])
def test_eager_attention_gives_the_same(family) -> None:
    torch.testing.assert_close(
        knockout(family(attention="eager"), batch()),
        knockout(family(), batch()),
        atol=1e-4,
        rtol=1e-4,
    )


def test_only_tokens_of_later_stages_count() -> None:
    model = llama()
    prompt, _, answer = LENGTHS[0]
    # two steps, a cue that is not counted, the value
    stages = [-1] * prompt + [0] * 4 + [1] * 3 + [-1] * (answer - 1) + [2]
    scores_BT = knockout(model, batch(0), torch.tensor([stages]))
    (got,) = rows(scores_BT, 0)
    assert got == pytest.approx(slow(model, 0, stages), abs=2e-4)
    assert got != pytest.approx(slow(model, 0), abs=1e-2)


def test_a_sample_scores_the_same_alone_and_in_a_batch(family_model: PreTrainedModel) -> None:
    together = rows(knockout(family_model, batch()), *range(len(LENGTHS)))
    for index, row in enumerate(together):
        (alone,) = rows(knockout(family_model, batch(index)), index)
        assert row == pytest.approx(alone, abs=1e-4)


def test_nothing_but_reasoning_has_a_score() -> None:
    whole = batch()
    scores_BT = knockout(llama(), whole)
    assert (scores_BT[whole["segment_ids"] != 1] == 0).all()
    assert (scores_BT[whole["segment_ids"] == 1] != 0).sum() > 15


def test_the_token_before_the_last_cannot_matter() -> None:
    """What the last reasoning token sees is its own: it alone predicts a one-token answer."""
    scores_BT = knockout(llama(), batch(3))
    assert rows(scores_BT, 3)[0][-1] == 0


def test_it_asks_in_evaluation_mode_and_leaves_the_mode() -> None:
    model = llama()
    model.config.attention_dropout = 0.5
    noisy = build(model.config)
    plain = knockout(noisy, batch())
    noisy.train()
    assert torch.equal(knockout(noisy, batch()), plain)
    assert noisy.training
    assert all(parameter.grad is None for parameter in noisy.parameters())


def test_a_broken_teacher_is_told_by_its_sample() -> None:
    model = llama()
    with torch.no_grad():
        model.get_output_embeddings().weight[int(sample(1).input_ids[-1])] = float("nan")
    with pytest.raises(ValueError, match="loss on sample 's0' is not a finite number"):
        knockout(model, batch())


def test_the_eviction_keeps_the_highest_scores() -> None:
    whole = batch()
    scores_BT = knockout(llama(), whole)
    B, T = scores_BT.shape
    trace = KVTrace(
        torch.randn(B, 2, 2, T, 4),
        torch.randn(B, 2, 2, T, 4),
        mask=whole["attention_mask"].bool(),
        segment_ids=whole["segment_ids"],
    )
    _, indices = compress(trace, "knockout", 3, scores=scores_BT)
    for row in range(B):
        reasoning = (whole["segment_ids"][row] == 1).nonzero()[:, 0]
        best = reasoning[scores_BT[row, reasoning].topk(3).indices].sort().values
        assert torch.equal(indices[row], best.expand(2, 2, -1))


def alibi_losses(
    model: PreTrainedModel, ids_T: torch.Tensor, hidden: int | None, monkeypatch: pytest.MonkeyPatch
) -> torch.Tensor:
    """[T − 1] −log p of a text; the mask of pairs is made where the model's own is."""
    module = sys.modules[type(model).__module__]
    make = module.create_causal_mask

    def with_hidden(*args: Any, **options: Any) -> Any:
        def shown(b: Any, h: Any, query: Any, key: Any) -> Any:
            return ~((key == hidden) & (query > hidden))

        return make(*args, **options, and_mask_function=None if hidden is None else shown)

    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(module, "create_causal_mask", with_hidden)
        logits = model(ids_T[None], attention_mask=torch.ones(1, len(ids_T))).logits[0, :-1]
    return -logits.log_softmax(-1).gather(1, ids_T[1:, None])[:, 0]


@pytest.mark.parametrize("name", ["BLOOM", "Falcon", "Falcon, `alibi=True`", "MPT"])
def test_hiding_a_position_leaves_the_distances_of_others(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ALiBi counts distances by the mask in some families: a hole in it would shift them."""
    model = refused(name)
    scores_BT = knockout(model, batch())
    for index, got in enumerate(rows(scores_BT, *range(len(LENGTHS)))):
        prompt, reasoning, _ = LENGTHS[index]
        ids_T = torch.from_numpy(sample(index).input_ids).long()
        plain = alibi_losses(model, ids_T, None, monkeypatch)
        wanted = []
        for column in range(prompt, prompt + reasoning):
            rise = alibi_losses(model, ids_T, column, monkeypatch) - plain
            wanted.append(float(rise[column + 1 :].sum()))
        assert got == pytest.approx(wanted, abs=2e-3, rel=1e-3)


def test_hiding_ends_with_its_block_and_touches_no_other_model() -> None:
    model, other = llama(), llama()
    ids = torch.arange(1, 7)[None]
    mask = torch.ones_like(ids)
    with torch.no_grad():
        plain = model(ids, attention_mask=mask).logits
        with hiding(model) as hidden:
            hidden.shown = torch.arange(6)[None] != 2
            assert not torch.allclose(model(ids, attention_mask=mask).logits[:, 3:], plain[:, 3:])
            assert torch.equal(other(ids, attention_mask=mask).logits, plain)
        assert torch.equal(model(ids, attention_mask=mask).logits, plain)
