"""The files that `kava calibrate` writes, and how to load them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from kava.align import MapProjectionAligner
from kava.files.write import write_all
from kava.fit.report import CalibrationReport
from kava.inputs import read_json
from kava.models.weights import check_finite

REPORT_FILE = "calibration.json"
ALIGNER_FILE = "aligner.safetensors"


class Calibration(NamedTuple):
    """A calibrated aligner and its metadata."""

    aligner: MapProjectionAligner
    facts: dict[str, Any]
    """The models, the data, and the report's numbers under "report"."""


def save_calibration(
    folder: str | Path,
    aligner: MapProjectionAligner,
    options: Mapping[str, Any],
    report: CalibrationReport,
    facts: Mapping[str, Any],
    pictures: Mapping[str, bytes] | None = None,
) -> None:
    """Write the aligner, its pictures and the report: all of them, or none.

    Args:
        folder: made where it is not there.
        aligner: calibrated.
        options: what the aligner was made with, as JSON can hold it.
        report: of its calibration.
        facts: models, data, versions.
        pictures: name → PNG, of those that go beside them.

    Raises:
        OSError: a file cannot be written; what was in the folder is as it was.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: part.detach().contiguous() for name, part in aligner.state_dict().items()}
    known = {**facts, "aligner": dict(options), "report": report.as_dict()}
    images = {folder / f"{name}.png": png for name, png in (pictures or {}).items()}
    text = json.dumps(known, indent=2) + "\n"
    write_all({folder / ALIGNER_FILE: save(state), **images, folder / REPORT_FILE: text})


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
        check_finite(state.items(), folder / ALIGNER_FILE)
        aligner = MapProjectionAligner(**facts["aligner"])
        aligner.load_state_dict(state)
    except (SafetensorError, RuntimeError, TypeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise OSError(f"{folder} is damaged ({reason}); run kava calibrate again") from error
    return Calibration(aligner, facts)
