"""From a configuration to everything that a run needs: data, models, aligner, trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from kava.align.calibrate import CalibrationReport
from kava.data.collate import Collator
from kava.data.encode import encode_records
from kava.data.encoded import Encoded, EncodeReport
from kava.data.mix import draw_shares
from kava.data.neighbours import check_neighbours
from kava.data.pairing import encode_for_teacher
from kava.data.records import Record, Template
from kava.data.shell_game import with_oracle_positions
from kava.data.sources import default_template, load_records
from kava.data.splits import check_disjoint, data_hash, split_records
from kava.dataset_names import is_mix
from kava.devices import choose_device
from kava.layers import LayerMapping
from kava.student.checkpoint import read_settings
from kava.tokenizers import reads_alike
from kava.train.bare import check_bare
from kava.train.calibration import calibrate_aligner
from kava.train.checks import check_warmup
from kava.train.config import TrainConfig
from kava.train.defaults import adopt, default_lines
from kava.train.disk import DiskNeed, check_disk, disk_need
from kava.train.layer_mapping import measure_layer_map
from kava.train.limits import check_models, fit_data, num_update_steps
from kava.train.models import build_distiller, build_teacher_tokenizer, build_tokenizer
from kava.train.objective import Distiller
from kava.train.precision import check_device_precision
from kava.train.resume import Start, check_same_machine, check_same_run, find_start, machine_of
from kava.train.scores import needs_scores, scores_path, with_scores
from kava.train.trainer import KVDistillTrainer

DATA_FIELDS = (
    "model_name", "student", "target_len", "dataset_name", "split", "eval_dataset_name",
    "eval_split", "subset_size", "eval_size", "question_field", "reasoning_field", "answer_field",
    "reasoning_form", "text_field", "reasoning_triggers", "answer_triggers", "keep_last_step",
    "max_length", "overflow", "keep_short", "kv_method",
    "token_alignment",
)  # fmt: skip
"""The settings that decide what `load_data` gives, whatever the others are."""


@dataclass(frozen=True)
class Data:
    """Training and held-out samples."""

    train: list[Encoded]
    train_records: list[Record]
    eval: list[Encoded]
    eval_records: list[Record]
    report: EncodeReport
    hash: str
    template: Template


@dataclass(frozen=True)
class Run:
    """A trainer, its data, where it starts, and what it needs of the disk."""

    trainer: KVDistillTrainer
    data: Data
    start: Start
    need: DiskNeed
    calibration: CalibrationReport | None = None
    layers: LayerMapping | None = None

    @property
    def checkpoint(self) -> Path | None:
        """What the run goes on from."""
        return self.start.checkpoint


def load_data(
    config: TrainConfig,
    tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
) -> Data:
    """Read, split and encode the records that a configuration names.

    Args:
        config: the run's configuration.
        tokenizer: the student's.
        teacher_tokenizer: the teacher's, where another model teaches. It reads the student's
            tokens where the two tokenizers give every text the same ids, and else its own.

    Raises:
        ValueError: data that cannot be read, do not fit, or overlap between training and
            evaluation.
    """
    template = default_template(config.dataset_name, drop_last_step=not config.keep_last_step)
    train = records_of(config, config.dataset_name, config.split)
    held_out: list[Record] = []
    if config.eval_size and config.eval_dataset_name is None:
        if config.eval_size >= len(train):
            raise ValueError(
                f"--eval_size {config.eval_size} leaves nothing to train on: {config.dataset_name} "
                f"has {len(train)} records"
            )
        sizes = {"train": len(train) - config.eval_size, "eval": config.eval_size}
        parts = split_records(train, sizes, seed=config.seed)
        train, held_out = parts["train"], parts["eval"]
    elif config.eval_size and config.eval_dataset_name is not None:
        held_out = records_of(config, config.eval_dataset_name, config.eval_split)
        held_out = held_out[: config.eval_size]
    check_disjoint(_found(train), test=_found(held_out))
    if config.subset_size is not None:
        train = _subset(train, config)
    if teacher_tokenizer is not None:
        texts = (template.render(record).text for record in _found([*train, *held_out]))
        if reads_alike(tokenizer, teacher_tokenizer, texts):
            teacher_tokenizer = None
    matched = config.student == "latent" or config.matches_cache
    target_len = config.target_len if matched and not config.keep_short else None
    tokenizers = (tokenizer, teacher_tokenizer)
    encoded, report = _encode(config, train, tokenizers, template, target_len)
    eval_encoded: list[Encoded] = []
    if held_out:
        eval_encoded, _ = _encode(config, held_out, tokenizers, template, target_len)
    return Data(
        train=encoded,
        train_records=train,
        eval=eval_encoded,
        eval_records=_found(held_out),
        report=report,
        hash=data_hash(train),
        template=template,
    )


def data_key(config: TrainConfig) -> tuple[Any, ...]:
    """What decides a run's data and their scores: configurations of one key can share them.

    Example:
        >>> data_key(TrainConfig(lr=1e-3)) == data_key(TrainConfig(lr=1e-4))
        True
    """
    drawn = config.subset_size is not None or (config.eval_size and not config.eval_dataset_name)
    scored = needs_scores(config)
    return (
        *(getattr(config, name) for name in DATA_FIELDS),
        config.seed if drawn else None,
        config.teacher_name if config.needs_teacher else None,
        config.matches_cache,
        (config.knockout_reach, config.kv_scores_path, config.dtype) if scored else None,
    )


def records_of(config: TrainConfig, name: str, split: str) -> list[Record]:
    """Records read as a configuration says: by its fields, markers and form of reasoning.

    Raises:
        ValueError: data that cannot be read.
    """
    return load_records(
        name,
        split=split,
        question_field=config.question_field,
        reasoning_field=config.reasoning_field,
        answer_field=config.answer_field,
        reasoning_form=config.reasoning_form,  # type: ignore[arg-type]
        text_field=config.text_field,
        reasoning_triggers=config.reasoning_triggers,
        answer_triggers=config.answer_triggers,
        on_missing="report",
    )


def _found(records: list[Record]) -> list[Record]:
    """The records whose segments were found; encoding counts the others, or stops at them."""
    return [record for record in records if not record.missing]


def _subset(records: list[Record], config: TrainConfig) -> list[Record]:
    assert config.subset_size is not None
    if config.subset_size > len(records):
        raise ValueError(
            f"--subset_size {config.subset_size} is more than the {len(records)} training records "
            f"of {config.dataset_name}; lower it"
        )
    if is_mix(config.dataset_name):
        return draw_shares(records, config.subset_size, config.seed)
    sizes = {"train": config.subset_size, "rest": len(records) - config.subset_size}
    return split_records(records, sizes, seed=config.seed)["train"]


def _encode(
    config: TrainConfig,
    records: Sequence[Record],
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase | None],
    template: Template,
    target_len: int | None,
) -> tuple[list[Encoded], EncodeReport]:
    tokenizer, teacher_tokenizer = tokenizers
    own_positions = teacher_tokenizer is not None and config.token_alignment == "none"
    encoded, report = encode_records(
        records,
        tokenizer,
        template,
        config.max_length,
        target_len=None if own_positions else target_len or None,
        overflow=config.overflow,  # type: ignore[arg-type]
        answer_alone=config.keep_short,
    )
    if teacher_tokenizer is not None:
        encoded, skipped = encode_for_teacher(
            records,
            encoded,
            teacher_tokenizer,
            template,
            config.max_length,
            target_len=target_len or None if own_positions else None,
            overflow=config.overflow,  # type: ignore[arg-type]
            answer_alone=config.keep_short,
        )
        for reason, ids in skipped.skipped.items():
            report.skipped[reason].extend(ids)
    if config.kv_method == "positions":
        kept = {item.id for item in encoded}
        encoded = with_oracle_positions(
            [r for r in records if r.id in kept], encoded, config.target_len
        )
    return encoded, report


def _scored(config: TrainConfig, distiller: Distiller, data: Data) -> Data:
    """The data with the scores that the eviction is given."""
    teacher = distiller.base if distiller.teacher is None else distiller.teacher
    path = scores_path(config)
    train = with_scores(config, teacher, data.train, data.train_records, data.template, path)
    held_out = with_scores(config, teacher, data.eval, data.eval_records, data.template, path)
    return replace(data, train=train, eval=held_out)


def build_run(config: TrainConfig, data: Data | None = None) -> Run:
    """Everything for a run, and the checkpoint to go on from.

    Args:
        config: the run's configuration.
        data: those of an earlier run (`Run.data`) whose `data_key` is the same; left out, they
            are read, encoded and scored.

    Raises:
        ValueError: an output folder that holds checkpoints without --resume or --overwrite, or
            with --resume none that is whole, or one of another configuration; bad data; bad models.
    """
    start = find_start(config)
    if start.checkpoint is not None:
        adopt(config, read_settings(start.checkpoint)["config"])
    check_device_precision(config, torch.device(choose_device(config.device)))
    readers = check_models(config)
    for line in default_lines(config):
        print(line, flush=True)
    # large models are loaded last: a wrong path or a bad sample shows at once
    tokenizer = build_tokenizer(config)
    teacher_tokenizer = build_teacher_tokenizer(config, tokenizer)
    given = data is not None
    if data is None:
        data = load_data(config, tokenizer, teacher_tokenizer)
    data = fit_data(config, data, tokenizer, readers)
    if start.checkpoint is not None:
        check_same_run(start.checkpoint, config, data.hash)
    check_warmup(config, num_update_steps(config, len(data.train)))
    check_bare(config, data.train)
    if config.wrong_sample:
        check_neighbours(data.train, "train on", "--subset_size")
        check_neighbours(data.eval, "evaluate on", "--eval_size")
    distiller = build_distiller(config, start.checkpoint)
    if needs_scores(config) and not given:
        data = _scored(config, distiller, data)
    theirs = None if teacher_tokenizer is None else teacher_tokenizer.pad_token_id
    trainer = KVDistillTrainer(
        distiller,
        config,
        tokenizer=tokenizer,
        template=data.template,
        train_data=data.train,
        eval_data=data.eval,
        eval_records=data.eval_records,
        data_hash=data.hash,
        teacher_pad_token_id=theirs,
    )
    notices = [*start.notices]
    if start.checkpoint is not None:
        machine = machine_of(trainer.args.device, trainer.args.world_size)
        notices += check_same_machine(start.checkpoint, machine)
    need = disk_need(trainer, start.gives_way)
    notices += check_disk(need, config.output_dir)
    start = start._replace(notices=tuple(notices))
    calibration = layers = None
    anew = start.checkpoint is None
    collate = Collator(tokenizer.pad_token_id, theirs)
    written = [sample for sample in data.train if sample.num_reasoning]
    if config.measures_layers and config.matches_cache and anew:
        layers = measure_layer_map(distiller, config, written, collate, data.hash)
    if config.calibrates and config.matches_cache and anew:
        calibration = calibrate_aligner(distiller, config, written, collate)
    return Run(trainer, data, start, need, calibration, layers)
