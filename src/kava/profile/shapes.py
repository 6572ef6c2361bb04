"""The training step of a configuration on tensors that have shapes alone.

The models are built from their configurations, without weights, and the passes are those of the
run: the teacher's, over the written text; the student's, over text, latents and answer; and the
backward through all of them. Eviction, alignment and losses are stood in for by a target of their
result's shape. The run is cut into stretches, one for each pass, whose ends are marked: between
two depths of a model every mark grows by the same bytes for each layer, so that two shallow runs
give those of the whole depth.

Shapes: B batch, P prompt, R reasoning, A answer, T = P + R + A, M latents.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTextEncoding,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
)

from kava.models.capture import trace_from_cache
from kava.models.chunked import chunks_of
from kava.models.encoders import is_encoder
from kava.models.lora import add_lora, lora_off
from kava.models.queries import record_queries
from kava.models.recompute import recompute_layers
from kava.models.traceable import decoder_of
from kava.profile.live import LiveBytes, MemoryMark, as_fake, bytes_of, fake_tensors
from kava.student.answering import evaluating
from kava.student.cache import pairs_of
from kava.student.config import LatentStudentConfig
from kava.student.latent import LatentStudent
from kava.student.written import WrittenText
from kava.train.config import TrainConfig
from kava.train.models import lora_form
from kava.train.precision import autocast_dtype
from kava.train.target import attention_flag
from kava.train.terms import token_loss

LOSS = "loss"
"""In the mark behind the forward, which the backward follows."""


class Widths(NamedTuple):
    """The columns of a batch.

    Attributes:
        batch: samples.
        prompt, reasoning, answer: columns of the student's text.
        teacher: columns of the text of each teacher.
    """

    batch: int
    prompt: int
    reasoning: int
    answer: int
    teacher: tuple[int, ...] = ()

    @property
    def text(self) -> int:
        """All columns of the student's text."""
        return self.prompt + self.reasoning + self.answer


def with_layers(config: PreTrainedConfig, num_layers: int) -> PreTrainedConfig:
    """A model's configuration with fewer layers."""
    shallow = deepcopy(config)
    shallow.num_hidden_layers = num_layers
    kinds = getattr(shallow, "layer_types", None)
    if kinds is not None:
        shallow.layer_types = kinds[:num_layers]
    return shallow


def build_student(config: TrainConfig, base_config: PreTrainedConfig) -> PreTrainedModel:
    """The student with its adapters, without weights; under `torch.device("meta")`."""
    model = AutoModelForCausalLM.from_config(base_config, dtype=torch.float32)
    student = model
    if config.student == "latent":
        form = LatentStudentConfig(
            base_config=base_config.to_dict(),
            num_latents=config.target_len,
            decoding=config.decoding,
            num_iterations=min(config.jacobi_iterations, config.target_len),
            thought_positions=config.thought_positions,
        )
        student = LatentStudent(form, base_model=model)
    if config.lora_r:
        add_lora(model, lora_form(config))
    if config.gradient_checkpointing:
        recompute_layers(model)
    return student


def student_marks(config: TrainConfig, base: PreTrainedConfig, widths: Widths) -> list[MemoryMark]:
    """The marks of the student's passes and of their backward, above its weights.

    The last mark is behind the backward, where the gradients are whole.
    """
    half = autocast_dtype(config)
    with torch.device("meta"):
        built = build_student(config, base).train()
    with fake_tensors() as live, ExitStack() as stack:
        student: Any = as_fake(built)
        trained = [part for part in student.parameters() if part.requires_grad]
        model = student.base if isinstance(student, LatentStudent) else student
        stack.enter_context(_marked_passes(model, live, trained))
        start = live.live
        live.mark()
        live.marks.clear()
        with torch.autocast("cpu", half, enabled=half is not None):
            loss = _passes(config, student, widths)
        live.mark(gradients=0, **{LOSS: 1})
        loss.backward()
        live.mark(gradients=_gradients(trained))
        return _above(live.marks, start)


def teacher_marks(
    base: PreTrainedConfig,
    dtype: torch.dtype,
    batch: int,
    columns: int,
    *,
    half: torch.dtype | None = None,
    queries: bool = False,
    chunk: int | None = None,
) -> tuple[list[MemoryMark], int]:
    """The marks of a frozen teacher's pass above its weights, and the bytes that it leaves."""
    kind = AutoModelForTextEncoding if is_encoder(base) else AutoModelForCausalLM
    with torch.device("meta"):
        built = kind.from_config(base, dtype=dtype).eval()
    with fake_tensors() as live, torch.no_grad():
        model: Any = as_fake(built)
        start = live.live
        live.mark()
        live.marks.clear()
        with torch.autocast("cpu", half, enabled=half is not None):
            left = _read(model, batch, columns, queries=queries, chunk=chunk)
        kept = bytes_of(left)
        live.mark()
        return _above(live.marks, start), kept


def _above(marks: list[MemoryMark], start: int) -> list[MemoryMark]:
    return [mark._replace(live=mark.live - start, most=mark.most - start) for mark in marks]


def _read(
    model: PreTrainedModel,
    batch: int,
    columns: int,
    keep: int = 1,
    queries: bool = False,
    chunk: int | None = None,
) -> Any:
    """A pass over a written text, padded: the cache, its trace and the logits."""
    ids = torch.ones(batch, columns, dtype=torch.long)
    if is_encoder(model.config):
        output = model(input_ids=ids, attention_mask=ids, output_hidden_states=True)
        return output.hidden_states, [torch.stack(output.hidden_states, dim=1) for _ in range(2)]
    cache = DynamicCache()
    with record_queries(model) if queries else nullcontext() as recorder:
        for start, stop in chunks_of(columns, chunk or columns):
            output = model(
                input_ids=ids[:, start:stop],
                attention_mask=ids[:, :stop],
                position_ids=ids[:, start:stop],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=keep,
            )
    trace = trace_from_cache(cache)
    recorded = None
    if recorder is not None:
        parts = [recorder.stacked(number) for number in range(len(recorder.forwards))]
        recorded = parts[0] if len(parts) == 1 else torch.cat(parts, dim=3)
    return cache, (trace.keys, trace.values, recorded), output.logits


def _passes(config: TrainConfig, student: Any, widths: Widths) -> Tensor:
    """The student's passes of a step: their loss."""
    B, P, R, A, _ = widths
    base: PreTrainedModel = student.base if isinstance(student, LatentStudent) else student
    terms: list[Tensor] = []
    prompt = prompt_mask = torch.ones(B, P, dtype=torch.long)
    answer = torch.ones(B, A, dtype=torch.long)
    if not isinstance(student, LatentStudent):
        _, (keys, values, _), logits = _read(base, B, widths.text, R + A + 1)
        terms.append(_ce(logits))
        if config.matches_cache:
            terms += [_distance(keys), _distance(values)]
        return torch.stack(terms).sum()
    pairs: Any = None
    held: Any = None
    queries = attention_flag(config) is not None
    if config.needs_teacher and config.self_distillation:
        writes = config.teacher_ce_weight > 0
        with evaluating(base):
            cache, held, logits = _read(base, B, widths.text, R + A + 1 if writes else 1, queries)
        pairs = pairs_of(cache, P)
        if writes:
            terms.append(_ce(logits))
    elif config.adapter_off:
        with torch.no_grad(), lora_off(base), evaluating(base):
            held = _read(base, B, widths.text, queries=queries)
    if config.text_ce_weight:
        ids = torch.ones(B, R + A + 1, dtype=torch.long)
        text = WrittenText(ids, ids, ids, ids.bool())
        written = student.read_written(prompt, prompt_mask, text, pairs)
        pairs = written.prompt_pairs
        terms.append(_ce(written.logits))
    output = student(
        prompt,
        prompt_mask,
        answer,
        prompt_pairs=pairs,
        hidden_states=config.codi_weight > 0,
        readings=config.latent_ce_weight > 0,
        trace=config.matches_cache,
    )
    terms.append(_ce(output.logits))
    if output.readings is not None:
        terms.append(_ce(output.readings))
    if output.hidden_states is not None:
        terms.append(_distance(torch.stack([states[:, :1] for states in output.hidden_states])))
    if output.trace is not None:
        trace = output.trace.in_float32()
        terms += [_distance(trace.keys), _distance(trace.values)]
    del held  # the teacher's trace, which is matched at the end
    return torch.stack(terms).sum()


def _ce(logits: Tensor) -> Tensor:
    return token_loss(logits, torch.ones(logits.shape[:2], dtype=torch.long), 1.0)


def _distance(part: Tensor) -> Tensor:
    return smooth_l1_loss(part, torch.zeros_like(part))


def _gradients(trained: list[nn.Parameter]) -> int:
    return bytes_of([part.grad for part in trained if part.grad is not None])


@contextmanager
def _marked_passes(
    model: PreTrainedModel, live: LiveBytes, trained: list[nn.Parameter]
) -> Iterator[None]:
    """Mark the beginning of every pass, in the forward and when the backward has come to it."""
    embeddings = model.get_input_embeddings()

    def mark() -> None:
        live.mark(gradients=_gradients(trained))

    def before(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        mark()
        given = options.get("inputs_embeds")
        if given is not None and given.requires_grad:
            given.register_hook(lambda grad: mark())

    def embedded(_: nn.Module, args: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda grad: mark())

    handles = [
        decoder_of(model).register_forward_pre_hook(before, with_kwargs=True),
        embeddings.register_forward_hook(embedded),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
