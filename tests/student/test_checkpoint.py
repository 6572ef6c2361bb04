"""Students on disk: what is saved is what is loaded, and what is broken is named."""

from __future__ import annotations

import json
import resource
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kava.data.records import Template
from kava.data.shell_game import SHELL_GAME_TEMPLATE, shell_game
from kava.models.load import load_model, load_tokenizer
from kava.student.answering import complete
from kava.student.checkpoint import (
    latest_checkpoint,
    library_versions,
    load_student,
    save_student,
)
from kava.student.latent import LatentStudent
from kava.student.settings import read_settings

SETTINGS = {"template": asdict(SHELL_GAME_TEMPLATE), "data_hash": "abc", "step": 7}
PROMPT = torch.arange(3, 9)[None]


def build(kind: str) -> PreTrainedModel:
    model = load_model("kava/shell-llama")
    if kind == "explicit":
        return model
    torch.manual_seed(0)
    jacobi = {"decoding": "jacobi", "num_iterations": 2} if kind == "jacobi" else {}
    return LatentStudent.wrap(model, num_latents=3, **jacobi).eval()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer("kava/shell-llama")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_student(folder, build("latent"), tokenizer, SETTINGS)
    state = {"best_model_checkpoint": "/somewhere/else/run/checkpoint-10"}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


@pytest.fixture
def run(tmp_path: Path, saved: Path) -> Path:
    """A run's output folder with three checkpoints, the middle one its best."""
    for step in (5, 10, 20):
        shutil.copytree(saved, tmp_path / f"checkpoint-{step}")
    return tmp_path


def truncate(path: Path, size: int = 100) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - size)


@pytest.mark.parametrize("kind", ["latent", "jacobi", "explicit"])
def test_what_is_saved_is_loaded(
    tmp_path: Path, kind: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = build(kind)
    save_student(tmp_path / "x", model, tokenizer, SETTINGS)
    loaded = load_student(tmp_path / "x")
    ours, theirs = model.state_dict(), loaded.model.state_dict()
    assert {*ours} == {*theirs}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert type(loaded.model) is type(model)
    assert not loaded.model.training
    assert loaded.template == SHELL_GAME_TEMPLATE
    assert loaded.settings == {
        **SETTINGS,
        "format": 1,
        "student": "explicit" if kind == "explicit" else "latent",
        "versions": library_versions(),
    }
    assert loaded.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert loaded.tokenizer.eos_token_id == tokenizer.eos_token_id
    if isinstance(model, LatentStudent):
        assert isinstance(loaded.model, LatentStudent)
        assert torch.equal(model.answer(PROMPT).tokens, loaded.model.answer(PROMPT).tokens)


@pytest.mark.parametrize("kind", ["latent", "explicit"])
def test_outputs_have_names_whatever_the_configuration_says(
    tmp_path: Path, kind: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    save_student(tmp_path, build(kind), tokenizer, SETTINGS)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config.get("base_config", config).update(return_dict=False, output_hidden_states=True)
    path.write_text(json.dumps(config))
    student = load_student(tmp_path)
    completions, _ = complete(
        student.model,
        student.tokenizer,
        [shell_game(1, seed=0)[0].question],
        student.template,
        names=["a"],
        max_new_tokens=2,
    )
    assert completions[0].num_tokens > 0


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    student = LatentStudent.wrap(load_model("kava/tiny-gpt2"), num_latents=1)
    tokenizer = load_tokenizer("kava/tiny-gpt2")
    save_student(tmp_path, student, tokenizer, {"template": asdict(Template())})
    base = load_student(tmp_path).model.base
    assert base.lm_head.weight is base.transformer.wte.weight


def test_versions_are_recorded() -> None:
    versions = library_versions()
    assert {*versions} == {"python", "kava", "torch", "transformers"}
    assert versions["torch"].startswith(torch.__version__.partition("+")[0])


def test_an_output_folder_gives_its_newest_checkpoint_or_its_best(run: Path) -> None:
    (run / "checkpoint-99.tmp").mkdir()
    (run / ".saving").mkdir()
    (run / "checkpoint-notes.txt").write_text("")
    assert latest_checkpoint(run) == run / "checkpoint-20"
    assert load_student(run).path == str(run / "checkpoint-20")
    assert load_student(run, best=True).path == str(run / "checkpoint-10")


def test_an_unfinished_checkpoint_is_passed_over(run: Path) -> None:
    truncate(run / "checkpoint-20" / "model.safetensors")
    assert latest_checkpoint(run) == run / "checkpoint-10"
    (run / "checkpoint-10" / "kava.json").unlink()
    assert latest_checkpoint(run) == run / "checkpoint-5"
    (run / "checkpoint-5" / "model.safetensors").unlink()
    assert latest_checkpoint(run) is None
    with pytest.raises(OSError, match=r"no complete checkpoint \(checkpoint-20: .*truncated"):
        load_student(run)


def test_no_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_a_plain_model_writes_its_reasoning(tmp_path: Path) -> None:
    model = load_model("kava/tiny-gpt2")
    model.save_pretrained(tmp_path)
    load_tokenizer("kava/tiny-gpt2").save_pretrained(tmp_path)
    for name in (tmp_path, "kava/tiny-gpt2"):
        loaded = load_student(name)
        assert type(loaded.model) is type(model)
        assert (loaded.template, loaded.settings) == (Template(), {})


def test_a_plain_model_may_be_in_a_folder_named_as_a_checkpoint_is(tmp_path: Path) -> None:
    folder = tmp_path / "sft" / "checkpoint-500"
    load_model("kava/tiny-gpt2").save_pretrained(folder)
    load_tokenizer("kava/tiny-gpt2").save_pretrained(folder)
    (folder / "trainer_state.json").write_text("{}")  # as the library's own trainer leaves it
    loaded = load_student(folder)
    assert (loaded.template, loaded.settings) == (Template(), {})
    (folder / "map_aligner.safetensors").write_bytes(b"")  # as this package's leaves it
    with pytest.raises(OSError, match=r"checkpoint-500/kava\.json is missing"):
        load_student(folder)


def _no_settings(run: Path) -> Path:
    (run / "checkpoint-20" / "kava.json").unlink()
    return run / "checkpoint-20"


def _renamed_without_settings(run: Path) -> Path:
    (run / "checkpoint-20" / "kava.json").unlink()
    return (run / "checkpoint-20").rename(run / "mine")


def _other_format(run: Path) -> Path:
    path = run / "checkpoint-20" / "kava.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 9'))
    return path.parent


def _half_settings(run: Path) -> Path:
    truncate(run / "checkpoint-20" / "kava.json", 30)
    return run / "checkpoint-20"


def _other_template(run: Path) -> Path:
    path = run / "checkpoint-20" / "kava.json"
    path.write_text(path.read_text().replace('"cue"', '"clue"'))
    return path.parent


def _half_weights(run: Path) -> Path:
    truncate(run / "checkpoint-20" / "model.safetensors")
    return run / "checkpoint-20"


def _no_weights(run: Path) -> Path:
    (run / "checkpoint-20" / "model.safetensors").unlink()
    return run / "checkpoint-20"


def _other_weights(run: Path) -> Path:
    path = run / "checkpoint-20" / "config.json"
    path.write_text(path.read_text().replace('"sequential"', '"jacobi"'))
    return path.parent


def _config_twice(run: Path) -> Path:
    path = run / "checkpoint-20" / "config.json"
    path.write_text(path.read_text().replace("{", '{"num_latents": 3,', 1))
    return path.parent


def _empty(run: Path) -> Path:
    (run / "empty").mkdir()
    return run / "empty"


def _nothing(run: Path) -> Path:
    return run / "nowhere"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_settings, r"checkpoint-20/kava\.json is missing"),
        (_renamed_without_settings, r"mine/kava\.json is missing"),
        (_other_format, r"kava\.json has format 9, this version of kava reads 1"),
        (_half_settings, r"kava\.json is damaged"),
        (_other_template, r"kava\.json: its template is missing or has other fields \(.*'clue'"),
        (_half_weights, r"checkpoint-20/model\.safetensors is damaged or truncated"),
        (_no_weights, r"checkpoint-20/model\.safetensors is missing"),
        (_other_weights, r"model\.safetensors does not fit the config\.json.*'placeholders'"),
        (_config_twice, r"config\.json, line \d+ has the key \"num_latents\" twice"),
        (_empty, r"empty holds no complete checkpoint \(there is no checkpoint-<step>"),
        (_nothing, r"nowhere' does not exist"),
    ],
)
def test_what_is_broken_is_named(run: Path, damage: object, message: str) -> None:
    assert callable(damage)
    with pytest.raises((ValueError, OSError), match=message) as caught:
        load_student(damage(run))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("kava.json", "student", [], "'student' is \\[\\] in place of latent or explicit"),
        ("kava.json", "format", True, "has format True"),
        ("kava.json", "config", None, "'config' is None in place of a JSON object"),
        ("kava.json", "data_hash", 3, "'data_hash' is 3 in place of text"),
        ("kava.json", "template", {"question": -1}, "template question=-1 must be text"),
        ("kava.json", "template", {"drop_last_step": "no"}, "'no' must be true or false"),
        ("config.json", "num_latents", "text", "cannot load a model from the folder"),
        ("config.json", "base_config", {"model_type": "gpt2", "n_embd": []}, "'n_embd' expected"),
        ("config.json", "base_config", {"model_type": "no_such"}, "cannot load a model"),
        ("config.json", "dtype", [[]], "cannot load a model"),
    ],
)
def test_values_of_another_type_are_named(
    run: Path, file: str, key: str, value: object, message: str
) -> None:
    path = run / "checkpoint-20" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises((ValueError, OSError), match=message) as caught:
        load_student(path.parent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "is missing, which names the best"),
        ({"best_model_checkpoint": None}, "names no best checkpoint"),
        ({"best_model_checkpoint": 3}, "names no best checkpoint"),
        ([], "names no best checkpoint"),
        ({"best_model_checkpoint": "x/checkpoint-15"}, "checkpoint-15.*is not there any more"),
    ],
)
def test_no_best_checkpoint(run: Path, state: object, message: str) -> None:
    path = run / "checkpoint-20" / "trainer_state.json"
    if state is None:
        path.unlink()
    else:
        path.write_text(json.dumps(state))
    with pytest.raises((ValueError, OSError), match=message):
        load_student(run, best=True)


def test_a_checkpoint_has_no_best_checkpoint() -> None:
    with pytest.raises(ValueError, match="not a run's output folder"):
        load_student("kava/tiny-gpt2", best=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "its template is missing"),
        ({**SETTINGS, "student": "explicit"}, "kind 'explicit', but LatentStudent is latent"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        save_student(tmp_path / "x", build("latent"), tokenizer, settings)
    assert not (tmp_path / "x").exists()


def test_saving_over_a_checkpoint_replaces_it_and_leaves_other_files(
    run: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    save_student(run / "checkpoint-20", build("explicit"), tokenizer, {**SETTINGS, "step": 21})
    assert (run / "checkpoint-20" / "trainer_state.json").exists()
    assert read_settings(run / "checkpoint-20")["step"] == 21
    assert load_student(run).settings["student"] == "explicit"


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    student = build("latent")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # as a disk with no more room
    try:
        with pytest.raises(OSError, match=r"model\.safetensors could not be written"):
            save_student(tmp_path / "x", student, tokenizer, SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
