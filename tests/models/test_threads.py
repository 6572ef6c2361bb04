"""Models that several threads load at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from kava.models.load import load_model


def test_threads_that_load_at_once_leave_weights_tied() -> None:
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(load_model, ["kava/shell-gpt2-teacher"] * 8))
    for model in [*models, load_model("kava/shell-gpt2-teacher")]:
        assert model.lm_head.weight is model.transformer.wte.weight
