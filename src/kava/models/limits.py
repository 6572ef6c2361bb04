"""Limits of the models, checked before data are read or weights loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kava.errors import describe
from kava.format import counted

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kava.align import CacheGeometry

_ROTARY = ("rope_parameters", "rope_scaling", "rope_theta")

THOUGHT_TOKENS = 2
"""Positions besides the latents: begin- and end-of-thought."""


def check_map_rank(text: str) -> None:
    """Check the form of `--map_rank`.

    Raises:
        ValueError: neither a number above 0 nor auto.

    Example:
        >>> check_map_rank("8")
    """
    number = text.isascii() and text.isdecimal() and int(text[:9]) > 0
    if not number and text != "auto":
        raise ValueError(f"--map_rank {text!r} must be a number above 0, or auto")


def check_map_rank_fits(
    text: str | None,
    teacher: CacheGeometry,
    student: CacheGeometry,
    *,
    share_dim_proj: bool,
    align_direction: str,
) -> None:
    """Refuse more terms than are needed to express every map between two models' heads.

    Args:
        text: value of `--map_rank`; None and auto always fit.
        teacher: its geometry.
        student: its geometry.
        share_dim_proj: one dim map for all heads in each term.
        align_direction: which of the two models is mapped.

    Raises:
        ValueError: too many terms; the message gives the maximum.
    """
    if text is None or text == "auto":
        return
    from kava.align.geometry import HeadDims
    from kava.names import TEACHER_TO_STUDENT

    sides = (teacher, student) if align_direction == TEACHER_TO_STUDENT else (student, teacher)
    source, target = sides
    shape = HeadDims(source.num_heads, target.num_heads, source.head_dim, target.head_dim)
    full = shape.full_rank(per_head=not share_dim_proj)
    if int(text) > full:
        terms = "1 term makes" if full == 1 else f"{full} terms make"
        choice = "1" if full == 1 else f"1 to {full}"
        raise ValueError(
            f"--map_rank {text} is too many: from {source.num_heads} key/value heads of "
            f"{source.head_dim} to {target.num_heads} of {target.head_dim}, {terms} every map; "
            f"choose {choice}, or auto"
        )


def check_layer_map_file(path: str, teacher: CacheGeometry, student: CacheGeometry) -> None:
    """Refuse a file of `--layer_mapping_path` that is no map between two models' layers.

    Raises:
        ValueError: no such file, no layer map, or one of other depths; names flag and path.
    """
    from kava.align.layers.layer_map import load_layer_map

    try:
        load_layer_map(path, teacher.num_layers, student.num_layers)
    except FileNotFoundError:
        raise ValueError(
            f"--layer_mapping_path {path}: there is no such file; kava layer-map makes one"
        ) from None
    except (ValueError, OSError) as error:
        raise ValueError(f"--layer_mapping_path: {describe(error)}") from error


def positions_of(config: Any) -> int | None:
    """Number of positions in a model's configuration; None if it names none.

    It is the length that a model was made for. Rotary and ALiBi positions are computed and continue
    beyond it; see `table_of_positions`.
    """
    for name in ("max_position_embeddings", "max_seq_len"):  # the second is MPT's
        limit = getattr(config, name, None)
        if isinstance(limit, int):
            return limit
    return None


def table_of_positions(config: Any) -> int | None:
    """Size of a model's position table; None if its positions have no limit.

    Learned positions (GPT-2, OPT, BERT), tabulated rotations (GPT-J) and MPT's biases are finite,
    and reading beyond them is an index error in the middle of a batch.

    Example:
        >>> table_of_positions(GPT2Config()), table_of_positions(LlamaConfig())
        (1024, None)
    """
    settings = config.to_dict()
    return None if any(name in settings for name in _ROTARY) else positions_of(config)


def check_readable(model: PreTrainedModel, ids: Tensor | None, last: int | None) -> None:
    """Refuse tokens and positions that a model has no row for, where torch gives an IndexError.

    Tokens on an accelerator are not looked at, for which the step would have to wait.

    Args:
        model: the reader.
        ids: [B, T] token ids; None where vectors are read.
        last: the largest position that is read; None where it is not known without waiting.

    Raises:
        ValueError: an id or a position outside the model's tables, with the limit.

    Example:
        >>> check_readable(load_model("kava/tiny-gpt2"), torch.tensor([[5, 6]]), 1)
    """
    if ids is not None and ids.device.type == "cpu":
        table = model.get_input_embeddings()
        rows = getattr(table, "num_embeddings", None)  # a table of another kind has its own limit
        low, high = (int(end) for end in ids.aminmax())
        if rows is not None and not 0 <= low <= high < rows:
            raise ValueError(
                f"input_ids hold {low if low < 0 else high}, but {type(model).__name__} has "
                f"embeddings for the ids 0 to {rows - 1:,} alone: encode with its own tokenizer"
            )
    config = model.config.get_text_config()
    limit = positions_of(config)
    if last is not None and limit is not None and last >= limit:
        table_size = table_of_positions(config)
        if table_size is not None and last >= table_size:
            raise ValueError(
                f"the text reaches position {last:,}, but {type(model).__name__} has a table of "
                f"{table_size:,} positions, 0 to {table_size - 1:,}: shorten it, or take a model "
                f"that reads further"
            )


def check_latents_fit(model: str, positions: int | None, num_latents: int) -> None:
    """Refuse so large a number of latents that no position is left for prompt or answer.

    Raises:
        ValueError: too many latents; the message names the limit.
    """
    if positions is not None and num_latents + THOUGHT_TOKENS >= positions:
        raise ValueError(
            f"--target_len {num_latents} leaves no room in the {positions:,} positions of "
            f"{model}; lower it"
        )


def check_answers_fit(
    model: str,
    positions: int | None,
    num_latents: int | None,
    max_new_tokens: int,
    prompts: Sequence[tuple[str, int]] = (),
) -> None:
    """Refuse answers that would need more positions than the model has.

    Args:
        model: name of the model, for messages.
        positions: number of the model's positions; None: no limit.
        num_latents: latents of a latent student; None for a model that writes its reasoning.
        max_new_tokens: maximum tokens of an answer.
        prompts: name and length of each prompt; empty if not known yet.

    Raises:
        ValueError: answers that do not fit; the message names the limit.
    """
    if positions is None:
        return
    name, length = max(prompts, key=lambda prompt: prompt[1], default=("any prompt", 1))
    thought = 0 if num_latents is None else num_latents + THOUGHT_TOKENS
    room = positions - length - thought
    if max_new_tokens > room:
        latents = f", {thought} latent ones" if thought else ""
        most = f"{room:,} is the most" if room > 0 else "no answer does; shorten the prompt"
        raise ValueError(
            f"--max_new_tokens {max_new_tokens:,} does not fit the {positions:,} positions of "
            f"{model} behind {name} ({counted(length, 'token')}{latents}): {most}"
        )
