"""Alignment of a student's tokens with those of a teacher whose tokenizer differs."""

from __future__ import annotations

from kava.align.overlap import TokenAlignment, align_many, align_offsets

__all__ = ["TokenAlignment", "align_many", "align_offsets"]
