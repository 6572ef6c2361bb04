"""Calibration of an aligner on texts that two models read; the mathematics is in `kava.align`."""

from kava.calibration.files import Calibration, load_calibration
from kava.calibration.fit import calibrate_on, set_apart

__all__ = ["Calibration", "calibrate_on", "load_calibration", "set_apart"]
