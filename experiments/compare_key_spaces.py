"""Compare key spaces across two models that rotate their keys otherwise.

    python experiments/compare_key_spaces.py

A teacher with grouped queries (4 layers, 16 query heads over 8 key/value heads of 24, θ = 1e6)
learns to write the reasoning of the shell game. Then students of latents (2 layers of 4 heads of
16, θ = 1e4) are trained from its cache, three for every seed: keys compared un-rotated, as both
models cache them, and with the teacher's rotated as the student's are. Everything else is the
same, the calibrated structured maps too, which are fitted in the space that is compared.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kava import names
from kava.cli import run
from kava.flags import Usage, check_fields, flag
from kava.inputs import whole_json_lines

if TYPE_CHECKING:
    from kava.train.config import TrainConfig

KEY_SPACES = ("unrotated", "rotated", "student")
NUM_EVALUATIONS = 8
MOST_STEPS, MOST_TEST = 100_000, 100_000


COMMON: dict[str, Any] = {
    "batch_size": 64,
    "max_length": 96,
    "logging_steps": 100,
    "save_steps": 100_000,
    "device": "cpu",
    "no_progress": True,
}


@dataclass(kw_only=True)
class Options:
    """What is compared, on what and how long."""

    output_dir: str = flag("outputs/key_spaces", "where everything goes")
    dataset_name: str = flag("kava/shell-game?form=compact", "a form of the shell game")
    kv_method: str = flag("full", "as in kava train")
    layer_mapping: str = flag("uniform", "as in kava train")
    teacher_steps: int = flag(3000, "optimiser steps of the teacher", least=1, most=MOST_STEPS)
    num_steps: int = flag(1000, "optimiser steps of each student", least=1, most=MOST_STEPS)
    num_test: int = flag(500, "held-out games", least=1, most=MOST_TEST)
    seeds: list[int] = flag([0, 1, 2], "of the students", least=0, most=names.MOST_SEED)

    def __post_init__(self) -> None:
        check_fields(self)


USAGE = Usage(
    prog="compare_key_spaces.py",
    kind=Options,
    summary="Compare key spaces across two models that rotate their keys otherwise.",
    example="python experiments/compare_key_spaces.py",
)


class Row(NamedTuple):
    """What a run of one key space came to."""

    key_space: str
    seed: int
    accuracies: list[float]
    """At even distances over the run, the last at its end."""
    kv: float
    kv_wrong_sample: float
    r_squared_keys: list[float]
    """Of the calibrated maps on held-out keys, layer by layer."""


def save_untrained_teacher(folder: Path) -> None:
    """A Llama with grouped queries and seeded random weights, and the shell game's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from kava.data import shell_game_tokenizer

    tokenizer = shell_game_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=24,
        intermediate_size=256,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train_teacher(options: Options) -> Path:
    """The teacher's last checkpoint; one from an earlier call is used again."""
    from kava.commands.train import train
    from kava.student.answering import answer_records
    from kava.student.checkpoint import latest_checkpoint, load_student
    from kava.train.config import TrainConfig

    folder = Path(options.output_dir) / "teacher"
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        start = Path(options.output_dir) / "untrained"
        save_untrained_teacher(start)
        checkpoint = train(
            TrainConfig(
                model_name=str(start),
                student="explicit",
                kv_weight=0.0,
                max_steps=options.teacher_steps,
                lr=1e-3,
                warmup_steps=min(50, options.teacher_steps),
                dataset_name=f"{options.dataset_name}&num_train={64 * options.teacher_steps}",
                output_dir=str(folder),
                **COMMON,
            )
        )
    teacher = load_student(checkpoint)
    answers = answer_records(
        teacher.model, teacher.tokenizer, test_records(options), teacher.template
    )
    print(f"teacher: {answers.accuracy:.1%} of {answers.num_items} held-out games")
    return checkpoint


def test_records(options: Options) -> list[Any]:
    """Held-out games."""
    from kava.data import load_records

    return load_records(f"{options.dataset_name}&num_test={options.num_test}", split="test")


def student_config(key_space: str, seed: int, teacher: Path, options: Options) -> TrainConfig:
    """The settings of one student; the key space is all in which those of one seed differ."""
    from kava.train.config import TrainConfig

    data = f"{options.dataset_name}&num_train={64 * options.num_steps}&num_test={options.num_test}"
    return TrainConfig(
        model_name="kava/shell-teacher",
        teacher_name=str(teacher),
        target_len=3,
        kv_method=options.kv_method,
        kv_weight=5.0,
        kv_layer_std=True,
        alignment_mode="structured",
        map_rank="8",
        map_proj_share_dim=True,
        layer_mapping=options.layer_mapping,
        calibration_samples=4000,
        key_space=key_space,
        max_steps=options.num_steps,
        lr=2e-3,
        dataset_name=data,
        eval_dataset_name=data,
        eval_size=options.num_test,
        eval_steps=-(-options.num_steps // NUM_EVALUATIONS),
        max_new_tokens=3,
        seed=seed,
        output_dir=str(Path(options.output_dir) / f"{key_space}-{seed}"),
        overwrite=True,
        **COMMON,
    )


def train_student(config: TrainConfig) -> Row:
    """Train one student and read its held-out evaluations."""
    from kava.train.build import build_run

    built = build_run(config)
    assert built.calibration is not None
    print(built.calibration)
    built.trainer.train()
    lines = whole_json_lines(Path(config.output_dir) / "metrics.jsonl")
    evaluations = [line for line in lines if "eval_accuracy" in line]
    return Row(
        key_space=config.key_space,
        seed=config.seed,
        accuracies=[line["eval_accuracy"] for line in evaluations],
        kv=evaluations[-1]["eval_kv"],
        kv_wrong_sample=evaluations[-1]["eval_kv_wrong_sample"],
        r_squared_keys=[fit.calibrated.r_squared for fit in built.calibration.part("keys")],
    )


def table(rows: list[Row]) -> str:
    """The runs as text."""
    title = "accuracy %, by eighths of the run"
    lines = [f"key space  seed  {title:47} KV (wrong sample)  R² of keys"]
    for row in rows:
        accuracies = " ".join(f"{100 * accuracy:5.1f}" for accuracy in row.accuracies)
        fits = " ".join(f"{fit:.2f}" for fit in row.r_squared_keys)
        lines.append(
            f"{row.key_space:10} {row.seed:4}  {accuracies:47} {row.kv:.3f} "
            f"({row.kv_wrong_sample:.3f})      {fits}"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    from kava.files.write import write_whole
    from kava.models.quiet import quiet_libraries

    options = USAGE.parse(argv)
    # a word that kava train does not know is refused before the teacher is trained
    student_config(KEY_SPACES[0], options.seeds[0], Path("teacher"), options)
    quiet_libraries()
    teacher = train_teacher(options)
    results = Path(options.output_dir) / "results.json"
    rows: list[Row] = []
    for seed in options.seeds:
        for key_space in KEY_SPACES:
            rows.append(train_student(student_config(key_space, seed, teacher, options)))
            write_whole(results, json.dumps([row._asdict() for row in rows], indent=2) + "\n")
    print(table(sorted(rows, key=lambda row: KEY_SPACES.index(row.key_space))))
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
