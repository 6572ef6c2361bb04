"""Manifests of the processes that extract one store together.

Each process lists its shards in a file of its own beside the manifest, `manifest-00001.json`, which
it locks while it works. The first process takes them all into the manifest when they are done; an
extraction that follows one that was interrupted does so before it begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from kava.files.locks import lock_file
from kava.store.forms import FormError
from kava.store.manifest import TIERS, Manifest, read_manifest
from kava.store.tensor_file import TensorFile

HOLDER = "kava extract"


def part_file(rank: int) -> str:
    """The name of a process's manifest."""
    return f"manifest-{rank:05d}.json"


def part_paths(store: Path) -> list[Path]:
    """The manifests of processes that stand beside a store's manifest."""
    return sorted(store.glob(f"manifest-{'[0-9]' * 5}.json"))


@contextmanager
def own_part(store: Path, manifest: Manifest, rank: int) -> Iterator[Manifest]:
    """A manifest without shards for the process, which others leave alone inside the block."""
    with lock_file(store / part_file(rank), HOLDER):
        part = replace(manifest, shards=(), errors={})
        part.save(store, part_file(rank))
        yield part


def merge_parts(store: Path, manifest: Manifest) -> Manifest:
    """Take the shards of all processes into a store's manifest, and remove their own manifests.

    Args:
        store: its folder, which is locked.
        manifest: its manifest.

    Raises:
        KavaError: a process is at work there.
        OSError: a file cannot be written.
        ValueError: a process's manifest is damaged or of another store.
    """
    for path in part_paths(store):
        with lock_file(path, HOLDER):
            part = read_manifest(store, file=path.name)
            if part.store_id != manifest.store_id:
                raise ValueError(f"{path} is of another store: take it away")
            # what is there already was taken in by a process that ended before it removed the part
            new = [shard for shard in part.shards if shard not in manifest.shards]
            if new:
                shards = sorted((*manifest.shards, *new), key=lambda one: (one.tier, one.file))
                errors = {
                    tier: _added(manifest.errors.get(tier), part.errors.get(tier))
                    for tier in TIERS
                    if tier in manifest.errors or tier in part.errors
                }
                manifest = replace(manifest, shards=tuple(shards), errors=errors)
                manifest.save(store)
            path.unlink()
    return manifest


def check_parts_free(store: Path) -> None:
    """Refuse a store that a process is still writing.

    Raises:
        KavaError: says which.
    """
    for path in part_paths(store):
        with lock_file(path, HOLDER):
            pass


def remove_unlisted(store: Path, manifest: Manifest) -> None:
    """Remove shards of this store that a killed process has written and not listed."""
    listed = {shard.path(store) for shard in manifest.shards}
    for tier in TIERS:
        for path in (store / tier).glob("shard-*.safetensors"):
            if path not in listed and _is_of(path, manifest):
                path.unlink()


def _is_of(path: Path, manifest: Manifest) -> bool:
    try:
        return TensorFile(path).manifest.get("store") == manifest.store_id
    except (OSError, ValueError):
        return False


def _added(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a form has lost in two processes."""
    total = FormError()
    for part in filter(None, (one, other)):
        total.add(FormError(**part))
    return total.as_dict()
