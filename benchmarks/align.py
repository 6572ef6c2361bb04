"""Speed and memory of alignment, as ratios to a plain matrix product of the same FLOPs.

One tensor is aligned, [B, 24, 32, 512, 64] -> [B, 12, 16, 512, 64]: keys alone, since values and
queries cost the same again and keys of batch 8 already take 805 MB. Every time is the best of
some rounds; in each round a square matrix product is timed right before every contestant. FLOPs
are counted as heads then dims need them; the sums over layers are left out, and so is what a
backward pass recomputes.

Anchors: one five-axis `torch.einsum`, and a loop over layers and heads.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from kava.align import HeadwiseMapProjector, layer_map
from kava.align.contraction import contract, sparse_rows

NUM_LAYERS, NUM_HEADS, HEAD_DIM = (24, 12), (32, 16), (64, 64)
PASSES = ("forward", "backward", "backward, x too")

Align = Callable[[Tensor, Tensor, Tensor], Tensor]


class Flops(NamedTuple):
    """FLOPs of each pass."""

    forward: float
    backward: float
    backward_x_too: float


def count_flops(batch: int, length: int) -> Flops:
    """Multiplications and additions of the head mix and the dim map."""
    vectors = batch * NUM_LAYERS[1] * length * NUM_HEADS[1]
    heads = 2.0 * vectors * NUM_HEADS[0] * HEAD_DIM[0]
    dims = 2.0 * vectors * HEAD_DIM[0] * HEAD_DIM[1]
    return Flops(heads + dims, heads + 2 * dims, 2 * (heads + dims))


class Measured(NamedTuple):
    """One pass: best seconds, best seconds of the product beside it, and peak bytes."""

    seconds: float
    product_seconds: float
    peak_bytes: int


def by_einsum(x: Tensor, head: Tensor, dim: Tensor) -> Tensor:
    weights_ST = layer_map(*NUM_LAYERS)
    return torch.einsum("blgtd,sl,hg,pd->bshtp", x, weights_ST, head, dim)


def by_loop(x: Tensor, head: Tensor, dim: Tensor) -> Tensor:
    # Unbound once: each select would bring a gradient of the whole tensor's size.
    teacher_layers = x.unbind(1)
    layers = []
    for row in layer_map(*NUM_LAYERS):
        mixed = torch.zeros_like(teacher_layers[0])
        for layer in row.nonzero().flatten().tolist():
            mixed = mixed + row[layer] * teacher_layers[layer]
        teacher_heads = mixed.unbind(1)
        heads = []
        for weights in head:
            total = weights[0] * teacher_heads[0]
            for teacher in range(1, len(teacher_heads)):
                total = total + weights[teacher] * teacher_heads[teacher]
            heads.append(total @ dim.T)
        layers.append(torch.stack(heads, dim=1))
    return torch.stack(layers, dim=1)


def by_kava(x: Tensor, head: Tensor, dim: Tensor) -> Tensor:
    return contract(x, head, dim, sparse_rows(layer_map(*NUM_LAYERS)))


CONTESTANTS: dict[str, Align] = {
    "kava aligner": by_kava,
    "five-axis einsum": by_einsum,
    "layer and head loop": by_loop,
}


def resident_bytes(field: str) -> int:
    """VmRSS or VmHWM of this process, from Linux's /proc."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {field}: peak memory is measured on Linux only")


def timed(action: Callable[[], object]) -> tuple[float, int]:
    """Seconds, and peak resident bytes above the start.

    On one thread they are CPU seconds, which a busy machine stretches less.
    """
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    # Freed memory that the allocator still holds would hide what the action asks for.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    start_bytes = resident_bytes("VmRSS")
    start = clock()
    action()
    seconds = clock() - start
    return seconds, resident_bytes("VmHWM") - start_bytes


def measure(align: Align, x: Tensor, forward_flops: float, rounds: int) -> list[Measured]:
    """Time the three passes of one contestant."""
    torch.manual_seed(0)
    projector = HeadwiseMapProjector(*NUM_HEADS, *HEAD_DIM, init_uniform=False)
    head, dim = projector.head_mixer.weight, projector.dim_weight
    side = round((forward_flops / 2) ** (1 / 3))
    left, right = torch.randn(side, side), torch.randn(side, side)
    grad_y = torch.randn(len(x), NUM_LAYERS[1], NUM_HEADS[1], x.shape[3], HEAD_DIM[1])

    def beside_product(action: Callable[[], object]) -> Measured:
        product_seconds, _ = timed(lambda: left @ right)
        seconds, peak_bytes = timed(action)
        return Measured(seconds, product_seconds, peak_bytes)

    def forward() -> Measured:
        with torch.no_grad():
            return beside_product(lambda: align(x, head, dim))

    def backward(x_too: bool) -> Measured:
        y = align(x.detach().requires_grad_(x_too), head, dim)
        projector.zero_grad()
        return beside_product(lambda: y.backward(grad_y))

    return [
        Measured(
            min(one.seconds for one in some),
            min(one.product_seconds for one in some),
            max(one.peak_bytes for one in some),
        )
        for some in zip(*((forward(), backward(False), backward(True)) for _ in range(rounds)))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8, help="samples (default 8)")
    parser.add_argument("--length", type=int, default=512, help="positions (default 512)")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--no_anchors", action="store_true", help="measure the aligner alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    flops = count_flops(options.batch, options.length)
    x = torch.randn(options.batch, NUM_LAYERS[0], NUM_HEADS[0], options.length, HEAD_DIM[0])
    print(
        f"{list(x.shape)} -> "
        f"{[options.batch, NUM_LAYERS[1], NUM_HEADS[1], options.length, HEAD_DIM[1]]}, float32, "
        f"{options.threads} thread(s), torch {torch.__version__}\n"
        f"input {x.nbytes / 1e6:.0f} MB; forward {flops.forward / 1e9:.2f} GFLOP\n"
    )
    print(f"{'':22}{'pass':18}{'seconds':>9}{'matmul':>9}{'ratio':>8}{'peak MB':>9}")
    contestants = {"kava aligner": by_kava} if options.no_anchors else CONTESTANTS
    for name, align in contestants.items():
        measured = measure(align, x, flops.forward, options.rounds)
        for which, pass_flops, one in zip(PASSES, flops, measured):
            matmul = one.product_seconds * pass_flops / flops.forward
            print(
                f"{name if which == 'forward' else '':22}{which:18}{one.seconds:9.3f}{matmul:9.3f}"
                f"{one.seconds / matmul:8.2f}{one.peak_bytes / 1e6:9.0f}",
                flush=True,
            )
    print(
        "\nseconds: of the CPU on one thread, of the clock on several. matmul: a square product\n"
        "of the pass's FLOPs, scaled from one of the forward's. backward: gradients of the\n"
        "weights; x too: of the input as well. peak MB: above what was resident before, result\n"
        "included."
    )


if __name__ == "__main__":
    main()
