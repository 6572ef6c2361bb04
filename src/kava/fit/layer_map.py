"""A layer map from a measurement, together with that measurement, and its file.

The file is a layer map as `kava.align.load_layer_map` reads it, with the measurement beside the
weights.

Shapes: L_s/L_t layers of student and teacher.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kava.align import cka_layer_map, load_layer_map
from kava.align.layers.cka_map import DEFAULT_TOP_K
from kava.align.layers.layer_map import layer_map_text
from kava.files.write import write_whole
from kava.fit.layer_similarity import LayerSimilarity
from kava.inputs import read_json

MEASUREMENT = "cka"
"""Key of the file under which the measurement stands."""


@dataclass(frozen=True, eq=False)
class LayerMapping:
    """Which teacher layers each student layer reads, and why.

    Args:
        weights: [L_s, L_t] float32, rows sum to 1.
        similarity: what was measured.
        strategy: how the weights follow from the mean of keys and values.
        top_k: of the strategy top_k; None for others.
        facts: what was measured on: models, data and its hash, versions.
    """

    weights: Tensor
    similarity: LayerSimilarity
    strategy: str
    top_k: int | None
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write the map as JSON, whole or not at all."""
        write_whole(path, self.to_json())

    def to_json(self) -> str:
        """The text that `save` writes."""
        measured = {
            "strategy": self.strategy,
            "top_k": self.top_k,
            "keys": self.similarity.keys.tolist(),
            "values": self.similarity.values.tolist(),
            "mean": self.similarity.mean.tolist(),
            "num_positions": self.similarity.num_positions,
        }
        return layer_map_text(self.weights, {MEASUREMENT: measured, **self.facts})

    @classmethod
    def load(cls, path: str | Path) -> LayerMapping:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: no layer map, or one that was not measured.
        """
        weights = load_layer_map(path)
        record = read_json(path)
        measured = record.get(MEASUREMENT)
        if measured is None:
            raise ValueError(
                f"{path} is a layer map without a measurement; make one with kava layer-map"
            )
        keys, values = (torch.tensor(measured[k], dtype=torch.float64) for k in ("keys", "values"))
        own = {"format", "num_teacher_layers", "num_student_layers", "weights", MEASUREMENT}
        return cls(
            weights,
            LayerSimilarity(keys, values, measured["num_positions"]),
            measured["strategy"],
            measured["top_k"],
            {name: value for name, value in record.items() if name not in own},
        )

    def __str__(self) -> str:
        """The mean of keys and values as a table, and what each student layer reads."""
        cka = self.similarity.mean
        width = max(len("student"), len(str(len(cka))))
        head = "".join(f"{layer:>7}" for layer in range(cka.shape[1]))
        lines = [f"{'student':>{width}}{head}   reads"]
        for layer, row in enumerate(cka.tolist()):
            cells = "".join(f"{value:>7.3f}" for value in row)
            lines.append(f"{layer:>{width}}{cells}   {self.row(layer)}")
        return "\n".join(lines)

    def row(self, student_layer: int) -> str:
        """What a student layer reads, such as "3" or "0.60·2 + 0.40·3"."""
        weights = self.weights[student_layer].tolist()
        read = [(layer, weight) for layer, weight in enumerate(weights) if weight]
        if len(read) == 1:
            return str(read[0][0])
        return " + ".join(f"{weight:.2f}·{layer}" for layer, weight in read)


def map_layers(
    similarity: LayerSimilarity,
    strategy: str = "top_k",
    top_k: int | None = None,
    **facts: Any,
) -> LayerMapping:
    """Make a layer map from measured similarities: the mean of keys and values, which share a map.

    Args:
        similarity: as `measure_layers` gives it.
        strategy: as in `kava.align.cka_layer_map`.
        top_k: of the strategy top_k; None: 2, or 1 where the teacher has one layer.
        facts: what to keep in the file beside the measurement; values that JSON can hold.

    Raises:
        ValueError: as `kava.align.cka_layer_map`.

    Example:
        >>> map_layers(similarity, "monotone").save("map.json")
    """
    if top_k is None:
        top_k = min(DEFAULT_TOP_K, similarity.mean.shape[1])
    weights = cka_layer_map(similarity.mean, strategy, top_k)
    return LayerMapping(
        weights, similarity, strategy, top_k if strategy == "top_k" else None, facts
    )
