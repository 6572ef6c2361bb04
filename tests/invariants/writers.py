"""Every command that writes a folder or a file, with flags that make it small."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch

from kava.data.records import Template
from kava.files.locks import lock_file, lock_folder
from kava.models.load import load_model, load_tokenizer
from kava.models.lora import LoraForm, add_lora
from kava.student.checkpoint import save_student
from kava.student.latent import LatentStudent
from kava.train.config import TrainConfig
from report.made_up import write_study

GAME = "kava/shell-game?num_moves=4&num_train=48&num_test=6"
TRAIN = (
    "--model_name kava/shell-llama --teacher_name kava/shell-teacher --target_len 2 --max_length 64"
    f" --dataset_name {GAME} --max_steps 2 --logging_steps 1 --no_progress --device cpu --eval_size"
    " 8 --max_new_tokens 2 --output_dir out"
)
READING = f"--dataset_name {GAME} --device cpu"
PLAN = """
name: small
question: Which of two maps teaches more?
base: {model_name: kava/shell-llama, target_len: 2, max_length: 64, device: cpu}
data: {train: "kava/shell-game?num_moves=4&num_train=48", test: "kava/shell-game?num_moves=4&num_test=9", curve_items: 3}
budget: {steps: 2, batch_size: 8}
seeds: [0, 1]
arms:
  kv: {what: the cache, role: baseline}
  wrong: {what: another one, role: control, changes: {wrong_sample: true}}
primary: {minimum_effect: 0.05}
"""  # noqa: E501


CURRICULUM = """
name: small
question: What does it add?
base: {model_name: kava/shell-llama, target_len: 2, kv_method: full, max_length: 64, device: cpu}
data: {train: "kava/shell-game?num_moves=4&num_train=48", test: "kava/shell-game?num_moves=4&num_test=9", curve_items: 3}
budget: {steps: 2, batch_size: 8}
phases:
  checkpoints:
    what: two teachers
    changes: {teachers: [kava/shell-teacher, kava/shell-gpt2-teacher]}
"""  # noqa: E501


class Writer(NamedTuple):
    """A command and where it writes.

    Attributes:
        name: as people type it.
        main: module and function.
        flags: as on the command line, in the folder of `prepare`.
        output: what it writes, folder or file.
        is_folder: which of the two.
        spawns: whether it works in processes of its own.
    """

    name: str
    main: str
    flags: str
    output: str = "out"
    is_folder: bool = True
    spawns: bool = False

    @property
    def function(self) -> Callable[[list[str]], int]:
        module, _, name = self.main.partition(":")
        function: Callable[[list[str]], int] = getattr(importlib.import_module(module), name)
        return function

    @property
    def argv(self) -> list[str]:
        return self.flags.split()

    @property
    def lock(self) -> Callable[..., object]:
        return lock_folder if self.is_folder else lock_file


EVALUATE = "--checkpoint student --max_new_tokens 2 --device cpu"
WRITERS = (
    Writer("train", "kava.commands.train:main", TRAIN),
    Writer(
        "calibrate",
        "kava.commands.calibrate:main",
        f"--model_name kava/shell-llama --teacher_name kava/shell-gpt2 --map_rank 1 {READING} "
        "--calibration_samples 48 --output_dir out",
    ),
    Writer(
        "layer-map",
        "kava.commands.layer_map:main",
        f"--student_model kava/shell-llama --teacher_model kava/shell-gpt2 {READING} "
        "--num_samples 32 --output map.json",
        output="map.json",
        is_folder=False,
    ),
    Writer(
        "evaluate",
        "kava.commands.evaluate:main",
        f"{EVALUATE} --dataset_name {GAME} --output out/items.jsonl",
        output="out/items.jsonl",
        is_folder=False,
    ),
    Writer(
        "evaluate --tasks",
        "kava.commands.evaluate:main",
        f"{EVALUATE} --tasks {GAME} --output out",
    ),
    Writer(
        "costs",
        "kava.commands.costs:main",
        f"student kava/shell-llama --dataset_name {GAME} --max_new_tokens 2 --device cpu "
        "--rounds 1 --output out",
    ),
    Writer("export", "kava.commands.export:main", "student --output_dir out", is_folder=False),
    Writer("merge", "kava.commands.merge:main", "adapted --output_dir out", is_folder=False),
    Writer(
        "rationales",
        "kava.commands.rationales:main",
        f"--teachers a=kava/shell-teacher --dataset_name {GAME} --max_new_tokens 2 --device cpu "
        "--output rows.jsonl",
        output="rows.jsonl",
        is_folder=False,
    ),
    Writer(
        "compare_evictions",
        "kava.commands.compare_evictions:main",
        "--dataset_name kava/shell-game?num_moves=4&num_train=8 --device cpu --num_samples 4 "
        "--target_len 3 --no_progress --output figures.json",
        output="figures.json",
        is_folder=False,
    ),
    Writer(
        "study report",
        "kava.commands.study:main",
        "report study --output out",
        is_folder=False,
    ),
    Writer(
        "curriculum run",
        "kava.commands.curriculum:main",
        "run curriculum.yaml --output_dir out",
        spawns=True,
    ),
    Writer(
        "curriculum plan",
        "kava.commands.curriculum:main",
        "plan curriculum.yaml --phase 3 --output phase.yaml",
        output="phase.yaml",
        is_folder=False,
    ),
    Writer("study run", "kava.commands.study:main", "run plan.yaml --output_dir out", spawns=True),
    Writer(
        "demo",
        "kava.commands.demo:main",
        "--model_name kava/shell-llama --arms kv --seeds 1 --steps 2 --num_items 4 --jobs 1 "
        "--output_dir out",
        spawns=True,
    ),
)


def prepare(folder: Path) -> None:
    """What the commands read: a student, a finished study, and a plan."""
    torch.manual_seed(0)
    config = TrainConfig(dataset_name=GAME, max_new_tokens=2)
    student = LatentStudent.wrap(load_model("kava/tiny-gpt2"), num_latents=2)
    settings = {"template": asdict(Template(cue="Answer ")), "config": asdict(config)}
    tokenizer = load_tokenizer("kava/tiny-gpt2")
    save_student(folder / "student", student, tokenizer, settings)
    add_lora(student.base, LoraForm(rank=2, alpha=4.0), "kava/tiny-gpt2")
    save_student(folder / "adapted", student, tokenizer, settings)
    write_study(folder / "study", {"flat": 0.6, "per_head": 0.75, "wrong": 0.45})
    (folder / "plan.yaml").write_text(PLAN)
    (folder / "curriculum.yaml").write_text(CURRICULUM)


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too, and its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
