"""The models of a plan, and which of them a shared store has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from kava.models.builtin import BUILTIN_NAMES, ENCODER_MODELS
from kava.models.places import CONFIG_FILE, in_store
from kava.study.plan import Plan
from kava.train.teacher_names import split_label

STORE_VARIABLES = ("KAVA_MODEL_STORE", "KAVA_MODEL_PATH", "SHARED_MODEL_DIR")
"""Environment variables that name the store, the first before the second."""

DEFAULT_MODEL = "kava/shell-teacher"


class Found(NamedTuple):
    """A model of a plan.

    Attributes:
        name: in the plan.
        place: its folder; None if it is nowhere.
        num_bytes: of the files in it; 0 of a built-in one.
        how: what to do, if it cannot be loaded by its name.
    """

    name: str
    place: Path | None
    num_bytes: int
    how: str

    @property
    def is_builtin(self) -> bool:
        """Whether it comes with the package."""
        return self.name in (*BUILTIN_NAMES, *ENCODER_MODELS)


def models_of(plan: Plan) -> list[str]:
    """The models that the arms of a plan load, each once.

    Example:
        >>> models_of(plan)
        ['kava/shell-llama', 'kava/shell-gpt2']
    """
    names: dict[str, None] = {}
    for arm in plan.arms:
        settings: dict[str, Any] = {**plan.base, **arm.changes}
        own = [settings.get("model_name", DEFAULT_MODEL), settings.get("teacher_name")]
        own += [split_label(str(name))[1] for name in settings.get("teachers") or ()]
        names.update(dict.fromkeys(str(name) for name in own if name is not None))
    return list(names)


def hub_cache() -> Path:
    """Where the hub's library keeps models."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()


def store_folder(given: str | None) -> Path | None:
    """The shared store: as given, else by the environment; None if none is named.

    Raises:
        ValueError: it is no folder.
    """
    named = given or next((os.environ[v] for v in STORE_VARIABLES if os.environ.get(v)), None)
    if named is None:
        return None
    store = Path(named).expanduser()
    if not store.is_dir():
        whence = "--store" if given else next(v for v in STORE_VARIABLES if os.environ.get(v))
        raise ValueError(f"{whence} {named} is no folder: name the shared folder of models")
    return store


def find_model(name: str, store: Path | None) -> Found:
    """Look a model up: as a folder, in the store, in the hub's cache.

    Args:
        name: as in a plan.
        store: with a folder for each model (org/name, name, or the hub's models--org--name).

    Example:
        >>> find_model("gpt2", Path("/home/share/models")).how
        'hf download gpt2 --local-dir /home/share/models/gpt2'
    """
    path = Path(name).expanduser()
    if name.startswith("kava/"):
        known = name in (*BUILTIN_NAMES, *ENCODER_MODELS)
        place = Path(__file__).parents[1] if known else None
        return Found(name, place, 0, "" if known else "there is no such built-in model")
    if path.is_dir():
        return _in_folder(name, path, "")
    if path.is_absolute() or name.startswith((".", "~")):
        return Found(name, None, 0, "this folder does not exist")
    cached = _snapshot(hub_cache(), name)
    if cached is not None:
        return _in_folder(name, cached, "")
    place = None if store is None else in_store(store, name)
    if place is not None:
        return _in_folder(name, place, f"in the plan, write {place} for {name}")
    shared = None if store is None else _snapshot(store, name) or _snapshot(store / "hub", name)
    if shared is not None and store is not None:
        cache = next(p for p in shared.parents if p.name.startswith("models--")).parent
        return _in_folder(name, shared, f"export HF_HUB_CACHE={cache}")
    target = "" if store is None else f" --local-dir {store / name}"
    return Found(name, None, 0, f"hf download {name}{target}")


def _snapshot(cache: Path, name: str) -> Path | None:
    """The newest snapshot of a model in a cache of the hub's library."""
    snapshots = (cache / f"models--{name.replace('/', '--')}" / "snapshots").glob(
        f"*/{CONFIG_FILE}"
    )
    return max((p.parent for p in snapshots), key=lambda p: p.stat().st_mtime, default=None)


def _in_folder(name: str, place: Path, how: str) -> Found:
    files = [file for file in place.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    if not (place / CONFIG_FILE).is_file():
        return Found(name, None, 0, f"{place} holds no {CONFIG_FILE}: copy the whole model there")
    if not any(file.suffix == ".safetensors" for file in files):
        return Found(name, None, 0, f"{place} holds no *.safetensors: copy the weights there")
    return Found(name, place, size, how)
