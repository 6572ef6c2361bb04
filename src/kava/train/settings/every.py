"""All flags of `kava train`, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kava.train.resampling import parse_segment_numbers
from kava.train.settings.data import DataSettings
from kava.train.settings.losses import LossSettings
from kava.train.settings.models import ModelSettings
from kava.train.settings.optimisation import OptimisationSettings
from kava.train.settings.run import RunSettings
from kava.train.settings.target import TargetSettings

if TYPE_CHECKING:
    from kava.align.time.resample import SegmentResampling


class LeftOut:
    """What was left out of a configuration, beside its settings and no part of them.

    Attributes:
        left_out: the names of such settings, and why the value is not the usual one; empty where
            it is.
    """

    __slots__ = ("left_out",)
    left_out: dict[str, str]


# a dataclass takes the fields of its last base first: `--help` begins with the models
@dataclass(kw_only=True)
class Settings(
    RunSettings,
    OptimisationSettings,
    LossSettings,
    TargetSettings,
    DataSettings,
    ModelSettings,
    LeftOut,
):
    """The flags, unchecked; `kava.train.config.TrainConfig` holds them to one another."""

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
    def needs_teacher(self) -> bool:
        """Whether a teacher's forward is part of the step."""
        if self.matches_cache or self.codi_weight:
            return True
        return self.student == "latent" and self.self_distillation and self.teacher_ce_weight > 0

    @property
    def segment_numbers(self) -> tuple[dict[int, float], dict[int, float]]:
        """`--segment_ratios` and `--segment_alphas`, by segment."""
        return (
            parse_segment_numbers(self.segment_ratios, "--segment_ratios"),
            parse_segment_numbers(self.segment_alphas, "--segment_alphas"),
        )

    @property
    def resampling(self) -> SegmentResampling | None:
        """How the teacher's segments are warped to the student's slots, if they are."""
        if not self.use_segment_resampling:
            return None
        from kava.align.time.resample import SegmentResampling

        ratios, alphas = self.segment_numbers
        return SegmentResampling(ratios=ratios, alphas=alphas)
