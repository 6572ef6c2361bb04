"""A task: questions with known answers, from the Hugging Face hub or from a local file.

A task knows what its rows look like, wherever they come from; one file of this folder says so for
each. Names of samples begin with the task's, so that tasks can be mixed and scored side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from kava.data.fields import Row
from kava.data.files import find_files, format_of, rows_of, stem_of
from kava.data.records import Record
from kava.data.rows import PlacedRow, RowReader, read_rows
from kava.data.tables import is_saved
from kava.inputs import Malformed, text_lines

Reader = Callable[[Row, str, str, RowReader], Record]
"""From a row, the name it has by default, its place for messages, and the forms asked for."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of the registry.

    Attributes:
        name: what `load_records` and `kava evaluate --tasks` call it.
        hub: the repository on the Hugging Face hub, and its configuration.
        hub_splits: our name of a split → the hub's.
        files: what a local folder may call the file of a split, in the order in which they are
            looked for; a file that holds no split of its own serves for all.
        read: makes a record of a row.
        reasons: whether its rows hold written reasoning.
        aliases: other names of it.
        folder: what a folder of many tasks' data calls this one's.
    """

    name: str
    hub: tuple[str, str | None]
    hub_splits: Mapping[str, str]
    files: Mapping[str, tuple[str, ...]]
    read: Reader
    reasons: bool = True
    aliases: tuple[str, ...] = ()
    folder: str

    def load(self, path: str | None, split: str, reader: RowReader) -> list[Record]:
        """All records of a split.

        Args:
            path: a local file, or a folder that holds it; None reads the hub.
            split: "train" or "test"; a path to a file has one split only, and ignores it.
            reader: the forms of reasoning that are asked for.

        Raises:
            ValueError: a hub that cannot be reached, a split or file that does not exist, a
                malformed row (named by its place), a repeated id, an empty file.

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
        numbers = count()  # of rows, not of lines, as PlacedRow's

        def read(row: PlacedRow) -> Record:
            return self.read(row.fields, f"{prefix}{next(numbers)}", row.where, reader)

        return read_rows(rows, read, str(files[0]) if files else self.hub[0], self.name)

    def _rows(self, files: Sequence[Path], split: str) -> Iterator[PlacedRow]:
        if format_of(files[0]) == ".txt":
            return _divided(files[0])
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


def _divided(path: Path) -> Iterator[PlacedRow]:
    """Lines of `question||reasoning #### answer`, as GSM8K-Aug's files have them."""
    for line, text in text_lines(path):
        question, bars, answer = text.partition("||")
        if not bars:
            raise Malformed(path, line, "must be question||reasoning #### answer")
        yield PlacedRow(line - 1, f"{path}, line {line}", {"question": question, "answer": answer})
