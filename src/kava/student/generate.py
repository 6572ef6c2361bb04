"""`generate` of a latent student, as users of transformers call it.

transformers reads the arguments, merges the generation configurations and makes the logits
processors and stopping criteria. The tokens come from the student's own `answer`, which is what
`kava evaluate` runs: one loop, one result. What that loop does not do is refused in one line.

Shapes: B batch, P prompt columns, N generated tokens, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteriaList,
    StopStringCriteria,
)

from kava.models.limits import check_answers_fit
from kava.models.readable import Limits
from kava.student.config import LATENT_NEW_TOKENS, LatentStudentConfig
from kava.student.decode import Generation
from kava.student.endings import generation_ends

_NOT_DONE: Mapping[str, tuple[object, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0.0,),
    "guidance_scale": (1.0,),
    "constraints": (),
    "force_words_ids": (),
    "dola_layers": (),
    "prompt_lookup_num_tokens": (),
    "assistant_model": (),
    "assistant_early_exit": (),
    "use_mtp": (False,),
    "custom_generate": (),
    "negative_prompt_ids": (),
    "token_healing": (False,),
    "use_cache": (True,),
    "cache_implementation": ("dynamic",),
    "past_key_values": (),
    "inputs_embeds": (),
    "position_ids": (),
    "return_dict_in_generate": (False,),
    "output_scores": (False,),
    "output_logits": (False,),
    "output_attentions": (False,),
    "output_hidden_states": (False,),
}
"""Arguments of transformers that a latent student does not have, and the values, beside None, that
ask for nothing."""


def left_aligned(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the padding of every row to its left, in the order of its other columns.

    Args:
        ids: [B, P].
        mask: [B, P], 1 at valid columns, wherever they are.

    Example:
        >>> ids, mask = torch.tensor([[5, 6, 0]]), torch.tensor([[1, 1, 0]])
        >>> [part.tolist() for part in left_aligned(ids, mask)]
        [[[0, 5, 6]], [[0, 1, 1]]]
    """
    order = mask.argsort(dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


class LatentGenerationMixin(GenerationMixin):
    """`generate` over a latent student's `answer`."""

    config: LatentStudentConfig
    generation_config: GenerationConfig
    base: PreTrainedModel
    answer: Callable[..., Generation]

    def settle_generation(self) -> None:
        """Fill in what the generation configuration leaves open: greedy, and where answers end."""
        config, ends = self.generation_config, generation_ends(self.base)
        if config.do_sample is None:
            config.do_sample = False
        if config.max_new_tokens is None:
            config.max_new_tokens = LATENT_NEW_TOKENS
        if config.eos_token_id is None and ends:
            config.eos_token_id = ends if len(ends) > 1 else ends[0]

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        **options: Any,
    ) -> Tensor:
        """Prompts with their answers, as causal models of transformers give them.

        The ids are those of the student's own prompt: `tokenizer.apply_chat_template` of a
        checkpoint's tokenizer writes it. Reasoning in latents leaves no tokens in the result.

        Args:
            inputs: [B, P] ids of the prompts; also as `input_ids`.
            generation_config: takes the place of the student's own, where it says something.
            **options: `attention_mask` [B, P] (padding on either side; left out, padding tokens
                are masked unless they also end texts), and what else `generate` of transformers
                takes for greedy decoding and sampling: `max_new_tokens`, `eos_token_id`,
                `pad_token_id`, `do_sample`, `temperature`, `top_k`, `top_p`, …,
                `num_return_sequences`, `logits_processor`, `stopping_criteria`, `stop_strings`
                with `tokenizer`, `streamer`.

        Returns:
            [B, P + N]: the ids as they were given, and behind them the answers, padded on the
            right.

        Raises:
            ValueError: ids or a mask of another shape, an argument that a latent student does not
                have (beam search and so on), a prompt that leaves no room for the answer.

        Example:
            >>> chats = [[{"role": "user", "content": "How many?"}]]
            >>> batch = tokenizer.apply_chat_template(
            ...     chats, return_tensors="pt", return_dict=True, padding=True
            ... )
            >>> ids = student.generate(**batch, max_new_tokens=16)
        """
        if not isinstance(generation_config, GenerationConfig | None):
            raise ValueError(
                f"generation_config is a {type(generation_config).__name__}; pass the mask of the "
                f"prompts by its name, as attention_mask"
            )
        config = copy.deepcopy(generation_config)
        for given in (self.generation_config, config):
            _refuse({} if given is None else given.to_dict())
        _refuse(options)
        ids = _ids_of(inputs, options.pop("input_ids", None)).to(self.base.device)
        options.pop("token_type_ids", None)  # a prompt is one text
        said = {} if config is None else config.to_dict()
        asked = {**{name: value for name, value in said.items() if value is not None}, **options}
        mask = options.pop("attention_mask", None)
        mask = self._valid_columns(ids, asked) if mask is None else _checked_mask(mask, ids)
        prompts, valid = left_aligned(ids, mask)
        # the passes make a cache of their own
        changes = {"use_cache": False, **_new_tokens(asked, ids.shape[1])}
        options = {name: value for name, value in options.items() if name != "max_length"}
        if config is None:
            options |= changes
        else:
            config.update(**changes)
        streamer = options.get("streamer")
        found: Any = super().generate(  # type: ignore[misc]
            prompts,
            generation_config=config,
            attention_mask=valid,
            stopping_criteria=_criteria(asked, options),
            custom_generate=partial(_decode, streamer=streamer),
            **options,
        )
        if streamer is not None:
            streamer.end()
        copies = len(found) // len(ids)
        return torch.cat([ids.repeat_interleave(copies, dim=0), found[:, ids.shape[1] :]], dim=1)

    def _valid_columns(self, ids: Tensor, asked: Mapping[str, Any]) -> Tensor:
        """The mask of prompts that come without one, as transformers takes it from the padding."""
        known = {**self.generation_config.to_dict(), **asked}
        pad = known["pad_token_id"]
        if pad is None or pad in _as_list(known["eos_token_id"]):
            return torch.ones_like(ids)
        return (ids != pad).long()

    def check_room(self, mask: Tensor, max_new_tokens: int) -> None:
        """Refuse answers that would run past the base model's positions.

        Args:
            mask: [B, P] of the prompts.
            max_new_tokens: most tokens of an answer.

        Raises:
            ValueError: the longest prompt leaves too few positions.
        """
        name = self.base.config.name_or_path or self.base.config.model_type
        lengths = mask.sum(1).tolist()
        check_answers_fit(
            name,
            Limits.of(name, self.base.config).positions,
            self.config.num_latents,
            max_new_tokens,
            [(f"prompt {number}", length) for number, length in enumerate(lengths)],
        )


def _decode(
    student: LatentGenerationMixin,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    streamer: Any = None,
    **inputs: Any,
) -> Tensor:
    """The decoding function that transformers calls: ids [B, P] → [B, P + N]."""
    # named as an argument, it would not be repeated for num_return_sequences
    attention_mask = inputs["attention_mask"]
    max_new_tokens = generation_config.max_length - input_ids.shape[1]
    student.check_room(attention_mask, max_new_tokens)

    def choose(tokens_BN: Tensor, logits_BV: Tensor) -> Tensor:
        ids: Any = torch.cat([input_ids, tokens_BN], dim=1)
        scores_BV: Tensor = logits_processor(ids, logits_BV.float())
        if generation_config.do_sample:
            return torch.multinomial(scores_BV.softmax(-1), num_samples=1).squeeze(1)
        return scores_BV.argmax(-1)

    def stop(tokens_BN: Tensor) -> Tensor:
        if streamer is not None:
            streamer.put(tokens_BN[:, -1].cpu())
        return stopping_criteria(torch.cat([input_ids, tokens_BN], dim=1), None)

    generation = student.answer(
        input_ids,
        attention_mask,
        max_new_tokens=max_new_tokens,
        eos_token_id=_as_list(generation_config.eos_token_id),
        stop=stop,
        choose=choose if generation_config.do_sample or logits_processor else None,
        fill=generation_config.pad_token_id,
    )
    return torch.cat([input_ids, generation.tokens], dim=1)


def _refuse(asked: Mapping[str, Any]) -> None:
    for name, nothing in _NOT_DONE.items():
        value = asked.get(name)
        if value is not None and value not in nothing:
            said = f"{value}" if isinstance(value, int | float | str) else "…"
            raise ValueError(
                f"{name}={said} is not for a latent student, which decodes one token after "
                f"another, the likeliest or a drawn one (do_sample): leave it out"
            )


def _ids_of(inputs: Any, input_ids: Any) -> Tensor:
    if (inputs is None) == (input_ids is None):
        raise ValueError("give the ids of the prompts once: as input_ids, or as first argument")
    ids = input_ids if inputs is None else inputs
    if not isinstance(ids, Tensor) or ids.ndim != 2 or not ids.numel():
        shape = list(ids.shape) if isinstance(ids, Tensor) else type(ids).__name__
        raise ValueError(f"input_ids must be a tensor [B, P] of prompts, got {shape}")
    return ids


def _checked_mask(mask: Tensor, ids: Tensor) -> Tensor:
    if mask.shape != ids.shape:
        raise ValueError(
            f"attention_mask {list(mask.shape)} must be as input_ids, {list(ids.shape)}"
        )
    mask = (mask != 0).long().to(ids.device)
    if not bool(mask.any(1).all()):
        empty = int((~mask.any(1)).nonzero()[0])
        raise ValueError(f"attention_mask leaves nothing of prompt {empty}: it is empty")
    return mask


def _new_tokens(asked: Mapping[str, Any], num_columns: int) -> dict[str, int]:
    """`max_length`, where it is asked for and decides, as new tokens."""
    longest = asked.get("max_length")
    if longest is None or asked.get("max_new_tokens") is not None:
        return {}
    if longest <= num_columns:
        raise ValueError(
            f"max_length={longest} leaves no room behind prompts of {num_columns} columns: raise "
            f"it, or pass max_new_tokens"
        )
    return {"max_new_tokens": longest - num_columns}


def _criteria(asked: Mapping[str, Any], options: dict[str, Any]) -> StoppingCriteriaList:
    """The caller's stopping criteria, and one for stop strings; taken out of the options."""
    criteria = StoppingCriteriaList(options.pop("stopping_criteria", None) or [])
    tokenizer = options.pop("tokenizer", None)
    strings = options.pop("stop_strings", None)
    if strings is not None:
        if tokenizer is None:
            raise ValueError("stop_strings are compared with text: pass the tokenizer too")
        criteria.append(StopStringCriteria(tokenizer, strings))
    return criteria


def _as_list(tokens: int | Sequence[int] | None) -> list[int]:
    return [] if tokens is None else [tokens] if isinstance(tokens, int) else list(tokens)
