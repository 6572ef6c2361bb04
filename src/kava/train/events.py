"""TensorBoard event files, written record by record.

torch's `SummaryWriter` writes in a separate thread: a full disk gives that thread's traceback at a
later call and a partial record, and a kill loses what is queued. Here the complete record is in the
file when the call that adds it returns, or an error names the file.
"""

from __future__ import annotations

import io
import os
import socket
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

from kava.files.write import append_whole

_VERSION = "brain.Event:2"


class EventsWriter(SummaryWriter):
    """A `SummaryWriter` whose file is complete at every moment.

    Args:
        log_dir: folder of the file; created if missing.
        purge_step: for a resumed run: TensorBoard ignores earlier files of the folder from this
            step on.

    Raises:
        OSError: a record cannot be written; the file holds all earlier records.
    """

    file_writer: Any  # torch declares them as None
    all_writers: Any

    def __init__(self, log_dir: str | Path, purge_step: int | None = None):
        super().__init__(str(log_dir), purge_step=purge_step)

    def _get_file_writer(self) -> FileWriter:
        if self.file_writer is None:
            self.file_writer = writer = _Events(Path(self.log_dir))
            self.all_writers = {self.log_dir: writer}
            if self.purge_step is not None:
                writer.add_event(Event(step=self.purge_step, file_version=_VERSION))
                start = SessionLog(status=SessionLog.START)
                writer.add_event(Event(step=self.purge_step, session_log=start))
                self.purge_step = None
        return self.file_writer


class _Events(FileWriter):
    """One event file."""

    def __init__(self, log_dir: Path):
        log_dir.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{now:010.0f}.{socket.gethostname()}.{os.getpid()}"
        self.path = log_dir / f"{name}.{time.monotonic_ns()}"
        self.add_event(Event(file_version=_VERSION))

    def get_logdir(self) -> str:
        return str(self.path.parent)

    def add_event(self, event: Any, step: Any = None, walltime: float | None = None) -> None:
        event.wall_time = time.time() if walltime is None else walltime
        if step is not None:
            event.step = int(step)
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        append_whole(self.path, record.getvalue())

    def flush(self) -> None:
        """No effect: nothing is buffered."""

    def close(self) -> None:
        """No effect: the file is not kept open."""

    def reopen(self) -> None:
        """No effect: the file is never closed."""
