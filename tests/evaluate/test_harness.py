"""lm-evaluation-harness runs a student, and its accuracy is ours on the same items."""

# ruff: noqa: E402 (what needs lm_eval is imported behind its check)

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

lm_eval = pytest.importorskip("lm_eval", reason="pip install lm_eval for these tests")

from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from chat_models import chat_model
from kava.cli import run
from kava.commands.evaluate import main as evaluate_main
from kava.commands.lm_eval import main
from kava.data import SHELL_GAME_TEMPLATE, load_records
from kava.evaluate.harness_model import KavaLM, _until
from kava.models.load import load_model, load_tokenizer
from kava.student.answering import complete
from kava.student.checkpoint import load_student, save_student
from kava.student.latent import LatentStudent

YAML = """
task: local_game
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: ["\\n\\n"]
  do_sample: false
  max_gen_toks: {tokens}
filter_list:
  - name: answer
    filter:
      - function: regex
        regex_pattern: "Answer (\\\\S+)"
        group_select: -1
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    student = LatentStudent.wrap(load_model("kava/shell-teacher"), num_latents=2)
    folder = tmp_path_factory.mktemp("latent")
    settings = {"template": asdict(SHELL_GAME_TEMPLATE)}
    save_student(folder, student, load_tokenizer("kava/shell-teacher"), settings)
    return folder


def ours(checkpoint: str, file: Path, output: Path, tokens: int) -> list[dict[str, object]]:
    argv = [checkpoint, "--dataset_name", str(file), "--output", str(output), "--device", "cpu"]
    assert evaluate_main([*argv, "--max_new_tokens", str(tokens)]) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["explicit", "latent"])
def test_the_harness_agrees_with_us_on_the_same_items(
    kind: str, latent: Path, tmp_path: Path
) -> None:
    checkpoint, tokens = ("kava/shell-teacher", 12) if kind == "explicit" else (str(latent), 4)
    records = load_records("kava/shell-game?num_test=12&num_moves=3", split="test")
    file = tmp_path / "test.jsonl"

    def write(golds: list[str]) -> None:
        rows = [
            {"id": r.id, "question": r.question, "reasoning": "a b", "answer": gold}
            for r, gold in zip(records, golds)
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    # a third of the items are given a wrong answer, so that agreement is not one of extremes
    write([r.answer for r in records])
    student = load_student(checkpoint)
    lm = KavaLM(checkpoint, batch_size=5)
    said = lm.generate_until(
        [Instance("generate_until", {}, (r.question, {"max_gen_toks": tokens}), i)
         for i, r in enumerate(records)],
        disable_tqdm=True,
    )  # fmt: skip
    cue = student.template.cue
    words = [text.rpartition(cue)[2].split() if cue in text else [] for text in said]
    golds = ["dcba" if i % 3 == 0 or not word else word[0] for i, word in enumerate(words)]
    write(golds)
    # a plain path has the default cue; the game's own template is the checkpoint's
    folder = tmp_path / "checkpoint"
    save_student(
        folder, student.model, student.tokenizer, {"template": asdict(SHELL_GAME_TEMPLATE)}
    )
    items = ours(str(folder), file, tmp_path / "items.jsonl", tokens)
    accuracy = sum(bool(item["correct"]) for item in items) / len(items)
    (tmp_path / "local_game.yaml").write_text(YAML.format(file=file, tokens=tokens))
    results = lm_eval.simple_evaluate(
        model="kava",
        model_args=f"pretrained={folder}",
        batch_size=5,
        tasks=["local_game"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    assert results["results"]["local_game"]["exact_match,answer"] == accuracy
    samples = sorted(results["samples"]["local_game"], key=lambda sample: sample["doc_id"])
    assert [bool(sample["exact_match"]) for sample in samples] == [
        item["correct"] for item in items
    ]
    assert [sample["resps"][0][0] for sample in samples] == [item["text"] for item in items]
    if kind == "explicit":
        assert 0 < accuracy < 1


@pytest.mark.parametrize("kind", ["explicit", "latent"])
def test_a_continuation_is_as_likely_as_the_model_makes_it(kind: str, latent: Path) -> None:
    checkpoint = "kava/shell-teacher" if kind == "explicit" else str(latent)
    lm = KavaLM(checkpoint)
    (record,) = load_records("kava/shell-game?num_test=1&num_moves=2", split="test")
    orders = ["abcd", "dcba", "bacd"]
    context = record.question + (" " + record.reasoning + " Answer" if kind == "explicit" else "")
    requests = [
        Instance("loglikelihood", {}, (context, " " + order), i) for i, order in enumerate(orders)
    ]
    scores = lm.loglikelihood(requests)
    assert all(score < 0 for score, _ in scores)
    student, tokenizer = lm.student.model, lm.student.tokenizer
    with torch.no_grad():
        if kind == "explicit":
            ids = tokenizer(context, return_tensors="pt").input_ids
            logs = student(input_ids=ids).logits[0, -1].log_softmax(-1)
        else:
            prompt = tokenizer(lm.student.template.prompt(context), return_tensors="pt").input_ids
            cue = tokenizer("Answer abcd", return_tensors="pt").input_ids
            logs = student(prompt, torch.ones_like(prompt), cue).logits[0, -1].log_softmax(-1)
    for order, (score, greedy) in zip(orders, scores):
        token = tokenizer.convert_tokens_to_ids(order)
        assert score == pytest.approx(float(logs[token]), abs=1e-5)
        assert greedy == (int(logs.argmax()) == token)


@pytest.mark.slow
def test_the_command_runs_lm_eval_with_the_model(
    latent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = load_records("kava/shell-game?num_test=1&num_moves=2", split="test")
    file = tmp_path / "test.jsonl"
    file.write_text(json.dumps({"question": record.question, "answer": record.answer}) + "\n")
    (tmp_path / "local_game.yaml").write_text(YAML.format(file=file, tokens=3))
    argv = ["--model", "kava", "--model_args", f"pretrained={latent}", "--tasks", "local_game"]
    argv += ["--include_path", str(tmp_path), "--output_path", str(tmp_path / "out")]
    assert run(main, argv) == 0
    assert "local_game" in capsys.readouterr().out
    (found,) = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(found.read_text())["n-samples"]["local_game"]["effective"] == 1


def test_what_a_student_cannot_do_is_said(latent: Path) -> None:
    lm = KavaLM(str(latent))
    sampled = Instance("generate_until", {}, ("x", {"do_sample": True}), 0)
    with pytest.raises(ValueError, match="do_sample: true"):
        lm.generate_until([sampled])
    with pytest.raises(ValueError, match="take --model hf"):
        lm.loglikelihood_rolling([])
    with pytest.raises(ValueError, match="batch_size=auto must be a whole number"):
        KavaLM(str(latent), batch_size="auto")
    wrong: dict[str, tuple[Any, str]] = {
        "max_tokens": (9, "max_tokens=9: the model kava takes no max_tokens; choose from"),
        "pretrained": ("", "no student is named: pass --model_args pretrained="),
        "best": ("yes", "best=yes is not true or false"),
        "max_new_tokens": ("many", "max_new_tokens=many must be a whole number above 0"),
        "max_length": (0, "max_length=0 must be a whole number above 0"),
    }
    for name, (value, line) in wrong.items():
        with pytest.raises(ValueError, match=line):
            KavaLM(**{"pretrained": str(latent), name: value})
    with pytest.raises(ValueError, match="keeps the prompt of its training: leave it out"):
        KavaLM(str(latent), chat_template="tokenizer")
    with pytest.raises(ValueError, match="--model_args pretrained=…,chat_template=tokenizer"):
        lm.apply_chat_template([{"role": "user", "content": "x"}])


def test_a_plain_model_is_asked_in_its_chat(tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "chat", "chatml")
    request = Instance("generate_until", {}, ("How many are 2 + 2?", {"max_gen_toks": 6}), 0)
    said = {}
    for choice in ("none", "tokenizer"):
        lm = KavaLM(str(folder), chat_template=choice)
        (said[choice],) = lm.generate_until([request], disable_tqdm=True)
        expected = load_student(folder, chat_template=choice)
        answers, _ = complete(
            expected.model, expected.tokenizer, ["How many are 2 + 2?"], expected.template,
            names=["a"], batch_size=1, max_new_tokens=6, progress=False,
        )  # fmt: skip
        assert said[choice] == answers[0].text
    assert said["none"] != said["tokenizer"]


def test_a_text_ends_at_its_first_stop() -> None:
    assert _until("a\n\nb Question: c", ["Question:", "\n\n"]) == "a"
    assert _until("a", None) == "a"
    assert _until("a b", " ") == "a"


def test_the_entry_point_is_declared() -> None:
    import tomllib

    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["lm_eval.models"] == {
        "kava": f"{KavaLM.__module__}:{KavaLM.__name__}"
    }
