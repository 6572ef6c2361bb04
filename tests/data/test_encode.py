"""Encoding: segments of real tokens, prompts that are prefixes, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from kava.data import (
    SHELL_GAME_TEMPLATE,
    DoesNotFit,
    Encoded,
    Record,
    Template,
    encode,
    encode_prompt,
    encode_records,
    load_records,
    shell_game,
    shell_game_tokenizer,
)

RECORD = Record(
    id="train-12",
    question="Natalia sold clips to 48 of her friends. How many clips?",
    reasoning="She sold 48/2 = 24 clips in May.\nShe sold 72 altogether.",
    answer="72",
)
SHELL = shell_game_tokenizer()


def decoded(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    edges = [0, encoded.prompt_length, encoded.answer_start, encoded.value_start, None]
    return [tokenizer.decode(encoded.input_ids[a:b]) for a, b in pairwise(edges)]


def test_the_tokens_of_each_part_are_its_text(bpe: PreTrainedTokenizerBase) -> None:
    encoded = encode(RECORD, bpe, Template(), 512)
    prompt, reasoning, cue, value = decoded(encoded, bpe)
    assert prompt == RECORD.question + "\n"
    assert reasoning == "She sold 48/2 = 24 clips in May.\n"
    # the blank of " 72" ends the cue and begins the token of the value
    assert (cue, value) == ("####", " 72<end>")
    assert encoded.segment_ids.tolist() == (
        [0] * encoded.prompt_length
        + [1] * (encoded.answer_start - encoded.prompt_length)
        + [2] * (len(encoded.input_ids) - encoded.answer_start)
    )
    assert encoded.input_ids.tolist()[:-1] == bpe(Template().render(RECORD).text)["input_ids"]
    assert encoded.prompt_ids.tolist() == encode_prompt(RECORD.question, bpe, Template())


lines = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=100, deadline=None)
@given(lines, st.lists(lines, min_size=1, max_size=3), lines, st.sampled_from(["", "#### ", "=> "]))
def test_any_text_is_covered_or_refused(
    bpe: PreTrainedTokenizerBase, question: str, steps: list[str], answer: str, cue: str
) -> None:
    record = Record(id="a", question=question, reasoning="\n".join(steps), answer=answer)
    template = Template(cue=cue)
    try:
        encoded = encode(record, bpe, template, 1000)
    except DoesNotFit as problem:
        event(problem.reason)
        return
    text = template.render(record)
    assert 0 < encoded.prompt_length < encoded.answer_start <= encoded.value_start
    assert encoded.value_start < len(encoded.input_ids)
    assert bpe.decode(encoded.input_ids[:-1]) == text.text
    assert bpe.decode(encoded.input_ids[: encoded.prompt_length]) == text.prompt
    assert encoded.input_ids[-1] == bpe.eos_token_id


def test_many_records_are_encoded_as_each_alone(bpe: PreTrainedTokenizerBase) -> None:
    records = [
        RECORD,
        replace(RECORD, id="b", student_question="Clips?"),
        replace(
            RECORD, id="c", question="三加四是多少？", reasoning="三加四等于七。\n好", answer="7"
        ),
    ] * 500
    encoded, report = encode_records(records, bpe, Template(), 512)
    assert (report.num_records, report.num_encoded, report.num_skipped) == (1500, 1500, 0)
    assert report.num_tokens == sum(len(e.input_ids) for e in encoded)
    for index in (0, 1, 2, 1023, 1024, 1025, 1499):
        alone = encode(records[index], bpe, Template(), 512)
        many = encoded[index]
        assert many.input_ids.tolist() == alone.input_ids.tolist()
        assert many.prompt_ids.tolist() == alone.prompt_ids.tolist()
        assert (many.id, many.value_start) == (alone.id, alone.value_start)


def test_the_students_own_prompt_is_kept(bpe: PreTrainedTokenizerBase) -> None:
    encoded = encode(replace(RECORD, student_question="Clips?"), bpe, Template(), 512)
    assert bpe.decode(encoded.prompt_ids) == "Clips?\n"
    assert bpe.decode(encoded.input_ids[: encoded.prompt_length]) == RECORD.question + "\n"


UNFIT = {
    "empty question": replace(RECORD, question="  "),
    "empty reasoning": replace(RECORD, reasoning="one step"),
    "empty answer": replace(RECORD, answer=" "),
    "longer than max_length": replace(RECORD, question="clips " * 100),
    "reasoning shorter than target_len": replace(RECORD, reasoning="a\nb"),
}


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("empty question", "'train-12' has an empty question; pass --overflow skip"),
        ("empty reasoning", "no reasoning once the last of its 1 step.* turn drop_last_step off"),
        ("empty answer", "'train-12' has an empty answer; pass --overflow skip"),
        (
            "longer than max_length",
            r"'train-12' has \d\d\d tokens, more than --max_length 90; raise it or pass",
        ),
        (
            "reasoning shorter than target_len",
            "'train-12' has 2 reasoning tokens, fewer than --target_len 3; lower it or pass "
            "--overflow skip",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_or_counted(
    bpe: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture, reason: str, message: str
) -> None:
    with pytest.raises(DoesNotFit, match=message) as problem:
        encode_records([RECORD, UNFIT[reason]], bpe, Template(), 90, target_len=3)
    assert problem.value.reason == reason
    assert "\n" not in str(problem.value)
    kept, report = encode_records(
        [RECORD, UNFIT[reason], replace(RECORD, id="z")],
        bpe,
        Template(),
        90,
        target_len=3,
        overflow="skip",
    )
    assert [e.id for e in kept] == ["train-12", "z"]
    assert report.skipped == {reason: ["train-12"]}
    assert (report.num_records, report.num_encoded) == (3, 2)
    assert "2 of 3 records" in str(report)
    assert f"1 {reason} (train-12)" in str(report)
    assert str(report) in caplog.text


def test_a_length_that_just_fits_fits(bpe: PreTrainedTokenizerBase) -> None:
    encoded = encode(RECORD, bpe, Template(), 512)
    length, reasoning = len(encoded.input_ids), encoded.answer_start - encoded.prompt_length
    encode(RECORD, bpe, Template(), length, target_len=reasoning)
    with pytest.raises(DoesNotFit, match=f"has {length} tokens"):
        encode(RECORD, bpe, Template(), length - 1)
    with pytest.raises(DoesNotFit, match=f"has {reasoning} reasoning tokens"):
        encode(RECORD, bpe, Template(), length, target_len=reasoning + 1)


def test_a_prompt_that_is_no_prefix_is_refused(bpe: PreTrainedTokenizerBase) -> None:
    glued = Template(question="{question} ")
    record = replace(RECORD, reasoning="sold clips.\n72")
    with pytest.raises(DoesNotFit, match="'train-12': its prompt alone") as problem:
        encode(record, bpe, glued, 512)
    assert problem.value.reason == "prompt boundary"
    with pytest.raises(ValueError, match=r"no record fits: 0 of 1 .* 1 prompt boundary"):
        encode_records([record], bpe, glued, 512, overflow="skip")


def test_a_word_unknown_to_the_tokenizer_is_named() -> None:
    (record,) = shell_game(1)
    question = record.question.replace("Cups", "Mugs")
    for bad in (
        replace(record, question=question),
        replace(record, student_question=question),
    ):
        with pytest.raises(DoesNotFit, match="'Mugs', which the tokenizer does not know"):
            encode(bad, SHELL, SHELL_GAME_TEMPLATE, 64)
    with pytest.raises(ValueError, match="'Mugs'"):
        encode_prompt(question, SHELL, SHELL_GAME_TEMPLATE)
    with pytest.raises(ValueError, match="empty"):
        encode_prompt(" ", SHELL, SHELL_GAME_TEMPLATE)


def test_a_template_may_hold_end_marks_as_chat_templates_do(bpe: PreTrainedTokenizerBase) -> None:
    encoded = encode(RECORD, bpe, Template(question="{question}<end>\n"), 512)
    assert decoded(encoded, bpe)[0] == RECORD.question + "<end>\n"


def test_marks_that_a_tokenizer_adds_stand_once_at_the_ends() -> None:
    marked = PreTrainedTokenizerFast(
        tokenizer_object=shell_game_tokenizer().backend_tokenizer, pad_token="<pad>"
    )
    marked.add_special_tokens({"bos_token": "<bos>", "eos_token": "<eos>"})
    marked.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>",
        special_tokens=[("<bos>", marked.bos_token_id), ("<eos>", marked.eos_token_id)],
    )
    (record,) = shell_game(1)
    plain = encode(record, SHELL, SHELL_GAME_TEMPLATE, 64)
    encoded = encode(record, marked, SHELL_GAME_TEMPLATE, 64)
    assert encoded.input_ids.tolist() == [marked.bos_token_id, *plain.input_ids.tolist()]
    assert encoded.prompt_length == plain.prompt_length + 1
    assert (
        encode_prompt(record.question, marked, SHELL_GAME_TEMPLATE) == encoded.prompt_ids.tolist()
    )


def test_tokenizers_that_cannot_serve_are_refused(
    bpe: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = PreTrainedTokenizerFast(tokenizer_object=bpe.backend_tokenizer)
    with pytest.raises(ValueError, match=r"no end-of-sequence token: set tokenizer\.eos_token"):
        encode(RECORD, endless, Template(), 512)
    monkeypatch.setattr(type(bpe), "is_fast", False)
    with pytest.raises(ValueError, match="no character offsets"):
        encode(RECORD, bpe, Template(), 512)


def test_a_sample_that_does_not_fit_is_named_by_its_place(bpe: PreTrainedTokenizerBase) -> None:
    placed = replace(RECORD, where="a.csv, line 7, row 5")
    for name in ("question", "student_question", "reasoning", "answer"):
        with pytest.raises(DoesNotFit, match=f"^a.csv, line 7, row 5: sample {RECORD.id!r} has"):
            encode(replace(placed, **{name: " "}), bpe, Template(), 512)  # type: ignore[arg-type]
    with pytest.raises(DoesNotFit, match=r"^a.csv, line 7, row 5: sample .*: no marker of the ans"):
        encode(replace(placed, missing=("answer",)), bpe, Template(), 512)
    with pytest.raises(DoesNotFit, match=r"^a.csv, line 7, row 5: sample .* --max_length 3"):
        encode(placed, bpe, Template(), 3)


def test_half_of_a_surrogate_pair_is_refused(bpe: PreTrainedTokenizerBase) -> None:
    half = replace(RECORD, reasoning="a\ud800\nb\nc")
    with pytest.raises(ValueError, match=r"holds '\\ud800', half of a surrogate pair"):
        encode(half, bpe, Template(), 512)
    with pytest.raises(ValueError, match=r"holds '\\udce9', half of a surrogate pair"):
        encode_prompt("caf\udce9?", bpe, Template())


def test_nothing_to_encode_and_an_unknown_policy_are_refused(bpe: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="no records"):
        encode_records([], bpe, Template(), 512)
    with pytest.raises(ValueError, match="overflow='cut'"):
        encode_records([RECORD], bpe, Template(), 512, overflow="cut")  # type: ignore[arg-type]


@pytest.mark.shared
@pytest.mark.parametrize("name", ["llama2", "qwen2", "stories260K"])
def test_gsm8k_fits_in_real_tokenizers(shared: Path, name: str) -> None:
    if name == "llama2":
        file = str(shared / "tokenizers/llama2/tokenizer.json")
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, eos_token="</s>")
    else:
        folder = "tokenizers" if name == "qwen2" else "models"
        tokenizer = AutoTokenizer.from_pretrained(shared / folder / name)
    records = load_records(str(shared / "data/gsm8k"), split="test")
    template = Template(drop_last_step=False)
    encoded, report = encode_records(records, tokenizer, template, 2048, target_len=8)
    assert report.num_encoded == 1319
    for record, item in zip(records, encoded):
        prompt, reasoning, _, value = decoded(item, tokenizer)
        # SentencePiece writes a begin mark, and may differ in blanks
        assert "".join(prompt.removeprefix("<s>").split()) == "".join(record.question.split())
        assert "".join(reasoning.split()) == "".join(record.reasoning.split())
        assert value.removesuffix(tokenizer.eos_token).strip() == record.answer
