"""Reading files that people write: text, JSON and YAML, with file and line in every error.

All text comes in here, so that what is read is the same everywhere: UTF-8 with or without a byte
order mark, lines that end in LF, CR LF or CR, compressed by gzip or not. Nothing is guessed and
nothing is overwritten silently: another encoding is named with the command that converts it, and
a key that stands twice in an object or a mapping is an error, since the reader would keep one of
the two.
"""

from kava.inputs.errors import Malformed
from kava.inputs.json_text import (
    WrittenNumber,
    json_items,
    json_lines,
    parse_json,
    read_json,
    shown,
    whole_json_lines,
)
from kava.inputs.text import decode_text, line_of, open_text, read_text, text_lines

__all__ = [
    "Malformed",
    "WrittenNumber",
    "decode_text",
    "json_items",
    "json_lines",
    "line_of",
    "open_text",
    "parse_json",
    "read_json",
    "read_text",
    "shown",
    "text_lines",
    "whole_json_lines",
]
