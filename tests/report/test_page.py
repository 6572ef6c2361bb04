"""The page and its Markdown: their numbers are the logs', and they need nothing from outside."""

from __future__ import annotations

import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from subprocess import run

import pytest

from kava.format import percent
from kava.report import judge, load_study, write_report
from kava.report.tables import steps_table
from report.made_up import write_study

VOID = {"meta", "br", "img", "link", "input", "hr", "path", "use", "rect"}


class Page(HTMLParser):
    """Tables by id, as rows of cells; the text outside pictures; all attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows = self.tables.setdefault(dict(attrs)["id"] or "", [])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        data = data.replace("\u00a0", " ")
        if not {"style", "svg"} & set(self.open):
            self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += (" " if "small" in self.open else "") + data


def test_the_table_of_arms_holds_what_the_logs_hold(won: Path, page: Path) -> None:
    head, *rows = Page(page.read_text()).tables["arms"]
    study = load_study(won)
    judgement = judge(study)
    cells = {row[0].split()[0]: dict(zip(head, row)) for row in rows}
    for arm in study.arms:
        own = cells[arm.name]
        assert own["right"].startswith(f"{100 * arm.accuracy:.1f} %")
        assert own["seeds"].split() == [f"{100 * share:.1f}" for share in arm.accuracies]
    for one in judgement.compared:
        own = cells[one.arm.name]
        assert own["difference"].startswith(
            f"{100 * one.comparison.difference:+.1f}".replace("-", "−")
        )
        assert own["verdict"] == one.verdict.kind


def test_right_answers_are_told_by_written_steps_where_items_count_them(
    tmp_path: Path, won: Path
) -> None:
    abilities = {"flat": 0.4, "per_head": 0.9, "wrong": 0.3}
    folder = write_study(tmp_path / "graded", abilities, num_steps=(2, 3, 3))
    study = load_study(folder)
    table = steps_table(study)
    assert table is not None
    assert table.head == ("arm", "2 steps (67)", "3 steps (133)")
    assert [row[0].text for row in table.rows] == [*abilities]
    for arm, (_, two, three) in zip(study.arms, table.rows):
        runs = [list(run.correct.values()) for run in arm.finished]
        right = [[answers[i] for i in range(200) if i % 3] for answers in runs]
        assert three.text == percent(sum(map(sum, right)) / (133 * len(runs)))
        assert two.text != three.text
    assert steps_table(load_study(won)) is None
    assert "Right answers by written steps" in write_report(folder).read_text()


def test_what_answers_are_read_from_is_the_first_picture_and_a_table(won: Path, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.index("What the answer can be read from") < text.index("Right answers by arm")
    table = Page(text).tables["reading"]
    assert table[0][1:] == [
        "written reasoning", "the target", "the latents", "another sample's latents",
    ]  # fmt: skip
    by_arm = {row[0].split()[0]: row[1:] for row in table[1:]}
    arms = {arm.name: arm for arm in load_study(won).arms}
    for name, cells in by_arm.items():
        last = [run.curve("eval_reading_latents")[1][-1] for run in arms[name].finished]
        assert cells[2] == percent(sum(last) / len(last))
        cached = arms[name].has("eval_kv")
        assert (cells[1] == "90.0 %", cells[3] == "5.0 %") == (cached, cached)
    assert len(by_arm) > 2


def test_the_verdict_comes_first_and_in_words(won: Path, page: Path) -> None:
    text = Page(page.read_text()).text
    judgement = judge(load_study(won))
    headline = judgement.headline.replace("`", "")
    assert headline in text
    assert text.index(headline) < text.index("Right answers by arm")
    places = [
        text.index(title)
        for title in (
            "Right answers by arm", "Right answers while training", "Comparisons with the controls",
            "Which of the teacher's layers", "Gradient norm", "Budget and cost\n",
            "Power, and other tests", "The plan\n",
        )
    ]  # fmt: skip
    assert places == sorted(places)


def test_the_page_is_whole_in_itself(page: Path) -> None:
    html = page.read_text()
    attributes = Page(html).attributes
    for tag, name, value in attributes:
        if name in ("src", "href"):
            assert value.startswith(("#", "data:")), (tag, value)
    assert "<script" not in html
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert any("default-src 'none'" in value for _, _, value in attributes)
    assert all(dict_ in html for dict_ in ("prefers-color-scheme: dark", "@media print"))


def test_every_table_head_has_a_scope_and_every_picture_words(page: Path) -> None:
    html = page.read_text()
    assert not re.search(r"<th(?![^>]*scope=)[ >]", html)
    pictures = re.findall(r'<div class="(?:wide|narrow)"[^>]*>', html)
    assert pictures
    assert all('role="img" aria-label="' in picture for picture in pictures)


def test_the_markdown_has_the_same_cells(page: Path) -> None:
    markdown = (page.parent / "report.md").read_text()
    for name, rows in Page(page.read_text()).tables.items():
        for row in rows[1:]:
            texts = [re.sub(r"[()]", "", cell).split() for cell in row]
            assert any(
                [re.sub(r"[()]", "", cell).split() for cell in line.strip("|").split("|")] == texts
                for line in markdown.splitlines()
                if line.startswith("| ")
            ), (name, row)
    for picture in re.findall(r"\]\((pictures/[^)]*)\)", markdown):
        assert (page.parent / picture).is_file()
        assert (page.parent / picture).with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_a_study_under_way_has_a_page_without_a_verdict(tmp_path: Path) -> None:
    folder = write_study(tmp_path, {"flat": 0.5, "per_head": 0.9, "wrong": 0.3}, seeds=range(2))
    for run_folder in ("wrong/seed-0", "wrong/seed-1", "per_head/seed-1"):
        shutil.rmtree(folder / "runs" / run_folder)
    text = Page(write_report(folder).read_text()).text
    assert "No verdict yet: 3 of 6 runs are finished." in text
    assert "Not begun: per_head/seed-1, wrong/seed-0 and wrong/seed-1." in text
    assert "better" not in text.split("Right answers by arm")[0].replace("student better than", "")


def test_a_study_without_any_run_has_a_page(tmp_path: Path) -> None:
    folder = write_study(tmp_path, {"flat": 0.5, "per_head": 0.9, "wrong": 0.3}, seeds=range(2))
    shutil.rmtree(folder / "runs")
    assert "0 of 6 runs" in write_report(folder).read_text()


def test_damage_leaves_the_old_report_as_it_was(won: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(won, tmp_path / "study", dirs_exist_ok=True))
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report/index.html").write_text("old")
    (folder / "runs/flat/seed-0/items.jsonl").unlink()
    with pytest.raises(ValueError, match=r"items\.jsonl is missing"):
        write_report(folder)
    assert (folder / "report/index.html").read_text() == "old"
    assert [path.name for path in folder.glob(".report*")] == []


def test_a_folder_of_other_things_is_not_replaced(won: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="something other than a report"):
        write_report(won, tmp_path)
    assert (tmp_path / "thesis.tex").is_file()


def test_the_report_needs_no_torch() -> None:
    program = "import kava.report, kava.report.sections, kava.statistics, sys; print(*sys.modules)"
    done = run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()
