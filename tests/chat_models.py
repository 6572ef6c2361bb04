"""Tiny models with chat templates of several families, written to folders."""

from __future__ import annotations

from pathlib import Path

from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from kava.models.load import load_model
from kava.models.tokenizers import byte_tokenizer

MARKS = ("<s>", "<|user|>", "<|assistant|>", "<|turn|>")

TEMPLATES = {
    # SmolLM, Qwen: a default system message, no start token
    "chatml": "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ 'Be brief.<|turn|>\n' }}{% endif %}{{ '<|user|>' if m['role'] == 'user' else "
    "'<|assistant|>' }}{{ '\n' + m['content'] + '<|turn|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    # Llama 3, Gemma: the start token stands in the template, content is trimmed, a date
    "llama": "{{ bos_token }}{{ 'Today: ' + strftime_now('%d %b %Y') + '\n' }}{% for m in messages "
    "%}{{ '<|' + m['role'] + '|>\n\n' + m['content'] | trim + '<|turn|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n\n' }}{% endif %}",
    # Llama 2, Mistral: a reply has no prompt of its own, and ends with the tokenizer's end
    "mistral": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + eos_token }}"
    "{% endif %}{% endfor %}",
    # Qwen 3: a reply has a thought, which is empty where thinking is turned off
    "qwen3": "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>' + m['content'] + "
    "'<|turn|>\n' }}{% else %}{{ '<|assistant|>\n<think>\n\n</think>\n\n' + "
    "m['content'].split('</think>')[-1].lstrip('\n') + '<|turn|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% if enable_thinking is defined and "
    "enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}",
}
"""Chat templates that work; the names say whose form they have."""

BAD_TEMPLATES = {
    # DeepSeek R1 begins a reply with a thought, and takes it out of a conversation
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'].split('</think>')[-1] }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}": (
        "drops or rewrites the reasoning of a reply"
    ),
    "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}": (
        "drops or rewrites the reasoning of a reply"
    ),
    "{{ messages[0]['content'] | upper }}": "does not write a question as it stands",
    "{{ messages[0]['content'] | length }} {{ messages[0]['content'] }}": "other texts around",
    "{{ raise_exception('no user is let in') }}": "cannot be rendered (no user is let in)",
    "{% if %}": "cannot be rendered",
    "{{ messages[0]['text'] + 1 }}": "cannot be rendered",
}
"""Chat templates that cannot be used, and why."""


def chat_tokenizer(kind: str | None) -> PreTrainedTokenizerBase:
    """A byte tokenizer with marks and the chat template of a family; none for None."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS[1:]), "bos_token": "<s>"})
    if kind in ("llama", "mistral"):
        start = tokenizer.convert_tokens_to_ids("<s>")
        assert isinstance(start, int)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", start)]
        )
    tokenizer.chat_template = None if kind is None else TEMPLATES[kind]
    return tokenizer


def chat_model(folder: Path, kind: str | None, base: str = "kava/tiny-llama") -> Path:
    """A folder with a tiny model and such a tokenizer."""
    model, tokenizer = load_model(base), chat_tokenizer(kind)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
