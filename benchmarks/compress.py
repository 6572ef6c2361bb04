"""Time and memory of the eviction methods, as ratios to one K·Kᵀ matmul of the same heads.

    python benchmarks/compress.py
    python benchmarks/compress.py --lengths 512 2048 --head-dim 128

One sample whose T reasoning tokens are all candidates, followed by a short answer, on one CPU
thread. Each figure is the best of some rounds in which all rows take turns, so that a busy
machine slows them alike. The matmul writes into memory that it is given. Memory is the largest
sum of live tensor allocations during a call, as torch's profiler counts them: what comes on top
of the trace, the result included. A row with a method's name is its scores, or its choice where
it needs none. The T×T rows are the usual way to write the same scores
(normalise the keys, make the matrix of cosines, work on it whole), as anchors.

Shapes: L layers, H heads, T positions, D head dim, N = L·H.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from kava.eviction import EVICTIONS, Eviction, ScoredEviction, build_eviction, compress
from kava.eviction.base import find_candidates
from kava.eviction.redundancy import mean_cosine
from kava.eviction.rkv import redundancy
from kava.trace import KVTrace, Segment
from timing import positive

ANSWER = 16


def make_trace(length: int, layers: int, heads: int, head_dim: int) -> KVTrace:
    """A random trace of one sample: `length` reasoning tokens and an answer."""
    total = length + ANSWER
    # A common direction, as real keys have one: some pairs are alike, most are not.
    common = torch.randn(1, layers, heads, 1, head_dim)
    return KVTrace(
        keys=torch.randn(1, layers, heads, total, head_dim) + 0.7 * common,
        values=torch.randn(1, layers, heads, total, head_dim),
        queries=torch.randn(1, layers, heads, total, head_dim),
        segment_ids=torch.tensor([[Segment.REASONING] * length + [Segment.ANSWER] * ANSWER]),
    )


def plain_redundancy(keys_NTD: Tensor) -> Tensor:
    """R of `rkv` by the T×T matrix."""
    units_NTD = keys_NTD / keys_NTD.norm(dim=-1, keepdim=True)
    cosine_NTT = units_NTD @ units_NTD.transpose(1, 2)
    cosine_NTT.diagonal(dim1=1, dim2=2).zero_()
    return (-cosine_NTT.mean(dim=-1)).softmax(dim=-1)


def plain_official_redundancy(keys_NTD: Tensor) -> Tensor:
    """R of `rkv_official` by the T×T matrix and a second one of column numbers."""
    units_NTD = keys_NTD / keys_NTD.norm(dim=-1, keepdim=True)
    cosine_NTT = units_NTD @ units_NTD.transpose(1, 2)
    cosine_NTT.diagonal(dim1=1, dim2=2).zero_()
    columns_T = torch.arange(keys_NTD.shape[1])
    newest_NT = torch.where(cosine_NTT > 0.5, columns_T, 0).amax(dim=-1)
    cosine_NTT.scatter_(-1, newest_NT[..., None], 0.0)
    return cosine_NTT.mean(dim=1).softmax(dim=-1)


def peak_mib(call: Callable[[], object]) -> float:
    """The largest sum of live allocations during a call, in MiB."""
    with (
        silenced_stderr(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        call()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak / 2**20


@contextmanager
def silenced_stderr() -> Iterator[None]:
    """Drop what the profiler's native code writes to stderr each time it starts and stops."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def best_seconds(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The shortest time of each call over rounds in which all take turns."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds + 1):  # the first warms up, and may count: it is never the shortest
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def closed_form_error(keys_NTD: Tensor) -> float:
    """‖closed form − T×T‖ / ‖T×T‖ of the mean cosine, the T×T form in float64."""
    mask_NT = torch.ones(keys_NTD.shape[:2], dtype=torch.bool)
    error = size = 0.0
    for keys_TD, got_T in zip(keys_NTD, mean_cosine(keys_NTD, mask_NT)):
        units_TD = torch.nn.functional.normalize(keys_TD.double(), dim=-1)
        cosine_TT = units_TD @ units_TD.T
        cosine_TT.diagonal().zero_()
        wanted_T = cosine_TT.mean(dim=-1)
        error += float((got_T - wanted_T).square().sum())
        size += float(wanted_T.square().sum())
    return (error / size) ** 0.5


def choose(eviction: Eviction, trace: KVTrace, target_len: int) -> Tensor:
    """The scores of a scored method, the choice itself of another."""
    candidates = find_candidates(trace)
    if isinstance(eviction, ScoredEviction):
        return eviction.score(trace, candidates)
    return eviction.keep(trace, candidates, target_len)


def measure(trace: KVTrace, target_len: int, rounds: int, plain: bool) -> list[tuple[str, ...]]:
    """The rows of one length's table."""
    keys_NTD = trace.keys.flatten(0, 2)[:, :-ANSWER].contiguous()
    product_NTT = torch.empty(len(keys_NTD), keys_NTD.shape[1], keys_NTD.shape[1])
    candidates = find_candidates(trace)
    calls: dict[str, Callable[[], object]] = {
        "K·Kᵀ": lambda: torch.matmul(keys_NTD, keys_NTD.transpose(1, 2), out=product_NTT),
        "rkv: R alone": lambda: redundancy(trace, candidates),
    }
    for method in EVICTIONS:
        if method != "positions" and not EVICTIONS[method].needs_scores:
            eviction = build_eviction(method)
            calls[method] = partial(choose, eviction, trace, target_len)
    calls["rkv: the whole compress"] = lambda: compress(trace, "rkv", target_len)
    if plain:
        calls["T×T form of rkv's R"] = lambda: plain_redundancy(keys_NTD)
        calls["T×T form of rkv_official's R"] = lambda: plain_official_redundancy(keys_NTD)
    with torch.no_grad():
        seconds = best_seconds(calls, rounds)
        matmul = seconds["K·Kᵀ"]
        return [
            (name, f"{1e3 * time:.2f}", f"{time / matmul:.4f}", f"{peak_mib(calls[name]):.2f}")
            for name, time in seconds.items()
        ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\nShapes")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[256, 1024, 4096, 8192], help="reasoning tokens"
    )
    parser.add_argument("--layers", type=positive, default=1)
    parser.add_argument(
        "--heads", type=positive, default=8, help="key/value heads, as many for queries"
    )
    parser.add_argument("--head-dim", type=positive, default=64)
    parser.add_argument("--target-len", type=positive, default=24, help="kept positions")
    parser.add_argument("--rounds", type=positive, default=5, help="timed rounds after the first")
    parser.add_argument(
        "--plain-up-to",
        type=int,
        default=4096,
        help="longest length for the T×T forms, whose memory is 4 and 13 bytes × T² × heads",
    )
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for length in options.lengths:
        trace = make_trace(length, options.layers, options.heads, options.head_dim)
        keys_NTD = trace.keys.flatten(0, 2)
        print(
            f"\nT = {length}, {options.layers} layer(s), {options.heads} heads, "
            f"D = {options.head_dim}: keys {keys_NTD.nbytes / 2**20:.1f} MiB, "
            f"closed form of the mean cosine off by {closed_form_error(keys_NTD):.1e}"
        )
        print(f"{'':<30}{'ms':>10}{'× K·Kᵀ':>10}{'MiB':>10}")
        plain = length <= options.plain_up_to
        for name, *figures in measure(trace, options.target_len, options.rounds, plain):
            print(f"{name:<30}" + "".join(f"{figure:>10}" for figure in figures))


if __name__ == "__main__":
    main()
