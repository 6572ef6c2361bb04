"""Speed and memory of alignment, as ratios to a plain matrix product of the same FLOPs.

One tensor is aligned, keys alone: values and queries cost the same again. The aligner's times are
the best of some rounds, the slow anchors' those of one; in each round a square matrix product is
timed right before every contestant.
FLOPs are those of the heads' and dims' products in their cheapest form (terms in the cheaper
order, or one matrix over all heads); the sums over layers, the rotation and the reading of a time
warp are left out, and so is what a backward pass recomputes.

Anchors: a loop over layers, heads and terms, and for maps that all layers share one five-axis
`torch.einsum`.

    python benchmarks/align.py
    python benchmarks/align.py --batch 8 --cases "shared"
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kava.align import MapProjectionAligner, TimeWarp
from kava.align.heads.build import apply_projector
from kava.rope import Rotary, unrotate
from timing import positive, timed

PASSES = ("forward", "backward", "backward, x too")


class Flops(NamedTuple):
    """FLOPs of each pass."""

    forward: float
    backward: float
    backward_x_too: float


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is aligned to what, and by which maps."""

    layers: tuple[int, int] = (24, 12)
    heads: tuple[int, int] = (32, 16)
    dims: tuple[int, int] = (64, 64)
    options: dict[str, Any] = field(default_factory=dict)
    unrotated: bool = False
    slots: float = 1.0
    """The student's positions, as a share of the teacher's."""
    einsum: bool = False

    def aligner(self) -> MapProjectionAligner:
        """Seeded, with random maps."""
        torch.manual_seed(0)
        return MapProjectionAligner(
            num_teacher_layers=self.layers[0],
            num_student_layers=self.layers[1],
            num_teacher_heads=self.heads[0],
            num_student_heads=self.heads[1],
            teacher_head_dim=self.dims[0],
            student_head_dim=self.dims[1],
            **({"init_uniform": False} | self.options),
        )

    def count_flops(self, batch: int, length: int) -> Flops:
        """Of the heads' and dims' products; a warp that halves the positions goes before them."""
        slots = round(length * self.slots)
        vectors = 2.0 * batch * self.layers[1] * (slots if 2 * slots <= length else length)
        (H_in, H_out), (D_in, D_out) = self.heads, self.dims
        matrix = vectors * H_out * D_out * H_in * D_in
        forms = [Flops(matrix, matrix, 2 * matrix)]
        if self.options.get("mode") != "flat":
            each = vectors * self.options.get("rank", 1)
            orders = [(H_out * H_in * D_in, H_out * D_in * D_out)]
            if self.options.get("share_dim_proj", True):
                orders.append((H_in * D_in * D_out, H_out * H_in * D_out))
            for one, other in orders:
                first, second = each * one, each * other
                forms.append(Flops(first + second, first + 2 * second, 2 * (first + second)))
        return Flops(*(min(some) for some in zip(*forms)))


PER_LAYER = {"per_layer": True}
GROUPED = Case(heads=(8, 4), dims=(128, 64), options=PER_LAYER | {"rank": 4})
CASES = {
    "shared": Case(einsum=True),
    "rank 1": Case(options=PER_LAYER),
    "rank 8": Case(options=PER_LAYER | {"rank": 8}),
    "rank 8 per head": Case(options=PER_LAYER | {"rank": 8, "share_dim_proj": False}),
    "full": Case(options=PER_LAYER | {"mode": "flat"}),
    "more heads, rank 8": Case(heads=(16, 32), layers=(12, 12), options=PER_LAYER | {"rank": 8}),
    "grouped, rank 4": GROUPED,
    "the same, un-rotated": replace(GROUPED, unrotated=True),
    "shared, 1/2 the slots": Case(slots=0.5),
    "shared, 3/4 the slots": Case(slots=0.75),
}


class Setting:
    """A case with its input, maps, warp and rotation."""

    def __init__(self, case: Case, batch: int, length: int) -> None:
        self.case = case
        self.aligner = case.aligner()
        self.projector: Any = self.aligner.projectors()["keys"]
        self.x = torch.randn(batch, case.layers[0], case.heads[0], length, case.dims[0])
        self.warp: TimeWarp | None = None
        if case.slots != 1:
            self.warp = self.aligner.time_warp(self.x, None, round(length * case.slots))
        self.positions = torch.arange(length).expand(batch, -1)
        self.rotary = Rotary.of(rotary_dim=case.dims[0], theta=1e6)

    def by_kava(self, x: Tensor) -> Tensor:
        """What is measured."""
        if self.case.unrotated:
            x = unrotate(x, self.positions, self.rotary)
        return apply_projector(self.projector, x, self.aligner.layer_rows, self.warp)

    def by_loop(self, x: Tensor) -> Tensor:
        """The same, layer by layer, head by head, term by term."""
        # Unbound once: each select would bring a gradient of the whole tensor's size.
        teacher_layers = x.unbind(1)
        layers = []
        for student, row in enumerate(self.aligner.layer_rows):
            mixed = torch.zeros_like(teacher_layers[0])
            for layer, weight in row:
                mixed = mixed + weight * teacher_layers[layer]
            read = [self._read(head) for head in mixed.unbind(1)]
            layers.append(torch.stack(self._heads(read, student), dim=1))
        return torch.stack(layers, dim=1)

    def _read(self, head_BTD: Tensor) -> Tensor:
        """One head un-rotated and warped, sample by sample."""
        if self.case.unrotated:
            angles = self.positions[..., None] * self.rotary.inv_freq
            left, right = head_BTD.chunk(2, dim=-1)
            cos, sin = angles.cos(), angles.sin()
            head_BTD = torch.cat([left * cos + right * sin, right * cos - left * sin], dim=-1)
        if self.warp is None:
            return head_BTD
        return torch.stack(
            [
                torch.lerp(one[lower], one[upper], weight[:, None])
                for one, lower, upper, weight in zip(head_BTD, *self.warp[:3])
            ]
        )

    def _heads(self, read: list[Tensor], student: int) -> list[Tensor]:
        projector, (H_out, D_out) = self.projector, (self.case.heads[1], self.case.dims[1])
        if self.case.options.get("mode") == "flat":
            blocks = projector.weight[student].view(H_out, D_out, len(read), -1)
            bias = projector.bias[student]
            return [
                bias[h] + sum(x @ blocks[h, :, g].T for g, x in enumerate(read))
                for h in range(H_out)
            ]
        shared = not self.case.options.get("per_layer")
        mixes = projector.head_mixer.weight[None] if shared else projector.head_mix[student]
        maps = projector.dim_weight[None] if shared else projector.dim_map[student]
        heads = []
        for h in range(H_out):
            terms = []
            for mix, dim_map in zip(mixes, maps):
                total = mix[h, 0] * read[0]
                for g in range(1, len(read)):
                    total = total + mix[h, g] * read[g]
                terms.append(total @ (dim_map if dim_map.ndim == 2 else dim_map[h]).T)
            heads.append(sum(terms[1:], terms[0]))
            if not shared:
                heads[h] = heads[h] + projector.bias[student, h]
        return heads

    def by_einsum(self, x: Tensor) -> Tensor:
        """The same in one contraction, where layers share the maps and time stays."""
        weights_ST = self.aligner.layer_weights
        mix, dim_map = self.projector.head_mixer.weight, self.projector.dim_weight
        return torch.einsum("blgtd,sl,hg,pd->bshtp", x, weights_ST, mix, dim_map)

    def anchors(self) -> dict[str, Callable[[Tensor], Any]]:
        """Other ways to the same result."""
        anchors: dict[str, Callable[[Tensor], Any]] = {"  a loop": self.by_loop}
        return anchors | ({"  einsum": self.by_einsum} if self.case.einsum else {})


class Measured(NamedTuple):
    """One pass: best seconds, best seconds of the product beside it, and peak bytes."""

    seconds: float
    product_seconds: float
    peak_bytes: int


def measure(
    setting: Setting, align: Callable[[Tensor], Tensor], forward_flops: float, rounds: int
) -> list[Measured]:
    """Time the three passes of one contestant."""
    side = round((forward_flops / 2) ** (1 / 3))
    left, right = torch.randn(side, side), torch.randn(side, side)
    with torch.no_grad():
        grad_y = torch.randn_like(setting.by_kava(setting.x))

    def beside_product(action: Callable[[], object]) -> Measured:
        product_seconds, _ = timed(lambda: left @ right)
        seconds, peak_bytes = timed(action)
        return Measured(seconds, product_seconds, peak_bytes)

    def forward() -> Measured:
        with torch.no_grad():
            return beside_product(lambda: align(setting.x))

    def backward(x_too: bool) -> Measured:
        y = align(setting.x.detach().requires_grad_(x_too))
        setting.projector.zero_grad()
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
    parser.add_argument("--batch", type=positive, default=1, help="samples (default 1)")
    parser.add_argument("--length", type=positive, default=512, help="positions (default 512)")
    parser.add_argument(
        "--rounds",
        type=positive,
        default=3,
        help="repetitions; the best counts (default 3)",
    )
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads (default 1)")
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=list(CASES), help="default all"
    )
    parser.add_argument("--no_anchors", action="store_true", help="measure the aligner alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{options.batch} samples of {options.length} positions, float32, {options.threads} "
        f"thread(s), torch {torch.__version__}\n\n"
        f"{'':24}{'pass':18}{'seconds':>9}{'matmul':>9}{'ratio':>8}{'peak MB':>9}"
    )
    for name in options.cases:
        setting = Setting(CASES[name], options.batch, options.length)
        flops = setting.case.count_flops(options.batch, options.length)
        anchors = {} if options.no_anchors else setting.anchors()
        for who, align in {name: setting.by_kava, **anchors}.items():
            rounds = options.rounds if who == name else 1
            measured = measure(setting, align, flops.forward, rounds)
            for which, pass_flops, one in zip(PASSES, flops, measured):
                matmul = one.product_seconds * pass_flops / flops.forward
                print(
                    f"{who if which == 'forward' else '':24}{which:18}{one.seconds:9.3f}"
                    f"{matmul:9.3f}{one.seconds / matmul:8.2f}{one.peak_bytes / 1e6:9.0f}",
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
