"""Pack the logs of a study's runs into one compressed file, and read them from it.

A finished study of thirty runs has about a hundred repetitive text files; packed they take a
fiftieth of the space. Students and TensorBoard files are not packed.
"""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kava.files.locks import lock_folder
from kava.files.write import write_whole
from kava.study.folder import LOCK_FILE, RECORDED, RESULT_FILE, RUNS_FOLDER, read_lock

PACKED_FILE = "runs.tar.xz"


def pack_runs(folder: Path) -> Path:
    """Write the logs of all runs into one file; the same logs give the same bytes.

    Args:
        folder: the study's folder. Its runs/ is kept; it may be removed once the packed file
            exists.

    Returns:
        The packed file.

    Raises:
        ValueError: no study, or no run in it.
        KavaError: a study is running in the folder.
        OSError: it cannot be written; an earlier packed file is unchanged.

    Example:
        >>> pack_runs(Path("outputs/study/flat_vs_structured"))
        PosixPath('outputs/study/flat_vs_structured/runs.tar.xz')
    """
    read_lock(folder)
    logs = sorted(
        path
        for name in (RESULT_FILE, *RECORDED)
        for path in (folder / RUNS_FOLDER).glob(f"*/seed-*/{name}")
    )
    if not logs:
        raise ValueError(f"{folder / RUNS_FOLDER} holds no run; there is nothing to pack")
    with lock_folder(folder, "kava study pack"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:xz", format=tarfile.PAX_FORMAT) as archive:
            for path in logs:
                member = tarfile.TarInfo(path.relative_to(folder).as_posix())
                member.size = path.stat().st_size
                member.mode = 0o644
                with path.open("rb") as stream:
                    archive.addfile(member, stream)
        write_whole(folder / PACKED_FILE, buffer.getvalue())
    return folder / PACKED_FILE


@contextmanager
def unpacked(folder: Path) -> Iterator[Path]:
    """A folder with the study's runs/ and lock: its own, or a temporary one if the runs are packed.

    Raises:
        ValueError: the packed file is truncated or damaged. Errors of the block name the packed
            file instead of the temporary folder.
    """
    packed = folder / PACKED_FILE
    if (folder / RUNS_FOLDER).is_dir() or not packed.is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="kava-study-") as there:
        try:
            with tarfile.open(packed, mode="r:xz") as archive:
                archive.extractall(there, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ValueError(f"{packed} is cut or damaged ({error}); restore it") from error
        if (folder / LOCK_FILE).is_file():
            shutil.copy(folder / LOCK_FILE, there)
        try:
            yield Path(there)
        except ValueError as error:
            raise ValueError(str(error).replace(there, str(packed))) from error


def check_unpacked(folder: Path) -> None:
    """Refuse to continue a study whose runs exist only in packed form.

    Raises:
        ValueError: such a folder; the message says how to unpack it.
    """
    packed = folder / PACKED_FILE
    if packed.is_file() and not (folder / RUNS_FOLDER).is_dir():
        raise ValueError(
            f"{folder} holds its runs packed: unpack them with `tar -xf {packed} -C {folder}`, or "
            f"take another --output_dir"
        )
