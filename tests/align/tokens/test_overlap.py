from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kava.align import TokenAlignment, align_offsets
from kava.align.tokens.overlap import CHUNK, align_many

Offsets = list[list[int]]


@st.composite
def offsets(draw: st.DrawFn) -> Offsets:
    """Tokens in order: some share characters with the one before, some cover nothing."""
    steps = draw(
        st.lists(
            st.tuples(st.integers(-2, 2), st.integers(1, 4), st.sampled_from([0, 0, 0, 1])),
            max_size=12,
        )
    )
    begin, end, tokens = 0, 0, []
    for shift, width, mark in steps:
        if mark:
            tokens.append([end, end])
        else:
            begin = max(begin, end + shift)
            end = max(end, begin + width)
            tokens.append([begin, end])
    return tokens


def loop_spans(tokens: Offsets) -> list[tuple[Fraction, Fraction] | None]:
    """Each token's own part of the line: characters that several cover are shared out in order."""
    cursor, spans = Fraction(0), []
    for begin, end in tokens:
        width = Fraction(0)
        for character in range(begin, end):
            width += Fraction(1, sum(b <= character < e for b, e in tokens))
        cursor = max(cursor, Fraction(begin)) if begin < end else cursor
        spans.append((cursor, cursor + width) if begin < end else None)
        cursor += width
    return spans


def loop_rows(student: Offsets, teacher: Offsets) -> list[list[Fraction] | None]:
    """The overlap of each student token with each teacher token; None for marks and misses."""
    theirs, rows = loop_spans(teacher), []
    for ours in loop_spans(student):
        overlaps = [
            max(min(ours[1], span[1]) - max(ours[0], span[0]), Fraction(0))
            if ours is not None and span is not None
            else Fraction(0)
            for span in theirs
        ]
        total = sum(overlaps)
        rows.append([one / total for one in overlaps] if total else None)
    return rows


def check(alignment: TokenAlignment, student: Offsets, teacher: Offsets) -> None:
    """What every alignment keeps to."""
    soft, hard = alignment.dense(), alignment.dense("hard")
    assert soft.shape == hard.shape == (len(student), len(teacher))
    torch.testing.assert_close(soft.sum(1), torch.ones(len(student)))
    assert hard.argmax(1).tolist() == alignment.last.tolist()
    assert (alignment.weights > 0).all()
    reads = [row.nonzero().flatten().tolist() for row in soft]
    assert [row[-1] for row in reads] == alignment.last.tolist()
    for above, below in pairwise(reads):
        assert above[0] <= below[0]
        assert above[-1] <= below[-1]
    covered = [range(*one) for one in teacher]
    for (begin, end), row in zip(student, reads):
        if begin < end and any(c in one for one in covered for c in range(begin, end)):
            assert all(teacher[one][0] < teacher[one][1] for one in row)


@settings(deadline=None, max_examples=120)
@given(student=offsets(), teacher=offsets().filter(len))
def test_rows_equal_a_slow_loop_over_characters(student: Offsets, teacher: Offsets) -> None:
    alignment = align_offsets(student, teacher)
    check(alignment, student, teacher)
    wanted = loop_rows(student, teacher)
    for row, overlaps in zip(alignment.dense().tolist(), wanted):
        if overlaps is not None:
            assert row == pytest.approx([float(one) for one in overlaps])
    ours = [(span, row) for span, row in zip(loop_spans(student), wanted) if span is not None]
    ends = {span[1] for span in loop_spans(teacher) if span is not None}
    exact = [row is not None and span[1] in ends for span, row in ours]
    assert alignment.exact == pytest.approx(sum(exact) / len(exact) if exact else 1.0)


@settings(deadline=None, max_examples=50)
@given(tokens=offsets().filter(len))
def test_the_same_offsets_are_exactly_the_identity(tokens: Offsets) -> None:
    alignment = align_offsets(tokens, tokens)
    assert torch.equal(alignment.dense(), torch.eye(len(tokens)))
    assert torch.equal(alignment.dense("hard"), torch.eye(len(tokens)))
    assert alignment.exact == 1


@settings(deadline=None, max_examples=40)
@given(pairs=st.lists(st.tuples(offsets(), offsets().filter(len)), max_size=6))
def test_a_text_is_aligned_alike_alone_and_among_others(
    pairs: list[tuple[Offsets, Offsets]],
) -> None:
    together = align_many([one for one, _ in pairs], [other for _, other in pairs])
    for batched, (student, teacher) in zip(together, pairs, strict=True):
        for one, other in zip(batched, align_offsets(student, teacher)):
            np.testing.assert_array_equal(one, other)


def test_more_texts_than_are_laid_out_at_once() -> None:
    texts = CHUNK + 3
    student = [[[0, 1 + text % 3], [1 + text % 3, 5]] for text in range(texts)]
    aligned = align_many(student, [[[0, 2], [2, 5]]] * texts)
    assert len(aligned) == texts
    assert [one.last.tolist() for one in aligned[-3:]] == [
        align_offsets(one, [[0, 2], [2, 5]]).last.tolist() for one in student[-3:]
    ]


@settings(deadline=None, max_examples=40)
@given(student=offsets(), teacher=offsets().filter(len), size=st.integers(2, 4))
def test_bytes_align_as_characters_do(student: Offsets, teacher: Offsets, size: int) -> None:
    wide = align_offsets(np.array(student) * size, np.array(teacher) * size)
    alignment = align_offsets(student, teacher)
    np.testing.assert_array_equal(wide.last, alignment.last)
    np.testing.assert_array_equal(wide.indices, alignment.indices)
    np.testing.assert_allclose(wide.weights, alignment.weights)


def test_parts_of_one_character_share_it_in_order() -> None:
    student = [[0, 1], [0, 1], [0, 1], [1, 2]]
    alignment = align_offsets(student, [[0, 1], [0, 1], [1, 2]])
    assert alignment.last.tolist() == [0, 1, 1, 2]
    assert alignment.dense()[:3].tolist() == [
        pytest.approx([1, 0, 0]),
        pytest.approx([1 / 2, 1 / 2, 0]),
        pytest.approx([0, 1, 0]),
    ]
    assert alignment.exact == 2 / 4


def test_many_parts_of_one_character_stay_in_order() -> None:
    check(align_offsets([[0, 1]] * 33, [[0, 1]] * 32), [[0, 1]] * 33, [[0, 1]] * 32)


@pytest.mark.parametrize(
    ("student", "teacher", "last"),
    [
        pytest.param([[0, 1], [1, 3], [3, 4]], [[0, 1], [3, 4]], [0, 0, 1], id="tie: the earlier"),
        pytest.param([[0, 1], [3, 4], [4, 5]], [[0, 1], [4, 5]], [0, 1, 1], id="nearer: the next"),
        pytest.param([[0, 1], [1, 2]], [[1, 2]], [0, 0], id="before the first"),
        pytest.param([[0, 1], [1, 2]], [[0, 1]], [0, 0], id="after the last"),
        pytest.param([[0, 2], [2, 3]], [[0, 0], [0, 0]], [1, 1], id="nothing but marks"),
    ],
)
def test_what_no_teacher_token_covers_goes_to_the_nearest(
    student: Offsets, teacher: Offsets, last: list[int]
) -> None:
    alignment = align_offsets(student, teacher)
    check(alignment, student, teacher)
    assert alignment.last.tolist() == last


@pytest.mark.parametrize(
    ("student", "teacher", "last"),
    [
        pytest.param("^x$", "^x$", [0, 1, 2], id="each its own"),
        pytest.param("^x$", "x", [0, 0, 0], id="none there"),
        pytest.param("^^x$$", "^x$", [0, 0, 1, 2, 2], id="fewer there"),
        pytest.param("^x$", "^^x$$", [0, 2, 3], id="more there"),
        pytest.param("^^x$$", "^^xx$$", [0, 1, 2, 4, 5], id="as many there"),
        pytest.param("x^x", "xx", [0, 0, 1], id="between: what comes before"),
        pytest.param("^$", "^$", [0, 1], id="nothing else"),
    ],
)
def test_marks_go_to_the_marks_at_the_same_end(student: str, teacher: str, last: list[int]) -> None:
    def tokens(marks: str) -> Offsets:
        count, found = 0, []
        for mark in marks:
            found.append([count, count + 1] if mark == "x" else [count, count])
            count += mark == "x"
        return found

    assert align_offsets(tokens(student), tokens(teacher)).last.tolist() == last


@pytest.mark.parametrize(
    ("student", "teacher", "complaint"),
    [
        ([[2, 1]], [[0, 1]], r"student token 0 has offsets \[2, 1\]"),
        ([[0, 1]], [[0, 1], [-1, 2]], r"teacher token 1 has offsets \[-1, 2\]"),
        ([[0, 1, 2]], [[0, 1]], r"student offsets must be \[T, 2\].*got \[1, 3\]"),
        ([[0, 1]], [[2, 3], [1, 2]], r"teacher offsets fall back from \[2, 3\] to \[1, 2\]"),
        ([[0, 1]], [], "text 0 has 1 student tokens but no teacher token"),
    ],
)
def test_offsets_that_fit_no_text_are_named(
    student: Offsets, teacher: Offsets, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        align_offsets(student, teacher)


def test_unequal_numbers_of_texts_and_unknown_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 student texts do not fit those of 1"):
        align_many([[[0, 1]]] * 2, [[[0, 1]]])
    with pytest.raises(ValueError, match="mode='both' is unknown; choose from soft, hard"):
        align_offsets([[0, 1]], [[0, 1]]).dense("both")  # type: ignore[arg-type]
