"""Read the questions of `kava generate` from a prompt, a file, or standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kava.data.fields import as_text, text_of
from kava.data.files import FORMATS, format_of, rows_of
from kava.data.tables import is_saved
from kava.inputs import decode_text, text_lines


def read_questions(prompts: Sequence[str] | None, path: str | None) -> tuple[list[str], list[str]]:
    """The names of the questions for messages, and the questions.

    Args:
        prompts: the questions themselves.
        path: otherwise a file: of a data format, with a field `question`; or with any other ending,
            one question per line. None: standard input, one question per line.

    Raises:
        ValueError: no question, a malformed row (the message names its line), text that is not
            UTF-8.
        OSError: a file that cannot be read.

    Example:
        >>> read_questions(["How many?"], None)
        (['--prompt'], ['How many?'])
    """
    if prompts is not None:
        numbers = [""] if len(prompts) == 1 else [f" {i}" for i in range(1, len(prompts) + 1)]
        names = [f"--prompt{number}" for number in numbers]
        return names, [as_text(prompt, name) for prompt, name in zip(prompts, names)]
    named = list(_lines_of_stdin() if path is None else _of_file(Path(path)))
    if not named:
        raise ValueError(f"{'stdin' if path is None else path} holds no question")
    return [name for name, _ in named], [question for _, question in named]


def _of_file(path: Path) -> Iterator[tuple[str, str]]:
    if format_of(path) in FORMATS or is_saved(path):
        for row in rows_of([path], ("test", "train")):
            if "question" not in row.fields:
                raise ValueError(f"{row.where} must be an object with a text `question`")
            yield row.where, text_of(row.fields, "question", row.where)
    else:
        for number, line in text_lines(path):
            yield f"{path}, line {number}", line.strip()


def _lines_of_stdin() -> Iterator[tuple[str, str]]:
    if sys.stdin.isatty():
        print("questions, one per line; end with Ctrl-D:", file=sys.stderr)
    data = getattr(sys.stdin, "buffer", None)
    text = sys.stdin.read() if data is None else decode_text(data.read(), "stdin")
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if line.strip():
            yield f"stdin, line {number}", line.strip()
