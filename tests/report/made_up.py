"""A study as its runs would leave it, with effects of one's choice and without any training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kava.study.plan import canonical_hash
from kava.study.plan_file import read_plan

NUM_ITEMS = 200
STEPS = (50, 100, 150, 200)
ROLES = {"flat": "baseline", "per_head": "treatment", "wrong": "control", "raw": "reference"}
WHAT = {
    "flat": "any linear map from cache to cache",
    "per_head": "a head mix, and a map of dims for each head",
    "random": "the same without calibration",
    "wrong": "as per_head, with the cache of another sample",
    "none": "cross-entropy of the answer alone",
    "raw": "the model as it is, untrained",
}
NO_CACHE = {"none", "raw"}


def made_up_plan(
    arms: Sequence[str],
    roles: Mapping[str, str] = ROLES,
    seeds: Sequence[int] = range(5),
    fewer: Mapping[str, int] | None = None,
    **primary: Any,
) -> dict[str, Any]:
    """The canonical values of a plan with these arms."""
    values: dict[str, Any] = {
        "name": "made_up",
        "question": "Does structured alignment teach a student better than flat alignment?",
        "base": {"model_name": "kava/shell-teacher", "target_len": 3},
        "data": {"train": "kava/shell-game", "test": "kava/shell-game", "curve_items": 50},
        "budget": {"steps": STEPS[-1], "batch_size": 64},
        "seeds": list(seeds),
        "arms": {},
        "primary": {"minimum_effect": 0.05, **primary},
    }
    for arm in arms:
        changes: dict[str, Any] = {"alignment_mode": "flat" if arm == "flat" else "structured"}
        if arm in NO_CACHE:
            changes = {"kv_weight": 0.0}
        if arm == "wrong":
            changes["wrong_sample"] = True
        values["arms"][arm] = {
            "what": WHAT[arm],
            "role": roles.get(arm, "treatment"),
            "changes": changes,
        }
        if fewer and arm in fewer:
            values["arms"][arm]["seeds"] = fewer[arm]
        if arm == "raw":
            values["arms"][arm] = {"what": WHAT[arm], "role": "reference", "trained": False}
    return read_plan(values).canonical()


def write_study(
    folder: Path,
    abilities: Mapping[str, float],
    *,
    roles: Mapping[str, str] = ROLES,
    seeds: Sequence[int] = range(5),
    fewer: Mapping[str, int] | None = None,
    same: Mapping[str, str] | None = None,
    spread: float = 0.01,
    num_steps: Sequence[int] = (),
    **primary: Any,
) -> Path:
    """A finished study.

    Args:
        folder: where.
        abilities: arm → the share of items that it is to answer, in the plan's order.
        roles: arm → role.
        seeds: of every arm.
        fewer: arm → the number of seeds that it has instead.
        same: arm → the arm whose answers it repeats.
        spread: of the ability over seeds.
        num_steps: the written steps of the items, in turn; none where it is empty.
        primary: of the plan.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan = made_up_plan(list(abilities), roles, seeds, fewer, **primary)
    lock = {
        "plan": plan,
        "plan_hash": canonical_hash(plan),
        "written": "2025-01-02T03:04:05+00:00",
        "versions": {"kava": "0.1.0", "python": "3.12.1"},
        "command": "kava study run made_up",
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    (folder / "plan.lock.json").write_text(json.dumps(lock, indent=2))
    hardness = np.random.default_rng(7).uniform(size=NUM_ITEMS)
    for place, (arm, ability) in enumerate(abilities.items()):
        num_seeds = 1 if arm == "raw" else (fewer or {}).get(arm)
        for seed in plan["seeds"][:num_seeds]:
            source = (same or {}).get(arm, arm)
            draw = np.random.default_rng([seed, list(abilities).index(source)])
            share = np.clip(ability + spread * draw.standard_normal(), 0.0, 1.0)
            # items are hard for all arms alike, and a fifth of the noise is the run's own
            felt = np.argsort(np.argsort(hardness + 0.2 * draw.standard_normal(NUM_ITEMS)))
            correct = felt < round(float(share) * NUM_ITEMS)
            write_run(folder, lock, arm, seed, correct, place, num_steps)
    return folder


def write_run(
    folder: Path,
    lock: Mapping[str, Any],
    arm: str,
    seed: int,
    correct: np.ndarray,
    place: int,
    num_steps: Sequence[int] = (),
) -> None:
    """A finished run with its result, all numbers told apart by arm and seed."""
    run = folder / "runs" / arm / f"seed-{seed}"
    run.mkdir(parents=True)
    accuracy = float(correct.mean())
    cached, trained = arm not in NO_CACHE, arm != "raw"
    if trained:
        write_lines(run / "metrics.jsonl", metric_lines(accuracy, cached, seed, place))
    write_lines(
        run / "items.jsonl",
        [
            {"id": f"q{i:03d}", "correct": bool(right), "gold": "abcd", "predicted": "abcd"}
            | ({"num_steps": num_steps[i % len(num_steps)]} if num_steps else {})
            for i, right in enumerate(correct)
        ],
    )
    if cached:
        (run / "alignment.json").write_text(json.dumps(alignment_of(arm)))
    result = {
        "arm": arm,
        "seed": seed,
        "plan_hash": lock["plan_hash"],
        "settings_hash": hashlib.sha256(arm.encode()).hexdigest(),
        "finished": True,
        "accuracy": accuracy,
        "num_items": len(correct),
        "num_correct": int(correct.sum()),
        "budget": {
            "optimizer_steps": STEPS[-1] if trained else 0,
            "samples": 12_800 if trained else 0,
            "tokens": 345_600 if trained else 0,
            "data_order_hash": f"{seed:02d}" * 32 if trained else None,
            "data_hash": "ab" * 32,
            "test_hash": "cd" * 32,
        },
        "parameters": 107_136,
        "aligner_parameters": 2_304 + place if cached else 0,
        "train_seconds": 41.0 + place + 0.1 * seed if trained else None,
        "peak_memory_bytes": (150 + place) * 2**20,
        "device": "cpu",
        "health": {
            "grad_norm_mean": 0.6 + 0.1 * place,
            "grad_norm_max": 2.5 + place,
            "nonfinite_steps": 0,
            "loss_smoothness": 0.04 + 0.01 * place,
        }
        if trained
        else None,
        "last": {
            "kv": 0.08 + 0.01 * place if cached else None,
            "kv_wrong_sample": 0.081 + 0.01 * place
            if arm == "wrong"
            else (0.21 if cached else None),
            "cka_keys": 0.83 + 0.01 * place if cached else None,
            "cka_values": 0.71 + 0.01 * place if cached else None,
            "attention_entropy": 1.4 + 0.01 * place if trained else None,
        },
        "cost": {"forward_passes": 5.0 + place, "num_tokens": 1000, "seconds_per_answer": 0.0031},
        "files": {path.name: sha256(path) for path in sorted(run.iterdir())},
        "versions": {"torch": "2.9.0", "transformers": "5.0.0"},
    }
    (run / "result.json").write_text(json.dumps(result, indent=2))


def metric_lines(accuracy: float, cached: bool, seed: int, place: int) -> list[dict[str, Any]]:
    draw = np.random.default_rng([seed, place, 3])
    lines: list[dict[str, Any]] = []
    for step in STEPS:
        share = step / STEPS[-1]
        ce = 3.0 - 2.2 * share * accuracy + 0.05 * float(draw.standard_normal())
        line = {"step": step, "seconds": 10 * share, "loss": 1.4 * ce, "ce": ce}
        line |= {"kv": 0.3 - 0.2 * share, "codi": 0.0} if cached else {}
        line |= {"learning_rate": 0.01 * (1 - share), "grad_norm": 0.6 + float(draw.uniform())}
        line |= {"tokens": int(345_600 * share), "nonfinite_steps": 0, "peak_memory_bytes": 2**27}
        lines.append(line)
        held_out = {"step": step, "seconds": 10 * share + 1, "eval_accuracy": share * accuracy}
        held_out |= {"eval_ce": 1.05 * ce, "eval_attention_entropy": 1.8 - 0.4 * share}
        held_out |= {"eval_reading_written": 0.97, "eval_reading_latents": share * accuracy}
        if cached:
            held_out |= {"eval_reading_target": 0.9, "eval_reading_wrong_sample": 0.05}
            held_out |= {"eval_kv": 0.3 - 0.2 * share, "eval_kv_wrong_sample": 0.33 - 0.1 * share}
            held_out |= {"eval_cka_keys": 0.4 + 0.4 * share, "eval_cka_values": 0.3 + 0.4 * share}
        lines.append(held_out)
    return lines


def alignment_of(arm: str) -> dict[str, Any]:
    """Two layers to three, two heads to four, one text in two tokenizers."""
    mix = [[0.8, 0.2, 0.1, 0.1], [0.1, 0.1, 0.3, 0.9]]
    if arm == "flat":
        mix = [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]
    return {
        "layers": [[0.6, 0.4, 0.0], [0.0, 0.3, 0.7]],
        "heads": {"keys": [mix, mix], "values": [mix[::-1], mix[::-1]]},
        "time": {
            "sample": "q000",
            "student": ["abcd", " 3142", " bdca", " Answer"],
            "teacher": ["ab", "cd", " 31", "42", " bd", "ca", " Answer"],
            "weights": [
                [0.5, 0.5, 0, 0, 0, 0, 0],
                [0, 0, 0.5, 0.5, 0, 0, 0],
                [0, 0, 0, 0, 0.5, 0.5, 0],
                [0, 0, 0, 0, 0, 0, 1.0],
            ],
        },
    }


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
