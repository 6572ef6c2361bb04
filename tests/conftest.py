"""What all tests share: no network, one thread, tiny models of every family, real material."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Read once, when huggingface_hub is imported: before any import that brings it in.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from transformers import PreTrainedModel

from families import FAMILIES

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("KAVA_SHARED", ROOT.parent / "shared"))

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it


MODELS = Path(os.environ.get("KAVA_MODELS", "~/.cache/kava-models")).expanduser()
NEEDED = {
    "shared": (SHARED, "the development data is not at {}; set KAVA_SHARED to its folder"),
    "pretrained": (MODELS, "the pretrained models are not at {}; set KAVA_MODELS to their folder"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for marker, (folder, reason) in NEEDED.items():
        if folder.is_dir():
            continue
        for item in items:
            if marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason.format(folder)))


@pytest.fixture(params=FAMILIES)
def family_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A tiny model of each family in turn."""
    return FAMILIES[request.param]()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models, tokenizers and data; tests that use it are marked `shared`."""
    return SHARED
