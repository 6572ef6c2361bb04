"""Many tasks in one command: one path, a file each, and a failure that costs no other task."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from kava.cli import run
from kava.commands.evaluate import main as evaluate_main
from kava.data import Template, load_records
from kava.evaluate.tasks import resolve_tasks
from kava.models.load import load_model, load_tokenizer
from kava.student.answering import answer_records
from kava.student.checkpoint import save_student
from kava.student.latent import LatentStudent
from one_line import refusal

GSM = [{"question": f"{i}+1?", "answer": f"It is {i + 1}.\n#### {i + 1}"} for i in range(5)]
SVAMP = [
    {"ID": f"chal-{i}", "Body": "Tom has.", "Question": f"{i}?", "Equation": "1", "Answer": 1.0}
    for i in range(4)
]
STRATEGYQA = [{"qid": "a", "question": "Is it?", "answer": True, "facts": ["It is."]}]
MATH500 = [
    {"problem": f"Half of {n}?", "solution": "Halve it.", "answer": "\\frac32"} for n in range(2)
]
ARC = [{"query": "Question: Wet?", "choices": ["sand", "rain"], "gold": 1}] * 3


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of every task's local files."""
    folder = tmp_path / "data"
    lists = {"svamp/SVAMP.json": SVAMP, "strategyqa/dev.json": STRATEGYQA}
    lines = {
        "gsm8k/test.jsonl": GSM,
        "math500/test.jsonl": MATH500,
        "arc/arc_easy.jsonl": ARC,
        "arc/arc_challenge.jsonl": ARC[:2],
    }
    for name, rows in {**lists, **lines}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(rows) if name in lists else "\n".join(map(json.dumps, rows))
        path.write_text(text)
    return folder


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    student = LatentStudent.wrap(load_model("kava/tiny-gpt2"), num_latents=2)
    folder = tmp_path_factory.mktemp("latent")
    settings = {"template": asdict(Template())}
    save_student(folder / "checkpoint-1", student, load_tokenizer("kava/tiny-gpt2"), settings)
    return folder


FLAGS = ["--max_new_tokens", "3", "--device", "cpu"]
TASKS = {"gsm8k": 5, "svamp": 4, "math500": 2, "strategyqa": 1, "arc_easy": 3, "arc_challenge": 2}


@pytest.mark.parametrize("kind", ["raw", "latent"])
def test_every_task_is_answered_and_written(
    kind: str, latent: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = "kava/tiny-gpt2" if kind == "raw" else str(latent)
    output = tmp_path / "out"
    tasks = ["gsm8k", "svamp", "math500", "strategyqa", "arc"]
    argv = [checkpoint, "--tasks", *tasks, "--task_data", str(data), "--output", str(output)]
    assert evaluate_main([*argv, *FLAGS, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {name: figures["num_items"] for name, figures in printed.items()} == TASKS
    for name, size in TASKS.items():
        rows = [json.loads(line) for line in (output / f"{name}.jsonl").read_text().splitlines()]
        assert len(rows) == size
        assert all(row["id"].startswith(f"{name}-") for row in rows)
        assert sum(row["correct"] for row in rows) == printed[name]["num_correct"]
        assert json.loads((output / f"{name}.jsonl.summary.json").read_text()) == printed[name]
        assert printed[name]["accuracy_low"] <= printed[name]["accuracy"]


def test_answers_do_not_depend_on_the_batch(data: Path, tmp_path: Path) -> None:
    texts = []
    for size in ("1", "5"):
        output = tmp_path / size
        argv = ["kava/tiny-gpt2", "--tasks", "gsm8k", "arc_easy", "--task_data", str(data)]
        assert evaluate_main([*argv, *FLAGS, "--batch_size", size, "--output", str(output)]) == 0
        files = [output / "gsm8k.jsonl", output / "arc_easy.jsonl"]
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        texts.append([(row["id"], row["text"], row["correct"]) for row in rows])
    assert texts[0] == texts[1]


def test_the_table_has_a_line_for_each(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["kava/tiny-gpt2", "--tasks", "strategyqa", f"svamp:{data}/svamp/SVAMP.json"]
    assert evaluate_main([*argv, *FLAGS, "--task_data", str(data)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:4] == ["task", "items", "right", "accuracy"]
    assert [line.split()[:2] for line in lines[3:]] == [["strategyqa", "1"], ["svamp", "4"]]
    assert len({len(line) for line in lines[2:]}) == 1


@pytest.mark.parametrize("as_json", [True, False])
def test_a_task_that_fails_is_named_and_the_others_stay(
    as_json: bool, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "svamp/SVAMP.json").write_text("[{}]")
    output = tmp_path / "out"
    argv = ["kava/tiny-gpt2", "--tasks", "gsm8k", "svamp", "strategyqa", "--task_data", str(data)]
    argv += [*FLAGS, "--output", str(output), *(["--json"] if as_json else [])]
    assert run(evaluate_main, argv) == 1
    printed = capsys.readouterr()
    last = printed.err.strip().splitlines()[-1]
    assert last.startswith("kava: error: 1 of 3 tasks failed: svamp (")
    assert "has no field 'Body'" in last
    assert sorted(path.name for path in output.glob("*.jsonl")) == [
        "gsm8k.jsonl",
        "strategyqa.jsonl",
    ]
    assert ("error" in json.loads(printed.out)["svamp"]) if as_json else "failed" in printed.out


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--tasks", "swamp"], "--tasks swamp: there is no such task, file or folder"),
        (["--tasks", "svamp", "svamp:x"], "names svamp twice"),
        (["--tasks", "arc", "arc_easy"], "names arc_easy twice"),
        (["--tasks", "svamp", "--dataset_name", "x"], "--tasks and --dataset_name exclude"),
        (["--tasks", "svamp", "--answer_field", "x"], "--tasks and --answer_field exclude"),
        (["--tasks", "gsm8k_aug", "--task_data", "{data}"], "holds no folder gsm8k_aug"),
        (["--task_data", "{data}", "--dataset_name", "svamp"], "is read by --tasks alone"),
        (["--tasks", "svamp", "--output", "{data}/svamp/SVAMP.json"], "is a file; name a folder"),
        (["--dataset_name", "{data}/gsm8k", "--max_length", "4000"], "learned 2048 positions"),
    ],
)
def test_wrong_asking_is_one_line(
    flags: list[str], complaint: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["kava/tiny-gpt2", *(f.format(data=data) for f in flags)]
    assert complaint in refusal(evaluate_main, argv, capsys)


def test_rotary_positions_read_on(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = [{"question": "why " * 700 + "?", "answer": "x\n#### 1"}]
    (data / "gsm8k/test.jsonl").write_text("\n".join(map(json.dumps, long)))
    argv = ["kava/tiny-llama", "--tasks", "gsm8k", "--task_data", str(data), *FLAGS]
    assert run(evaluate_main, argv) == 1
    assert "does not fit the 2,048 positions" in capsys.readouterr().err
    assert run(evaluate_main, [*argv, "--max_length", "4000"]) == 0


def test_other_data_have_a_label_too(data: Path) -> None:
    path = str(data / "gsm8k/test.jsonl")
    found = resolve_tasks(["kava/shell-game?num_moves=2", path])
    assert found == {"kava_shell-game": "kava/shell-game?num_moves=2", "test": path}


def test_a_choice_is_judged_by_its_letter_or_words(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kava.student.answering import Completion

    records = load_records(f"arc_easy:{data}/arc")
    said = [Completion(text, 1, 1) for text in ("#### B", "rain.", "A. sand")]
    monkeypatch.setattr("kava.student.answering.complete", lambda *_, **__: (said, 0.1))
    model, tokenizer = load_model("kava/tiny-gpt2"), load_tokenizer("kava/tiny-gpt2")
    answers = answer_records(model, tokenizer, records, Template())
    assert [(a.prediction, a.correct) for a in answers.items] == [
        ("B", True),
        ("B", True),
        ("A", False),
    ]


def test_an_answer_in_latex_is_judged_by_its_box(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kava.student.answering import Completion

    records = load_records(f"math500:{data}/math500", split="test")
    said = [Completion(text, 1, 1) for text in ("So $\\boxed{\\frac{3}{2}}$.", "#### 1.5")]
    monkeypatch.setattr("kava.student.answering.complete", lambda *_, **__: (said, 0.1))
    model, tokenizer = load_model("kava/tiny-gpt2"), load_tokenizer("kava/tiny-gpt2")
    answers = answer_records(model, tokenizer, records, Template())
    assert [(a.prediction, a.correct) for a in answers.items] == [
        ("\\frac{3}{2}", True),
        ("1.5", False),
    ]
