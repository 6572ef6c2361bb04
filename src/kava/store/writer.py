"""Writing a tier of a store, shard by shard.

Shapes: S slots of a shard, M of a sample; a slot is a kept position or a token.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kava.store.forms import FormError, pack
from kava.store.manifest import MANIFEST_FILE, Manifest, Shard
from kava.store.tensor_file import write_tensors

CACHE_PARTS = ("keys", "values", "queries")
SLOTS = -1
"""In a part's axes: the place of the slots, whose number differs from sample to sample."""
SHARD_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class Item:
    """What is stored of one sample.

    Args:
        id: of the sample.
        digest: of all that its numbers depend on beside the store's settings.
        length: M.
        cache: keys, values and perhaps queries, [L, H, M, D].
        slots: further parts of the slots, with M at the end: columns, positions, scores, weights.
        whole: parts of the sample, without slots.
    """

    id: str
    digest: bytes
    length: int
    cache: Mapping[str, Tensor]
    slots: Mapping[str, Tensor]
    whole: Mapping[str, Tensor]


def checksum(parts: Mapping[str, Tensor]) -> int:
    """CRC-32 of a sample's parts as they are stored, by name."""
    value = 0
    for name in sorted(parts):
        flat = parts[name].contiguous().flatten()
        value = zlib.crc32(flat.view(torch.uint8).numpy().data, value)
    return value


class TierWriter:
    """Writes the samples of a tier.

    A shard is gathered in memory and written whole; the manifest follows it. What was added since
    the last shard is lost where the process ends, and is added again by the next one.

    Args:
        store: the folder.
        tier: its folder in the store.
        shard_bytes: a shard is written when it holds as many bytes.
        file: the manifest that lists the shards.
        numbers: of the shards; None: those behind the manifest's.
    """

    def __init__(
        self,
        store: Path,
        tier: str,
        shard_bytes: int = SHARD_BYTES,
        *,
        file: str = MANIFEST_FILE,
        numbers: Iterator[int] | None = None,
    ):
        self.store = store
        self.tier = tier
        self.shard_bytes = shard_bytes
        self.file = file
        self.numbers = numbers
        self.error = FormError()
        self._items: list[tuple[Item, dict[str, Tensor]]] = []
        self._axes: dict[str, list[int]] = {}
        self._bytes = 0

    def continue_from(self, manifest: Manifest) -> None:
        """Count what the form lost on from an earlier process."""
        earlier = manifest.errors.get(self.tier)
        if earlier:
            self.error = FormError(**{name: dict(part) for name, part in earlier.items()})

    def add(self, item: Item, manifest: Manifest) -> Manifest:
        """Add a sample; the manifest with a further shard where it filled one.

        Raises:
            ValueError: numbers that the form cannot hold; the message names the sample.
            OSError: a shard cannot be written.
        """
        parts: dict[str, Tensor] = {}
        for name, part in item.cache.items():
            try:
                packed = pack(name, part.cpu(), manifest.settings["form"])
            except ValueError as error:
                raise ValueError(f"sample {item.id!r}: {error}") from error
            self.error.see(name, part.cpu(), packed)
            for kind, stored in packed.items():
                self._axes[kind] = list(stored.shape)
                self._axes[kind][2] = SLOTS
                parts[kind] = stored
        for name, part in item.slots.items():
            parts[name] = part.cpu().contiguous()
            self._axes[name] = [*part.shape[:-1], SLOTS]
        for name, part in item.whole.items():
            parts[name] = part.cpu().contiguous()
            self._axes[name] = list(part.shape)
        self._items.append((item, parts))
        self._bytes += sum(part.nbytes for part in parts.values())
        return self.flush(manifest) if self._bytes >= self.shard_bytes else manifest

    def flush(self, manifest: Manifest) -> Manifest:
        """Write what was added since the last shard; the manifest with it."""
        if not self._items:
            return manifest
        items, rows = zip(*self._items)
        lengths = torch.tensor([item.length for item in items], dtype=torch.int32)
        digests = torch.tensor([list(item.digest) for item in items], dtype=torch.uint8)
        sums = torch.tensor([checksum(parts) for parts in rows], dtype=torch.int64)
        tensors = {"digests": digests, "lengths": lengths, "checksums": sums}
        for name, axes in self._axes.items():
            blocks = [parts[name] for parts in rows]
            if SLOTS in axes:
                # a sample's block stands as it is; its slots are counted along the first axis
                width = 1
                for size in axes:
                    width *= 1 if size == SLOTS else size
                flat = torch.cat([block.reshape(-1) for block in blocks])
                tensors[name] = flat.view(int(lengths.sum()), width)
            else:
                tensors[name] = torch.stack(blocks)
        number = manifest.next_number(self.tier) if self.numbers is None else next(self.numbers)
        file = f"shard-{number:05d}.safetensors"
        about = {
            "store": manifest.store_id,
            "tier": self.tier,
            "axes": self._axes,
            "ids": [item.id for item in items],
        }
        folder = self.store / self.tier
        folder.mkdir(parents=True, exist_ok=True)
        sha256, num_bytes = write_tensors(folder / file, tensors, about)
        shard = Shard(
            tier=self.tier,
            file=file,
            sha256=sha256,
            num_bytes=num_bytes,
            num_samples=len(items),
        )
        manifest = manifest.with_shard(shard, self.error.as_dict())
        manifest.save(self.store, self.file)
        self._items, self._bytes = [], 0
        return manifest
