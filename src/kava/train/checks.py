"""What a configuration is held to: ranges, choices, and flags that exclude each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kava.align import ALIGNMENT_MODES, FLAT_VARIANTS, LAYER_MAPS, TOKEN_ALIGNMENTS
from kava.compress import EVICTIONS
from kava.devices import DTYPES, check_device_name
from kava.importance.stages import REACHES
from kava.losses import KV_LOSSES, LAYER_EMPHASES
from kava.student.config import DECODINGS
from kava.trace import SCOPES
from kava.train.matching import check_matching
from kava.train.precision import check_precision
from kava.train.resampling import resampling_of

if TYPE_CHECKING:
    from kava.train.config import TrainConfig

STUDENTS = ("latent", "explicit")
DIRECTIONS = ("teacher_to_student", "student_to_teacher")
KEY_SPACES = ("unrotated", "rotated", "student")
ALIGNER_FITS = ("calibrated", "frozen", "joint", "calibrated_joint")


def check_config(config: TrainConfig) -> None:
    """Hold every value to its range, and values to each other.

    Raises:
        ValueError: the first that does not fit; the message names the flag and the mend.
    """
    _check_choices(config)
    _check_ranges(config)
    if config.student == "explicit" and config.codi_weight:
        raise ValueError(
            "--codi_weight needs a latent student: an explicit one reads the same text as its "
            "teacher; pass --codi_weight 0"
        )
    check_precision(config)
    _check_latent_ce(config)
    if config.student == "explicit" and config.teacher_name is None and config.matches_cache:
        raise ValueError(
            "an explicit student that is its own teacher would match its own cache, which "
            f"carries no information: name a --teacher_name or pass {config.no_matching}"
        )
    if config.alignment_mode != "identity" and config.kv_scope == "head":
        raise ValueError(
            f"--alignment_mode {config.alignment_mode} mixes heads, which --kv_scope head would "
            f"fill with other positions: pass --kv_scope model"
        )
    _check_maps(config)
    _check_layer_map(config)
    if (
        config.token_alignment == "none"
        and config.student == "explicit"
        and not config.use_segment_resampling
    ):
        raise ValueError(
            "--token_alignment none keeps the teacher's own positions, which an explicit "
            "student does not have: choose hard or soft, or add --use_segment_resampling"
        )
    if config.key_space == "student" and config.align_direction != "teacher_to_student":
        raise ValueError(
            f"--key_space student rotates the target as the student's keys are, but "
            f"--align_direction {config.align_direction} compares them as the teacher's: pass "
            f"--key_space unrotated"
        )
    resampling_of(config)
    check_matching(config)
    if config.kv_scores_path is not None and not EVICTIONS[config.kv_method].needs_scores:
        raise ValueError(
            f"--kv_scores_path holds knockout's scores, which --kv_method {config.kv_method} "
            f"does not read; leave it out"
        )
    if config.resume and config.overwrite:
        raise ValueError("--resume and --overwrite exclude each other")


def _check_latent_ce(config: TrainConfig) -> None:
    if not config.latent_ce_weight:
        return
    weight = f"--latent_ce_weight {config.latent_ce_weight:g}"
    if config.student == "explicit":
        raise ValueError(
            f"{weight} needs a latent student: an explicit one has no latents to read; pass "
            f"--latent_ce_weight 0"
        )
    if config.target_len == 0:
        raise ValueError(f"{weight}: --target_len 0 leaves no latent to read; raise it")
    if config.decoding == "jacobi" and config.jacobi_iterations == 0:
        raise ValueError(
            f"{weight}: with --jacobi_iterations 0 the latents are pause tokens, made of no "
            f"hidden state that could be read; pass 1 or more"
        )


def _check_maps(config: TrainConfig) -> None:
    if config.flat_variant is not None and config.flat_variant not in FLAT_VARIANTS:
        raise ValueError(
            f"--flat_variant {config.flat_variant!r} is unknown; choose {', '.join(FLAT_VARIANTS)}"
        )
    if config.calibrates and config.flat_variant not in (None, "linear"):
        raise ValueError(
            f"--flat_variant {config.flat_variant} cannot be fitted in closed form: pass "
            f"--flat_variant linear, or --aligner_fit frozen or joint"
        )
    if config.align_direction != "teacher_to_student" and config.alignment_mode == "identity":
        raise ValueError(
            f"--align_direction {config.align_direction} maps one geometry onto another, but "
            f"--alignment_mode identity maps none: choose structured or flat"
        )
    if config.map_rank is None:
        return
    if not (config.map_rank == "auto" or (config.map_rank.isdigit() and int(config.map_rank) > 0)):
        raise ValueError(f"--map_rank {config.map_rank!r} must be a number above 0, or auto")
    if config.alignment_mode != "structured" or not config.calibrates:
        raise ValueError(
            f"--map_rank {config.map_rank} is the rank of calibrated structured maps: it needs "
            f"--alignment_mode structured and --aligner_fit calibrated"
        )


def _check_layer_map(config: TrainConfig) -> None:
    if config.layer_mapping is not None:
        if config.layer_mapping not in LAYER_MAPS:
            raise ValueError(
                f"--layer_mapping {config.layer_mapping!r} is unknown; choose "
                f"{', '.join(LAYER_MAPS)}, or give a file with --layer_mapping_path"
            )
        for name in ("use_cka_layer_mapping", "layer_mapping_path"):
            if getattr(config, name):
                raise ValueError(
                    f"--layer_mapping {config.layer_mapping} and --{name} each name a layer "
                    f"map: leave one out"
                )
    if config.measures_layers and config.alignment_mode == "identity":
        raise ValueError(
            "--use_cka_layer_mapping chooses among a teacher's layers, but --alignment_mode "
            "identity matches each layer with its own: choose structured or flat"
        )


def _check_choices(config: TrainConfig) -> None:
    choices: dict[str, tuple[str, ...]] = {
        "student": STUDENTS,
        "decoding": DECODINGS,
        "kv_method": tuple(EVICTIONS),
        "knockout_reach": REACHES,
        "alignment_mode": ALIGNMENT_MODES,
        "aligner_fit": ALIGNER_FITS,
        "align_direction": DIRECTIONS,
        "token_alignment": TOKEN_ALIGNMENTS,
        "key_space": KEY_SPACES,
        "kv_loss": tuple(KV_LOSSES),
        "layer_weight_annealing": LAYER_EMPHASES,
        "overflow": ("error", "skip"),
        "reasoning_form": ("text", "annotated", "equations"),
        "dtype": DTYPES,
    }
    for name, allowed in choices.items():
        value = getattr(config, name)
        if value not in allowed:
            raise ValueError(f"--{name} {value!r} is unknown; choose {', '.join(allowed)}")
    check_device_name(config.device)
    if config.kv_scope is not None and config.kv_scope not in SCOPES:
        raise ValueError(f"--kv_scope {config.kv_scope!r} is unknown; choose {', '.join(SCOPES)}")


def _check_ranges(config: TrainConfig) -> None:
    positive = (
        "epochs", "batch_size", "calibration_samples", "gradient_accumulation_steps", "lr",
        "max_length",
        "logging_steps", "save_steps", "eval_steps", "eval_batch_size", "max_new_tokens",
    )  # fmt: skip
    for name in positive:
        if not getattr(config, name) > 0:
            raise ValueError(f"--{name} {getattr(config, name)} must be above 0")
    not_negative = (
        "target_len", "jacobi_iterations", "projection_dropout", "eval_size", "kv_weight",
        "codi_weight", "latent_ce_weight", "ce_weight", "teacher_ce_weight", "alpha_k", "alpha_v",
        "alpha_attn",
        "cka_weight", "attention_weighted_warmup", "warmup_steps", "weight_decay",
        "max_grad_norm",
    )  # fmt: skip
    for name in not_negative:
        if getattr(config, name) < 0:
            raise ValueError(f"--{name} {getattr(config, name)} must not be negative")
    if config.save_total_limit is not None and config.save_total_limit < 0:
        raise ValueError(
            f"--save_total_limit {config.save_total_limit} must not be negative; 0 keeps all"
        )
    for name in ("subset_size", "layer_weight_annealing_steps"):
        if getattr(config, name) is not None and getattr(config, name) < 1:
            raise ValueError(f"--{name} {getattr(config, name)} must be above 0")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"--seed {config.seed} must lie between 0 and 2**32 - 1")
    if config.target_len == 0 and config.student == "latent" and config.matches_cache:
        raise ValueError(f"--target_len 0 leaves no latent to match: pass {config.no_matching}")
    if config.decoding == "jacobi" and config.jacobi_iterations > config.target_len:
        raise ValueError(
            f"--jacobi_iterations {config.jacobi_iterations} is above --target_len "
            f"{config.target_len}, where it equals sequential decoding; lower it"
        )
