"""Answering: alike in every batch, in the order of the records, and nothing left behind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kava.data.encode import encode_prompt
from kava.data.records import Record, Template
from kava.data.shell_game import SHELL_GAME_TEMPLATE, shell_game
from kava.models.load import load_model, load_tokenizer
from kava.student.answering import (
    Answer,
    Answers,
    answer_records,
    complete,
)
from kava.student.latent import LatentStudent
from kava.student.prompts import LATENT_NEW_TOKENS, WRITTEN_NEW_TOKENS

KINDS = {
    "written": None,
    "sequential": {"num_latents": 3},
    "jacobi": {"num_latents": 4, "decoding": "jacobi", "num_iterations": 2},
}
RECORDS = [
    Record(id=f"r{i}", question=question, reasoning="", answer="x")
    for i, question in enumerate(["one?", "what is the third?", "2 + 2?", "no", "ä third thing?"])
]
NEW = 5


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer("kava/tiny-llama")


def build(kind: str, dropout: float = 0.0) -> PreTrainedModel:
    """A tiny student that says different things of different questions."""
    model = load_model("kava/tiny-llama")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                torch.nn.init.normal_(parameter, std=0.3)
        options = KINDS[kind]
        if options is None:
            return model
        return LatentStudent.wrap(model, projection_dropout=dropout, **options).eval()


def ask(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, records: list[Record], **options
) -> Answers:
    options = {"max_new_tokens": NEW, **options}
    return answer_records(model, tokenizer, records, Template(), **options)


def without_passes(answers: Answers) -> list[Answer]:
    return [replace(item, num_passes=0) for item in answers.items]


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_is_answered_alike_in_every_batch_and_order(
    kind: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = build(kind)
    alone = ask(model, tokenizer, RECORDS, batch_size=1)
    assert [item.id for item in alone.items] == [record.id for record in RECORDS]
    assert len({item.text for item in alone.items}) > 2
    for batch_size in (2, 64):
        assert without_passes(ask(model, tokenizer, RECORDS, batch_size=batch_size)) == (
            without_passes(alone)
        )
    turned = ask(model, tokenizer, RECORDS[::-1], batch_size=2)
    assert without_passes(turned)[::-1] == without_passes(alone)


def test_the_text_is_what_the_model_generates_for_the_encoded_prompt(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    model = build("sequential")
    (item,) = ask(model, tokenizer, RECORDS[1:2]).items
    prompt = torch.tensor([encode_prompt(RECORDS[1].question, tokenizer, Template())])
    generated = model.answer(
        prompt, max_new_tokens=NEW, eos_token_id=tokenizer.eos_token_id
    ).tokens[0]
    assert item.text == tokenizer.decode(generated, skip_special_tokens=True)


def test_the_students_own_question_is_asked(tokenizer: PreTrainedTokenizerBase) -> None:
    model = build("sequential")
    own = replace(RECORDS[0], student_question=RECORDS[1].question)
    first, second, asked = ask(model, tokenizer, [RECORDS[0], RECORDS[1], own]).items
    assert asked.text == second.text != first.text


def test_an_answer_is_right_when_it_means_the_gold_one(tokenizer: PreTrainedTokenizerBase) -> None:
    model = build("sequential")
    text = ask(model, tokenizer, RECORDS[:1]).items[0].text
    right, wrong = (replace(RECORDS[0], answer=answer) for answer in (f" {text} ", "other"))
    answers = ask(model, tokenizer, [right, wrong, right])
    assert [item.correct for item in answers.items] == [True, False, True]
    assert (answers.num_correct, answers.num_items) == (2, 3)
    assert answers.accuracy == pytest.approx(2 / 3)
    assert answers.items[0].prediction == answers.items[0].gold == text.strip()


class Scripted(LatentStudent):
    """A student that says what it is told to."""

    def says(self, tokenizer: PreTrainedTokenizerBase, text: str) -> Scripted:
        self.script = tokenizer(text)["input_ids"]
        return self

    def answer(self, prompt_ids, prompt_mask=None, **options):
        generated = super().answer(prompt_ids, prompt_mask, **options)
        tokens = torch.tensor([self.script]).expand(len(prompt_ids), -1)
        lengths = torch.full((len(prompt_ids),), len(self.script))
        return replace(generated, tokens=tokens, lengths=lengths)


@pytest.mark.parametrize(
    ("text", "answer", "prediction", "correct"),
    [
        ("6*3=18\n#### 18 eggs\n7", "18.0", "18 eggs", True),
        ("6*3=18", "18", "18", True),
        ("6*3=18", "yes", "6*3=18", False),
        ("#### yes<|endoftext|>", "Yes", "yes", True),
        ("#### 18\n\nWhat next?\n#### 5", "18", "18", True),
        ("#### 18\n\nWhat next?\n#### 5", "5", "18", False),
        ("", "18", "", False),
    ],
)
def test_answers_are_found_by_the_cue_and_by_the_kind_of_the_gold(
    tokenizer: PreTrainedTokenizerBase, text: str, answer: str, prediction: str, correct: bool
) -> None:
    student = Scripted.wrap(load_model("kava/tiny-llama"), num_latents=1).says(tokenizer, text)
    (item,) = ask(student, tokenizer, [replace(RECORDS[0], answer=answer)]).items
    assert (item.prediction, item.correct) == (prediction, correct)
    assert "<|endoftext|>" not in item.text


@pytest.mark.parametrize("kind", KINDS)
def test_costs_are_counted(kind: str, tokenizer: PreTrainedTokenizerBase) -> None:
    model = build(kind)
    base = model.base if isinstance(model, LatentStudent) else model
    calls = []
    base.base_model.register_forward_hook(lambda _module, _args, output: calls.append(output))
    answers = ask(model, tokenizer, RECORDS, batch_size=3)
    sizes = [output.last_hidden_state.shape[0] for output in calls]
    assert {3, 2} == {*sizes}
    assert answers.forward_passes == pytest.approx(sum(sizes) / len(RECORDS))
    assert answers.num_tokens == sum(item.num_tokens for item in answers.items)
    assert all(1 <= item.num_tokens <= NEW for item in answers.items)
    assert answers.seconds > 0
    assert answers.seconds_per_answer == pytest.approx(answers.seconds / len(RECORDS))


@pytest.mark.parametrize(("kind", "most"), [("written", 256), ("jacobi", 32)])
def test_most_tokens_by_default(kind: str, most: int, tokenizer: PreTrainedTokenizerBase) -> None:
    assert most == (WRITTEN_NEW_TOKENS if kind == "written" else LATENT_NEW_TOKENS)
    model = build(kind)
    tokenizer = load_tokenizer("kava/tiny-llama")
    tokenizer.eos_token = None
    (model if kind == "written" else model.base).generation_config.eos_token_id = None
    answers = ask(model, tokenizer, RECORDS[:1], max_new_tokens=None)
    assert answers.num_tokens == most


def test_the_model_and_the_random_state_are_as_before(tokenizer: PreTrainedTokenizerBase) -> None:
    model = build("sequential", dropout=0.9)
    calm = ask(model, tokenizer, RECORDS)
    model.train()
    model.base.lm_head.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    state = torch.get_rng_state()
    assert without_passes(ask(model, tokenizer, RECORDS)) == without_passes(calm)
    with pytest.raises(ValueError, match="not fit"):
        ask(model, tokenizer, RECORDS, max_length=3)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_modes_come_back_after_an_error(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("sequential").train()

    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "answer", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        ask(model, tokenizer, RECORDS)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("kind", "thought"), [("written", ""), ("sequential", ", 5 latent ones"), ("jacobi", ", 6 ")]
)
def test_a_prompt_that_does_not_fit_is_named(
    kind: str, thought: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = build(kind)
    prompt = len(encode_prompt(RECORDS[1].question, tokenizer, Template()))
    room = prompt + NEW + (0 if kind == "written" else model.config.num_latents + 2)
    assert ask(model, tokenizer, RECORDS, max_length=room).num_items == len(RECORDS)
    behind = rf"{NEW} does not fit the {room - 1} positions of --max_length behind record 'r1' "
    with pytest.raises(ValueError, match=rf"{behind}\({prompt} tokens{thought}"):
        ask(model, tokenizer, RECORDS, max_length=room - 1)
    long = replace(RECORDS[0], id="long", question="x" * 2044)
    with pytest.raises(
        ValueError, match=rf"{NEW} does not fit the 2,048 positions of llama behind record 'long' "
    ):
        ask(model, tokenizer, [*RECORDS, long])


def test_a_word_that_the_tokenizer_does_not_know_is_named_with_its_record() -> None:
    records = shell_game(2)
    records[1] = replace(records[1], question="Cups zzzz")
    with pytest.raises(ValueError, match=r"record 'shell-game-1': .* does not know 'zzzz'"):
        answer_records(
            load_model("kava/shell-llama"),
            load_tokenizer("kava/shell-llama"),
            records,
            SHELL_GAME_TEMPLATE,
        )


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"max_new_tokens": 0}])
def test_settings_below_one_are_refused(
    options: dict[str, int], tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        ask(build("written"), tokenizer, RECORDS, **options)


def test_no_records(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="no records"):
        ask(build("written"), tokenizer, [])


def test_the_bar_is_shown_when_asked_for(
    tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build("written")
    ask(model, tokenizer, RECORDS)
    assert capsys.readouterr().err == ""
    ask(model, tokenizer, RECORDS, progress=True)
    assert "5/5" in capsys.readouterr().err


def test_completions_of_bare_questions(tokenizer: PreTrainedTokenizerBase) -> None:
    model = build("written")
    completions, seconds = complete(
        model, tokenizer, ["one?", "2 + 2?"], Template(), names=["a", "b"], max_new_tokens=NEW
    )
    asked = ask(model, tokenizer, [RECORDS[0], RECORDS[2]])
    assert [c.text for c in completions] == [item.text for item in asked.items]
    assert seconds > 0
