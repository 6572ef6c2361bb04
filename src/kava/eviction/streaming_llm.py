"""StreamingLLM-like: keep a few first candidates, the attention sinks, and the last ones.

Shapes: B batch, T positions, M kept positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kava.eviction.base import Candidates, Eviction, register_eviction
from kava.trace import KVTrace

DEFAULT_SINKS = 4


@register_eviction("streaming_llm")
@dataclass(frozen=True, kw_only=True)
class StreamingLLMEviction(Eviction):
    """Keep the first `num_sinks` candidates and the newest of the rest.

    Xiao et al., "Efficient Streaming Language Models with Attention Sinks" (arXiv 2309.17453),
    section 3.2: four initial tokens and a rolling window.

    Deviations: the sinks are the first of the reasoning, not of the text, whose own beginning
    belongs to the prompt and is never evicted here; positions keep their numbers, where the paper
    counts them anew inside the cache; and where M < 8 the sinks shrink to half of it.

    Args:
        num_sinks: how many of the first candidates are kept, at most `target_len`. None is the
            paper's 4, or target_len // 2 where target_len is below 8.

    Raises:
        ValueError: a negative number of sinks, or more than `target_len`.

    Example:
        >>> kept, indices_BLHM = compress(trace, "streaming_llm", target_len=8)
    """

    num_sinks: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_sinks is not None and self.num_sinks < 0:
            raise ValueError(f"num_sinks={self.num_sinks} must not be negative")

    def keep(self, trace: KVTrace, candidates: Candidates, target_len: int) -> Tensor:
        """The candidates of the first and of the last ranks."""
        num_sinks = self.num_sinks
        if num_sinks is None:
            num_sinks = min(DEFAULT_SINKS, target_len // 2)
        elif num_sinks > target_len:
            raise ValueError(
                f"num_sinks={num_sinks} is more than target_len={target_len}; lower num_sinks or "
                f"raise target_len"
            )
        ranks_BT = candidates.mask.cumsum(dim=1) - 1
        newest_B1 = candidates.counts[:, None] - (target_len - num_sinks)
        kept_BT = (ranks_BT < num_sinks) | (ranks_BT >= newest_B1)
        return (candidates.mask & kept_BT)[:, None, None]
