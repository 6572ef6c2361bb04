"""Layers of two models compared on real text, and the layer map that is read off it."""

from kava.layers.mapping import LayerMapping, map_layers
from kava.layers.similarity import LayerSimilarity, measure_layers

__all__ = ["LayerMapping", "LayerSimilarity", "map_layers", "measure_layers"]
