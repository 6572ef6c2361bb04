"""The table: every study's columns, in a terminal and on the page."""

from functools import partial
from pathlib import Path

import pytest

from demo.conftest import MakeLogs, MakeResults
from demo.test_report import Page
from kava.demo import pictures
from kava.demo.arms import MAIN, Study, eviction_study
from kava.demo.hetero import HETERO, JOINT, RANK
from kava.demo.rank_picture import accuracy_by_rank
from kava.demo.report import draw_pictures, render_report
from kava.demo.results import summarize
from kava.demo.story import story_of
from kava.demo.table import COLUMNS, note_of, text_table
from kava.pictures.drawn import Draw

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
    ("study", "arms"),
    [(HETERO, ["ce", "rank_8"]), (RANK, ["rank_1", "rank_4", "full"]), (JOINT, ["joint"])],
    ids=lambda value: value.name if isinstance(value, Study) else "",
)
def test_the_page_of_maps_shows_their_fit(
    study: Study, arms: list[str], tmp_path: Path, make_results: MakeResults, make_logs: MakeLogs
) -> None:
    results = make_results(
        {arm: [0.5, 0.6] for arm in arms}, measured={arm: MEASURED for arm in arms if arm != "ce"}
    )
    summaries = summarize(study.arms, results)
    logs = make_logs(results, study)
    draws: dict[str, Draw] = {
        "accuracy": partial(pictures.accuracy_by_arm, summaries),
        "losses": partial(pictures.kv_by_step, logs),
    }
    if study is RANK:
        draws["rank"] = partial(accuracy_by_rank, summaries)
    page = Page(
        render_report(
            study,
            summaries,
            draw_pictures(study, draws, tmp_path),
            verdict="v",
            command="kava demo --pair hetero",
            budget="b",
            versions={},
        )
    )
    head, *rows = page.tables["arms"]
    assert head[3:] == [column.head for column in COLUMNS[study.kind]]
    assert [row[3:7] for row in rows] == [
        ["–"] * 4 if arm == "ce" else ["17,024", "0.56", "0.0123", "0.3"] for arm in arms
    ]
    assert len(page.tables["runs"]) == 1 + 2 * len(arms)
    assert story_of(study).title in page.text
    assert "GPT-2" in page.text


@pytest.mark.parametrize("num_latents", [3, 5])
def test_the_eviction_story_speaks_of_its_latents(num_latents: int) -> None:
    story = story_of(eviction_study(num_latents))
    assert f"Which {num_latents} of 15 reasoning tokens" in story.title
    assert f"The student has {num_latents} latents" in story.question[1]
    assert ("fills the other 2 places" in story.question[1]) == (num_latents == 5)


def test_every_picture_of_a_study_has_its_words() -> None:
    maps = {"accuracy", "curves", "losses"}
    assert set(story_of(HETERO).captions) == {*maps, "layers", "heads", "time"}
    assert set(story_of(RANK).captions) == {*maps, "rank"}
    assert set(story_of(JOINT).captions) == maps
