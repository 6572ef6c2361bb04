"""The characters of a special token in a user's text are text; in a template they are the token."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from kava.data.encode import encode, encode_prompt, encode_records
from kava.data.encoded import DoesNotFit
from kava.data.records import Record, Template
from kava.data.shell_game import SHELL_GAME_TEMPLATE, shell_game
from kava.data.special_tokens import special_texts
from kava.models.load import load_tokenizer

MARK = "<|endoftext|>"
RECORD = Record(
    id="a", question="What is it?", reasoning="so\nand so", answer="5", where="rows.jsonl, line 3"
)
CHAT = Template(question=f"user {MARK} {{question}}\n{MARK}")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer("kava/tiny-llama")


@pytest.mark.parametrize("part", ["question", "reasoning", "answer", "student_question"])
def test_a_mark_in_a_users_text_is_text(
    part: str, tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    record = replace(RECORD, **{part: f"a {MARK} b\nc"})
    with caplog.at_level(logging.WARNING):
        (encoded,), _ = encode_records([record], tokenizer, Template(), 512)
    end = tokenizer.eos_token_id
    assert encoded.input_ids.tolist().count(end) == 1
    assert encoded.input_ids[-1] == end
    assert end not in encoded.prompt_ids
    assert tokenizer.decode(encoded.input_ids[:-1]) == Template().render(record).text
    # and whoever meant the token is told
    assert f"1 records hold the text of a special token, as {RECORD.named} holds" in caplog.text


def test_a_text_without_marks_is_told_nothing(
    tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        encode_records([RECORD], tokenizer, Template(), 512)
    assert caplog.text == ""


def test_a_prompts_mark_is_text(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = encode_prompt(f"What is {MARK}?", tokenizer, Template())
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids) == f"What is {MARK}?\n"


def test_a_templates_mark_is_the_token(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode(RECORD, tokenizer, CHAT, 512)
    assert encoded.input_ids[: encoded.prompt_length].tolist().count(tokenizer.eos_token_id) == 2
    assert encode_prompt("it?", tokenizer, CHAT).count(tokenizer.eos_token_id) == 2


def test_beside_a_templates_marks_a_users_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    record = replace(RECORD, question=f"What is {MARK}?")
    with pytest.raises(DoesNotFit, match=r"rows.jsonl, line 3: sample 'a' holds '<\|endoftext"):
        encode(record, tokenizer, CHAT, 512)
    with pytest.raises(ValueError, match="would be read as a special token"):
        encode_prompt(f"{MARK}?", tokenizer, CHAT)
    other = replace(RECORD, id="b")
    encoded, report = encode_records([record, other], tokenizer, CHAT, 512, overflow="skip")
    assert [item.id for item in encoded] == ["b"]
    assert report.skipped == {"special token": ["a"]}


@pytest.mark.parametrize("name", ["kava/shell-llama"])
def test_a_vocabulary_that_holds_the_mark_as_a_word_is_refused(name: str) -> None:
    (record,) = shell_game(1)
    marked = replace(record, question=f"{record.question} <eos>")
    with pytest.raises(DoesNotFit, match="holds '<eos>', which would be read as a special token"):
        encode(marked, load_tokenizer(name), SHELL_GAME_TEMPLATE, 64)


def test_the_marks_of_a_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    assert special_texts(tokenizer) == {"<|endoftext|>", "<|pad|>"}


@pytest.mark.shared
@pytest.mark.parametrize("name", ["stories260K", "babyllama_tok105"])
def test_the_end_mark_of_a_real_tokenizer_in_a_text(name: str, shared: Path) -> None:
    real = load_tokenizer(shared / "models" / name)
    template = Template(question="{question} ")  # one of them has no line break
    ids = encode_prompt("say </s> now?", real, template)
    assert real.eos_token_id not in ids
    assert "</s>" in real.decode(ids)
    plain = encode_prompt("say it now?", real, template)
    assert plain == real("say it now? ")["input_ids"][: len(plain)]
