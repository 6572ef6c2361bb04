"""What is profiled where nothing is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT_STUDENT = "kava/tiny-gpt2"
LARGER_TEACHER = "larger kava/tiny-gpt2"
"""The default teacher: beside a model of equal geometry an aligner has nothing to do."""

DEFAULTS: Mapping[str, Any] = {
    "model_name": DEFAULT_STUDENT,
    "dataset_name": "kava/shell-game?num_train=64",
    "alignment_mode": "structured",
    "map_proj_share_dim": True,
    "map_proj_init_uniform": True,
}
