"""A wrong command line of an experiment is one line, in the time that it takes to read it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from conftest import ROOT

PROGRAM = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    assert "torch" not in sys.modules
"""
NUMBERS = {
    "compare_evictions": ["num_samples", "target_len"],
    "compare_key_spaces": ["teacher_steps", "num_steps", "num_test"],
    "write_stories": ["num_stories", "max_characters", "max_new_tokens", "batch_size"],
    "train_teacher": ["batch_size", "target_len"],
    "train_multi_teacher_kv": ["per_device_train_batch_size", "num_train_epochs"],
}
SEVERAL = ["--student_model", "x", "--teacher_models", "a", "b", "--dataset_name", "x.jsonl"]
NEEDED = {
    "write_stories": ["--model_name", "x", "--output", "x.jsonl"],
    "train_multi_teacher_kv": SEVERAL,
}
SPELLED = {"--per_device_train_batch_size": "--batch_size", "--num_train_epochs": "--epochs"}
BAD = [
    (name, f"--{flag}", value)
    for name, flags in NUMBERS.items()
    for flag, value in zip(flags * 4, ("0.5", "-1", "nan", "10000000000"))
    if (flag, value) != ("num_train_epochs", "10000000000")
] + [
    ("compare_key_spaces", "--seeds", "-1"),
    ("compare_key_spaces", "--kv_method", "best"),
    ("write_stories", "--temperature", "nan"),
    ("write_stories", "--temperature", "0"),
    ("write_stories", "--num_stories", "0"),
    ("train_teacher", "--which", "bert"),
    ("train_multi_teacher_kv", "--phase", "4"),
    ("train_multi_teacher_kv", "--train_phase", "4"),
    ("train_multi_teacher_kv", "--fixed_weights", "1.5,-0.5"),
    ("train_multi_teacher_kv", "--router_hidden_dim", "256"),
    ("train_multi_teacher_kv", "--trust_remote_code", "true"),
    *((name, "--nonsense", "1") for name in (*NUMBERS, "test_v4_integration")),
]


@pytest.mark.parametrize(("name", "flag", "value"), BAD)
def test_a_bad_value_is_one_line_before_torch_is_loaded(name: str, flag: str, value: str) -> None:
    script = ROOT / "experiments" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, script, *NEEDED.get(name, []), flag, value],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "error: " in line
    assert SPELLED.get(flag, flag) in line
    assert done.stdout == ""
