"""SnapKV-like: keep what the newest positions attend to, and its neighbours.

Shapes: B batch, L layers, H key/value heads, T positions, W window positions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from kava.eviction.base import Candidates, ScoredEviction, register_eviction
from kava.eviction.rows import DEFAULT_WINDOW, attention_of_rows, newest, resolve_window
from kava.trace import KVTrace, Scope


@register_eviction("snapkv")
@dataclass(frozen=True, kw_only=True)
class SnapKVEviction(ScoredEviction):
    """Keep the newest window and, of the rest, what its queries attend to, per layer and head.

    Li et al., "SnapKV: LLM Knows What You are Looking for Before Generation" (arXiv 2404.14469),
    section 4 and the released code: the attention of an observation window at the end, summed
    over its queries, then the mean over `kernel_size` neighbours, so that a kept position brings
    its surroundings along.

    Deviations: the observed text is the reasoning, so that the window is its end, of 8 positions
    (the code's 64 would be all of it) or, where target_len is 8 or less, half of it; under
    grouped-query attention the group's mean counts (the code repeats the keys and chooses per
    query head).

    Args:
        window_size: W, the number of newest candidates, which are always kept and whose queries
            score the rest; below `target_len`. None is 8, or target_len // 2 (at least 1) where
            target_len is 8 or less.
        kernel_size: odd width of the mean.
        scaling: what q·k is multiplied by, in the place of what the trace says of its model
            (`KVTrace.attention`); None keeps that, or D**-0.5 where the trace does not say.
        scope: default "head", as in the paper.

    Raises:
        ValueError: an option out of its range, a window not below `target_len`, or a trace
            without queries.

    Example:
        >>> kept, indices_BLHM = compress(trace, "snapkv", target_len=24)
    """

    needs_queries: ClassVar[bool] = True

    window_size: int | None = None
    kernel_size: int = 5
    scaling: float | None = None
    scope: Scope = "head"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={self.kernel_size} must be odd and positive")
        if self.window_size is not None and self.window_size < 1:
            raise ValueError(f"window_size={self.window_size} must be at least 1")

    def keep(self, trace: KVTrace, candidates: Candidates, target_len: int) -> Tensor:
        """The window and the best-scored candidates before it."""
        window = resolve_window(self.window_size, target_len)
        return ScoredEviction.keep(replace(self, window_size=window), trace, candidates, target_len)

    def score(self, trace: KVTrace, candidates: Candidates) -> Tensor:
        """The pooled attention before the window, and +inf inside it."""
        length = self.window_size or DEFAULT_WINDOW
        window_BT = newest(candidates, length)
        attention_BLHT = attention_of_rows(trace, window_BT, length, "snapkv", self.scaling)
        before_B11T = (candidates.mask & ~window_BT)[:, None, None]
        pooled_BXT = functional.avg_pool1d(
            (attention_BLHT * before_B11T).flatten(1, 2),
            self.kernel_size,
            stride=1,
            padding=self.kernel_size // 2,
        )
        scores_BLHT = pooled_BXT.view_as(attention_BLHT)
        return scores_BLHT.masked_fill(window_BT[:, None, None], float("inf"))
