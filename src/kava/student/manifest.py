"""The manifest of a checkpoint: every file with its size and hash, written when all are there.

    manifest.json   {"format": 1, "files": {"optimizer.pt": {"bytes": 4812, "sha256": "…"}, …}}

A checkpoint with a manifest is whole, or what is missing, cut or changed is named. One without is
of an earlier version, or was put together by hand; its files are known by name alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kava.files.write import write_whole
from kava.inputs import read_json

MANIFEST_FILE = "manifest.json"
FORMAT = 1

Entry = dict[str, Any]


def write_manifest(folder: str | Path) -> None:
    """List the files of a folder; the last thing that is written into it.

    Args:
        folder: its files are read once, for their SHA-256.

    Raises:
        OSError: a file cannot be read, or the manifest not written.
    """
    folder = Path(folder)
    entries = {
        str(path.relative_to(folder)): _entry(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST_FILE
    }
    _write(folder, entries)


def amend(folder: str | Path, texts: Mapping[str, str]) -> None:
    """Replace small files of a folder; whenever it is interrupted, the manifest still fits.

    Args:
        folder: with a manifest.
        texts: name → new content.

    Raises:
        OSError: something cannot be written.
    """
    folder = Path(folder)
    entries = {**_read(folder)["files"]}
    coming = {
        name: {"bytes": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()}
        for name, text in texts.items()
    }
    _write(folder, entries, coming)
    for name, text in texts.items():
        write_whole(folder / name, text)
    _write(folder, entries | coming)


def find_damage(
    folder: str | Path, *, counts: Callable[[str], bool] = lambda _: True, hashes: bool = False
) -> str | None:
    """What is wrong with the files of a folder, by its manifest.

    Args:
        folder: one without a manifest has nothing to be held to.
        counts: whether a file of this name matters; left out, all do.
        hashes: read every file and compare its SHA-256 too; a size alone needs no reading.

    Returns:
        What is missing, cut or changed, in words; None for a folder that is whole.
    """
    folder = Path(folder)
    if not (folder / MANIFEST_FILE).exists():
        return None
    try:
        manifest = _read(folder)
    except (OSError, ValueError) as error:
        return str(error)
    wanted = {name: entry for name, entry in manifest["files"].items() if counts(name)}
    for name, entry in wanted.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        size, sizes = path.stat().st_size, [entry["bytes"]]
        if name in manifest["coming"]:
            sizes.append(manifest["coming"][name]["bytes"])
        if size not in sizes:
            return f"{path} has {size:,} bytes in place of {entry['bytes']:,}: damaged or truncated"
    for name, entry in wanted.items() if hashes else ():
        if _entry(folder / name) not in (entry, manifest["coming"].get(name)):
            return f"{folder / name} is damaged: its SHA-256 is not the one that was written"
    return None


def _entry(path: Path) -> Entry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _write(
    folder: Path, files: Mapping[str, Entry], coming: Mapping[str, Entry] | None = None
) -> None:
    manifest = {"format": FORMAT, "files": files, **({"coming": coming} if coming else {})}
    write_whole(folder / MANIFEST_FILE, json.dumps(manifest, indent=2) + "\n")


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_FILE
    try:
        manifest = read_json(path)
        known = manifest["format"] == FORMAT
        entries = [*manifest["files"].values(), *manifest.setdefault("coming", {}).values()]
        fits = all(isinstance(entry["bytes"], int) and entry["sha256"] for entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    if not known or not fits:
        raise ValueError(f"{path} is damaged, or of another version of kava")
    return dict(manifest)
