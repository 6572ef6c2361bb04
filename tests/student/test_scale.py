"""What the student adds meets the base model at the size of its words."""

import pytest
import torch
from transformers import PreTrainedModel

from kava.student.latent import LatentStudent


def size(vectors: torch.Tensor) -> float:
    return vectors.float().pow(2).mean().sqrt().item()


def test_latents_start_at_the_size_of_the_words_embeddings(family_model: PreTrainedModel) -> None:
    vocabulary = torch.arange(family_model.config.vocab_size)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        student = LatentStudent.wrap(family_model, num_latents=64, decoding="jacobi")
        words = size(student.get_input_embeddings()(vocabulary))
        width = student.thought_embeddings.shape[1]
        latents = size(student.projection(torch.randn(100, width)))
    assert latents == pytest.approx(words, rel=0.02)
    assert size(student.thought_embeddings) == pytest.approx(words, rel=0.3)
    assert size(student.placeholders) == pytest.approx(words, rel=0.1)
