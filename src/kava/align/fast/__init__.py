"""The fast contraction, whose backward pass is written by hand, and its plain reference.

Everything else calls `kava.align.linear_maps`, which chooses between the two.
"""
