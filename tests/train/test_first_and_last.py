"""What a run does first, before it loads models, and last, at its final step."""

import json
from pathlib import Path

import pytest

from kava.commands.train import train
from kava.train import models
from kava.train.config import TrainConfig
from kava.train.defaults import recipe_beneath


def config(tmp_path: Path, **settings: object) -> TrainConfig:
    values = {"model_name": "kava/tiny-gpt2", "output_dir": str(tmp_path / "run"), **settings}
    return TrainConfig(**values, no_progress=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset_name": "no/such.jsonl"}, "no/such.jsonl"),
        ({"target_len": 400}, "--target_len 400"),
        ({"teacher_name": "kava/shell-gpt2", "max_length": 9}, "--max_length 9"),
    ],
)
def test_what_can_be_told_without_models_is_told_before_they_are_loaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    message: str,
) -> None:
    def load_model(name: str, **options: object) -> None:
        raise AssertionError(f"{name} was loaded")

    monkeypatch.setattr(models, "load_model", load_model)
    with pytest.raises(ValueError, match=message):
        train(config(tmp_path, **settings))
    assert not (tmp_path / "run").exists()


def test_the_last_step_is_logged_whatever_logging_steps_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(tmp_path, dataset_name="kava/shell-game?num_train=6", batch_size=2, epochs=1)
    settings.logging_steps = 2
    train(settings)
    steps = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "CE=" in line]
    assert steps == ["Step 2", "Step 3"]
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    logged = [line["step"] for line in map(json.loads, metrics) if "kv" in line]
    assert logged == [2, 3]


@pytest.mark.parametrize(("steps", "warmup"), [(None, 100), (20, 4), (2000, 100), (0, 0)])
def test_the_recipe_of_the_game_warms_up_over_a_fifth_of_its_steps_at_most(
    steps: int | None, warmup: int
) -> None:
    given = {} if steps is None else {"max_steps": steps}
    assert recipe_beneath(given)[0]["warmup_steps"] == warmup
