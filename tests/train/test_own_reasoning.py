"""Several teachers that each read a chain of thought of their own."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import run, small
from test_several import GPT2, LLAMA, SEVERAL, batch_of, several

from kava.cli import run as command
from kava.commands.rationales import main as rationales
from kava.data import load_records
from kava.data.rationales import read_rationales
from kava.models.readable import Limits, fitting_sides
from kava.train.build import build_run
from kava.train.config import TrainConfig

GAME = SEVERAL["dataset_name"]
NAMES = [f"gpt2={GPT2}", f"llama={LLAMA}"]
KEPT = {"kv_method": "full", "token_alignment": "none"}


def write(path: Path, *labels: str, wrong: str = "", without: str = "") -> str:
    """Each teacher's chain of thought: right, that of the game before, or none of every second."""
    records = load_records(GAME)
    rows = []
    for place, record in enumerate(records):
        theirs = {}
        for label in labels:
            source = records[place - 1] if label == wrong else record
            if label != without or place % 2 == 0:
                theirs[label] = source.without_last_step
        rows.append({"id": record.id, "question": record.question, "reasoning": theirs})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def config(folder: Path, file: str, **changes: Any) -> TrainConfig:
    own = {"teacher_reasoning": [file], "teachers": NAMES, "max_steps": 2}
    return several(folder / "run", **{**KEPT, **own, **changes})


def test_the_target_is_that_of_the_teachers_own_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One weight of 1 equals a run of that teacher alone on data with its chain of thought."""
    maps = {"aligner_fit": "frozen", "map_proj_share_dim": True, "map_proj_init_uniform": True}
    file = write(tmp_path / "a.jsonl", "gpt2", "llama", wrong="gpt2")
    both = build_run(config(tmp_path, file, **maps, fixed_weights=[1.0, 0.0]))
    gold = write(tmp_path / "b.jsonl", "gpt2", "llama")
    right = build_run(config(tmp_path / "gold", gold, **maps, fixed_weights=[1.0, 0.0]))
    records = load_records(GAME)
    texts = [json.loads(line)["reasoning"]["gpt2"] for line in Path(file).read_text().splitlines()]
    swapped = [
        replace(record, reasoning=text, states_answer=False)
        for record, text in zip(records, texts, strict=True)
    ]
    monkeypatch.setattr("kava.train.data.load_records", lambda *_, **__: swapped)
    changes = {**SEVERAL, "teachers": None, "teacher_name": GPT2, **KEPT, **maps}
    alone = build_run(small(tmp_path / "c", **changes))
    ours, theirs, other = (
        float(one.trainer.model.eval()(batch_of(one)).metrics["kv"]) for one in (both, alone, right)
    )
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert abs(other - ours) > 1e-4


def test_cross_entropies_are_per_token_of_the_text_that_each_teacher_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first teacher reads a state of the game in two tokens, the second in one."""
    file = write(tmp_path / "a.jsonl", "gpt2", "llama")
    one = build_run(config(tmp_path, file, fusion="min_ce"))
    model, batch = one.trainer.model.eval(), batch_of(one)
    read, seen = model.passes.read, []
    ones = torch.ones(len(batch["ids"]))
    monkeypatch.setattr(
        model.passes, "read", lambda *args: [replace(r, text_B=ones) for r in read(*args)]
    )
    fuse = type(model.fusion).__call__
    monkeypatch.setattr(
        type(model.fusion),
        "__call__",
        lambda self, offers: seen.append(offers) or fuse(self, offers),
    )
    model(batch)
    expected = [
        [1 / int((side["segment_ids"][row] > 0).sum()) for side in batch["sides"]]
        for row in range(len(ones))
    ]
    assert torch.allclose(seen[0].text_BN, torch.tensor(expected))
    assert expected[0][0] < expected[0][1]


def test_maps_are_fitted_on_the_text_that_both_models_read(tmp_path: Path) -> None:
    wrong = build_run(config(tmp_path, write(tmp_path / "a.jsonl", "gpt2", "llama", wrong="gpt2")))
    right = build_run(config(tmp_path / "right", write(tmp_path / "b.jsonl", "gpt2", "llama")))
    for ours, theirs in zip(wrong.calibrations, right.calibrations, strict=True):
        assert str(ours) == str(theirs)


def test_a_teacher_without_a_chain_of_thought_does_not_read_the_sample(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", "gpt2", "llama", without="gpt2")
    one = build_run(config(tmp_path, file))
    batch = batch_of(one)
    assert batch["present"][:, 1].all()
    numbers = [int(name.rpartition("-")[2]) for name in batch["ids"]]
    assert batch["present"][:, 0].tolist() == [number % 2 == 0 for number in numbers]
    one.trainer.train()


def test_a_chain_of_thought_longer_than_its_teachers_positions_is_not_read(tmp_path: Path) -> None:
    one = build_run(config(tmp_path, write(tmp_path / "a.jsonl", "gpt2", "llama")))
    samples = list(one.data.train)
    text = samples[0].sides[0].own
    long = replace(text.encoded, input_ids=np.tile(text.encoded.input_ids, 9))
    sides = (replace(samples[0].sides[0], own=replace(text, encoded=long)), samples[0].sides[1])
    samples[0] = replace(samples[0], sides=sides)
    limits = [Limits("short", 999, None, len(long.input_ids) - 1), Limits("llama", 999, None, None)]
    kept = fitting_sides(samples, limits, "skip")
    assert [side.present for side in kept[0].sides] == [False, True]
    assert all(side.present for sample in kept[1:] for side in sample.sides)
    with pytest.raises(ValueError, match="positions of 'short'"):
        fitting_sides(samples, limits, "error")


def test_confidence_finds_the_teacher_whose_chain_of_thought_is_right(tmp_path: Path) -> None:
    for wrong, right in (("gpt2", "llama"), ("llama", "gpt2")):
        file = write(tmp_path / f"{wrong}.jsonl", "gpt2", "llama", wrong=wrong)
        one = build_run(config(tmp_path / wrong, file, fusion="confidence"))
        metrics = one.trainer.model.eval()(batch_of(one, 32)).metrics
        assert float(metrics[f"route_{right}"]) > 0.9


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"token_alignment": "hard"}, "--token_alignment hard, which brings a teacher's text"),
        ({"student": "explicit"}, "--student explicit, which reads positions of its own text"),
        ({"kv_method": "positions"}, "--kv_method positions, which keeps positions of the data's"),
        ({"teachers": None, "teacher_name": GPT2}, "--teacher_reasoning is about several"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        several(**{**KEPT, "teacher_reasoning": ["a.jsonl"], **changes})


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no chain of thought of teacher llama for any of"):
        build_run(config(tmp_path, write(tmp_path / "a.jsonl", "gpt2")))
    with pytest.raises(OSError, match=r"--teacher_reasoning nowhere\.jsonl is not there"):
        build_run(config(tmp_path, "nowhere.jsonl"))
    rows = (tmp_path / "a.jsonl").read_text().splitlines()
    (tmp_path / "b.jsonl").write_text(rows[0].replace("Cups", "Cup") + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has another question than --teacher_reasoning"):
        build_run(config(tmp_path, str(tmp_path / "b.jsonl")))
    (tmp_path / "c.jsonl").write_text('{"id": "x", "reasoning": "plain"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1 is no row of kava rationales"):
        build_run(config(tmp_path, str(tmp_path / "c.jsonl")))


def test_teachers_may_have_written_into_files_of_their_own(tmp_path: Path) -> None:
    both = write(tmp_path / "both.jsonl", "gpt2", "llama", wrong="gpt2")
    apart = [
        write(tmp_path / "a.jsonl", "gpt2", wrong="gpt2"),
        write(tmp_path / "b.jsonl", "llama", wrong="gpt2"),
    ]
    assert read_rationales(apart) == read_rationales([both])
    with pytest.raises(ValueError, match="a second chain of thought of teacher llama for the id"):
        read_rationales([both, apart[1]])
    (tmp_path / "b.jsonl").write_text(Path(apart[1]).read_text().replace("Cups", "Mugs"))
    with pytest.raises(ValueError, match="of an earlier row with another question"):
        read_rationales(apart)


def test_a_run_does_not_go_on_with_other_chains_of_thought(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    write(file, "gpt2", "llama")
    run(config(tmp_path, str(file), max_steps=1, save_steps=1))
    write(file, "gpt2", "llama", wrong="gpt2")
    with pytest.raises(ValueError, match="data"):
        build_run(config(tmp_path, str(file), max_steps=1, save_steps=1, resume=True))


def test_teachers_write_theirs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "rationales.jsonl"
    game = "kava/shell-game?num_train=40"
    argv = ["--teachers", *NAMES, "--dataset_name", game, "--output", str(output)]
    assert command(rationales, [*argv, "--max_new_tokens", "16"]) == 0
    assert "teacher llama: 100.0% of 40 answers right" in capsys.readouterr().err
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    for row, record in zip(rows, load_records(game), strict=True):
        assert (row["id"], row["question"]) == (record.id, record.question)
        assert row["reasoning"]["llama"].split() == record.without_last_step.split()
        assert row["right"] == {"llama": True, "gpt2": True}
    run(config(tmp_path, str(output), dataset_name=game, calibration_samples=32))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--output", "rows.csv"], "--output rows.csv must end with .jsonl"),
        (["--output", "a.jsonl", "--teachers", GPT2, GPT2], "the label shell-gpt2-teacher"),
        (["--output", "no-such-folder/x/a.jsonl", "--teachers", "nothing/there"], "nothing/there"),
    ],
)
def test_bad_flags_of_the_command_are_one_line(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    base = [] if "--teachers" in flags else ["--teachers", GPT2]
    argv = [*base, "--dataset_name", "kava/shell-game?num_train=4", *flags]
    assert command(rationales, argv) != 0
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error
    assert not list(tmp_path.glob("*.jsonl"))
