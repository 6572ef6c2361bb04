"""The examples in the docstrings of the losses run, and the losses know no model library."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest
import torch

from kava.losses import KVLoss

MODULES = [
    "attention",
    "base",
    "cka",
    "codi",
    "guard",
    "kv",
    "latent_ce",
    "mercator",
    "positions",
    "schedule",
    "structural",
    "verdict",
    "weights",
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str) -> None:
    module = importlib.import_module(f"kava.losses.{name}")
    assert doctest.testmod(module, extraglobs={"torch": torch, "KVLoss": KVLoss}).failed == 0


def test_the_losses_never_import_transformers() -> None:
    code = "import sys, kava.losses; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
