"""The examples in the docstrings run, and alignment knows no model library."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kava.align

MODULES = [info.name for info in pkgutil.walk_packages(kava.align.__path__, "kava.align.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0


def test_alignment_never_imports_transformers() -> None:
    code = "import sys, kava.align; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_benchmark_compares_the_same_function(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "align.py"
    monkeypatch.syspath_prepend(path.parent)
    spec = importlib.util.spec_from_file_location("benchmark_align", path)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark  # where its dataclasses look up their annotations
    spec.loader.exec_module(benchmark)
    for case in benchmark.CASES.values():
        setting = benchmark.Setting(case, batch=1, length=4)
        ours = setting.by_kava(setting.x)
        for anchor in setting.anchors().values():
            torch.testing.assert_close(ours, anchor(setting.x), atol=1e-3, rtol=1e-4)


def test_the_examples_of_the_page_run() -> None:
    page = Path(__file__).parents[2] / "docs" / "alignment.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0
