"""The gradient estimate against a perturbation of each layer's values, and beside knockout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from families import gemma, llama, mistral, qwen2
from importance.test_knockout import rows
from importance.texts import LENGTHS, batch, sample
from kava.importance.gradient import gradient


def slow(model: PreTrainedModel, index: int, stages: list[int] | None = None) -> list[float]:
    """The score of each reasoning token of one sample, by what is added to its values."""
    prompt, reasoning, _ = LENGTHS[index]
    ids_T = torch.from_numpy(sample(index).input_ids).long()
    added: list[torch.Tensor] = []

    def add(module: torch.nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        added.append(torch.zeros_like(output, requires_grad=True))
        return output + added[-1]

    projections = [m for name, m in model.named_modules() if name.endswith("v_proj")]
    handles = [projection.register_forward_hook(add) for projection in projections]
    logits_TV = model(ids_T[None]).logits[0].double()
    for handle in handles:
        handle.remove()
    head_dim = projections[0].out_features // model.config.num_key_value_heads
    scores = []
    for column in range(prompt, prompt + reasoning):
        loss = torch.zeros((), dtype=torch.float64)
        for t in range(prompt, len(ids_T)):
            if stages is None or stages[t] > stages[column]:
                p = logits_TV[t - 1].softmax(-1)[ids_T[t]]
                loss = loss + (1 - p).log() - p.log()
        found = torch.autograd.grad(loss, added, retain_graph=True)
        lengths = [g[0, column].view(-1, head_dim).norm(dim=-1).sum() for g in found]
        scores.append(float(sum(lengths)))
    return scores


@pytest.mark.parametrize("family", [llama, qwen2, mistral, gemma])
def test_it_equals_a_perturbation_of_the_values(family: Callable[[], PreTrainedModel]) -> None:
    model = family()
    wanted = [slow(model, index) for index in range(len(LENGTHS))]
    for got, expected in zip(rows(gradient(model, batch()), *range(len(LENGTHS))), wanted):
        assert got == pytest.approx(expected, rel=1e-4)
        assert max(got) > 1.2 * min(got) > 0


def test_only_tokens_of_later_stages_count() -> None:
    model = llama()
    prompt, _, answer = LENGTHS[0]
    stages = [-1] * prompt + [0] * 4 + [1] * 3 + [-1] * (answer - 1) + [2]
    (got,) = rows(gradient(model, batch(0), torch.tensor([stages])), 0)
    assert got == pytest.approx(slow(model, 0, stages), rel=1e-4)
    assert got != pytest.approx(slow(model, 0), rel=1e-2)


def test_a_sample_scores_the_same_alone_and_in_a_batch(family_model: PreTrainedModel) -> None:
    together = rows(gradient(family_model, batch()), *range(len(LENGTHS)))
    for index, row in enumerate(together):
        (alone,) = rows(gradient(family_model, batch(index)), index)
        assert row == pytest.approx(alone, rel=1e-3)


def test_nothing_but_reasoning_has_a_score_and_the_model_stays_as_it_was() -> None:
    model = llama().requires_grad_(True).train()
    whole = batch()
    with torch.no_grad():
        scores_BT = gradient(model, whole)
    assert (scores_BT[whole["segment_ids"] != 1] == 0).all()
    assert (scores_BT[whole["segment_ids"] == 1] > 0).sum() > 15
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(gradient(model.requires_grad_(False), whole), scores_BT)


def test_a_broken_teacher_is_told_by_its_sample() -> None:
    model = llama()
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = float("nan")
    with pytest.raises(ValueError, match="loss on sample 's0' is not a finite number"):
        gradient(model, batch())
