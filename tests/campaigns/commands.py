"""The commands that the campaign kills: how they begin, how they go on, what they leave."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from kava.data.records import Template
from kava.models.load import load_model, load_tokenizer
from kava.store.manifest import TIERS, read_manifest
from kava.store.reader import Tier
from kava.store.verify import foreign_files, whole_shards
from kava.student.checkpoint import latest_checkpoint, save_student
from kava.student.latent import LatentStudent
from kava.train.config import TrainConfig

Outcome = dict[str, Any]
"""What a finished command must leave alike, however often it was interrupted."""

OF_THE_CLOCK = frozenset(
    {"seconds", "seconds_per_answer", "tokens_per_second", "train_seconds", "peak_memory_bytes"}
    | {"train_runtime", "train_samples_per_second", "train_steps_per_second", "files", "versions"}
)
"""What differs between undisturbed runs: times, memory, and hashes of files that hold them."""

GAME = "kava/shell-game?num_moves=4&num_train=64&num_test=40"
PLAN = f"""
name: kills
question: Is anything lost?
base: {{model_name: kava/shell-llama, teacher_name: kava/shell-teacher, target_len: 2,
  max_length: 64, projection_dropout: 0.1, logging_steps: 2, save_steps: 2, eval_steps: 3,
  device: cpu}}
data: {{train: "{GAME}", test: "{GAME}", curve_items: 8, test_items: 16}}
budget: {{steps: 5, batch_size: 8}}
seeds: [0, 1]
arms:
  kv: {{what: the cache, role: baseline}}
  wrong: {{what: another one, role: control, changes: {{wrong_sample: true}}}}
primary: {{minimum_effect: 0.05}}
"""


@dataclass(frozen=True)
class Command:
    """A command of kava with small settings, in a folder of its own.

    Attributes:
        main: module and function.
        flags: as on the command line, after the folder of `prepare` is the current one.
        outcome: of a folder in which it has finished.
        spawns: whether it has workers.
        goes_on: the flag that it takes where an earlier call has left something.
        left: whether one has.
    """

    main: str
    flags: str
    outcome: Callable[[Path], Outcome]
    spawns: bool = False
    goes_on: str | None = None
    left: Callable[[Path], bool] = lambda out: False

    @property
    def function(self) -> Callable[[list[str]], int]:
        module, _, name = self.main.partition(":")
        function: Callable[[list[str]], int] = getattr(importlib.import_module(module), name)
        return function

    def argv(self, folder: Path) -> list[str]:
        """To begin, or to go on, in a folder."""
        flags = self.flags.split()
        if self.goes_on is not None and self.left(folder / "out"):
            flags.append(self.goes_on)
        return flags


def prepare(folder: Path) -> None:
    """What the commands read."""
    torch.manual_seed(0)
    config = TrainConfig(dataset_name=GAME, max_new_tokens=8)
    student = LatentStudent.wrap(load_model("kava/tiny-gpt2"), num_latents=2)
    settings = {"template": asdict(Template(cue="Answer ")), "config": asdict(config)}
    save_student(folder / "student", student, load_tokenizer("kava/tiny-gpt2"), settings)
    (folder / "plan.yaml").write_text(PLAN)


def run_outcome(folder: Path) -> Outcome:
    """Of a training run: its rows, and the weights at its end."""
    last = latest_checkpoint(folder)
    assert last is not None, f"{folder} holds no whole checkpoint"
    weights = {
        name: digest(last / name) for name in ("model.safetensors", "map_aligner.safetensors")
    }
    return {"last": last.name, "weights": weights, "rows": json_lines(folder / "metrics.jsonl")}


def _train(folder: Path) -> Outcome:
    return run_outcome(folder / "out")


def _study(folder: Path) -> Outcome:
    runs = sorted((folder / "out" / "runs").glob("*/*"))
    return {
        f"{run.parent.name} {run.name}": {
            **run_outcome(run),
            "result": without_clock(json.loads((run / "result.json").read_text())),
            "items": digest(run / "items.jsonl"),
        }
        for run in runs
    }


def _calibrate(folder: Path) -> Outcome:
    return {path.name: digest(path) for path in sorted((folder / "out").iterdir())}


def _evaluate(folder: Path) -> Outcome:
    out = folder / "out"
    summary = json.loads((out / "items.jsonl.summary.json").read_text())
    return {"items": json_lines(out / "items.jsonl"), "summary": without_clock(summary)}


def _extract(folder: Path) -> Outcome:
    out = folder / "out"
    manifest = read_manifest(out)
    samples = {}
    for tier in TIERS:
        reader = Tier(out, manifest, tier)
        for place, row in sorted(reader._row_of.items()):
            samples[f"{tier} {place.hex()}"] = {
                name: hashlib.sha256(part.contiguous().numpy().tobytes()).hexdigest()
                for name, part in reader.read(row).items()
            }
    loose = [*foreign_files(out, manifest), *whole_shards(out, manifest)[1]]
    return {"settings": manifest.settings, "samples": samples, "loose": loose}


def _demo(folder: Path) -> Outcome:
    results = json.loads((folder / "out" / "results.json").read_text())
    runs = sorted((folder / "out" / "runs").iterdir())
    return {
        "results": [without_clock(row) for row in results],
        "pictures": sorted(path.name for path in (folder / "out").glob("*.png")),
        **{run.name: run_outcome(run) for run in runs},
    }


COMMANDS: Mapping[str, Command] = {
    "train": Command(
        "kava.commands.train:main",
        "--model_name kava/shell-llama --teacher_name kava/shell-gpt2 --kv_method full "
        "--alignment_mode structured --aligner_fit calibrated_joint --target_len 3 "
        "--dataset_name kava/shell-game?num_train=128 --max_length 64 --batch_size 8 "
        "--max_steps 10 --logging_steps 3 --save_steps 2 --eval_steps 4 --eval_size 16 "
        "--save_total_limit 2 --max_new_tokens 2 --projection_dropout 0.1 --lr 1e-3 "
        "--no_progress --device cpu --output_dir out",
        _train,
        goes_on="--resume",
        left=lambda out: latest_checkpoint(out) is not None,
    ),
    "study": Command(
        "kava.commands.study:main", "run plan.yaml --jobs 2 --output_dir out", _study, spawns=True
    ),
    "calibrate": Command(
        "kava.commands.calibrate:main",
        f"--model_name kava/shell-llama --teacher_name kava/shell-gpt2 --dataset_name {GAME} "
        "--calibration_samples 64 --map_rank 2 --device cpu --output_dir out",
        _calibrate,
        goes_on="--overwrite",
        left=lambda out: (out / "calibration.json").is_file(),
    ),
    "evaluate": Command(
        "kava.commands.evaluate:main",
        f"--checkpoint student --dataset_name {GAME} --batch_size 4 --device cpu "
        "--output out/items.jsonl",
        _evaluate,
    ),
    "extract": Command(
        "kava.commands.extract:main",
        "--teacher_name kava/shell-teacher --model_name kava/shell-llama --target_len 2 "
        "--dataset_name kava/shell-game?num_train=200 --kv_method full --max_length 64 "
        "--full --shard_mib 1 --batch_size 8 --no_progress --device cpu --store out",
        _extract,
    ),
    "demo": Command(
        "kava.commands.demo:main",
        "--model_name kava/shell-llama --arms ce kv --seeds 1 --steps 3 --num_items 4 --jobs 2 "
        "--output_dir out",
        _demo,
        spawns=True,
    ),
}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def json_lines(path: Path) -> list[Any]:
    return [without_clock(json.loads(line)) for line in path.read_text().splitlines()]


def without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_clock(part) for k, part in value.items() if k not in OF_THE_CLOCK}
    return [without_clock(part) for part in value] if isinstance(value, list) else value
