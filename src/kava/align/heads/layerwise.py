"""A map of heads and head dims for each student layer, with a bias: a sum of r Kronecker terms.

    y_h = b_h + Σ_r P_r · Σ_g M_r[h, g] · x_g

r = 1 is the structured map, layer by layer; with enough terms the sum is any linear map. r controls
how much of a full matrix the map can express. `rank=None` is that matrix itself.

Shapes: B batch, L layers, H_in/H_out heads and D_in/D_out head dims of the space that is read and
of the one that is written, T positions, r terms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kava.align.kronecker import sum_terms
from kava.align.layers.layer_map import layer_map
from kava.align.layers.sparse_map import Rows, identity_rows
from kava.align.linear_maps import apply_matrix, apply_terms


class LayerwiseProjector(nn.Module):
    """Map heads and head dims with a separate map for every student layer.

    Uniform initialisation starts every layer as `HeadwiseMapProjector` does: the first term
    averages groups of heads and keeps the coordinates, all further terms are zero. Their dim maps
    are zero and their head mixes random, so that a gradient reaches them at once. A full map
    starts as the identity between equal sizes and else at random, with entries of variance
    1/(H_in·D_in).

    Args:
        num_layers: L, the student's.
        num_heads_in: H_in.
        num_heads_out: H_out.
        head_dim_in: D_in.
        head_dim_out: D_out.
        rank: how many terms; None: a full matrix [H_out·D_out, H_in·D_in] for each layer.
        per_head: a dim map for each head of the output, instead of one for all in each term.
        init_uniform: start as described above; else every head mix is Xavier-uniform, every dim map
            random orthogonal, and a full matrix random between equal sizes too, drawn from
            torch's global generator.

    Raises:
        ValueError: a number below 1, a full map per head, or an input of other heads, head dim or
            layers.

    Example:
        >>> projector = LayerwiseProjector(12, 8, 4, 128, 64, rank=2)
        >>> projector(torch.randn(2, 12, 8, 5, 128)).shape
        torch.Size([2, 12, 4, 5, 64])
    """

    head_mix: nn.Parameter
    """[L, r, H_out, H_in]; absent in a full map."""
    dim_map: nn.Parameter
    """[L, r, D_out, D_in], or [L, r, H_out, D_out, D_in] per head; absent in a full map."""
    weight: nn.Parameter
    """[L, H_out·D_out, H_in·D_in], of a full map only."""
    bias: nn.Parameter
    """[L, H_out, D_out]."""

    def __init__(
        self,
        num_layers: int,
        num_heads_in: int,
        num_heads_out: int,
        head_dim_in: int,
        head_dim_out: int,
        *,
        rank: int | None = 1,
        per_head: bool = False,
        init_uniform: bool = True,
    ) -> None:
        super().__init__()
        sizes = {
            "num_layers": num_layers,
            "num_heads_in": num_heads_in,
            "num_heads_out": num_heads_out,
            "head_dim_in": head_dim_in,
            "head_dim_out": head_dim_out,
            "rank": 1 if rank is None else rank,
        }
        for name, number in sizes.items():
            if number < 1:
                raise ValueError(f"{name}={number} must be at least 1")
        if rank is None and per_head:
            raise ValueError(
                "rank=None is a full map, which has no dim maps to give each head its own; "
                "leave per_head out or give a rank"
            )
        self.num_layers = num_layers
        self.num_heads_in = num_heads_in
        self.num_heads_out = num_heads_out
        self.head_dim_in = head_dim_in
        self.head_dim_out = head_dim_out
        self.rank = rank
        self.per_head = per_head
        self.init_uniform = init_uniform
        if rank is None:
            self.weight = nn.Parameter(
                torch.empty(num_layers, num_heads_out * head_dim_out, num_heads_in * head_dim_in)
            )
        else:
            self.head_mix = nn.Parameter(torch.empty(num_layers, rank, num_heads_out, num_heads_in))
            heads = (num_heads_out,) if per_head else ()
            self.dim_map = nn.Parameter(
                torch.empty(num_layers, rank, *heads, head_dim_out, head_dim_in)
            )
        self.bias = nn.Parameter(torch.empty(num_layers, num_heads_out, head_dim_out))
        self.reset_parameters()

    def set_rank(self, rank: int) -> None:
        """Change the number of terms; if it changes, head mixes and dim maps are left undefined.

        Raises:
            ValueError: a full map, which has no terms.
        """
        if self.rank is None:
            raise ValueError(f"a full map has no terms, so it cannot be given {rank} of them")
        if rank != self.rank:
            self.rank = rank
            for name in ("head_mix", "dim_map"):
                old = getattr(self, name)
                room = old.new_empty(old.shape[0], rank, *old.shape[2:])
                setattr(self, name, nn.Parameter(room, requires_grad=old.requires_grad))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set every parameter to its initial value."""
        nn.init.zeros_(self.bias)
        if self.rank is None:
            rows, columns = self.weight.shape[1:]
            if self.init_uniform and rows == columns:
                self.weight.copy_(torch.eye(rows))
            else:
                nn.init.normal_(self.weight, std=columns**-0.5)
        elif self.init_uniform:
            nn.init.normal_(self.head_mix, std=self.num_heads_in**-0.5)
            nn.init.zeros_(self.dim_map)
            groups = layer_map(self.num_heads_in, self.num_heads_out, "uniform")
            self.head_mix[:, 0] = groups.to(self.head_mix)
            self.dim_map[:, 0] = torch.eye(self.head_dim_out, self.head_dim_in)
        else:
            for head_mix in self.head_mix.flatten(0, 1):
                nn.init.xavier_uniform_(head_mix, gain=self.rank**-0.5)
            for dim_map in self.dim_map.view(-1, self.head_dim_out, self.head_dim_in):
                nn.init.orthogonal_(dim_map)

    def dense(self) -> Tensor:
        """The maps as matrices [L, H_out·D_out, H_in·D_in], coordinates in the order of heads."""
        if self.rank is None:
            return self.weight
        return sum_terms(self.head_mix, self.dim_map)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, L, H_in, T, D_in] to [B, L, H_out, T, D_out]."""
        if x.ndim != 5 or x.shape[1] != self.num_layers:
            raise ValueError(
                f"the input must be [B, L, H, T, D] with {self.num_layers} layers, "
                f"got shape {list(x.shape)}"
            )
        return self.project_layers(x, identity_rows(self.num_layers))

    def project_layers(self, x_BLHTD: Tensor, rows: Rows) -> Tensor:
        """Sum the layers by `rows` and map the heads in one pass over the input.

        Args:
            x_BLHTD: [B, L_t, H_in, T, D_in].
            rows: the non-zero weights of a layer map, from `sparse_rows`.

        Returns:
            [B, L, H_out, T, D_out] in the dtype of the input.
        """
        heads, dim = x_BLHTD.shape[2], x_BLHTD.shape[4]
        if (heads, dim, len(rows)) != (self.num_heads_in, self.head_dim_in, self.num_layers):
            raise ValueError(
                f"the input has {heads} heads of {dim} for {len(rows)} layers, but the projector "
                f"was made for {self.num_heads_in} heads of {self.head_dim_in} in "
                f"{self.num_layers} layers"
            )
        if self.rank is None:
            return apply_matrix(x_BLHTD, self.weight, self.num_heads_out, rows, self.bias)
        return apply_terms(x_BLHTD, self.head_mix, self.dim_map, rows, self.bias)

    def extra_repr(self) -> str:
        """The geometry, for print(module)."""
        rank = "full" if self.rank is None else f"rank={self.rank}, per_head={self.per_head}"
        return (
            f"{self.num_layers} layers, {self.num_heads_in}×{self.head_dim_in} -> "
            f"{self.num_heads_out}×{self.head_dim_out}, {rank}"
        )
