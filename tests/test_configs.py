"""The shipped configurations: they parse, say what the paper reports, and train."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from conftest import ROOT
from kava.cli import run
from kava.commands.train import main, train
from kava.data.sources import GSM8K_NAMES
from kava.dataset_names import BUILTIN_TASKS
from kava.models.builtin import BUILTIN_NAMES
from kava.train.config import TrainConfig
from kava.train.flags import parse_config

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
ARMS = ("ab_gpt2_gsm8k_flat", "ab_gpt2_gsm8k_structured")
HUB_NAMES = (
    "gpt2",
    "gpt2-medium",
    "meta-llama/Llama-3.2-1B-Instruct",
    "meta-llama/Llama-3.2-3B-Instruct",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
)


class Recipe(NamedTuple):
    """A column of the table of hyper-parameters in arXiv 2510.02312."""

    model_name: str
    reasoning_form: str
    codi_weight: float
    kv_weight: float
    kv_loss: str
    kv_layer_std: bool
    lr: float
    weight_decay: float
    epochs: int


LLAMA_1B, QWEN, LLAMA_3B = HUB_NAMES[2], HUB_NAMES[4], HUB_NAMES[3]
RECIPES = {
    "kava_llama_1b_aug": Recipe(
        LLAMA_1B, "equations", 10, 1, "smooth_l1", True, 8e-4, 0.1, 10
    ),
    "kava_llama_1b_nl": Recipe(LLAMA_1B, "text", 10, 1, "mse", True, 8e-4, 0.1, 10),
    "kava_qwen2.5_0.5b_aug": Recipe(QWEN, "equations", 10, 1, "mse", False, 5e-4, 0.01, 10),
    "kava_qwen2.5_0.5b_nl": Recipe(QWEN, "text", 10, 1, "mse", True, 8e-4, 0.1, 10),
    "kava_llama_3b_aug": Recipe(LLAMA_3B, "equations", 20, 2, "smooth_l1", False, 2e-4, 0.1, 5),
    "kava_llama_3b_nl": Recipe(LLAMA_3B, "text", 20, 2, "smooth_l1", False, 2e-4, 0.1, 5),
}  # fmt: skip


def shipped(name: str, *flags: str) -> TrainConfig:
    return parse_config(["--config", str(ROOT / "configs" / f"{name}.yaml"), *flags])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_file_parses_to_what_it_says(path: Path) -> None:
    config = shipped(path.stem)
    for key, value in yaml.safe_load(path.read_text()).items():
        parsed = getattr(config, key)
        assert parsed == (float(value) if isinstance(parsed, float) else value), key
    names = {config.model_name, config.teacher_name} - {None}
    assert names <= {*HUB_NAMES, *BUILTIN_NAMES}
    assert config.dataset_name.partition("?")[0] in {*GSM8K_NAMES, *BUILTIN_TASKS}


def test_all_files_are_held_to_something() -> None:
    teachers = {"shell_game_teacher", "shell_game_gpt2_teacher"}
    teachers |= {
        f"word_problems_{name}{stage}"
        for name in ("", "neox_", "adder_", "multiplier_")
        for stage in ("sums", "teacher")
    }
    assert {path.stem for path in CONFIGS} == {
        *RECIPES,
        *ARMS,
        *teachers,
        "smoke",
        "pretrained_smollm2",
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_papers(name: str) -> None:
    config = shipped(name)
    assert Recipe(*(getattr(config, field) for field in Recipe._fields)) == RECIPES[name]
    assert config.teacher_name is None
    assert (config.student, config.alignment_mode) == ("latent", "identity")
    assert (config.target_len, config.decoding, config.jacobi_iterations) == (24, "jacobi", 3)
    assert (config.kv_method, config.kv_scope, config.rkv_lambda) == ("rkv", None, 0.1)
    assert (config.ce_weight, config.teacher_ce_weight) == (1, 1)
    assert not config.keep_last_step
    assert config.lr_scheduler == "cosine"
    assert config.batch_size * config.gradient_accumulation_steps == 128
    assert (config.max_grad_norm, config.bf16) == (2.0, True)
    assert (config.lora_r, config.lora_alpha, config.lora_dropout) == (128, 32, 0.1)
    assert config.lora_targets is None  # all linear layers
    assert config.output_dir == f"outputs/{name}"


def test_the_arms_of_the_comparison_differ_in_the_alignment_alone() -> None:
    flat, structured = (vars(shipped(name)) for name in ARMS)
    assert {key for key in flat if flat[key] != structured[key]} == {
        "alignment_mode",
        "output_dir",
    }
    for name, mode in zip(ARMS, ("flat", "structured")):
        config = shipped(name)
        assert config.alignment_mode == mode
        assert config.calibrates
        assert not config.map_proj_share_dim
        assert (config.model_name, config.teacher_name) == ("gpt2", "gpt2-medium")
        assert (config.dataset_name, config.subset_size, config.epochs) == ("gsm8k", 1000, 3)
        assert (config.batch_size, config.lr) == (8, 5e-5)
        assert config.kv_scope == "model"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RECIPES, *ARMS])
def test_a_configuration_trains_on_small_models(name: str, tmp_path: Path) -> None:
    data = "kava/shell-game?num_moves=12&num_train=24&num_test=4"
    arms = ["--model_name", "kava/tiny-gpt2", "--teacher_name", "kava/tiny-gemma"]
    small = arms if name in ARMS else ["--model_name", "kava/tiny-llama"]
    config = shipped(
        name,
        *small,
        *("--dataset_name", data, "--eval_dataset_name", data, "--reasoning_form", "text"),
        *("--subset_size", "16", "--eval_size", "2", "--max_new_tokens", "2"),
        *("--max_steps", "1", "--batch_size", "2", "--gradient_accumulation_steps", "2"),
        *("--device", "cpu", "--no_progress", "--output_dir", str(tmp_path)),
    )
    assert train(config).name == "checkpoint-1"


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return str(path)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "lr: 1e-3\ntarget_len: 4\nbf16: true\nkv_scope: layer\n")
    config = parse_config(["--config", path, "--lr", "2e-3", "--bf16", "False"])
    assert (config.lr, config.target_len, config.bf16) == (2e-3, 4, False)
    assert config.kv_scope == "layer"
    assert parse_config(["--lr", "2e-3", f"--config={path}"]).lr == 2e-3


def test_values_are_read_as_flags_are(tmp_path: Path) -> None:
    path = write(tmp_path, "lr: 5e-5\nepochs: 2\nrkv_lambda: 1\nsubset_size: null\nseed: 3\n")
    flags = ["--lr", "5e-5", "--epochs", "2", "--rkv_lambda", "1", "--seed", "3"]
    for _ in range(2):  # the parser rewrites the types of the dataclass when it is first made
        config = parse_config(["--config", path])
        assert config == parse_config(flags)
        assert [type(v) for v in (config.lr, config.epochs, config.rkv_lambda)] == [float] * 3


def test_the_smoke_file_equals_its_flags() -> None:
    flags = (
        "--model_name kava/tiny-gpt2 --dataset_name kava/shell-game --subset_size 10 "
        "--batch_size 2 --epochs 1 --alignment_mode structured --map_proj_share_dim "
        "--map_proj_init_uniform --kv_method rkv --logging_steps 1 --output_dir outputs/smoke"
    )
    assert shipped("smoke") == parse_config(flags.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 1e-3\nlearning_rate: 1e-3\n", "lr and learning_rate mean the same: leave one out"),
        ("lerning_rate: 1e-3\n", "unknown key 'lerning_rate'"),
        ("load_in_8bit: true\n", "load_in_8bit quantises one of two models"),
        ("model:\n  name: gpt2\n", "model holds keys of its own"),
        ("kv_weight: .nan\n", "--kv_weight nan must be a finite number"),
        ("config: other.yaml\n", "unknown key 'config'"),
        ("lr: fast\n", "lr: 'fast' is not a number"),
        ("kv_method: best\n", "--kv_method 'best' is unknown"),
        ("lr: true\n", "lr: True is not a number"),
        ("lr: 0\n", "--lr 0.0 must be above 0"),
        ("target_len: 2.5\n", "target_len: 2.5 is not a whole number"),
        ("subset_size: true\n", "subset_size: True is not a whole number"),
        ("batch_size: null\n", "batch_size: None is not a whole number"),
        ("bf16: maybe\n", "bf16: 'maybe' is not true or false"),
        ("model_name: 2\n", "model_name: 2 is not text"),
        ("- lr\n", "must hold keys and values"),
        ("", "must hold keys and values"),
        ("lr: [1\n", "is not valid YAML"),
        (
            "lr: 1e-3\nseed: 1\nlr: 1e-4\n",
            "is not valid YAML: line 3: the key 'lr' stands",
        ),
        ("seed: 010\n", "010 is another number in YAML"),
        (None, "no such file"),
    ],
)
def test_a_bad_file_is_one_line_that_names_the_key(
    text: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "none.yaml") if text is None else write(tmp_path, text)
    assert run(main, ["--config", path]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
