"""Calibration: fit an aligner's maps in closed form, and say how good they are.

Teacher and student read the same text; at every position the mixed teacher layer and the student
layer are a pair of vectors. The map between them is a least-squares problem, solved from means
and second moments that are gathered in one pass. Nothing is trained, so nothing can collapse, and
the report says what the map explains of texts that it was not fitted to, beside two controls:

- *wrong sample*: a map of the same form, fitted to and judged on pairs whose target comes from
  another sample of the batch, at the same place in its text. What it explains is what position
  and kind of token tell without reading the sample.
- *random*: a random map of the same form; every output coordinate gets the scalar and bias that
  are best on the calibration set. What it explains needs no map at all.

Shapes: L layers of the student, N positions, C_in/C_out coordinates of input and target.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from kava.align.aligner import MapProjectionAligner
from kava.align.calibration_report import CalibrationReport, LayerFit, Quality
from kava.align.gather import Gathered, Pair, Seen, gather, head_dims
from kava.align.kronecker import KroneckerFit, fit_kronecker
from kava.align.layerwise import LayerwiseProjector
from kava.align.least_squares import fit_ridge, fit_scale
from kava.align.statistics import r_squared

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Strengths that are tried, relative to the mean eigenvalue of the inputs' covariance."""

RANDOM_SEED = 2510_02312
"""Of the random map: one that models and data are not seeded with, whose draws it would repeat."""

AUTO_TOLERANCE = 0.02
"""Rank "auto" may explain this much less of the variance than the full map, on average."""


class FittedMap(NamedTuple):
    """A map of every layer, as a matrix, with the ridge that it was fitted with."""

    weight: Tensor
    """[L, C_out, C_in]."""
    bias: Tensor
    """[L, C_out]."""
    ridge: Tensor
    """[L]."""
    terms: KroneckerFit | None = None
    """Where the map is structured."""


def fit_full(training: Seen, held_out: Seen, ridge: float | None) -> FittedMap:
    """The ridge solution, with each layer's ridge the one that held-out pairs prefer.

    Args:
        training: the pairs that the map is fitted to.
        held_out: the pairs that choose among `RIDGES`.
        ridge: one strength instead of them.
    """
    tried = RIDGES if ridge is None else (ridge,)
    scores = torch.stack(
        [r_squared(held_out.statistics, *fit_ridge(training.statistics, one)) for one in tried]
    )
    ridge_L = scores.new_tensor(tried)[scores.argmax(0)]
    return FittedMap(*fit_ridge(training.statistics, ridge_L), ridge_L)


def _restrict(
    full: FittedMap, training: Seen, projector: LayerwiseProjector, rank: int | None
) -> FittedMap:
    """The best map of `rank` terms, with the ridge of the full one."""
    if rank is None:
        return full
    fit = fit_kronecker(
        training.statistics, head_dims(projector), rank, projector.per_head, full.ridge
    )
    return FittedMap(fit.dense(), fit.bias, full.ridge, fit)


def _random(training: Seen, projector: LayerwiseProjector, rank: int | None) -> FittedMap:
    """A random map of the same form, each output scaled and shifted at its best."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        random = LayerwiseProjector(
            projector.num_layers,
            *head_dims(projector),
            rank=rank,
            per_head=projector.per_head,
            init_uniform=False,
        )
    weight = random.dense().to(training.statistics.mean_x)
    return FittedMap(*fit_scale(training.statistics, weight), weight.new_zeros(len(weight)))


def judge(fitted: FittedMap, held_out: Seen, head_dim: int) -> list[Quality]:
    """R² from the moments, and the mean cosine over the sampled positions and the heads.

    Cosines are taken around the held-out mean: a common offset, which keys have, would make any
    two vectors alike.

    Args:
        fitted: a map.
        held_out: pairs that it was not fitted to.
        head_dim: of the target.
    """
    centre = held_out.statistics.mean_y[:, None]
    x_LNC, y_LNC = held_out.positions
    mapped = x_LNC.double() @ fitted.weight.mT + fitted.bias[:, None]
    cosine_L = cosine_similarity(
        (mapped - centre).unflatten(2, (-1, head_dim)),
        (y_LNC - centre).unflatten(2, (-1, head_dim)),
        dim=3,
    ).mean((1, 2))
    explained_L = r_squared(held_out.statistics, fitted.weight, fitted.bias)
    return [Quality(*both) for both in zip(explained_L.tolist(), cosine_L.tolist())]


@torch.no_grad()
def _write(projector: LayerwiseProjector, fitted: FittedMap) -> None:
    """Put a fitted map into the projector; its number of terms follows."""
    new = {"bias": fitted.bias.view_as(projector.bias)}
    if fitted.terms is None:
        new["weight"] = fitted.weight
    else:
        new["head_mix"], new["dim_map"] = fitted.terms.head_mix, fitted.terms.dim_map
        projector.rank = fitted.terms.head_mix.shape[1]
    for name, value in new.items():
        old = getattr(projector, name)
        setattr(projector, name, nn.Parameter(value.to(old), requires_grad=old.requires_grad))


def _layerwise(aligner: MapProjectionAligner) -> dict[str, LayerwiseProjector]:
    projectors = {
        part: projector
        for part, projector in aligner.projectors().items()
        if isinstance(projector, LayerwiseProjector)
    }
    if not projectors:
        raise ValueError(
            f"an aligner of mode={aligner.mode!r} without a map for each layer has nothing that "
            f"calibration can fit; make it with per_layer=True"
        )
    return projectors


def _check_sets(training: dict[str, Gathered], held_out: dict[str, Gathered]) -> None:
    for name, parts in (("calibration", training), ("held-out", held_out)):
        if not parts:
            raise ValueError(f"the {name} set has no valid positions; raise --calibration_samples")
    if training.keys() != held_out.keys():
        raise ValueError(
            f"the calibration set has {', '.join(training)}, but the held-out set "
            f"{', '.join(held_out)}; capture both in the same way"
        )


def _check_enough(
    part: str, training: Gathered, projector: LayerwiseProjector, rank: int | None
) -> None:
    shape = head_dims(projector)
    num_unknowns = ceil(shape.num_parameters(rank, projector.per_head) / shape.dim_out)
    num_positions = training.statistics.num_positions
    if num_positions < num_unknowns:
        raise ValueError(
            f"the calibration set has {num_positions} positions, but each output of the map of "
            f"{part} has {num_unknowns} unknowns; raise --calibration_samples"
        )


def ranks_up_to(full: int) -> list[int]:
    """Numbers of terms worth trying: 1, 2, 3, 4, 6, 8, 12, 16, …, up to the full rank."""
    steps = sorted({2**power for power in range(32)} | {3 * 2**power for power in range(31)})
    return [*(rank for rank in steps if rank < full), full]


def _choose_rank(
    fulls: dict[str, FittedMap],
    training: dict[str, Gathered],
    held_out: dict[str, Gathered],
    projectors: dict[str, LayerwiseProjector],
) -> int:
    """The smallest rank tried at which keys and values lose no more than is allowed."""
    full_ranks = {part: head_dims(p).full_rank(p.per_head) for part, p in projectors.items()}
    for rank in ranks_up_to(full_ranks["keys"]):
        losses = []
        for part in ("keys", "values"):
            seen, judged = training[part].right(), held_out[part].right().statistics
            some = _restrict(fulls[part], seen, projectors[part], rank)
            lost = r_squared(judged, *fulls[part][:2]) - r_squared(judged, *some[:2])
            losses.append(float(lost.mean()))
        if max(losses) <= AUTO_TOLERANCE:
            return rank
    return full_ranks["keys"]


@torch.no_grad()
def calibrate(
    aligner: MapProjectionAligner,
    pairs: Iterable[Pair],
    held_out: Iterable[Pair],
    *,
    rank: int | str | None = None,
    ridge: float | None = None,
) -> CalibrationReport:
    """Fit an aligner's maps of keys, values and queries in place, by least squares.

    Both sets are read once, and memory does not depend on their size. In direction
    student_to_teacher the maps go from each student layer to its mixed teacher layer. Queries are
    fitted where the traces have them.

    Args:
        aligner: made with `per_layer=True`.
        pairs: paired traces that the maps are fitted to, in batches; see `kava.pairs`.
        held_out: other paired traces, which choose the ridge and judge the maps.
        rank: terms of structured maps, which the aligner's then have; None keeps the aligner's
            own; "auto" takes the smallest of `ranks_up_to` with which keys and values each lose
            no more than `AUTO_TOLERANCE` of held-out R² against the full map, mean over layers.
        ridge: the ridge strength relative to the mean eigenvalue of the inputs' covariance; None:
            of `RIDGES` the one with the best held-out R² of the full map, layer by layer.

    Returns:
        How good the maps are on the held-out positions. What is chosen on them, ridge and rank,
        flatters map and wrong-sample control alike.

    Raises:
        ValueError: an aligner without maps per layer, or a rank for full ones; fewer positions
            than unknowns per output; an empty set; traces that do not vary.

    Example:
        >>> aligner = MapProjectionAligner(
        ...     num_teacher_layers=4, num_student_layers=2, num_teacher_heads=6,
        ...     num_student_heads=4, teacher_head_dim=16, student_head_dim=16, per_layer=True,
        ... )
        >>> report = calibrate(aligner, paired_traces(teacher, student, batches[8:]),
        ...                    paired_traces(teacher, student, batches[:8]))
    """
    projectors = _layerwise(aligner)
    own = projectors["keys"].rank
    if rank is not None and own is None:
        raise ValueError(
            f"rank={rank!r} does not fit an aligner of full matrices; make it with "
            f"mode='structured', or leave rank out"
        )
    training, judging = (gather(aligner, some, projectors) for some in (pairs, held_out))
    terms = None if rank == "auto" else int(rank) if rank is not None else own
    _check_sets(training, judging)
    for part, seen in training.items():
        _check_enough(part, seen, projectors[part], terms)
    fulls = {
        part: fit_full(seen.right(), judging[part].right(), ridge)
        for part, seen in training.items()
    }
    if rank == "auto":
        terms = _choose_rank(fulls, training, judging, projectors)
    aligner.rank = terms
    layers: list[LayerFit] = []
    for part, seen in training.items():
        layers += _fit_part(part, projectors[part], terms, fulls[part], seen, judging[part], ridge)
    shape = head_dims(projectors["keys"])
    return CalibrationReport(
        direction=aligner.direction,
        rank=terms,
        full_rank=shape.full_rank(projectors["keys"].per_head),
        per_head=projectors["keys"].per_head,
        num_positions=training["keys"].statistics.num_positions,
        num_held_out=judging["keys"].statistics.num_positions,
        num_parameters=sum(
            parameter.numel() for part in training for parameter in projectors[part].parameters()
        ),
        layers=tuple(layers),
    )


def _fit_part(
    part: str,
    projector: LayerwiseProjector,
    rank: int | None,
    full: FittedMap,
    training: Gathered,
    held_out: Gathered,
    ridge: float | None,
) -> list[LayerFit]:
    """Fit keys, values or queries, write the map, and judge it beside its controls."""
    right, wrong = held_out.right(), held_out.wrong()
    fitted = _restrict(full, training.right(), projector, rank)
    shuffled = _restrict(
        fit_full(training.wrong(), wrong, ridge), training.wrong(), projector, rank
    )
    random = _random(training.right(), projector, rank)
    dim = projector.head_dim_out
    judged = (
        judge(one, seen, dim)
        for one, seen in ((fitted, right), (full, right), (shuffled, wrong), (random, right))
    )
    _write(projector, fitted)
    return [
        LayerFit(part, layer, strength, *qualities)
        for layer, (strength, *qualities) in enumerate(zip(fitted.ridge.tolist(), *judged))
    ]
