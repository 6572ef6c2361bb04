"""Read and check `kava.json`, which describes the student of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kava.data.records import Template
from kava.inputs import Malformed, read_json, shown
from kava.names import NO_CHAT

FORMAT = 1
"""Version of the layout of `kava.json`; other versions are refused."""

SETTINGS_FILE = "kava.json"

_STUDENTS = ("latent", "explicit")
_OBJECTS = ("config", "versions", "machine")
"""The parts that must be JSON objects if present."""


def read_settings(directory: str | Path) -> dict[str, Any]:
    """The content of a checkpoint's `kava.json`.

    Raises:
        OSError: the file is missing.
        ValueError: the file is damaged, of another version, or a part has the wrong type.

    Example:
        >>> read_settings("outputs/run/checkpoint-500")["student"]
        'latent'
    """
    path = Path(directory) / SETTINGS_FILE
    if not path.is_file():
        raise OSError(
            f"{path} is missing: the save was interrupted, or the folder was not written by "
            f"kava train; take another checkpoint"
        )
    try:
        settings = read_json(path)
    except Malformed as error:
        raise ValueError(f"{path} is damaged ({error}); take another checkpoint") from error
    found = settings.get("format") if isinstance(settings, dict) else None
    # true and 1.0 equal 1, but are not versions
    if type(found) is not int or found != FORMAT:
        raise ValueError(
            f"{path} has format {shown(found)}, this version of kava reads {FORMAT}: use the "
            f"version that wrote it, or train again"
        )
    if settings.get("student") not in _STUDENTS:
        raise _damaged(path, "student", settings.get("student"), " or ".join(_STUDENTS))
    for name in _OBJECTS:
        if not isinstance(settings.get(name, {}), dict):
            raise _damaged(path, name, settings[name], "a JSON object")
    if not isinstance(settings.get("data_hash", ""), str):
        raise _damaged(path, "data_hash", settings["data_hash"], "text")
    template_of(settings, path)
    return dict(settings)


def template_of(settings: Mapping[str, Any], path: Path) -> Template:
    """The template of a checkpoint's settings.

    Args:
        settings: content of `kava.json`.
        path: the file, for messages.

    Raises:
        ValueError: the template is missing, or not one of this version.
    """
    try:
        return Template(**settings["template"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its template is missing or has other fields ({error})") from None


def _damaged(path: Path, name: str, value: object, kind: str) -> ValueError:
    return ValueError(
        f"{path} is damaged: its {name!r} is {shown(value)} in place of {kind}; take another "
        f"checkpoint"
    )


def check_chat(settings: Mapping[str, Any], path: str, chat_template: str) -> None:
    """Refuse a chat template that was named for a trained student.

    Args:
        settings: of the student; empty for a plain model.
        path: of the student, for the message.
        chat_template: none, tokenizer or the path of a .jinja file.

    Raises:
        ValueError: a trained student, and another value than none.
    """
    if settings and chat_template != NO_CHAT:
        raise ValueError(
            f"--chat_template {chat_template} is of a plain model, and {path} is a trained "
            f"student, which keeps the prompt of its training: leave it out"
        )
