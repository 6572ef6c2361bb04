"""Runs in a chat template: what is trained, saved, exported and asked is one prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from chat_models import chat_model
from kava.commands.evaluate import main as evaluate
from kava.commands.export import main as export
from kava.commands.generate import main as generate
from kava.commands.train import main as train
from kava.models.load import load_tokenizer
from kava.student.answering import complete
from kava.student.checkpoint import load_student
from kava.train.config import TrainConfig
from kava.train.data import load_data
from kava.train.models import build_teacher_tokenizer, build_teacher_tokenizers, build_tokenizer
from one_line import refusal

ROWS = [
    {"question": f"{a} + {b}?", "reasoning": f"{a}+{b}={a + b}\nso {a + b}.", "answer": str(a + b)}
    for a in range(1, 5)
    for b in range(1, 4)
]
QUESTIONS = ["How many are 2 + 2?", "5 + 5?"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of several families, and data."""
    folder = tmp_path_factory.mktemp("chats")
    for kind in ("chatml", "llama", "mistral", "qwen3"):
        chat_model(folder / kind, kind)
    chat_model(folder / "plain", None)
    rows = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "data.jsonl").write_text(rows, encoding="utf-8")
    return folder


def flags(world: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model_name": str(world / "chatml"),
        "dataset_name": str(world / "data.jsonl"),
        "chat_template": "tokenizer",
        "target_len": 2,
        "max_length": 256,
        "max_steps": 2,
        "batch_size": 4,
        "lr": 1e-3,
        "keep_last_step": True,
        "eval_size": 2,
        "max_new_tokens": 4,
        "device": "cpu",
        "no_progress": True,
        **changes,
    }


def argv(values: dict[str, Any]) -> list[str]:
    out = []
    for name, value in values.items():
        parts = value if isinstance(value, list) else [value]
        out += [f"--{name}", *([] if value is True else map(str, parts))]
    return out


@pytest.mark.parametrize("student", ["latent", "explicit"])
def test_a_run_is_asked_as_it_was_trained_without_a_flag(
    world: Path, tmp_path: Path, student: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    more = {"student": student} | ({} if student == "latent" else {"kv_weight": 0, "epochs": 1})
    assert train([*argv(flags(world, output_dir=run, **more))]) == 0
    assert evaluate([str(run), "--device", "cpu"]) == 0
    capsys.readouterr()
    assert generate([str(run), "--prompt", QUESTIONS[0], "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert export([str(run), "--output_dir", str(tmp_path / "exported")]) == 0
    capsys.readouterr()
    assert generate([str(tmp_path / "exported"), "--prompt", QUESTIONS[0], "--device", "cpu"]) == 0
    assert capsys.readouterr().out == said

    one = load_student(run)
    assert one.template.question == (
        "Be brief.<|turn|>\n<|user|>\n{question}<|turn|>\n<|assistant|>\n"
    )
    assert one.tokenizer.eos_token == "<|turn|>"
    tokenizer = AutoTokenizer.from_pretrained(one.path, padding_side="left")
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    batch = tokenizer.apply_chat_template(
        chats, return_tensors="pt", return_dict=True, padding=True
    )
    model = AutoModelForCausalLM.from_pretrained(one.path)
    ends = model.generation_config.eos_token_id
    assert tokenizer.convert_tokens_to_ids("<|turn|>") in (
        ends if isinstance(ends, list) else [ends]
    )
    ids = model.generate(**batch, max_new_tokens=6, do_sample=False)
    texts = tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    completions, _ = complete(
        one.model, one.tokenizer, QUESTIONS, one.template, names=QUESTIONS, max_new_tokens=6
    )
    assert [completion.text for completion in completions] == texts


def test_a_plain_model_is_asked_in_its_chat(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, chat = (
        load_student(world / "llama", chat_template=one) for one in ("none", "tokenizer")
    )
    assert plain.template.question == "{question}\n"
    assert chat.template.question.endswith("<|user|>\n\n{question}<|turn|><|assistant|>\n\n")
    assert (plain.tokenizer.eos_token, chat.tokenizer.eos_token) == ("<|endoftext|>", "<|turn|>")
    asked = ["--chat_template", "tokenizer", "--device", "cpu"]
    data = ["--dataset_name", str(world / "data.jsonl"), "--subset_size", "2"]
    assert evaluate([str(world / "llama"), *asked, *data, "--max_new_tokens", "2"]) == 0
    capsys.readouterr()
    line = refusal(generate, [str(world / "plain"), "--prompt", "a?", *asked], capsys)
    assert "has no chat template" in line


def test_a_trained_student_keeps_its_prompt(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(argv(flags(world, output_dir=run, eval_size=0, chat_template="none"))) == 0
    capsys.readouterr()
    line = refusal(evaluate, [str(run), "--chat_template", "tokenizer", "--device", "cpu"], capsys)
    assert "keeps the prompt of its training: leave it out" in line


def test_a_teacher_reads_its_own_chat_template(world: Path, tmp_path: Path) -> None:
    values = flags(world, teacher_name=str(world / "mistral"), output_dir=str(tmp_path / "run"))
    config = TrainConfig(**values)
    tokenizer = build_tokenizer(config)
    theirs = build_teacher_tokenizer(config, tokenizer)
    data = load_data(config, tokenizer, theirs)
    for item in data.train:
        assert item.teacher is not None
        assert theirs is not None
        text = theirs.decode(item.teacher.encoded.input_ids)
        assert text.startswith("<s>[INST] ")
        assert text.endswith("<|endoftext|>")
        assert text.count("<s>") == 1
        ours = tokenizer.decode(item.input_ids)
        assert ours.startswith("Be brief.<|turn|>")
        assert ours.endswith("<|turn|>")
        # behind the prompts both read the same bytes, one to one
        assert item.teacher.alignment.exact == 1.0
    assert train(argv(values)) == 0


def test_a_teachers_prompt_stands_in_its_chat(world: Path) -> None:
    values = flags(
        world,
        teachers=[f"a={world / 'mistral'}", f"b={world / 'mistral'}"],
        teacher_prompts=["Think: {question}", "{question}"],
    )
    config = TrainConfig(**values)
    tokenizer = build_tokenizer(config)
    several = build_teacher_tokenizers(config, tokenizer)
    sides = load_data(config, tokenizer, None, several).train[0].sides
    texts = [one.decode(side.text.encoded.input_ids) for one, side in zip(several, sides)]
    assert [text.startswith("<s>[INST] Think: ") for text in texts] == [True, False]


def test_reasoning_that_a_teachers_template_would_drop_is_one_line(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thought = {**ROWS[0], "question": "9 + 9?", "reasoning": "<think>9+9</think>\nso 18.\n18"}
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, thought]), encoding="utf-8")
    values = flags(world, dataset_name=path, output_dir=tmp_path / "run")
    values |= {"teacher_name": str(world / "qwen3"), "alignment_mode": "structured"}
    line = refusal(train, argv(values), capsys)
    assert "--teacher_chat_templates tokenizer: the chat template of" in line
    assert "drops or rewrites the reasoning of" in line
    assert not (tmp_path / "run").exists()


def test_each_of_several_teachers_has_a_template_of_its_own(world: Path, tmp_path: Path) -> None:
    kinds = ["chatml", "llama", "plain"]
    values = flags(
        world,
        teachers=[f"{kind}={world / kind}" for kind in kinds],
        teacher_chat_templates=["tokenizer", "tokenizer", "none"],
        output_dir=str(tmp_path / "run"),
    )
    config = TrainConfig(**values)
    tokenizer = build_tokenizer(config)
    several = build_teacher_tokenizers(config, tokenizer)
    data = load_data(config, tokenizer, None, several)
    same, llama, plain = data.train[0].sides
    assert same.text is None
    texts = [
        one.decode(side.text.encoded.input_ids) for one, side in zip(several[1:], (llama, plain))
    ]
    assert texts[0].startswith("<s>Today: 26 Jul 2024\n<|user|>")
    assert "<|" not in texts[1].removesuffix("<|endoftext|>")
    assert train(argv(values)) == 0


def test_flags_that_do_not_fit_are_one_line(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = flags(world, output_dir=tmp_path / "run")
    cases = [
        ({"chat_template": "own"}, "the chat template 'own' is unknown; choose none, tokenizer or"),
        ({"teacher_chat_templates": ["none"]}, "this run has none: leave it out"),
        (
            {"teacher_name": str(world / "llama"), "teacher_chat_templates": ["none", "none"]},
            "gives 2, and there is 1 teacher: give one for each",
        ),
        ({"model_name": str(world / "plain")}, "has no chat template; pass the path of a .jinja"),
        (
            {"teacher_name": str(world / "plain")},
            "--teacher_chat_templates tokenizer: the tokenizer of",
        ),
    ]
    for changes, expected in cases:
        assert expected in refusal(train, argv(base | changes), capsys)
    assert not (tmp_path / "run").exists()


def test_the_run_is_the_same_where_a_file_says_the_same(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    own = load_tokenizer(world / "chatml").chat_template
    path.write_text(own, encoding="utf-8")
    weights = []
    for choice in ("tokenizer", str(path)):
        run = tmp_path / f"run-{len(weights)}"
        assert train(argv(flags(world, output_dir=run, chat_template=choice, eval_size=0))) == 0
        weights.append(load_student(run).model.state_dict())
    assert all(torch.equal(weights[0][name], part) for name, part in weights[1].items())
