"""`kava compare`, through the shell's error boundary."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kava.cli import run
from kava.commands.compare import main
from kava.statistics import compare_arms, compare_items, read_items
from kava.statistics.seeds import Test
from one_line import refusal


def write(path: Path, correct: list[bool]) -> str:
    rows = [{"id": f"q{index}", "correct": right} for index, right in enumerate(correct)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    return [
        write(tmp_path / f"{name}.jsonl", (rng.random(120) < share).tolist())
        for name, share in (("weak", 0.4), ("strong", 0.7), ("same", 0.7))
    ]


def test_json_holds_every_figure(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*files, "--json", "--seed", "2", "--num_resamples", "500", "--confidence", "0.9"]
    assert run(main, argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert [found[name] for name in ("num_items", "confidence", "num_resamples", "seed")] == [
        120, 0.9, 500, 2,
    ]  # fmt: skip
    assert [model["label"] for model in found["models"]] == ["weak", "strong", "same"]
    assert found["adjustment"] == "Holm over 3 pairs"
    names = [("weak", "strong"), ("weak", "same"), ("strong", "same")]
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == names
    first = found["pairs"][0]
    expected = compare_items(
        read_items(files[0]), read_items(files[1]), num_resamples=500, seed=2, confidence=0.9
    )
    for name in ("only_a", "only_b", "p", "difference", "low", "high", "d_z", "accuracy_b"):
        assert first[name] == getattr(expected, name)
    assert found["models"][1]["accuracy_low"] == expected.interval_b.low
    smallest = min(pair["p"] for pair in found["pairs"])
    assert min(pair["p_holm"] for pair in found["pairs"]) == pytest.approx(3 * smallest)


def test_the_table_says_what_it_did(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, [*files, "--labels", "A", "B", "C"]) == 0
    text = capsys.readouterr().out
    assert "120 items, paired by id" in text
    assert "adjusted after Holm over 3 pairs" in text
    assert "10000 resamples, seed 0" in text
    for label in "ABC":
        assert f"\n{label} " in text


def test_one_pair_needs_no_adjustment(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, files[:2]) == 0
    assert "Holm" not in capsys.readouterr().out
    assert run(main, [*files[:2], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"][0]["p_holm"] == found["pairs"][0]["p"]


def test_a_file_with_itself(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, [files[0], files[0]]) == 0
    text = capsys.readouterr().out
    assert f"{files[0]} (2)" in text
    assert "resampling them shows no spread" in text
    assert run(main, [files[0], files[0], "--json"]) == 0
    pair = json.loads(capsys.readouterr().out)["pairs"][0]
    assert (pair["p"], pair["difference"], pair["low"], pair["d_z"]) == (1.0, 0.0, None, None)


def test_files_of_one_name_are_called_by_their_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    paths = [write(tmp_path / name / "items.jsonl", [True, name == "a"]) for name in "ab"]
    assert run(main, [*paths, "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [model["label"] for model in models] == paths


def test_bad_input_is_one_line(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write(tmp_path / "other.jsonl", [True] * 100)
    for argv, complaint in (
        (files[:1], "alone has nothing to be compared with"),
        ([files[0], other], "20 of 120 ids are only in"),
        ([files[0], str(tmp_path / "none.jsonl")], "No such file"),
        ([*files, "--labels", "a", "b"], "--labels names 2 models, but there are 3 files"),
        ([*files, "--labels", "a", "b", "a"], "unlike numbers of runs (a 2, b 1)"),
        ([*files, "--labels", "a", "a", "a"], "names one method alone, a"),
        ([*files, "--learned", "0.5"], "--learned 0.5 is for several runs of each method"),
        ([*files, "--test", "seeds"], "--test seeds is for several runs of each method"),
        ([*files, "--num_resamples", "5"], "--num_resamples 5 must be from 100 to 1,000,000"),
        ([*files, "--confidence", "95"], "--confidence 95.0 must be above 0 and below 1"),
    ):
        assert complaint in refusal(main, argv, capsys)


def test_comparing_loads_no_model_library(files: list[str]) -> None:
    program = (
        "import sys; from kava.commands.compare import main\n"
        f"main({files!r})\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_files_of_one_label_are_the_runs_of_one_method(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    right = rng.random((2, 3, 150)) < np.array([[[1.0], [1.0], [0.04]], [[0.04]] * 3])
    paths = [
        write(tmp_path / f"{label}{seed}.jsonl", run.tolist())
        for label, runs in zip("AB", right)
        for seed, run in enumerate(runs)
    ]
    argv = [*paths, "--labels", "A", "A", "A", "B", "B", "B"]
    assert run(main, argv) == 0
    text = capsys.readouterr().out
    assert "3 runs of each, 150 items" in text
    assert "2 of 3" in text
    assert "0 of 3" in text
    assert run(main, [*argv, "--json", "--num_resamples", "100"]) == 0
    (pair,) = json.loads(capsys.readouterr().out)["pairs"]
    expected = compare_arms(*right, num_resamples=100)
    for name in ("difference", "low", "high", "p"):
        assert pair[name] == pytest.approx(getattr(expected, name))
    assert (pair["learned"]["treatment"], pair["learned"]["baseline"]) == (2, 0)
    assert run(main, [*argv, "--learned", "0", "--json", "--num_resamples", "100"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"][0]["learned"] is None


@pytest.mark.parametrize(
    ("test", "counts"),
    [
        ("crossed", "other runs and other items"),
        ("seeds", "other runs, paired seed by seed"),
        ("items", "other items for these runs"),
        ("wilcoxon", "signed ranks"),
    ],
)
def test_what_counts_as_chance_can_be_chosen(
    test: Test, counts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    right = rng.random((2, 4, 200)) < np.array([0.6, 0.5])[:, None, None]
    paths = [
        write(tmp_path / f"{label}{seed}.jsonl", run.tolist())
        for label, runs in zip("AB", right)
        for seed, run in enumerate(runs)
    ]
    argv = [*paths, "--labels", *"AAAABBBB", "--test", test, "--num_resamples", "100"]
    assert run(main, argv) == 0
    assert counts in capsys.readouterr().out
    assert run(main, [*argv, "--json"]) == 0
    (pair,) = json.loads(capsys.readouterr().out)["pairs"]
    expected = compare_arms(*right, test=test, num_resamples=100)
    for name in ("low", "high", "p", "test"):
        assert pair[name] == pytest.approx(getattr(expected, name))
