"""Flags of `kava train`: what a run writes, how often, and where it goes on from."""

from __future__ import annotations

from dataclasses import dataclass

from kava import names
from kava.flags import flag


@dataclass(kw_only=True)
class RunSettings:
    """Where a run writes, and when it logs, saves and evaluates."""

    output_dir: str = flag(
        "outputs/run", "folder for checkpoints, metrics and TensorBoard", group="output"
    )
    logging_steps: int = flag(10, "steps between two log lines", least=1)
    save_steps: int = flag(500, "steps between two checkpoints; one more at the end", least=1)
    save_total_limit: int | None = flag(
        2, "keep this many newest checkpoints, and the best beside them; 0: all", least=0
    )
    save_only_model: bool = flag(
        False,
        "write checkpoints without optimiser and random states, a third of the size: they can be "
        "evaluated, but no run can go on from them",
    )
    eval_steps: int = flag(500, "steps between two evaluations; one more at the end", least=1)
    eval_first: bool = flag(False, "also evaluate before the first step, as step 0")
    eval_train_size: int = flag(
        0,
        "at each evaluation also compute the losses on this many training samples "
        "(eval_train_kv, eval_train_ce), for the gap to the held-out ones",
        least=0,
    )
    eval_batch_size: int = flag(
        64, "samples per batch in evaluation", least=1, most=names.MOST_BATCH
    )
    max_new_tokens: int = flag(64, "most tokens to generate per answer in evaluation", least=1)
    resume: bool = flag(False, "go on from the newest whole checkpoint in output_dir")
    resume_from: str | None = flag(
        None,
        "go on from this checkpoint: a folder, or the name of one in output_dir such as "
        "checkpoint-500; later ones there are taken away with overwrite alone",
    )
    overwrite: bool = flag(False, "start anew although output_dir holds checkpoints")
    report_to: list[str] | None = flag(
        None,
        "also report to these trackers, whose libraries have to be installed; metrics.jsonl and "
        "TensorBoard's file are written in any case",
        choices=names.TRACKERS,
        metavar="TRACKER",
        unset="none",
    )
    no_progress: bool = flag(False, "no progress bars")
