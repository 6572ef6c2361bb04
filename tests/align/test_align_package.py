"""The examples in the docstrings run, and alignment knows no model library."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest
import torch

MODULES = ["layer_map", "contraction", "head_map", "time_warp", "flat", "aligner", "trace"]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str) -> None:
    module = importlib.import_module(f"kava.align.{name}")
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0


def test_alignment_never_imports_transformers() -> None:
    code = "import sys, kava.align; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
