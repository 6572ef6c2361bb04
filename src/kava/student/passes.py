"""The forward passes of a latent student over one batch.

    [padding] prompt | begin-of-thought | latent 1 … latent M | end-of-thought | answer [padding]

Begin- and end-of-thought have positions of their own, or share that of the token before them
(`LatentStudentConfig.thought_positions`).

Columns for the next pass are kept pending, so that the prompt shares a pass with the
begin-of-thought (and with the placeholders of Jacobi decoding), and the last latent shares a pass
with the end-of-thought and the answer.

Shapes: B batch, P prompt columns, A answer columns, M latents, W width, V vocabulary,
L layers, H key/value heads, D head dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from kava.attention import AttentionForm
from kava.models.capture import QueryRecorder, record_queries, trace_from_cache
from kava.models.traceable import decoder_of
from kava.student.cache import Pairs, PreallocatedCache, cache_from, pairs_of
from kava.student.config import LatentStudentConfig
from kava.trace import KVTrace

NOWHERE = slice(0, 0)
"""Columns for a pass without the output head."""


@dataclass(frozen=True)
class LatentParts:
    """The parts of a latent student that the passes use.

    Attributes:
        base: the causal language model.
        config: number of latents and how they are decoded.
        thought_embeddings: [2, W], begin- and end-of-thought, in the dtype of the base.
        projection: [.., W] → [.., W], from a hidden state to the next latent's embedding; None if
            no latent is made from a hidden state.
        placeholders: [M, W], the start of Jacobi decoding; None in sequential decoding.
    """

    base: PreTrainedModel
    config: LatentStudentConfig
    thought_embeddings: Tensor
    projection: nn.Module | None = None
    placeholders: Tensor | None = None


@dataclass(frozen=True)
class LatentOutput:
    """The outputs of one training forward of a latent student.

    Attributes:
        logits: [B, A, V], predicting every answer column.
        hidden_states: per layer [B, A, W] at the columns that predict the answer (column 0 is
            the end-of-thought), embeddings first; None unless requested.
        trace: keys and values at the M latents; None if M = 0 or not requested.
        num_passes: forward passes of the base model.
        begin_pairs: each layer's keys and values over prompt and begin-of-thought.
        readings: [B, M, V], the output head's logits at the hidden state that each latent is made
            from; None unless requested.
    """

    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None
    trace: KVTrace | None
    num_passes: int
    begin_pairs: Pairs
    readings: Tensor | None = None


class Passes:
    """The forward passes of one batch: reads the prompt, fills the latents, then the answer.

    Columns: [0, P) prompt, P begin-of-thought, [P+1, P+1+M) latents, then end-of-thought.
    """

    def __init__(
        self,
        parts: LatentParts,
        prompt_ids: Tensor,
        prompt_mask: Tensor | None,
        *,
        queries: bool = False,
        readings: bool = False,
        cache_length: int | None = None,
    ):
        self.parts = parts
        self.base = parts.base
        self.prompt_ids = prompt_ids
        self.B, self.P = prompt_ids.shape
        self.M = parts.config.num_latents
        self.shares = parts.config.thought_positions == "shared"
        self.flash = "flash" in str(self.base.config._attn_implementation)
        self.record = queries
        self.latent_queries: list[Tensor] = []
        self.attention: AttentionForm | None = None
        self.reads_out = readings
        self.latent_logits: list[Tensor] = []
        self.num_passes = 0
        self.length = 0
        padded = prompt_mask is not None and not bool(prompt_mask.all())
        # [B, n] over the first columns; those behind are all valid
        self.valid = prompt_mask if padded else None
        if prompt_mask is not None and padded:
            self.prompt_lengths = prompt_mask.sum(1, keepdim=True)
        else:
            self.prompt_lengths = torch.full((self.B, 1), self.P, device=prompt_ids.device)
        self.cache: Any = (
            cache_from([])
            if cache_length is None
            else PreallocatedCache(self.base.config.num_hidden_layers, cache_length)
        )
        self.hidden: Tensor  # [B, n, W] at the columns of the last pass

    def positions(self, start: int, stop: int, end: int | Tensor | None = None) -> Tensor:
        """Position ids [B, stop − start] of columns start:stop; 0 at padding.

        Args:
            start: the first column.
            stop: the column after the last.
            end: the column of end-of-thought, [B, 1] or the same for all; None: behind M latents.
        """
        columns = torch.arange(start, stop, device=self.prompt_ids.device)
        places = columns
        if self.shares:
            behind = columns >= (self.P + 1 + self.M if end is None else end)
            places = columns - (columns >= self.P).long() - behind.long()
        return (places - (self.P - self.prompt_lengths)).clamp(min=0)

    def mask(self, stop: int) -> Tensor | None:
        """Attention mask [B, stop]; None if every column is valid."""
        if self.valid is None:
            if self.shares and self.flash:
                # without a mask, flash attention takes positions that repeat for packed texts
                return self.prompt_ids.new_ones(self.B, stop)
            return None
        ones = self.valid.new_ones(self.B, stop - self.valid.shape[1])
        return torch.cat([self.valid, ones], dim=1)

    def _arguments(self, embeds: Tensor, end: Tensor | None = None) -> dict[str, Any]:
        stop = self.length + embeds.shape[1]
        arguments = {
            "inputs_embeds": embeds,
            "attention_mask": self.mask(stop),
            "position_ids": self.positions(self.length, stop, end),
            "past_key_values": self.cache,
            "use_cache": True,
        }
        self.length = stop
        self.num_passes += 1
        return arguments

    def read(self, embeds: Tensor, at: slice = NOWHERE) -> None:
        """One pass of the base model over `embeds` [B, n, W].

        The output head is skipped unless readings are requested: then it runs at the columns `at`,
        inside the model's own forward, since some models scale or cap its logits.
        """
        arguments = self._arguments(embeds)
        if self.reads_out and at != NOWHERE:
            columns = torch.arange(embeds.shape[1], device=embeds.device)[at]
            read = self.base(**arguments, logits_to_keep=columns, output_hidden_states=True)
            self.hidden = read.hidden_states[-1]
            self.latent_logits.append(read.logits)
            return
        output: BaseModelOutputWithPast = decoder_of(self.base)(**arguments)
        assert output.last_hidden_state is not None
        self.hidden = output.last_hidden_state

    def vector(self, index: int) -> Tensor:
        """Begin- (0) or end-of-thought (1) as [B, 1, W]."""
        return self.parts.thought_embeddings[index].expand(self.B, 1, -1)

    def begin(self, pairs: Pairs | None) -> None:
        """Make the prompt pending, or use its cache; the next columns share its pass."""
        follow = [self.vector(0)]
        if self.parts.placeholders is not None:
            follow.append(self.parts.placeholders.expand(self.B, -1, -1))
        if pairs is None:
            follow.insert(0, self.base.get_input_embeddings()(self.prompt_ids))
        else:
            self.cache, self.length = cache_from(pairs), self.P
        self.pending = torch.cat(follow, dim=1)

    def think(self) -> None:
        """Compute the latents; what is left in `pending` goes into the answer's pass."""
        config = self.parts.config
        if self.reads_out and not config.makes_latents:
            raise ValueError(
                f"a student of num_latents={self.M} and decoding={config.decoding!r} with "
                f"num_iterations={config.num_iterations} makes no latent of a hidden state: there "
                f"is nothing to read"
            )
        if self.M == 0:
            return
        if config.decoding == "sequential":
            self._think_sequential()
        elif config.num_iterations > 0:
            self._think_jacobi(config.num_iterations)

    def _think_sequential(self) -> None:
        for _ in range(self.M):
            self._recorded(self.pending, at=slice(-1, None))
            self.pending = self._next(self.hidden[:, -1:])

    def _think_jacobi(self, num_iterations: int) -> None:
        start = self.P + 1
        # latents come from the states at begin-of-thought and, in the last pass, at earlier latents
        begin, latents = -self.M - 1, slice(-self.M, -1)
        self.read(self.pending, slice(begin, -1 if num_iterations == 1 else -self.M))
        first = self.hidden[:, -self.M - 1 : -self.M]  # at begin-of-thought: equal in all passes
        for iteration in range(num_iterations):
            left = torch.cat([first, self.hidden[:, -self.M : -1]], dim=1)
            self.pending = self._next(left)
            self._rewind(start)
            if iteration < num_iterations - 1:
                self.read(self.pending, latents if iteration == num_iterations - 2 else NOWHERE)

    def _next(self, hidden: Tensor) -> Tensor:
        """Embeddings of the latents that follow hidden states [B, n, W]."""
        assert self.parts.projection is not None
        embeds: Tensor = self.parts.projection(hidden)
        return embeds.to(self.parts.thought_embeddings.dtype)

    def _rewind(self, length: int) -> None:
        """Drop the cached columns from `length` on, so that they can be read again."""
        if isinstance(self.cache, PreallocatedCache):
            self.cache.rewind(length)
        else:
            self.cache = cache_from(pairs_of(self.cache, length))
        self.length = length

    def readings(self) -> Tensor | None:
        """[B, M, V] logits of the output head at the latents; None if not requested."""
        if not self.reads_out:
            return None
        return torch.cat(self.latent_logits, dim=1)

    def _recorded(self, embeds: Tensor, at: slice) -> None:
        """Read `embeds` and, if requested, keep the queries of latent columns."""
        if not self.record:
            self.read(embeds, at)
            return
        with record_queries(self.base) as recorder:
            self.read(embeds, at)
        self._keep_queries(recorder)

    def _keep_queries(self, recorder: QueryRecorder) -> None:
        """Keep the queries of the latent columns in the last pass."""
        queries_BLHTD, self.attention = recorder.stacked(), recorder.attention()
        first = self.length - queries_BLHTD.shape[3]
        low = max(self.P + 1 - first, 0)
        high = min(self.P + 1 + self.M - first, queries_BLHTD.shape[3])
        if high > low:
            self.latent_queries.append(queries_BLHTD[:, :, :, low:high])

    def answer(self, tokens: Tensor, *, hidden_states: bool, trace: bool) -> LatentOutput:
        """The last pass: pending latents, end-of-thought and the answer tokens [B, A − 1, W]."""
        embeds = torch.cat([self.pending, self.vector(1), tokens], dim=1)
        num_answer = tokens.shape[1] + 1
        arguments = self._arguments(embeds)
        arguments["logits_to_keep"] = num_answer
        arguments["output_hidden_states"] = hidden_states
        if self.record:
            with record_queries(self.base) as recorder:
                output = self.base(**arguments)
            self._keep_queries(recorder)
        else:
            output = self.base(**arguments)
        states = None
        if hidden_states:
            states = tuple(layer[:, -num_answer:] for layer in output.hidden_states)
        return LatentOutput(
            logits=output.logits,
            hidden_states=states,
            trace=self._trace() if trace and self.M > 0 else None,
            num_passes=self.num_passes,
            begin_pairs=pairs_of(self.cache, self.P + 1),
            readings=self.readings(),
        )

    def read_behind_prompt(self, embeds: Tensor, end: Tensor, pairs: Pairs | None) -> Tensor:
        """One pass over `embeds` [B, C, W] behind the prompt: the logits [B, C, V] at them.

        Args:
            embeds: what is read.
            end: [B, 1], which of the C is end-of-thought.
            pairs: each layer's keys and values over the prompt; None: it is read here.
        """
        num_columns = embeds.shape[1]
        if pairs is None:
            prompt = self.base.get_input_embeddings()(self.prompt_ids)
            embeds = torch.cat([prompt, embeds], dim=1)
        else:
            self.cache, self.length = cache_from(pairs), self.P
        arguments = self._arguments(embeds, self.P + end)
        logits: Tensor = self.base(**arguments, logits_to_keep=num_columns).logits
        return logits

    def take_latents(self, begin_pairs: Pairs, latents: KVTrace) -> None:
        """Put given keys and values in the place of the latents'; the answer is next.

        Args:
            begin_pairs: over prompt and begin-of-thought, as `LatentOutput` has them.
            latents: [B, L, H, M, D], keys rotated to the latents' positions; slots that its mask
                leaves out are hidden from the answer.
        """
        if latents.mask is not None:
            slots = latents.mask.to(self.prompt_lengths.dtype)
            before = self.mask(self.P + 1)
            if before is None:
                before = slots.new_ones(self.B, self.P + 1)
            self.valid = torch.cat([before.to(slots.dtype), slots], dim=1)

        def behind(cached: Tensor, given: Tensor) -> Tensor:
            return torch.cat([cached, given.to(cached.dtype)], dim=2)

        pairs = [
            (behind(keys, latents.keys[:, layer]), behind(values, latents.values[:, layer]))
            for layer, (keys, values) in enumerate(begin_pairs)
        ]
        self.cache, self.length = cache_from(pairs), self.P + 1 + self.M
        embeddings = self.parts.thought_embeddings
        self.pending = embeddings.new_empty(self.B, 0, embeddings.shape[1])

    def _trace(self) -> KVTrace:
        start, stop = self.P + 1, self.P + 1 + self.M
        return trace_from_cache(
            self.cache,
            start=start,
            stop=stop,
            positions=self.positions(start, stop),
            queries=torch.cat(self.latent_queries, dim=3) if self.record else None,
            attention=self.attention,
        )

    def first_answer_logits(self) -> Tensor:
        """[B, V]: pending latents and the end-of-thought in one pass."""
        embeds = torch.cat([self.pending, self.vector(1)], dim=1)
        output = self.base(**self._arguments(embeds), logits_to_keep=1)
        return output.logits[:, -1]
