"""Build everything that a run needs from its configuration: data, models, aligner, trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback

from kava.data.collate import Collator
from kava.data.encoded import UNKNOWN_TOKEN, DoesNotFit
from kava.data.neighbours import check_neighbours, with_neighbours
from kava.dataset_names import WORD_BY_WORD
from kava.fit.aligner import CalibrationReport
from kava.fit.layer_map import LayerMapping
from kava.models.devices import choose_device
from kava.ranks import num_launched
from kava.shared import SpaceFit
from kava.store.teacher import StoredTeacher
from kava.student.settings import read_settings
from kava.train.auto_batch import settle_batch_size
from kava.train.bare import check_bare
from kava.train.cache_budget import check_stored_cache
from kava.train.calibration import calibrate_aligners
from kava.train.checks import check_warmup
from kava.train.config import TrainConfig
from kava.train.data import Data, load_data
from kava.train.defaults import adopt, default_lines
from kava.train.disk import DiskNeed, check_disk, disk_need
from kava.train.given import NOTHING_GIVEN, GivenRecords
from kava.train.launcher import check_launcher
from kava.train.layer_mapping import layer_map_file, measure_layer_map
from kava.train.limits import check_models, cut_answers, fit_data, num_update_steps
from kava.train.memory import check_device_memory
from kava.train.models import (
    build_distiller,
    build_teacher_tokenizer,
    build_teacher_tokenizers,
    build_tokenizer,
)
from kava.train.objective import Distiller
from kava.train.precision import check_device_precision
from kava.train.recorded import recorded_values
from kava.train.resume import Start, check_same_machine, check_same_run, find_start, machine_of
from kava.train.scores import needs_scores, scores_path, with_scores
from kava.train.space_fit import fit_shared_space
from kava.train.stored import give_rows
from kava.train.streaming import head_of, stream_of, with_stream
from kava.train.trackers import trackers_of
from kava.train.trainer import RunTrainer


@dataclass(frozen=True)
class Run:
    """A trainer, its data, its starting point and the disk space that it needs."""

    trainer: RunTrainer
    data: Data
    start: Start
    need: DiskNeed
    calibrations: tuple[CalibrationReport, ...] = ()
    """One for each teacher whose map was fitted."""
    layers: LayerMapping | None = None
    space: SpaceFit | None = None

    @property
    def calibration(self) -> CalibrationReport | None:
        """The report of the first teacher's map."""
        return self.calibrations[0] if self.calibrations else None

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint that the run resumes from, or None."""
        return self.start.checkpoint


@dataclass(frozen=True)
class Parts:
    """What a run is made of before there is a trainer.

    Attributes:
        config: the run's configuration.
        distiller: student, teachers, aligners and losses.
        data: encoded samples and their records.
        tokenizer: the student's.
        start: where the run begins.
        trackers: callbacks of `--report_to`.
        teacher_pad_token_id: padding token of a teacher with its own tokenizer.
        pad_token_ids: padding tokens of several teachers.
        batch_line: what `--batch_size auto` chose and why; None of a size that was given.
    """

    config: TrainConfig
    distiller: Distiller
    data: Data
    tokenizer: PreTrainedTokenizerBase
    start: Start
    trackers: tuple[TrainerCallback, ...]
    teacher_pad_token_id: int | None
    pad_token_ids: tuple[int | None, ...]
    batch_line: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `RunTrainer`, but its callbacks and further metrics."""
        return {
            "distiller": self.distiller,
            "config": self.config,
            "tokenizer": self.tokenizer,
            "template": self.data.template,
            "train_data": self.data.train if self.data.stream is None else self.data.stream,
            "eval_data": self.data.eval,
            "eval_records": self.data.eval_records,
            "data_hash": self.data.hash,
            "teacher_pad_token_id": self.teacher_pad_token_id,
            "pad_token_ids": self.pad_token_ids,
        }


def _scored(config: TrainConfig, distiller: Distiller, data: Data) -> Data:
    """The data with the scores that the eviction needs."""
    teacher, path = distiller.readers[0], scores_path(config)
    train = with_scores(config, teacher, data.train, data.train_records, data.template, path)
    held_out = with_scores(config, teacher, data.eval, data.eval_records, data.template, path)
    return replace(data, train=train, eval=held_out)


@contextmanager
def _other_words(config: TrainConfig) -> Iterator[None]:
    """Say which flag to pass where a model of the built-in game is given another text.

    Raises:
        ValueError: the first word that its tokenizer does not know.
    """
    try:
        yield
    except DoesNotFit as problem:
        tasks = [task for task, models in WORD_BY_WORD.items() if config.model_name in models]
        if problem.reason != UNKNOWN_TOKEN or not tasks:
            raise
        raise ValueError(
            f"--model_name {config.model_name} reads the words of {tasks[0]} alone, and not "
            f"{config.dataset_name}: pass --model_name with a model that reads your text, such as "
            f"gpt2 or kava/tiny-gpt2 ({problem})"
        ) from problem


def build_run(config: TrainConfig, data: Data | None = None) -> Run:
    """Build a run, and find the checkpoint to resume from.

    Args:
        config: the run's configuration.
        data: the data of an earlier run (`Run.data`) with the same `data_key`; if None, they are
            read, encoded and scored.

    Raises:
        ValueError: the output folder holds checkpoints and neither --resume nor --overwrite is
            given; --resume finds no complete checkpoint, or one of another configuration; bad data;
            bad models.
    """
    parts = prepare(config, data)
    return finish(RunTrainer(**parts.arguments, callbacks=parts.trackers), parts)


def prepare(
    config: TrainConfig, data: Data | None = None, given: GivenRecords = NOTHING_GIVEN
) -> Parts:
    """Everything of a run but its trainer.

    Args:
        config, data: as `build_run` takes them.
        given: records in place of those that the configuration names.

    Raises:
        ValueError: as `build_run`.
    """
    start = find_start(config)
    if start.checkpoint is not None:
        adopt(config, recorded_values(read_settings(start.checkpoint), config.left_out))
    device = torch.device(choose_device(config.device))
    check_stored_cache(config)
    check_launcher(config, device)
    check_device_precision(config, device)
    check_device_memory(config, device)
    trackers = trackers_of(config)
    readers = check_models(config)
    stream = stream_of(config) if config.streaming else None
    # large models are loaded last, so that a wrong path or a bad sample is reported at once
    tokenizer = build_tokenizer(config)
    teacher_tokenizer = build_teacher_tokenizer(config, tokenizer)
    several = build_teacher_tokenizers(config, tokenizer)
    for line in default_lines(config):
        print(line, flush=True)
    shared = data is not None
    if stream is not None:
        given = replace(given, train=head_of(config, stream))
    if data is None:
        with _other_words(config):
            data = load_data(config, tokenizer, teacher_tokenizer, several, given)
    data = fit_data(config, data, tokenizer, readers)
    if stream is not None:
        data = with_stream(config, data, stream, (tokenizer, teacher_tokenizer), readers)
    if start.checkpoint is not None:
        check_same_run(start.checkpoint, config, data.hash)
    if not config.auto_batch:
        check_warmup(config, num_update_steps(config, len(data.train), num_launched()))
    check_bare(config, data.train)
    if config.wrong_sample:
        check_neighbours(data.train, "train on", "--subset_size")
        check_neighbours(data.eval, "evaluate on", "--eval_size")
    distiller = build_distiller(config, start.checkpoint)
    if needs_scores(config) and not shared:
        data = _scored(config, distiller, data)
    if config.store:
        stored = [one for one in distiller.readers if isinstance(one, StoredTeacher)]
        theirs_own = several or [tokenizer if teacher_tokenizer is None else teacher_tokenizer]
        both = data.train, data.eval
        train, held_out = give_rows(config, both, stored, theirs_own, data.teacher_templates)
        data = replace(data, train=train, eval=held_out)
    theirs = None if teacher_tokenizer is None else teacher_tokenizer.pad_token_id
    pads = tuple(one.pad_token_id for one in several)
    batch_line = None
    if config.auto_batch:
        collate = Collator(tokenizer.pad_token_id, theirs, pad_token_ids=pads)
        samples = with_neighbours(data.train) if config.wrong_sample else data.train
        batch_line = settle_batch_size(config, distiller, samples, collate, device)
        print(batch_line, flush=True)
        check_warmup(config, num_update_steps(config, len(data.train)))
    return Parts(config, distiller, data, tokenizer, start, trackers, theirs, pads, batch_line)


def finish(trainer: RunTrainer, parts: Parts) -> Run:
    """Check the disk, and fit what is fitted before the first step.

    Args:
        trainer: made of the parts.
        parts: the result of `prepare`.

    Raises:
        ValueError: too little room on the disk, or nothing that a map could be fitted on.
    """
    config, distiller, data, start = parts.config, parts.distiller, parts.data, parts.start
    trainer.writer.gives_way = start.gives_way
    notices = [*start.notices, *data.notices, *cut_answers(config, data.eval)]
    if start.checkpoint is not None:
        machine = machine_of(trainer.args.device, trainer.args.world_size)
        notices += check_same_machine(start.checkpoint, machine, config)
    need = disk_need(trainer, start.gives_way)
    notices += check_disk(need, config.output_dir)
    start = start._replace(notices=tuple(notices))
    calibrations: tuple[CalibrationReport, ...] = ()
    layers = None
    anew = start.checkpoint is None
    collate = Collator(
        parts.tokenizer.pad_token_id,
        parts.teacher_pad_token_id,
        pad_token_ids=parts.pad_token_ids,
    )
    written = [sample for sample in data.train if sample.num_reasoning]
    space = None
    if config.measures_layers and config.matches_cache and anew:
        with distiller.resting.awake(*distiller.models):
            layers = measure_layer_map(distiller, config, written, collate, data.hash)
        trainer.after_first_step.do.append(partial(layers.save, layer_map_file(config)))
    if config.calibrates and config.matches_cache and anew:
        calibrations = calibrate_aligners(distiller, config, written, collate)
    if distiller.space is not None and anew:
        space = fit_shared_space(distiller, config, written, collate)
    return Run(trainer, data, start, need, calibrations, layers, space)
