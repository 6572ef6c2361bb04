"""`kava calibrate`, end to end on tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig

from kava.align import MapProjectionAligner, save_layer_map
from kava.cli import run
from kava.commands.calibrate import USAGE, CalibrateConfig, calibrate_models, main, parse
from kava.data import load_records
from kava.data.paired_tokens import token_labels
from kava.data.splits import data_hash
from kava.data.text_tokens import tokenize
from kava.fit import calibrate_on, load_calibration, split_held_out
from kava.models import chunked
from kava.models.capture import capture
from kava.models.load import load_model, load_tokenizer
from kava.models.tokenizers import byte_tokenizer

FLAGS = {
    "--model_name": "kava/shell-llama",
    "--teacher_name": "kava/shell-gpt2",
    "--dataset_name": "kava/shell-game?num_train=40",
    "--calibration_samples": "40",
    "--map_rank": "1",
    "--output_dir": "out",
    "--device": "cpu",
}


def argv(changes: dict[str, str] | None = None, without: tuple[str, ...] = ()) -> list[str]:
    flags = {k: v for k, v in (FLAGS | (changes or {})).items() if k not in without}
    return [part for name, value in flags.items() for part in (name, value)]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_report_aligner_and_three_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, argv()) == 0
    printed = capsys.readouterr().out
    files = {path.name for path in Path("out").iterdir()}
    assert files == {
        "calibration.json", "aligner.safetensors", "layers.png", "heads.png", "time.png"
    }  # fmt: skip
    for picture in Path("out").glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert "teacher: kava/shell-gpt2: 4 layers, 3 heads (3 of keys and values), head dim 32" in (
        printed
    )
    assert "student: kava/shell-llama: 2 layers, 4 heads" in printed
    assert "student layer ← teacher layers: 0 ← 0; 1 ← 3" in printed
    assert "rank 1 of 3, a dim map per head" in printed
    assert "30" in printed.split("fitted to ")[1]
    aligner, facts = load_calibration("out")
    assert facts["data_hash"] == data_hash(load_records("kava/shell-game?num_train=40"))
    assert facts["teacher_name"] == "kava/shell-gpt2"
    assert facts["num_samples"] == 40
    assert facts["report"]["rank"] == 1
    assert {fit["part"] for fit in facts["report"]["layers"]} == {"keys", "values"}
    for fit in facts["report"]["layers"]:
        assert f"{fit['calibrated']['r_squared']:7.3f}" in printed
    assert aligner.projectors()["keys"].dense().shape == (2, 64, 96)


def test_maps_fitted_to_readings_in_chunks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = calibrate_models(parse(argv())).aligner.projectors()["keys"].dense()
    widths = widths_of_forwards(monkeypatch)
    found = calibrate_models(parse(argv({"--capture_chunk": "3"})))
    assert max(widths) == 3
    torch.testing.assert_close(
        found.aligner.projectors()["keys"].dense(), whole, atol=1e-3, rtol=1e-2
    )


def widths_of_forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The columns of each forward that is captured."""
    widths: list[int] = []

    def watched(model: Any, ids: torch.Tensor, *args: Any, **options: Any) -> Any:
        widths.append(ids.shape[1])
        return capture(model, ids, *args, **options)

    monkeypatch.setattr(chunked, "capture", watched)
    return widths


def test_the_saved_aligner_is_the_calibrated_one() -> None:
    flags = {"--map_rank": "2", "--align_direction": "student_to_teacher", "--seed": "3"}
    assert run(main, argv(flags)) == 0
    aligner, facts = load_calibration("out")
    again = calibrate_models(parse(argv(flags)))
    assert facts["report"] == json.loads(again.report.to_json())
    for name, part in again.aligner.state_dict().items():
        if not name.startswith("query"):
            torch.testing.assert_close(aligner.state_dict()[name], part)
    trace = torch.randn(1, 2, 4, 5, 16)
    assert aligner.map_student(trace, trace).keys.shape == (1, 2, 3, 5, 32)


def test_rank_auto_is_kept_in_the_file() -> None:
    many = {"--dataset_name": "kava/shell-game?num_train=160", "--calibration_samples": "160"}
    assert run(main, argv({"--map_rank": "auto", **many})) == 0
    aligner, facts = load_calibration("out")
    rank = facts["report"]["rank"]
    assert facts["report"]["ranks"][-1]["rank"] == rank
    assert aligner.projectors()["values"].rank == rank


def test_full_matrices_and_a_layer_map_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    save_layer_map(torch.tensor([[0.0, 1, 0, 0], [0.25, 0, 0.75, 0]]), "map.json")
    flags = {"--alignment_mode": "flat", "--layer_mapping_path": "map.json"}
    flags |= {"--dataset_name": "kava/shell-game?num_train=80", "--calibration_samples": "80"}
    assert run(main, argv(flags, without=("--map_rank",))) == 0
    printed = capsys.readouterr().out
    assert "0 ← 1; 1 ← 0 (0.25), 2 (0.75)" in printed
    assert "full matrices" in printed
    aligner, facts = load_calibration("out")
    assert facts["layer_weights"] == [[0.0, 1.0, 0.0, 0.0], [0.25, 0.0, 0.75, 0.0]]
    assert facts["report"]["rank"] is None
    torch.testing.assert_close(aligner.layer_weights, torch.tensor(facts["layer_weights"]))


def test_the_same_tokenizer_needs_no_picture_of_tokens() -> None:
    assert run(main, argv({"--teacher_name": "kava/shell-teacher"})) == 0
    assert not Path("out/time.png").exists()
    assert Path("out/heads.png").exists()


def test_every_fourth_sample_judges() -> None:
    config = parse(argv())
    calibrated = calibrate_models(config)
    fitted, judging = split_held_out(calibrated.texts.samples)
    assert (len(fitted), len(judging)) == (30, 10)
    assert {item.id for item in fitted}.isdisjoint(item.id for item in judging)
    reasoning = sum(item.answer_start - item.prompt_length for item in fitted)
    assert calibrated.report.num_positions == reasoning


def test_queries_and_rotated_keys_are_fitted_where_asked_for() -> None:
    texts = calibrate_models(parse(argv())).texts
    student, teacher = load_model("kava/shell-llama"), load_model("kava/shell-gpt2")
    reports = []
    for rotated in (False, True):
        aligner = MapProjectionAligner.from_configs(teacher.config, student.config, per_layer=True)
        reports.append(
            calibrate_on(
                texts.samples, teacher, student, aligner, texts.collate,
                queries=True, rotated=rotated,
            )
        )  # fmt: skip
    assert {fit.part for fit in reports[0].layers} == {"keys", "values", "queries"}
    assert reports[0].part("keys") != reports[1].part("keys")
    assert reports[0].part("values") == reports[1].part("values")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--calibration_samples": "41"}, "--calibration_samples 41 is more than the 40 records"),
        ({"--calibration_samples": "8"}, "positions, but each output of the map of keys has"),
        ({"--map_rank": "0"}, "--map_rank '0' must be a number above 0, or auto"),
        ({"--map_rank": "99"}, "3 terms make every map; choose 1 to 3, or auto"),
        ({"--alignment_mode": "flat"}, "--alignment_mode is flat; leave them out"),
        ({"--alignment_mode": "identity"}, "'identity' is unknown; choose structured, flat"),
        ({"--align_direction": "up"}, "choose teacher_to_student, student_to_teacher"),
        ({"--layer_mapping_path": "nope.json"}, "--layer_mapping_path nope.json: there is no such"),
        ({"--layer_mapping": "top"}, "--layer_mapping 'top' is unknown"),
        ({"--layer_mapping": "skip", "--layer_mapping_path": "m.json"}, "exclude each other"),
        ({"--model_name": "nowhere/at_all"}, "nowhere/at_all"),
    ],
)
def test_bad_values_are_one_line_and_leave_nothing(
    changes: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(main, argv(changes))
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("kava: error: " if code == 1 else "kava calibrate: error: ")
    assert message in line
    assert list(Path().iterdir()) == []


def test_what_is_there_is_not_replaced_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/calibration.json").write_text("mine")
    assert run(main, argv()) == 1
    assert "--output_dir out holds a calibration already: pass --overwrite" in (
        capsys.readouterr().err
    )
    assert Path("out/calibration.json").read_text() == "mine"
    assert run(main, [*argv(), "--overwrite"]) == 0
    assert load_calibration("out").facts["num_samples"] == 40


def test_a_damaged_folder_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match=r"out has no calibration.json"):
        load_calibration("out")
    assert run(main, argv()) == 0
    Path("out/aligner.safetensors").write_bytes(b"{}")
    with pytest.raises(OSError, match="out is damaged"):
        load_calibration("out")


def test_a_model_without_keys_and_values_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = byte_tokenizer()
    config = MambaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=1
    )
    AutoModelForCausalLM.from_config(config).save_pretrained("mamba")
    tokenizer.save_pretrained("mamba")
    assert run(main, argv({"--teacher_name": "mamba"})) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "recurrent layers" in line or "keys and values" in line


def test_the_defaults_are_those_of_the_help() -> None:
    config = CalibrateConfig(model_name="a", teacher_name="b", dataset_name="c", output_dir="d")
    assert config.map_rank == "auto"
    assert config.calibration_samples is None
    assert "1000, or all where there are fewer" in " ".join(USAGE.help().split())


def test_left_out_all_samples_are_taken_where_there_are_fewer_than_usual(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(main, argv(without=("--calibration_samples",))) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "default: --calibration_samples 40, all that kava/shell-game?num_train=40 has"
    assert load_calibration("out").facts["num_samples"] == 40


@pytest.mark.parametrize(
    ("text", "offsets", "labels"),
    [
        ("Once", [(0, 1), (0, 1), (1, 4)], [" ", "O", "nce"]),
        ("Once", [(0, 0), (0, 1), (0, 1), (1, 4)], ["", " ", "O", "nce"]),  # a begin mark
        ("Once", [(0, 4)], ["Once"]),
        ("é", [(0, 1), (0, 1)], ["é", "é"]),  # two bytes
        ("é", [(0, 1), (0, 1), (0, 1)], [" ", "é", "é"]),
        ("", [(0, 0)], [""]),
        ("", [], []),
    ],
)
def test_the_blank_in_front_of_a_text_is_not_drawn_as_its_first_letter(
    text: str, offsets: list[tuple[int, int]], labels: list[str]
) -> None:
    assert token_labels(text, offsets) == labels


@pytest.mark.shared
def test_a_real_tokenizer_spells_its_text_once(shared: Path) -> None:
    tokenizer = load_tokenizer(str(shared / "models/babyllama_tok105"))
    (item,) = tokenize(["Once upon"], tokenizer)
    assert "".join(token_labels("Once upon", item.offsets)) == " Once upon"
