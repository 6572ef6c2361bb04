"""Defaults that depend on other settings, used for flags that are left out.

    alignment_mode   structured where another model teaches, else identity
    keep_short       on if the problems of a built-in task differ in steps, else off
    target_len       6, or the number of reasoning tokens of a built-in task if smaller
    text_ce_weight   1 for latents that a frozen teacher teaches, else 0
    text_ce_steps    and inject_steps: 80 % of the run
    kava train       with no model and no data named: the recipe of the built-in game; with no
                     model and the built-in word problems: theirs

Another model is the teacher if `--teacher_name` names another checkpoint than `--model_name` and a
loss reads its cache or hidden states. The same name twice, or two paths to one folder, mean one
checkpoint: its caches need no map.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from kava.dataset_names import (
    WORD_BY_WORD,
    WORD_PROBLEMS_NAME,
    builtin_options,
    builtin_task,
)
from kava.flags import flags_of
from kava.train.settings import Settings
from kava.train.settings.lora import ADAPTER_OFF
from kava.train.settings.teachers import TeachersSettings
from kava.train.teacher_names import teachers_of

USUAL_TARGET_LEN = 6
FADING_PART = 0.8
"""Of a run's steps, after how many a term fades that is of use at its beginning."""
BEFORE: Mapping[str, Any] = {
    "fp16": False, "text_ce_weight": 0.0, "text_ce_steps": None, "ce_warmup": 0,
    "inject_weight": 0.0, "inject_steps": None, "start_from": None, "eval_first": False,
    "eval_train_size": 0, "shared_space_weight": 0.0, "shared_space_dim": 32,
    "shared_space_loss": "cosine", "shared_space_fit": "calibrated", "thought_positions": "own",
    **{name: setting.default for name, setting in flags_of(TeachersSettings).items()},
    "lora_r": 0, "lora_alpha": 0.0, "lora_dropout": 0.0, "lora_targets": None, "adapter_off": False,
    "gradient_checkpointing": False, "lr_projector": None,
    "chat_template": "none", "gguf_file": None, "teacher_gguf_file": None,
    "teacher_chat_templates": None,
    "teacher_quantization": None, "teacher_offload": False, "optim": "adamw_torch_fused",
    "effective_batch_size": None, "streaming": False, "shuffle_buffer": 1000,
    "store": None, "store_tier": "targets", "capture_chunk": None,
    "cache_budget": None, "cache_sinks": None, "cache_recent": None, "cache_scores": "rkv",
}  # fmt: skip
"""Flags that runs of an earlier version do not record, and what held then."""

GAME_RECIPE: Mapping[str, Any] = {
    "teacher_name": "kava/shell-teacher",
    "kv_method": "full",
    "kv_weight": 5.0,
    "kv_layer_std": True,
    "lr": 1e-3,
    "warmup_steps": 100,
    "batch_size": 64,
    "max_steps": 500,
    "max_length": 64,
    "max_new_tokens": 3,
    "eval_size": 250,
    "eval_steps": 100,
    "logging_steps": 50,
}
"""Settings with which the built-in teacher learns the built-in game in latent tokens."""

WORD_RECIPE: Mapping[str, Any] = {
    **GAME_RECIPE,
    "model_name": "kava/word-teacher",
    "teacher_name": "kava/word-teacher",
    "ce_weight": 0.1,
    "max_length": 128,
    "max_new_tokens": 8,
}
"""With which the built-in teacher learns to solve word problems in latent tokens.

It is evaluated on their test split, whose phrasings differ from those of training."""

WHAT_IS_TRAINED = frozenset(
    {"model_name", "teacher_name", "teachers", "student", "target_len", "dataset_name"}
    | {"keep_short", "overflow"}
)
"""The recipe does not apply if one of these is given."""

NOTHING_NAMED = "no model and no data are named: the built-in teacher learns the built-in game"
NO_MODEL_NAMED = "no model is named: the built-in teacher learns the built-in word problems"


def settle(config: Settings) -> dict[str, str]:
    """Fill in what was left out.

    Args:
        config: the configuration; fields that were left out are None, and are set here.

    Returns:
        `Settings.left_out`.
    """
    left_out: dict[str, str] = {}
    if config.auto_batch:  # a run that goes on takes the size that was found
        left_out |= {"batch_size": "", "gradient_accumulation_steps": ""}
    elif config.effective_batch_size is not None:
        accumulate(config)
    if config.teachers and config.teacher_name is None:
        # what needs one teacher alone, such as CKA with the layers of a map, reads the first
        config.teacher_name = teachers_of(config)[0].model
    if config.teacher_name == ADAPTER_OFF:
        config.adapter_off, config.teacher_name = True, None
    if config.adapter_off and config.teacher_name is None and not config.teachers:
        config.teacher_name = config.model_name
    if config.lora_alpha is None:
        config.lora_alpha = 2.0 * config.lora_r
        left_out["lora_alpha"] = ""
    if config.alignment_mode is None:
        config.alignment_mode, left_out["alignment_mode"] = _mode(config)
    if config.keep_short is None:
        config.keep_short, left_out["keep_short"] = _keep_short(config)
    if config.target_len is None:
        config.target_len, left_out["target_len"] = _target_len(config)
    if config.text_ce_weight is None:
        config.text_ce_weight = 1.0 if _needs_reader(config) else 0.0
        left_out["text_ce_weight"] = ""
    return left_out


def accumulate(config: Settings) -> None:
    """Set the batches of an optimiser step to what the effective batch asks for.

    Raises:
        ValueError: a batch size that does not divide it, or batches that are given too.
    """
    whole, size = config.effective_batch_size, config.batch_size
    if whole is None:
        return
    if whole % size:
        raise ValueError(
            f"--effective_batch_size {whole} is no multiple of --batch_size {size}: choose one "
            f"that is"
        )
    if config.gradient_accumulation_steps not in (1, whole // size):
        raise ValueError(
            f"--effective_batch_size {whole} and --gradient_accumulation_steps "
            f"{config.gradient_accumulation_steps} both say how many batches a step has: leave "
            f"one out"
        )
    config.gradient_accumulation_steps = whole // size


def steps_to_fade(given: int | None, num_steps: int) -> int:
    """Steps after which a fading term has faded.

    Args:
        given: by its flag, if it is.
        num_steps: of the whole run.
    """
    return max(round(FADING_PART * num_steps), 1) if given is None else given


def _needs_reader(config: Settings) -> bool:
    """Whether the student learns latents from a teacher whose pass does not train it to read."""
    latent = config.student == "latent" and config.target_len > 0
    taught = config.matches_cache or config.codi_weight > 0
    return latent and taught and config.teacher_name is not None


def _mode(config: Settings) -> tuple[str, str]:
    reads_teacher = config.matches_cache or config.codi_weight > 0
    if config.several and config.matches_cache:
        return "structured", f"{len(config.teachers or ())} teachers teach"
    if not reads_teacher or is_same_checkpoint(config.model_name, config.teacher_name):
        return "identity", ""
    return "structured", f"{config.teacher_name} is another model than {config.model_name}"


def is_same_checkpoint(student: str, teacher: str | None) -> bool:
    """Whether the teacher is the checkpoint that the student starts from.

    Example:
        >>> is_same_checkpoint("gpt2", None), is_same_checkpoint("gpt2", "gpt2-medium")
        (True, False)
    """
    if teacher is None or student.rstrip("/") == teacher.rstrip("/"):
        return True
    return os.path.exists(student) and os.path.realpath(student) == os.path.realpath(teacher)


def _keep_short(config: Settings) -> tuple[bool, str]:
    words = _reasoning_words(config)
    if words is None or words[0] == words[1]:
        return False, ""
    return True, f"{config.dataset_name} has {words[0]} to {words[1]} reasoning tokens"


def _target_len(config: Settings) -> tuple[int, str]:
    words = _reasoning_words(config)
    if words is None or config.overflow != "error":
        return USUAL_TARGET_LEN, ""
    fewest, most = words
    alike = fewest == most
    if config.keep_short and alike:
        return USUAL_TARGET_LEN, ""
    needed = most if config.keep_short else fewest
    if not 0 < needed < USUAL_TARGET_LEN:
        return USUAL_TARGET_LEN, ""
    told = f"{most}" if alike else f"{fewest} to {most}"
    return needed, f"{config.dataset_name} has {told} reasoning tokens"


def _reasoning_words(config: Settings) -> tuple[int, int] | None:
    """Fewest and most reasoning tokens, where a built-in model reads its task word by word."""
    task = builtin_task(config.dataset_name)
    matched = config.student == "latent" or config.matches_cache
    if not matched or task is None or config.model_name not in WORD_BY_WORD[task]:
        return None
    return builtin_options(config.dataset_name).reasoning_words(config.keep_last_step)


def default_lines(config: Settings) -> list[str]:
    """The lines printed at the start of a run: unusual values of flags that were left out.

    Example:
        >>> default_lines(TrainConfig(model_name="gpt2", teacher_name="gpt2-medium"))
        ['default: --alignment_mode structured, since gpt2-medium is another model than gpt2']
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in config.left_out.items():
        if reason:
            value = getattr(config, name)
            words = f"--{name}" if value is True else f"--{name} {value}"
            by_reason.setdefault(reason, []).append(words)
    return [f"default: {' '.join(flags)}, since {reason}" for reason, flags in by_reason.items()]


def adopt(config: Settings, recorded: Mapping[str, Any]) -> None:
    """Take settings that were left out from the run that is resumed, whatever its defaults were.

    Args:
        config: configuration of the resumed run.
        recorded: the configuration in the checkpoint.
    """
    for name in config.left_out:
        if name in recorded or name in BEFORE:
            setattr(config, name, recorded.get(name, BEFORE.get(name)))
            config.left_out[name] = ""


def recipe_beneath(values: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The settings of a built-in task's recipe that apply below the given ones; often none.

    Args:
        values: the given settings, by name.

    Returns:
        The settings, and why they apply.
    """
    named = WHAT_IS_TRAINED & set(values)
    data = str(values.get("dataset_name"))
    if not named:
        chosen, reason = GAME_RECIPE, NOTHING_NAMED
    elif named == {"dataset_name"} and builtin_task(data) == WORD_PROBLEMS_NAME:
        chosen, reason = {**WORD_RECIPE, "eval_dataset_name": data}, NO_MODEL_NAMED
    else:
        return {}, ""
    recipe = {name: value for name, value in chosen.items() if name not in values}
    steps = values.get("max_steps")
    if isinstance(steps, int) and "warmup_steps" in recipe:
        # the recipe's warm-up is a fifth of its steps
        recipe["warmup_steps"] = max(min(recipe["warmup_steps"], steps // 5), 0)
    return recipe, reason
