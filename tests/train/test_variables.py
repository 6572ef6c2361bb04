"""Variables of the environment as defaults: below flags and files, checked, and said."""

from __future__ import annotations

from pathlib import Path

import pytest

from kava.commands.train import main
from kava.train.flags import USAGE, parse_config
from kava.train.variables import KNOWN, PREFIX, SETTINGS, check_variables, take_variables
from one_line import refusal

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KNOWN:
        monkeypatch.delenv(name, raising=False)


VALUES = {
    "KAVA_DEVICE": ("cpu", "cpu"),
    "KAVA_BF16": ("1", True),
    "KAVA_FP16": ("true", True),
    "KAVA_DTYPE": ("bfloat16", "bfloat16"),
    "KAVA_BATCH_SIZE": ("4", 4),
    "KAVA_GRADIENT_ACCUMULATION_STEPS": ("2", 2),
    "KAVA_EFFECTIVE_BATCH_SIZE": ("32", 32),
}


@pytest.mark.parametrize("variable", VALUES)
def test_a_variable_is_the_default_of_its_flag(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, value = VALUES[variable]
    flags = ["--teacher_name", "kava/tiny-gpt2"]  # a frozen teacher has a dtype
    usual = parse_config(flags)
    monkeypatch.setenv(variable, text)
    name = SETTINGS[variable]
    found = getattr(parse_config(flags), name)
    assert found == value != getattr(usual, name)
    assert type(found) is type(value)
    assert f"kava: environment: --{name} {text if text != '1' else 'true'}, from {variable}" in (
        capsys.readouterr().err.splitlines()
    )


def test_every_variable_has_such_a_test() -> None:
    assert set(VALUES) == set(SETTINGS)


def test_a_flag_goes_before_a_file_and_a_file_before_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("batch_size: 3\n")
    monkeypatch.setenv("KAVA_BATCH_SIZE", "2")
    assert parse_config(["--lr", "1e-3"]).batch_size == 2  # not the 64 of the recipe
    assert parse_config(["--config", str(file)]).batch_size == 3
    assert parse_config(["--config", str(file), "--batch_size", "4"]).batch_size == 4
    assert parse_config(["--per_device_train_batch_size", "5"]).batch_size == 5
    monkeypatch.setenv("KAVA_BATCH_SIZE", "")
    assert parse_config(["--lr", "1e-3"]).batch_size == 64


@pytest.mark.parametrize(
    ("variable", "text", "flags", "name", "value"),
    [
        ("KAVA_BF16", "1", ["--fp16"], "bf16", False),
        ("KAVA_FP16", "1", ["--bf16", "false"], "fp16", False),
        (
            *("KAVA_EFFECTIVE_BATCH_SIZE", "128", ["--gradient_accumulation_steps", "4"]),
            *("gradient_accumulation_steps", 4),
        ),
        (
            *("KAVA_GRADIENT_ACCUMULATION_STEPS", "4", ["--effective_batch_size", "128"]),
            *("gradient_accumulation_steps", 2),
        ),
    ],
)
def test_a_flag_goes_before_a_variable_that_says_the_same_thing_in_another_way(
    variable: str,
    text: str,
    flags: list[str],
    name: str,
    value: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(parse_config(flags), name) == value


def test_the_word_auto_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAVA_BATCH_SIZE", "auto")
    assert parse_config([]).auto_batch


def test_nothing_is_said_where_nothing_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    parse_config([])
    assert capsys.readouterr().err == ""


def test_one_process_of_several_says_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAVA_DEVICE", "cpu")
    monkeypatch.setenv("RANK", "1")
    assert parse_config([]).device == "cpu"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("variable", "text", "line"),
    [
        ("KAVA_DEVICE", "gpu", "KAVA_DEVICE: --device 'gpu' is unknown; choose auto, cpu, cuda"),
        ("KAVA_BATCH_SIZE", "big", "KAVA_BATCH_SIZE: --batch_size 'big' is not a whole number"),
        ("KAVA_BATCH_SIZE", "0", "KAVA_BATCH_SIZE: --batch_size 0 must be from 1 to"),
        ("KAVA_BF16", "maybe", "KAVA_BF16: --bf16 'maybe' is not true or false"),
        ("KAVA_DTYPE", "float64", "KAVA_DTYPE: --dtype 'float64' is unknown"),
        # a value that is right by itself, and not with the others
        ("KAVA_DTYPE", "bfloat16", "float32 weights (--dtype is from KAVA_DTYPE)"),
        ("KAVA_DEVCE", "cpu", "KAVA_DEVCE is no variable that KaVa reads (did you mean KAVA_DEV"),
        ("KAVA_Device", "cpu", "KAVA_Device is no variable that KaVa reads (did you mean KAVA_DEV"),
        ("KAVA_LR", "1e-3", "KAVA_LR is no variable that KaVa reads: pass --lr, or write it into"),
        ("KAVA_CACHE_PATH", "/x", "KAVA_CACHE_PATH is left to the Hugging Face libraries"),
        ("KAVA_MODEL_PATH", "no/where", "KAVA_MODEL_PATH='no/where' is no folder: make it"),
        ("KAVA_DATA_PATH", "no/where", "KAVA_DATA_PATH='no/where' is no folder: make it"),
    ],
)
def test_a_wrong_variable_is_one_line(
    variable: str,
    text: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setenv(variable, text)
    flags = ["--model_name", "kava/tiny-gpt2", "--output_dir", str(tmp_path / "run")]
    assert line in refusal(main, flags, capsys)
    assert not (tmp_path / "run").exists()


def test_a_value_out_of_its_range_is_refused_before_a_configuration_is_made() -> None:
    with pytest.raises(ValueError, match=r"KAVA_DEVICE: --device 'gpu' is unknown"):
        take_variables(USAGE.settings, {}, {"KAVA_DEVICE": "gpu"})


def test_variables_of_others_are_named_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # what Kubernetes sets for a service that is called kava
    monkeypatch.setenv("KAVA_SERVICE_HOST", "10.0.0.7")
    monkeypatch.setenv("KAVA_PORT_80_TCP_PROTO", "tcp")
    parse_config([])
    assert capsys.readouterr().err.splitlines() == [
        "kava: warning: KAVA_PORT_80_TCP_PROTO is no variable that KaVa reads: it changes nothing",
        "kava: warning: KAVA_SERVICE_HOST is no variable that KaVa reads: it changes nothing",
    ]


def test_known_variables_and_an_answered_one_pass() -> None:
    known = dict.fromkeys(KNOWN, "x") | {"HF_HOME": "/cache", "KAVAX": "x"}
    assert check_variables(USAGE.settings, known) == []


def test_models_are_looked_up_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("org/big", "small"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").touch()
    environ = {"KAVA_MODEL_PATH": str(tmp_path)}
    given = {
        "model_name": "other/small",
        "teacher_name": "kava/tiny-gpt2",
        "teachers": ["a=org/big", "nowhere/gpt2", "small"],
    }
    taken = take_variables(USAGE.settings, given, environ)
    assert taken.values == {
        "model_name": f"{tmp_path}/small",
        "teachers": [f"a={tmp_path}/org/big", "nowhere/gpt2", f"{tmp_path}/small"],
    }
    assert taken.origins["model_name"] == "KAVA_MODEL_PATH"
    assert f"environment: --model_name {tmp_path}/small, from KAVA_MODEL_PATH" in taken.lines()
    monkeypatch.setenv("KAVA_MODEL_PATH", str(tmp_path))
    assert parse_config(["--model_name", "other/small"]).model_name == f"{tmp_path}/small"
    # what is written as a path is one, and what nobody names is not looked for
    assert not take_variables(USAGE.settings, {"model_name": "./small"}, environ).values
    assert not take_variables(USAGE.settings, {}, environ).values


def test_data_and_outputs_have_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.jsonl").touch()
    (tmp_path / "data/here.jsonl").touch()
    (tmp_path / "here.jsonl").touch()
    environ = {"KAVA_DATA_PATH": "data", "KAVA_OUTPUT_PATH": str(tmp_path / "out")}
    given = {"dataset_name": "mine.jsonl", "eval_dataset_name": "here.jsonl"}
    assert take_variables(USAGE.settings, given, environ).values == {
        "dataset_name": "data/mine.jsonl",
        "output_dir": str(tmp_path / "out/run"),
    }
    given = {"dataset_name": "gsm8k", "output_dir": "mine"}
    assert not take_variables(USAGE.settings, given, environ).values


def test_the_page_names_every_variable() -> None:
    page = (ROOT / "docs/environment.md").read_text(encoding="utf-8")
    assert [name for name in KNOWN if f"`{name}`" not in page] == []
    assert all(name.startswith(PREFIX) for name in KNOWN)
