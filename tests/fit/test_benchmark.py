"""The benchmark measures what its table says."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from conftest import ROOT


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    path = ROOT / "benchmarks" / "layers.py"
    spec = importlib.util.spec_from_file_location("benchmark_layers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_pair_is_measured_on_all_tokens(benchmark: ModuleType) -> None:
    teacher, student = benchmark.llama(3, 8, 32), benchmark.gpt2(2, 2, 16)
    found = benchmark.measure(teacher, student, num_batches=3, size=2)
    assert found.num_tokens == 3 * (benchmark.SHORTEST + benchmark.LONGEST)
    assert found.forward_seconds > 0
    assert found.cka_seconds > 0
    assert found.peak_bytes >= 0
    assert {len(pair) for pair in benchmark.PAIRS.values()} == {2}
