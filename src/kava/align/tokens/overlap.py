"""Which teacher tokens a student token reads when two tokenizers split one text differently.

Both tokenizations cover the same characters, so a token is a span and an alignment is the overlap
of two lists of spans. Several tokens may stand for one character (the bytes of a character that
the vocabulary lacks, the parts of "½" after normalisation): all carry the offsets of the whole
character. Such tokens share it in equal parts, in order, so that spans never overlap within one
tokenization and every token has its own place.

Shapes: T_s student tokens, T_t teacher tokens of one text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

TokenAlignmentMode = Literal["soft", "hard"]

Offsets = np.ndarray | Sequence[Sequence[int]]

MODES: tuple[TokenAlignmentMode, ...] = ("soft", "hard")

# Spans are whole numbers of this fraction of a character: parts of up to 20 tokens to one
# character are exact, so that boundaries of two tokenizations compare exactly.
PARTS = 232_792_560  # the least common multiple of 1 … 20

CHUNK = 256  # texts at once: what is kept per character stays in the cache


class TokenAlignment(NamedTuple):
    """How one text's student tokens read its teacher tokens; the soft rows are a CSR matrix.

    Both readings are monotone: a later student token never reads earlier teacher tokens.

    Attributes:
        last: [T_s] int64, the hard alignment: the last teacher token that overlaps, the one at
            which the teacher has read all that the student's token covers.
        indptr: [T_s + 1] int64; row i is `indices[indptr[i]:indptr[i + 1]]`.
        indices: [num_entries] int64, teacher tokens, rising within a row; no row is empty.
        weights: [num_entries] float64, the share of the student token's covered characters that
            lies in each teacher token; each row sums to 1.
        num_teacher_tokens: T_t.
        exact: share of the student's tokens (of those that cover characters) that end where a
            teacher token ends.
    """

    last: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    weights: np.ndarray
    num_teacher_tokens: int
    exact: float

    def dense(self, mode: TokenAlignmentMode = "soft") -> Tensor:
        """The alignment as a matrix [T_s, T_t], float32, rows summing to 1.

        Args:
            mode: "soft", the overlap-weighted rows, or "hard", a single 1 in each row.

        Raises:
            ValueError: another mode.
        """
        check_mode(mode)
        rows_ST = torch.zeros(len(self.last), self.num_teacher_tokens)
        if mode == "hard":
            rows_ST[torch.arange(len(self.last)), torch.from_numpy(self.last)] = 1.0
        else:
            row = np.repeat(np.arange(len(self.last)), np.diff(self.indptr))
            rows_ST[torch.from_numpy(row), torch.from_numpy(self.indices)] = torch.from_numpy(
                self.weights
            ).float()
        return rows_ST


def check_mode(mode: str) -> None:
    """Raise a ValueError for a mode that is not one of `MODES`."""
    if mode not in MODES:
        raise ValueError(
            f"token alignment mode={mode!r} is unknown; choose from {', '.join(MODES)}"
        )


def align_offsets(student_offsets: Offsets, teacher_offsets: Offsets) -> TokenAlignment:
    """Align two tokenizations of one text by what their tokens cover.

    Args:
        student_offsets: [T_s, 2] begin and end of every token, in characters or in bytes. A token
            of no characters (a begin or end mark) has begin = end, at any place.
        teacher_offsets: [T_t, 2], in the same unit.

    Returns:
        The alignment. A student token whose characters no teacher token covers (blanks that the
        teacher's tokenizer drops) reads the nearest one; if two are equally near, the earlier,
        which is complete by then. A token of no characters reads the teacher's token of no
        characters at the same end of the text, counted from the first; where the teacher has
        none there, the nearest token.

    Raises:
        ValueError: offsets of another shape, negative, that end before they begin or that fall
            back along the text; student tokens without a single teacher token.

    Example:
        >>> align_offsets([[0, 3], [3, 4]], [[0, 2], [2, 4]]).dense()
        tensor([[0.6667, 0.3333],
                [0.0000, 1.0000]])
        >>> align_offsets([[0, 3], [3, 4]], [[0, 2], [2, 4]]).last
        array([1, 1])
    """
    return align_many([student_offsets], [teacher_offsets])[0]


def unaligned(num_tokens: int) -> TokenAlignment:
    """Stands for the alignment of a text that shares no position with the student's.

    Args:
        num_tokens: T_s; each of the student's tokens reads the first of the other's.
    """
    zeros, ones = np.zeros(num_tokens, dtype=np.int64), np.ones(num_tokens)
    return TokenAlignment(zeros, np.arange(num_tokens + 1), zeros, ones, 1, 0.0)


def align_many(
    student_offsets: Sequence[Offsets], teacher_offsets: Sequence[Offsets]
) -> list[TokenAlignment]:
    """`align_offsets` of many texts at once, without a Python loop over tokens.

    Args:
        student_offsets: of every text, [T_s, 2].
        teacher_offsets: of every text, [T_t, 2].

    Raises:
        ValueError: as `align_offsets`; unequal numbers of texts.
    """
    if len(student_offsets) != len(teacher_offsets):
        raise ValueError(
            f"offsets of {len(student_offsets)} student texts do not fit those of "
            f"{len(teacher_offsets)} teacher texts"
        )
    student_arrays = _checked(student_offsets, "student")
    teacher_arrays = _checked(teacher_offsets, "teacher")
    for text, (ours, theirs) in enumerate(zip(student_arrays, teacher_arrays)):
        if len(ours) and not len(theirs):
            raise ValueError(
                f"text {text} has {len(ours)} student tokens but no teacher token to align them "
                f"with; leave it out, or let the teacher's tokenizer add its begin mark"
            )
    chunks = range(0, len(student_arrays), CHUNK)
    return list(
        chain.from_iterable(
            _align_chunk(student_arrays[at : at + CHUNK], teacher_arrays[at : at + CHUNK])
            for at in chunks
        )
    )


def _align_chunk(
    student: Sequence[np.ndarray], teacher: Sequence[np.ndarray]
) -> list[TokenAlignment]:
    # Texts are laid end to end, with one character of nothing between them.
    lengths = [
        1 + max(int(ours.max(initial=0)), int(theirs.max(initial=0)))
        for ours, theirs in zip(student, teacher)
    ]
    base = np.cumsum([0, *lengths])
    same = np.array([np.array_equal(*pair) for pair in zip(student, teacher)])
    return _overlap(_lay_out(student, base), _lay_out(teacher, base), same)


def _checked(texts: Sequence[Offsets], whose: str) -> list[np.ndarray]:
    arrays = [np.asarray(offsets, dtype=np.int64) for offsets in texts]
    arrays = [array if array.size else array.reshape(0, 2) for array in arrays]
    for array in arrays:
        if array.ndim != 2 or array.shape[1] != 2:
            raise ValueError(
                f"{whose} offsets must be [T, 2], begin and end, got {list(array.shape)}"
            )
    if not arrays:
        return []
    begin, end = np.concatenate(arrays).T
    text = np.repeat(np.arange(len(arrays)), [len(array) for array in arrays])
    wrong = np.flatnonzero((begin > end) | (begin < 0))
    if len(wrong):
        token = wrong[0] - np.searchsorted(text, text[wrong[0]])
        raise ValueError(
            f"{whose} token {token} has offsets {[int(begin[wrong[0]]), int(end[wrong[0]])]}; "
            f"begin must be at least 0 and at most the end"
        )
    solid = np.flatnonzero(begin < end)
    falls = (np.diff(begin[solid]) < 0) | (np.diff(end[solid]) < 0)
    falls &= np.diff(text[solid]) == 0
    if falls.any():
        one, other = solid[falls.argmax()], solid[falls.argmax() + 1]
        raise ValueError(
            f"{whose} offsets fall back from {[int(begin[one]), int(end[one])]} to "
            f"{[int(begin[other]), int(end[other])]}; tokens must come in the order of the text"
        )
    return arrays


class _Tokens(NamedTuple):
    """The tokens of N texts, end to end; those that cover characters are called solid."""

    start: np.ndarray  # [N + 1], a text's first token
    text: np.ndarray  # [T], a token's text
    solid: np.ndarray  # [S], the solid tokens
    solid_start: np.ndarray  # [N + 1], a text's first solid token, counted among the solid
    begin: np.ndarray  # [S], in parts of a character, the spans of a side never overlapping
    end: np.ndarray  # [S]

    @property
    def lead(self) -> np.ndarray:  # [N]
        """Tokens of a text before its first solid one; all, where none is solid."""
        past = np.append(self.solid, self.start[-1])[self.solid_start[:-1]]
        return np.minimum(past, self.start[1:]) - self.start[:-1]

    @property
    def trail(self) -> np.ndarray:  # [N]
        """Tokens of a text after its last solid one; 0, where none is solid."""
        some = self.solid_start[1:] > self.solid_start[:-1]
        last = np.append(self.solid, 0)[self.solid_start[1:] - 1]
        return np.where(some, self.start[1:] - 1 - last, 0)


def _lay_out(arrays: Sequence[np.ndarray], base: np.ndarray) -> _Tokens:
    """Flatten texts to one line of characters, text k from `base[k]` on, and part what overlaps."""
    counts = [len(array) for array in arrays]
    start = np.cumsum([0, *counts])
    text = np.repeat(np.arange(len(arrays)), counts)
    offsets = np.concatenate(arrays)
    solid = np.flatnonzero(offsets[:, 0] < offsets[:, 1])
    first, past = (offsets[solid] + base[text[solid], None]).T
    length = base[-1] + 1
    tokens_on = np.cumsum(
        np.bincount(first, minlength=length) - np.bincount(past, minlength=length)
    )
    share = np.where(tokens_on > 0, PARTS // np.maximum(tokens_on, 1), 0)
    shares_before = np.concatenate([[0], np.cumsum(share)])
    free_before = np.concatenate([[0], np.cumsum(PARTS - tokens_on * share)])
    # Tokens follow each other as widths, the characters that no token covers lie between.
    width = shares_before[past] - shares_before[first]
    end = np.cumsum(width) + free_before[first]
    return _Tokens(start, text, solid, np.searchsorted(solid, start), end - width, end)


def _overlap(student: _Tokens, teacher: _Tokens, same: np.ndarray) -> list[TokenAlignment]:
    """Read the rows of every text's student tokens off the two lines of spans."""
    text_S = student.text[student.solid]
    first = np.searchsorted(teacher.end, student.begin, side="right")
    last = np.searchsorted(teacher.begin, student.end, side="left") - 1
    met = first <= last
    reads = np.append(teacher.solid, -1)[np.where(met, last, -1)]
    reads[~met] = _nearest(student, teacher, np.flatnonzero(~met), before=last, after=first)
    # For each student token of any kind, the last teacher token that it reads.
    last_read = _marks(student, teacher, same, reads)
    last_read[student.solid] = reads

    count = np.ones(len(student.text), dtype=np.int64)
    count[student.solid[met]] = (last - first + 1)[met]
    indptr = np.concatenate([[0], np.cumsum(count)])
    row = np.repeat(np.arange(len(count)), count)
    indices = last_read[row]
    weights = np.ones(len(row))
    solid_of = np.cumsum(np.bincount(student.solid, minlength=len(count))) - 1
    several = np.zeros(len(count), dtype=bool)
    several[student.solid[met]] = (last > first)[met]
    entry = np.flatnonzero(several[row])
    ours = solid_of[row[entry]]
    theirs = first[ours] + entry - indptr[row[entry]]
    indices[entry] = teacher.solid[theirs]
    weights[entry] = np.minimum(student.end[ours], teacher.end[theirs]) - np.maximum(
        student.begin[ours], teacher.begin[theirs]
    )
    weights /= np.repeat(np.add.reduceat(weights, indptr[:-1]), count) if len(count) else 1.0

    ends_too = met & (np.append(teacher.end, -1)[last] == student.end)
    num_texts = len(same)
    exact = np.bincount(text_S, weights=ends_too, minlength=num_texts)
    solids = np.diff(student.solid_start)
    share = np.where(solids > 0, exact / np.maximum(solids, 1), 1.0)
    last_read -= teacher.start[student.text]
    indices -= teacher.start[student.text[row]]
    bounds = zip(student.start, student.start[1:], np.diff(teacher.start).tolist(), share.tolist())
    return [
        TokenAlignment(
            last_read[a:b],
            indptr[a : b + 1] - indptr[a],
            indices[indptr[a] : indptr[b]],
            weights[indptr[a] : indptr[b]],
            num_teacher_tokens,
            exact_share,
        )
        for a, b, num_teacher_tokens, exact_share in bounds
    ]


def _nearest(
    student: _Tokens, teacher: _Tokens, missed: np.ndarray, before: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """The teacher token nearest to each of the solid student tokens that meet none.

    Args:
        student: the student's tokens.
        teacher: the teacher's.
        missed: [m] solid student tokens.
        before: [S_s] the solid teacher token before each solid student token, in any text.
        after: [S_s] the one after.

    Returns:
        [m] teacher tokens; in a text without a solid one, the last.
    """
    text = student.text[student.solid[missed]]
    low, high = teacher.solid_start[text], teacher.solid_start[text + 1]
    before, after = before[missed], after[missed]
    to_before = student.begin[missed] - np.append(teacher.end, 0)[before]
    to_after = np.append(teacher.begin, 0)[after] - student.end[missed]
    earlier = (before >= low) & ((after >= high) | (to_before <= to_after))
    nearest = np.append(teacher.solid, -1)[np.where(earlier, before, after)]
    return np.where(low < high, nearest, teacher.start[text + 1] - 1)


def _marks(student: _Tokens, teacher: _Tokens, same: np.ndarray, reads: np.ndarray) -> np.ndarray:
    """The teacher token of every student token that covers no character; undefined for others.

    Args:
        student: the student's tokens.
        teacher: the teacher's.
        same: [N] whether both sides have the same offsets.
        reads: [S_s] the last teacher token that each solid student token reads.
    """
    text = student.text
    place = np.arange(len(text)) - student.start[text]
    from_end = place - (np.diff(student.start) - student.trail)[text]
    lead, trail = np.maximum(teacher.lead, 1)[text], np.maximum(teacher.trail, 1)[text]
    at_begin = teacher.start[text] + np.minimum(place, lead - 1)
    at_end = teacher.start[text + 1] - trail + np.minimum(from_end, trail - 1)
    solid_so_far = np.searchsorted(student.solid, np.arange(len(text)))
    between = np.append(reads, -1)[solid_so_far - 1]
    token = np.where(from_end >= 0, at_end, between)
    token = np.where(place < student.lead[text], at_begin, token)
    return np.where(same[text], teacher.start[text] + place, token)
