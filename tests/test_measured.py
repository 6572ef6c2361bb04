"""Every measured number of the pages stands in docs/results/measured.json, and logs bear it out."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from kava.study.packed import unpacked
from measured import PageTable, numbers_of, tables_of

ROOT = Path(__file__).parent.parent
MEASURED: list[dict[str, Any]] = json.loads(
    (ROOT / "docs/results/measured.json").read_text(encoding="utf-8")
)
SUMMARIES = ("readme", "all")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "docs/results/README.md"]
NOT_MEASURED = {
    "flag", "name", "mode", "gold", "figure", "test", "plan", "term", "you want to", "page",
    "it begins with", "word", "seeds", "task", "kind", "quantity", "what differs",
    "runs are of two kinds", "under primary",
}  # fmt: skip
"""First heads of tables that explain or define; any other table with fractions is measured."""

SOURCES = {
    "make demo": ["docs/demo.md"],
    "kava demo --eviction": ["docs/demo.md", "docs/compression.md"],
    "kava demo --pair hetero": ["docs/heterogeneous.md"],
    "study run baselines": ["docs/results/baselines/report/report.md"],
    "study run flat_vs_structured": ["docs/results/flat_vs_structured/report/report.md"],
    "study run word_arms": ["docs/results/README.md"],
    "study run every_seed": ["docs/results/README.md"],
    "study run several_teachers": ["docs/results/several_teachers/report/report.md"],
    "false_positives": ["docs/statistics.md"],
    "benchmarks/coverage.py": ["docs/statistics.md"],
    "kava costs": ["docs/evaluation.md"],
    "compare_key_spaces": ["docs/rotation.md"],
    "benchmarks/step.py": ["docs/students.md"],
    "benchmarks/generate.py": ["docs/evaluation.md"],
    "benchmarks/compress.py": ["docs/compression.md"],
    "benchmarks/align.py": ["docs/alignment.md"],
    "benchmarks/calibrate.py": ["docs/calibration.md"],
    "benchmarks/tokens.py": ["docs/tokenizers.md"],
}
"""Command of a summary's row → the pages that hold what it printed."""


def entry(name: str) -> dict[str, Any]:
    (found,) = (one for one in MEASURED if one["name"] == name)
    return found


def of_page(one: dict[str, Any]) -> list[PageTable]:
    tables = tables_of((ROOT / one["page"]).read_text(encoding="utf-8"))
    heads = [tuple(table["columns"]) for table in one["tables"]]
    return [t for t in tables if t.heading == one["heading"] and t.head in heads]


@pytest.mark.parametrize("name", [one["name"] for one in MEASURED])
def test_a_table_holds_what_was_measured(name: str) -> None:
    one = entry(name)
    assert all(one[key] not in ("", None) for key in ("command", "seeds", "date", "page"))
    tables = of_page(one)
    assert len(tables) == len(one["tables"])
    for table, stored in zip(tables, one["tables"]):
        rows = {row[0]: [numbers_of(cell) for cell in row[1:]] for row in table.rows}
        assert rows == stored["rows"]


def test_every_measured_table_has_an_entry() -> None:
    known = {(one["page"], one["heading"], tuple(t["columns"])) for one in MEASURED
             for t in one["tables"]}  # fmt: skip
    missing = [
        (page.relative_to(ROOT).as_posix(), table.heading, table.head)
        for page in PAGES
        for table in tables_of(page.read_text(encoding="utf-8"))
        if is_measured(table)
        and (page.relative_to(ROOT).as_posix(), table.heading, table.head) not in known
    ]
    assert missing == [], "add them to docs/results/measured.json, with command, seeds and date"


def is_measured(table: PageTable) -> bool:
    """Whether its cells hold fractions or per cents of something that was run."""
    cells = [cell for row in table.rows for cell in row[1:]]
    numbers = [cell for cell in cells if re.search(r"\d\.\d|\d ?%", cell)]
    parameters = any("parameters for" in head for head in table.head)
    return table.head[0] not in NOT_MEASURED and len(numbers) > 3 and not parameters


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_summary_quotes_numbers_of_its_source(name: str) -> None:
    (table,) = of_page(entry(name))
    for what, result, command in table.rows:
        pages = [page for key, some in SOURCES.items() if key in command for page in some]
        assert pages, f"{command!r} has no page"
        texts = [without_summaries(page) for page in pages]
        known = [100 / 24, *(number for text in texts for number in numbers_of(text))]  # a guess
        for quoted in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?!\w)", result):
            digits = len(quoted.partition(".")[2])
            value = float(quoted.replace(",", ""))
            near = 0.5 * 10.0**-digits + 1e-9
            assert any(abs(number - value) <= near for number in known), (what, quoted, pages)


def without_summaries(page: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    return text.partition("## All measurements")[0].replace("|", " | ").replace(";", " ; ")


@pytest.mark.parametrize("name", [one["name"] for one in MEASURED if "logs" in one])
def test_a_study_quotes_its_logs(name: str) -> None:
    one = entry(name)
    folder = ROOT / one["logs"]
    report = (folder / "report/report.md").read_text(encoding="utf-8")
    arms = next(t for t in tables_of(report) if "verdict" in t.head)
    own = {row[0].split(" (")[0]: dict(zip(arms.head, row)) for row in arms.rows}
    means = {arm: numbers_of(row["right"])[0] for arm, row in own.items()}
    for row in of_page(one)[0].rows:
        names = [arm for arm in re.findall(r"\w+", row[0].partition(",")[0]) if arm in own]
        names += [arm for arm in own if re.search(rf"; {arm}\b", row[0])]
        assert names, row
        seeds = [share for arm in dict.fromkeys(names) for share in accuracies(folder, arm)]
        assert numbers_of(row[1]) == pytest.approx(seeds, abs=0.05)
        for arm in names[:1]:
            assert math.isclose(means[arm], sum(accuracies(folder, arm)) / len(
                accuracies(folder, arm)), abs_tol=0.0501)  # fmt: skip
            difference = numbers_of(own[arm]["difference"])
            if difference and numbers_of(row[2]):
                quoted = numbers_of(row[2])
                assert quoted[: len(difference)] == pytest.approx(
                    difference[: len(quoted)], abs=0.0501
                )
                assert own[arm]["verdict"] in row[2]


def accuracies(folder: Path, arm: str) -> list[float]:
    """Of the runs in their folders, in per cent."""
    with unpacked(folder) as there:
        runs = sorted((there / "runs" / arm).glob("seed-*/result.json"))
        return [100 * json.loads(run.read_text(encoding="utf-8"))["accuracy"] for run in runs]
