"""The configuration of a latent student."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig

from kava.names import DECODINGS, THOUGHT_POSITIONS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LATENT_NEW_TOKENS = 32
"""Most tokens of a latent student's answer, where nothing says otherwise."""

first_use: list[Callable[[], object]] = []
"""Called when a configuration is made, each once (`kava.student.registration`)."""


class LatentStudentConfig(PreTrainedConfig):
    """How a causal language model reasons in latent tokens.

    Args:
        base_config: the wrapped model's own configuration as a dictionary.
        num_latents: M, the number of latent tokens between prompt and answer. With 0 the student
            answers directly.
        decoding: "sequential" (M passes of one position each) or "jacobi" (all positions at
            once, repeated).
        num_iterations: T, the Jacobi passes after the first one. T = num_latents equals
            sequential decoding; T = 0 leaves the placeholders as they are: pause tokens.
        thought_positions: "shared": begin- and end-of-thought have the position of the token before
            them; "own" (that of students of earlier versions): positions of their own.
        projection_dropout: dropout before the projection from hidden state to next latent.

    Raises:
        ValueError: a value outside its range.
    """

    model_type = "kava_latent"

    def __init__(
        self,
        base_config: dict[str, Any] | None = None,
        num_latents: int = 24,
        decoding: str = "sequential",
        num_iterations: int = 3,
        projection_dropout: float = 0.0,
        thought_positions: str = "own",
        **kwargs: Any,
    ):
        if isinstance(num_latents, bool) or not isinstance(num_latents, int) or num_latents < 0:
            raise ValueError(f"num_latents={num_latents!r} must be a whole number, 0 or more")
        if decoding not in DECODINGS:
            raise ValueError(f"decoding={decoding!r} is unknown; choose {' or '.join(DECODINGS)}")
        if decoding == "jacobi" and not 0 <= num_iterations <= num_latents:
            raise ValueError(
                f"num_iterations={num_iterations} must lie between 0 (pause tokens) and "
                f"num_latents={num_latents} (equal to sequential decoding)"
            )
        if not 0 <= projection_dropout < 1:
            raise ValueError(
                f"projection_dropout={projection_dropout} must be at least 0 and below 1"
            )
        if thought_positions not in THOUGHT_POSITIONS:
            raise ValueError(
                f"thought_positions={thought_positions!r} is unknown; choose "
                f"{' or '.join(THOUGHT_POSITIONS)}"
            )
        self.base_config = base_config or {}
        self.num_latents = num_latents
        self.decoding = decoding
        self.num_iterations = num_iterations
        self.projection_dropout = projection_dropout
        self.thought_positions = thought_positions
        super().__init__(**kwargs)
        while first_use:
            first_use.pop()()

    @property
    def makes_latents(self) -> bool:
        """Whether there are latents made from hidden states (pause tokens are not)."""
        return self.num_latents > 0 and (self.decoding == "sequential" or self.num_iterations > 0)


def is_latent(model: PreTrainedModel) -> bool:
    """Whether a model is a latent student."""
    return isinstance(model.config, LatentStudentConfig)


def base_of(model: PreTrainedModel) -> PreTrainedModel:
    """The language model of a student."""
    base: PreTrainedModel = model.base if is_latent(model) else model  # type: ignore[assignment]
    return base
