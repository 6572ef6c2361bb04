"""Reading samples of a tier in any order, in place, without reading a shard whole.

Of every shard its header, the samples' digests and their lengths are read once; of a sample what
is asked for. A few shards at a time are mapped, so that memory does not grow with the store.

Shapes: N samples, M slots of a sample.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from kava.store.fingerprints import DIGEST_SIZE
from kava.store.forms import STEPS
from kava.store.manifest import Manifest, Shard
from kava.store.tensor_file import DamagedFile, TensorFile
from kava.store.writer import CACHE_PARTS, SLOTS, checksum

MAPPED = 4
"""Shards that are mapped at a time."""
_ABOUT = ("digests", "lengths", "checksums")


class Tier:
    """The samples of a tier, by what they say.

    Args:
        store: the folder.
        manifest: its manifest.
        tier: `kava.store.manifest.FULL` or `TARGETS`.
        checks: compare a sample's checksum the first time that it is read.

    Raises:
        OSError: a shard is missing; the message names it.
        ValueError: a shard was cut or changed, or is of another store; the message names it.

    Example:
        >>> tier = Tier(Path("store"), read_manifest("store"), "targets")
        >>> tier.read(0)["keys"].shape  # [L, H, M, D]
    """

    def __init__(self, store: Path, manifest: Manifest, tier: str, *, checks: bool = True):
        self.store = store
        self.name = tier
        self.shards = manifest.of_tier(tier)
        self.checks = checks
        self._open: OrderedDict[int, TensorFile] = OrderedDict()
        self._row_of: dict[bytes, int] = {}
        self._stamps: list[tuple[int, int, int]] = []
        place_of: list[int] = []
        shard_of, starts, lengths, sums = [], [], [], []
        for number, shard in enumerate(self.shards):
            file = open_shard(store, shard, manifest.store_id)
            self._stamps.append(file.stamp)
            lengths_N = file.tensor("lengths").numpy().astype(np.int64)
            digests = file.tensor("digests").numpy().tobytes()
            if lengths_N.sum() != file.places["keys"].shape[0]:
                raise DamagedFile(f"{file.path} is damaged: its samples are not as long as it is")
            for place in range(len(lengths_N)):
                digest = digests[place * DIGEST_SIZE : (place + 1) * DIGEST_SIZE]
                self._row_of.setdefault(digest, len(place_of) + place)
            shard_of.append(np.full(len(lengths_N), number))
            place_of.extend(range(len(lengths_N)))
            starts.append(np.cumsum(lengths_N) - lengths_N)
            lengths.append(lengths_N)
            sums.append(file.tensor("checksums").numpy().copy())
        empty = [np.zeros(0, dtype=np.int64)]
        self._shard_of = np.concatenate(shard_of or empty)
        self._place_of = np.array(place_of, dtype=np.int64)
        self._start_of = np.concatenate(starts or empty)
        self._sums = np.concatenate(sums or empty)
        self.lengths = np.concatenate(lengths or empty)
        self._checked = np.zeros(len(self.lengths), dtype=bool)

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, digest: bytes) -> int | None:
        """The row of a sample; None where it is not here."""
        return self._row_of.get(digest)

    def ids(self) -> set[str]:
        """The ids of all samples, for messages."""
        return {one for n in range(len(self.shards)) for one in self._file(n).manifest["ids"]}

    def read(self, row: int, names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The stored parts of a sample: views of the file, in the form that they have there.

        Args:
            row: from `row`.
            names: which parts; None: all.

        Raises:
            DamagedFile: its bytes are not those that were written.
        """
        file = self._file(int(self._shard_of[row]))
        axes: dict[str, list[int]] = file.manifest["axes"]
        unchecked = self.checks and not self._checked[row]
        wanted = [name for name in axes if unchecked or names is None or name in names]
        parts = {name: self._part(file, name, axes[name], row) for name in wanted}
        if unchecked:
            if checksum(parts) != int(self._sums[row]):
                sample = file.manifest["ids"][int(self._place_of[row])]
                raise DamagedFile(
                    f"{file.path} is damaged: sample {sample!r} is not as it was written; kava "
                    f"store verify names all that is, and kava extract makes up for it"
                )
            self._checked[row] = True
        return parts if names is None else {n: p for n, p in parts.items() if n in names}

    def read_into(self, row: int, name: str, out: Tensor) -> None:
        """Read a part of the slots into a contiguous tensor of its dtype and size."""
        start = int(self._start_of[row])
        file = self._file(int(self._shard_of[row]))
        file.read_into(name, start, start + int(self.lengths[row]), out)

    def announce(self, rows: Sequence[int], names: Sequence[str]) -> None:
        """Have the system read samples from the disk that are asked for next."""
        for row in rows:
            file, start = self._file(int(self._shard_of[row])), int(self._start_of[row])
            for name in names:
                if SLOTS in file.manifest["axes"].get(name, ()):
                    file.announce(name, start, start + int(self.lengths[row]))

    def _part(self, file: TensorFile, name: str, axes: list[int], row: int) -> Tensor:
        if SLOTS not in axes:
            place = int(self._place_of[row])
            return file.rows(name, place, place + 1).view(axes)
        start, length = int(self._start_of[row]), int(self.lengths[row])
        shape = [length if size == SLOTS else size for size in axes]
        return file.rows(name, start, start + length).view(shape)

    def _file(self, number: int) -> TensorFile:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        file = TensorFile(self.shards[number].path(self.store))
        if file.stamp != self._stamps[number]:
            raise DamagedFile(
                f"{file.path} was written again while this command read it: start it again, when "
                f"the extraction has ended"
            )
        self._open[number] = file
        if len(self._open) > MAPPED:
            self._open.popitem(last=False)
        return self._open[number]


def stored_names(names: Sequence[str]) -> list[str]:
    """The names of parts with those of their int8 steps."""
    return [*names, *(name + STEPS for name in names if name in CACHE_PARTS)]


def open_shard(store: Path, shard: Shard, store_id: str) -> TensorFile:
    """Map a shard, and hold it to what the manifest says of it.

    Raises:
        OSError: it is missing.
        DamagedFile: it was cut, or is of another store.
    """
    path = shard.path(store)
    if not path.is_file():
        raise OSError(f"{path} is missing: run kava extract again, which makes up for it")
    try:
        file = TensorFile(path)
    except DamagedFile as error:
        raise DamagedFile(f"{error}; run kava extract again, which makes up for it") from error
    if file.manifest.get("store") != store_id or file.manifest.get("tier") != shard.tier:
        raise DamagedFile(
            f"{path} is a shard of another store: take it away, and run kava extract again"
        )
    if len(file) != shard.num_bytes:
        raise DamagedFile(
            f"{path} has {len(file):,} bytes, and the manifest says {shard.num_bytes:,}; run kava "
            f"extract again, which makes up for it"
        )
    return file
