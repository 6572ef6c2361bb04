"""The record of a run: consumed tokens and samples, gradient health, losses between logs.

Two runs can be compared if they consumed the same tokens, samples in the same order, and steps.
Every checkpoint stores the record of each process, so a resumed run records the same as an
uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kava.data.collate import Batch
from kava.inputs import Malformed, read_json
from kava.student.whole import RECORDING_FILE
from kava.train.averages import Averages

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass
class RunRecord:
    """The counts of a run up to a step.

    Attributes:
        tokens: tokens of the student's text, without padding; latents are not counted.
        samples: number of samples consumed, with repetitions.
        data_order_hash: SHA-256 over the sample ids in the order of consumption, chained batch by
            batch; with several processes, over their hashes in order.
        optimizer_steps: number of steps in the gradient norms below.
        grad_norm_sum: sum of the norms of all steps, before clipping.
        grad_norm_max: the largest norm.
        nonfinite_steps: steps whose loss or gradient was not finite. Such a step stops the run with
            an error that names its batch, so a finished run has none; under `--fp16` a step whose
            gradient overflows is skipped and counted here.
        seconds: wall time of the training steps, without evaluations and saves.
    """

    tokens: int = 0
    samples: int = 0
    data_order_hash: str = ""
    optimizer_steps: int = 0
    grad_norm_sum: float = 0.0
    grad_norm_max: float = 0.0
    nonfinite_steps: int = 0
    seconds: float = 0.0

    @property
    def grad_norm_mean(self) -> float | None:
        """Mean over all steps; None before the first."""
        return self.grad_norm_sum / self.optimizer_steps if self.optimizer_steps else None


def total(records: Sequence[RunRecord]) -> RunRecord:
    """The sum over all processes of a run; norms and times are the same in each.

    Example:
        >>> total([RunRecord(tokens=10, samples=2), RunRecord(tokens=7, samples=2)]).tokens
        17
    """
    first, *others = records
    if not others:
        return first
    hashes = json.dumps([record.data_order_hash for record in records])
    return replace(
        first,
        tokens=sum(record.tokens for record in records),
        samples=sum(record.samples for record in records),
        data_order_hash=hashlib.sha256(hashes.encode()).hexdigest(),
    )


def _summed(shares: Sequence[Mapping[str, Any]], num_processes: int) -> list[dict[str, Any]]:
    """`share` of each of another number of processes: all is the first's, nothing the others'."""
    whole = total([RunRecord(**share["record"]) for share in shares])
    sums: dict[str, float] = {}
    for share in shares:
        for name, value in share["sums"].items():
            sums[name] = sums.get(name, 0.0) + value
    steps = shares[0]["num_steps"]
    rest = replace(whole, tokens=0, samples=0, data_order_hash="")
    none = {"record": asdict(rest), "sums": dict.fromkeys(sums, 0.0), "num_steps": steps}
    first = {"record": asdict(whole), "sums": sums, "num_steps": steps}
    return [first, *(none for _ in range(num_processes - 1))]


class Recorder(TrainerCallback):
    """Updates the `RunRecord` of a run, and the sums of its losses since the last log.

    Args:
        explicit: the student reads the whole text, not only prompt and answer.

    Example:
        >>> run = build_run(config)
        >>> run.trainer.train()
        >>> run.trainer.recorder.record.tokens
        96000
    """

    def __init__(self, explicit: bool):
        self.explicit = explicit
        self.record = RunRecord()
        self.averages = Averages()
        self._new_tokens: Tensor | None = None
        self._mark = time.perf_counter()

    def consume(self, batch: Batch) -> None:
        """Count a training batch of this device."""
        ids = batch["ids"]
        text = json.dumps([self.record.data_order_hash, *ids])
        self.record.data_order_hash = hashlib.sha256(text.encode()).hexdigest()
        self.record.samples += len(ids)
        tokens = student_tokens(batch, self.explicit)
        self._new_tokens = tokens if self._new_tokens is None else self._new_tokens + tokens

    def see_gradient(self, norm: float) -> None:
        """Add the gradient norm of a step."""
        self.record.optimizer_steps += 1
        self.record.grad_norm_sum += norm
        self.record.grad_norm_max = max(self.record.grad_norm_max, norm)

    def see_overflow(self) -> None:
        """Count a step that was skipped because its gradient overflowed float16."""
        self.record.nonfinite_steps += 1

    def settle(self) -> RunRecord:
        """This process's record, with the tokens counted on the device."""
        if self._new_tokens is not None:
            self.record.tokens += int(self._new_tokens)
            self._new_tokens = None
        return self.record

    def share(self) -> dict[str, Any]:
        """What a checkpoint stores for this process."""
        return {"record": asdict(self.settle()), **self.averages.state()}

    @staticmethod
    def whole(shares: Sequence[Mapping[str, Any]]) -> RunRecord:
        """The record of the whole run, from the `share` of every process, in order."""
        return total([RunRecord(**share["record"]) for share in shares])

    @staticmethod
    def save(
        directory: str | Path, shares: Sequence[Mapping[str, Any]], verdict: Any = None
    ) -> None:
        """Write the record of the whole run, and each process's part, into a checkpoint.

        Args:
            directory: the checkpoint.
            shares: `share` of every process, in order.
            verdict: the collapse guard's last verdict, as JSON.
        """
        whole = asdict(Recorder.whole(shares))
        text = json.dumps({**whole, "processes": list(shares), "verdict": verdict}, indent=2)
        (Path(directory) / RECORDING_FILE).write_text(text + "\n", encoding="utf-8")

    def load(self, directory: str | Path, process: int = 0, num_processes: int = 1) -> Any:
        """Continue from the record of a checkpoint.

        A checkpoint of an earlier version has only the first process's record and no sums: the next
        log then averages over the steps since the resume.

        Args:
            directory: the checkpoint.
            process: the index of this process in the run.
            num_processes: their number; if another number wrote the checkpoint, the first process
                goes on from the sum of all records.

        Returns:
            The guard's last verdict as saved; None if there is none.

        Raises:
            OSError: the checkpoint has no record.
            ValueError: the record is damaged.
        """
        saved = read_recording(directory)
        verdict = saved.pop("verdict", None)
        shares = saved.pop("processes", None)
        if shares is None:
            self.record, self.averages = RunRecord(**saved), Averages()
            return verdict
        if len(shares) != num_processes:
            shares = _summed(shares, num_processes)
        share = dict(shares[process])
        self.record = RunRecord(**share.pop("record"))
        self.averages = Averages(**share)
        return verdict

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock and the measurement of peak memory."""
        reset_peak_memory(args.device)
        self._mark = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count the step, and add its time."""
        self.averages.num_steps += 1
        now = time.perf_counter()
        self.record.seconds += now - self._mark
        self._mark = now

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Do not count the evaluation's time."""
        self._mark = time.perf_counter()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Do not count the save's time."""
        self._mark = time.perf_counter()


def read_recording(directory: str | Path) -> dict[str, Any]:
    """Read a checkpoint's record.

    Raises:
        OSError: the checkpoint has no record.
        ValueError: it is damaged.
    """
    path = Path(directory) / RECORDING_FILE
    if not path.is_file():
        raise OSError(f"{path} is missing: the checkpoint is incomplete; resume from another")
    try:
        saved = read_json(path)
    except Malformed as error:
        raise ValueError(f"{path} is damaged ({error}); resume from another checkpoint") from error
    assert isinstance(saved, dict)
    return saved


def student_tokens(batch: Batch, explicit: bool) -> Tensor:
    """The number of text tokens that a student reads in a batch, on the batch's device.

    Args:
        batch: as the collator makes it.
        explicit: count the whole text; else only prompt and answer.
    """
    if explicit:
        return batch["attention_mask"].sum()
    return batch["prompt_mask"].sum() + batch["answer_mask"].sum()


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak that `peak_memory_bytes` reports.

    Always possible for GPU memory; for process memory only if the Linux kernel allows it.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        try:
            _CLEAR.write_text(_RESET_PEAK)
        except OSError:
            return  # the peak then counts from the start of the process


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory in bytes: allocated on the GPU, else resident memory of this process.

    Example:
        >>> peak_memory_bytes(torch.device("cpu")) > 0
        True
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def loss_smoothness(losses: list[float]) -> float | None:
    """Roughness of a loss curve: the spread of its steps relative to its range.

    The standard deviation of the differences between consecutive logged losses, divided by the
    range (maximum minus minimum). 0 for a straight line, about 0.3 for 60 losses of pure noise.

    Args:
        losses: the logged losses, in order.

    Returns:
        None for fewer than three losses, or if all are equal.

    Example:
        >>> loss_smoothness([4.0, 3.0, 2.0, 1.0])
        0.0
    """
    if len(losses) < 3 or max(losses) == min(losses):
        return None
    return float(np.diff(losses).std() / np.ptp(losses))
