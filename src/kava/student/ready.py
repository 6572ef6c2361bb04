"""What a saved student tells transformers: its prompt, the ends and the length of its answers.

The prompt is the tokenizer's chat template, so that `tokenizer.apply_chat_template` gives the ids
that the student was trained on; the rest is the generation configuration.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kava.data.chat import PROBES, first_tokens
from kava.data.records import Template
from kava.data.special_tokens import SpecialTokens
from kava.data.text_tokens import tokenize
from kava.student.endings import end_ids
from kava.student.latent import LatentStudent

ONE_QUESTION = "a student answers one question: give one message of the role user, as text"
logger = logging.getLogger(__name__)


def chat_template(tokenizer: PreTrainedTokenizerBase, template: Template) -> str | None:
    """A student's prompt as a Jinja chat template, for conversations of one question.

    `apply_chat_template` adds no special tokens, so those that the tokenizer puts first stand in
    the text.

    Args:
        tokenizer: the student's.
        template: of its training.

    Returns:
        None where no such template gives the ids of training.

    Example:
        >>> tokenizer.chat_template = chat_template(tokenizer, Template())
        >>> chat = [{"role": "user", "content": "How many?"}]
        >>> tokenizer.apply_chat_template(chat, tokenize=False)
        'How many?\\n'
    """
    before, after = template.question.split("{question}")
    asked = "messages[0]['content']"
    text = (
        "{%- if messages | length != 1 or messages[0]['role'] != 'user' "
        f"or {asked} is not string -%}}"
        f"{{{{ raise_exception({json.dumps(ONE_QUESTION)}) }}}}"
        "{%- endif -%}"
        f"{{{{ {_literal(first_tokens(tokenizer) + before)} + ({asked} | trim) "
        f"+ {_literal(after)} }}}}"
    )
    marks = SpecialTokens.of(tokenizer, template).in_template
    for question in PROBES:
        chat = [{"role": "user", "content": question}]
        ids: Any = tokenizer.apply_chat_template(chat, chat_template=text, return_dict=True)
        (prompt,) = tokenize([template.prompt(question)], tokenizer, marks=marks)
        if list(ids["input_ids"]) != prompt.ids:
            logger.info(
                "%s gives other ids for a prompt with its first tokens written out: it is saved "
                "without a chat template",
                tokenizer.name_or_path or type(tokenizer).__name__,
            )
            return None
    return text


def with_prompt(tokenizer: PreTrainedTokenizerBase, template: Template) -> PreTrainedTokenizerBase:
    """A tokenizer whose chat template is the student's prompt; the given one stays as it is.

    A chat template that it came with is of another prompt, and is left out.
    """
    saved = copy.copy(tokenizer)
    saved.chat_template = chat_template(tokenizer, template)
    return saved


def set_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Have `generate` end where `kava evaluate` does, and pad with the tokenizer's token.

    Args:
        model: a causal model; the configuration of a latent student is its own, not its base's.
        tokenizer: its tokenizer.
    """
    base = model.base if isinstance(model, LatentStudent) else model
    config, ends = model.generation_config, end_ids(base, tokenizer)
    assert config is not None
    config.eos_token_id = ends if len(ends) > 1 else ends[0] if ends else None
    config.pad_token_id = tokenizer.pad_token_id


def settle_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]
) -> None:
    """Set where a student's answers end, and how long a latent student's may be, for `generate`.

    Args:
        model: the student.
        tokenizer: its tokenizer.
        settings: as `kava.student.checkpoint.save_student` takes them; under "config" the run's
            `max_new_tokens`.
    """
    set_ends(model, tokenizer)
    if not isinstance(model, LatentStudent):
        return
    most = settings.get("config", {}).get("max_new_tokens")
    if isinstance(most, int):
        model.generation_config.max_new_tokens = most


def _literal(text: str) -> str:
    """A text as Jinja writes it."""
    return json.dumps(text, ensure_ascii=False)
