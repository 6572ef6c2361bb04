"""Which layers and parts are matched, with what weights: every flag moves the loss as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import distiller_and_batch, metrics, rows, run, small, weights
from test_objective import assert_same, gradients, ragged

from kava.losses import KV_LOSSES, TrainingProgress, build_kv_loss
from kava.train.flags import parse_config
from kava.train.items import count_items
from kava.train.terms import Forward

TEACHER: dict[str, Any] = {"teacher_name": "kava/shell-teacher"}
FLAGS: list[dict[str, Any]] = [
    {"distill_layers": "1"},
    {"distill_k_only": True},
    {"distill_v_only": True},
    {"attention_weighted_kv": True},
    {"layer_weight_annealing": "deep_first"},
    {"layer_weight_annealing": "shallow_first"},
    {"cka_weight": 1.0},
]
each_flag = pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: "-".join(map(str, flag)))


def forward_of(progress: TrainingProgress | None = None, **options: Any) -> Forward:
    distiller, batch = distiller_and_batch(small(**{**TEACHER, **options}))
    if progress is not None:
        distiller.progress = progress
    forward: Forward = distiller(batch)
    return forward


@each_flag
def test_every_flag_moves_the_loss(flag: dict[str, Any]) -> None:
    plain, changed = forward_of(), forward_of(**flag)
    assert abs(changed.loss - plain.loss) > 1e-4 * plain.loss


@pytest.mark.parametrize("name", KV_LOSSES)
@each_flag
def test_every_kv_loss_knows_every_flag(name: str, flag: dict[str, Any]) -> None:
    options = {"kv_loss": name, "kv_layer_std": False, "ce_weight": 0.0}
    plain, changed = forward_of(**options), forward_of(**options, **flag)
    assert torch.isfinite(changed.loss)
    assert changed.loss != plain.loss


def test_the_layers_named_are_those_that_are_matched() -> None:
    every, first, second = (forward_of(distill_layers=layers) for layers in ("0,1", "0", " 1"))
    plain = forward_of()
    assert every.metrics["kv"] == plain.metrics["kv"]
    torch.testing.assert_close(
        (first.metrics["kv"] + second.metrics["kv"]) / 2, plain.metrics["kv"]
    )
    assert second.target is not None
    assert plain.target is not None
    assert torch.equal(second.target.trace.keys, plain.target.trace.keys[:, 1:])
    assert torch.equal(forward_of(distill_layers="1,0").loss, every.loss)


@pytest.mark.parametrize(("flag", "part"), [("distill_k_only", "kv_k"), ("distill_v_only", "kv_v")])
def test_keys_or_values_alone_keep_the_weight_that_they_had(flag: str, part: str) -> None:
    alone, plain = forward_of(**{flag: True}), forward_of()
    torch.testing.assert_close(alone.metrics["kv"], plain.metrics[part] / 2)
    cka = forward_of(**{flag: True}, cka_weight=1.0).metrics
    torch.testing.assert_close(cka["cka"], (1 - cka[f"cka_{part[-1]}"]) / 2)


def test_values_alone_leave_the_attention_out() -> None:
    values = forward_of(kv_loss="structural", kv_layer_std=False, distill_v_only=True).metrics
    torch.testing.assert_close(values["kv"], values["kv_v"])
    keys = forward_of(kv_loss="structural", kv_layer_std=False, distill_k_only=True).metrics
    torch.testing.assert_close(keys["kv"], keys["kv_k"] + 0.5 * keys["kv_attn"])


def test_the_attention_weighs_the_slots_only_after_its_warm_up() -> None:
    plain = forward_of().metrics["kv"]
    now = forward_of(attention_weighted_kv=True).metrics["kv"]
    options = {"attention_weighted_kv": True, "attention_weighted_warmup": 4}
    found = [
        forward_of(TrainingProgress(step, 20), **options).metrics["kv"] for step in (0, 3, 5, 7, 19)
    ]
    assert found[0] == found[1] == plain
    torch.testing.assert_close(found[2], (plain + now) / 2)
    torch.testing.assert_close(found[3], now)
    torch.testing.assert_close(found[4], now)
    assert now != plain


def test_the_weights_are_the_teachers_attention_at_the_kept_positions() -> None:
    forward = forward_of(attention_weighted_kv=True)
    assert forward.target is not None
    assert forward.student is not None
    weights_BM = forward.target.weights
    assert weights_BM is not None
    assert weights_BM.shape == (8, 3)
    assert (weights_BM > 0).all()
    loss_fn = build_kv_loss("smooth_l1", layer_std=True)
    expected, _ = loss_fn(forward.student, forward.target.trace, position_weights=weights_BM)
    torch.testing.assert_close(forward.metrics["kv"], expected.detach())


def test_the_wrong_samples_target_brings_its_own_weights() -> None:
    right = forward_of(attention_weighted_kv=True).target
    wrong = forward_of(attention_weighted_kv=True, wrong_sample=True).target
    assert right is not None
    assert wrong is not None
    assert right.weights is not None
    assert wrong.weights is not None
    assert torch.equal(wrong.weights[1:], right.weights[:-1])


@pytest.mark.parametrize("student", ["latent", "explicit"])
@pytest.mark.parametrize("scope", ["head", "model"])
def test_attention_weights_fit_every_scope_and_student(student: str, scope: str) -> None:
    forward = forward_of(attention_weighted_kv=True, student=student, kv_scope=scope)
    assert torch.isfinite(forward.loss)
    assert forward.metrics["kv"] != forward_of(student=student, kv_scope=scope).metrics["kv"]


@pytest.mark.parametrize("emphasis", ["deep_first", "shallow_first"])
def test_layer_weights_start_uneven_and_end_even(emphasis: str) -> None:
    options = {"layer_weight_annealing": emphasis}
    plain = forward_of().metrics["kv"]
    layers = [forward_of(distill_layers=name).metrics["kv"] for name in ("0", "1")]
    light, heavy = layers if emphasis == "deep_first" else layers[::-1]
    start = forward_of(TrainingProgress(0, 10), **options).metrics["kv"]
    torch.testing.assert_close(start, (light + 2 * heavy) / 3)
    assert forward_of(TrainingProgress(10, 10), **options).metrics["kv"] == plain
    short = forward_of(TrainingProgress(4, 10), **options, layer_weight_annealing_steps=4)
    assert short.metrics["kv"] == plain
    half = forward_of(TrainingProgress(5, 10), **options).metrics["kv"]
    torch.testing.assert_close(half, (start + plain) / 2)


@each_flag
def test_the_gradient_of_a_batch_is_the_sum_of_its_parts(
    flag: dict[str, Any], tmp_path: Path
) -> None:
    """All but CKA, which is a statistic of the batch."""
    config = small(
        model_name="kava/tiny-llama",
        teacher_name="kava/tiny-llama",
        dataset_name=ragged(tmp_path),
        max_length=256,
        **flag,
    )
    distiller, batch = distiller_and_batch(config, size=4)
    distiller(batch).loss.backward()
    whole = gradients(distiller)
    counts = torch.tensor(count_items(batch, config)).float()
    distiller.zero_grad()
    for part in (slice(0, 1), slice(1, 4)):
        distiller(rows(batch, part), counts).loss.backward()
    if "cka_weight" in flag:
        with pytest.raises(AssertionError):
            assert_same(gradients(distiller), whole)
    else:
        assert_same(gradients(distiller), whole)


def test_cka_alone_trains_the_student() -> None:
    config = small(ce_weight=0.0, kv_weight=0.0, cka_weight=1.0, text_ce_weight=0.0, **TEACHER)
    distiller, batch = distiller_and_batch(config)
    forward = distiller(batch)
    forward.loss.backward()
    assert "kv" not in forward.metrics
    torch.testing.assert_close(forward.loss.detach(), forward.metrics["cka"])
    found = distiller.base.get_submodule("model.layers.0.self_attn.k_proj").weight.grad
    assert found is not None
    assert found.any()


def test_the_run_moves_the_schedules_and_a_resumed_one_goes_on_where_it_was(
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {
        **TEACHER,
        "attention_weighted_kv": True,
        "attention_weighted_warmup": 3,
        "layer_weight_annealing": "deep_first",
        "max_steps": 6,
        "save_steps": 4,
    }
    whole = run(small(tmp_path / "whole", **options))
    assert whole.trainer.model.progress.num_steps == 6
    stopped = tmp_path / "stopped"
    run(small(stopped, **options))
    for name in ("model.safetensors", "kava.json"):
        (stopped / "checkpoint-6" / name).unlink()
    again = run(small(stopped, resume=True, **options))
    assert again.checkpoint == stopped / "checkpoint-4"
    expected = [line["loss"] for line in metrics(tmp_path / "whole")]
    assert [line["loss"] for line in metrics(stopped)] == expected
    ours, theirs = weights(again.trainer.model), weights(whole.trainer.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # the schedule is felt: from the third step on, a constant one has other losses
    flat = {**options, "attention_weighted_warmup": 4, "layer_weight_annealing_steps": 1}
    run(small(tmp_path / "flat", **flat))
    other = [line["loss"] for line in metrics(tmp_path / "flat")]
    assert other[0] == expected[0]
    assert other[1:] != expected[1:]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill_layers": "0,x"}, "--distill_layers '0,x' must be numbers"),
        ({"distill_layers": "-1"}, "--distill_layers '-1' must be numbers"),
        ({"distill_layers": ""}, "--distill_layers '' is empty"),
        ({"distill_layers": "5-2"}, "the range 5-2 ends before it begins"),
        ({"distill_layers": "0-3,2"}, "--distill_layers 0-3,2 names a layer twice"),
        ({"distill_layers": "1,1"}, "--distill_layers 1,1 names a layer twice"),
        ({"distill_k_only": True, "distill_v_only": True}, "exclude each other: pass one"),
        ({"attention_weighted_warmup": 5}, "is read by --attention_weighted_kv alone"),
        ({"attention_weighted_kv": True, "attention_weighted_warmup": -1}, "must be at least 0"),
        ({"attention_weighted_kv": True, "kv_weight": 0.0}, "which --kv_weight 0 leaves out"),
        (
            {
                "attention_weighted_kv": True,
                "use_segment_resampling": True,
                "kv_method": "full",
            },
            "--use_segment_resampling reads between them",
        ),
        ({"layer_weight_annealing": "middle"}, "--layer_weight_annealing 'middle' is unknown"),
        ({"layer_weight_annealing_steps": 5}, "is read by --layer_weight_annealing alone"),
        (
            {"layer_weight_annealing": "deep_first", "layer_weight_annealing_steps": 0},
            "--layer_weight_annealing_steps 0 must be at least 1",
        ),
        ({"cka_weight": -1.0}, "--cka_weight -1.0 must be at least 0"),
        (
            {"cka_weight": 1.0, "kv_weight": 0.0, "target_len": 0},
            "leaves no latent to match: pass --cka_weight 0",
        ),
    ],
)
def test_flags_that_make_no_sense_are_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        small(**{**TEACHER, **changes})
    assert "\n" not in str(error.value)


def test_layers_that_the_student_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="no layer 2, its 2 layers are 0 to 1"):
        distiller_and_batch(small(distill_layers="0,2", **TEACHER))
    with pytest.raises(ValueError, match="needs two matched layers or more, and there is 1"):
        distiller_and_batch(
            small(distill_layers="1", layer_weight_annealing="deep_first", **TEACHER)
        )


def test_a_cache_that_is_warped_has_no_weights_of_kept_positions() -> None:
    config = small(attention_weighted_kv=True, kv_method="full", target_len=2, **TEACHER)
    distiller, batch = distiller_and_batch(config)
    with pytest.raises(ValueError, match="--kv_method full keeps 3, which are warped to 2 latents"):
        distiller(batch)


def test_the_command_line_takes_the_layers_as_they_are_written() -> None:
    config = parse_config(["--distill_layers", "0,1", "--attention_weighted_kv"])
    assert config.distill_layers == "0,1"
    assert config.attention_weighted_kv
