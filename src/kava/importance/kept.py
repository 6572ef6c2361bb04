"""What evictions keep: by the tokens' roles, beside the oracle, and beside knockout.

A method that chooses per head keeps a token with a share: of the layers and heads, that part
which keeps it. All figures are means over samples of sums of these shares.

Shapes: B batch, L layers, H key/value heads, T columns, R reasoning tokens of a sample, M kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from transformers import PreTrainedModel

from kava.data.encoded import Encoded
from kava.eviction import EVICTIONS, compress
from kava.importance.batches import batches_of, make_batch
from kava.models.capture import capture


@dataclass(frozen=True, kw_only=True)
class EvictionArm:
    """An eviction with its options, as one row of the comparison.

    Args:
        name: its name in the table.
        method: a key of `EVICTIONS`.
        options: options of the eviction.
    """

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)


# all of it, what the caller names, and the right crop under another name
_LEFT_OUT = {"full", "positions", "window"}

ARMS: tuple[EvictionArm, ...] = (
    *(EvictionArm(name=name, method=name) for name in sorted(EVICTIONS) if name not in _LEFT_OUT),
    EvictionArm(name="window, place 0", method="window", options={"place": 0.0}),
)
"""Every eviction with its defaults; `window`, by default the right crop, at the other end."""


@torch.no_grad()
def kept_shares(
    model: PreTrainedModel,
    samples: Sequence[Encoded],
    target_lens: Sequence[int],
    *,
    arms: Sequence[EvictionArm] = ARMS,
    scores: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> dict[tuple[str, int], list[np.ndarray]]:
    """How widely each arm keeps each reasoning token.

    Args:
        model: the teacher.
        samples: in its tokens.
        target_lens: the values of M.
        arms: what is compared.
        scores: method → [R] of each sample, for the methods that are given theirs.

    Returns:
        (arm's name, M) → for each sample [R], the share of layers and heads that keep a token.

    Raises:
        ValueError: an arm whose scores are missing.

    Example:
        >>> h2o = EvictionArm(name="h2o", method="h2o")
        >>> shares = kept_shares(teacher, encoded, [3], arms=[h2o])
        >>> float(shares["h2o", 3][0].sum())
        3.0
    """
    scores = scores or {}
    for arm in arms:
        if EVICTIONS[arm.method].needs_scores and arm.method not in scores:
            raise ValueError(f"the arm {arm.name!r} needs the scores of {arm.method!r}")
    shares: dict[tuple[str, int], list[np.ndarray]] = {
        (arm.name, target_len): [np.zeros(0)] * len(samples)
        for target_len in target_lens
        for arm in arms
    }
    for places in batches_of(model, samples, range(len(samples))):
        chosen = [samples[place] for place in places]
        batch, _ = make_batch(model, chosen, [np.zeros(0, dtype=int)] * len(chosen))
        _, trace = capture(
            model,
            batch["input_ids"],
            batch["attention_mask"],
            batch["segment_ids"],
            queries=True,
            hidden_states=False,
            logits_to_keep=1,
        )
        start = max(sample.prompt_length for sample in chosen)
        for arm in arms:
            options = dict(arm.options)
            if EVICTIONS[arm.method].needs_scores:
                rows = [scores[arm.method][place] for place in places]
                options["scores"] = _columns(rows, start, trace.length).to(model.device)
            if arm.method == "random":
                options["sample_ids"] = batch["ids"]
            for target_len in target_lens:
                _, indices_BLHM = compress(trace, arm.method, target_len, **options)
                kept_BT = _share(indices_BLHM, trace.length)
                for place, sample, row_T in zip(places, chosen, kept_BT):
                    stop = start + sample.answer_start - sample.prompt_length
                    shares[arm.name, target_len][place] = row_T[start:stop]
    return shares


def _columns(rows: Sequence[np.ndarray], start: int, length: int) -> Tensor:
    """[B, T]: each sample's scores where its reasoning stands."""
    scores_BT = torch.zeros(len(rows), length)
    for row_T, row_R in zip(scores_BT, rows):
        row_T[start : start + len(row_R)] = torch.from_numpy(row_R)
    return scores_BT


def _share(indices_BLHM: Tensor, length: int) -> np.ndarray:
    """[B, T]: the share of layers and heads that keep a column; unused slots repeat the last."""
    B, L, H, _ = indices_BLHM.shape
    kept_BLHT = torch.zeros(B, L, H, length, dtype=torch.bool, device=indices_BLHM.device)
    kept_BLHT.scatter_(3, indices_BLHM, True)
    return kept_BLHT.float().mean(dim=(1, 2)).cpu().numpy()


@dataclass(frozen=True, kw_only=True)
class KeptSummary:
    """Summary over all samples of the tokens that one eviction keeps.

    Attributes:
        roles: role → its share of the kept tokens; the shares sum to 1.
        place: mean relative position of the kept tokens, from 0 (first) to 1 (last).
        oracle: the share of the oracle's tokens that are kept; None without an oracle.
        overlap: the share of the kept tokens that knockout keeps too.
    """

    roles: dict[str, float]
    place: float
    oracle: float | None
    overlap: float | None


def summarize(
    shares: Sequence[np.ndarray],
    roles: Sequence[Sequence[str]],
    oracles: Sequence[np.ndarray | None],
    reference: Sequence[np.ndarray] | None = None,
) -> KeptSummary:
    """Means over samples of what one arm keeps.

    Args:
        shares: of each sample [R], as `kept_shares` gives them.
        roles: of each sample [R].
        oracles: of each sample [R] bool, or None.
        reference: the shares of knockout; None leaves the overlap out.

    Example:
        >>> kept = summarize([np.array([0.0, 1.0])], [["move", "state after"]], [None])
        >>> kept.roles
        {'move': 0.0, 'state after': 1.0}
    """
    names = dict.fromkeys(role for row in roles for role in row)
    weights = [row / row.sum() for row in shares]
    of_role = {
        name: float(np.mean([w[np.array(r) == name].sum() for w, r in zip(weights, roles)]))
        for name in names
    }
    places = [float(w @ np.linspace(0, 1, len(w))) for w in weights]
    found = [s[o].mean() for s, o in zip(shares, oracles) if o is not None]
    overlap = None
    if reference is not None:
        overlap = float(np.mean([w @ r for w, r in zip(weights, reference)]))
    return KeptSummary(
        roles=of_role,
        place=float(np.mean(places)),
        oracle=float(np.mean(found)) if found else None,
        overlap=overlap,
    )


def rank_agreement(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """The mean over samples of Spearman's rank correlation of two scores.

    Samples of fewer than three tokens, and those whose scores are all alike, say nothing and are
    left out.

    Example:
        >>> rank_agreement([np.array([1.0, 2.0, 5.0])], [np.array([0.1, 0.2, 0.3])])
        1.0
    """
    pairs = [(a, b) for a, b in zip(ours, theirs) if len(a) > 2 and np.ptp(a) > 0 and np.ptp(b) > 0]
    return float(np.mean([spearmanr(a, b).statistic for a, b in pairs]))
