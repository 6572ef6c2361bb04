"""TensorBoard's event files, written record by record.

torch's `SummaryWriter` writes in a thread of its own: a full disk shows as that thread's
traceback, at some later call, and leaves half a record; a kill takes what is still in the queue.
Here a record is in the file, whole, when the call that adds it returns, or an error names the
file.
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
    """torch's `SummaryWriter`, into a file that is whole at every moment.

    Args:
        log_dir: folder of the file; made where it is not there.
        purge_step: of a run that goes on: TensorBoard leaves out what earlier files of the folder
            say from this step on.

    Raises:
        OSError: a record cannot be written; the file holds all those before it.
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
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is held open."""

    def reopen(self) -> None:
        """Nothing was closed."""
