"""The table: every study's columns, in a terminal and on the page."""

from pathlib import Path

import pytest

from demo.conftest import MakeLogs, MakeResults
from demo.test_report import Page
from kava.demo.arms import MAIN, Demo, eviction_demo
from kava.demo.hetero import HETERO, JOINT, RANK
from kava.demo.present import TELLERS, Finished
from kava.demo.report import draw_pictures, render_report
from kava.demo.results import summarize
from kava.demo.story import story_of
from kava.demo.table import columns_of, note_of, text_table

MEASURED = {
    "aligner_parameters": 17024, "r_squared": 0.5612, "kv": 0.0123456, "kv_wrong_sample": 0.3,
}  # fmt: skip


def test_the_maps_stand_in_the_table_with_their_fit(make_results: MakeResults) -> None:
    results = make_results({"ce": [0.04], "rank_8": [1.0, 0.99]}, measured={"rank_8": MEASURED})
    text = text_table("maps", summarize(HETERO.arms, results))
    head, _, ce, rank_8 = text.splitlines()
    assert " ".join(head.split()).endswith("parameters R² KV loss wrong sample train s")
    assert ce.split()[-5:] == ["–", "–", "–", "–", "41"]
    assert rank_8.split()[-5:] == ["17,024", "0.56", "0.0123", "0.3", "42"]


def test_what_an_answer_costs_stands_where_students_differ_in_it(
    make_results: MakeResults,
) -> None:
    text = text_table("main", summarize(MAIN.arms, make_results({"kv": [1.0]})))
    head, _, kv = text.splitlines()
    assert head.split()[-4:] == ["passes", "ms", "train", "s"]
    assert kv.split()[-3:] == ["3.0", "3.1", "41"]
    assert "Passes and milliseconds" in note_of("main")
    assert "Passes" not in note_of("joint")


@pytest.mark.parametrize(
    ("demo", "arms"),
    [(HETERO, ["ce", "rank_8"]), (RANK, ["rank_1", "rank_4", "full"]), (JOINT, ["joint"])],
    ids=lambda value: value.name if isinstance(value, Demo) else "",
)
def test_the_page_of_maps_shows_their_fit(
    demo: Demo, arms: list[str], tmp_path: Path, make_results: MakeResults, make_logs: MakeLogs
) -> None:
    results = make_results(
        {arm: [0.5, 0.6] for arm in arms}, measured={arm: MEASURED for arm in arms if arm != "ce"}
    )
    summaries = summarize(demo.arms, results)
    told = TELLERS[demo.kind](Finished([], make_logs(results, demo), summaries, tmp_path))
    page = Page(
        render_report(
            demo,
            summaries,
            draw_pictures(demo, told.draws, tmp_path),
            told,
            command="kava demo --pair hetero",
            budget="b",
            versions={},
        )
    )
    head, *rows = page.tables["arms"]
    assert head[3:] == [column.head for column in columns_of(demo.kind)]
    assert [row[3:7] for row in rows] == [
        ["–"] * 4 if arm == "ce" else ["17,024", "0.56", "0.0123", "0.3"] for arm in arms
    ]
    assert len(page.tables["runs"]) == 1 + 2 * len(arms)
    assert demo.question in page.text
    assert "GPT-2" in page.text


@pytest.mark.parametrize("num_latents", [3, 5])
def test_the_eviction_story_speaks_of_its_latents(num_latents: int) -> None:
    demo = eviction_demo(num_latents)
    story = story_of(demo)
    assert f"Which {num_latents} of 15 reasoning tokens" in demo.question
    assert f"The student has {num_latents} latents" in story.question[1]
    assert ("fills the other 2 places" in story.question[1]) == (num_latents == 5)


def test_every_picture_of_a_study_has_its_words() -> None:
    maps = {"reading", "accuracy", "curves", "losses"}
    assert set(story_of(HETERO).captions) == {*maps, "layers", "heads", "time"}
    assert set(story_of(RANK).captions) == {*maps, "rank"}
    assert set(story_of(JOINT).captions) == maps
