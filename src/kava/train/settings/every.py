"""All flags of `kava train`, and properties derived from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kava.train.resampling import parse_segment_numbers
from kava.train.settings.data import DataSettings
from kava.train.settings.lora import LoraSettings
from kava.train.settings.losses import LossSettings
from kava.train.settings.memory import MemorySettings
from kava.train.settings.models import ModelSettings
from kava.train.settings.optimisation import AUTO_BATCH, OptimisationSettings
from kava.train.settings.run import RunSettings
from kava.train.settings.store import StoreSettings
from kava.train.settings.target import TargetSettings
from kava.train.settings.teachers import TeachersSettings

if TYPE_CHECKING:
    from kava.align.time.resample import SegmentResampling


class LeftOut:
    """The settings that the user left out; not part of the settings themselves.

    Attributes:
        left_out: the names of such settings, and why the value is not the usual one; an empty
            reason if it is.
    """

    __slots__ = ("left_out",)
    left_out: dict[str, str]


# a dataclass takes the fields of its last base first: `--help` begins with the models
@dataclass(kw_only=True)
class Settings(
    RunSettings,
    MemorySettings,
    OptimisationSettings,
    LossSettings,
    StoreSettings,
    TargetSettings,
    TeachersSettings,
    DataSettings,
    LoraSettings,
    ModelSettings,
    LeftOut,
):
    """The flags, unchecked; `kava.train.config.TrainConfig` checks them against each other."""

    @property
    def auto_batch(self) -> bool:
        """Whether the batch size is still to be found."""
        return self.batch_size == AUTO_BATCH

    @property
    def self_distillation(self) -> bool:
        """Whether the student's own weights are the teacher."""
        return self.teacher_name is None

    @property
    def base_dtype(self) -> str:
        """The dtype of the student's language model: bfloat16 where it is frozen and asked for."""
        return "bfloat16" if self.lora_r and self.dtype == "bfloat16" else "float32"

    @property
    def calibrates(self) -> bool:
        """Whether the aligner is fitted before training."""
        return self.alignment_mode != "identity" and self.aligner_fit.startswith("calibrated")

    @property
    def trains_aligner(self) -> bool:
        """Whether the aligner is trained together with the student."""
        return self.alignment_mode != "identity" and self.aligner_fit.endswith("joint")

    @property
    def trains_target(self) -> bool:
        """Whether the target changes during training, so that student and target can collapse."""
        return self.trains_aligner and self.align_direction == "teacher_to_student"

    @property
    def measures_layers(self) -> bool:
        """Whether the layer map is measured before training."""
        return self.use_cka_layer_mapping and self.layer_mapping_path is None

    @property
    def matches_cache(self) -> bool:
        """Whether the student's cache is compared with the teacher's."""
        return self.kv_weight > 0 or self.cka_weight > 0 or self.shared_space_weight > 0

    @property
    def several(self) -> bool:
        """Whether more than one teacher teaches."""
        return self.teachers is not None and len(self.teachers) > 1

    @property
    def trains_space(self) -> bool:
        """Whether the encoders of a shared space learn beside the student."""
        return self.shared_space_weight > 0 and self.shared_space_fit == "joint"

    @property
    def trains_router(self) -> bool:
        """Whether a router is trained beside the student."""
        return self.several and self.fusion == "learnable"

    @property
    def trains_fusion(self) -> bool:
        """Whether the KV loss sends a gradient into the weights of the teachers."""
        return self.trains_router and self.router_learning == "gradient"

    @property
    def no_matching(self) -> str:
        """The flag that turns this comparison off."""
        weights = ("kv_weight", "cka_weight", "shared_space_weight")
        return " ".join(f"--{name} 0" for name in weights if getattr(self, name)) or "--kv_weight 0"

    @property
    def unrotates(self) -> bool:
        """Whether the teacher's keys are aligned without their rotary embedding."""
        return self.key_space != "rotated"

    @property
    def needs_teacher(self) -> bool:
        """Whether a training step includes a forward pass of a teacher."""
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
        """How the teacher's segments are warped to the student's slots; None if they are not."""
        if not self.use_segment_resampling:
            return None
        from kava.align.time.resample import SegmentResampling

        ratios, alphas = self.segment_numbers
        return SegmentResampling(ratios=ratios, alphas=alphas)
