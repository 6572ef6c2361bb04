"""The chat template of a tokenizer as a `Template`: what stands before and behind a question.

A chat template is a Jinja program over a conversation. For one question and its reply it comes down
to two fixed texts, the one before the question and the one between it and the reply, which are
found by rendering probes. The question template made of them is what a run trains with, saves with
its student and asks with, so that nothing else has to know of chats:

    <|im_start|>user\\n{question}<|im_end|>\\n<|im_start|>assistant\\n   reasoning, cue and answer

Reasoning, cue and answer are the assistant's turn, which ends with the token that the template puts
behind it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kava.data.records import Template
from kava.data.special_tokens import special_texts
from kava.errors import describe
from kava.inputs import read_text
from kava.names import NO_CHAT, OWN_CHAT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kava.data.records import Record

QUESTIONS = ("How many are 2 + 2?", "Zoë has 3 日本 pens.\nHow many?")
"""Questions that a chat template is rendered with."""
PROBES = (*QUESTIONS, "a")
"""Questions on which two ways to write a prompt are compared."""

REPLY = "2 + 2 = 4\n4 + 1 = 5\n#### 5"
NUM_CHECKED = 100
"""Records whose replies are rendered by the chat template itself, and compared."""

_HOLE = "{question}"
_CLOCK = "strftime_now"
_DAY = (
    f"{{%- macro {_CLOCK}(form) -%}}"
    "{{ {'%d %b %Y': '26 Jul 2024'}.get(form, '2024-07-26') }}"
    "{%- endmacro %}"
)
"""Stands before a template that writes today's date: a student is asked as it was trained."""


@dataclass(frozen=True)
class Chat:
    """How a chat template writes one question and its reply.

    Attributes:
        prompt: the text up to the reply, with {question} once, without the special tokens that the
            tokenizer puts first by itself.
        end: the text of the special token that ends the reply; None where there is none.
    """

    prompt: str
    end: str | None


@dataclass(frozen=True)
class Chats:
    """The chat template that a value of `--chat_template` means for a tokenizer.

    Args:
        tokenizer: of the model that reads.
        choice: none, tokenizer (its own), or the path of a .jinja file.
        source: the model's name, for messages.
        flag: the flag that the choice is from, for messages.

    Example:
        >>> Chats(tokenizer, "tokenizer", "Qwen/Qwen2.5-0.5B").template(Template()).question
        '<|im_start|>system\\n…<|im_start|>user\\n{question}<|im_end|>\\n<|im_start|>assistant\\n'
    """

    tokenizer: PreTrainedTokenizerBase
    choice: str
    source: str
    flag: str = "--chat_template"

    def template(self, template: Template) -> Template:
        """A template whose prompt stands in the chat.

        Raises:
            ValueError: no such chat template, or one that is not of the form that is needed.
            OSError: a file that cannot be read.
        """
        if self.choice == NO_CHAT:
            return template
        asked = template.question.strip()
        return replace(template, question=self.read().prompt.replace(_HOLE, asked))

    def ending(self) -> PreTrainedTokenizerBase:
        """The tokenizer, its end-of-sequence token that of a reply; a copy where it is another.

        Raises:
            ValueError, OSError: as `template`.
        """
        if self.choice == NO_CHAT:
            return self.tokenizer
        end = self.read().end
        if end is None or end == self.tokenizer.eos_token:
            return self.tokenizer
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.eos_token = end
        return tokenizer

    def check_replies(self, records: Sequence[Record], template: Template) -> None:
        """Refuse records whose reply the chat template would not write as it stands.

        Templates of models that think take a part of a reply out of a conversation, from <think> to
        </think>. The first records are looked at.

        Args:
            records: what is read.
            template: the result of `template`.

        Raises:
            ValueError: the first such record.
        """
        if self.choice == NO_CHAT:
            return
        for record in records[:NUM_CHECKED]:
            rendered = template.render(record)
            reply = rendered.text[rendered.reasoning_start :]
            if reply.strip() not in self._write(record.question, reply):
                raise self._bad(
                    f"drops or rewrites the reasoning of {record.named}, as those do that take "
                    f"<think> … </think> out of a conversation; take such marks out of the data"
                )

    def read(self) -> Chat:
        """The two texts around a question, and the end of the reply.

        Raises:
            ValueError: there is no chat template, it cannot be rendered, it does not write a
                question or a reply as it stands, or not between the same texts each time.
            OSError: a file that cannot be read.
        """
        prompts = []
        for question in QUESTIONS:
            before, found, after = self._write(question).partition(question)
            if not found:
                raise self._bad("does not write a question as it stands")
            prompts.append((before, after))
        before, after = prompts[0]
        if any(prompt != prompts[0] for prompt in prompts) or _HOLE in before + after:
            raise self._bad("writes other texts around each question")
        question = QUESTIONS[0]
        prompt, whole = before + question + after, self._write(question, REPLY)
        lead, found, rest = whole.rpartition(REPLY)
        if not found:
            raise self._bad("drops or rewrites the reasoning of a reply")
        if lead.rstrip() != prompt.rstrip():
            raise self._bad(
                f"asks for a reply by {prompt[-30:]!r}, and writes one behind {lead[-30:]!r}: it "
                f"drops or rewrites the reasoning of a reply"
            )
        ends = [mark for mark in special_texts(self.tokenizer) if rest.lstrip().startswith(mark)]
        first = first_tokens(self.tokenizer)
        return Chat((before + _HOLE + after).removeprefix(first), max(ends, key=len, default=None))

    def _write(self, question: str, reply: str | None = None) -> str:
        """A conversation as text: of a question alone up to where the reply begins."""
        chat = [{"role": "user", "content": question}]
        if reply is not None:
            chat.append({"role": "assistant", "content": reply})
        try:
            text: Any = self.tokenizer.apply_chat_template(
                chat,
                chat_template=self._text(),
                tokenize=False,
                add_generation_prompt=reply is None,
                enable_thinking=False,  # else templates of Qwen 3 put an empty thought into a reply
            )
        except OSError:
            raise
        except Exception as error:  # of Jinja, or of what the template does with its values
            raise self._bad(f"cannot be rendered ({describe(error)})") from error
        return str(text)

    def _text(self) -> str:
        """The chat template as Jinja."""
        if self.choice != OWN_CHAT:
            path = Path(self.choice).expanduser()
            if not path.is_file():
                raise OSError(f"{self.flag} {self.choice}: there is no such file")
            text = read_text(path)
        elif self.tokenizer.chat_template:
            text = self.tokenizer.get_chat_template()
        else:
            raise OSError(
                f"{self.flag} {OWN_CHAT}: the tokenizer of {self.source!r} has no chat template; "
                f"pass the path of a .jinja file, or {NO_CHAT}"
            )
        return _DAY + text if _CLOCK in text else text

    def _bad(self, what: str) -> ValueError:
        return ValueError(
            f"{self.flag} {self.choice}: the chat template of {self.source!r} {what}; pass "
            f"the path of a .jinja file, or {NO_CHAT}"
        )


def first_tokens(tokenizer: PreTrainedTokenizerBase) -> str:
    """The special tokens that a tokenizer puts before a text, as text."""
    output: Any = tokenizer("a", return_special_tokens_mask=True)
    marked = zip(output["input_ids"], output["special_tokens_mask"])
    ids = [token for token, _ in takewhile(lambda pair: pair[1], marked)]
    return "".join(tokenizer.convert_ids_to_tokens(ids))
