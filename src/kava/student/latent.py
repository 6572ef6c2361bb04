"""The latent student: a causal language model that reasons in a few continuous tokens.

The written reasoning between question and answer is replaced by M latent tokens whose input
embeddings come from the model's own hidden states. Two ways to decode them: *sequential*, M
passes of one position each; *Jacobi*, one pass with placeholder embeddings and T more over all
latents at once, every latent taking the hidden state that its left neighbour had one pass
earlier. Latent j is exact after j such passes, so T = M equals sequential decoding.

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

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from kava.models.traceable import name_outputs
from kava.student.adapted import from_checkpoint
from kava.student.cache import Pairs
from kava.student.config import LATENT_NEW_TOKENS, LatentStudentConfig
from kava.student.decode import Choose, Generation, Stop, decode
from kava.student.endings import generation_ends
from kava.student.generate import LatentGenerationMixin
from kava.student.passes import LatentOutput, LatentParts, Passes
from kava.student.whole import WEIGHTS_FILE, has_manifest, is_adapted, student_damage
from kava.student.written import Written, WrittenText, read_written
from kava.trace import KVTrace

MEAN_NOISE = 0.3
"""Of begin- and end-of-thought's start: its spread about the mean, in that of the embeddings."""


class LatentProjection(nn.Sequential):
    """Map the hidden state at one latent to the input embedding of the next: [.., W] → [.., W]."""

    def __init__(self, width: int, dropout: float = 0.0):
        super().__init__(
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
        )

    def forward(self, input: Tensor) -> Tensor:
        """Map in the dtype of these weights, which can be wider than that of a frozen base."""
        output: Tensor = super().forward(input.to(next(self.parameters()).dtype))
        return output

    def scale_to(self, embeddings: Tensor) -> None:
        """Initialise the scale of the outputs with the root mean square of `embeddings` [V, W]."""
        norm = self[4]
        assert isinstance(norm, nn.LayerNorm)
        with torch.no_grad():
            norm.weight.fill_(embeddings.float().square().mean().sqrt().item())


class LatentStudent(PreTrainedModel, LatentGenerationMixin):
    """Wrap any causal Hugging Face model so that it reasons in latent tokens.

    Args:
        config: the student's configuration; its `base_config` builds the base model.
        base_model: a loaded model to wrap instead of one with fresh weights.

    Example:
        >>> student = LatentStudent.wrap(model, num_latents=6)
        >>> output = student(prompt_ids, prompt_mask, answer_ids)
        >>> ids = student.generate(prompt_ids, attention_mask=prompt_mask, max_new_tokens=8)
        >>> student.save_pretrained("student"); LatentStudent.from_pretrained("student")
    """

    config_class = LatentStudentConfig
    config: LatentStudentConfig
    base_model_prefix = "base"
    main_input_name = "input_ids"  # of `generate`
    supports_gradient_checkpointing = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: LatentStudentConfig, base_model: PreTrainedModel | None = None):
        super().__init__(config)
        if base_model is None:
            base_config = AutoConfig.for_model(**config.base_config)
            base_model = AutoModelForCausalLM.from_config(base_config)
        name_outputs(base_model.config)
        self.base = base_model
        width = embedding_weight(base_model).shape[1]
        self.thought_embeddings = nn.Parameter(torch.zeros(2, width))
        # only parameters that the decoding uses: one without a gradient stalls distributed training
        jacobi = config.decoding == "jacobi"
        if config.num_latents > 0 and (not jacobi or config.num_iterations > 0):
            self.projection = LatentProjection(width, config.projection_dropout)
        if config.num_latents > 0 and jacobi:
            self.placeholders = nn.Parameter(torch.zeros(config.num_latents, width))
        self.post_init()
        self.settle_generation()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **options: Any) -> Any:
        """Load a student like any transformers model.

        Raises:
            ValueError: a run's checkpoint with a missing or truncated file, or with LoRA adapters
                whose base cannot be loaded.
        """
        folder = Path(pretrained_model_name_or_path or "")
        if (folder / WEIGHTS_FILE).is_file() or has_manifest(folder):
            problem = student_damage(folder)
            if problem is not None:
                raise ValueError(f"{problem}; take another checkpoint")
        if is_adapted(folder):
            return from_checkpoint(folder, cls, options)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **options)
        student = loaded[0] if isinstance(loaded, tuple) else loaded
        student.settle_generation()  # a checkpoint of an earlier version has no such file
        return loaded

    @classmethod
    def wrap(
        cls,
        model: PreTrainedModel,
        *,
        num_latents: int,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> LatentStudent:
        """Build a student around a model; `options` are `LatentStudentConfig`'s.

        What is added to the model has `dtype`, or that of the model.
        """
        base_config = model.config.to_dict()
        # a student on disk keeps its base's configuration, and not its generation configuration
        if ends := generation_ends(model):
            base_config["eos_token_id"] = ends if len(ends) > 1 else ends[0]
        config = LatentStudentConfig(base_config=base_config, num_latents=num_latents, **options)
        student = cls(config, base_model=model)
        # through the module, because Gemma scales its embeddings
        tokens = torch.arange(embedding_weight(model).shape[0], device=model.device)
        with torch.no_grad():
            student._start_from(model.get_input_embeddings()(tokens))
        student.to(device=model.device)  # type: ignore[call-arg]
        student.cast_added(dtype or model.dtype)
        return student

    def cast_added(self, dtype: torch.dtype) -> None:
        """Cast what is added to the base model, which stays as it is."""
        for name, part in self.named_parameters():
            if not name.startswith("base."):
                part.data = part.data.to(dtype)

    def _start_from(self, embeddings: Tensor) -> None:
        """Initialise the added vectors at the scale of the vocabulary's embeddings [V, W].

        Where they take no position, begin- and end-of-thought start near the mean embedding, which
        disturbs what is read around them least (as new tokens do in Hewitt, "Initializing new
        word embeddings for pretrained language models", 2021; the noise here tells them apart).
        """
        std = embeddings.float().std().item()
        with torch.no_grad():
            self.thought_embeddings.normal_(0.0, std)
            if self.config.thought_positions == "shared":
                self.thought_embeddings.mul_(MEAN_NOISE).add_(embeddings.float().mean(0))
            if hasattr(self, "placeholders"):
                self.placeholders.normal_(0.0, std)
        if hasattr(self, "projection"):
            self.projection.scale_to(embeddings)

    def _init_weights(self, module: nn.Module) -> None:
        """No effect: the base model initialises its modules, and `wrap` those added here."""

    def parts(self) -> LatentParts:
        """The modules and settings that the passes use."""
        dtype = embedding_weight(self.base).dtype
        placeholders = getattr(self, "placeholders", None)
        return LatentParts(
            self.base,
            self.config,
            self.thought_embeddings.to(dtype),
            getattr(self, "projection", None),
            None if placeholders is None else placeholders.to(dtype),
        )

    def get_input_embeddings(self) -> nn.Module:
        """The base model's token embeddings."""
        return self.base.get_input_embeddings()

    def forward(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor | None = None,
        answer_ids: Tensor | None = None,
        *,
        prompt_pairs: Pairs | None = None,
        queries: bool = False,
        hidden_states: bool = False,
        readings: bool = False,
        trace: bool = True,
    ) -> LatentOutput:
        """Read the prompt, compute M latents, and predict the answer, with gradients.

        Args:
            prompt_ids: [B, P], left-padded.
            prompt_mask: [B, P], 1 at valid columns; None means no padding.
            answer_ids: [B, A], right-padded (right padding needs no mask under causal attention).
            prompt_pairs: each layer's keys and values over the P prompt columns, from an earlier
                pass of this same model over the same prompt. The student continues from them, and
                gradients flow into that pass.
            queries: also record the queries at the latents.
            hidden_states: also return all layers' hidden states at the answer-predicting columns.
            readings: also return what each latent reads as through the output head.
            trace: return the latents' trace.
        """
        if answer_ids is None:
            raise ValueError(
                "answer_ids is None: training needs the answer; use generate() without"
            )
        run = Passes(
            self.parts(),
            prompt_ids,
            prompt_mask,
            queries=queries and self.config.num_latents > 0,
            readings=readings,
        )
        run.begin(prompt_pairs)
        run.think()
        tokens = self.get_input_embeddings()(answer_ids[:, :-1])
        return run.answer(tokens, hidden_states=hidden_states, trace=trace)

    def read_written(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor | None,
        text: WrittenText,
        prompt_pairs: Pairs | None = None,
    ) -> Written:
        """Read a written chain of thought between the thought vectors, and the answer behind it.

        Args:
            prompt_ids: [B, P], left-padded.
            prompt_mask: [B, P], 1 at valid columns; None means no padding.
            text: what follows the prompt, as `kava.student.written.lay_out` makes it.
            prompt_pairs: as `forward` takes them; left out, the prompt is read here.
        """
        return read_written(self.parts(), prompt_ids, prompt_mask, text, prompt_pairs)

    def answer_from(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor | None,
        answer_ids: Tensor,
        begin_pairs: Pairs,
        latents: KVTrace,
    ) -> Tensor:
        """Predict the answer from given keys and values in the place of the latents'.

        Args:
            prompt_ids: [B, P], left-padded.
            prompt_mask: [B, P], 1 at valid columns; None means no padding.
            answer_ids: [B, A], right-padded.
            begin_pairs: each layer's keys and values over prompt and begin-of-thought, as
                `LatentOutput` has them.
            latents: [B, L, H, M, D], keys rotated to the latents' positions; slots that its mask
                leaves out are hidden.

        Returns:
            logits [B, A, V].
        """
        run = Passes(self.parts(), prompt_ids, prompt_mask)
        run.take_latents(begin_pairs, latents)
        tokens = self.get_input_embeddings()(answer_ids[:, :-1])
        return run.answer(tokens, hidden_states=False, trace=False).logits

    @torch.no_grad()
    def answer(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor | None = None,
        *,
        max_new_tokens: int = LATENT_NEW_TOKENS,
        eos_token_id: int | Sequence[int] | None = None,
        readings: bool = False,
        stop: Stop | None = None,
        choose: Choose | None = None,
        fill: int | None = None,
    ) -> Generation:
        """Answers to a batch of prompts, greedy by default, over one preallocated cache.

        `generate` is the same with the arguments and the result of transformers.

        Args:
            prompt_ids: [B, P], left-padded.
            prompt_mask: [B, P], 1 at valid columns.
            max_new_tokens: most answer tokens.
            eos_token_id: each ends an answer; None runs to max_new_tokens.
            readings: also return what each latent reads as through the output head.
            stop, choose, fill: as `kava.student.decode.decode` takes them.
        """
        M = self.config.num_latents
        room = prompt_ids.shape[1] + M + 2 + max_new_tokens
        run = Passes(self.parts(), prompt_ids, prompt_mask, readings=readings, cache_length=room)
        run.begin(None)
        run.think()
        logits_BV = run.first_answer_logits()
        generation = decode(
            self.base,
            run.cache,
            logits_BV,
            attention_mask=run.mask(run.length),
            next_position_B1=run.positions(run.length, run.length + 1),
            num_passes=run.num_passes,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos_token_id,
            stop=stop,
            choose=choose,
            fill=fill,
        )
        return replace(generation, readings=run.readings())


def embedding_weight(model: PreTrainedModel) -> Tensor:
    """A model's token embeddings [V, W]."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight


# see `kava.student.registration`
AutoModelForCausalLM.register(LatentStudentConfig, LatentStudent, exist_ok=True)
