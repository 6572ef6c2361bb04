"""Calibration of an aligner on texts that two models read; the mathematics is in `kava.align`."""

from typing import TYPE_CHECKING

from kava.lazy import lazy_names

if TYPE_CHECKING:
    from kava.calibration.files import Calibration, load_calibration
    from kava.calibration.fit import calibrate_on, set_apart

__all__ = ["Calibration", "calibrate_on", "load_calibration", "set_apart"]

__getattr__ = lazy_names(
    __name__,
    {
        "Calibration": "kava.calibration.files",
        "calibrate_on": "kava.calibration.fit",
        "load_calibration": "kava.calibration.files",
        "set_apart": "kava.calibration.fit",
    },
)
