"""Check a run against its models before data are read, and its data before training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers import PreTrainedConfig

from kava.align import CacheGeometry
from kava.models.encoders import is_encoder
from kava.models.limits import (
    THOUGHT_TOKENS,
    check_answers_fit,
    check_latents_fit,
    check_layer_map_file,
    check_map_rank_fits,
)
from kava.models.load import load_model_config
from kava.models.queries import check_records
from kava.models.readable import Limits, fitting, fitting_sides
from kava.student.prompts import encode_prompts, question_of
from kava.train.config import TrainConfig
from kava.train.matching import compares_queries
from kava.train.scores import needs_scores
from kava.train.start import check_start
from kava.train.target import attention_flag
from kava.train.teacher_names import teachers_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kava.data.encoded import Encoded
    from kava.train.data import Data


class Readers(NamedTuple):
    """The limits on what a run's models can read."""

    student: Limits
    teacher: Limits | None
    """None in self-distillation, and of several teachers."""
    several: tuple[Limits, ...] = ()


def check_models(config: TrainConfig) -> Readers:
    """Refuse models that the run cannot use, from their configurations and files only.

    Returns:
        what the models can read, to check the data.

    Raises:
        ValueError: a model of a kind that cannot be trained or read, or whose queries a flag needs
            and nothing can record; more terms, latents or tokens than the models have room for; a
            file that is no layer map between them.
        OSError: a folder or hub model that cannot be read, or whose files are not all there.

    Example:
        >>> check_models(TrainConfig(model_name="kava/tiny-gpt2")).student.table
        2048
    """
    own = teacher = load_model_config(config.model_name)
    check_start(config)
    if hasattr(own, "quantization_config"):
        raise ValueError(
            f"--model_name {config.model_name!r} has quantised weights, which no step can change: "
            f"pass the model in float32 or bfloat16"
        )
    readers = Readers(Limits.of(config.model_name, own), None)
    if config.teacher_name is not None and config.needs_teacher:
        teacher = load_model_config(config.teacher_name, encoders=True)
        readers = readers._replace(teacher=Limits.of(config.teacher_name, teacher))
        check_encoder(config, config.teacher_name, teacher)
    if config.several:
        several = []
        for one in teachers_of(config):
            also = load_model_config(one.model, encoders=True)
            check_encoder(config, one.model, also)
            several.append(Limits.of(one.model, also))
            check_rank(config, also, own)
            if (flag := attention_flag(config)) is not None:
                check_records(also, one.model, flag)
        readers = readers._replace(teacher=None, several=tuple(several))
    if config.student == "latent":
        check_latents_fit(config.model_name, readers.student.positions, config.target_len)
    _check_answers(config, readers.student)
    check_rank(config, teacher, own)
    if config.layer_mapping_path is not None:
        sides = CacheGeometry.from_config(teacher), CacheGeometry.from_config(own)
        check_layer_map_file(config.layer_mapping_path, *sides)
    check_queries(config, own, teacher)
    return readers


def check_encoder(config: TrainConfig, teacher: str, its: PreTrainedConfig) -> None:
    """Refuse an encoder as a teacher of what it does not give: logits, queries, an answer.

    Args:
        config: the run's configuration.
        teacher: the name of one of its teachers.
        its: that teacher's configuration.

    Raises:
        ValueError: names the teacher and the flag.
    """
    if not is_encoder(its):
        return
    flag = attention_flag(config)
    reads_likelihood = config.several and config.fusion in ("confidence", "min_ce", "avg_ce")
    if config.capture_chunk is not None:
        raise ValueError(
            f"teacher {teacher} is an encoder ({its.model_type}), whose positions look at later "
            f"ones, which --capture_chunk {config.capture_chunk} hides from them: leave it out"
        )
    asked = [
        (flag, flag is not None, "looks at attention"),
        ("--codi_weight", config.codi_weight > 0, "matches its hidden state before the answer"),
        (f"--kv_method {config.kv_method}", needs_scores(config), "scores its answers"),
        (f"--fusion {config.fusion}", reads_likelihood, "weighs its likelihood of the text"),
    ]
    for name, wanted, why in asked:
        if wanted:
            raise ValueError(
                f"teacher {teacher} is an encoder ({its.model_type}), and {name} {why}: "
                f"choose what reads keys and values alone, such as --kv_method uniform"
            )


def check_rank(config: TrainConfig, teacher: Any, student: Any) -> None:
    """Check `--map_rank` against the heads of two models.

    Args:
        config: the run's configuration.
        teacher: configuration of the model.
        student: the same.

    Raises:
        ValueError: more terms than any map needs.
    """
    if config.map_rank is None:
        return
    check_map_rank_fits(
        config.map_rank,
        CacheGeometry.from_config(teacher),
        CacheGeometry.from_config(student),
        share_dim_proj=config.map_proj_share_dim,
        align_direction=config.align_direction,
    )


def check_queries(
    config: TrainConfig, student: PreTrainedConfig, teacher: PreTrainedConfig
) -> None:
    """Refuse models whose queries cannot be recorded, if the run reads attention.

    Args:
        config: the run's configuration.
        student: configuration of the model.
        teacher: the same; the student's own in self-distillation.

    Raises:
        ValueError: names the model, and the flag that needs its queries.
    """
    flag = attention_flag(config)
    if flag is None:
        return
    if compares_queries(config):
        check_records(student, config.model_name, flag)
    check_records(teacher, config.teacher_name or config.model_name, flag)


def fit_data(
    config: TrainConfig, data: Data, tokenizer: PreTrainedTokenizerBase, readers: Readers
) -> Data:
    """Remove samples that are too long for a model, if `--overflow` is skip.

    Args:
        config: the run's configuration.
        data: the encoded data.
        tokenizer: the student's.
        readers: what the models can read, from `check_models`.

    Raises:
        DoesNotFit: under `--overflow error`, the first sample that is too long.
        ValueError: no sample is left, a token that a model has no embedding for, or held-out
            questions whose answers would run past the student's positions.
    """
    thought = config.target_len + THOUGHT_TOKENS if config.student == "latent" else None
    both = readers.student, readers.teacher
    train = fitting(data.train, *both, config.overflow, thought=thought, report=data.report)
    held_out = fitting(data.eval, *both, config.overflow, thought=thought)
    if readers.several:
        train = fitting_sides(train, readers.several, config.overflow)
        held_out = fitting_sides(held_out, readers.several, config.overflow)
    if data.eval_records:
        # evaluation asks all questions, including those whose reasoning was skipped
        names = [record.id for record in data.eval_records]
        questions = [question_of(record) for record in data.eval_records]
        prompts = encode_prompts(questions, names, tokenizer, data.template)
        lengths = [(name, len(prompt)) for name, prompt in zip(names, prompts)]
        _check_answers(config, readers.student, lengths)
    same = (len(train), len(held_out)) == (len(data.train), len(data.eval))
    if same and not readers.several:
        return data  # runs that share data keep one copy
    return replace(data, train=train, eval=held_out)


def _check_answers(
    config: TrainConfig, student: Limits, prompts: Sequence[tuple[str, int]] = ()
) -> None:
    """Check `--max_new_tokens` against the student's positions, if it is evaluated."""
    if config.eval_size:
        check_answers_fit(
            student.name,
            student.positions,
            config.target_len if config.student == "latent" else None,
            config.max_new_tokens,
            prompts,
        )


def cut_answers(config: TrainConfig, held_out: Sequence[Encoded]) -> list[str]:
    """Say that answers end before they are whole, and so count as wrong; empty where none does.

    A student that writes its reasoning may need fewer or more tokens than the data's: of it
    nothing is said.
    """
    if config.student != "latent" or not config.eval_size:
        return []
    # without the end of the sequence
    lengths = [len(sample.input_ids) - sample.answer_start - 1 for sample in held_out]
    cut = sum(length > config.max_new_tokens for length in lengths)
    if not cut:
        return []
    return [
        f"--max_new_tokens {config.max_new_tokens} ends {cut} of {len(lengths)} held-out answers "
        f"before they are whole, so that they count as wrong: raise it to {max(lengths)}"
    ]


def num_update_steps(config: TrainConfig, num_samples: int, num_processes: int = 1) -> int:
    """Number of optimiser steps of a run, as transformers counts them.

    Example:
        >>> num_update_steps(TrainConfig(batch_size=4, epochs=2), 10)
        6
    """
    if config.max_steps > 0:
        return config.max_steps
    batches = math.ceil(num_samples / (config.batch_size * num_processes))
    return math.ceil(config.epochs * math.ceil(batches / config.gradient_accumulation_steps))
