"""Speed of rotating keys and of warping segments, as ratios to the usual ways.

    python benchmarks/rotation.py

Rotation: a teacher's keys to a student's rotation and positions, against transformers'
`apply_rotary_pos_emb` twice (it has no inverse: the opposite angle). Segments: a ragged batch to
fewer slots, against a loop over samples and segments that calls torch's own interpolation. Every
time is the best of some rounds, of the CPU on one thread, and every contestant runs in each round.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from kava.align import TimeWarper
from kava.rope import Rotary, rerotate, rotate, unrotate
from timing import positive

B, L, H, T, D, SLOTS = 8, 24, 8, 512, 64, 128


def library_rotate(x_BLHTD: Tensor, positions_BT: Tensor, rotary: Rotary, sign: float) -> Tensor:
    """As transformers rotates, layers taken as further heads."""
    angles = sign * positions_BT[..., None].float() * rotary.inv_freq
    cos, sin = (part.repeat(1, 1, 2) for part in (angles.cos(), angles.sin()))
    x = x_BLHTD.flatten(1, 2)
    turned, _ = apply_rotary_pos_emb(x, x[:, :0], cos, sin)
    return turned.view_as(x_BLHTD)


def loop_warp(x_BLHTD: Tensor, segment_ids: Tensor, slots: Tensor) -> Tensor:
    """One sample and segment at a time; equal shares, linear."""
    rows = []
    for x_LHTD, ids, counts in zip(x_BLHTD, segment_ids, slots):
        parts = []
        for segment, count in enumerate(counts.tolist()):
            line = x_LHTD[:, :, ids == segment].flatten(0, 1).mT
            parts.append(interpolate(line, size=count, mode="linear", align_corners=True).mT)
        rows.append(torch.cat(parts, dim=1).view(L, H, -1, D))
    return torch.stack(rows)


def best(contestants: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """Seconds of each."""
    seconds = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, call in contestants.items():
            begin = time.process_time()
            call()
            seconds[name] = min(seconds[name], time.process_time() - begin)
    return seconds


def show(title: str, seconds: dict[str, float]) -> None:
    first = next(iter(seconds.values()))
    print(title)
    for name, value in seconds.items():
        print(f"  {name:34} {value:8.4f} s  {value / first:6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=positive, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keys = torch.randn(B, L, H, T, D)
    here = torch.arange(T).expand(B, T)
    there = here + torch.arange(B)[:, None]
    teacher, student = (Rotary.of(rotary_dim=D, theta=theta) for theta in (1e6, 1e4))
    contestants = {
        "rerotate": lambda: rerotate(keys, here, teacher, student, there),
        "unrotate, rotate": lambda: rotate(unrotate(keys, here, teacher), there, student),
        "transformers, twice": lambda: library_rotate(
            library_rotate(keys, here, teacher, -1), there, student, 1
        ),
    }
    results = [call() for call in contestants.values()]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], atol=1e-3, rtol=1e-3)
    threads = torch.get_num_threads()
    print(
        f"keys [{B}, {L}, {H}, {T}, {D}], float32, {threads} thread(s), torch {torch.__version__}"
    )
    show("to another model's rotation", best(contestants, rounds))

    prompt = torch.randint(64, 128, (B, 1))
    answer = torch.randint(T - 64, T - 16, (B, 1))
    column = torch.arange(T)
    ids = (column >= prompt).long() + (column >= answer)
    ids[column.expand(B, T) >= T - torch.arange(B)[:, None]] = -1
    warper = TimeWarper()
    plan = warper.plan(ids, SLOTS)
    slots = torch.stack([(ids.gather(1, plan.lower) == s).sum(1) for s in range(3)], dim=1)
    warps = {
        "plan and warp": lambda: warper.plan(ids, SLOTS).apply(keys),
        "plan alone": lambda: warper.plan(ids, SLOTS).weight,
        "loop over samples and segments": lambda: loop_warp(keys, ids, slots),
    }
    torch.testing.assert_close(loop_warp(keys, ids, slots), plan.apply(keys), atol=1e-3, rtol=1e-3)
    show(f"three segments to {SLOTS} slots", best(warps, rounds))


if __name__ == "__main__":
    main()
