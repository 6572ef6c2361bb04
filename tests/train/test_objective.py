"""The objective: what it trains, what it leaves alone, and that nothing but the data moves it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import distiller_and_batch, rows, small, weights
from torch import Tensor

from kava.data.collate import IGNORED, Batch
from kava.eviction import EVICTIONS
from kava.losses import KV_LOSSES
from kava.train.config import TrainConfig
from kava.train.items import count_items

TEACHER = {"teacher_name": "kava/shell-teacher"}
KINDS = [
    pytest.param({}, id="self"),
    pytest.param(TEACHER, id="teacher"),
    pytest.param({**TEACHER, "decoding": "jacobi", "jacobi_iterations": 2}, id="jacobi"),
    pytest.param({**TEACHER, "student": "explicit"}, id="explicit"),
]


def ragged(tmp_path: Path) -> str:
    """A data set whose prompts, reasoning and answers differ in length."""
    file = tmp_path / "ragged.jsonl"
    lines = [
        ("How many?", "1 + 1 = 2\nso two\nend", "2"),
        (
            "A much longer question, is it not?",
            "first\nsecond step of it\nthird\nfourth",
            "yes, 12",
        ),
        ("Why", "because of this\nand that\nend", "no"),
        ("What is the third one of these?", "one\ntwo three four five\nend", "five hundred"),
    ]
    rows_ = [{"question": q, "reasoning": r, "answer": a} for q, r, a in lines]
    file.write_text("\n".join(map(json.dumps, rows_)), encoding="utf-8")
    return str(file)


def gradients(distiller: torch.nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in distiller.named_parameters() if p.grad is not None}


def assert_same(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 1e-5
) -> None:
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        scale = gradient.abs().max().clamp(min=1e-3)
        assert (ours[name] - gradient).abs().max() / scale < tolerance, name


@pytest.mark.parametrize("options", KINDS)
def test_a_kv_only_step_trains_the_student_and_leaves_the_teacher(
    options: dict[str, Any],
) -> None:
    if options.get("teacher_name") is None:
        options = {**options, "teacher_ce_weight": 0.0}
    distiller, batch = distiller_and_batch(small(ce_weight=0.0, kv_weight=1.0, **options))
    before = weights(distiller.student)
    teacher = None if distiller.teacher is None else weights(distiller.teacher)
    distiller.train()
    forward = distiller(batch)
    forward.loss.backward()
    torch.optim.SGD([p for p in distiller.parameters() if p.requires_grad], lr=0.1).step()
    after = weights(distiller.student)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert any("k_proj" in name for name in changed)
    assert any("v_proj" in name for name in changed)
    if distiller.teacher is not None and teacher is not None:
        assert all(p.grad is None for p in distiller.teacher.parameters())
        for name, part in weights(distiller.teacher).items():
            assert torch.equal(part, teacher[name]), name


def test_in_self_distillation_the_target_carries_no_gradient() -> None:
    """The KV loss alone must not move the pass that wrote the target."""
    config = small(ce_weight=0.0, teacher_ce_weight=0.0)
    distiller, batch = distiller_and_batch(config)
    target = distiller(batch).target
    assert target is not None
    assert not target.trace.keys.requires_grad
    assert not target.trace.values.requires_grad


@pytest.mark.parametrize("options", KINDS)
def test_the_gradient_of_a_batch_is_the_sum_of_its_parts(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """Ragged samples, one by one and in twos: each term is divided by its own count."""
    codi = {} if options.get("student") == "explicit" else {"codi_weight": 1.0}
    name = "kava/tiny-llama"
    options = {**options, **({"teacher_name": name} if "teacher_name" in options else {})}
    config = small(
        model_name=name, dataset_name=ragged(tmp_path), max_length=256, **codi, **options
    )
    distiller, batch = distiller_and_batch(config, size=4)
    distiller(batch).loss.backward()
    whole = gradients(distiller)
    counts = torch.tensor(count_items(batch, config)).float()
    for parts in ([slice(0, 1), slice(1, 4)], [slice(0, 2), slice(2, 3), slice(3, 4)]):
        distiller.zero_grad()
        for part in parts:
            distiller(rows(batch, part), counts).loss.backward()
        assert_same(gradients(distiller), whole)


@pytest.mark.parametrize("options", KINDS)
def test_padding_changes_nothing(options: dict[str, Any], tmp_path: Path) -> None:
    name = "kava/tiny-qwen2"
    options = {**options, **({"teacher_name": name} if "teacher_name" in options else {})}
    config = small(model_name=name, dataset_name=ragged(tmp_path), max_length=256, **options)
    distiller, batch = distiller_and_batch(config, size=4)
    alone, _ = distiller(rows(batch, slice(2, 3))).loss, None
    wide = rows(batch, slice(2, 3))
    changed = Batch(**wide)  # type: ignore[typeddict-item]
    noise = torch.randint_like(wide["input_ids"], 1, 90)
    changed["input_ids"] = torch.where(wide["attention_mask"] == 1, wide["input_ids"], noise)
    changed["prompt_ids"] = changed["input_ids"][:, : wide["prompt_ids"].shape[1]]
    changed["answer_ids"] = torch.where(
        wide["answer_mask"] == 1, wide["answer_ids"], torch.randint_like(wide["answer_ids"], 1, 90)
    )
    assert (changed["input_ids"] != wide["input_ids"]).any()
    torch.testing.assert_close(distiller(changed).loss, alone)
    assert (wide["labels"] != IGNORED).sum() < wide["attention_mask"].sum()


def test_a_shared_prompt_gives_the_gradients_of_two_readings() -> None:
    config = small(codi_weight=1.0, model_name="kava/shell-teacher")
    distiller, batch = distiller_and_batch(config)
    distiller.double()
    distiller(batch).loss.backward()
    shared = gradients(distiller)
    distiller.zero_grad()
    separate = Batch(**batch)  # type: ignore[typeddict-item]
    separate["shared_prompt"] = False
    distiller(separate).loss.backward()
    assert_same(shared, gradients(distiller), tolerance=1e-6)


def test_the_shared_prompt_is_read_once() -> None:
    distiller, batch = distiller_and_batch(small())
    lengths: list[int] = []

    def count(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids")
        lengths.append((kwargs["inputs_embeds"] if ids is None else ids).shape[1])

    distiller.base.base_model.register_forward_pre_hook(count, with_kwargs=True)
    distiller(batch)
    T, A = batch["input_ids"].shape[1], batch["answer_ids"].shape[1]
    # the text, begin-of-thought and two latents, then the last latent, end-of-thought and answer
    assert lengths == [T, 1, 1, 1, 1 + 1 + A - 1]


@pytest.mark.parametrize("method", EVICTIONS)
@pytest.mark.parametrize("mode", ["identity", "structured", "flat"])
def test_every_eviction_teaches_in_every_alignment(method: str, mode: str) -> None:
    config = small(
        kv_method=method,
        alignment_mode=mode,
        flat_variant="linear",
        dataset_name="kava/shell-game?form=verbose&student_form=compact&num_train=16",
        **TEACHER,
    )
    distiller, batch = distiller_and_batch(config)
    forward = distiller(batch)
    assert torch.isfinite(forward.loss)
    forward.loss.backward()
    assert forward.metrics["kv"] > 0
    assert all(torch.isfinite(g).all() for g in gradients(distiller).values())


@pytest.mark.parametrize("name", KV_LOSSES)
def test_every_kv_loss_trains_the_student(name: str) -> None:
    layer_std = name not in ("mercator", "structural")
    config = small(kv_loss=name, kv_layer_std=layer_std, ce_weight=0.0, **TEACHER)
    distiller, batch = distiller_and_batch(config)
    forward = distiller(batch)
    forward.loss.backward()
    assert forward.loss > 0
    assert any(g.abs().sum() > 0 for g in gradients(distiller).values())


def test_both_alignment_modes_have_the_same_loss_and_kept_positions() -> None:
    """Only the alignment differs: loss function, positions, cross-entropy are the same."""
    forwards = []
    for mode in ("structured", "flat"):
        config = small(alignment_mode=mode, flat_variant="linear", **TEACHER)
        distiller, batch = distiller_and_batch(config)
        forwards.append((distiller, distiller(batch)))
    (a, first), (b, second) = forwards
    assert a.matching.kv_loss == b.matching.kv_loss
    assert first.target is not None
    assert second.target is not None
    assert torch.equal(first.target.columns, second.target.columns)
    assert torch.equal(first.metrics["ce"], second.metrics["ce"])
    assert first.metrics["kv"] != second.metrics["kv"]


@pytest.mark.parametrize("fit", ["frozen", "joint"])
def test_an_aligner_learns_only_when_asked(fit: str) -> None:
    config = small(alignment_mode="structured", aligner_fit=fit, **TEACHER)
    distiller, batch = distiller_and_batch(config)
    distiller(batch).loss.backward()
    learned = {n for n, p in distiller.map_aligner.named_parameters() if p.grad is not None}
    # queries are aligned for the structural loss alone
    expected = {n for n, _ in distiller.map_aligner.named_parameters() if "quer" not in n}
    assert learned == (expected if fit == "joint" else set())


def test_the_wrong_sample_is_another_samples_cache() -> None:
    right, batch = distiller_and_batch(small(**TEACHER))
    wrong, _ = distiller_and_batch(small(wrong_sample=True, **TEACHER))
    ours, theirs = right(batch).target, wrong(batch).target
    assert ours is not None
    assert theirs is not None
    assert torch.equal(theirs.trace.values[1], ours.trace.values[0])


def test_short_reasoning_is_kept_when_asked(tmp_path: Path) -> None:
    """Two reasoning tokens and five latents: three latents are left without a target."""
    options = {"dataset_name": "kava/shell-game?num_moves=3&num_train=8", "target_len": 5}
    with pytest.raises(ValueError, match="has 2 reasoning tokens, fewer than --target_len 5"):
        distiller_and_batch(small(**options, **TEACHER))
    config = small(keep_short=True, **options, **TEACHER)
    distiller, batch = distiller_and_batch(config)
    forward = distiller(batch)
    assert forward.target is not None
    assert forward.target.trace.valid_BT().sum(1).tolist() == [2] * 8
    assert count_items(batch, config)[2] == 16
    forward.loss.backward()
    assert torch.isfinite(forward.loss)


@pytest.mark.parametrize("space", ["unrotated", "rotated"])
def test_keys_are_compared_in_the_space_asked_for(space: str) -> None:
    distiller, batch = distiller_and_batch(small(key_space=space, **TEACHER))
    forward = distiller(batch)
    assert forward.student is not None
    assert forward.target is not None
    assert forward.student.rotated == forward.target.trace.rotated == (space == "rotated")


def test_unrotated_keys_of_equal_content_match_at_any_position() -> None:
    """One layer's keys hold the token alone, once the position is taken out."""
    distiller, batch = distiller_and_batch(small(model_name="kava/shell-teacher", **TEACHER))
    target = distiller(batch).target
    assert target is not None
    words = batch["input_ids"].gather(1, target.columns[:, 0, 0])
    keys = target.trace.keys[:, 0]
    found = (words[:, :, None, None] == words[None, None]).nonzero()
    for b, m, c, n in found.tolist():
        torch.testing.assert_close(keys[b, :, m], keys[c, :, n], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": "explicit"}, "carries no information"),
        ({"target_len": 0}, "leaves no latent to match"),
        ({"student": "explicit", "codi_weight": 1.0, **TEACHER}, "needs a latent student"),
        ({"decoding": "jacobi", "jacobi_iterations": 4}, "above --target_len"),
        ({"kv_method": "magic"}, "--kv_method 'magic' is unknown"),
        ({"kv_scope": "row"}, "--kv_scope 'row' is unknown"),
        ({"lr": 0.0}, "--lr 0.0 must be above 0"),
        ({"kv_weight": -1.0}, "must be at least 0"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
        (
            {"ce_weight": 0.0, "kv_weight": 0.0, "teacher_ce_weight": 0.0},
            "every weight of the loss is 0",
        ),
        ({"save_total_limit": -1}, "--save_total_limit -1 must be at least 0"),
        ({"seed": -1}, "--seed -1 must be from 0 to 4,294,967,295"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_an_option_that_nothing_would_read_is_refused() -> None:
    with pytest.raises(ValueError, match="--rkv_lambda is read by rkv"):
        distiller_and_batch(small(kv_method="random", rkv_lambda=0.5))
    with pytest.raises(ValueError, match="--kv_layer_std has no meaning"):
        distiller_and_batch(small(kv_loss="mercator"))


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2", "mistral", "gemma", "gpt-neox"])
def test_every_family_trains(name: str) -> None:
    config: TrainConfig = replace(
        small(codi_weight=1.0), model_name=f"kava/tiny-{name}", max_length=256
    )
    distiller, batch = distiller_and_batch(config)
    forward = distiller(batch)
    forward.loss.backward()
    assert torch.isfinite(forward.loss)
    missing = [n for n, p in distiller.student.named_parameters() if p.grad is None]
    assert not missing


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"decoding": "jacobi", "jacobi_iterations": 2, "codi_weight": 1.0},
        {"kv_loss": "structural", "kv_layer_std": False, "kv_method": "rkv"},
        {"lora_r": 4},
        {"teacher_name": "kava/shell-teacher", "inject_weight": 1.0},
        {"student": "explicit", "teacher_name": "kava/shell-teacher"},
    ],
    ids=["self", "jacobi", "attention", "lora", "teacher", "explicit"],
)
def test_recomputed_activations_give_the_same_loss_and_gradients(changes: dict[str, Any]) -> None:
    found = []
    for recomputes in (False, True):
        config = small(gradient_checkpointing=recomputes, **changes)
        distiller, batch = distiller_and_batch(config)
        distiller.train()
        loss = distiller(batch).loss
        loss.backward()
        found.append((loss, [part.grad for part in distiller.parameters()]))
    (plain, expected), (loss, gradients) = found
    torch.testing.assert_close(loss, plain, atol=1e-6, rtol=1e-6)
    for ours, theirs in zip(gradients, expected):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
