"""What `kava calibrate` leaves behind, and reading it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from kava.align import CalibrationReport, MapProjectionAligner
from kava.files import write_whole
from kava.inputs import read_json

REPORT_FILE = "calibration.json"
ALIGNER_FILE = "aligner.safetensors"


class Calibration(NamedTuple):
    """A calibrated aligner and what is known of it."""

    aligner: MapProjectionAligner
    facts: dict[str, Any]
    """The models, the data, and the report's numbers under "report"."""


def save_calibration(
    folder: str | Path,
    aligner: MapProjectionAligner,
    options: Mapping[str, Any],
    report: CalibrationReport,
    facts: Mapping[str, Any],
) -> None:
    """Write the aligner and the report.

    Args:
        folder: made where it is not there.
        aligner: calibrated.
        options: what the aligner was made with, as JSON can hold it.
        report: of its calibration.
        facts: models, data, versions.

    Raises:
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: part.detach().contiguous() for name, part in aligner.state_dict().items()}
    save_file(state, folder / ALIGNER_FILE)
    known = {**facts, "aligner": dict(options), "report": report.as_dict()}
    write_whole(folder / REPORT_FILE, json.dumps(known, indent=2) + "\n")


def load_calibration(folder: str | Path) -> Calibration:
    """Read what `kava calibrate` wrote.

    Raises:
        OSError: a file is missing or damaged.

    Example:
        >>> aligner, facts = load_calibration("outputs/calibration")
        >>> facts["report"]["rank"]
        6
    """
    folder = Path(folder)
    for name in (REPORT_FILE, ALIGNER_FILE):
        if not (folder / name).is_file():
            raise OSError(f"{folder} has no {name}: it is no output folder of kava calibrate")
    try:
        facts = read_json(folder / REPORT_FILE)
        state = load_file(folder / ALIGNER_FILE)
        aligner = MapProjectionAligner(**facts["aligner"])
        aligner.load_state_dict(state)
    except (SafetensorError, RuntimeError, TypeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise OSError(f"{folder} is damaged ({reason}); run kava calibrate again") from error
    return Calibration(aligner, facts)
