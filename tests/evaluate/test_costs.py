"""What answers cost: the same items in turns, counted as they happen, told in one table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from kava.cli import run
from kava.commands.costs import main
from kava.data.records import Template
from kava.data.shell_game import SHELL_GAME_TEMPLATE
from kava.data.sources import load_records
from kava.evaluate import costs as costs_module
from kava.evaluate.costs import Contender, measure_costs, rounds_of
from kava.evaluate.costs_table import costs_table
from kava.models.load import load_model, load_tokenizer
from kava.pictures.costs import costs_picture
from kava.pictures.theme import drawing
from kava.statistics.intervals import wilson
from kava.student.answering import answer_records
from kava.student.checkpoint import LoadedStudent, save_student
from kava.student.latent import LatentStudent
from kava.train.config import TrainConfig
from one_line import refusal

GAME = "kava/shell-game?num_test=12"
WRITTEN = "kava/shell-teacher"
DECODINGS: dict[str, dict[str, Any]] = {
    "none": {"num_latents": 0},
    "pause": {"num_latents": 3, "decoding": "jacobi", "num_iterations": 0},
    "latents": {"num_latents": 3},
    "jacobi": {"num_latents": 3, "decoding": "jacobi", "num_iterations": 1},
}


def latent(name: str) -> LatentStudent:
    torch.manual_seed(0)
    return LatentStudent.wrap(load_model("kava/shell-llama"), **DECODINGS[name]).eval()


@pytest.fixture(scope="module")
def contenders() -> list[Contender]:
    """The teacher, which solves the task in writing, and untrained students of each kind."""
    tokenizer = load_tokenizer(WRITTEN)
    models = {"written": load_model(WRITTEN), **{name: latent(name) for name in DECODINGS}}
    template = SHELL_GAME_TEMPLATE
    return [
        Contender(name, LoadedStudent(model, tokenizer, template, {}, name), template, 8)
        for name, model in models.items()
    ]


@contextmanager
def lengths_read(model: torch.nn.Module) -> Iterator[list[int]]:
    """The columns that each pass of a model reads."""
    lengths: list[int] = []

    def note(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids")
        ids = args[0] if ids is None and args else ids
        lengths.append((kwargs["inputs_embeds"] if ids is None else ids).shape[1])

    handle = model.base_model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield lengths
    finally:
        handle.remove()


def test_each_model_answers_as_it_does_alone(contenders: list[Contender]) -> None:
    records = load_records(GAME, split="test")
    advanced: list[int] = []
    costs = measure_costs(
        contenders, records, batch_sizes=[1, 4], num_rounds=3, advance=advanced.append
    )
    assert [(c.label, c.batch_size) for c in costs] == [
        (one.label, size) for size in (1, 4) for one in contenders
    ]
    assert sum(advanced) == 2 * 12 * len(contenders)
    for cost in costs:
        (one,) = (c for c in contenders if c.label == cost.label)
        alone = answer_records(
            one.student.model, one.student.tokenizer, records, one.template,
            batch_size=cost.batch_size, max_new_tokens=8,
        )  # fmt: skip
        assert cost.figures["num_correct"] == alone.num_correct
        assert cost.figures["num_tokens"] == alone.num_tokens
        assert cost.figures["forward_passes"] == pytest.approx(alone.forward_passes)
        low, high = wilson(alone.num_correct, 12)
        assert (cost.figures["accuracy_low"], cost.figures["accuracy_high"]) == (low, high)
        assert len(cost.round_seconds) == 3
        assert sum(cost.round_seconds) == pytest.approx(cost.figures["seconds"])
    written = costs[0]
    assert written.figures["accuracy"] == 1.0
    assert (written.passes_ratio, written.time_ratio.value) == (1.0, 1.0)
    # three steps, the cue, the answer and the end, or nothing of them but cue, answer and end
    assert written.figures["forward_passes"] == 6.0
    assert [c.thinks for c in costs[:5]] == [
        "written", "not at all", "3 pause tokens", "3 latents", "3 latents, 1 Jacobi",
    ]  # fmt: skip
    for cost in costs:
        assert cost.time_ratio is not None
        assert cost.time_ratio.low <= cost.time_ratio.value <= cost.time_ratio.high


def test_models_take_turns_and_begin_in_turn(
    contenders: list[Contender], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[tuple[str, tuple[str, ...]]] = []
    names = {id(one.student.model): one.label for one in contenders}

    def note(model: Any, tokenizer: Any, records: Any, *args: Any, **options: Any) -> Any:
        turns.append((names[id(model)], tuple(record.id for record in records)))
        return answer_records(model, tokenizer, records, *args, **options)

    monkeypatch.setattr(costs_module, "answer_records", note)
    records = load_records(GAME, split="test")[:4]
    measure_costs(contenders[:3], records, num_rounds=2)
    ids = tuple(record.id for record in records)
    first, second = ids[:2], ids[2:]
    assert turns == [
        ("written", ids[:1]), ("none", ids[:1]), ("pause", ids[:1]),
        ("written", first), ("none", first), ("pause", first),
        ("none", second), ("pause", second), ("written", second),
    ]  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 4])
def test_nothing_is_read_twice(contenders: list[Contender], batch_size: int) -> None:
    """After the prompt each pass reads one token; Jacobi passes read the latents alone."""
    records = load_records(GAME, split="test")[:batch_size]
    prompt = len(contenders[0].student.tokenizer(records[0].question + "\n").input_ids)
    behind = {"none": [], "pause": [], "latents": [1, 1, 2], "jacobi": [4]}
    begins = {"none": 2, "pause": 5, "latents": 1, "jacobi": 4}
    for one in contenders:
        model = one.student.model
        base = model.base if isinstance(model, LatentStudent) else model
        with lengths_read(base) as lengths:
            answers = answer_records(
                model, one.student.tokenizer, records, one.template,
                batch_size=batch_size, max_new_tokens=8,
            )  # fmt: skip
        assert lengths[0] == prompt + begins.get(one.label, 0)
        thought = behind.get(one.label, [])
        assert lengths[1 : 1 + len(thought)] == thought
        words = lengths[1 + len(thought) :]
        num_tokens = max(item.num_tokens for item in answers.items)
        assert words == [1] * (num_tokens - 1)
        assert answers.forward_passes == len(lengths)


def test_rounds_are_whole_batches_of_all_items() -> None:
    records = [
        replace(record, id=str(i)) for i, record in enumerate(load_records(GAME, split="test"))
    ]
    for batch_size in (1, 3, 5, 12):
        for num_rounds in (1, 2, 5, 50):
            parts = rounds_of(records, batch_size, num_rounds)
            assert [record for part in parts for record in part] == records
            assert len(parts) <= num_rounds
            assert all(len(part) % batch_size == 0 for part in parts[:-1])


def test_without_written_reasoning_nothing_is_divided_by_it(contenders: list[Contender]) -> None:
    records = load_records(GAME, split="test")[:2]
    costs = measure_costs(contenders[1:3], records, num_rounds=1)
    assert [(c.passes_ratio, c.time_ratio) for c in costs] == [(None, None)] * 2
    assert "÷" not in costs_table(costs)


@pytest.mark.parametrize("narrow", [False, True])
def test_the_picture_has_a_panel_for_each_batch_size(
    contenders: list[Contender], narrow: bool
) -> None:
    costs = measure_costs(
        contenders, load_records(GAME, split="test")[:4], batch_sizes=[1, 2, 4], num_rounds=1
    )
    with drawing():
        figure = costs_picture(costs, narrow)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == [
        "one at a time", "batches of 2", "batches of 4",
    ]  # fmt: skip
    for axes, size in zip(panels, (1, 2, 4)):
        mine = {c.label: c for c in costs if c.batch_size == size}
        assert {text.get_text() for text in axes.texts} == set(mine)
        for text in axes.texts:
            assert text.xy[0] == pytest.approx(
                1000 * mine[text.get_text()].figures["seconds_per_answer"]
            )


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name in ("none", "latents"):
        folders[name] = tmp_path_factory.mktemp(name) / "checkpoint-1"
        settings = {
            "template": asdict(SHELL_GAME_TEMPLATE),
            "config": asdict(TrainConfig(dataset_name=GAME, max_new_tokens=4)),
        }
        save_student(folders[name], latent(name), load_tokenizer(WRITTEN), settings)
    return folders


def test_the_command_prints_one_table_and_writes_figures_and_pictures(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [WRITTEN, *map(str, checkpoints.values())]
    flags = ["--batch_size", "1", "4", "--rounds", "2", "--output", str(tmp_path / "out")]
    argv = [*models, "--labels", "written", "none", "latents", *flags, "--device", "cpu"]
    assert run(main, argv) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == f"12 items of {GAME}, test"
    assert lines[2].split("  ")[0] == "model"
    assert "95% interval" in lines[2]
    assert [line.split()[0] for line in lines[3:9]] == ["written", "none", "latents"] * 2
    assert lines[3].split()[-4:] == ["1", "1", "to", "1"]
    assert "72/72" in printed.err
    report = json.loads((tmp_path / "out" / "costs.json").read_text(encoding="utf-8"))
    assert report["written"] == "written"
    assert report["num_items"] == 12
    assert [(c["label"], c["batch_size"]) for c in report["costs"]] == [
        (name, size) for size in (1, 4) for name in ("written", "none", "latents")
    ]
    assert report["costs"][2]["checkpoint"] == models[2]
    assert report["costs"][2]["thinks"] == "3 latents"
    passes = [c["forward_passes"] for c in report["costs"][:3]]
    assert report["costs"][2]["passes_ratio"] == pytest.approx(passes[2] / passes[0])
    assert Image.open(tmp_path / "out" / "costs.png").width > 500
    assert ElementTree.parse(tmp_path / "out" / "costs.svg").getroot().tag.endswith("svg")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "costs.json", "costs.png", "costs.svg",
    }  # fmt: skip


def test_the_command_prints_json(
    checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(checkpoints["none"]), "--subset_size", "3", "--json", "--device", "cpu"]
    assert run(main, argv) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["num_items"], report["written"]) == (3, None)
    assert report["costs"][0]["tokens_per_second"] > 0


def test_a_plain_model_gets_the_template_of_the_data() -> None:
    from kava.commands.costs import _contenders
    from kava.evaluate.data import Evaluation

    plain = LoadedStudent(latent("none"), load_tokenizer(WRITTEN), Template(), {}, "x")
    (one,) = _contenders(["x"], [plain], Evaluation([], GAME, "test", "", None), None)
    assert one.template == SHELL_GAME_TEMPLATE


ERRORS = [
    ([], "MODEL is missing, as in: kava costs"),
    ([WRITTEN, "--bach_size", "1"], "unknown flag --bach_size (did you mean --batch_size?)"),
    (["./nowhere"], "'./nowhere' does not exist"),
    ([WRITTEN], "pass --dataset_name"),
    ([WRITTEN, WRITTEN, "--dataset_name", GAME], "stands there twice; name each model by --labels"),
    ([WRITTEN, "--labels", "a", "b"], "--labels names 2 models, and there are 1"),
    ([WRITTEN, "--dataset_name", GAME, "--batch_size", "13"], "--batch_size 13 must be from 1 to"),
    (
        [WRITTEN, "--dataset_name", GAME, "--batch_size", "0"],
        "--batch_size 0 must be from 1",
    ),
    (
        [WRITTEN, "--dataset_name", GAME, "--batch_size", "2", "2"],
        "--batch_size 2 stands there",
    ),
    ([WRITTEN, "--dataset_name", GAME, "--rounds", "0"], "--rounds 0 must be from 1 to"),
    ([WRITTEN, "--dataset_name", GAME, "--output", "{file}"], "is a file; name a folder"),
    ([WRITTEN, "--dataset_name", GAME, "--device", "abacus"], "--device 'abacus' is unknown"),
    ([WRITTEN, "--dataset_name", "no.jsonl"], "neither a file nor a known name"),
]


@pytest.mark.parametrize(("argv", "complaint"), ERRORS)
def test_what_a_user_can_mend_is_one_line(
    argv: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    argv = [part.format(file=tmp_path / "file") for part in argv]
    assert complaint in refusal(main, argv, capsys)
