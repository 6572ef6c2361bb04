"""Files that are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file under another name and rename it, so that a reader never sees half of it.

    Args:
        path: the file; one that is there is replaced.
        content: text (written as UTF-8) or bytes.

    Raises:
        OSError: it cannot be written; nothing of it is left.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(f"{folder}/note.txt", "whole")
        ...     os.listdir(folder)
        ['note.txt']
    """
    path = Path(path)
    # by process, since several runs of a study may write the same file
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
