"""`kava train`: distil a teacher's key/value cache into a student."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kava.files.locks import lock_folder
from kava.files.outputs import check_output, check_run_folder
from kava.models.quiet import quiet_libraries
from kava.names import METRICS_FILE, TENSORBOARD_FOLDER
from kava.ranks import is_first
from kava.stopping import Stopped
from kava.train.config import TrainConfig
from kava.train.flags import USAGE, config_of
from kava.train.loss_line import formula

if TYPE_CHECKING:
    from kava.train.build import Run
    from kava.train.objective import Distiller


def main(argv: list[str]) -> int:
    """Parse flags, train, and say where everything was written."""
    train_as(USAGE.prog, argv, config_of(USAGE, USAGE.read(argv)))
    return 0


def train_as(program: str, argv: list[str], config: TrainConfig) -> Path:
    """Run a configuration to its end; where a signal stops it, say how to go on.

    Args:
        program: what was called.
        argv: with which arguments.
        config: what they say.

    Returns:
        The newest checkpoint.

    Raises:
        Stopped: a signal came.
        ValueError, KavaError: as `train`.
    """
    quiet_libraries()
    try:
        return train(config)
    except Stopped as stop:
        from kava.train.stop import command_to_go_on

        again = f"{program} {shlex.join(argv)}".rstrip()
        if stop.advice:
            again = command_to_go_on(argv, program)
        stop.advice = f"{stop.advice or 'no step was done'}; go on with: {again}"
        raise


def train(config: TrainConfig) -> Path:
    """Run a configuration to its end.

    Returns:
        The newest checkpoint.

    Raises:
        ValueError: bad data or models, or a place that cannot be written to.
        KavaError: another run is at work in the output folder.
    """
    check_run_folder(config.output_dir, files=(METRICS_FILE,), folders=(TENSORBOARD_FOLDER,))
    if config.kv_scores_path is not None:
        check_output(config.kv_scores_path, "--kv_scores_path")
    # of processes that train together the first writes
    first = is_first()
    with lock_folder(config.output_dir if first else None, "kava train"):
        return _train(config)


def _train(config: TrainConfig) -> Path:
    from kava.student.checkpoint import latest_checkpoint
    from kava.train.build import build_run

    run = build_run(config)
    first = run.trainer.is_world_process_zero()
    if first:
        for notice in run.start.notices:
            print(f"kava: warning: {notice}", file=sys.stderr)
        _describe(config, run)
    run.trainer.train(resume_from_checkpoint=str(run.checkpoint) if run.checkpoint else None)
    run.trainer.writer.clear()  # of a run that had no step left
    checkpoint = latest_checkpoint(config.output_dir)
    assert checkpoint is not None
    if first:
        _say_what_is_next(config, run, checkpoint)
    return checkpoint


def _say_what_is_next(config: TrainConfig, run: Run, checkpoint: Path) -> None:
    """Where everything is, and commands that can be run as they stand."""
    folder = Path(config.output_dir)
    best = folder / Path(run.trainer.state.best_model_checkpoint or checkpoint).name
    print(f"checkpoint: {checkpoint}{f' (best: {best})' if best != checkpoint else ''}")
    print(f"metrics:    {folder / METRICS_FILE}")
    print(
        f"TensorBoard: {shlex.join(['tensorboard', '--logdir', str(folder / TENSORBOARD_FOLDER)])}"
    )
    records = run.data.eval_records or run.data.train_records
    questions = [record.student_question or record.question for record in records[:20]]
    ask = ["--prompt", min(questions, key=lambda question: ("\n" in question, len(question)))]
    for command in (["evaluate"], ["generate", *ask]):
        named = ["kava", command[0], "--checkpoint", str(folder), *command[1:]]
        print(f"next:       {shlex.join(named)}")


def _describe(config: TrainConfig, run: Run) -> None:
    from kava.data.mix import mix_sizes
    from kava.train.space_fit import space_lines
    from kava.train.teacher_names import teachers_of

    distiller = run.trainer.model
    trainable = sum(p.numel() for p in distiller.parameters() if p.requires_grad)
    aligner = sum(one.num_parameters for one in distiller.aligners)
    teacher = config.teacher_name or "itself (self-distillation)"
    if config.several:
        names = (f"{one.label} ({one.model}, {one.dtype})" for one in teachers_of(config))
        teacher = f"{', '.join(names)}; fusion: {config.fusion}"
    sizes = mix_sizes(run.data.train_records)
    if sizes:
        parts = ", ".join(f"{name} {size}" for name, size in sizes.items())
        print(f"mix:     {parts}")
    begins = "streamed, begins with " if config.streaming else ""
    print(f"data:    {config.dataset_name}: {begins}{run.data.report}; hash {run.data.hash[:12]}")
    print(f"student: {config.model_name}, {config.student}, {trainable:,} trainable parameters")
    print(f"teacher: {teacher}")
    for line in _teacher_lines(distiller, config):
        print(f"         {line}")
    print(
        f"target:  {config.kv_method} to {config.target_len} positions, "
        f"{config.alignment_mode} alignment"
        + (f" ({aligner:,} parameters, {config.aligner_fit})" if aligner else "")
    )
    print(f"loss:    {formula(config)}")
    print(f"disk:    {run.need}")
    if run.layers is not None:
        print(f"layers, by CKA of keys and values:\n{run.layers}")
    for n, report in enumerate(run.calibrations):
        if config.several:
            print(f"map of teacher {teachers_of(config)[n].label}:")
        print(report)
    if run.space is not None:
        print(space_lines(config, run.space))
    if run.checkpoint is not None:
        print(f"resumed: {run.checkpoint}")
        if run.trainer.is_finished(run.checkpoint):
            print("         the run was finished: nothing is left to train")


def _teacher_lines(distiller: Distiller, config: TrainConfig) -> list[str]:
    """What is printed of quantised and of resting teachers at the start of a run."""
    from kava.models.quantise import quantised_line
    from kava.store.teacher import StoredTeacher
    from kava.train.teacher_names import teachers_of

    lines = []
    if config.teacher_name is not None and config.needs_teacher:
        for one, model in zip(teachers_of(config), distiller.readers):
            line = None if isinstance(model, StoredTeacher) else quantised_line(model)
            if line is not None:
                lines.append(f"{one.label}: {line}" if config.several else line)
    if config.teacher_offload:
        lines.append("its weights rest on the CPU between its passes")
    return lines
