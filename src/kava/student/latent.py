"""The latent student: a causal language model that reasons in a few continuous tokens.

The written reasoning between question and answer is replaced by M latent tokens whose input
embeddings come from the model's own hidden states. Two ways to decode them: *sequential*, M
passes of one position each; *Jacobi*, one pass with placeholder embeddings and T more over all
latents at once, every latent taking the hidden state that its left neighbour had one pass
earlier. Latent j is right after j such passes, so T = M equals sequential decoding.

Layout of the student's sequence (columns of a batch are aligned):

    [padding] prompt | begin-of-thought | latent 1 … latent M | end-of-thought | answer [padding]

Sources: Coconut (arXiv 2412.06769) and CODI (arXiv 2502.21074) for sequential latents and the
projection, PCCoT (arXiv 2506.18582) for Jacobi iterations, KaVa (arXiv 2510.02312) for matching
a cache at the latents. Deviations: begin- and end-of-thought are two vectors of this module
rather than new vocabulary entries, so the tokenizer and the output head stay as they are; the
last latent, the end-of-thought and the answer share one pass; the projection's LayerNorm starts
at the scale of the input embeddings, so that a pretrained model meets vectors of a known size.

Shapes: B batch, P prompt columns, A answer columns, M latents, W width, V vocabulary,
L layers, H key/value heads, D head dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from kava.capture import record_queries, trace_from_cache
from kava.student.cache import Pairs, PreallocatedCache, cache_from, pairs_of
from kava.student.config import LatentStudentConfig
from kava.student.decode import Generation, greedy_decode
from kava.trace import KVTrace


@dataclass(frozen=True)
class LatentOutput:
    """What one training forward of a latent student leaves behind.

    Attributes:
        logits: [B, A, V], predicting every answer column.
        hidden_states: per layer [B, A, W] at the columns that predict the answer (column 0 is
            the end-of-thought), embeddings first; None unless asked for.
        trace: keys and values at the M latents; None when M = 0 or not asked for.
        num_passes: forward passes of the base model.
    """

    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None
    trace: KVTrace | None
    num_passes: int


class LatentProjection(nn.Sequential):
    """From the hidden state at one latent to the input embedding of the next: [.., W] → [.., W]."""

    def __init__(self, width: int, dropout: float = 0.0):
        super().__init__(
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
        )

    def scale_to(self, embeddings: Tensor) -> None:
        """Start the outputs at the root mean square of `embeddings` [V, W]."""
        norm = self[4]
        assert isinstance(norm, nn.LayerNorm)
        with torch.no_grad():
            norm.weight.fill_(embeddings.float().square().mean().sqrt().item())


class LatentStudent(PreTrainedModel):
    """Wrap any causal Hugging Face model so that it reasons in latent tokens.

    Args:
        config: the student's configuration; its `base_config` builds the base model.
        base_model: a loaded model to wrap instead of one with fresh weights.

    Example:
        >>> student = LatentStudent.wrap(model, num_latents=6)
        >>> output = student(prompt_ids, prompt_mask, answer_ids)
        >>> student.save_pretrained("student"); LatentStudent.from_pretrained("student")
    """

    config_class = LatentStudentConfig
    config: LatentStudentConfig
    base_model_prefix = "base"
    main_input_name = "prompt_ids"
    supports_gradient_checkpointing = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: LatentStudentConfig, base_model: PreTrainedModel | None = None):
        super().__init__(config)
        if base_model is None:
            base_config = AutoConfig.for_model(**config.base_config)
            base_model = AutoModelForCausalLM.from_config(base_config)
        self.base = base_model
        width = embedding_weight(base_model).shape[1]
        self.thought_embeddings = nn.Parameter(torch.zeros(2, width))
        # only what the decoding uses: a parameter without a gradient stalls distributed training
        jacobi = config.decoding == "jacobi"
        if config.num_latents > 0 and (not jacobi or config.num_iterations > 0):
            self.projection = LatentProjection(width, config.projection_dropout)
        if config.num_latents > 0 and jacobi:
            self.placeholders = nn.Parameter(torch.zeros(config.num_latents, width))
        self.post_init()

    @classmethod
    def wrap(cls, model: PreTrainedModel, *, num_latents: int, **options: Any) -> LatentStudent:
        """Build a student around `model`; `options` are `LatentStudentConfig`'s."""
        base_config = model.config.to_dict()
        config = LatentStudentConfig(base_config=base_config, num_latents=num_latents, **options)
        student = cls(config, base_model=model)
        # through the module, for Gemma scales what it looks up in the table
        tokens = torch.arange(embedding_weight(model).shape[0], device=model.device)
        with torch.no_grad():
            student._start_from(model.get_input_embeddings()(tokens))
        student.to(device=model.device, dtype=model.dtype)  # type: ignore[call-arg]
        return student

    def _start_from(self, embeddings: Tensor) -> None:
        """Start the added vectors at the scale of the vocabulary's embeddings [V, W]."""
        std = embeddings.float().std().item()
        with torch.no_grad():
            self.thought_embeddings.normal_(0.0, std)
            if hasattr(self, "placeholders"):
                self.placeholders.normal_(0.0, std)
        if hasattr(self, "projection"):
            self.projection.scale_to(embeddings)

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the base model starts its own modules, and `wrap` starts those added here."""

    def get_input_embeddings(self) -> nn.Module:
        """The base model's token embeddings."""
        return self.base.get_input_embeddings()

    # ------------------------------------------------------------------ training

    def forward(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor | None = None,
        answer_ids: Tensor | None = None,
        *,
        prompt_pairs: Pairs | None = None,
        queries: bool = False,
        hidden_states: bool = False,
        trace: bool = True,
    ) -> LatentOutput:
        """Read the prompt, think in M latents, and predict the answer, with gradients.

        Args:
            prompt_ids: [B, P], left-padded.
            prompt_mask: [B, P], 1 at valid columns; None means no padding.
            answer_ids: [B, A], right-padded (right padding needs no mask under causal attention).
            prompt_pairs: each layer's keys and values over the P prompt columns, from a pass
                that this very model has already made over the same prompt. The student then
                continues from them, and gradients flow into that pass.
            queries: also record the queries at the latents.
            hidden_states: also return all layers' hidden states at the answer-predicting columns.
            trace: return the latents' trace.
        """
        if answer_ids is None:
            raise ValueError(
                "answer_ids is None: training needs the answer; use generate() without"
            )
        run = _Passes(
            self, prompt_ids, prompt_mask, queries=queries and self.config.num_latents > 0
        )
        run.read_prompt(prompt_pairs)
        run.think()
        tokens = self.get_input_embeddings()(answer_ids[:, :-1])
        return run.answer(tokens, hidden_states=hidden_states, trace=trace)

    # ------------------------------------------------------------------ inference

    @torch.no_grad()
    def generate(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor | None = None,
        *,
        max_new_tokens: int = 32,
        eos_token_id: int | None = None,
    ) -> Generation:
        """Greedy answers to a batch of prompts, over one preallocated cache.

        Args:
            prompt_ids: [B, P], left-padded.
            prompt_mask: [B, P], 1 at valid columns.
            max_new_tokens: most answer tokens.
            eos_token_id: ends an answer; None runs to max_new_tokens.
        """
        M = self.config.num_latents
        room = prompt_ids.shape[1] + M + 2 + max_new_tokens
        run = _Passes(self, prompt_ids, prompt_mask, cache_length=room)
        run.read_prompt(None)
        run.think()
        logits_BV = run.first_answer_logits()
        return greedy_decode(
            self.base,
            run.cache,
            logits_BV,
            attention_mask=run.mask(run.length),
            next_position_B1=run.positions(run.length, run.length + 1),
            num_passes=run.num_passes,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos_token_id,
        )


def embedding_weight(model: PreTrainedModel) -> Tensor:
    """A model's token embeddings [V, W]."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight


class _Passes:
    """The forward passes of one batch: reads the prompt, fills the latents, then the answer.

    Columns: [0, P) prompt, P begin-of-thought, [P+1, P+1+M) latents, then end-of-thought.
    """

    def __init__(
        self,
        student: LatentStudent,
        prompt_ids: Tensor,
        prompt_mask: Tensor | None,
        *,
        queries: bool = False,
        cache_length: int | None = None,
    ):
        self.student = student
        self.base = student.base
        self.prompt_ids = prompt_ids
        self.B, self.P = prompt_ids.shape
        self.M = student.config.num_latents
        self.record = queries
        self.latent_queries: list[Tensor] = []
        self.num_passes = 0
        self.length = 0
        padded = prompt_mask is not None and not bool(prompt_mask.all())
        self.prompt_mask = prompt_mask if padded else None
        if prompt_mask is not None and padded:
            self.prompt_lengths = prompt_mask.sum(1, keepdim=True)
        else:
            self.prompt_lengths = torch.full((self.B, 1), self.P, device=prompt_ids.device)
        self.cache: Any = (
            cache_from([])
            if cache_length is None
            else PreallocatedCache(self.base.config.num_hidden_layers, cache_length)
        )
        self.hidden: Tensor  # [B, n, W] of the columns that the last pass read

    def positions(self, start: int, stop: int) -> Tensor:
        """Position ids [B, stop − start] of columns start:stop; padding stands at 0."""
        columns = torch.arange(start, stop, device=self.prompt_ids.device)
        return (columns - (self.P - self.prompt_lengths)).clamp(min=0)

    def mask(self, stop: int) -> Tensor | None:
        """Attention mask [B, stop]; None where no prompt is padded."""
        if self.prompt_mask is None:
            return None
        ones = self.prompt_mask.new_ones(self.B, stop - self.P)
        return torch.cat([self.prompt_mask, ones], dim=1)

    def _arguments(self, embeds: Tensor) -> dict[str, Any]:
        stop = self.length + embeds.shape[1]
        arguments = {
            "inputs_embeds": embeds,
            "attention_mask": self.mask(stop),
            "position_ids": self.positions(self.length, stop),
            "past_key_values": self.cache,
            "use_cache": True,
        }
        self.length = stop
        self.num_passes += 1
        return arguments

    def read(self, embeds: Tensor) -> None:
        """One pass of the base model over `embeds` [B, n, W], without the output head."""
        output: BaseModelOutputWithPast = self.base.base_model(**self._arguments(embeds))
        assert output.last_hidden_state is not None
        self.hidden = output.last_hidden_state

    def vector(self, index: int) -> Tensor:
        """Begin- (0) or end-of-thought (1) as [B, 1, W]."""
        return self.student.thought_embeddings[index].expand(self.B, 1, -1)

    def read_prompt(self, pairs: Pairs | None) -> None:
        """Read the prompt, unless its cache is given, with what follows it in the same pass."""
        follow = [self.vector(0)]
        if self.student.config.decoding == "jacobi" and self.M > 0:
            follow.append(self.student.placeholders.expand(self.B, -1, -1))
        if pairs is None:
            follow.insert(0, self.student.get_input_embeddings()(self.prompt_ids))
        else:
            self.cache, self.length = cache_from(pairs), self.P
        self.pending = torch.cat(follow, dim=1)

    def think(self) -> None:
        """Fill the latents; what is left in `pending` goes into the answer's pass."""
        config = self.student.config
        if self.M == 0:
            return
        if config.decoding == "sequential":
            self._think_sequential()
        elif config.num_iterations > 0:
            self._think_jacobi(config.num_iterations)

    def _think_sequential(self) -> None:
        for _ in range(self.M):
            self._recorded(self.pending)
            self.pending = self.student.projection(self.hidden[:, -1:])

    def _think_jacobi(self, num_iterations: int) -> None:
        start = self.P + 1
        self.read(self.pending)
        first = self.hidden[:, -self.M - 1 : -self.M]  # at begin-of-thought: the same in all passes
        for iteration in range(num_iterations):
            left = torch.cat([first, self.hidden[:, -self.M : -1]], dim=1)
            self.pending = self.student.projection(left)
            self._rewind(start)
            if iteration < num_iterations - 1:
                self.read(self.pending)

    def _rewind(self, length: int) -> None:
        """Forget the cached columns from `length` on, so that they can be read again."""
        if isinstance(self.cache, PreallocatedCache):
            self.cache.rewind(length)
        else:
            self.cache = cache_from(pairs_of(self.cache, length))
        self.length = length

    def _recorded(self, embeds: Tensor) -> None:
        """Read `embeds`; where asked, keep the queries of latent columns."""
        if not self.record:
            self.read(embeds)
            return
        with record_queries(self.base) as recorder:
            self.read(embeds)
        self._keep_queries(recorder.stacked())

    def _keep_queries(self, queries_BLHTD: Tensor) -> None:
        """Keep the latent columns among the columns that the last pass read."""
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
            self._keep_queries(recorder.stacked())
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
        )

    def _trace(self) -> KVTrace:
        start, stop = self.P + 1, self.P + 1 + self.M
        return trace_from_cache(
            self.cache,
            start=start,
            stop=stop,
            positions=self.positions(start, stop),
            queries=torch.cat(self.latent_queries, dim=3) if self.record else None,
        )

    def first_answer_logits(self) -> Tensor:
        """[B, V]: pending latents and the end-of-thought in one pass."""
        embeds = torch.cat([self.pending, self.vector(1)], dim=1)
        output = self.base(**self._arguments(embeds), logits_to_keep=1)
        return output.logits[:, -1]
