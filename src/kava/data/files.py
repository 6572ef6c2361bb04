"""Data files: their formats, the file of a split in a folder, and their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kava.data.rows import PlacedRow
from kava.data.tables import csv_rows, is_saved, is_saved_split, parquet_rows, saved_rows
from kava.inputs import Malformed, json_items, json_lines, open_text, parse_json, read_text, shown

FORMATS = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz", ".ndjson")
"""Endings of a split's file in a folder, in order of preference."""

READ = ".jsonl, .json, .csv or .parquet (all but the last also as .gz)"
"""The supported formats, for messages."""


def format_of(path: Path) -> str:
    """The format in a file's name, such as ".csv", without compression endings.

    Example:
        >>> format_of(Path("data/Train.CSV.gz"))
        '.csv'
    """
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix == ".gz" else name.suffix


def stem_of(path: Path) -> str:
    """A file's name without its endings.

    Example:
        >>> stem_of(Path("data/train.csv.gz"))
        'train'
    """
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def is_one_split(name: str) -> bool:
    """Whether a path holds rows without splits, which are then used for every split."""
    path = Path(name).expanduser()
    return path.is_file() or is_saved_split(path)


def find_files(folder: Path, stems: Iterable[str]) -> list[Path]:
    """The files of a split in a folder: one file, or the parts of a parquet file.

    Args:
        folder: the folder with the files.
        stems: possible names without the ending, or with it for only that format.

    Returns:
        the first match; empty if there is none.
    """
    stems = list(stems)
    for stem in stems:
        for ending in ("",) if Path(stem).suffix else FORMATS:
            if (folder / f"{stem}{ending}").is_file():
                return [folder / f"{stem}{ending}"]
    for stem in stems:  # names used on the hub
        parts = sorted(folder.glob(f"{stem}-[0-9]*-of-[0-9]*.parquet"))
        if parts:
            return parts
    return []


def rows_of(paths: Sequence[Path], splits: Iterable[str] = ()) -> Iterator[PlacedRow]:
    """The rows of a file or of its parts, numbered continuously over all parts.

    Args:
        paths: files of a supported format, or the folder of a saved data set.
        splits: possible names of the split in a saved data set with splits.

    Raises:
        ValueError: an unsupported format, or a malformed file (the message names the line or row).
        OSError: a file that cannot be read.

    Example:
        >>> [row.fields["answer"] for row in rows_of([Path("data/train.csv")])]
        ['72', '10']
    """
    count = 0
    for path in paths:
        first = count
        for row in _rows(path, splits):
            yield row._replace(number=first + row.number) if first else row
            count += 1


def _rows(path: Path, splits: Iterable[str]) -> Iterator[PlacedRow]:
    if path.is_dir() and is_saved(path):
        return saved_rows(path, splits)
    kind = format_of(path)
    if kind == ".csv":
        return csv_rows(path)
    if kind == ".parquet":
        return parquet_rows(path)
    if kind == ".json" and (_first_character(path) != "{" or _is_one_value(path)):
        return _list_rows(path)
    if kind in (".jsonl", ".ndjson", ".json") or _first_character(path) == "{":
        return _line_rows(path)
    raise ValueError(
        f"{path}: a file that ends in {kind or 'nothing'} is not read; write its rows as {READ}"
    )


def _line_rows(path: Path) -> Iterator[PlacedRow]:
    for line, row in json_lines(path, as_written=True):
        yield PlacedRow(line - 1, f"{path}, line {line}", row)


def _list_rows(path: Path) -> Iterator[PlacedRow]:
    for number, (line, row) in enumerate(json_items(path, as_written=True)):
        where = f"{path}, line {line}, row {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where} must be a JSON object, got {shown(row)}")
        yield PlacedRow(number, where, row)


def _first_character(path: Path) -> str:
    """The first character of a text that is not blank; "" if there is none."""
    try:
        with open_text(path) as file:
            while head := file.read(1024):
                if head.strip():
                    return head.lstrip()[0]
    except Malformed:  # not text: it is refused later, when it is read or for its ending
        pass
    return ""


def _is_one_value(path: Path) -> bool:
    """Whether a .json file is a single JSON value; many have one object per line."""
    try:
        parse_json(read_text(path), path)
    except Malformed:
        return False
    return True
