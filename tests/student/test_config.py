"""The latent student's configuration."""

import pytest

from kava.student.config import LatentStudentConfig


def test_sequential_latents_have_no_iterations_to_check() -> None:
    assert LatentStudentConfig(num_latents=1).num_latents == 1
    for num_latents, num_iterations in ((1, 3), (2, -1)):
        with pytest.raises(ValueError, match=f"num_iterations={num_iterations} must lie between"):
            LatentStudentConfig(
                num_latents=num_latents, decoding="jacobi", num_iterations=num_iterations
            )


@pytest.mark.parametrize("num_latents", [-1, 2.5, True])
def test_latents_are_counted_in_whole_numbers(num_latents: object) -> None:
    with pytest.raises(ValueError, match=f"num_latents={num_latents} must be a whole number"):
        LatentStudentConfig(num_latents=num_latents)
