"""Fitting maps and layer maps to what two models keep in their caches on the same texts."""

from typing import TYPE_CHECKING

from kava.lazy import lazy_names

if TYPE_CHECKING:
    from kava.fit.aligner import calibrate, fit_from_statistics, sweep_ranks
    from kava.fit.files import Calibration, load_calibration
    from kava.fit.kronecker import fit_kronecker
    from kava.fit.layer_map import LayerMapping, map_layers
    from kava.fit.layer_similarity import LayerSimilarity, measure_layers
    from kava.fit.least_squares import fit_ridge
    from kava.fit.models import calibrate_on, split_held_out
    from kava.fit.moments import PairStatistics, r_squared
    from kava.fit.report import CalibrationReport
    from kava.fit.statistics import collect_statistics

__all__ = [
    "Calibration",
    "CalibrationReport",
    "LayerMapping",
    "LayerSimilarity",
    "PairStatistics",
    "calibrate",
    "calibrate_on",
    "collect_statistics",
    "fit_from_statistics",
    "fit_kronecker",
    "fit_ridge",
    "load_calibration",
    "map_layers",
    "measure_layers",
    "r_squared",
    "split_held_out",
    "sweep_ranks",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Calibration": "kava.fit.files",
        "CalibrationReport": "kava.fit.report",
        "LayerMapping": "kava.fit.layer_map",
        "LayerSimilarity": "kava.fit.layer_similarity",
        "PairStatistics": "kava.fit.moments",
        "calibrate": "kava.fit.aligner",
        "calibrate_on": "kava.fit.models",
        "fit_from_statistics": "kava.fit.aligner",
        "fit_kronecker": "kava.fit.kronecker",
        "fit_ridge": "kava.fit.least_squares",
        "collect_statistics": "kava.fit.statistics",
        "load_calibration": "kava.fit.files",
        "map_layers": "kava.fit.layer_map",
        "measure_layers": "kava.fit.layer_similarity",
        "r_squared": "kava.fit.moments",
        "split_held_out": "kava.fit.models",
        "sweep_ranks": "kava.fit.aligner",
    },
)
