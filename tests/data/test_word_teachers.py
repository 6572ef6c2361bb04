"""The teacher of the word problems: a small file, right on unseen phrasings."""

from __future__ import annotations

import json

import pytest
import torch

from kava.data import WORD_PROBLEMS_TEMPLATE, load_records
from kava.models.builtin import TRAINED_MODELS
from kava.models.load import load_model, load_tokenizer
from kava.student.answering import answer_records

TEACHERS = ("kava/word-teacher", "kava/word-neox-teacher")


def test_they_lie_in_the_package_and_take_less_than_eight_megabytes() -> None:
    sizes = [file.stat().st_size for name in TEACHERS for file in TRAINED_MODELS[name].glob("*.*")]
    assert 0 < sum(sizes) < 8e6


def test_the_two_families_differ_in_layers_heads_and_head_size() -> None:
    one, other = (load_model(name).config for name in TEACHERS)
    assert one.model_type != other.model_type
    assert one.num_hidden_layers != other.num_hidden_layers
    assert one.num_attention_heads != other.num_attention_heads
    heads = [config.hidden_size // config.num_attention_heads for config in (one, other)]
    assert heads[0] != heads[1]
    assert one.vocab_size == other.vocab_size


@pytest.mark.slow
@pytest.mark.parametrize("name", TEACHERS)
@pytest.mark.parametrize("form", ["compact", "equations"])
def test_a_teacher_solves_test_problems_by_written_reasoning(name: str, form: str) -> None:
    model = load_model(name)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    records = load_records(f"kava/word-problems?form={form}&num_test=300", split="test")
    answers = answer_records(
        model, load_tokenizer(name), records, WORD_PROBLEMS_TEMPLATE, max_new_tokens=32
    )
    assert answers.accuracy >= 0.95
    about = json.loads((TRAINED_MODELS[name] / "training.json").read_text())
    assert min(about["accuracy"].values()) >= 0.97
    assert about["accuracy"].keys() == {"compact", "equations"}


@pytest.mark.parametrize(
    ("name", "part", "other"),
    [
        ("kava/word-adder", "additive", "multiplicative"),
        ("kava/word-multiplier", "multiplicative", "additive"),
    ],
)
def test_an_expert_knows_its_part_alone(name: str, part: str, other: str) -> None:
    model, tokenizer = load_model(name), load_tokenizer(name)

    def accuracy(operations: str) -> float:
        data = f"kava/word-problems?operations={operations}&num_test=200"
        records = load_records(data, split="test")
        template = WORD_PROBLEMS_TEMPLATE
        return answer_records(model, tokenizer, records, template, max_new_tokens=24).accuracy

    assert accuracy(part) >= 0.9
    assert accuracy(other) <= 0.1
