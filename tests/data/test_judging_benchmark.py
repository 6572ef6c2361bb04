"""The judge against published labels and all gold answers, as benchmarks/judging.py counts them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from conftest import ROOT
from kava.data.records import Record, Template


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = ROOT / "benchmarks/judging.py"
    spec = importlib.util.spec_from_file_location("benchmark_judging", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_answer_that_its_text_does_not_give_is_counted(benchmark: ModuleType) -> None:
    record = Record(id="a", question="1+1?", reasoning="1+1=2", answer="2")
    assert benchmark.is_right(record, Template())
    tempting = Record(id="b", question="1+1?", reasoning="#### 3\nno", answer="2")
    assert not benchmark.is_right(tempting, Template())
    counts = [benchmark.Count("one", 3, 4, ["b"]), benchmark.Count("other", 5, 5, [])]
    last = benchmark.table("sets", counts, "wrong").splitlines()[-1]
    assert last.split() == ["together", "8", "9", "1"]


@pytest.mark.shared
def test_the_published_labels_of_four_models(benchmark: ModuleType, shared: Path) -> None:
    found = list(benchmark.count_labels(shared))
    assert [count.name for count in found] == list(benchmark.MODELS)
    assert [count.right for count in found] == [286, 515, 458, 742]
    assert sum(count.total for count in found) == 5276
    assert [count.disagreeing for count in found] == [[]] * 4


@pytest.mark.shared
@pytest.mark.slow
def test_every_gold_answer_judges_itself_right(
    benchmark: ModuleType, shared: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["judging.py", "--shared", str(shared)])
    assert benchmark.main() == 0
    lines = capsys.readouterr().out.splitlines()
    gsm8k, shell = (next(line for line in lines if line.startswith(name)).split()[-3:]
                    for name in ("gsm8k train", "kava/shell-game test"))  # fmt: skip
    assert (gsm8k, shell) == (["7473", "7473", "0"], ["1000", "1000", "0"])
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    assert "\n".join(lines) in page
