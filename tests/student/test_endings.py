"""What ends an answer: every end token that a model names, and a next question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kava.data.records import Record, Template
from kava.evaluate.costs import Contender, measure_costs
from kava.models.load import load_model, load_tokenizer
from kava.student.answering import answer_records, complete
from kava.student.checkpoint import LoadedStudent, load_student, save_student
from kava.student.decode import generate_text
from kava.student.endings import NextQuestion, end_ids, generation_ends
from kava.student.latent import LatentStudent

ASKING = Template(question="Question: {question}\nAnswer: ")
RECORDS = [
    Record(id=f"r{i}", question=question, reasoning="", answer="18")
    for i, question in enumerate(["one?", "what is the third?", "2 + 2?"])
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer("kava/tiny-llama")


def says(tokenizer: PreTrainedTokenizerBase, texts: list[str], kind: str) -> PreTrainedModel:
    """A tiny model made to write a text for each prompt, told apart by the prompt's length."""
    model = load_model("kava/tiny-llama")
    scripts = [tokenizer(text)["input_ids"] for text in texts]
    lengths = [len(tokenizer(ASKING.prompt(r.question))["input_ids"]) for r in RECORDS]
    thought = 3 if kind == "latent" else 0
    head = model.lm_head
    inner = model.forward

    def forward(*args: object, **options: object) -> object:
        output = inner(*args, **options)
        position_B = options["position_ids"][:, -1] + 1 - thought  # type: ignore[index]
        ids_B = options.get("input_ids")
        if ids_B is not None:
            model.asked = model.asked if ids_B.shape[1] == 1 else position_B
        steps = (position_B - model.asked).tolist()
        logits = torch.full_like(output.logits, -1.0)
        for row, (step, asked) in enumerate(zip(steps, model.asked.tolist())):
            script = scripts[lengths.index(asked)]
            logits[row, -1, script[min(step, len(script) - 1)]] = 1.0
        output.logits = logits
        return output

    assert head is not None
    model.forward = forward
    return model


TEXTS = [
    "9 * 2\n#### 18\n\nQuestion: Tom has 5?\n#### 5",
    "#### 18\nQuestion 2 is open",
    "so it is 18\n  Question: ?",
]


def test_generation_stops_at_the_templates_next_question(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    model = says(tokenizer, TEXTS, "written")
    whole = max(len(tokenizer(text)["input_ids"]) for text in TEXTS)
    answers = [
        answer_records(model, tokenizer, RECORDS, ASKING, batch_size=size, max_new_tokens=whole)
        for size in (1, 3)
    ]
    # the text is cut, judged and saved up to there, alone and in a batch alike
    assert [replace(a, num_passes=0) for a in answers[0].items] == [
        replace(a, num_passes=0) for a in answers[1].items
    ]
    items = answers[0].items
    assert items[0].text == "9 * 2\n#### 18\n\n"
    assert items[1].text.startswith("#### 18\nQuestion 2 is open")
    assert items[2].text == "so it is 18\n"
    assert [(item.prediction, item.correct) for item in items] == [("18", True)] * 3
    # and generation has ended there
    stopped = len(tokenizer("9 * 2\n#### 18\n\nQuestion:")["input_ids"])
    assert items[0].num_tokens == items[0].num_passes == stopped < whole
    assert items[1].num_tokens == whole


def test_a_template_without_a_mark_stops_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    assert NextQuestion.of(Template(), tokenizer) is None
    question = NextQuestion.of(ASKING, tokenizer)
    assert question is not None
    assert question.cut("18\nQuestion: a\nQuestion: b") == "18\n"
    assert question.cut("Question: a") == ""
    assert question.cut("18, a Question: no") == "18, a Question: no"


def test_a_window_of_the_last_tokens_sees_the_mark(tokenizer: PreTrainedTokenizerBase) -> None:
    question = NextQuestion.of(ASKING, tokenizer)
    assert question is not None
    for text, ends in (
        ("x" * 50 + "\nQuestion:", True),
        ("x" * 50 + "\n  Question:", True),
        ("x" * 50 + " Question:", False),
        ("x" * 50 + "\nQuestion", False),
        ("Question:", True),
    ):
        tokens = torch.tensor([tokenizer(text)["input_ids"]] * 2)
        assert question.ends(tokens).tolist() == [ends] * 2


@pytest.mark.parametrize("named", [65, [65, 66]])
@pytest.mark.parametrize("kind", ["written", "latent"])
def test_every_end_token_of_the_generation_config_ends_a_generation(
    named: int | list[int], kind: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    base = load_model("kava/tiny-llama")
    base.generation_config.eos_token_id = named
    model: PreTrainedModel = base
    if kind == "latent":
        torch.manual_seed(0)
        model = LatentStudent.wrap(base, num_latents=2)
    wanted = [tokenizer.eos_token_id, *([named] if isinstance(named, int) else named)]
    assert end_ids(base, tokenizer) == wanted
    # a checkpoint keeps them
    settings = {"template": {"question": "{question}\n"}}
    save_student(tmp_path / "student", model, tokenizer, settings)
    loaded = load_student(tmp_path / "student")
    reloaded = loaded.model.base if kind == "latent" else loaded.model
    assert end_ids(reloaded, loaded.tokenizer) == wanted
    # and each of them ends an answer, without being a part of its text
    for end in wanted:
        said = []
        for sign in (1.0, -1.0):  # one of them makes it the likeliest token
            with torch.no_grad():
                head = reloaded.get_output_embeddings().weight.zero_()
                head[end] = sign
            (one,), _ = complete(
                loaded.model, loaded.tokenizer, ["one?"], Template(), names=["a"], max_new_tokens=5
            )
            said.append((one.num_tokens, one.text))
        assert (1, "") in said


def test_a_model_that_names_no_end_has_the_tokenizers(tokenizer: PreTrainedTokenizerBase) -> None:
    model = load_model("kava/tiny-llama")
    model.generation_config.eos_token_id = None
    assert generation_ends(model) == []
    assert end_ids(model, tokenizer) == [tokenizer.eos_token_id]


def test_samples_end_at_different_end_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    model = says(tokenizer, ["ab", "acb", "aaa"], "written")
    prompts = [tokenizer(ASKING.prompt(r.question))["input_ids"] for r in RECORDS]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    b, c = tokenizer("b")["input_ids"][0], tokenizer("c")["input_ids"][0]
    generated = generate_text(model, ids, mask, max_new_tokens=4, eos_token_id=[b, c])
    assert generated.lengths.tolist() == [2, 2, 4]
    # what follows an end is filled with the first end token
    assert generated.tokens[:2, 2:].tolist() == [[b, b], [b, b]]


@pytest.mark.parametrize("end", [None, "8"])
def test_costs_and_the_harness_end_an_answer_where_evaluation_does(
    end: str | None, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = says(tokenizer, TEXTS, "written")
    whole = max(len(tokenizer(text)["input_ids"]) for text in TEXTS)
    if end is not None:
        model.generation_config.eos_token_id = tokenizer(end)["input_ids"]
    answers = answer_records(model, tokenizer, RECORDS, ASKING, max_new_tokens=whole)
    assert answers.items[0].text == ("9 * 2\n#### 18\n\n" if end is None else "9 * 2\n#### 1")
    student = LoadedStudent(model, tokenizer, ASKING, {}, "a student")
    contender = Contender("a student", student, ASKING, whole)
    (cost,) = measure_costs([contender], RECORDS, batch_sizes=[3], num_rounds=1)
    assert cost.figures["num_tokens"] == answers.num_tokens
    assert cost.figures["forward_passes"] == answers.forward_passes
    harness = pytest.importorskip("kava.evaluate.harness_model", reason="needs lm_eval")
    from lm_eval.api.instance import Instance

    lm = harness.KavaLM("kava/tiny-llama")
    lm.student = student
    options = {"max_gen_toks": whole}
    requests = [
        Instance("generate_until", {}, (record.question, options), index)
        for index, record in enumerate(RECORDS)
    ]
    assert lm.generate_until(requests, disable_tqdm=True) == [item.text for item in answers.items]
