"""Answer questions with a student: batches of prompts in, answers in the records' order out.

Every caller (evaluation during training, the commands, the demo) uses this one function for every
student, so that an accuracy means the same everywhere. A `LatentStudent` reasons in its latents;
any other causal model writes a chain of thought. Decoding is greedy: no random numbers are used,
and a student gives the same answers in every batch.

Shapes: B batch, P prompt columns, N generated tokens.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kava.data.answers import judge
from kava.data.gold import check_golds
from kava.data.records import Record, Template
from kava.ranks import ALONE, Ranks
from kava.student.decode import Generation, generate_text
from kava.student.endings import NextQuestion, end_ids
from kava.student.latent import LatentStudent
from kava.student.prompts import (
    base_of,
    check_prompts,
    encode_prompts,
    name_of,
    new_tokens,
    question_of,
)
from kava.student.readout import Reading, likeliest


@dataclass(frozen=True)
class Completion:
    """What a model generated for one prompt.

    Attributes:
        text: the generated text up to a next question, without special tokens.
        num_tokens: generated tokens, with the end token or the mark of a next question.
        num_passes: forward passes of its batch, with the pass over the prompt.
        readings: the likeliest tokens of each latent, if requested.
    """

    text: str
    num_tokens: int
    num_passes: int
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True)
class Answer:
    """The answer to one record.

    Attributes:
        id: the record's id.
        prediction: the answer found in the text; "" if there is none.
        gold: the right answer.
        correct: whether prediction and gold mean the same.
        text: the generated text up to a next question.
        num_tokens: generated tokens, with the end token.
        num_passes: forward passes of the answer's batch.
        num_steps: written steps that the record takes, where its task counts them.
    """

    id: str
    prediction: str
    gold: str
    correct: bool
    text: str
    num_tokens: int
    num_passes: int
    num_steps: int | None = None

    def as_row(self) -> dict[str, Any]:
        """As files of items have it; `num_steps` only where the task counts them."""
        row = asdict(self)
        if self.num_steps is None:
            del row["num_steps"]
        return row


@dataclass(frozen=True)
class Answers:
    """Answers in the order of their records, and their cost.

    Attributes:
        items: one `Answer` per record.
        seconds: wall time of generation, without tokenising.
    """

    items: tuple[Answer, ...]
    seconds: float

    @property
    def num_items(self) -> int:
        """Number of answered records."""
        return len(self.items)

    @cached_property
    def num_correct(self) -> int:
        """Number of correct answers."""
        return sum(item.correct for item in self.items)

    @property
    def accuracy(self) -> float:
        """Share of correct answers, 0 to 1."""
        return self.num_correct / self.num_items

    @cached_property
    def by_num_steps(self) -> dict[int, tuple[int, int]]:
        """Written steps → right answers and all, where the task counts steps; else empty."""
        counted = [(a.num_steps, a.correct) for a in self.items if a.num_steps is not None]
        return {
            steps: (sum(right for n, right in counted if n == steps), total)
            for steps, total in sorted(Counter(n for n, _ in counted).items())
        }

    @cached_property
    def forward_passes(self) -> float:
        """Forward passes of an answer's batch, averaged over the answers."""
        return sum(item.num_passes for item in self.items) / self.num_items

    @cached_property
    def num_tokens(self) -> int:
        """Total number of generated tokens; latents are not counted."""
        return sum(item.num_tokens for item in self.items)

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second of wall time, summed over the batch."""
        return self.num_tokens / self.seconds

    @property
    def seconds_per_answer(self) -> float:
        """Mean wall time per answer."""
        return self.seconds / self.num_items


def answer_records(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    template: Template,
    *,
    batch_size: int = 64,
    max_new_tokens: int | None = None,
    progress: bool = False,
    max_length: int | None = None,
    ranks: Ranks = ALONE,
) -> Answers:
    """Ask a student the question of every record, and judge its answers.

    The student gets the record's `student_question` if there is one, else its `question`.

    Args:
        model: a `LatentStudent`, or any causal Hugging Face model, which writes its reasoning. It
            runs on its own device, and its train/eval mode is restored at the end.
        tokenizer: the model's tokenizer.
        records: the questions; messages name a record by its `id`.
        template: how a question becomes a prompt, and the cue of an answer.
        batch_size: prompts at a time.
        max_new_tokens: maximum tokens to generate, for the answer (latent) or for reasoning and
            answer (written); None: the default of `kava.student.prompts.new_tokens`.
        progress: show a bar on stderr.
        max_length: maximum positions of prompt, latents and generated tokens together; None: the
            limit of the model's configuration.
        ranks: the processes that share the batches, which are those of one process; each of them
            calls this, and gets all answers.

    Raises:
        ValueError: no records; a prompt that is too long or contains a word unknown to the
            tokenizer (the message names the record); a setting below 1.

    Example:
        >>> answers = answer_records(student, tokenizer, records, template)
        >>> answers.accuracy, answers.forward_passes, answers.seconds_per_answer
    """
    check_golds(records, template)
    completions, seconds = complete(
        model,
        tokenizer,
        [question_of(record) for record in records],
        template,
        names=[name_of(record) for record in records],
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        progress=progress,
        max_length=max_length,
        ranks=ranks,
    )
    items = []
    for record, completion in zip(records, completions):
        gold = record.answer.strip()
        kind = record.meta.get("choices", ()), record.meta.get("judge")
        prediction, correct = judge(completion.text, gold, template.cue, *kind)
        items.append(
            Answer(
                id=record.id,
                prediction=prediction,
                gold=gold,
                correct=correct,
                text=completion.text,
                num_tokens=completion.num_tokens,
                num_passes=completion.num_passes,
                num_steps=record.meta.get("num_steps"),
            )
        )
    return Answers(tuple(items), seconds)


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    template: Template,
    *,
    names: Sequence[str],
    batch_size: int = 64,
    max_new_tokens: int | None = None,
    progress: bool = False,
    max_length: int | None = None,
    top_k: int = 0,
    ranks: Ranks = ALONE,
) -> tuple[list[Completion], float]:
    """Generate a text for each question, in order, and measure the wall time.

    Prompts of similar length share a batch, longest first: there is little padding, and a batch
    that does not fit into memory fails at once.

    Args:
        questions: the questions; the template turns them into prompts.
        names: name of each question, for messages.
        top_k: for a latent student, also return this many likeliest tokens of each latent.
        ranks: as in `answer_records`; the seconds are those of the slowest process.

    Other arguments and errors: as `answer_records`.
    """
    max_new_tokens = new_tokens(model, max_new_tokens)
    if batch_size < 1 or max_new_tokens < 1:
        raise ValueError(
            f"batch_size={batch_size} and max_new_tokens={max_new_tokens} must be at least 1"
        )
    if not questions:
        raise ValueError("there are no records to answer")
    prompts = encode_prompts(questions, names, tokenizer, template)
    check_prompts(prompts, names, model, max_new_tokens=max_new_tokens, max_length=max_length)
    pad = tokenizer.pad_token_id
    assert isinstance(pad, int)
    ends = end_ids(base_of(model), tokenizer)
    question = NextQuestion.of(template, tokenizer)
    stop = None if question is None else question.ends
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    own = ranks.share(batches)

    def answer_own() -> tuple[dict[int, Completion], float]:
        completions: dict[int, Completion] = {}
        seconds = 0.0
        bar = tqdm(total=sum(map(len, own)), desc="answering", unit="answer", disable=not progress)
        with evaluating(model), bar:
            for chosen in own:
                begin = time.perf_counter()
                prompt_ids, mask = _left_pad(
                    [prompts[index] for index in chosen], pad, model.device
                )
                generated: Generation = (
                    model.answer(
                        prompt_ids,
                        mask,
                        max_new_tokens=max_new_tokens,
                        eos_token_id=ends,
                        readings=top_k > 0,
                        stop=stop,
                    )
                    if isinstance(model, LatentStudent)
                    else generate_text(
                        model,
                        prompt_ids,
                        mask,
                        max_new_tokens=max_new_tokens,
                        eos_token_id=ends,
                        stop=stop,
                    )
                )
                tokens, lengths = generated.tokens.tolist(), generated.lengths.tolist()
                seconds += time.perf_counter() - begin
                read: list[tuple[Reading, ...]] = [()] * len(chosen)
                if generated.readings is not None:
                    read = likeliest(generated.readings, tokenizer, top_k)
                for index, row, length, readings in zip(chosen, tokens, lengths, read):
                    ended = length > 0 and row[length - 1] in ends
                    text = tokenizer.decode(row[: length - ended], skip_special_tokens=True)
                    assert isinstance(text, str)
                    text = text if question is None else question.cut(text)
                    completions[index] = Completion(text, length, generated.num_passes, readings)
                bar.update(len(chosen))
        return completions, seconds

    shares = ranks.together(answer_own)
    found = {index: one for share, _ in shares for index, one in share.items()}
    return [found[index] for index in range(len(prompts))], max(taken for _, taken in shares)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; every module's mode is restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _left_pad(
    prompts: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Prompts as ids and mask [B, P]."""
    P = max(map(len, prompts))
    ids = torch.tensor([[pad] * (P - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (P - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(device), mask.to(device)
