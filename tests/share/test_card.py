"""The model card: its numbers are those of the logs, and what they lack is said to be absent."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from kava.format import percent, percents
from kava.names import given
from kava.share.card import model_card
from kava.share.facts import Facts, facts_of
from kava.share.licences import licence_of
from kava.statistics.intervals import wilson
from kava.train.config import TrainConfig
from kava.train.flags import parse_config


def card_of(facts: Facts, licences: dict[str, str | None] | None = None) -> str:
    return model_card(
        facts,
        name="me/mine",
        licences=licences or {},
        dtype="float32",
        command="kava export x",
    )


def test_the_numbers_are_those_of_the_log(runs: Path) -> None:
    (checkpoint,) = (runs / "latent").glob("checkpoint-*")
    facts = facts_of(checkpoint)
    lines = (runs / "latent/metrics.jsonl").read_text().splitlines()
    (row,) = [line for line in map(json.loads, lines) if "eval_accuracy" in line]
    assert row["eval_num_items"] == 8
    card = card_of(facts)
    low, high = wilson(round(8 * row["eval_accuracy"]), 8)
    assert (
        f"| right answers | {percent(row['eval_accuracy'])} of 8 questions (95 % Wilson interval "
        f"{percents(low, high)}) |"
    ) in card
    assert f"| KV loss with the question's own target | {row['eval_kv']:.4g} |" in card
    assert f"| KV loss with another question's target | {row['eval_kv_wrong_sample']:.4g} |" in card
    for name, what in (("written", "the written chain of thought"), ("latents", "the latents")):
        assert f"| {what} | {percent(row[f'eval_reading_{name}'])} |" in card
    verdict = json.loads((checkpoint / "recording.json").read_text())["verdict"]
    assert f"The collapse guard's verdict: {verdict['sentence']}; " in card
    settings = json.loads((checkpoint / "kava.json").read_text())
    assert f"| hash of the training records | `{settings['data_hash']}` |" in card
    assert "| teacher | `kava/shell-teacher` |" in card
    assert "| student's base | `kava/shell-llama`, latent |" in card
    assert "| losses and their weights | CE 1, KV 1, textCE 1 |" in card
    assert "| steps | 2 |" in card


def test_the_command_of_the_card_is_the_run_again(runs: Path) -> None:
    (checkpoint,) = (runs / "explicit").glob("checkpoint-*")
    facts = facts_of(checkpoint)
    assert facts.command is not None
    program, name, *argv = shlex.split(facts.command)
    assert (program, name) == ("kava", "train")
    again = asdict(parse_config(argv))
    assert {n: v for n, v in again.items() if facts.config[n] != v} == {"device": "auto"} | {
        "no_progress": False
    }


def test_the_header_is_one_that_the_hub_reads() -> None:
    config = asdict(TrainConfig(model_name="gpt2", teacher_name="gpt2-medium", target_len=4))
    facts = Facts(student="latent", config=config, step=10)
    card = ModelCard(card_of(facts, licences={"gpt2": "MIT", "gpt2-medium": None}))
    assert card.data.license == "mit"
    assert card.data.base_model == "gpt2"
    assert card.data.library_name == "kava"
    assert "| student's base `gpt2` | MIT |" in card.text
    assert "| teacher `gpt2-medium` | not stated |" in card.text
    assert "me/mine" in card.text
    explicit = ModelCard(card_of(replace(facts, student="explicit")))
    assert explicit.data.library_name == "transformers"
    assert explicit.data.license is None


def test_what_the_logs_lack_is_said() -> None:
    config = asdict(TrainConfig(model_name="gpt2"))
    card = card_of(Facts(student="latent", config=config, step=10))
    assert "Not measured: the logs of the run hold no evaluation." in card
    assert "target | not measured: nothing was held out |" in card
    assert "read from: not measured." in card
    assert "verdict: not recorded." in card
    assert "| hash of the training records | `not recorded` |" in card
    assert "| teacher | itself (self-distillation) |" in card
    row = {"step": 10, "eval_ce": 1.5, "eval_accuracy": 0.5}
    old = card_of(Facts(student="explicit", config=config, evaluation=row))
    assert "50.0 % (no interval: the number of questions is not recorded)" in old
    unasked = card_of(
        Facts(student="explicit", config=config, evaluation={"step": 1, "eval_ce": 1})
    )
    assert "| right answers | not measured |" in unasked
    bare = card_of(Facts(student="latent"))
    assert "| settings | not recorded |" in bare
    assert "an unknown number of latent tokens" in bare


def test_several_teachers_and_objects_are_named() -> None:
    config = asdict(TrainConfig(teachers=["a=gpt2", "b=org/other"], kv_method="uniform"))
    card = card_of(Facts(student="latent", config=config))
    assert "| teacher | `gpt2`, `org/other`; fusion: fixed |" in card
    config = asdict(TrainConfig(model_name=given("gpt2")))
    facts = Facts(student="latent", config=config)
    assert facts.command is None
    assert "# trained in Python, with objects that no command line names" in card_of(facts)


CARD = "---\nlicense: {}\n---\n# A model\n"


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (CARD.format("apache-2.0"), "apache-2.0"),
        (CARD.format("other\nlicense_name: gemma"), "gemma"),
        (CARD.format(""), None),
        ("# no header", None),
        ("---\nlicense: [\n---\n", None),
        (None, None),
    ],
)
def test_a_licence_is_what_the_card_of_a_folder_states(
    text: str | None, licence: str | None, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert licence_of(str(tmp_path)) == licence


def test_other_models_state_what_is_known_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert licence_of("kava/shell-teacher") == "Apache-2.0"
    assert licence_of("no/such-model") is None
    assert licence_of("no such / model ?") is None

    class Info:
        card_data = {"license": "mit"}  # noqa: RUF012

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda self, name: Info)
    assert licence_of("no/such-model", ask_hub=True) == "mit"
    assert licence_of("no/such-model") is None
