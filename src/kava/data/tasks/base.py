"""A task: questions with known answers, from the Hugging Face hub or from a local file.

Each file of this folder describes the rows of one task, from either source. Ids of samples begin
with the task's name, so that tasks can be mixed and scored together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from kava.data.answers import Judge
from kava.data.fields import Row
from kava.data.files import find_files, format_of, rows_of, stem_of
from kava.data.records import Record
from kava.data.rows import PlacedRow, RowReader, read_rows
from kava.data.tables import is_saved

Reader = Callable[[Row, str, str, RowReader], Record]
"""Maps a row, its default id, its place for messages and the reader to a record."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of the registry.

    Attributes:
        name: its name in `load_records` and `kava evaluate --tasks`.
        hub: the repository on the Hugging Face hub, and its configuration.
        hub_splits: our name of a split → the hub's name.
        files: possible names of a split's file in a local folder, in order of preference; a file
            without a split is used for all.
        read: turns a row into a record.
        reasons: whether its rows contain a chain of thought.
        aliases: other names of the task.
        folder: name of the task's subfolder in a folder with the data of many tasks.
        formats: ending of a file → its rows, for a format that only this task has.
        judge: how its answers are judged, where their kind alone does not say it.
    """

    name: str
    hub: tuple[str, str | None]
    hub_splits: Mapping[str, str]
    files: Mapping[str, tuple[str, ...]]
    read: Reader
    reasons: bool = True
    aliases: tuple[str, ...] = ()
    folder: str
    formats: Mapping[str, Callable[[Path], Iterator[PlacedRow]]] = field(default_factory=dict)
    judge: Judge | None = None

    def load(self, path: str | None, split: str, reader: RowReader) -> list[Record]:
        """Load all records of a split.

        Args:
            path: a local file, or a folder that holds it; None reads the hub.
            split: "train" or "test"; ignored for a path to a file, which has only one split.
            reader: the requested form of reasoning.

        Raises:
            ValueError: a hub that cannot be reached, a missing split or file, a malformed row (the
                message names its place), a repeated id, an empty file.

        Example:
            >>> TASKS["svamp"].load("SVAMP.json", "test", RowReader())
        """
        if path is None and split not in self.hub_splits:
            raise ValueError(
                f"split={split!r} is not in {self.name}; choose {' or '.join(self.hub_splits)}"
            )
        files = [] if path is None else self._files(path, split)
        rows = self._rows(files, split) if files else self._hub(split)
        part = split if not files or files[0].is_dir() else stem_of(files[0])
        prefix = f"{self.name}-" if part.lower() == self.name else f"{self.name}-{part}-"
        numbers = count()  # counts rows, not lines as PlacedRow does

        def read(row: PlacedRow) -> Record:
            record = self.read(row.fields, f"{prefix}{next(numbers)}", row.where, reader)
            if self.judge is None:
                return record
            return replace(record, meta={**record.meta, "judge": self.judge})

        return read_rows(rows, read, str(files[0]) if files else self.hub[0], self.name)

    def _rows(self, files: Sequence[Path], split: str) -> Iterator[PlacedRow]:
        if (own := self.formats.get(format_of(files[0]))) is not None:
            return own(files[0])
        return rows_of(files, (split, self.hub_splits.get(split, split)))

    def _hub(self, split: str) -> Iterator[PlacedRow]:
        import datasets

        repository, configuration = self.hub
        try:
            rows = datasets.load_dataset(
                repository, configuration or "default", split=self.hub_splits[split]
            )
        except (OSError, datasets.exceptions.DatasetsError) as problem:
            raise ValueError(
                f"{self.name} cannot be loaded from the Hugging Face hub "
                f"({type(problem).__name__}); check the connection, or give the path of a local "
                f"{self.files[split][0]} as {self.name}:PATH"
            ) from problem
        return (
            PlacedRow(index, f"row {index} of {self.name} {split}", row)
            for index, row in enumerate(rows)
        )

    def _files(self, name: str, split: str) -> list[Path]:
        path = Path(name).expanduser()
        if path.is_dir() and not is_saved(path):
            known = self.files.get(split)
            if known is None:
                raise ValueError(
                    f"split={split!r} is not in {self.name}; choose {' or '.join(self.files)}"
                )
            stems = dict.fromkeys(Path(file).stem for file in known)
            found = find_files(path, [*known, *stems])
            if not found:
                raise ValueError(
                    f"the folder {name} holds no {' or '.join(known)} of {self.name}, nor one of "
                    f"them as .csv or .parquet"
                )
            return found
        if not path.is_file() and not is_saved(path):
            raise ValueError(
                f"{self.name}:{name}: there is no such file or folder; mend the path, or leave it "
                f"out to read {self.name} from the Hugging Face hub"
            )
        return [path]
