"""Errors that the user of a command can fix, and their one-line messages."""

from __future__ import annotations

import errno

_FULL = "free some space or write to another disk"
_MENDS = {
    errno.ENOSPC: ("the disk is full", _FULL),
    errno.EDQUOT: ("the disk quota is used up", _FULL),
    errno.EFBIG: (
        "the file would grow beyond the limit on the size of files (ulimit -f, or the file "
        "system's)",
        "raise it or write to another disk",
    ),
    errno.EROFS: ("the file system is read-only", "write to another disk"),
}
"""Error number of a refused write → its meaning and what helps."""


class KavaError(RuntimeError):
    """A run cannot continue, for a reason that its user can fix.

    A bad value is a `ValueError` and a bad file an `OSError`; this class is for other causes, such
    as a loss that is no longer finite. The shell prints all three as one line; any other
    `RuntimeError` is a defect and keeps its traceback.

    Example:
        >>> raise KavaError("the loss is nan at step 12, samples 'a7' and 'b3'; lower --lr")
        Traceback (most recent call last):
        ...
        kava.errors.KavaError: the loss is nan at step 12, samples 'a7' and 'b3'; lower --lr
    """


class WriteError(OSError):
    """A write that the disk refused, with a message instead of an errno."""


USER_ERRORS = (ValueError, OSError, KavaError)
"""The exceptions that the shell prints as one line."""


def cannot_write(error: BaseException) -> bool:
    """Whether the disk accepts no more data, so that other work would fail as well."""
    return isinstance(error, WriteError) or (isinstance(error, OSError) and error.errno in _MENDS)


def describe(error: BaseException) -> str:
    """Describe an error on one line.

    Example:
        >>> describe(OSError(errno.ENOSPC, "No space left on device", "out/items.jsonl"))
        'the disk is full while writing out/items.jsonl; free some space or write to another disk'
    """
    if isinstance(error, OSError) and error.errno in _MENDS:
        what, mend = _MENDS[error.errno]
        where = f" while writing {error.filename}" if error.filename else ""
        return f"{what}{where}; {mend}"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    return " ".join(str(error).split()) or type(error).__name__
