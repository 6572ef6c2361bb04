"""Routers: networks that give every teacher a share, from what the student has read.

Shapes: B batch, L layers, T positions, D features, N teachers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kava.names import ROUTERS


class LearnableRouter(nn.Module):
    """The shares of N teachers, from a query.

    Args:
        hidden_dim: D, features of a query.
        num_teachers: N.
        router_type: "mlp": layers of GELU; "gate": one linear layer; "attention": scaled dot
            product with a learned key for each teacher.
        num_layers: linear layers of the mlp, the last one included.
        dropout: within the mlp, while training.

    Raises:
        ValueError: an unknown type, or a size below 1.

    Example:
        >>> router = LearnableRouter(16, num_teachers=3)
        >>> router(torch.zeros(2, 16)).shape, router(torch.zeros(2, 5, 16)).shape
        (torch.Size([2, 3]), torch.Size([2, 5, 3]))
    """

    def __init__(
        self,
        hidden_dim: int,
        num_teachers: int,
        router_type: str = "mlp",
        num_layers: int = 2,
        dropout: float = 0.1,
    ):
        super().__init__()
        if router_type not in ROUTERS:
            raise ValueError(
                f"router_type={router_type!r} is unknown; choose from {', '.join(ROUTERS)}"
            )
        if min(hidden_dim, num_teachers, num_layers) < 1:
            raise ValueError(
                f"hidden_dim={hidden_dim}, num_teachers={num_teachers} and num_layers={num_layers} "
                f"must be at least 1"
            )
        self.hidden_dim, self.num_teachers = hidden_dim, num_teachers
        self.router_type = router_type
        # queries of models differ in scale by orders of magnitude
        self.norm = nn.LayerNorm(hidden_dim, elementwise_affine=False)
        if router_type == "attention":
            self.to_query = nn.Linear(hidden_dim, hidden_dim)
            self.teacher_keys = nn.Parameter(torch.randn(num_teachers, hidden_dim) * 0.02)
            return
        layers: list[nn.Module] = []
        for _ in range(num_layers - 1 if router_type == "mlp" else 0):
            layers += [nn.Linear(hidden_dim, hidden_dim), nn.GELU(), nn.Dropout(dropout)]
        last = nn.Linear(hidden_dim, num_teachers)
        # it starts without a preference
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def logits(self, query: Tensor) -> Tensor:
        """[.., D] → [.., N], before the softmax.

        Raises:
            ValueError: queries of other features.
        """
        if query.shape[-1] != self.hidden_dim:
            raise ValueError(
                f"the router reads queries of {self.hidden_dim} features, got {query.shape[-1]}"
            )
        query = self.norm(query)
        if self.router_type == "attention":
            return self.to_query(query) @ self.teacher_keys.T / self.hidden_dim**0.5
        scores: Tensor = self.layers(query)
        return scores

    def forward(self, query: Tensor, temperature: float = 1.0) -> Tensor:
        """The shares, which sum to 1."""
        return (self.logits(query) / temperature).softmax(-1)


class LayerRouters(nn.Module):
    """A router for the whole sample, or one for each layer.

    Args:
        num_layers: L of the student.
        hidden_dim: D, features of a layer's query.
        num_teachers: N.
        per_layer: whether each layer has a router of its own; else one reads the last layer.
        router_type: as in `LearnableRouter`.
    """

    def __init__(
        self,
        num_layers: int,
        hidden_dim: int,
        num_teachers: int,
        *,
        per_layer: bool = False,
        router_type: str = "mlp",
    ):
        super().__init__()
        self.per_layer = per_layer
        self.routers = nn.ModuleList(
            LearnableRouter(hidden_dim, num_teachers, router_type)
            for _ in range(num_layers if per_layer else 1)
        )

    def forward(self, query_BLD: Tensor) -> Tensor:
        """Logits [B, L or 1, N]."""
        last = len(self.routers)
        queries = query_BLD[:, -last:].unbind(1)
        scores = [router.logits(one) for router, one in zip(self.routers, queries)]  # type: ignore[operator]
        return torch.stack(scores, dim=1)
