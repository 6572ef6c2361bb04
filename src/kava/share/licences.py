"""The licences that models state: in the model card of their folder, or on the hub."""

from __future__ import annotations

from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import yaml

from kava.models.builtin import BUILTIN_NAMES
from kava.names import without_given

CARD = "README.md"
DISTRIBUTION = "kava-distill"


def licence_of(name: str, *, ask_hub: bool = False) -> str | None:
    """The licence of a model.

    Args:
        name: a built-in name, a folder, or a name on the hub.
        ask_hub: ask the hub; without it, only a card that was downloaded before is read.

    Returns:
        What its card states, such as "apache-2.0"; None where it states nothing, or there is none
        to be read.

    Example:
        >>> licence_of("kava/shell-teacher")
        'Apache-2.0'
    """
    name = without_given(name)
    if name in BUILTIN_NAMES:
        return metadata(DISTRIBUTION).json.get("license_expression")  # type: ignore[return-value]
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _stated(folder / CARD)
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, CARD)
    except HFValidationError:  # neither a folder nor a name
        return None
    if isinstance(cached, str):
        return _stated(Path(cached))
    if not ask_hub:
        return None
    try:
        card: Any = HfApi().model_info(name).card_data
    except Exception:  # no such repository, no access, no network: nothing is stated
        return None
    return None if card is None else _licence_in(card)


def _stated(path: Path) -> str | None:
    """The licence in the header of a card; None without a card or where its header is damaged."""
    from huggingface_hub import ModelCard

    if not path.is_file():
        return None
    try:
        return _licence_in(ModelCard.load(path).data)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _licence_in(header: Any) -> str | None:
    found = header.get("license")
    # the hub knows a list of licences; of another one it has the name beside it
    found = header.get("license_name") if found == "other" else found
    return str(found) if found else None
