"""The names of several teachers, and the checks of the flags that count them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kava.flags import flags_of, listed
from kava.train.settings import Settings
from kava.train.settings.teachers import TeachersSettings

TEACHER_CHATS = "--teacher_chat_templates"
CHOOSES_ALONE = ("full", "right_crop", "streaming_llm", "uniform", "random", "positions")
"""Evictions that keep the same positions whoever the teacher is."""

RESERVED = ("right", "on_named", "entropy", "answer_ce", "likelihood", "policy", "balance")
"""What a routing logs beside the shares of the teachers."""
_SOFTMAX = ("similarity", "learnable", "confidence", "avg_ce")
READ_BY: Mapping[str, tuple[str, ...]] = {
    "fixed_weights": ("fixed", "union", "disagreement"),
    "fusion_temperature": _SOFTMAX,
    "fusion_temperature_end": _SOFTMAX,
    "fusion_per_layer": ("similarity", "learnable"),
    **dict.fromkeys(("prototype", "similarity"), ("similarity",)),
    **dict.fromkeys(("disagreement", "disagreement_threshold"), ("disagreement",)),
    **dict.fromkeys(
        ("router_type", "router_learning", "router_weight", "entropy_reg_strength"), ("learnable",)
    ),
    **dict.fromkeys(("entropy_target", "balance_weight"), ("learnable",)),
}
"""Flag → the fusions that read it."""


class TeacherName(NamedTuple):
    """A teacher as it is named.

    Attributes:
        label: what tables and logs call it.
        model: a hub id, a folder, or a built-in name.
        dtype: of its weights.
        prompt: its prompt, with {question} in it; None: the student's.
        chat: its chat template, as `--chat_template` names it.
        quantization: of its linear layers: "none", "8bit" or "4bit".
    """

    label: str
    model: str
    dtype: str
    prompt: str | None
    chat: str
    quantization: str = "none"


def teachers_of(config: Settings) -> list[TeacherName]:
    """The teachers of a run; of one without `--teachers`, the one of `--teacher_name`.

    Raises:
        ValueError: two teachers of one label, or as many dtypes, prompts or weights as do not fit.

    Example:
        >>> [one.label for one in teachers_of(TrainConfig(teachers=["gpt2", "big=gpt2-large"]))]
        ['gpt2', 'big']
    """
    named = config.teachers
    if not named and config.teacher_name is None:
        return []
    count = len(named or [config.teacher_name])
    chats = _each(config.teacher_chat_templates, "teacher_chat_templates", count)
    chats = chats or [config.chat_template] * count
    bits = config.teacher_quantization or ["none"]
    bits = bits * count if len(bits) == 1 else bits
    if len(bits) != count:
        whose = f"--teachers names {count}" if named else "--teacher_name names one teacher"
        raise ValueError(
            f"--teacher_quantization gives {len(bits)}, and {whose}: give one for all, or one for "
            f"each"
        )
    if not named:
        assert config.teacher_name is not None
        return [TeacherName("teacher", config.teacher_name, config.dtype, None, chats[0], bits[0])]
    dtypes = _each(config.teacher_dtypes, "teacher_dtypes", count) or [config.dtype] * count
    prompts: list[str] | list[None] = [None] * count
    prompts = _each(config.teacher_prompts, "teacher_prompts", count) or prompts
    found = []
    for name, dtype, prompt, chat, quantization in zip(named, dtypes, prompts, chats, bits):
        label, model = split_label(name)
        found.append(TeacherName(label, model, dtype, prompt, chat, quantization))
    labels = [one.label for one in found]
    for one in found:
        if labels.count(one.label) > 1:
            raise ValueError(
                f"--teachers: two teachers are named {one.label!r}; tell them apart by labels, "
                f"such as a={one.model} b={one.model}"
            )
    return found


def split_label(name: str) -> tuple[str, str]:
    """Label and model of a teacher as `--teachers` names it.

    Raises:
        ValueError: a label of other characters, or an empty part.

    Example:
        >>> split_label("big=gpt2-large"), split_label("org/gpt2")
        (('big', 'gpt2-large'), ('gpt2', 'org/gpt2'))
    """
    label, equals, model = name.partition("=")
    if label in RESERVED:
        raise ValueError(
            f"--teachers {name!r}: {label} names another number of the logs, route_{label}: choose "
            f"another label"
        )
    if not equals:
        return name.rstrip("/").rsplit("/", 1)[-1], name
    if not label or not model or not label.replace("-", "").replace("_", "").isalnum():
        raise ValueError(
            f"--teachers {name!r}: a labelled teacher is LABEL=NAME, the label of letters, digits, "
            f"- and _"
        )
    return label, model


def _each(values: list[str] | None, flag: str, num_teachers: int) -> list[str] | None:
    if values is not None and len(values) != num_teachers:
        raise ValueError(
            f"--{flag} gives {len(values)}, and there "
            f"{'is 1 teacher' if num_teachers == 1 else f'are {num_teachers} teachers'}: give one "
            f"for each"
        )
    return values


def check_teachers(config: Settings) -> None:
    """Check the flags of several teachers against each other.

    Raises:
        ValueError: the first conflict; the message names the flags and the mend.
    """
    if config.teacher_chat_templates and not teachers_of(config):
        raise ValueError(
            f"--teacher_chat_templates {' '.join(config.teacher_chat_templates)} is of a "
            f"--teacher_name or --teachers, and this run has none: leave it out"
        )
    defaults = {name: one.default for name, one in flags_of(TeachersSettings).items()}
    changed = [n for n, default in defaults.items() if getattr(config, n) not in (default, None)]
    of_one = ("teachers", "teacher_dtypes") if config.teachers else ()
    unread = [name for name in changed if name not in of_one]
    if unread and not config.several:
        raise ValueError(
            f"--{unread[0]} is about several teachers: name two or more by --teachers, or leave it "
            f"out"
        )
    if not config.teachers:
        return
    named = teachers_of(config)
    if config.teacher_name not in (None, named[0].model):
        raise ValueError(
            f"--teachers and --teacher_name {config.teacher_name} each name teachers: leave one out"
        )
    if not config.several:
        return
    _check_readers(config, changed)
    _check_weights(config, len(named))
    _check_own_reasoning(config)
    if not config.matches_cache:
        raise ValueError(
            "--teachers: their caches are fused into the target of the KV loss, and this run has "
            "none; give --kv_weight a value above 0"
        )
    for prompt in config.teacher_prompts or []:
        if prompt.count("{question}") != 1:
            raise ValueError(f"--teacher_prompts {prompt!r} must hold {{question}} exactly once")
    refused = {
        "--codi_weight": config.codi_weight > 0 and "matches the hidden state of one teacher",
        "--align_direction student_to_teacher": config.align_direction != "teacher_to_student"
        and "compares in the geometry of one teacher",
        "--key_space rotated": config.key_space == "rotated"
        and "compares keys that each teacher rotated to positions of its own",
        f"--kv_method {config.kv_method}": config.kv_method in ("knockout", "knockout_gradient")
        and "keeps positions by scores of one teacher",
        "--attention_weighted_kv": config.attention_weighted_kv
        and "weighs slots by the attention of one teacher",
        "--layer_mapping_path": config.layer_mapping_path is not None
        and "is the layer map of one teacher",
        "--use_cka_layer_mapping": config.use_cka_layer_mapping
        and "measures the layers of one teacher",
        "--map_rank auto": config.map_rank == "auto" and "is chosen for one teacher",
    }
    for flag, why in refused.items():
        if why:
            raise ValueError(f"{flag} {why}, and --teachers names {len(named)}: leave it out")
    if config.student == "explicit":
        _check_explicit(config)
    if config.fusion == "union" and config.target_len < len(named):
        raise ValueError(
            f"--fusion union lays {len(named)} teachers side by side over --target_len "
            f"{config.target_len}: raise it to {len(named)} or more"
        )
    if config.trains_router and config.router_learning == "policy" and config.fusion_per_layer:
        raise ValueError(
            "--router_learning policy draws one teacher for a sample: leave --fusion_per_layer out"
        )


def _check_readers(config: Settings, changed: list[str]) -> None:
    """Refuse a flag that the fusion does not read."""
    for name in changed:
        readers = READ_BY.get(name, ())
        if readers and config.fusion not in readers:
            fusions = " or ".join(f"--fusion {one}" for one in readers)
            raise ValueError(
                f"--{name} is read by {fusions}, not by --fusion {config.fusion}; leave it out"
            )
    if config.teacher_order == "in_turn":
        if config.fusion == "learnable":
            raise ValueError(
                "--teacher_order in_turn leaves one teacher at each step, so that --fusion "
                "learnable has nothing to choose from: leave it out"
            )
        if config.fixed_weights is not None and 0.0 in config.fixed_weights:
            raise ValueError(
                "--teacher_order in_turn with a weight of 0 leaves steps without any teacher: "
                "leave it out, or give each teacher a weight"
            )
    if "router_weight" in changed and config.router_learning == "gradient":
        raise ValueError(
            f"--router_weight {config.router_weight} is read by --router_learning likelihood or "
            f"policy, and with gradient the KV loss trains the router: leave it out"
        )
    if "disagreement_threshold" in changed and config.disagreement != "drop":
        raise ValueError(
            f"--disagreement_threshold {config.disagreement_threshold} is read by --disagreement "
            f"drop: leave it out"
        )
    if "entropy_target" in changed and not config.entropy_reg_strength:
        raise ValueError(
            f"--entropy_target {config.entropy_target} is read where --entropy_reg_strength is "
            f"above 0: give it a value, or leave this out"
        )


def _check_own_reasoning(config: Settings) -> None:
    if not config.teacher_reasoning:
        return
    refused = {
        f"--student {config.student}": config.student != "latent"
        and ("reads positions of its own text, which these texts have none of", "latent"),
        f"--token_alignment {config.token_alignment}": config.token_alignment != "none"
        and ("brings a teacher's text to the student's, which is another", "none"),
        f"--kv_method {config.kv_method}": config.kv_method == "positions"
        and ("keeps positions of the data's text", "full or uniform"),
    }
    for flag, found in refused.items():
        if found:
            why, mend = found
            raise ValueError(
                f"--teacher_reasoning and {flag}, which {why}: pass {flag.split()[0]} {mend}"
            )


def _check_weights(config: Settings, num_teachers: int) -> None:
    if config.fixed_weights is None:
        return
    from kava.fuse.fixed import check_weights

    try:
        check_weights(config.fixed_weights, num_teachers)
    except ValueError as error:
        raise ValueError(f"--fixed_{error}") from error


def _check_explicit(config: Settings) -> None:
    if config.kv_method not in CHOOSES_ALONE:
        raise ValueError(
            f"--kv_method {config.kv_method} keeps other positions of each teacher, and an "
            f"explicit student has one set of its own: choose {listed(CHOOSES_ALONE)}"
        )
    if config.fusion == "union":
        raise ValueError(
            "--fusion union shares latents among the teachers, which an explicit student does not "
            "have: choose another fusion"
        )
    if config.trains_router and config.router_learning != "gradient":
        raise ValueError(
            f"--router_learning {config.router_learning} puts targets in place of latents, which "
            f"an explicit student does not have: pass --router_learning gradient"
        )
