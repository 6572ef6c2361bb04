"""Calibration: fit an aligner's maps in closed form, and say how good they are.

Teacher and student read the same text; at every position the mixed teacher layer and the student
layer are a pair of vectors. The map between them is a least-squares problem, solved from means
and second moments that are collected in one pass. Nothing is trained, so nothing can collapse, and
the report says what the map explains of texts that it was not fitted to, beside two controls:

- *wrong sample*: a map of the same form, fitted to and judged on pairs whose target comes from
  another sample of the batch, at the same place in its text. What it explains follows from the
  position in the text alone, without reading the sample.
- *random*: a random map of the same form; every output coordinate gets the scalar and bias that
  are best on the calibration set. What it explains needs no map at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import torch

from kava.align.aligner import MapProjectionAligner
from kava.align.heads.layerwise import LayerwiseProjector
from kava.fit.maps import FittedMap, fit_full, judge, random_map, restrict
from kava.fit.moments import r_squared
from kava.fit.report import CalibrationReport, LayerFit, RankFit
from kava.fit.statistics import (
    FitStatistics,
    TracePair,
    collect_statistics,
    head_dims,
    layerwise_projectors,
)

AUTO_TOLERANCE = 0.02
"""Rank "auto" may explain this much less of the variance than the full map, on average."""


def calibrate(
    aligner: MapProjectionAligner,
    pairs: Iterable[TracePair],
    held_out: Iterable[TracePair],
    *,
    rank: int | str | None = None,
    ridge: float | None = None,
) -> CalibrationReport:
    """Fit an aligner's maps of keys, values and queries in place, by least squares.

    Both sets are read once, and memory does not depend on their size. In direction
    student_to_teacher the maps go from each student layer to its mixed teacher layer. Queries are
    fitted where the traces have them; else their maps keep their start, in the same rank.

    Args:
        aligner: made with `per_layer=True`.
        pairs: paired traces that the maps are fitted to, in batches; see `kava.fit.paired_traces`.
        held_out: other paired traces, which choose the ridge and judge the maps.
        rank: terms of structured maps, which the aligner's then have; None keeps the aligner's
            own; "auto" takes the smallest of `ranks_up_to` with which keys and values each lose
            no more than `AUTO_TOLERANCE` of held-out R² against the full map, mean over layers.
        ridge: the ridge strength relative to the mean eigenvalue of the inputs' covariance; None:
            of `fit_maps.RIDGES` the one with the best held-out R² of the full map, layer by layer.

    Returns:
        How good the maps are on the held-out positions. What is chosen on them, ridge and rank,
        flatters map and wrong-sample control alike.

    Raises:
        ValueError: an aligner without maps per layer, or a rank for full ones; traces that are
            not of the aligner's geometry, or do not vary; fewer positions than unknowns per
            output; an empty set.

    Example:
        >>> aligner = MapProjectionAligner(
        ...     num_teacher_layers=4, num_student_layers=2, num_teacher_heads=6,
        ...     num_student_heads=4, teacher_head_dim=16, student_head_dim=16, per_layer=True,
        ... )
        >>> report = calibrate(aligner, paired_traces(teacher, student, batches[8:]),
        ...                    paired_traces(teacher, student, batches[:8]))
    """
    _terms(aligner, rank)
    return fit_from_statistics(
        aligner,
        collect_statistics(aligner, pairs),
        collect_statistics(aligner, held_out),
        rank=rank,
        ridge=ridge,
    )


@torch.no_grad()
def fit_from_statistics(
    aligner: MapProjectionAligner,
    training: Mapping[str, FitStatistics],
    held_out: Mapping[str, FitStatistics],
    *,
    rank: int | str | None = None,
    ridge: float | None = None,
) -> CalibrationReport:
    """Fit the maps to collected statistics: the second half of `calibrate`.

    Args:
        aligner: of the geometry and direction that the statistics were collected for.
        training: the statistics of the pairs to fit to, from `collect_statistics`.
        held_out: the statistics of the pairs to judge on.
        rank: as in `calibrate`.
        ridge: as in `calibrate`.

    Example:
        >>> training, judging = (collect_statistics(aligner, part) for part in (pairs, held_out))
        >>> for rank in (1, 4):
        ...     print(fit_from_statistics(aligner, training, judging, rank=rank))
    """
    projectors = layerwise_projectors(aligner)
    keys = projectors["keys"]
    terms = _terms(aligner, rank)
    parts = _make_parts(aligner, training, held_out, terms, ridge)
    tried: list[RankFit] = []
    if rank == "auto":
        for terms in ranks_up_to(parts[0].full_rank):
            tried.append(_fit_rank(parts, terms))
            if tried[-1].loss <= AUTO_TOLERANCE:
                break
    layers = [fit for part in parts for fit in part.fit(terms, ridge)]
    for name, projector in projectors.items():
        if name not in training and terms is not None and projector.rank != terms:
            projector.set_rank(terms)
            projector.reset_parameters()
    return CalibrationReport(
        direction=aligner.direction,
        rank=terms,
        full_rank=parts[0].full_rank,
        per_head=keys.per_head,
        num_positions=parts[0].training.statistics.num_positions,
        num_held_out=parts[0].held_out.statistics.num_positions,
        num_parameters=sum(
            parameter.numel() for part in parts for parameter in part.projector.parameters()
        ),
        layers=tuple(layers),
        ranks=tuple(tried),
    )


def _terms(aligner: MapProjectionAligner, rank: int | str | None) -> int | None:
    """The requested number of terms; None if it is to be chosen, or if maps are full."""
    keys = layerwise_projectors(aligner)["keys"]
    if rank is None:
        return keys.rank
    if keys.rank is None:
        raise ValueError(
            f"rank={rank!r} does not fit an aligner of full matrices; make it with "
            f"mode='structured', or leave rank out"
        )
    if rank == "auto":
        return None
    if isinstance(rank, str):
        raise ValueError(f"rank={rank!r} must be a number above 0, or 'auto'")
    head_dims(keys).check_rank(rank, keys.per_head)
    return rank


@torch.no_grad()
def sweep_ranks(
    aligner: MapProjectionAligner,
    pairs: Iterable[TracePair],
    held_out: Iterable[TracePair],
    *,
    ranks: Sequence[int] | None = None,
    ridge: float | None = None,
) -> list[RankFit]:
    """Held-out R² of structured maps by their number of terms; the aligner stays as it is.

    Args:
        aligner: structured, made with `per_layer=True`.
        pairs: paired traces that the maps are fitted to.
        held_out: other paired traces, which the maps are judged on.
        ranks: numbers of terms; None: `ranks_up_to` the full rank.
        ridge: as in `calibrate`.

    Raises:
        ValueError: as `calibrate` does.

    Example:
        >>> for fit in sweep_ranks(aligner, pairs, held_out):
        ...     print(fit.rank, fit.num_parameters, fit.mean("keys"), fit.mean("values"))
    """
    if layerwise_projectors(aligner)["keys"].rank is None:
        raise ValueError("full matrices have no ranks to try; use mode='structured'")
    seen = collect_statistics(aligner, pairs), collect_statistics(aligner, held_out)
    parts = _make_parts(aligner, *seen, None, ridge)
    if ranks is None:
        ranks = ranks_up_to(parts[0].full_rank)
    return [_fit_rank(parts, rank) for rank in ranks]


def ranks_up_to(full: int) -> list[int]:
    """Numbers of terms worth trying: 1, 2, 3, 4, 6, 8, 12, 16, … and the full rank itself."""
    steps = sorted({2**power for power in range(32)} | {3 * 2**power for power in range(31)})
    return [*(rank for rank in steps if rank < full), full]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Keys, values or queries: the projector to fit, and the statistics to fit it to."""

    name: str
    projector: LayerwiseProjector
    training: FitStatistics
    held_out: FitStatistics
    full: FittedMap

    @property
    def full_rank(self) -> int:
        return head_dims(self.projector).full_rank(self.projector.per_head)

    def fit(self, rank: int | None, ridge: float | None) -> list[LayerFit]:
        """Fit a map and its controls, judge them, and write the map into the projector."""
        projector, dim = self.projector, self.projector.head_dim_out
        training, right = self.training.own_sample(), self.held_out.own_sample()
        fitted = restrict(self.full, training, projector, rank)
        random = random_map(training, projector, rank)
        others, wrong = self.training.wrong_sample(), self.held_out.wrong_sample()
        shuffled = restrict(fit_full(others, wrong, ridge), others, projector, rank)
        judged = (
            judge(one, seen, dim)
            for one, seen in (
                (fitted, right),
                (self.full, right),
                (shuffled, wrong),
                (random, right),
            )
        )
        _write(projector, fitted)
        return [
            LayerFit(self.name, layer, strength, *qualities)
            for layer, (strength, *qualities) in enumerate(zip(fitted.ridge.tolist(), *judged))
        ]


def _make_parts(
    aligner: MapProjectionAligner,
    training: Mapping[str, FitStatistics],
    held_out: Mapping[str, FitStatistics],
    rank: int | None,
    ridge: float | None,
) -> list[_Part]:
    """Fit the full map of every part; raise an error if it cannot be fitted."""
    projectors = layerwise_projectors(aligner)
    for name, seen in (("calibration", training), ("held-out", held_out)):
        if not seen:
            raise ValueError(f"the {name} set has no valid positions; raise --calibration_samples")
    if training.keys() != held_out.keys():
        raise ValueError(
            f"the calibration set has {', '.join(training)}, but the held-out set "
            f"{', '.join(held_out)}; capture both in the same way"
        )
    for name, collected in training.items():
        _check_enough(name, collected, projectors[name], rank)
    return [
        _Part(
            name=name,
            projector=projectors[name],
            training=collected,
            held_out=held_out[name],
            full=fit_full(collected.own_sample(), held_out[name].own_sample(), ridge),
        )
        for name, collected in training.items()
    ]


def _check_enough(
    name: str, training: FitStatistics, projector: LayerwiseProjector, rank: int | None
) -> None:
    shape = head_dims(projector)
    num_parameters = shape.num_parameters(rank, projector.per_head)
    num_unknowns = min(ceil(num_parameters / shape.dim_out), shape.dim_in + 1)
    num_positions = training.statistics.num_positions
    if num_positions < num_unknowns:
        raise ValueError(
            f"the calibration set has {num_positions} positions, but each output of the map of "
            f"{name} has {num_unknowns} unknowns; raise --calibration_samples"
        )


def _fit_rank(parts: Sequence[_Part], rank: int) -> RankFit:
    """The variance that maps of keys and values with `rank` terms explain."""
    explained, full = {}, {}
    for part in parts:
        if part.name == "queries":
            continue
        judged = part.held_out.own_sample().statistics
        fitted = restrict(part.full, part.training.own_sample(), part.projector, rank)
        explained[part.name] = tuple(r_squared(judged, fitted.weight, fitted.bias).tolist())
        full[part.name] = tuple(r_squared(judged, part.full.weight, part.full.bias).tolist())
    num_parameters = sum(
        part.projector.num_layers
        * head_dims(part.projector).num_parameters(rank, part.projector.per_head)
        for part in parts
    )
    return RankFit(rank, num_parameters, explained, full)


def _write(projector: LayerwiseProjector, fitted: FittedMap) -> None:
    """Write a fitted map into the projector, and set the projector's number of terms."""
    projector.bias.copy_(fitted.bias.view_as(projector.bias))
    if fitted.terms is None:
        projector.weight.copy_(fitted.weight)
    else:
        projector.set_rank(fitted.terms.head_mix.shape[1])
        projector.head_mix.copy_(fitted.terms.head_mix)
        projector.dim_map.copy_(fitted.terms.dim_map)
