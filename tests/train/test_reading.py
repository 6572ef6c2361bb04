"""The terms that keep reading alive, and the diagnosis of what a student can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import distiller_and_batch, metrics, run, small
from test_objective import assert_same, gradients, ragged

from kava.losses import TrainingProgress
from kava.train.defaults import adopt
from kava.train.items import count_items
from kava.train.reading import READINGS, gradient_shares

TEACHER: dict[str, Any] = {"teacher_name": "kava/shell-teacher"}


def test_the_term_is_on_where_another_checkpoint_teaches_latents() -> None:
    assert small(**TEACHER).text_ce_weight == 1.0
    for changes in (
        {},
        {**TEACHER, "student": "explicit"},
        {**TEACHER, "kv_weight": 0.0},
        {**TEACHER, "text_ce_weight": 0.0},
        {**TEACHER, "target_len": 0, "kv_weight": 0.0, "codi_weight": 1.0},
    ):
        assert small(**changes).text_ce_weight == 0.0, changes


def test_a_run_from_before_the_flag_goes_on_without_the_term() -> None:
    config = small(**TEACHER)
    adopt(config, {"target_len": 3})
    assert config.text_ce_weight == 0.0


@pytest.mark.parametrize("term", ["text_ce", "inject_ce"])
def test_each_term_is_what_its_weight_adds_to_the_gradient(term: str) -> None:
    """The gradient with the term is the sum of that without it and its own."""
    flag = {"text_ce": "text_ce_weight", "inject_ce": "inject_weight"}[term]

    def of(**changes: Any) -> dict[str, torch.Tensor]:
        options = {"text_ce_weight": 0.0, **TEACHER, **changes}
        distiller, batch = distiller_and_batch(small(**options))
        forward = distiller.eval()(batch)
        assert (term in forward.metrics) is (flag in changes)
        forward.loss.backward()
        return gradients(distiller)

    without, once, twice = of(), of(**{flag: 1.0}), of(**{flag: 2.0})
    grown = [name for name in without if not torch.allclose(once[name], without[name])]
    assert grown
    expected = {name: 2 * once[name] - without[name] for name in without}
    assert_same(twice, expected, tolerance=1e-3)


@pytest.mark.parametrize("size", [1, 3])
def test_the_terms_do_not_depend_on_the_batchs_split(tmp_path: Path, size: int) -> None:
    changes = {**TEACHER, "dataset_name": ragged(tmp_path), "keep_short": True, "eval_size": 0}
    changes |= {"model_name": "kava/tiny-gpt2", "teacher_name": "kava/tiny-gpt2"}
    changes |= {"inject_weight": 0.5, "target_len": 6, "max_length": 256, "kv_method": "rkv"}
    whole, batch = distiller_and_batch(small(**changes), 4)
    counts = torch.tensor(count_items(batch, whole.settings)).float()
    whole.eval()(batch).loss.backward()
    parts, _ = distiller_and_batch(small(**changes), 4)
    from kava.data.collate import Collator
    from kava.train.data import load_data
    from kava.train.models import build_tokenizer

    tokenizer = build_tokenizer(parts.settings)
    samples = load_data(parts.settings, tokenizer, None).train
    collate = Collator(tokenizer.pad_token_id)  # type: ignore[arg-type]
    parts.eval()
    for start in range(0, 4, size):
        parts(collate(samples[start : start + size]), counts).loss.backward()
    assert_same(gradients(parts), gradients(whole), tolerance=1e-4)


def test_weights_follow_their_schedules() -> None:
    changes = {**TEACHER, "ce_warmup": 10, "inject_weight": 1.0, "inject_steps": 20}
    distiller, batch = distiller_and_batch(small(text_ce_steps=40, max_steps=100, **changes))
    distiller.eval()

    def weighted(step: int) -> dict[str, float]:
        distiller.progress = TrainingProgress(step, 100)
        return {name: float(term.detach()) for name, term in distiller(batch).weighted.items()}

    at = {step: weighted(step) for step in (0, 9, 15, 30, 40)}
    assert at[0]["ce"] == pytest.approx(0.1 * at[9]["ce"])
    assert at[15]["ce"] == pytest.approx(at[9]["ce"])
    assert at[15]["inject_ce"] == pytest.approx(0.5 * at[0]["inject_ce"])
    assert at[30]["text_ce"] == pytest.approx(0.5 * at[0]["text_ce"])
    assert "inject_ce" not in at[30]
    assert "text_ce" not in at[40]


def test_a_faded_term_costs_no_pass() -> None:
    distiller, batch = distiller_and_batch(small(text_ce_steps=4, **TEACHER))
    passes: list[int] = []
    distiller.base.register_forward_hook(lambda *_: passes.append(1))

    def count(step: int) -> int:
        distiller.progress = TrainingProgress(step, 100)
        passes.clear()
        distiller(batch)
        return len(passes)

    assert count(0) == count(4) + 1


def test_forced_latents_do_not_train_the_target() -> None:
    changes = {**TEACHER, "inject_weight": 1.0, "ce_weight": 0.0, "text_ce_weight": 0.0}
    distiller, batch = distiller_and_batch(small(**changes))
    forward = distiller(batch)
    forward.weighted["inject_ce"].backward()
    assert distiller.teacher is not None
    assert all(p.grad is None for p in distiller.teacher.parameters())
    assert gradients(distiller)


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        pytest.param(TEACHER, set(READINGS), id="teacher"),
        pytest.param({}, set(READINGS), id="self"),
        pytest.param(
            {"teacher_ce_weight": 0.0, "kv_weight": 0.0},
            {"written", "latents", "wrong_sample"},
            id="answers alone",
        ),
        pytest.param(
            {"teacher_ce_weight": 0.0, "kv_weight": 0.0, "target_len": 0},
            {"written", "latents"},
            id="no latents",
        ),
        pytest.param(
            {**TEACHER, "alignment_mode": "structured", "align_direction": "student_to_teacher"},
            {"written", "latents", "wrong_sample"},
            id="compared in the teacher's geometry",
        ),
        pytest.param({**TEACHER, "student": "explicit"}, set(), id="explicit"),
    ],
)
def test_what_is_read_is_counted_at_every_evaluation(
    tmp_path: Path, changes: dict[str, Any], asked: set[str]
) -> None:
    config = small(tmp_path, eval_size=5, eval_batch_size=3, eval_steps=2, **changes)
    rows = run(config).trainer.state.log_history
    found = [row for row in rows if "eval_ce" in row]
    assert found
    for row in found:
        readings = {n.removeprefix("eval_reading_") for n in row if n.startswith("eval_reading_")}
        assert readings == asked
        shares = [value for name, value in row.items() if name.startswith("eval_gradient_")]
        assert sum(shares) == pytest.approx(1.0, abs=1e-4)
    assert metrics(tmp_path)


def test_a_trained_teacher_reads_its_own_text_and_the_target() -> None:
    """In self-distillation the built-in teacher reads its text; its latents hold nothing yet."""
    changes = {"model_name": "kava/shell-teacher", "max_length": 64}
    distiller, batch = distiller_and_batch(small(**changes), 32)
    reading = distiller.eval()(batch, diagnose=True).reading
    assert reading.written.float().mean() > 0.95
    assert reading.latents.float().mean() < 0.3


def test_shares_of_the_gradient_are_norms() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    terms = {
        "ce": (3 * weight[0] + 4 * weight[1]),
        "kv": 15 * weight[0],
        "off": torch.tensor(1.0),
    }
    shares = gradient_shares(terms, [weight])
    assert shares == pytest.approx({"ce": 0.25, "kv": 0.75, "off": 0.0})


REFUSED = [
    ({"student": "explicit", **TEACHER, "text_ce_weight": 1.0}, "--text_ce_weight 1"),
    ({"student": "explicit", **TEACHER, "inject_weight": 1.0}, "--inject_weight 1"),
    ({"text_ce_steps": 3}, "--text_ce_steps 3"),
    ({"inject_steps": 3}, "--inject_steps 3"),
    ({**TEACHER, "inject_weight": 1.0, "kv_weight": 0.0}, "--inject_weight 1"),
    (
        {
            **TEACHER,
            "inject_weight": 1.0,
            "alignment_mode": "structured",
            "align_direction": "student_to_teacher",
        },
        "--align_direction student_to_teacher",
    ),
    ({"ce_warmup": 5}, "--ce_warmup 5"),
    ({"ce_warmup": -1}, "ce_warmup"),
]


@pytest.mark.parametrize(("changes", "named"), REFUSED)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        small(**changes)


ALONE = {"teacher_ce_weight": 0.0, "kv_weight": 0.0}


@pytest.mark.parametrize("changes", [TEACHER, ALONE], ids=["caches are matched", "no cache"])
def test_the_guard_names_the_broken_link_and_remembers_it(
    tmp_path: Path, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    config = small(tmp_path, eval_size=8, eval_steps=2, **changes)
    run(config)
    said = capsys.readouterr().out
    sentence = "the student does not read reasoning: answers right from written reasoning"
    assert sentence in said.split("guard: ")[-1]
    run(small(tmp_path, eval_size=8, eval_steps=2, resume=True, **changes))
    assert sentence in capsys.readouterr().out.split("guard: ")[-1]


def test_reading_that_an_earlier_evaluation_had_is_said_to_be_lost(tmp_path: Path) -> None:
    trainer = run(small(tmp_path, eval_size=8, eval_steps=4, **ALONE)).trainer
    rows = trainer.state.log_history
    (last,) = (row for row in rows if "eval_reading_written" in row)
    trainer.state.log_history = [{"step": 2, "eval_reading_written": 0.9}]
    trainer.guard.judge(dict(last), trainer.state)
    assert trainer.guard.last_word().startswith("the student no longer reads reasoning")
