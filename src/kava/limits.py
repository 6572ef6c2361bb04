"""Limits that models and the machine set, checked before any data are read or weights loaded."""

from __future__ import annotations


def check_map_rank(text: str) -> None:
    """Hold `--map_rank` to its form.

    Raises:
        ValueError: neither a number above 0 nor auto.

    Example:
        >>> check_map_rank("8")
    """
    number = text.isascii() and text.isdecimal() and int(text[:9]) > 0
    if not number and text != "auto":
        raise ValueError(f"--map_rank {text!r} must be a number above 0, or auto")
