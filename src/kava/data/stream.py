"""Rows of a file, a folder or the hub, one after the other, in an order that a seed decides.

Nothing but a buffer is held: `datasets` shuffles by it (the row that comes next takes the place of
one that is drawn from the buffer), so that the order is random within about as many rows as it
holds. Each pass has an order of its own, and the same seed gives the same orders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kava.data.files import format_of, rows_of, stem_of
from kava.data.records import Record
from kava.data.rows import PlacedRow, RowReader
from kava.data.sources import files_of
from kava.data.tasks import find_task
from kava.data_settings import RowSettings
from kava.dataset_names import builtin_task, is_gym, is_mix

if TYPE_CHECKING:
    from datasets import IterableDataset

_HEAD = 2**20
"""Bytes of a file that its fingerprint reads."""


@dataclass(frozen=True)
class RecordStream:
    """The records of a source, read while they are used.

    Args:
        name: a path as `load_records` takes it, or a data set of the hub such as "owner/name".
        split: of a folder, a saved data set or the hub.
        rows: the fields of a row, and the form of its reasoning.
        buffer: rows that are held and shuffled.
        seed: of the order.

    Example:
        >>> stream = RecordStream("train.jsonl", "train", RowSettings(), buffer=1000, seed=0)
        >>> first = next(stream.records(0))
    """

    name: str
    split: str
    rows: RowSettings
    buffer: int
    seed: int

    def check(self) -> None:
        """Refuse a name that cannot be streamed, before anything is read.

        Raises:
            ValueError: data that are made or mixed in memory, a task, a .json file, or no file.
        """
        name = self.name
        made = builtin_task(name) is not None or is_gym(name) or is_mix(name)
        if made or find_task(name) is not None:
            raise ValueError(
                f"--streaming reads a file, a folder or a data set of the hub while training, and "
                f"{name} is read or made whole: leave it out"
            )
        if self._on_hub:
            return
        for path in files_of(name, self.split):
            if path.is_file() and format_of(path) == ".json":
                raise ValueError(
                    f"--streaming: {path} is one JSON value, which is read whole: write a row on "
                    f"each line (.jsonl), or leave --streaming out"
                )

    @property
    def _on_hub(self) -> bool:
        """Whether the name is owner/name, and no path."""
        path = Path(self.name).expanduser()
        local = path.exists() or self.name.startswith((".", "~", "/")) or path.parent.is_dir()
        return self.name.count("/") == 1 and not path.suffix and not local

    def records(self, number: int) -> Iterator[Record]:
        """The records of a pass.

        Args:
            number: of the pass, from 0.

        Raises:
            ValueError: a malformed row, named by file and line; a hub that gives nothing.
        """
        reader = RowReader(self.rows, on_missing="report")
        files = [] if self._on_hub else files_of(self.name, self.split)
        stem = stem_of(files[0]) if len(files) == 1 and files[0].is_file() else self.split
        shuffled = self._dataset(files).shuffle(seed=self.seed + number, buffer_size=self.buffer)
        for row in shuffled:
            yield reader.read(row["fields"], f"{stem}-{row['number']}", row["where"])

    def _dataset(self, files: list[Path]) -> IterableDataset:
        from datasets import IterableDataset

        split, name = self.split, self.name
        if files:

            def rows() -> Iterator[dict[str, Any]]:
                for row in rows_of(files, (split,)):
                    yield row._asdict()

            return IterableDataset.from_generator(rows)

        def from_hub() -> Iterator[dict[str, Any]]:
            for number, fields in enumerate(_hub_rows(name, split)):
                yield PlacedRow(number, f"{name}, {split}, row {number}", fields)._asdict()

        return IterableDataset.from_generator(from_hub)

    def fingerprint(self) -> str:
        """A hash of what is read: names, sizes and first MiB of files, or the name on the hub."""
        digest = hashlib.sha256(self.split.encode())
        if self._on_hub:
            digest.update(self.name.encode())
            return digest.hexdigest()
        for path in files_of(self.name, self.split):
            inside = sorted(path.rglob("*")) if path.is_dir() else [path]
            for file in inside:
                if file.is_file():
                    digest.update(f"{file.name} {file.stat().st_size}".encode())
                    with file.open("rb") as opened:
                        digest.update(opened.read(_HEAD))
        return digest.hexdigest()


def _hub_rows(name: str, split: str) -> Iterator[dict[str, Any]]:
    import datasets

    try:
        yield from datasets.load_dataset(name, split=split, streaming=True)
    except Exception as error:  # of the hub, of a script, of a format
        reason = " ".join(str(error).split())
        raise ValueError(
            f"the data set {name!r} ({split}) could not be read from the hub: {reason}; give the "
            f"path of a file, or check the name"
        ) from error
