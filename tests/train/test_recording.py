"""What every run records: tokens, order, gradients, memory, CKA, attention."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from attention_families import FAMILIES
from kava.models.capture import rebuilds_attention
from kava.models.load import load_model_config, load_tokenizer
from kava.trace import KVTrace
from kava.train.build import build_run
from kava.train.probes import CacheLikeness, attention_entropy
from kava.train.recording import (
    RECORDING_FILE,
    Recorder,
    loss_smoothness,
    peak_memory_bytes,
    student_tokens,
)
from train.runs import distiller_and_batch, metrics, run, small

HELD_OUT = {"eval_size": 16, "eval_steps": 4, "eval_batch_size": 8, "max_new_tokens": 4}


def test_a_run_records_what_it_consumed(tmp_path: Path) -> None:
    done = run(small(tmp_path / "a", **HELD_OUT))
    record = done.trainer.recorder.record
    lines = metrics(tmp_path / "a")
    tokens = [line["tokens"] for line in lines]
    assert tokens == sorted(set(tokens))  # it grows
    lengths = [len(item.input_ids) for item in done.data.train]
    assert record.tokens == tokens[-1] < 4 * 8 * max(lengths)
    assert (record.samples, record.optimizer_steps) == (32, 4)
    assert record.grad_norm_max == pytest.approx(max(line["grad_norm"] for line in lines))
    assert record.grad_norm_mean == pytest.approx(sum(line["grad_norm"] for line in lines) / 4)
    assert all(line["nonfinite_steps"] == 0 < line["peak_memory_bytes"] for line in lines)
    assert record.seconds > 0
    last = json.loads((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()[-1])
    text = (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()
    (evaluation,) = [line for line in map(json.loads, text) if "eval_accuracy" in line]
    assert -1 <= evaluation["eval_cka_keys"] <= 1
    assert -1 <= evaluation["eval_cka_values"] <= 1
    assert 0 < evaluation["eval_attention_entropy"] < math.log(64)
    assert last["step"] == 4


def test_the_order_of_the_data_has_one_hash_for_all_arms_of_a_seed(tmp_path: Path) -> None:
    def order(name: str, **changes: object) -> str:
        return run(small(tmp_path / name, **changes)).trainer.recorder.record.data_order_hash

    first = order("a")
    assert len(first) == 64
    assert order("b", kv_weight=0.0, lr=1e-2) == first
    assert order("c", seed=1) != first
    assert order("d", max_steps=3) != first


def test_a_resumed_run_records_what_an_uninterrupted_one_would(tmp_path: Path) -> None:
    whole = run(small(tmp_path / "whole")).trainer.recorder.record
    folder = tmp_path / "cut"
    cut = build_run(small(folder, save_steps=2))
    stop = cut.trainer.recorder.on_step_end

    def stopping(args: object, state: object, control: object, **kwargs: object) -> None:
        stop(args, state, control, **kwargs)  # type: ignore[arg-type]
        if state.global_step == 3:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    cut.trainer.recorder.on_step_end = stopping  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        cut.trainer.train()
    resumed = run(small(folder, save_steps=2, resume=True)).trainer.recorder.record
    seconds = ("seconds",)
    expected = {name: value for name, value in asdict(whole).items() if name not in seconds}
    found = {name: value for name, value in asdict(resumed).items() if name not in seconds}
    assert found == pytest.approx(expected)


def test_a_checkpoint_without_a_record_is_refused(tmp_path: Path) -> None:
    run(small(tmp_path))
    (tmp_path / "checkpoint-4" / RECORDING_FILE).unlink()
    with pytest.raises(ValueError, match=r"no complete checkpoint .*recording\.json is missing"):
        run(small(tmp_path, resume=True))


def test_tokens_are_those_of_the_text_that_a_student_reads() -> None:
    batch = {
        "attention_mask": torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]]),
        "prompt_mask": torch.tensor([[1, 1], [0, 1]]),
        "answer_mask": torch.tensor([[1], [1]]),
    }
    assert student_tokens(batch, explicit=True) == 7  # type: ignore[arg-type]
    assert student_tokens(batch, explicit=False) == 5  # type: ignore[arg-type]


def test_the_order_within_a_batch_counts() -> None:
    def after(ids: list[str]) -> str:
        recorder = Recorder(explicit=False)
        ones = torch.ones(2, 1)
        recorder.consume({"ids": ids, "prompt_mask": ones, "answer_mask": ones})  # type: ignore
        return recorder.record.data_order_hash

    assert after(["a", "b"]) != after(["b", "a"])


def test_the_smoothness_of_a_loss() -> None:
    assert loss_smoothness([4.0, 3.0, 2.0, 1.0]) == 0
    assert loss_smoothness([1.0, 0.0, 1.0, 0.0, 1.0]) == pytest.approx(1.0)
    assert loss_smoothness([1.0, 2.0]) is None
    assert loss_smoothness([1.0, 1.0, 1.0]) is None


def test_the_peak_of_the_memory_has_room_for_what_was_held() -> None:
    held = torch.zeros(50_000_000)
    held += 1
    assert peak_memory_bytes(torch.device("cpu")) > 200_000_000


def test_caches_that_are_a_turned_copy_are_alike() -> None:
    torch.manual_seed(0)
    keys, other = torch.randn(2, 20, 2, 2, 3, 8).unbind()
    turn = torch.linalg.qr(torch.randn(8, 8)).Q
    likeness = CacheLikeness()
    for half in (slice(0, 10), slice(10, 20)):
        likeness.look(KVTrace(keys[half] @ turn, keys[half]), KVTrace(keys[half], other[half]))
    found = likeness.metrics()
    assert found["cka_keys"] == pytest.approx(1, abs=1e-4)
    assert abs(found["cka_values"]) < 0.3
    assert CacheLikeness().metrics() == {}


@pytest.mark.parametrize("changes", [{}, {"decoding": "jacobi", "jacobi_iterations": 2}])
def test_the_entropy_of_even_attention_is_that_of_all_columns_up_to_the_query(
    changes: dict[str, object],
) -> None:
    distiller, batch = distiller_and_batch(small(**changes))
    with torch.no_grad():
        for name, part in distiller.student.named_parameters():
            if "q_proj" in name:
                part.zero_()
    prompt = batch["prompt_mask"].sum(1)
    expected = torch.stack([(prompt + 2 + latent).log() for latent in range(3)]).mean()
    assert attention_entropy(distiller.student, batch).nats == pytest.approx(
        float(expected), rel=1e-5
    )


def test_a_student_that_writes_is_looked_at_while_it_reasons() -> None:
    distiller, batch = distiller_and_batch(small(student="explicit", kv_weight=0.0))
    with torch.no_grad():
        for name, part in distiller.student.named_parameters():
            if "q_proj" in name:
                part.zero_()
    seen = batch["attention_mask"].cumsum(1)[batch["segment_ids"] == 1]
    expected = seen.log().mean()
    assert attention_entropy(distiller.student, batch).nats == pytest.approx(
        float(expected), rel=1e-5
    )


def test_a_student_without_latents_has_no_thought_to_look_at() -> None:
    distiller, batch = distiller_and_batch(small(target_len=0, kv_weight=0.0))
    assert attention_entropy(distiller.student, batch) is None


@pytest.mark.parametrize("kind", ["explicit", "latent"])
@pytest.mark.parametrize(
    "family", ["Llama", "Granite", "Gemma 3 (text)", "GPT-2, `scale_attn_weights=False`"]
)
def test_the_entropy_is_that_of_the_attention_as_the_family_scales_it(
    family: str, kind: str, tmp_path: Path
) -> None:
    vocabulary = {"vocab_size": load_model_config("kava/tiny-llama").vocab_size}
    model = FAMILIES[family].build(**vocabulary)
    model.save_pretrained(tmp_path)
    load_tokenizer("kava/tiny-llama").save_pretrained(tmp_path)
    settings = {"student": kind, "kv_weight": 0.0, "key_space": "rotated", "max_length": 128}
    distiller, batch = distiller_and_batch(small(model_name=str(tmp_path), **settings))
    distiller.student.eval()
    base = distiller.base
    base.set_attn_implementation("eager")
    P, M = batch["prompt_ids"].shape[1], 3
    entropies: list[torch.Tensor] = []

    def see(module: object, given: object, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Keep the entropies [B, R, Hq] at the columns that are averaged over."""
        weights = output[1]
        entropy = torch.special.entr(weights).sum(-1).transpose(1, 2)
        columns = torch.arange(weights.shape[3] - weights.shape[2], weights.shape[3])
        if kind == "explicit":
            entropies.append(entropy[batch["segment_ids"] == 1].flatten())
        else:
            entropies.append(entropy[:, (columns > P) & (columns <= P + M)].flatten())

    assert rebuilds_attention(base)  # reads two texts, the first time
    for module in base.modules():
        if type(module).__name__.endswith("Attention"):
            module.register_forward_hook(see)
    found = attention_entropy(distiller.student, batch)
    expected = torch.cat(entropies)
    heads, layers = base.config.num_attention_heads, base.config.num_hidden_layers
    num_queries = int(batch["segment_ids"].eq(1).sum()) if kind == "explicit" else 8 * M
    assert len(expected) == num_queries * heads * layers
    assert found.nats == pytest.approx(float(expected.mean()), rel=1e-4)
    assert found.num_queries == num_queries
