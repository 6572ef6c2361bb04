"""Where models lie: what a folder of one holds, and folders of models."""

from __future__ import annotations

from pathlib import Path

CONFIG_FILE = "config.json"


def in_store(store: Path, name: str) -> Path | None:
    """The folder of a model in a folder of models, as `org/name` or `name`; None if it has none.

    Args:
        store: with a folder for each model.
        name: on the hub. What is built in, exists here, or is written as a path is not looked up.
    """
    if name.startswith(("kava/", ".", "~", "/")) or not name or Path(name).exists():
        return None
    places = (store / name, store / Path(name).name)
    return next((place for place in places if (place / CONFIG_FILE).is_file()), None)
