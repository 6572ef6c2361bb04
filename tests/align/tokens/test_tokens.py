from __future__ import annotations

import doctest
import unicodedata
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

import kava
from kava.align import TokenAligner, token_offsets
from kava.align.tokens.recover_offsets import recover_offsets
from kava.models.tokenizers import byte_tokenizer

TEXTS = [
    "Tom has 12 apples.  He gives 5 to Ann: 12-5=<<12-5=7>>7 apples.\n#### 7",
    " a leading blank, and\ttabs\t\tin code:\n\treturn  x",
    "小明有3个苹果。",
    "👩‍👩‍👧 and cafe\u0301 and naïve",
    "كتاب नमस्ते",
    "Ünïcode ½ ﬁ Å",
]


def byte_level_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def sentencepiece_unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=200, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def sentencepiece_bpe() -> Tokenizer:
    """As Llama's: a blank in front of the text, bytes for what the vocabulary lacks."""
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "n", "d", "▁a", "nd"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    merges = [("▁", "a"), ("n", "d")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return tokenizer


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=250, special_tokens=["[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS[:2], trainer)
    return tokenizer


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    made: dict[str, Any] = {
        "byte-level BPE": PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe()),
        "unigram": PreTrainedTokenizerFast(
            tokenizer_object=sentencepiece_unigram(), unk_token="<unk>"
        ),
        "SentencePiece BPE": PreTrainedTokenizerFast(tokenizer_object=sentencepiece_bpe()),
        "WordPiece": PreTrainedTokenizerFast(tokenizer_object=wordpiece(), unk_token="[UNK]"),
        "bytes": byte_tokenizer(),
    }
    return made


class WithoutOffsets:
    """A tokenizer as a slow one shows itself."""

    is_fast = False

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.unk_token = tokenizer.unk_token

    def __call__(self, texts: list[str], **options: Any) -> dict[str, Any]:
        assert "return_offsets_mapping" not in options
        return {"input_ids": self.tokenizer(texts, **options)["input_ids"]}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        pieces: list[str] = self.tokenizer.convert_ids_to_tokens(ids)
        return pieces


def test_rows_of_all_pairs_sum_to_one_and_rise(
    tokenizers: dict[str, PreTrainedTokenizerFast],
) -> None:
    for student, teacher in permutations(tokenizers.values(), 2):
        aligner = TokenAligner(student, teacher)
        for text in TEXTS:
            soft_ST = aligner(text)
            assert soft_ST.shape == (len(student.tokenize(text)), len(teacher.tokenize(text)))
            torch.testing.assert_close(soft_ST.sum(1), torch.ones(len(soft_ST)))
            first, last = soft_ST.ne(0).int().argmax(1), aligner.align([text])[0].last
            assert (first.diff() >= 0).all()
            assert (np.diff(last) >= 0).all()


def test_one_tokenizer_is_the_identity(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    for one in tokenizers.values():
        for mode in ("soft", "hard"):
            aligned = TokenAligner(one, one, mode)(TEXTS[0])
            assert torch.equal(aligned, torch.eye(len(aligned)))


def test_hard_takes_the_teacher_token_at_which_the_students_is_complete(
    tokenizers: dict[str, PreTrainedTokenizerFast],
) -> None:
    coarse, fine = tokenizers["byte-level BPE"], tokenizers["bytes"]
    text = "Tom has 12 apples."
    ends = [end for _, end in coarse(text, return_offsets_mapping=True)["offset_mapping"]]
    hard_ST = TokenAligner(coarse, fine, mode="hard")(text)
    assert hard_ST.argmax(1).tolist() == [end - 1 for end in ends]
    assert TokenAligner(coarse, fine).align([text])[0].exact == 1


def test_a_blank_of_its_own_lies_where_the_blank_is() -> None:
    """Fast tokenizers report the next character for it, the one in front of a text included."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=sentencepiece_bpe())
    ids, (offsets,) = token_offsets(tokenizer, ["日  日"])
    pieces = tokenizer.convert_ids_to_tokens(ids[0])
    assert [pieces[at] for at in (0, 4, 5)] == ["▁", "▁", "▁"]
    assert offsets.tolist() == [[0, 0], *[[0, 1]] * 3, [1, 2], [2, 3], *[[3, 4]] * 3]
    unigram = PreTrainedTokenizerFast(tokenizer_object=sentencepiece_unigram(), unk_token="<unk>")
    ids, (offsets, other) = token_offsets(unigram, ["7 \n 新", "  新"])
    assert unigram.convert_ids_to_tokens(ids[0])[-2:] == ["▁", "<unk>"]
    assert offsets[-2:].tolist() == [[1, 4], [4, 5]]
    assert other.tolist() == [[0, 2], [2, 3]]


@pytest.mark.parametrize(
    "kind", ["byte-level BPE", "SentencePiece BPE", "unigram", "WordPiece", "bytes"]
)
def test_recovered_offsets_are_those_that_a_fast_tokenizer_reports(
    tokenizers: dict[str, PreTrainedTokenizerFast], kind: str
) -> None:
    # of a letter and a mark that a normaliser joins or drops, one covers the letter, one both
    texts = [one for one in TEXTS if unicodedata.is_normalized("NFC", one) and one[0] != " "]
    texts = [one for one in texts if kind != "WordPiece" or one.isascii()]
    reported = token_offsets(tokenizers[kind], texts)
    recovered = token_offsets(WithoutOffsets(tokenizers[kind]), texts)
    assert recovered.ids == reported.ids
    for got, wanted in zip(recovered.offsets, reported.offsets, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_recovered_begin_and_end_marks_cover_nothing() -> None:
    tokenizer = byte_tokenizer()
    mark = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{mark[0]} $A {mark[0]}", special_tokens=[mark]
    )
    ids, (offsets,) = token_offsets(WithoutOffsets(tokenizer), ["ab"])
    assert ids[0][0] == ids[0][-1] == tokenizer.eos_token_id
    assert offsets.tolist() == [[0, 0], [0, 1], [1, 2], [2, 2]]
    plain = token_offsets(WithoutOffsets(tokenizer), ["ab"], add_special_tokens=False)
    assert plain.offsets[0].tolist() == [[0, 1], [1, 2]]


def test_a_python_tokenizer_aligns() -> None:
    """ByT5 writes bytes as Latin letters and ends a text with a mark."""
    text = "naïve 日本"
    ids, (offsets,) = token_offsets(ByT5Tokenizer(), [text])
    sizes = [len(character.encode()) for character in text]
    wanted = [[at, at + 1] for at, size in enumerate(sizes) for _ in range(size)]
    assert offsets.tolist() == [*wanted, [len(text), len(text)]]
    assert len(ids[0]) == len(wanted) + 1
    rows_ST = TokenAligner(ByT5Tokenizer(), byte_tokenizer())(text)
    assert torch.equal(rows_ST[:-1], torch.eye(len(wanted)))
    assert rows_ST[-1].argmax() == len(wanted) - 1


@pytest.mark.parametrize(
    ("text", "pieces", "spans"),
    [
        ("two  words", ["▁two", "▁", "▁words"], [[0, 3], [3, 4], [4, 10]]),
        ("two \n words", ["▁two", "▁", "words"], [[0, 3], [3, 6], [6, 11]]),
        ("Cafe\u0301s", ["cafe", "##s"], [[0, 4], [5, 6]]),
        ("lower next", ["low", "er</w>", "ne@@", "xt"], [[0, 3], [3, 5], [6, 8], [8, 10]]),
        ("a\u200db\ufeff", ["A", "b", "c"], None),
        ("a\u200db\ufeff", ["A", "b"], [[0, 1], [2, 3]]),
        ("e\u0301\u200dx", ["e", "\u0301", "x"], [[0, 1], [1, 2], [3, 4]]),
        ("lower", ["low", "er</w>"], [[0, 3], [3, 5]]),
        ("lower", ["low@@", "er"], [[0, 3], [3, 5]]),
        ("a<<b", ["▁a", "<unk>", "b"], [[0, 1], [1, 3], [3, 4]]),
        ("新 年 x", ["<unk>", "<unk>", "▁x"], [[0, 1], [2, 3], [4, 5]]),
        ("新年 月", ["<unk>", "<unk>"], [[0, 2], [3, 4]]),
        ("新年x", ["<unk>", "<unk>", "<unk>", "<unk>"], None),
        ("axaxa", ["a", "<unk>", "xa"], [[0, 1], [1, 3], [3, 5]]),
        ("a新年", ["a", "<unk>", "<unk>"], [[0, 1], [1, 2], [2, 3]]),
        ("a新年月", ["a", "<unk>", "<unk>"], None),
        ("abc", ["▁a", "c"], None),
        ("", [], []),
    ],
)
def test_pieces_are_found_or_given_up(
    text: str, pieces: list[str], spans: list[list[int]] | None
) -> None:
    found = recover_offsets(text, pieces, "<unk>")
    assert (found if found is None else found.tolist()) == spans


def test_many_unknown_pieces_take_no_more_than_quadratic_time() -> None:
    spans = recover_offsets("新" * 500, ["<unk>"] * 500, "<unk>")
    assert spans is not None
    assert spans.tolist() == [[at, at + 1] for at in range(500)]


def test_pieces_that_do_not_spell_the_text_are_an_error() -> None:
    class Forgetful(WithoutOffsets):
        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return [*super().convert_ids_to_tokens(ids)[:-1], "?"]

    with pytest.raises(ValueError, match=r"Forgetful gives no .* do not spell the text '2 \+ 2'"):
        token_offsets(Forgetful(byte_tokenizer()), ["2 + 2"])


def test_texts_that_differ_are_an_error() -> None:
    tokenizer = byte_tokenizer()
    aligner = TokenAligner(tokenizer, tokenizer)
    assert len(aligner("same", "same")) == 4
    with pytest.raises(
        ValueError, match=r"text 0 differs .* character 4 on \('2 \+ 2' and '2 \+ 3"
    ):
        aligner("2 + 2", "2 + 3")
    with pytest.raises(ValueError, match=r"text 1 differs .* from character 1 on"):
        aligner.align(["a", "a"], ["a", "ab"])
    with pytest.raises(ValueError, match="2 student texts but 1 teacher texts"):
        aligner.align(["a", "a"], ["a"])


def test_a_text_without_a_teacher_token_and_other_bad_input() -> None:
    student, teacher = byte_tokenizer(), PreTrainedTokenizerFast(tokenizer_object=wordpiece())
    assert TokenAligner(student, teacher).align([]) == []
    with pytest.raises(ValueError, match="text 1 has 2 student tokens but no teacher token"):
        TokenAligner(student, teacher).align(["Tom", "  "])
    with pytest.raises(ValueError, match="mode='best' is unknown"):
        TokenAligner(student, teacher, "best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="takes a list of texts"):
        TokenAligner(student, teacher).align("Tom")


def test_it_is_a_public_name() -> None:
    assert kava.TokenAligner is TokenAligner


def test_the_examples_of_the_page_run() -> None:
    page = Path(__file__).parents[3] / "docs" / "tokenizers.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0
