"""Chat templates: a student reads what the template writes, and segments are found in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chat_models import BAD_TEMPLATES, TEMPLATES, chat_tokenizer
from kava.data import Record, Template, encode, encode_prompt
from kava.data.chat import Chats
from kava.student.ready import with_prompt

RECORD = Record(id="a", question=" 1+1, then +1? ", reasoning="1+1=2\n2+1=3", answer="3")


def chats(kind: str | None, choice: str = "tokenizer") -> Chats:
    return Chats(chat_tokenizer(kind), choice, "org/model")


def own_ids(one: Chats, question: str, **options: Any) -> list[int]:
    """What transformers gives for a conversation of one question."""
    chat = [{"role": "user", "content": question}]
    output: Any = one.tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=True, enable_thinking=False, **options
    )
    return list(output["input_ids"])


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_prompt_has_the_ids_of_the_template(kind: str) -> None:
    one = chats(kind)
    template = one.template(Template())
    if kind == "llama":
        assert "Today: 26 Jul 2024" in template.question
    question = "How many pens\nhas Zoë?"
    text = TEMPLATES[kind].replace("strftime_now('%d %b %Y')", "'26 Jul 2024'")
    expected = own_ids(one, question, chat_template=text)
    assert encode_prompt(question, one.ending(), template) == expected
    start = one.tokenizer.convert_tokens_to_ids("<s>")
    assert expected.count(start) == (kind in ("llama", "mistral"))


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_segments_are_found_in_the_text_of_the_template(kind: str) -> None:
    one = chats(kind)
    template, tokenizer = one.template(Template()), one.ending()
    encoded = encode(RECORD, tokenizer, template, 512)
    parts = [
        tokenizer.decode([i for i, s in zip(encoded.input_ids, encoded.segment_ids) if s == part])
        for part in range(3)
    ]
    end = {"mistral": "<|endoftext|>"}.get(kind, "<|turn|>")
    assert parts[0].removeprefix("<s>") == template.prompt(RECORD.question)
    assert parts[1:] == ["1+1=2\n", f"#### 3{end}"]


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_saved_tokenizer_writes_the_same_prompt(kind: str) -> None:
    one = chats(kind)
    template = one.template(Template())
    saved = with_prompt(one.ending(), template)
    ids: Any = saved.apply_chat_template(
        [{"role": "user", "content": "How many?"}], return_dict=True
    )
    assert list(ids["input_ids"]) == encode_prompt("How many?", one.ending(), template)
    assert one.tokenizer.eos_token == "<|endoftext|>"  # the given tokenizer stays as it was


def test_a_file_takes_the_place_of_the_tokenizers_own(tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_text(TEMPLATES["mistral"], encoding="utf-8")
    one = chats("chatml", str(path))
    assert one.template(Template()).question == "<s>[INST] {question} [/INST]"
    assert one.ending() is one.tokenizer


def test_a_teachers_prompt_stands_in_its_chat() -> None:
    template = chats("mistral").template(Template(question="Think: {question}\n", cue="A: "))
    assert (template.question, template.cue) == ("[INST] Think: {question} [/INST]", "A: ")


def test_none_leaves_everything_as_it_is() -> None:
    one = chats(None, "none")
    assert one.template(Template()) == Template()
    assert one.ending() is one.tokenizer
    one.check_replies([RECORD], Template())


@pytest.mark.parametrize("text", BAD_TEMPLATES)
def test_a_template_that_cannot_be_used_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jinja"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="'org/model'") as caught:
        chats(None, str(path)).template(Template())
    assert BAD_TEMPLATES[text] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_template_and_no_file_are_one_line_each() -> None:
    with pytest.raises(OSError, match=r"the tokenizer of 'org/model' has no chat template; pass"):
        chats(None).template(Template())
    with pytest.raises(OSError, match=r"--chat_template no.jinja: there is no such file"):
        chats(None, "no.jinja").template(Template())


def test_reasoning_that_the_template_would_drop_is_one_line() -> None:
    one = chats("qwen3")
    template = one.template(Template())
    thought = Record(id="t", question="1+1?", reasoning="<think>1+1=2</think>\nso", answer="2")
    one.check_replies([RECORD], template)
    with pytest.raises(ValueError, match="drops or rewrites the reasoning of sample 't'"):
        one.check_replies(
            [RECORD, thought], Template(question=template.question, drop_last_step=False)
        )
