"""The files of the bad-inputs campaign: one whole example of everything that a command reads.

They are made by the commands themselves, in a few seconds, on the built-in models.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from forked import import_libraries, learn, run_command

PLAN = """\
name: small
question: Does the cache teach?
base: {model_name: kava/tiny-gpt2, target_len: 2, max_length: 128, device: cpu}
data: {train: rows.jsonl, test: test.jsonl, curve_items: 2, test_items: 4}
budget: {steps: 1, batch_size: 2}
seeds: [0, 1]
arms:
  ce: {what: the answer alone, role: baseline, changes: {kv_weight: 0}}
  kv: {what: the cache, role: treatment, changes: {kv_weight: 1}}
  wrong_sample: {what: another sample's cache, role: control, changes: {wrong_sample: true}}
primary: {metric: accuracy, minimum_effect: 0.05, test: crossed, alpha: 0.05}
"""
CONFIG = """\
model_name: kava/tiny-gpt2
dataset_name: rows.jsonl
target_len: 2
max_steps: 1
batch_size: 2
max_length: 128
device: cpu
output_dir: out
"""
TRAIN = [
    *("train", "--model_name", "kava/tiny-gpt2", "--dataset_name", "rows.jsonl"),
    *("--target_len", "2", "--max_steps", "2", "--batch_size", "2", "--max_length", "128"),
    *("--save_steps", "1", "--no_progress", "--device", "cpu"),
]
CALIBRATE = [
    *("calibrate", "--model_name", "kava/tiny-llama", "--teacher_name", "kava/tiny-gpt2"),
    *("--dataset_name", "rows.jsonl", "--calibration_samples", "8", "--batch_size", "4"),
]

EVALUATE = [
    *("evaluate", "--checkpoint", "run", "--dataset_name", "rows.jsonl", "--subset_size", "2"),
    *("--max_new_tokens", "2", "--device", "cpu"),
]


def rows(count: int, start: int) -> list[dict[str, str]]:
    """Sums in three steps."""
    return [
        {
            "id": f"row-{n}",
            "question": f"What is {n} + 2 + 3?",
            "reasoning": f"{n} + 2 = {n + 2}\n{n + 2} + 3 = {n + 5}\nso {n + 5}",
            "answer": str(n + 5),
        }
        for n in range(start, start + count)
    ]


def write_jsonl(path: Path, lines: list[dict[str, object]] | list[dict[str, str]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_inputs(folder: Path) -> None:
    """Make a folder with whole examples of the files that people write."""
    folder.mkdir(parents=True)
    write_jsonl(folder / "rows.jsonl", rows(12, 10))
    write_jsonl(folder / "test.jsonl", rows(6, 50))
    (folder / "table.csv").write_text(
        "question,reasoning,answer\n" + "".join(f"{n}+1?,{n}+1={n + 1},{n + 1}\n" for n in range(9))
    )
    (folder / "questions.txt").write_text("What is 1 + 2 + 3?\nWhat is 4 + 2 + 3?\n")
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "plan.yaml").write_text(PLAN)
    svamp = [
        {
            "ID": f"chal-{n}",
            "Body": f"Ann has {n} pens.",
            "Question": "And 2 more?",
            "Type": "Addition",
            "Equation": f"( {n}.0 + 2.0 )",
            "Answer": float(n + 2),
        }
        for n in range(4)
    ]
    (folder / "SVAMP.json").write_text(json.dumps(svamp))
    for name in ("a", "b"):
        items = [{"id": f"i-{n}", "correct": bool(n % (3 if name == "a" else 2))} for n in range(9)]
        write_jsonl(folder / f"{name}.jsonl", items)


def make_world(folder: Path, modules: Path) -> None:
    """Add to the files of `write_inputs` what the commands make of them.

    Args:
        folder: with the files.
        modules: a file for the names of what the commands have imported, for `learn`.

    Raises:
        RuntimeError: a command that should work does not.
    """
    import_libraries()
    _must(folder, modules, [*TRAIN, "--output_dir", "run"])
    _must(folder, modules, [*CALIBRATE, "--output_dir", "fitted"])
    _must(
        folder,
        modules,
        [
            *("layer-map", "--student_model", "kava/tiny-llama", "--teacher_model"),
            *("kava/tiny-gpt2", "--dataset_name", "rows.jsonl", "--num_samples", "8"),
            *("--output", "map.json"),
        ],
    )
    _must(folder, modules, [*EVALUATE, "--output", "scores.jsonl"])
    (folder / "scores.jsonl").unlink()
    # a checkpoint of before manifests: its files are checked one by one
    shutil.copytree(folder / "run", folder / "old")
    for manifest in (folder / "old").rglob("manifest.json"):
        manifest.unlink()


def copy_world(made: Path, folder: Path) -> None:
    """A copy that costs no disk: a case replaces the files that it spoils."""
    shutil.copytree(made, folder, copy_function=os.link)


def _must(folder: Path, modules: Path, argv: list[str]) -> None:
    outcome = run_command(argv, folder, limit=120, modules=modules)
    if outcome.code:
        raise RuntimeError(f"kava {' '.join(argv)} failed: {outcome.stderr}")
    learn(modules)
