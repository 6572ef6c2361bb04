"""Rows of tables: csv and parquet files, and data sets that `save_to_disk` wrote.

A csv file contains only text, and is read unchanged, row by row, with Python's csv reader: the csv
loader of `datasets` uses pandas, which fills missing cells, takes the first column as an index if a
row has an extra cell, and renames columns with equal names. A parquet file is read with pyarrow, as
`datasets` does, but without a copy in its cache.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kava.data.fields import plain_number
from kava.data.rows import PlacedRow
from kava.inputs import Malformed, WrittenNumber, open_text

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

_LONGEST_CELL = 2**31 - 1


def csv_rows(path: Path) -> Iterator[PlacedRow]:
    """The rows of a csv file; every cell is text, unchanged.

    Raises:
        Malformed: unbalanced quotes, a row with more or fewer cells than the header, two columns
            with the same name, text that is not UTF-8.
    """
    with open_text(path, newline="") as file, _long_cells():
        cells = csv.reader(file, strict=True)
        begins = 1
        try:
            header = next(cells, [])
            _check_names(path, header)
            begins, number = cells.line_num + 1, 0
            for row in cells:
                if row and len(row) != len(header):
                    raise Malformed(
                        path,
                        begins,
                        f"has {len(row)} cell(s), but the header has {len(header)}; a cell with "
                        f"commas or line breaks is to stand in double quotes",
                    )
                if row:
                    where = f"{path}, line {begins}, row {number}"
                    yield PlacedRow(number, where, dict(zip(header, row)))
                    number += 1
                begins = cells.line_num + 1
        except csv.Error as problem:
            raise Malformed(path, begins, f"is not CSV: {problem}") from problem


def parquet_rows(path: Path) -> Iterator[PlacedRow]:
    """The rows of a parquet file.

    Raises:
        Malformed: not a parquet file, or a damaged one.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            _check_names(path, file.schema_arrow.names)
            yield from _placed(file.iter_batches(), path)
    except (pyarrow.ArrowException, OSError) as problem:
        reason = " ".join(str(problem).split())
        raise Malformed(path, None, f"is no parquet file, or a damaged one: {reason}") from problem


def is_saved(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`, for one data set or for its splits."""
    return is_saved_split(path) or (path / "dataset_dict.json").is_file()


def is_saved_split(path: Path) -> bool:
    """Whether a saved folder is one data set without splits."""
    return all((path / name).is_file() for name in ("dataset_info.json", "state.json"))


def saved_rows(path: Path, splits: Iterable[str]) -> Iterator[PlacedRow]:
    """The rows of a data set that `save_to_disk` wrote.

    Args:
        path: its folder.
        splits: possible names of the split, if it has splits; the first match is read.

    Raises:
        Malformed: none of these splits, or a damaged folder.
    """
    import datasets
    import pyarrow

    try:
        saved = datasets.load_from_disk(str(path))
        if isinstance(saved, datasets.DatasetDict):
            split = next((name for name in splits if name in saved), None)
            if split is None:
                wanted = " or ".join(splits)
                raise Malformed(
                    path, None, f"holds no split {wanted}, only {', '.join(map(str, saved))}"
                )
            saved = saved[split]
        yield from dataset_rows(saved, path)
    except (pyarrow.ArrowException, OSError, KeyError) as problem:
        reason = " ".join(str(problem).split())
        raise Malformed(
            path, None, f"is no saved data set, or a damaged one: {reason}"
        ) from problem


def dataset_rows(dataset: Dataset, name: Path | str) -> Iterator[PlacedRow]:
    """The rows of a `datasets.Dataset`.

    Args:
        dataset: the data set.
        name: what messages call it.
    """
    tables: Any = dataset.with_format("arrow").iter(1024)
    return _placed((batch for table in tables for batch in table.to_batches()), name)


def _placed(batches: Iterable[pyarrow.RecordBatch], path: Path | str) -> Iterator[PlacedRow]:
    number = 0
    for batch in batches:
        columns = [_values(column, name, path, number) for name, column in _columns(batch)]
        names = batch.schema.names
        for row in zip(*columns):
            yield PlacedRow(number, f"{path}, row {number}", dict(zip(names, row)))
            number += 1


def _columns(batch: pyarrow.RecordBatch) -> Iterable[tuple[str, pyarrow.Array]]:
    return zip(batch.schema.names, batch.columns)


def _values(column: pyarrow.Array, name: str, path: Path | str, first: int) -> list[Any]:
    """The values of a column; floats of 16 or 32 bits as their shortest decimal digits."""
    import pyarrow

    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        row = first + next(index for index, value in enumerate(column) if not _is_text(value))
        raise Malformed(path, None, f"row {row}: field {name!r} is not UTF-8 text") from None
    if pyarrow.types.is_float16(column.type) or pyarrow.types.is_float32(column.type):
        short = np.float16 if pyarrow.types.is_float16(column.type) else np.float32
        return [_short(value, short) for value in values]
    return values


def _short(value: float | None, kind: type[np.floating[Any]]) -> Any:
    if value is None or not np.isfinite(value):
        return value
    return WrittenNumber(plain_number(float(str(kind(value)))))


def _is_text(value: pyarrow.Scalar) -> bool:
    try:
        value.as_py()
    except UnicodeDecodeError:
        return False
    return True


def _check_names(path: Path, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise Malformed(path, None, f"has two columns {name!r}; rename one of them")


@contextmanager
def _long_cells() -> Iterator[None]:
    """Raise the limit of Python's csv reader, 131,072 characters per cell."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)
