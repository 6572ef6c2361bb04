"""`kava evaluate` and `kava generate`, from flags to what is printed and written."""

from __future__ import annotations

import gzip
import io
import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from kava.cli import app
from kava.commands.evaluate import main as evaluate_main
from kava.commands.generate import main as generate_main
from kava.data.records import Template
from kava.data.shell_game import SHELL_GAME_TEMPLATE
from kava.data.sources import load_records
from kava.evaluate.questions import read_questions
from kava.models.load import load_model, load_tokenizer
from kava.student.answering import answer_records
from kava.student.checkpoint import load_student, save_student
from kava.student.latent import LatentStudent
from kava.train.config import TrainConfig
from one_line import refusal

GAME = "kava/shell-game?num_moves=2&num_test=9"
CONFIG = TrainConfig(dataset_name=GAME, max_new_tokens=4)


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's output folder with one checkpoint of a latent student."""
    torch.manual_seed(0)
    student = LatentStudent.wrap(load_model("kava/tiny-gpt2"), num_latents=2)
    folder = tmp_path_factory.mktemp("run")
    settings = {"template": asdict(Template(cue="Answer ")), "config": asdict(CONFIG)}
    tokenizer = load_tokenizer("kava/tiny-gpt2")
    save_student(folder / "checkpoint-3", student, tokenizer, settings)
    return folder


@pytest.fixture(scope="module")
def explicit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explicit")
    settings = {"template": asdict(Template()), "config": asdict(CONFIG)}
    model, tokenizer = load_model("kava/tiny-gpt2"), load_tokenizer("kava/tiny-gpt2")
    save_student(folder, model, tokenizer, settings)
    return folder


def test_evaluate_prints_a_table_and_writes_every_item(
    latent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "items.jsonl"
    assert evaluate_main(["--checkpoint", str(latent), "--output", str(output)]) == 0
    printed = capsys.readouterr()
    table = dict(line.split("  ", 1) for line in printed.out.splitlines())
    assert table["checkpoint"].strip() == f"{latent / 'checkpoint-3'}, latent"
    assert table["data"].strip() == f"{GAME}, test"
    assert table["items"].strip() == "9"
    assert "Wilson interval" in table["accuracy"]
    assert "forward passes" in table
    assert "9/9" in printed.err
    assert "Loading weights" not in printed.err

    student = load_student(latent)
    expected = answer_records(
        student.model,
        student.tokenizer,
        load_records(GAME, split="test"),
        student.template,
        max_new_tokens=4,
    )
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert rows == [item.as_row() for item in expected.items]
    summary = json.loads((tmp_path / "items.jsonl.summary.json").read_text())
    assert summary["num_items"] == 9
    assert summary["forward_passes"] == expected.forward_passes
    assert summary["student"] == "latent"
    assert {"data_hash", "versions", "accuracy_low", "device"} <= {*summary}


def test_evaluate_prints_json(latent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--subset_size", "4", "--batch_size", "3", "--max_new_tokens", "2", "--json"]
    assert evaluate_main(["--checkpoint", str(latent), *flags]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["num_items"], summary["batch_size"], summary["num_tokens"]) == (4, 3, 8)


def test_a_plain_model_gets_the_template_of_the_data(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cues = []

    def note(model: object, tokenizer: object, records: object, template: Template, **options):
        cues.append(template.cue)
        return answer_records(model, tokenizer, records, template, **options)

    monkeypatch.setattr("kava.student.answering.answer_records", note)
    flags = ["--checkpoint", "kava/tiny-gpt2", "--max_new_tokens", "1", "--device", "cpu"]
    data = GAME + "&num_train=9"
    assert evaluate_main([*flags, "--dataset_name", data, "--split", "train"]) == 0
    assert cues == ["Answer "]
    assert "kava/tiny-gpt2, explicit" in capsys.readouterr().out


def test_scoring_the_training_data_is_said(
    latent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"question": "1?", "reasoning": "a\\nb", "answer": "1"}\n')
    student = load_student(latent)
    config = asdict(TrainConfig(dataset_name=str(path), max_new_tokens=1))
    settings = {"template": asdict(Template()), "config": config}
    save_student(tmp_path / "x", student.model, student.tokenizer, settings)
    assert evaluate_main(["--checkpoint", str(tmp_path / "x")]) == 0
    assert "warning: the student was trained on these very records" in capsys.readouterr().err


def test_generate_answers_a_prompt_and_tells_its_cost(
    latent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--checkpoint", str(latent), "--prompt", "Who?", "--max_new_tokens", "3", "--stats"]
    assert generate_main(argv) == 0
    printed = capsys.readouterr()
    # two latents, of which the last shares its pass with the first token; two more tokens
    assert printed.err.startswith("5.0 forward passes, 3.0 tokens and ")
    assert generate_main(argv[:-1]) == 0
    assert capsys.readouterr() == (printed.out, "")


def test_generate_answers_every_prompt_in_order(tmp_path: Path) -> None:
    teacher, tokenizer = load_model("kava/shell-teacher"), load_tokenizer("kava/shell-teacher")
    save_student(tmp_path / "x", teacher, tokenizer, {"template": asdict(SHELL_GAME_TEMPLATE)})
    records = load_records("kava/shell-game?num_test=3", split="test")
    given = [part for record in records for part in ("--prompt", record.question)]
    argv = ["generate", str(tmp_path / "x"), *given, "--max_new_tokens", "12"]
    done = CliRunner().invoke(app, [*argv, "--batch_size", "2"])
    assert done.exit_code == 0
    answers = [record.answer for record in records]
    assert answers != answers[::-1]
    assert done.stdout.splitlines() == answers


def test_generate_reads_questions_from_files_and_stdin(
    latent: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    questions = ["one?", "and two?"]
    (tmp_path / "q.txt").write_text("\n".join(["one?", "", " and two? "]))
    (tmp_path / "q.jsonl").write_text("".join(f'{{"question": "{q}"}}\n' for q in questions))
    (tmp_path / "q.json").write_bytes(
        b"\xef\xbb\xbf" + json.dumps([{"question": q} for q in questions]).encode()
    )
    (tmp_path / "q.csv").write_bytes(b"\xef\xbb\xbfquestion,n\r\none?,1\r\nand two?,2\r\n")
    (tmp_path / "q.txt.gz").write_bytes(gzip.compress(b"one?\rand two?"))
    argv = ["--checkpoint", str(latent), "--batch_size", "1"]
    asked = []

    from kava.student.answering import complete

    def note(model: object, tokenizer: object, given: list[str], *args: object, **options):
        asked.append(given)
        return complete(model, tokenizer, given, *args, **options)

    monkeypatch.setattr("kava.student.answering.complete", note)
    monkeypatch.setattr("sys.stdin", io.StringIO("one?\n\nand two?\n"))
    for source in (
        *(["--input", str(path)] for path in sorted(tmp_path.glob("q.*"))),
        [],
    ):
        assert generate_main([*argv, *source]) == 0
    assert asked == [questions] * 6
    printed = capsys.readouterr().out
    assert printed[: len(printed) // 6] * 6 == printed


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"one?\ncaf\xe9?\n", "stdin, line 2 is not UTF-8 text: byte 0xe9"),
        (b"\n \n", "stdin holds no question"),
    ],
)
def test_what_stdin_holds_is_named(
    monkeypatch: pytest.MonkeyPatch, data: bytes, complaint: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    with pytest.raises(ValueError, match=complaint):
        read_questions(None, None)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfone?\r\n\rtwo?")))
    assert read_questions(None, None) == (["stdin, line 1", "stdin, line 3"], ["one?", "two?"])


def test_a_prompt_of_bytes_that_are_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--prompt holds '\\udce9', half of a surrogate pair"):
        read_questions(["caf\udce9?"], None)


def test_generate_shows_the_answer_or_all_that_was_written(
    explicit: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kava.student.answering import Completion

    said = [Completion("6*3=18\n#### 18", 5, 5)]
    monkeypatch.setattr("kava.student.answering.complete", lambda *_, **__: (said, 0.1))
    argv = ["--checkpoint", str(explicit), "--prompt", "How many?"]
    assert generate_main(argv) == 0
    assert capsys.readouterr().out == "18\n"
    assert generate_main([*argv, "--written"]) == 0
    assert capsys.readouterr().out == "6*3=18\n#### 18\n"


def test_generate_shows_what_each_latent_reads_as(
    latent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--checkpoint", str(latent), "--prompt", "Who?", "--max_new_tokens", "3"]
    assert generate_main(argv) == 0
    answer = capsys.readouterr().out
    for flags, count in (([], 3), (["--top_k", "5"], 5)):
        assert generate_main([*argv, "--show_latents", *flags]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(answer)
        lines = shown.removeprefix(answer).splitlines()
        assert [line[:14] for line in lines] == ["    latent 1: ", "    latent 2: "]
        assert all(len(re.findall(r" \d+\.\d%", line)) == count for line in lines)


@pytest.mark.parametrize("main", [evaluate_main, generate_main])
@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["x", "--chekpoint", "y"], "unknown flag --chekpoint (did you mean --checkpoint?)"),
        (["--best"], "--checkpoint is missing, as in: kava "),
        ([], "--checkpoint is missing, as in: kava "),
        (["--checkpoint", "x", "--batch_size", "many"], "--batch_size 'many' is not a whole"),
    ],
)
def test_wrong_flags_leave_with_2(
    main: object, flags: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(main)
    assert complaint in refusal(main, flags, capsys)


EVALUATE_ERRORS = [
    (["--checkpoint", "./nowhere"], "'./nowhere' does not exist"),
    (["--checkpoint", "kava/tiny-gtp2"], "unknown built-in model 'kava/tiny-gtp2'"),
    (["--checkpoint", "{empty}"], "holds no complete checkpoint"),
    (["--checkpoint", "kava/tiny-gpt2"], "pass --dataset_name"),
    (["--checkpoint", "kava/tiny-gpt2", "--best"], "is not a run's output folder"),
    (["--checkpoint", "{latent}", "--best"], "names the best checkpoint"),
    (["--checkpoint", "{latent}", "--dataset_name", "no.jsonl"], "neither a file nor a known"),
    (["--checkpoint", "{latent}", "--dataset_name", "{bad}"], "line 1 is not JSON"),
    (["--checkpoint", "{latent}", "--split", "dev"], "split='dev'"),
    (["--checkpoint", "{latent}", "--subset_size", "10"], "from 1 to the 9 records"),
    (["--checkpoint", "{latent}", "--batch_size", "0"], "--batch_size 0 must be from 1 to 65,536"),
    (["--checkpoint", "{latent}", "--max_new_tokens", "5000"], "does not fit the 2,048 positions"),
    (
        ["--checkpoint", "{latent}", "--device", "abacus"],
        "--device 'abacus' is unknown; choose auto, cpu",
    ),
    (["--checkpoint", "{latent}", "--output", "{empty}"], "is a folder; name a file in it"),
]
GENERATE_ERRORS = [
    (["--checkpoint", "{latent}", "--prompt", "x", "--input", "y"], "exclude each other"),
    (["--checkpoint", "{latent}", "--prompt", " "], "--prompt: the question is empty"),
    (["--checkpoint", "{latent}", "--input", "{empty}/no.txt"], "No such file or directory"),
    (["--checkpoint", "{latent}", "--input", "{blank}"], "blank.txt holds no question"),
    (["--checkpoint", "{latent}", "--input", "{bad}"], "bad.jsonl, line 1 is not JSON"),
    (["--checkpoint", "{latent}", "--input", "{other}"], "other.jsonl, line 1 must be an object"),
    (["--checkpoint", "{latent}", "--written", "--prompt", "x"], "--written:"),
    (
        ["--checkpoint", "kava/tiny-gpt2", "--show_latents", "--prompt", "x"],
        "--show_latents: kava/tiny-gpt2 writes its reasoning and has no latents",
    ),
    (["--checkpoint", "{latent}", "--top_k", "2", "--prompt", "x"], "--top_k 2 is read by"),
    (
        ["--checkpoint", "{latent}", "--show_latents", "--top_k", "0", "--prompt", "x"],
        "--top_k 0 must be at least 1",
    ),
]


@pytest.mark.parametrize(
    ("main", "flags", "complaint"),
    [(evaluate_main, *case) for case in EVALUATE_ERRORS]
    + [(generate_main, *case) for case in GENERATE_ERRORS],
)
def test_what_a_user_can_mend_is_one_line(
    main: object,
    flags: list[str],
    complaint: str,
    latent: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert callable(main)
    places = {"latent": latent, "empty": tmp_path / "empty"}
    places["empty"].mkdir()
    for name, text in (("bad.jsonl", "{\n"), ("other.jsonl", "{}\n"), ("blank.txt", " \n")):
        places[name.partition(".")[0]] = tmp_path / name
        (tmp_path / name).write_text(text)
    assert complaint in refusal(main, [flag.format(**places) for flag in flags], capsys)
