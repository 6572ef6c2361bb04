"""Flags of `kava train`: the target that is made from the teacher's cache."""

from __future__ import annotations

from dataclasses import dataclass

from kava import names
from kava.flags import flag
from kava.models.limits import check_map_rank
from kava.train.resampling import INTERPOLATED, REASONING_ONLY, check_alphas, check_ratios


@dataclass(kw_only=True)
class TargetSettings:
    """Which positions of the teacher's cache are kept, and how they are mapped to the student's."""

    kv_method: str = flag(
        "rkv",
        "which positions are kept",
        choices=names.EVICTION_NAMES,
        group="compression",
    )
    kv_scope: str | None = flag(
        None,
        "how widely kept positions are shared; left out, the method's own",
        choices=names.SCOPES,
    )
    rkv_lambda: float | None = flag(
        None,
        "weight of importance against redundancy in rkv and rkv_official; left out: theirs",
        least=0,
        most=1,
    )
    knockout_reach: str = flag(
        "later_steps",
        "knockout: whose loss counts when a position is hidden. later_steps: that of later steps "
        "and of the answer's value; all: that of every later token",
        choices=names.REACHES,
    )
    kv_scores_path: str | None = flag(
        None,
        "file of knockout's scores: read where it is there, made and completed where not; left "
        "out: kv_scores.safetensors in output_dir",
    )
    alignment_mode: str = flag(
        None,
        "how the teacher's cache is brought to the student's geometry; identity needs equal ones",
        choices=names.ALIGNMENT_MODES,
        unset="structured where another model teaches, else identity",
        group="alignment",
    )
    map_proj_share_dim: bool = flag(False, "structured: one dim map for all heads")
    map_proj_init_uniform: bool = flag(
        False,
        "structured: start from uniform head groups and identity dims, not at random; decides "
        "frozen and joint maps, a fitted one does not depend on its start",
    )
    flat_variant: str | None = flag(
        None,
        "flat: elastic, linear or residual projector; left out: elastic, and linear where maps "
        "are calibrated, which is what least squares can fit",
        choices=names.FLAT_VARIANTS,
    )
    layer_mapping: str | None = flag(
        None,
        "which teacher layers a student layer matches, by depth; left out: ratio",
        choices=names.LAYER_MAP_NAMES,
    )
    use_cka_layer_mapping: bool = flag(
        False,
        "match layers by how alike they are (CKA): the map of layer_mapping_path or, without one, "
        "measured before training on calibration_samples",
    )
    layer_mapping_path: str | None = flag(
        None, "a layer map's file, such as kava layer-map writes; takes the place of layer_mapping"
    )
    aligner_fit: str = flag(
        "calibrated",
        "calibrated: per-layer maps fitted in closed form on texts that both models read, then "
        "frozen; frozen: the maps keep their start; joint: they learn beside the student, which "
        "can collapse (the run logs the wrong-sample control); calibrated_joint: fitted, then "
        "joint. identity alignment has nothing to fit",
        choices=names.ALIGNER_FITS,
    )
    align_direction: str = flag(
        "teacher_to_student",
        "where caches are compared: teacher_to_student maps the teacher's cache; "
        "student_to_teacher maps the student's, so that the target cannot collapse",
        choices=names.ALIGN_DIRECTIONS,
    )
    map_rank: str | None = flag(
        None,
        "structured, calibrated: number of head-mix ⊗ dim-map terms per layer, or auto (the "
        "smallest whose held-out R² is near the full map's); left out: 1",
        check=check_map_rank,
    )
    calibration_samples: int = flag(1000, "training samples that the aligner is fitted on", least=1)
    token_alignment: str = flag(
        "hard",
        "a teacher with another tokenizer: hard takes the teacher's position where the student's "
        "token is complete, soft the mean over the positions it covers, none (latent students) "
        "keeps the teacher's own positions",
        choices=names.TOKEN_ALIGNMENTS,
    )
    key_space: str = flag(
        "unrotated",
        "compare keys unrotated (rotary embedding taken out), rotated (as both models cache them) "
        "or student (the teacher's taken out, aligned, and rotated as the student's are cached)",
        choices=names.KEY_SPACES,
    )
    use_segment_resampling: bool = flag(
        False,
        "warp the teacher's segments (0 prompt, 1 reasoning, 2 answer) to the student's slots, "
        "each by itself, in place of evicting positions; needs --kv_method full",
    )
    segment_ratios: str = flag(
        REASONING_ONLY,
        "slots for each position of a segment, as 0:1.0,1:0.5,2:1.0; segments that are not named "
        "are left out. Latents are shared out in these proportions",
        check=check_ratios,
    )
    segment_alphas: str = flag(
        INTERPOLATED,
        "how smoothly a segment is read between its positions: 0 the nearest, 1 interpolated",
        check=check_alphas,
    )
