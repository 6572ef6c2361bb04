"""Give a trained student to others: a folder that other programs read, a model card, the hub."""
