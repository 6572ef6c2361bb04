"""The page: its numbers are the results', and it needs nothing from outside."""

import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest

from demo.conftest import MakeLogs, MakeResults
from kava.demo.arms import EVICTION, MAIN
from kava.demo.kept import KeptTokens
from kava.demo.present import TELLERS, Finished
from kava.demo.report import Telling, draw_pictures, render_report
from kava.demo.results import Summary, summarize
from kava.demo.story import story_of
from kava.demo.strips import kept_tokens
from kava.demo.verdicts import main_expectations, main_verdict
from kava.pictures.theme import VARIABLES

VERSIONS = {"kava": "0.1.0", "torch": "2.13.0"}
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tables by id, as rows of the text of their cells; and every attribute."""

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
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        data = data.replace("\u00a0", " ")
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open) and "small" not in self.open:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def summaries(make_results: MakeResults, good: dict[str, list[float]]) -> list[Summary]:
    return summarize(MAIN.arms, make_results(good))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def html(folder: Path, summaries: list[Summary], make_logs: MakeLogs) -> str:
    logs = make_logs([r for s in summaries for r in s.results])
    told = TELLERS["main"](Finished([], logs, summaries, folder))
    return render_report(
        MAIN,
        summaries,
        draw_pictures(MAIN, told.draws, folder),
        told,
        command="kava demo --seeds 2",
        budget="1,500 steps",
        versions=VERSIONS,
    )


def test_the_table_of_arms_holds_the_summaries(html: str, summaries: list[Summary]) -> None:
    head, *rows = Page(html).tables["arms"]
    assert head[0] == "arm"
    assert rows == [
        [
            s.arm.name,
            f"{100 * s.accuracy:.1f} %",
            f"{100 * s.low:.1f} to {100 * s.high:.1f} %",
            f"{s.forward_passes:.1f}",
            f"{1000 * sum(r.seconds_per_answer for r in s.results) / len(s.results):.1f}",
            f"{sum(r.train_seconds for r in s.results) / len(s.results):.0f}",
        ]
        for s in summaries
    ]


def test_the_table_of_runs_holds_every_result(html: str, summaries: list[Summary]) -> None:
    _, *rows = Page(html).tables["runs"]
    assert rows == [
        [
            r.arm,
            str(r.seed),
            f"{100 * r.accuracy:.1f} %",
            f"{r.num_items:,}",
            f"{r.forward_passes:.1f}",
            f"{1000 * r.seconds_per_answer:.1f}",
            f"{r.train_seconds:.0f}",
        ]
        for s in summaries
        for r in s.results
    ]


def test_the_page_says_verdict_expectations_example_and_command(
    html: str, summaries: list[Summary]
) -> None:
    text = Page(html).text
    assert main_verdict(summaries) in text
    for expectation in main_expectations(summaries):
        assert str(expectation) in text
    assert "kava demo --seeds 2" in text
    assert "torch 2.13.0" in text
    example = re.search(r"Question(Cups abcd moves (?:\d{4} ){4}order \?)", text)
    assert example is not None
    for name in ("reading", "accuracy", "curves", "losses", "passes"):
        title, caption = story_of(MAIN).captions[name]
        assert title in text
        assert caption in text


def test_nothing_comes_from_outside(html: str) -> None:
    assert "http" not in html
    assert not re.search(r"@import|url\((?!#)|<script|<link|<iframe|//\w", html)
    for tag, name, value in Page(html).attributes:
        if name in ("src", "href", "data", "poster"):
            assert value.startswith("#"), (tag, name, value)


def test_references_inside_the_pictures_are_found_and_unique(html: str) -> None:
    ids = [value for _, name, value in Page(html).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r"url\(#([^)]+)\)", html)) | set(re.findall(r'href="#([^"]+)"', html))
    assert wanted
    assert wanted <= set(ids)


def test_pictures_take_their_colours_from_the_page(html: str) -> None:
    body = html[html.index("<body>") :]
    assert body.count("<svg") == 10  # five pictures, each wide and narrow
    assert not set(re.findall(r"#[0-9a-f]{6}\b", body))
    for variable in VARIABLES.values():
        assert len(re.findall(re.escape(variable) + r": #", html)) == 3  # light, dark, paper


def test_a_missed_expectation_looks_missed(
    make_results: MakeResults, good: dict[str, list[float]]
) -> None:
    bad = summarize(MAIN.arms, make_results(good | {"kv": [0.5, 0.5]}))
    told = Telling("v", expectations=main_expectations(bad))
    text = render_report(MAIN, bad, [], told, command="c", budget="b", versions={})
    assert re.findall(r'<li class="(\w+)"', text) == ["missed", "met", "met"]


def test_words_are_escaped(summaries: list[Summary]) -> None:
    text = render_report(
        MAIN, summaries, [], Telling("a < b & c"), command="kava demo --output_dir '<x>'",
        budget="b", versions={},
    )  # fmt: skip
    assert "a &lt; b &amp; c" in text
    assert "<x>" not in text


def test_pngs_are_written_and_small(html: str, folder: Path) -> None:
    for name in ("reading", "accuracy", "curves", "losses", "passes"):
        data = (folder / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) < 150_000


def test_the_eviction_page_shows_what_was_kept(tmp_path: Path, make_results: MakeResults) -> None:
    results = make_results({"positions": [0.9, 0.8], "random": [0.04, 0.05]})
    summaries, rules = summarize(EVICTION.arms, results), ("positions", "random")
    shares = [1.0 if place % 5 == 3 else 0.0 for place in range(15)]
    words = ["abcd", "1243", ">", "abdc", ";"] * 3
    kept = KeptTokens(
        tokens=[words] * 3,
        examples={rule: [shares] * 3 for rule in rules},
        frequency=dict.fromkeys(rules, shares),
        results=[3, 8, 13],
        num_problems=200,
        teacher={"accuracy": 1.0, "num_items": 200, "forward_passes": 18.0},
    )
    draws = {"kept": partial(kept_tokens, kept)}
    html = render_report(
        EVICTION,
        summaries,
        draw_pictures(EVICTION, draws, tmp_path),
        Telling("v", reference="The teacher writes."),
        command="kava demo --eviction",
        budget="b",
        versions=VERSIONS,
    )
    page = Page(html)
    assert [row[0] for row in page.tables["arms"][1:]] == ["positions", "random"]
    assert "steps ?" in page.text
    assert "The teacher writes." in page.text
    assert "Kept in 200 problems" in html
    assert "Problem 3" in html
