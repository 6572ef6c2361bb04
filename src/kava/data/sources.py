"""Load records from a task, a mix of tasks, a file, or a built-in task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kava.data.builtin import load_builtin, template_of_data
from kava.data.fields import id_of, text_of
from kava.data.files import READ, find_files, rows_of, stem_of
from kava.data.gold import check_golds
from kava.data.gym import load_gym
from kava.data.mix import ARC, draw_shares, load_mix
from kava.data.records import Record, Template
from kava.data.rows import PlacedRow, RowReader, read_rows
from kava.data.tables import dataset_rows, is_saved
from kava.data.tasks import TASKS, find_task
from kava.data_settings import RowSettings
from kava.dataset_names import BUILTIN_TASKS, GYM_PREFIX, builtin_task, is_gym, is_mix, mix_parts
from kava.segments import OnMissing

if TYPE_CHECKING:
    from datasets import Dataset

GSM8K_NAMES = ("gsm8k", "openai/gsm8k")


def load_records(
    dataset_name: str,
    *,
    split: str = "train",
    subset_size: int | None = None,
    seed: int = 0,
    rows: RowSettings | None = None,
    step_separator: str = "\n",
    on_missing: OnMissing = "error",
) -> list[Record]:
    """Load records by name.

    Args:
        dataset_name: one of

            - a task (`kava.data.tasks.TASKS`), from the Hugging Face hub, as in "gsm8k", or from
              a local file or folder, as in "svamp:data/SVAMP.json". A task has its own fields,
              and ignores those named here;
            - "mix:gsm8k=0.4,svamp:data/SVAMP.json=0.2,arc=0.4": sources and their shares of the
              samples (`kava.data.mix`), drawn by `seed`;
            - a path to a .jsonl, .json, .csv or .parquet file, to a folder that holds one
              named by the split, or to a folder by `save_to_disk` of `datasets`. A row has a
              question and an answer, and its reasoning either in a field of its own or, as in
              GSM8K, in the answer before a marker ("#### 72"); or it has one field `text` (or
              another `rows.text_field`), whose parts are found by `SegmentIdentifier`. `id` and
              `student_question` are read where a row has them;
            - a built-in task, made on the spot: "kava/shell-game" or "kava/word-problems", with
              options such as "kava/shell-game?num_moves=6&form=verbose" (`kava.dataset_names`);
            - a task of reasoning_gym, drawn by that package, where it is installed:
              "reasoning_gym:gsm_symbolic?size=2000&seed=1" (`kava.data.gym`).
        split: "train" or "test"; ignored for a path to a file, which has only one split.
        subset_size: number of random records; a smaller subset of the same seed is contained in a
            larger one. None takes all. The order of the source is kept.
        seed: seed of the subset and of a mix; it does not change the data themselves.
        rows: the fields of a row, the markers of a raw text, and the form of calculator marks
            `<<48/2=24>>24`: "text" strips them, "annotated" keeps them, "equations" keeps only
            them, one per step (the form of GSM8k-Aug). Can be a `TrainConfig`. None: the defaults.
        step_separator: text between two steps; equations are joined by a blank.
        on_missing: "error" refuses a text without a marker; "report" returns a record whose
            `missing` names the parts, which `encode_records` skips and counts, or refuses.

    Raises:
        ValueError: an unknown name, option or split; a path or field that does not exist, a
            malformed line or an empty file (named by file and line); a gold answer that is not
            judged correct in its own text; a subset larger than the data; a hub that cannot be
            reached.

    Example:
        >>> records = load_records("kava/shell-game?num_moves=3", split="test", subset_size=100)
        >>> len(records)
        100
    """
    rows = rows or RowSettings()
    if is_mix(dataset_name):

        def load(source: str) -> list[Record]:
            return load_records(
                source,
                split=split,
                rows=rows,
                step_separator=step_separator,
                on_missing=on_missing,
            )

        cues = {default_template(source).cue for source in mix_parts(dataset_name)}
        if len(cues) > 1:
            raise ValueError(
                f"{dataset_name}: its sources have different cues ({', '.join(sorted(cues))}); "
                f"leave {' and '.join(BUILTIN_TASKS)} out"
            )
        records = load_mix(dataset_name, load, seed=seed)
        if subset_size is not None and 1 <= subset_size <= len(records):
            return draw_shares(records, subset_size, seed)
    elif builtin_task(dataset_name) is not None:
        records = load_builtin(dataset_name, split)
    elif is_gym(dataset_name):
        records = load_gym(dataset_name, split)
    elif (found := find_task(dataset_name)) is not None:
        task, path = found
        # a task has its own fields; only the form of its reasoning can be chosen
        own = RowReader(RowSettings(reasoning_form=rows.reasoning_form), step_separator)
        records = task.load(path, split, own)
    else:
        reader = RowReader(rows, step_separator, on_missing)
        records = _load_files(
            dataset_name, split, lambda row, name: reader.read(row.fields, name, row.where)
        )
    if not is_mix(dataset_name):  # a mix has already read its sources through this function
        check_golds(records, default_template(dataset_name))
    return records if subset_size is None else _subset(records, subset_size, seed, dataset_name)


def load_questions(
    dataset_name: str, *, split: str = "train", rows: RowSettings | None = None
) -> list[Record]:
    """Load the questions of a data set by name, whatever else its rows hold.

    Of a file only the question is read, so that answers in any form do. Other sources are those of
    `load_records`.

    Args:
        dataset_name: as in `load_records`.
        split: as in `load_records`.
        rows: the field of the question, or of a raw text and its markers.

    Returns:
        Records; those of files have neither reasoning nor answer.

    Raises:
        ValueError: as in `load_records`; a row without the field of the question.

    Example:
        >>> load_questions("kava/shell-game?num_train=1")[0].question
        'Cups abcd moves 3241 1234 2143 1234 order ?'
    """
    rows = rows or RowSettings()
    drawn = is_mix(dataset_name) or is_gym(dataset_name) or builtin_task(dataset_name) is not None
    if drawn or find_task(dataset_name) is not None:
        return load_records(dataset_name, split=split, rows=rows, on_missing="report")
    reader = RowReader(rows, on_missing="report")

    def read(row: PlacedRow, default_id: str) -> Record:
        if rows.text_field is not None:
            return reader.read(row.fields, default_id, row.where)
        question = text_of(row.fields, rows.question_field, row.where)
        name = id_of(row.fields, default_id, row.where)
        return Record(id=name, question=question, reasoning="", answer="", where=row.where)

    return _load_files(dataset_name, split, read)


def records_of_rows(
    rows: Dataset | Sequence[Mapping[str, Any]],
    name: str,
    *,
    settings: RowSettings | None = None,
    on_missing: OnMissing = "error",
) -> list[Record]:
    """The records of a data set that is in memory, read as the rows of a file are.

    Args:
        rows: a `datasets.Dataset`, or rows as dictionaries.
        name: what messages call it, and the beginning of the ids of rows without one.
        settings: as `rows` of `load_records`.
        on_missing: as in `load_records`.

    Raises:
        ValueError: no rows, several splits, rows that cannot be counted, or as `load_records`.

    Example:
        >>> rows = [{"question": "How many?", "reasoning": "2+2=4", "answer": "4"}]
        >>> records_of_rows(rows, "mine")[0].id
        'mine-0'
    """
    from datasets import Dataset, DatasetDict, IterableDataset

    if isinstance(rows, DatasetDict | IterableDataset):
        mend = "pass one of its splits" if isinstance(rows, DatasetDict) else "load it whole"
        raise ValueError(f"{name} is a {type(rows).__name__}, and a Dataset is read: {mend}")
    if isinstance(rows, Dataset):
        placed = dataset_rows(rows, name)
    else:
        _check_rows(rows, name)
        placed = (PlacedRow(i, f"{name}, row {i}", row) for i, row in enumerate(rows))
    reader = RowReader(settings or RowSettings(), on_missing=on_missing)
    records = read_rows(
        placed, lambda row: reader.read(row.fields, f"{name}-{row.number}", row.where), name
    )
    check_golds(records, default_template(name))
    return records


def _check_rows(rows: Any, name: str) -> None:
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise ValueError(
            f"{name} is a {type(rows).__name__}; pass a datasets.Dataset, or a list of rows"
        )
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"{name}, row {number} is a {type(row).__name__}, not a dictionary")


def is_local(dataset_name: str) -> bool:
    """Whether a name means data that are read without the hub, whether or not they are there.

    Example:
        >>> is_local("data.jsonl"), is_local("gsm8k"), is_local("gsm8k:train.jsonl")
        (True, False, True)
    """
    if is_mix(dataset_name):
        return all(part != ARC and is_local(part) for part in mix_parts(dataset_name))
    found = find_task(dataset_name)
    return found is None or found[1] is not None


def default_template(dataset_name: str, *, drop_last_step: bool = True) -> Template:
    """The default template of a source, with the cue before the answer.

    Example:
        >>> default_template("kava/shell-game").cue
        'Answer '
    """
    source = next(iter(mix_parts(dataset_name))) if is_mix(dataset_name) else dataset_name
    return replace(template_of_data(source), drop_last_step=drop_last_step)


def _load_files(name: str, split: str, reader: Callable[[PlacedRow, str], Record]) -> list[Record]:
    files = files_of(name, split)
    one_file = len(files) == 1 and files[0].is_file()
    stem = stem_of(files[0]) if one_file else split

    def read(row: PlacedRow) -> Record:
        return reader(row, f"{stem}-{row.number}")

    return read_rows(rows_of(files, (split,)), read, str(files[0]) if one_file else name)


def files_of(name: str, split: str) -> list[Path]:
    """The files of a split that the path of a file or a folder means.

    Raises:
        ValueError: no such file or folder, or a folder without this split.
    """
    path = Path(name).expanduser()
    if path.is_dir() and not is_saved(path):
        found = find_files(path, (split,))
        if not found:
            raise ValueError(
                f"the folder {name} holds no {split}.jsonl, nor a {split} of another format that "
                f"is read: {READ}"
            )
        return found
    if not path.is_file() and not is_saved(path):
        raise ValueError(
            f"dataset {name!r} is neither a file nor a known name: give the path of a file, "
            f"{READ}; a task ({', '.join(TASKS)}, {GYM_PREFIX}TASK); or "
            f"{' or '.join(BUILTIN_TASKS)}"
        )
    return [path]


def _subset(records: list[Record], size: int, seed: int, name: str) -> list[Record]:
    if not 1 <= size <= len(records):
        raise ValueError(
            f"subset_size={size} must be from 1 to the {len(records)} records of {name}"
        )
    chosen = np.random.default_rng(seed).permutation(len(records))[:size]
    return [records[index] for index in np.sort(chosen)]
