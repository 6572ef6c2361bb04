"""Alignment of a student's tokens with those of a teacher whose tokenizer differs.

Shapes: T_s student tokens, T_t teacher tokens of one text.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kava.align.tokens.offsets import Tokenizer, TokenOffsets, token_offsets
from kava.align.tokens.overlap import (
    TokenAlignment,
    TokenAlignmentMode,
    align_many,
    align_offsets,
    check_mode,
)

__all__ = [
    "TokenAligner",
    "TokenAlignment",
    "TokenOffsets",
    "align_many",
    "align_offsets",
    "token_offsets",
]


class TokenAligner:
    """Align any text's student tokens with its teacher tokens, by the characters they cover.

    A teacher and a student with different vocabularies split one text at different places, so their
    caches have no common positions. A student token reads the teacher's token with which it is
    complete (hard), or all teacher tokens that it overlaps, weighted by the overlap (soft).
    FuseLLM (arXiv 2401.10491) matches pieces by edit distance, since it must match whole
    vocabularies; a cache needs positions alone, which offsets give exactly.

    Args:
        student_tokenizer: a tokenizer of transformers; one without offsets works where its pieces
            spell the text (see `token_offsets`).
        teacher_tokenizer: such a tokenizer too. The same one on both sides gives the identity.
        mode: what calling returns: "soft" or "hard".

    Raises:
        ValueError: another mode.

    Example:
        >>> from kava.models.tokenizers import byte_tokenizer
        >>> aligner = TokenAligner(byte_tokenizer(), byte_tokenizer(), mode="hard")
        >>> aligner("2 + 2").shape
        torch.Size([5, 5])
    """

    def __init__(
        self,
        student_tokenizer: Tokenizer,
        teacher_tokenizer: Tokenizer,
        mode: TokenAlignmentMode = "soft",
    ) -> None:
        check_mode(mode)
        self.student_tokenizer = student_tokenizer
        self.teacher_tokenizer = teacher_tokenizer
        self.mode = mode

    def __call__(self, text: str, teacher_text: str | None = None) -> Tensor:
        """Align one text.

        Args:
            text: what the student reads, begin and end marks added by its tokenizer.
            teacher_text: what the teacher reads, for a check that it is the same.

        Returns:
            [T_s, T_t] float32, rows summing to 1.

        Raises:
            ValueError: as `align`.
        """
        (alignment,) = self.align([text], None if teacher_text is None else [teacher_text])
        return alignment.dense(self.mode)

    def align(
        self, texts: Sequence[str], teacher_texts: Sequence[str] | None = None
    ) -> list[TokenAlignment]:
        """Align many texts at once.

        Args:
            texts: what the student reads.
            teacher_texts: what the teacher reads, for a check that it is the same.

        Raises:
            ValueError: texts that differ between student and teacher, a text that a tokenizer
                without offsets cannot spell, or one of which the teacher has no token at all.
        """
        if isinstance(texts, str):
            raise ValueError("align takes a list of texts; call the aligner itself for one text")
        if teacher_texts is not None:
            _check_same(texts, teacher_texts)
        student = token_offsets(self.student_tokenizer, texts).offsets
        if self.teacher_tokenizer is self.student_tokenizer:
            return align_many(student, student)
        return align_many(student, token_offsets(self.teacher_tokenizer, texts).offsets)


def _check_same(texts: Sequence[str], teacher_texts: Sequence[str]) -> None:
    if len(texts) != len(teacher_texts):
        raise ValueError(
            f"{len(texts)} student texts but {len(teacher_texts)} teacher texts: give both the same"
        )
    for index, (ours, theirs) in enumerate(zip(texts, teacher_texts)):
        if ours != theirs:
            pairs = enumerate(zip(ours, theirs))
            shorter = min(len(ours), len(theirs))
            place = next((at for at, (one, other) in pairs if one != other), shorter)
            around = slice(max(place - 10, 0), place + 20)
            raise ValueError(
                f"text {index} differs between student and teacher from character {place} on "
                f"({ours[around]!r} and {theirs[around]!r}): tokens can be aligned only within "
                f"one text, so let both read the same"
            )
