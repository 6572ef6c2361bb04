"""The configuration of a training run: one flat dataclass, one help text per field.

The same keys serve as command-line flags (`--kv_weight 5`), as keys of a YAML file (`--config`)
and as arguments in Python. Flags win over the file; an unknown key is refused in all three. The
fields stand in `kava.train.settings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kava.flags import check_fields
from kava.train.checks import check_config
from kava.train.defaults import LeftOut, settle
from kava.train.resampling import resampling_of
from kava.train.settings import (
    DataSettings,
    LossSettings,
    ModelSettings,
    OptimisationSettings,
    RunSettings,
    TargetSettings,
)

if TYPE_CHECKING:
    from kava.align.resample import SegmentResampling


# a dataclass takes the fields of its last base first: `--help` begins with the models
@dataclass(kw_only=True)
class TrainConfig(
    RunSettings,
    OptimisationSettings,
    LossSettings,
    TargetSettings,
    DataSettings,
    ModelSettings,
    LeftOut,
):
    """Everything that decides a run.

    Raises:
        ValueError: a value outside its range, or values that exclude each other; the message
            names the flag.

    Example:
        >>> TrainConfig(model_name="kava/tiny-gpt2", output_dir="outputs/x", target_len=4)
    """

    def __post_init__(self) -> None:
        check_fields(self)
        self.left_out = settle(self)
        check_config(self)

    @property
    def self_distillation(self) -> bool:
        """Whether the student's own weights are the teacher."""
        return self.teacher_name is None

    @property
    def calibrates(self) -> bool:
        """Whether the aligner is fitted before training."""
        return self.alignment_mode != "identity" and self.aligner_fit.startswith("calibrated")

    @property
    def trains_aligner(self) -> bool:
        """Whether the aligner learns beside the student."""
        return self.alignment_mode != "identity" and self.aligner_fit.endswith("joint")

    @property
    def trains_target(self) -> bool:
        """Whether the target moves while the student learns, so that the two can collapse."""
        return self.trains_aligner and self.align_direction == "teacher_to_student"

    @property
    def measures_layers(self) -> bool:
        """Whether the layer map is measured before training."""
        return self.use_cka_layer_mapping and self.layer_mapping_path is None

    @property
    def matches_cache(self) -> bool:
        """Whether the student's cache is compared with the teacher's."""
        return self.kv_weight > 0 or self.cka_weight > 0

    @property
    def no_matching(self) -> str:
        """The flag that leaves that comparison out."""
        return "--kv_weight 0" if self.kv_weight else "--cka_weight 0"

    @property
    def unrotates(self) -> bool:
        """Whether the teacher's keys are aligned without their rotation."""
        return self.key_space != "rotated"

    @property
    def resampling(self) -> SegmentResampling | None:
        """How the teacher's segments are warped to the student's slots, if they are."""
        return resampling_of(self)

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher's forward is part of the step."""
        if self.matches_cache or self.codi_weight:
            return True
        return self.student == "latent" and self.self_distillation and self.teacher_ce_weight > 0


# what a resumed run may change without becoming another run
RESUMABLE = frozenset(
    {"resume", "resume_from", "overwrite", "no_progress", "output_dir", "device"}
    | {"save_steps", "save_total_limit", "save_only_model", "kv_scores_path"}
)
