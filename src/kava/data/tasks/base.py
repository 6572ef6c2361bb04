"""A task: questions with known answers, from the Hugging Face hub or from a local file.

A task knows what its rows look like, wherever they come from; one file of this folder says so for
each. Names of samples begin with the task's, so that tasks can be mixed and scored side by side.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kava.data.records import Record
from kava.data.rows import RowReader, json_lines

Row = Mapping[str, Any]
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
        rows = self._hub(split) if path is None else file_rows(self._file(path, split))
        part = split if path is None else self._file(path, split).stem
        prefix = f"{self.name}-" if part.lower() == self.name else f"{self.name}-{part}-"
        records: list[Record] = []
        places: dict[str, str] = {}
        for index, (where, row) in enumerate(rows):
            record = self.read(row, f"{prefix}{index}", where, reader)
            if record.id in places:
                raise ValueError(f"{where} has the id {record.id!r} of {places[record.id]}")
            places[record.id] = where
            records.append(record)
        if not records:
            raise ValueError(f"{path or self.hub[0]} is empty: it holds no row of {self.name}")
        return records

    def _hub(self, split: str) -> Iterator[tuple[str, Row]]:
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
        return ((f"row {index} of {self.name} {split}", row) for index, row in enumerate(rows))

    def _file(self, name: str, split: str) -> Path:
        path = Path(name).expanduser()
        if path.is_dir():
            known = self.files.get(split)
            if known is None:
                raise ValueError(
                    f"split={split!r} is not in {self.name}; choose {' or '.join(self.files)}"
                )
            found = [path / file for file in known if (path / file).is_file()]
            if not found:
                raise ValueError(f"the folder {name} holds no {' or '.join(known)} of {self.name}")
            return found[0]
        if not path.is_file():
            raise ValueError(
                f"{self.name}:{name}: there is no such file or folder; mend the path, or leave it "
                f"out to read {self.name} from the Hugging Face hub"
            )
        return path


def file_rows(path: Path) -> Iterable[tuple[str, Row]]:
    """The place and the row of everything in a local file.

    Args:
        path: a .json file with one list; a .txt file with `question||reasoning #### answer` on
            each line, as GSM8K-Aug's; else a .jsonl file.

    Raises:
        ValueError: a malformed file or line.
    """
    if path.suffix == ".json":
        return _listed(path)
    if path.suffix == ".txt":
        return _divided(path)
    return ((f"{path}, line {number}", row) for number, row in json_lines(path))


def _listed(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise ValueError(f"{path} is not JSON: {problem}") from problem
    if not isinstance(rows, list):
        raise ValueError(f"{path} must be a list of rows, got {type(rows).__name__}")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, row {index} must be a JSON object, got {row!r:.40}")
        yield f"{path}, row {index}", row


def _divided(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as problem:
        raise ValueError(f"{path} is not UTF-8 text: {problem}") from problem
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        question, bars, answer = line.partition("||")
        if not bars:
            raise ValueError(f"{path}, line {number} must be question||reasoning #### answer")
        yield f"{path}, line {number}", {"question": question, "answer": answer}


def field_of(row: Row, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A field of a row that is no text: of one of the given types.

    Raises:
        ValueError: it is missing, or of another type.
    """
    if name not in row:
        raise ValueError(f"{where} has no field {name!r} (it has {', '.join(map(repr, row))})")
    value = row[name]
    if not isinstance(value, kind):
        names = [k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,))]
        raise ValueError(f"{where}: field {name!r} must be {' or '.join(names)}, got {value!r:.40}")
    return value
