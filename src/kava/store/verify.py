"""Finding damaged, missing and foreign shards of a store by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kava.format import counted
from kava.store.manifest import TIERS, Manifest, Shard, read_manifest
from kava.store.parts import part_paths
from kava.store.reader import open_shard

_BLOCK = 2**20


def whole_shards(store: Path, manifest: Manifest) -> tuple[tuple[Shard, ...], list[str]]:
    """The shards that are as they were written, and what is wrong with the others.

    Every byte is read.
    """
    usable, problems = [], []
    for shard in manifest.shards:
        problem = damage(store, shard, manifest.store_id)
        if problem is None:
            usable.append(shard)
        else:
            problems.append(problem)
    return tuple(usable), problems


def damage(store: Path, shard: Shard, store_id: str) -> str | None:
    """What is wrong with a shard; None where it is whole."""
    try:
        open_shard(store, shard, store_id)
    except (OSError, ValueError) as error:
        return str(error)
    path = shard.path(store)
    if sha256_of(path) != shard.sha256:
        return f"{path} is damaged: its content is not as it was written"
    return None


def foreign_files(store: Path, manifest: Manifest) -> list[str]:
    """Shards in a store's folders that its manifest does not list."""
    known = {shard.path(store) for shard in manifest.shards}
    found = []
    for path in part_paths(store):
        part = read_manifest(store, file=path.name)
        known |= {shard.path(store) for shard in part.shards}
        found.append(
            f"{path} lists {counted(len(part.shards), 'shard')} of an extraction by several "
            f"processes that has not ended; kava extract takes them in and goes on"
        )
    for tier in TIERS:
        for path in sorted((store / tier).glob("*.safetensors")):
            if path not in known:
                found.append(
                    f"{path} is in no manifest: of another store, or of an extraction that was "
                    f"killed; take it away"
                )
    return found


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
