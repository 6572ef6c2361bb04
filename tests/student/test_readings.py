"""What latents read as: the output head at the states they are made of, in every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from families import FAMILIES
from kava.student import LatentStudent

B, P, A, M = 3, 7, 4, 4
DECODINGS: list[Any] = [
    pytest.param({}, id="sequential"),
    *(
        pytest.param({"decoding": "jacobi", "num_iterations": T}, id=f"jacobi-{T}")
        for T in (1, 2, 4)
    ),
]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Left-padded prompts, their mask, and answers."""
    torch.manual_seed(0)
    prompts, answers = torch.randint(1, 97, (B, P)), torch.randint(1, 97, (B, A))
    mask = torch.ones(B, P, dtype=torch.long)
    mask[1, :3] = 0
    return prompts, mask, answers


def student(family: str, **options: Any) -> LatentStudent:
    torch.manual_seed(1)
    return LatentStudent.wrap(FAMILIES[family](), num_latents=M, **options).eval()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", DECODINGS)
def test_reading_changes_neither_the_passes_nor_what_they_give(
    family: str, options: dict[str, Any], batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    model = student(family, **options)
    plain, read = model(*batch), model(*batch, readings=True)
    assert plain.readings is None
    assert read.readings is not None
    assert read.readings.shape == (B, M, 97)
    assert read.num_passes == plain.num_passes
    torch.testing.assert_close(read.logits, plain.logits)
    torch.testing.assert_close(read.trace.values, plain.trace.values)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_latent_reads_as_the_head_at_the_state_it_is_made_of(
    family: str, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    """One prompt without padding, by hand: the latents' inputs, one whole text at a time."""
    model = student(family)
    prompt = batch[0][:1]
    readings = model(prompt, None, batch[2][:1], readings=True).readings
    embeds = torch.cat(
        [model.get_input_embeddings()(prompt), model.thought_embeddings[:1][None]], 1
    )
    for m in range(M):
        output = model.base(inputs_embeds=embeds, output_hidden_states=True)
        torch.testing.assert_close(readings[:, m], output.logits[:, -1], atol=1e-4, rtol=1e-3)
        latent = model.projection(output.hidden_states[-1][:, -1:])
        embeds = torch.cat([embeds, latent], dim=1)


def test_all_jacobi_iterations_read_as_sequential_latents_do(
    batch: tuple[Tensor, Tensor, Tensor],
) -> None:
    sequential, jacobi = student("llama"), student("llama", decoding="jacobi", num_iterations=M)
    jacobi.load_state_dict({**jacobi.state_dict(), **sequential.state_dict()})
    torch.testing.assert_close(
        jacobi(*batch, readings=True).readings,
        sequential(*batch, readings=True).readings,
        atol=1e-4,
        rtol=1e-3,
    )


@pytest.mark.parametrize("options", DECODINGS)
def test_a_sample_reads_alone_as_in_a_batch(
    options: dict[str, Any], batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    model = student("qwen2", **options)
    prompts, _, answers = batch
    together = model(*batch, readings=True).readings
    alone = model(prompts[1:2, 3:], None, answers[1:2], readings=True).readings
    torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("options", DECODINGS)
def test_the_gradient_reaches_what_makes_the_latents(
    options: dict[str, Any], batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    model = student("llama", **options)
    model(*batch, readings=True).readings.logsumexp(-1).sum().backward()
    # one Jacobi pass reads placeholders: no projected latent has been read yet
    projected = options.get("num_iterations") != 1
    for name, part in [
        ("projection", model.projection[1].weight),
        ("begin-of-thought", model.thought_embeddings),
        ("embeddings", model.get_input_embeddings().weight),
    ]:
        moved = part.grad is not None and bool(part.grad.abs().sum() > 0)
        assert moved == (projected or name != "projection"), name


@pytest.mark.parametrize(
    "options", [{"decoding": "jacobi", "num_iterations": 0}, {"num_latents": 0}]
)
def test_latents_made_of_nothing_cannot_be_read(
    options: dict[str, Any], batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    model = LatentStudent.wrap(FAMILIES["llama"](), **{"num_latents": M, **options})
    with pytest.raises(ValueError, match="makes no latent of a hidden state"):
        model(*batch, readings=True)
