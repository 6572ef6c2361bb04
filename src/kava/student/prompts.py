"""The prompts of a student, checked against its limits before any is answered."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kava.data.encode import encode_prompt
from kava.data.records import Record, Template
from kava.models.limits import check_answers_fit
from kava.models.readable import Limits
from kava.student.config import LATENT_NEW_TOKENS, base_of
from kava.student.latent import LatentStudent

WRITTEN_NEW_TOKENS = 256


def question_of(record: Record) -> str:
    """The question for a student: the record's `student_question` if it has one."""
    return record.question if record.student_question is None else record.student_question


def name_of(record: Record) -> str:
    """The name of a record in messages."""
    return f"record {record.id!r}"


def encode_prompts(
    questions: Sequence[str],
    names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
) -> list[list[int]]:
    """The tokens of each question's prompt.

    Raises:
        ValueError: an empty question, or a word unknown to the tokenizer; the message names it.
    """
    prompts = []
    for question, name in zip(questions, names):
        try:
            prompts.append(encode_prompt(question, tokenizer, template))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return prompts


def check_prompts(
    prompts: Sequence[Sequence[int]],
    names: Sequence[str],
    model: PreTrainedModel,
    *,
    max_new_tokens: int,
    max_length: int | None = None,
) -> None:
    """Refuse prompts that leave a student too few positions for the answer.

    Args:
        prompts: the tokens of each prompt.
        names: name of each prompt, for messages.
        model: the student.
        max_new_tokens: maximum tokens of an answer.
        max_length: maximum positions; None: the limit of the configuration.

    Raises:
        ValueError: the longest prompt does not fit, or a token has no embedding.
    """
    config = base_of(model).config
    own = config.name_or_path or config.model_type
    limits = Limits.of(own, config)
    for prompt, name in zip(prompts, names):
        problem = limits.unknown_token(prompt)
        if problem is not None:
            raise ValueError(f"{name} has {problem}")
    check_answers_fit(
        own if max_length is None else "--max_length",
        limits.positions if max_length is None else max_length,
        model.config.num_latents if isinstance(model, LatentStudent) else None,
        max_new_tokens,
        [(name, len(prompt)) for prompt, name in zip(prompts, names)],
    )


def check_questions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    template: Template,
    max_new_tokens: int | None = None,
) -> None:
    """Check all questions against a student's limits before the first is asked.

    Arguments: as `kava.student.answering.answer_records`.

    Raises:
        ValueError: as `encode_prompts` and `check_prompts`.

    Example:
        >>> check_questions(student.model, student.tokenizer, records, student.template)
    """
    names = [name_of(record) for record in records]
    prompts = encode_prompts([question_of(r) for r in records], names, tokenizer, template)
    check_prompts(prompts, names, model, max_new_tokens=new_tokens(model, max_new_tokens))


def new_tokens(model: PreTrainedModel, given: int | None) -> int:
    """Maximum tokens of an answer: the given value, or the default for the kind of student."""
    if given is not None:
        return given
    return LATENT_NEW_TOKENS if isinstance(model, LatentStudent) else WRITTEN_NEW_TOKENS
