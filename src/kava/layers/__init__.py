"""Layers of two models compared on real text, and the layer map that is read off it."""

from typing import TYPE_CHECKING

from kava.lazy import lazy_names

if TYPE_CHECKING:
    from kava.layers.mapping import LayerMapping, map_layers
    from kava.layers.similarity import LayerSimilarity, measure_layers

__all__ = ["LayerMapping", "LayerSimilarity", "map_layers", "measure_layers"]

__getattr__ = lazy_names(
    __name__,
    {
        "LayerMapping": "kava.layers.mapping",
        "LayerSimilarity": "kava.layers.similarity",
        "map_layers": "kava.layers.mapping",
        "measure_layers": "kava.layers.similarity",
    },
)
