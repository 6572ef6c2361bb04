"""The benchmark of several teachers times what its table says."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest

from conftest import ROOT


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    path = ROOT / "benchmarks" / "teachers.py"
    spec = importlib.util.spec_from_file_location("benchmark_teachers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def tiny(benchmark: ModuleType) -> Any:
    return benchmark.Size(
        teacher=(1, 16, 2), student=(1, 16, 2), vocabulary=16, batch=8, text=(4, 4, 2),
        latents=2, kv_method="rkv",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("1 teacher", [8]),
        ("2 teachers, fixed", [8, 8]),
        ("4 teachers, fixed", [8, 8, 8, 8]),
        ("4 teachers, hard", [2, 2, 2, 2]),
    ],
)
def test_hard_routing_reads_each_sample_once(
    name: str, rows: list[int], benchmark: ModuleType
) -> None:
    arm = benchmark.ARMS[name](tiny(benchmark))
    seen: list[int] = []
    for teacher in arm.distiller.readers:
        teacher.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(len(args[0] if args else kwargs["input_ids"])),
            with_kwargs=True,
        )
    arm.step()
    assert seen == rows
    trained = [part.grad for part in arm.distiller.student.parameters()]
    assert any(part is not None and part.any() for part in trained)


def test_the_table_has_a_row_per_arm_and_the_ratio(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "SIZES", {"tiny": tiny(benchmark)})
    benchmark.main(["--rounds", "2"])
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:20].strip(): line[20:].split() for line in lines[3:7]}
    assert list(rows) == list(benchmark.ARMS)
    for cells in rows.values():
        milliseconds, ratio, least, _, most, share, _, mib = cells
        assert float(milliseconds) > 0
        assert float(least) <= float(ratio) <= float(most)
        assert 0 < float(share) < 100
        assert float(mib) >= 0
    assert rows["1 teacher"][1:5] == ["1.00", "1.00", "–", "1.00"]
    assert lines[7].startswith(f"hard routing among 4 ÷ 1 teacher: {rows['4 teachers, hard'][1]} (")


def test_ratios_are_medians_of_rounds(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    one = benchmark.Measured(seconds=[1.0, 2.0, 4.0], shares=[0.5] * 3, peak_bytes=2**20)
    hard = benchmark.Measured(seconds=[3.0, 3.0, 4.0], shares=[0.25] * 3, peak_bytes=2**21)
    assert benchmark.show({"1 teacher": one, "4 teachers, hard": hard}) == 1.5
    last = capsys.readouterr().out.splitlines()[-1]
    assert " ".join(last.split()) == "4 teachers, hard 3000.0 1.50 1.00 – 3.00 25 % 2.0"
