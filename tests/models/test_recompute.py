"""Activation checkpointing keeps caches, losses and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from families import FAMILIES, VOCAB_SIZE, build
from kava.models.capture import capture
from kava.models.recompute import recompute_layers
from kava.student.answering import evaluating
from kava.student.latent import LatentStudent

PROMPT = torch.tensor([[0, 5, 6, 7], [8, 9, 10, 11]])
MASK = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
ANSWER = torch.tensor([[3, 4], [5, 6]])


def passes_and_gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("queries", [False, True], ids=["", "queries"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_trace_and_its_gradients_are_the_same(family: str, queries: bool) -> None:
    found = []
    ids = torch.arange(12).view(2, 6) % VOCAB_SIZE
    for recomputes in (False, True):
        model = FAMILIES[family]().train()
        if recomputes:
            recompute_layers(model)
        outputs, trace = capture(model, ids, queries=queries)
        assert trace.keys.requires_grad
        loss = outputs.logits.square().mean() + trace.keys.square().sum() + trace.values.sum()
        if queries:
            assert trace.queries is not None
            loss = loss + trace.queries.square().sum()
        found.append((loss.detach(), passes_and_gradients(model, loss)))
    (plain, expected), (loss, gradients) = found
    torch.testing.assert_close(loss, plain)
    assert gradients.keys() == expected.keys()
    for name, part in expected.items():
        torch.testing.assert_close(gradients[name], part, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"decoding": "jacobi", "num_iterations": 2}, {"projection_dropout": 0.3}],
    ids=["sequential", "jacobi", "dropout"],
)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_latents_read_a_cache_that_grows(family: str, options: dict[str, Any]) -> None:
    found = []
    for recomputes in (False, True):
        torch.manual_seed(0)
        student = LatentStudent.wrap(FAMILIES[family](), num_latents=3, **options).train()
        if recomputes:
            recompute_layers(student.base)
        torch.manual_seed(1)
        output = student(PROMPT, MASK, ANSWER)
        loss = output.logits.square().mean() + output.trace.keys.square().sum()
        found.append((loss.detach(), passes_and_gradients(student, loss)))
    (plain, expected), (loss, gradients) = found
    torch.testing.assert_close(loss, plain)
    for name, part in expected.items():
        torch.testing.assert_close(gradients[name], part, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dropout", ["resid_pdrop", "attn_pdrop"])
def test_a_pass_without_dropout_is_recomputed_without_it(dropout: str) -> None:
    """As the teacher's in self-distillation: its backward comes when the model trains again."""
    ids = torch.arange(12).view(2, 6) % VOCAB_SIZE
    found = []
    for recomputes in (False, True):
        config = FAMILIES["gpt2"]().config
        config.update({dropout: 0.5})
        model = build(config).train()
        if recomputes:
            recompute_layers(model)
        with evaluating(model):
            outputs, trace = capture(model, ids)
        assert model.training
        loss = outputs.logits.square().mean() + trace.keys.square().sum()
        found.append(passes_and_gradients(model, loss))
        assert all(part.training for part in model.modules())
    expected, gradients = found
    for name, part in expected.items():
        torch.testing.assert_close(gradients[name], part, atol=1e-5, rtol=1e-5)


def test_a_layer_keeps_no_activations_between_forward_and_backward() -> None:
    """Of a long text, what is saved for the backward pass."""
    ids = torch.arange(128).view(1, 128) % VOCAB_SIZE
    sizes = []
    for recomputes in (False, True):
        model = FAMILIES["llama"]().train()
        if recomputes:
            recompute_layers(model)
        saved: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            saved[tensor.data_ptr()] = tensor.numel()  # noqa: B023
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            capture(model, ids)
        sizes.append(sum(saved.values()))
    assert sizes[1] < 0.7 * sizes[0]


def test_nothing_is_recomputed_without_gradients() -> None:
    model = FAMILIES["llama"]()
    recompute_layers(model)
    calls = []
    model.model.layers[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        capture(model, PROMPT)
    assert len(calls) == 1


def test_a_model_without_such_layers_is_named() -> None:
    with pytest.raises(ValueError, match="--gradient_checkpointing: Linear has no layers"):
        recompute_layers(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
