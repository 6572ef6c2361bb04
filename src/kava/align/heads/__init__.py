"""Maps of heads and head dims: structured, per layer, or flat."""
