"""safetensors files that hold their manifest as JSON in their header, read in place.

One rename writes tensors and manifest, so that neither can be of another time than the other.
A file is mapped into memory: a tensor is a view of it, and only what is looked at is read.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

from kava.files.write import write_whole
from kava.inputs import Malformed, parse_json

MANIFEST = "kava"
"""The key of the manifest in a file's header."""

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I8": torch.int8, "U8": torch.uint8,
}  # fmt: skip
_LENGTH_BYTES = 8
_PAGE = mmap.ALLOCATIONGRANULARITY


class DamagedFile(ValueError):  # noqa: N818
    """A file that cannot be read; the message names it and says what is wrong."""


class Place(NamedTuple):
    """Where a tensor stands in its file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """Bytes from the beginning of the file."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry along the first axis."""
        count = 1
        for size in self.shape[1:]:
            count *= size
        return count * self.dtype.itemsize


def write_tensors(
    path: str | Path, parts: Mapping[str, Tensor], manifest: Mapping[str, Any]
) -> tuple[str, int]:
    """Write a file, whole or not at all.

    Returns:
        its sha256 in hexadecimal, and its bytes.

    Raises:
        OSError: it cannot be written; an earlier file is as it was.
    """
    content = save(dict(parts), {MANIFEST: json.dumps(manifest)})
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest(), len(content)


class TensorFile:
    """A file of tensors, mapped into memory.

    Args:
        path: of a file that `write_tensors` wrote.

    Raises:
        OSError: it is not there.
        DamagedFile: it was cut or overwritten, or holds no manifest.

    Example:
        >>> shard = TensorFile("store/targets/shard-00000.safetensors")
        >>> shard.rows("keys", 3, 5).shape
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise OSError(f"{self.path} is missing")
        size = self.path.stat().st_size
        try:
            with self.path.open("rb") as file:
                length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
                if not 0 < length <= size - _LENGTH_BYTES:
                    raise DamagedFile(f"{self.path} is damaged: it was cut, or is no safetensors")
                header = parse_json(file.read(length).decode(), self.path)
            manifest = header.pop("__metadata__")[MANIFEST]
            self.manifest: dict[str, Any] = parse_json(manifest, self.path)
            begin = _LENGTH_BYTES + length
            self.places = {name: _place(about, begin) for name, about in header.items()}
            end = begin + max(about["data_offsets"][1] for about in header.values())
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            if isinstance(error, DamagedFile):
                raise
            reason = "its header cannot be read" if isinstance(error, Malformed) else repr(error)
            raise DamagedFile(f"{self.path} is damaged: {reason}") from error
        if end != size:
            raise DamagedFile(
                f"{self.path} is damaged: its header tells of {end:,} bytes, and it has {size:,}"
            )
        with self.path.open("rb") as file:
            # copy on write: torch wants memory that could be written, and nothing writes to it
            self._file = os.fdopen(os.dup(file.fileno()), "rb", buffering=0)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def __len__(self) -> int:
        return len(self._map)

    @property
    def stamp(self) -> tuple[int, int, int]:
        """Which file this is: another one if it was written again."""
        about = os.fstat(self._file.fileno())
        return about.st_ino, about.st_size, about.st_mtime_ns

    def tensor(self, name: str) -> Tensor:
        """A whole tensor, a view of the file."""
        shape = self.places[name].shape
        return self.rows(name, 0, shape[0]) if shape else self._view(name, 0, 1).view(())

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Entries start:stop along a tensor's first axis, a view of the file."""
        return self._view(name, start, stop)

    def announce(self, name: str, start: int, stop: int) -> None:
        """Have the system read entries from the disk that are looked at next."""
        place = self.places[name]
        first = place.start + start * place.row_bytes
        aligned = first // _PAGE * _PAGE
        length = place.start + stop * place.row_bytes - aligned
        if length > 0 and hasattr(mmap, "MADV_WILLNEED"):
            self._map.madvise(mmap.MADV_WILLNEED, aligned, length)

    def read_into(self, name: str, start: int, stop: int, out: Tensor) -> None:
        """Read entries start:stop into a tensor of their dtype: one copy, without a look at them.

        Raises:
            DamagedFile: the file ends before them.
        """
        place = self.places[name]
        room = out.view(-1).numpy().data.cast("B")
        offset = place.start + start * place.row_bytes
        assert len(room) == (stop - start) * place.row_bytes
        while room:
            count = os.preadv(self._file.fileno(), [room], offset)
            if not count:
                raise DamagedFile(f"{self.path} is damaged: it was cut while it was read")
            room, offset = room[count:], offset + count

    def _view(self, name: str, start: int, stop: int) -> Tensor:
        place = self.places[name]
        shape = (stop - start, *place.shape[1:])
        if stop <= start or not place.row_bytes:
            return torch.empty(shape, dtype=place.dtype)
        return torch.frombuffer(
            self._map,
            dtype=place.dtype,
            count=(stop - start) * place.row_bytes // place.dtype.itemsize,
            offset=place.start + start * place.row_bytes,
        ).view(shape)


def _place(about: Mapping[str, Any], begin: int) -> Place:
    start, stop = about["data_offsets"]
    found = Place(_DTYPES[about["dtype"]], tuple(about["shape"]), begin + start)
    count = found.shape[0] if found.shape else 1
    if stop - start != count * found.row_bytes:
        raise DamagedFile(f"its header gives {about} bytes that do not fit")
    return found
