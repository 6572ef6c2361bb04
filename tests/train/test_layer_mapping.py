"""The layer map of a run: by depth, from a file, or measured before training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import run, small, weights
from transformers import AutoModelForCausalLM, MambaConfig

from kava.align import layer_map, save_layer_map
from kava.commands.train import train
from kava.fit import LayerMapping
from kava.models.tokenizers import byte_tokenizer
from kava.train.build import build_run
from kava.train.config import TrainConfig
from kava.train.models import build_distiller

PAIR: dict[str, Any] = {
    "teacher_name": "kava/shell-gpt2",
    "alignment_mode": "structured",
    "aligner_fit": "frozen",
}
MAP = torch.tensor([[0.0, 0.25, 0.0, 0.75], [1.0, 0.0, 0.0, 0.0]])


def read(config: TrainConfig) -> torch.Tensor:
    return build_distiller(config).map_aligner.layer_weights


def test_a_map_by_depth_is_the_default() -> None:
    assert torch.equal(read(small(**PAIR)), layer_map(4, 2, "ratio"))
    assert torch.equal(read(small(**PAIR, layer_mapping="uniform")), layer_map(4, 2, "uniform"))


@pytest.mark.parametrize("use_cka", [False, True])
def test_a_file_is_read(use_cka: bool, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    save_layer_map(MAP, path)
    config = small(**PAIR, layer_mapping_path=str(path), use_cka_layer_mapping=use_cka)
    assert torch.equal(read(config), MAP)
    assert not config.measures_layers


def test_a_file_for_other_depths_or_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    config = small(**PAIR, layer_mapping_path=str(path))
    with pytest.raises(FileNotFoundError, match=r"map\.json"):
        build_distiller(config)
    save_layer_map(torch.eye(2), path)
    with pytest.raises(ValueError, match=r"maps 2 teacher layers .* have 4 and 2; make a map"):
        build_distiller(config)


def test_the_map_is_measured_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**PAIR, "use_cka_layer_mapping": True, "calibration_samples": 16}
    first = run(small(tmp_path / "a", **settings, save_steps=2))
    mapping = LayerMapping.load(tmp_path / "a" / "layer_map.json")
    aligner = first.trainer.model.map_aligner
    assert torch.equal(aligner.layer_weights, mapping.weights)
    assert [[layer for layer, _ in row] for row in aligner.layer_rows] == [
        row.nonzero().flatten().tolist() for row in mapping.weights
    ]
    assert not torch.equal(mapping.weights, layer_map(4, 2, "ratio"))
    assert first.layers is not None
    assert torch.equal(first.layers.weights, mapping.weights)
    assert mapping.facts["num_samples"] == 16
    assert mapping.facts["data_hash"] == first.data.hash
    assert mapping.facts["teacher_model"] == "kava/shell-gpt2"

    again = small(tmp_path / "b", **PAIR, layer_mapping_path=str(tmp_path / "a" / "layer_map.json"))
    assert torch.equal(read(again), mapping.weights)
    with_file = weights(run(again).trainer.model)
    for name, part in weights(first.trainer.model).items():
        torch.testing.assert_close(part, with_file[name], atol=0, rtol=0)

    (tmp_path / "a" / "layer_map.json").unlink()
    shutil.rmtree(tmp_path / "a" / "checkpoint-4")
    resumed = run(small(tmp_path / "a", **settings, save_steps=2, resume=True))
    assert resumed.layers is None
    assert not (tmp_path / "a" / "layer_map.json").exists()
    for name, part in weights(first.trainer.model).items():
        torch.testing.assert_close(part, weights(resumed.trainer.model)[name], atol=0, rtol=0)

    capsys.readouterr()
    train(small(tmp_path / "c", **settings, max_steps=1))
    assert str(mapping) in capsys.readouterr().out


def test_nothing_is_measured_where_no_cache_is_compared(tmp_path: Path) -> None:
    built = build_run(
        small(tmp_path, **PAIR, use_cka_layer_mapping=True, kv_weight=0, codi_weight=1)
    )
    assert built.layers is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"layer_mapping": "skip", "layer_mapping_path": "map.json"}, "--layer_mapping_path each"),
        ({"layer_mapping": "ratio", "use_cka_layer_mapping": True}, "--use_cka_layer_mapping each"),
        ({"layer_mapping": "best"}, "--layer_mapping 'best' is unknown; choose ratio"),
        ({"use_cka_layer_mapping": True, "alignment_mode": "identity"}, "choose structured or"),
    ],
)
def test_flags_that_contradict_each_other_are_one_line(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        small(**{**PAIR, **flags})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            None,
            r"^--layer_mapping_path \S+map.json: there is no such file; kava layer-map makes one",
        ),
        ("[", r"^--layer_mapping_path: \S+map.json is not a layer map: "),
        ("{}", r"^--layer_mapping_path: \S+map.json is not a layer map: its format"),
    ],
)
def test_a_file_that_is_no_map_is_named_with_its_flag_before_data_are_read(
    text: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "map.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        build_run(small(**{**PAIR, "dataset_name": "no.jsonl"}, layer_mapping_path=str(path)))


@pytest.mark.parametrize("role", ["teacher_name", "model_name"])
def test_a_model_without_keys_and_values_is_one_line(role: str, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    config = MambaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, state_size=4
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "mamba")
    tokenizer.save_pretrained(tmp_path / "mamba")
    names = {"model_name": "kava/tiny-llama", "teacher_name": "kava/tiny-gpt2"}
    names[role] = str(tmp_path / "mamba")
    with pytest.raises(ValueError, match="MambaForCausalLM has recurrent layers"):
        build_distiller(small(**{**PAIR, **names}))
