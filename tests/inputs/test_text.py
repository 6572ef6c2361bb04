"""Text: one encoding, every line end, and what cannot be read named by its line."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kava.inputs import Malformed, decode_text, line_of, open_text, read_text, text_lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.txt"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("packed", [False, True])
def test_marks_line_ends_and_compression_make_no_difference(
    path: Path, mark: bytes, end: str, packed: bool
) -> None:
    data = mark + "one\x85still\u2028one\n\n\0 三".replace("\n", end).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if packed else data)
    assert list(text_lines(path)) == [(1, "one\x85still\u2028one"), (3, "\0 三")]
    assert read_text(path).encode() == data.removeprefix(mark)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("à\nb\r\ncaf".encode() + b"\xe9", "line 3 is not UTF-8 text: byte 0xe9; if it is Latin-1"),
        ("é".encode("latin-1"), r"line 1 .* convert it: iconv -f LATIN1 -t UTF-8 "),
        ("text".encode("utf-16"), r"line 1 is not UTF-8 text but UTF-16; convert it: iconv -f UTF"),
        ("text".encode("utf-16-le"), "but UTF-16LE"),
        ("text".encode("utf-16-be"), "but UTF-16BE"),
        (b"\0" * 20, "line 1 is not text: it begins with bytes 0x00"),
        ("text".encode("utf-32"), "but UTF-32;"),
        ("text".encode("utf-32-le"), "but UTF-32LE"),
        ("text".encode("utf-32-be"), "but UTF-32BE"),
        ("\ud800".encode("utf-8", "surrogatepass"), "line 1 is not UTF-8 text: byte 0xed"),
        (gzip.compress(b"text" * 99, mtime=0)[:-9], "is cut or damaged: its gzip data"),
        (gzip.compress(b"text" * 99, mtime=0)[:12] + b"x" * 20, "is cut or damaged: its gzip data"),
        (gzip.compress(b"\n\xff", mtime=0), "line 2 is not UTF-8 text: byte 0xff"),
    ],
)
def test_what_cannot_be_read_is_named(path: Path, data: bytes, message: str) -> None:
    path.write_bytes(data)
    for read in (read_text, lambda path: list(text_lines(path))):
        with pytest.raises(Malformed, match=message) as problem:
            read(path)
        assert str(path) in str(problem.value)
        assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"one\rtwo", [(1, "one"), (2, "two")]),
        (gzip.compress(b"one\ntwo", mtime=0), [(1, "one"), (2, "two")]),
        (b"\xff", "is not UTF-8 text"),
    ],
)
def test_a_pipe_is_read_once(path: Path, data: bytes, lines: list[tuple[int, str]] | str) -> None:
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    if isinstance(lines, str):
        with pytest.raises(Malformed, match=lines):
            list(text_lines(path))
    else:
        assert list(text_lines(path)) == lines
    writer.join()


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder, not a file"):
        read_text(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "nowhere")


def test_an_error_of_the_reader_is_not_taken_for_the_files(path: Path) -> None:
    path.write_text("text")
    with pytest.raises(KeyError), open_text(path) as file:
        {}[file.read()]


def test_bytes_from_elsewhere_are_named_by_their_source() -> None:
    assert decode_text(b"\xef\xbb\xbfa", "stdin") == "a"
    with pytest.raises(Malformed, match=r"^stdin, line 2 is not UTF-8 text: byte 0xff"):
        decode_text(b"a\n\xff", "stdin")


@given(st.text(alphabet="a\r\n\x85\u2028", max_size=30), st.integers(0, 30))
def test_lines_are_counted_as_an_editor_counts_them(text: str, position: int) -> None:
    position = min(position, len(text))
    if text[position - 1 : position + 1] == "\r\n":
        position += 1
    head = text[:position].replace("\r\n", "\n").replace("\r", "\n")
    assert line_of(text, position) == len(head.split("\n"))
