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
