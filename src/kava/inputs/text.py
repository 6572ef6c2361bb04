"""Text files: UTF-8, with any line ends, compressed by gzip or not."""

from __future__ import annotations

import gzip
import io
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

from kava.inputs.errors import Malformed

_GZIP = b"\x1f\x8b"  # no UTF-8 text begins with these two bytes
# which of the first four bytes are 0, where a text begins with its mark or a character of ASCII
_WIDE = {
    (0, 1): "UTF-32",
    (2, 3): "UTF-32",
    (0, 1, 2): "UTF-32BE",
    (1, 2, 3): "UTF-32LE",
    (0, 2): "UTF-16BE",
    (1, 3): "UTF-16LE",
}


@contextmanager
def open_text(path: str | Path, *, newline: str | None = None) -> Iterator[TextIO]:
    """Open a text file; what cannot be decoded while it is read is an error of one line.

    Args:
        path: the file. One that is compressed by gzip is known by its first bytes, whatever its
            name.
        newline: as for `open`: None reads LF, CR LF and CR all as LF, "" leaves them as they
            are. Either way they alone end a line; U+2028 and U+0085 are characters like others.

    Raises:
        Malformed: text that is not UTF-8 (with its line, and how to convert it), bytes that are
            no text, or gzip data that are cut or damaged.
        OSError: no such file, a folder, a file that may not be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt").write_bytes(b"\\xef\\xbb\\xbfone\\r\\ntwo")
        ...     with open_text(f"{folder}/a.txt") as file:
        ...         list(file)
        ['one\\n', 'two']
    """
    path = Path(path)
    with _open_bytes(path) as file:
        try:
            _refuse_binary(file.peek(4)[:4], path)
            yield io.TextIOWrapper(file, encoding="utf-8-sig", newline=newline)
        except UnicodeDecodeError as error:
            raise _undecodable(path) from error
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise Malformed(
                path, None, f"is cut or damaged: its gzip data cannot be read ({error})"
            ) from error


def read_text(path: str | Path) -> str:
    """All of a text file, with its line ends as they are.

    Raises:
        Malformed: as `open_text`.
        OSError: as there.
    """
    with open_text(path, newline="") as file:
        return file.read()


def text_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The number and the text of every line that is not blank, without its end.

    Raises:
        Malformed: as `open_text`.
        OSError: as there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt").write_bytes(b"one\\n\\nthree\\n")
        ...     list(text_lines(f"{folder}/a.txt"))
        [(1, 'one'), (3, 'three')]
    """
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line.removesuffix("\n")


def decode_text(data: bytes, source: str) -> str:
    """Bytes from elsewhere than a file, such as standard input, as text.

    Args:
        data: UTF-8, with or without a byte order mark.
        source: what they are, for messages.

    Raises:
        Malformed: they are not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _lines_before(data, error.start)
        raise Malformed(
            source, line, f"is not UTF-8 text: byte 0x{data[error.start]:02x}"
        ) from error


def line_of(text: str, position: int) -> int:
    """The line, counted from 1, in which a character stands; LF, CR LF and CR end lines.

    Example:
        >>> line_of("a\\r\\nb\\rc", 5)
        3
    """
    return 1 + line_ends(text, 0, position)


def line_ends(text: str, start: int, stop: int) -> int:
    """How many lines end between two places: by LF, CR LF or CR.

    Example:
        >>> line_ends("a\\r\\nb\\rc", 0, 5)
        2
    """
    ends = text.count("\n", start, stop) + text.count("\r", start, stop)
    return ends - text.count("\r\n", start, stop)


@contextmanager
def _open_bytes(path: Path) -> Iterator[io.BufferedReader]:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a file")
    with path.open("rb") as file:  # once: it may be a pipe
        packed = file.peek(2)[:2] == _GZIP
        raw = cast("io.RawIOBase", gzip.GzipFile(fileobj=file))
        yield io.BufferedReader(raw) if packed else file


def _refuse_binary(head: bytes, path: Path) -> None:
    """UTF-16 and UTF-32, which spreadsheets and Windows shells write, and what is no text."""
    zeros = tuple(index for index, byte in enumerate(head) if byte == 0)
    code = _WIDE.get(zeros) if len(head) == 4 else None
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) and code is None:
        code = "UTF-16"
    if code is not None:
        raise Malformed(path, 1, f"is not UTF-8 text but {code}; {_convert(path, code)}")
    if zeros == (0, 1, 2, 3):
        raise Malformed(
            path, 1, "is not text: it begins with bytes 0x00, as after a crash of the disk"
        )


def _undecodable(path: Path) -> Malformed:
    """Where the first byte stands that is not UTF-8; the file is read again to find it."""
    if path.is_file():
        with _open_bytes(path) as file:
            data = file.read()
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            return Malformed(
                path,
                _lines_before(data, error.start),
                f"is not UTF-8 text: byte 0x{data[error.start]:02x}; if it is Latin-1, "
                f"{_convert(path, 'LATIN1')}",
            )
    return Malformed(path, None, "is not UTF-8 text")


def _lines_before(data: bytes, position: int) -> int:
    head = data[:position]
    return 1 + head.count(b"\n") + head.count(b"\r") - head.count(b"\r\n")


def _convert(path: Path, code: str) -> str:
    name = shlex.quote(str(path))
    if path.suffix == ".gz":
        packed = f"gunzip -c {name} | iconv -f {code} -t UTF-8"
        return f"convert it: {packed} > converted{Path(path.stem).suffix}"
    return f"convert it: iconv -f {code} -t UTF-8 {name} > converted{path.suffix}"
