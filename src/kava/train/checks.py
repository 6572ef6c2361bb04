"""Checks across the flags of a configuration, such as flags that exclude each other."""

from __future__ import annotations

from kava.flags import flags_of
from kava.train.memory import check_memory
from kava.train.resampling import INTERPOLATED, REASONING_ONLY
from kava.train.settings import Settings
from kava.train.store_checks import check_store
from kava.train.streaming_flags import check_streaming
from kava.train.teacher_names import check_teachers


def check_config(config: Settings) -> None:
    """Check that the values of a configuration fit together.

    Raises:
        ValueError: the first conflict; the message names the flags and the fix.
    """
    _check_latents(config)
    check_teachers(config)
    if config.student == "explicit" and config.codi_weight:
        raise ValueError(
            "--codi_weight needs a latent student: an explicit one reads the same text as its "
            "teacher; pass --codi_weight 0"
        )
    _check_precision(config)
    _check_latent_ce(config)
    _check_reading(config)
    _check_shared_space(config)
    _check_lora(config)
    check_memory(config)
    check_streaming(config)
    _check_something_is_trained(config)
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
    check_store(config)
    _check_resampling(config)
    _check_matching(config)
    if config.max_steps > 0:
        check_warmup(config, config.max_steps)
    if config.kv_scores_path is not None:
        from kava.eviction import EVICTIONS

        if not EVICTIONS[config.kv_method].needs_scores:
            raise ValueError(
                f"--kv_scores_path holds knockout's scores, which --kv_method {config.kv_method} "
                f"does not read; leave it out"
            )
    if not config.eval_size:
        for name in ("eval_first", "eval_train_size"):
            if getattr(config, name):
                raise ValueError(
                    f"--{name} is about evaluations, and --eval_size 0 leaves them out: give it a "
                    f"value above 0"
                )
    if config.resume and config.overwrite:
        raise ValueError("--resume and --overwrite exclude each other")


def _check_lora(config: Settings) -> None:
    if config.adapter_off:
        if config.teachers or config.teacher_name != config.model_name:
            raise ValueError(
                f"--adapter_off makes the student its own teacher: leave out "
                f"{'--teachers' if config.teachers else '--teacher_name'}"
            )
        if not config.lora_r:
            raise ValueError(
                "--adapter_off turns LoRA adapters off to read the teacher, and "
                "there are none: pass --lora_r"
            )
    if config.lora_r:
        if not config.lora_alpha:
            raise ValueError(
                "--lora_alpha 0 scales what the adapters add by 0, so that they learn nothing: "
                "give it a value above 0, or leave it out"
            )
        return
    for name in ("lora_dropout", "lora_targets"):
        if getattr(config, name):
            raise ValueError(
                f"--{name} {getattr(config, name)} is of LoRA adapters: pass --lora_r, their rank"
            )
    if config.lora_alpha and "lora_alpha" not in config.left_out:
        raise ValueError(
            f"--lora_alpha {config.lora_alpha:g} is of LoRA adapters: pass --lora_r, their rank"
        )


def _check_shared_space(config: Settings) -> None:
    if not config.shared_space_weight:
        for name in ("shared_space_dim", "shared_space_loss", "shared_space_fit"):
            value = getattr(config, name)
            if value != flags_of(type(config))[name].default:
                raise ValueError(
                    f"--{name} {value} is read where --shared_space_weight is above 0: give it a "
                    f"value, or leave this out"
                )
        return
    weight = f"--shared_space_weight {config.shared_space_weight:g}"
    refused = {
        "--key_space": config.key_space != "unrotated"
        and f"{config.key_space} leaves the rotation of their positions in the keys",
        "--align_direction": config.align_direction != "teacher_to_student"
        and f"{config.align_direction} compares in the geometry of one teacher",
        "--distill_k_only": config.distill_k_only and "leaves the values out",
        "--distill_v_only": config.distill_v_only and "leaves the keys out",
    }
    for flag, why in refused.items():
        if why:
            raise ValueError(
                f"{weight} encodes un-rotated keys and values in the student's geometry, and "
                f"{flag} {why}: leave one of the two out"
            )
    if config.self_distillation:
        raise ValueError(
            f"{weight} fits encoders to frozen teachers, and this run has none: name a "
            f"--teacher_name or --teachers"
        )


def _check_something_is_trained(config: Settings) -> None:
    weights = {
        "ce_weight": config.ce_weight,
        "kv_weight": config.kv_weight,
        "cka_weight": config.cka_weight,
        "shared_space_weight": config.shared_space_weight,
        "codi_weight": config.codi_weight,
        "latent_ce_weight": config.latent_ce_weight,
        "text_ce_weight": config.text_ce_weight,
        "teacher_ce_weight": config.teacher_ce_weight if config.self_distillation else 0.0,
    }
    if not any(weights.values()):
        raise ValueError(
            f"every weight of the loss is 0, so that nothing would be trained: give one of "
            f"{', '.join(f'--{name}' for name in weights)} a value above 0"
        )


def _check_precision(config: Settings) -> None:
    if config.bf16 and config.fp16:
        raise ValueError("--bf16 and --fp16 exclude each other; leave one out")
    if config.dtype != config.base_dtype and config.teacher_name is None:
        autocast = {"bfloat16": "--bf16", "float16": "--fp16"}[config.dtype]
        why = (
            "gradients do not pass through a base of LoRA adapters in float16; pass --dtype "
            "bfloat16, or"
            if config.lora_r
            else "its student is its own teacher and is trained in float32; pass"
        )
        raise ValueError(
            f"--dtype {config.dtype} is the dtype of a frozen --teacher_name, and this run has "
            f"none: {why} {autocast} to compute in {config.dtype} with float32 weights"
        )


def _check_latent_ce(config: Settings) -> None:
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


def _check_reading(config: Settings) -> None:
    for weight, steps in (("text_ce_weight", "text_ce_steps"), ("inject_weight", "inject_steps")):
        value = getattr(config, weight)
        if value and config.student == "explicit":
            raise ValueError(
                f"--{weight} {value:g} needs a latent student: an explicit one reads the text "
                f"itself; pass --{weight} 0"
            )
        if not value and getattr(config, steps) is not None:
            raise ValueError(
                f"--{steps} {getattr(config, steps)} is read where --{weight} is above 0: give it "
                f"a value, or leave this out"
            )
    if not config.inject_weight:
        return
    weight = f"--inject_weight {config.inject_weight:g}"
    if not config.matches_cache:
        raise ValueError(
            f"{weight} puts the KV target in place of the latents, and this run has none: give "
            f"--kv_weight a value above 0, or pass --inject_weight 0"
        )
    if config.align_direction != "teacher_to_student":
        raise ValueError(
            f"{weight} needs a target of the student's geometry, which --align_direction "
            f"{config.align_direction} does not make: pass --align_direction teacher_to_student"
        )


def _check_maps(config: Settings) -> None:
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
    if config.alignment_mode != "structured" or not config.calibrates:
        raise ValueError(
            f"--map_rank {config.map_rank} is the rank of calibrated structured maps: it needs "
            f"--alignment_mode structured and --aligner_fit calibrated"
        )


def _check_layer_map(config: Settings) -> None:
    if config.layer_mapping is not None:
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


def _check_matching(config: Settings) -> None:
    if config.distill_k_only and config.distill_v_only:
        raise ValueError(
            "--distill_k_only and --distill_v_only exclude each other: pass one, or neither to "
            "match both"
        )
    if config.layer_weight_annealing_steps is not None and config.layer_weight_annealing == "none":
        raise ValueError(
            f"--layer_weight_annealing_steps {config.layer_weight_annealing_steps} is read by "
            f"--layer_weight_annealing alone: pass deep_first or shallow_first too"
        )
    if not config.attention_weighted_kv:
        if config.attention_weighted_warmup:
            raise ValueError(
                f"--attention_weighted_warmup {config.attention_weighted_warmup} is read by "
                f"--attention_weighted_kv alone: pass it too"
            )
        return
    if not config.kv_weight:
        raise ValueError(
            "--attention_weighted_kv weighs the slots of the KV loss, which --kv_weight 0 leaves "
            "out; give it a weight above 0"
        )
    if config.use_segment_resampling:
        raise ValueError(
            "--attention_weighted_kv weighs the positions that are kept, but "
            "--use_segment_resampling reads between them: leave one of the two out"
        )


def _check_resampling(config: Settings) -> None:
    if not config.use_segment_resampling:
        for name, default in (("ratios", REASONING_ONLY), ("alphas", INTERPOLATED)):
            value = getattr(config, f"segment_{name}")
            if value != default:
                raise ValueError(
                    f"--segment_{name} {value} is read by --use_segment_resampling alone: pass "
                    f"it too, or leave this out"
                )
        return
    if config.kv_method != "full":
        raise ValueError(
            f"--use_segment_resampling reads whole segments, of which --kv_method "
            f"{config.kv_method} keeps a part: pass --kv_method full"
        )
    if config.kv_scope not in (None, "model"):
        raise ValueError(
            f"--use_segment_resampling reads the same places in every layer and head: leave out "
            f"--kv_scope {config.kv_scope}"
        )
    ratios, alphas = config.segment_numbers
    smooth = [segment for segment, ratio in ratios.items() if ratio and alphas.get(segment, 1.0)]
    if config.key_space == "rotated" and smooth:
        raise ValueError(
            f"--use_segment_resampling would average keys that carry the rotation of different "
            f"positions: pass --key_space unrotated, or --segment_alphas "
            f"{','.join(f'{segment}:0' for segment in smooth)}"
        )


def _check_latents(config: Settings) -> None:
    if config.target_len == 0 and config.student == "latent" and config.matches_cache:
        raise ValueError(f"--target_len 0 leaves no latent to match: pass {config.no_matching}")
    if config.decoding == "jacobi" and config.jacobi_iterations > config.target_len:
        raise ValueError(
            f"--jacobi_iterations {config.jacobi_iterations} is above --target_len "
            f"{config.target_len}, where it equals sequential decoding; lower it"
        )


def check_warmup(config: Settings, num_steps: int) -> None:
    """Refuse a warm-up that is longer than the run.

    Args:
        config: the run's configuration.
        num_steps: number of optimiser steps of the whole run.

    Raises:
        ValueError: the warm-up is longer than the run.
    """
    for name in ("warmup_steps", "ce_warmup", "attention_weighted_warmup"):
        steps = getattr(config, name)
        if steps > num_steps:
            raise ValueError(
                f"--{name} {steps} is longer than the whole run of {num_steps:,} steps; lower it, "
                f"or train longer"
            )
