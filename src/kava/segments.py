"""Find where prompt, reasoning and answer begin in a text, and the segment of each token.

Segments are found in the characters of a text; tokens get the segment of the characters they cover.
So the result is the same for every tokenizer, and never depends on the batch.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kava.trace import Segment

Trigger = str | re.Pattern[str]
OnMissing = Literal["error", "report"]

# A line begins behind LF, CR LF or CR, of which `^` knows the two that end in LF. Every pattern is
# matched in time linear in the text, however it is made: no two repetitions in a row can share
# out the same characters, and none begins a pattern that is tried at each of them.
_LINE = r"(?:^|(?<=\r))[ \t]*"
_CALCULATION = r"<<(?=[^<>=\r\n]*=[^<>\r\n]*>>)"

REASONING_TRIGGERS: tuple[Trigger, ...] = (
    re.compile(_LINE + r"(?:reasoning|rationale|solution|explanation)[ \t]*:", re.I | re.M),
    re.compile(r"\blet['’]?s think\b", re.I),
    re.compile(r"(?:^|(?<=[\s。？！?]))(?:解答|解析|解)[ \t]*[:：]", re.M),
    re.compile(_LINE + r"首先", re.M),
    # a question whose line ends with a question mark: the reasoning begins on the next line
    re.compile(r"(?:(?<=[?？]\n)|(?<=[?？]\r)|(?<=[?？]\r\n))(?=\S)"),
    # GSM8K's calculator annotations, where it is plain which line the reasoning begins with: the
    # question is one line, the next holds an annotation; or there are annotations alone
    re.compile(rf"\A[^\r\n]*(?:\r\n|\r|\n)(?P<start>[^\r\n]*{_CALCULATION})"),
    re.compile(rf"[.?!？。]\s+(?P<start>{_CALCULATION})"),
    re.compile(_LINE + r"(?:step 1\b|第一步)", re.I | re.M),
    # a list marker is followed by a blank, "1.5" is a number
    re.compile(_LINE + r"(?:1[.)](?=\s)|1、|\(1\)(?=\s)|（1）)", re.M),
)
"""Patterns for the start of the reasoning, most reliable first."""

ANSWER_TRIGGERS: tuple[Trigger, ...] = (
    re.compile(r"####\s*"),
    re.compile(r"(?:\b(?:so|therefore|thus|hence),? )?\bthe (?:final )?answer is:?\s*", re.I),
    re.compile(_LINE + r"(?:final )?answer[ \t]*:\s*", re.I | re.M),
    # all blanks before it belong to it
    re.compile(
        r"(?:(?:所以|因此|故)[,，]?\s*|[,，]\s*|(?<!\s)\s+)?"
        r"(?:最终|正确)?答案(?:是|为)?\s*(?:[:：]\s*)?"
    ),
    re.compile(_LINE + r"答\s*[:：]\s*", re.M),
)
"""Patterns for the start of the answer, most reliable first; the value starts at the end."""


class SegmentSpans(NamedTuple):
    """The character index at which each part of a text begins; the parts cover the text.

    A part that is `missing` is empty: its index is where it would be, and the characters belong to
    the part before it.
    """

    reasoning_start: int
    answer_start: int
    value_start: int
    length: int
    missing: tuple[str, ...]


class SegmentedBatch(NamedTuple):
    """`segment_ids` [B, T] of a batch, and the spans of its texts."""

    segment_ids: Tensor
    spans: list[SegmentSpans]


@dataclass(frozen=True, kw_only=True)
class SegmentIdentifier:
    """Find prompt, reasoning and answer in raw text by the markers that introduce them.

    KV distillation needs to know which positions are reasoning: those are compressed, and the
    answer's attention to them is their importance (KaVa, arXiv 2510.02312, section 3.2). Triggers
    are tried in order and the first that occurs decides: the reasoning begins at its first
    occurrence, the answer (which comes later) at its last. A text without any trigger is reported;
    its segments are never guessed.

    Args:
        reasoning_triggers: strings, taken literally, or compiled patterns; the reasoning begins
            with the match, or with the pattern's group named `start`.
        answer_triggers: the same for the answer; its value begins after the match.

    Raises:
        ValueError: no triggers, or an empty one.

    Example:
        >>> spans = SegmentIdentifier().identify("How many?\\n1 + 1 = 2.\\n#### 2")
        >>> spans.reasoning_start, spans.answer_start, spans.value_start, spans.missing
        (10, 21, 26, ())
    """

    reasoning_triggers: Sequence[Trigger] = field(
        default=REASONING_TRIGGERS, metadata={"help": "markers at which the reasoning begins"}
    )
    answer_triggers: Sequence[Trigger] = field(
        default=ANSWER_TRIGGERS, metadata={"help": "markers at which the answer begins"}
    )

    def __post_init__(self) -> None:
        for name in ("reasoning_triggers", "answer_triggers"):
            triggers = getattr(self, name)
            if isinstance(triggers, str) or not triggers or "" in triggers:
                raise ValueError(f"{name}={triggers!r} must be a list of non-empty markers")

    def identify(self, text: str, *, prompt: str | None = None) -> SegmentSpans:
        """Find the parts of one text.

        Args:
            text: prompt, reasoning and answer.
            prompt: the beginning of the text, if known: the reasoning begins after it, and only the
                answer is searched.

        Returns:
            the spans; `missing` names the parts ("reasoning", "answer") that were not found.

        Raises:
            ValueError: the text does not begin with `prompt`.
        """
        missing = []
        if prompt is not None:
            if not text.startswith(prompt):
                raise ValueError(f"the text {text[:40]!r}… does not begin with {prompt[:40]!r}…")
            reasoning_start = len(prompt)
        else:
            found = self._first(text)
            if found is None:
                missing.append("reasoning")
            reasoning_start = 0 if found is None else found
        answer = self._last(text, reasoning_start)
        if answer is None:
            missing.append("answer")
            answer = (len(text), len(text))
        if "reasoning" in missing:
            reasoning_start = answer[0]
        elif not text[reasoning_start : answer[0]].strip():
            missing.insert(0, "reasoning")
        return SegmentSpans(reasoning_start, *answer, len(text), tuple(missing))

    def __call__(
        self,
        texts: Sequence[str],
        offsets: Tensor,
        attention_mask: Tensor | None = None,
        *,
        prompts: Sequence[str] | None = None,
        on_missing: OnMissing = "error",
    ) -> SegmentedBatch:
        """Find the segment of every token of a batch.

        Args:
            texts: B texts.
            offsets: [B, T, 2], the tokenizer's `offset_mapping`.
            attention_mask: [B, T]; positions where it is 0 get −1. None means no padding.
            prompts: the beginnings of the texts, if known.
            on_missing: "error" raises for a text without a marker; "report" names the missing part
                in its span, and its tokens belong to the part before.

        Returns:
            segment ids [B, T] int64, on the device of the offsets, and the spans.

        Raises:
            ValueError: a text without a marker (named by its index), or shapes that do not fit.

        Example:
            >>> batch = tokenizer(
            ...     texts, return_offsets_mapping=True, return_tensors="pt", padding=True
            ... )
            >>> ids, spans = SegmentIdentifier()(
            ...     texts, batch["offset_mapping"], batch["attention_mask"]
            ... )
        """
        if on_missing not in ("error", "report"):
            raise ValueError(f"on_missing={on_missing!r} is unknown; choose error or report")
        if offsets.ndim != 3 or offsets.shape[0] != len(texts) or offsets.shape[2] != 2:
            raise ValueError(
                f"offsets must be [{len(texts)}, T, 2] for {len(texts)} texts, "
                f"got {list(offsets.shape)}"
            )
        if attention_mask is not None and attention_mask.shape != offsets.shape[:2]:
            raise ValueError(
                f"attention_mask {list(attention_mask.shape)} does not fit offsets "
                f"{list(offsets.shape)}"
            )
        if prompts is not None and len(prompts) != len(texts):
            raise ValueError(f"{len(prompts)} prompts do not fit {len(texts)} texts")
        known: Sequence[str | None] = [None] * len(texts) if prompts is None else prompts
        spans = [self.identify(text, prompt=prompt) for text, prompt in zip(texts, known)]
        for index, span in enumerate(spans):
            if span.missing and on_missing == "error":
                raise ValueError(
                    f"text {index} ({texts[index][:40]!r}…) has no marker of its "
                    f"{' and '.join(span.missing)}; give the triggers it uses, or its prompt"
                )
        starts_BP = np.array([span[:2] for span in spans])
        ids = token_segments(offsets.cpu().numpy(), starts_BP[:, 0], starts_BP[:, 1])
        segment_ids = torch.from_numpy(ids).to(offsets.device)
        if attention_mask is not None:
            segment_ids = segment_ids.masked_fill(attention_mask == 0, int(Segment.PADDING))
        return SegmentedBatch(segment_ids, spans)

    def _first(self, text: str) -> int | None:
        for pattern in map(_pattern, self.reasoning_triggers):
            match = pattern.search(text)
            if match is not None:
                return _start(match)
        return None

    def _last(self, text: str, after: int) -> tuple[int, int] | None:
        for pattern in map(_pattern, self.answer_triggers):
            matches = list(pattern.finditer(text, after))
            if matches:
                return _start(matches[-1]), matches[-1].end()
        return None


def _pattern(trigger: Trigger) -> re.Pattern[str]:
    return re.compile(re.escape(trigger) + r"\s*") if isinstance(trigger, str) else trigger


def _start(match: re.Match[str]) -> int:
    return match.start("start" if "start" in match.re.groupindex else 0)


def token_segments(
    offsets: np.ndarray, reasoning_start: np.ndarray | int, answer_start: np.ndarray | int
) -> np.ndarray:
    """The segment of every token, from the characters that it covers.

    A token belongs to the segment of its last character: for " 72", whose blank ends the cue, this
    is the number's. A token without characters (a start or end token) belongs to the segment of the
    token before it.

    Args:
        offsets: [..., T, 2] begin and end of every token, in characters.
        reasoning_start: [...] the character at which the reasoning begins.
        answer_start: [...] the character at which the answer begins.

    Returns:
        [..., T] int64: 0 prompt, 1 reasoning, 2 answer; never decreasing along T.

    Example:
        >>> token_segments(np.array([[0, 0], [0, 2], [2, 4], [4, 7]]), 2, 4)
        array([0, 0, 1, 2])
    """
    last = offsets[..., 1] - 1
    reasoning = last >= np.asarray(reasoning_start)[..., None]
    answer = last >= np.asarray(answer_start)[..., None]
    return np.maximum.accumulate(reasoning.astype(np.int64) + answer, axis=-1)
