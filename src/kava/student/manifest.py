"""The manifest of a checkpoint: every file with its size and hash, written last.

    manifest.json   {"format": 1, "files": {"optimizer.pt": {"bytes": 4812, "sha256": "…"}, …}}

With a manifest, missing, truncated or changed files are found and named. A checkpoint without one
is from an earlier version or was assembled by hand; its files are known only by name.
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
    """Write the manifest of a folder, after all its other files.

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
    """Replace small files of a folder so that the manifest stays valid at every moment.

    Args:
        folder: a folder with a manifest.
        texts: new content by file name.

    Raises:
        OSError: a file cannot be written.
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
    """Check the files of a folder against its manifest.

    Args:
        folder: without a manifest nothing is checked.
        counts: whether to check a file of this name; by default all files.
        hashes: also read every file and compare its SHA-256; sizes need no reading.

    Returns:
        A description of what is missing, truncated or changed; None if nothing is.
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
