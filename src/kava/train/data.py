"""Load the training and held-out samples of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase

from kava.data.chat import Chats
from kava.data.encode import encode_records
from kava.data.encoded import Encoded, EncodeReport
from kava.data.leakage import check_disjoint, leak_warning
from kava.data.mix import draw_shares
from kava.data.oracle import with_oracle_positions
from kava.data.pairing import encode_for_teacher, encode_for_teachers, with_own_reasoning
from kava.data.rationales import read_rationales, with_rationales
from kava.data.records import Record, Template
from kava.data.sources import default_template, load_records
from kava.data.splits import data_hash, split_records, spread_questions
from kava.dataset_names import is_mix
from kava.flags import flags_of, listed
from kava.train.config import TrainConfig
from kava.train.given import NOTHING_GIVEN, GivenRecords
from kava.train.readers import Reader, Readers, reader_of
from kava.train.scores import needs_scores
from kava.train.settings.data import DataSettings
from kava.train.teacher_names import teachers_of

DATA_FIELDS = (
    *("model_name", "student", "target_len", "kv_method", "token_alignment"),
    *flags_of(DataSettings),
)
"""The settings that `load_data` depends on in every run."""


@dataclass(frozen=True)
class Data:
    """Training and held-out samples.

    Attributes:
        template: the student's.
        teacher_templates: of each teacher, in their order.
    """

    train: list[Encoded]
    train_records: list[Record]
    eval: list[Encoded]
    eval_records: list[Record]
    report: EncodeReport
    hash: str
    template: Template
    notices: tuple[str, ...] = ()
    teacher_templates: tuple[Template, ...] = ()
    stream: IterableDataset[Encoded] | None = None
    """With `--streaming`: what is trained on; `train` is its beginning."""


def load_data(
    config: TrainConfig,
    tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
    several: Sequence[PreTrainedTokenizerBase] = (),
    given: GivenRecords = NOTHING_GIVEN,
) -> Data:
    """Read, split and encode the records of a configuration.

    Args:
        config: the run's configuration.
        tokenizer: the student's tokenizer.
        teacher_tokenizer: the tokenizer of another teacher model. The teacher reads the student's
            tokens if both tokenizers give every text the same ids, else its own tokens.
        several: the tokenizers of several teachers, in place of it.
        given: records in place of those that the configuration names.

    Raises:
        ValueError: data that cannot be read or do not fit, or that overlap between training and
            evaluation.
    """
    plain = default_template(config.dataset_name, drop_last_step=not config.keep_last_step)
    chats = Chats(tokenizer, config.chat_template, config.model_name)
    template = chats.template(plain)
    train, held_out, notices = _read(config, given)
    chats.check_replies(_found(train), template)
    if config.teacher_reasoning:
        theirs = read_rationales(config.teacher_reasoning)
        train, held_out = (with_rationales(part, theirs) for part in (train, held_out))
    records = _found([*train, *held_out])
    teacher: Reader = ("", None, template)
    if teacher_tokenizer is not None:
        teacher = reader_of(
            teachers_of(config)[0], teacher_tokenizer, tokenizer, plain, template, records
        )
    readers = [
        reader_of(one, theirs, tokenizer, plain, template, records)
        for one, theirs in zip(teachers_of(config), several)
    ]
    target_len = needed_reasoning(config)
    encode = partial(
        encode_samples,
        config,
        tokenizer=tokenizer,
        teacher=teacher,
        template=template,
        readers=readers,
    )
    encoded, report = encode(train, target_len=target_len)
    eval_encoded: list[Encoded] = []
    if held_out:
        eval_encoded, _ = encode(held_out, target_len=target_len)
    return Data(
        train=encoded,
        train_records=train,
        eval=eval_encoded,
        eval_records=_found(held_out),
        report=report,
        hash=data_hash(train),
        template=template,
        notices=notices,
        teacher_templates=tuple(own for _, _, own in readers or [teacher]),
    )


def read_data(
    config: TrainConfig, given: GivenRecords = NOTHING_GIVEN
) -> tuple[list[Record], list[Record]]:
    """The records to train on and those that are held out, before any is encoded.

    Args:
        config: the run's configuration.
        given: records in place of those that it names.

    Raises:
        ValueError: data that cannot be read, are too few, or overlap.

    Example:
        >>> train, held_out = read_data(TrainConfig(subset_size=100, eval_size=10))
        >>> len(train), len(held_out)
        (100, 10)
    """
    train, held_out, _ = _read(config, given)
    return train, held_out


def _read(
    config: TrainConfig, given: GivenRecords
) -> tuple[list[Record], list[Record], tuple[str, ...]]:
    """The records to train on, those that are held out, and what to say of them."""
    train = given.train
    if train is None:
        train = records_of(config, config.dataset_name, config.split)
    held_out: list[Record] = []
    unused: list[Record] = []
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
        held_out = (
            records_of(config, config.eval_dataset_name, config.eval_split)
            if given.eval is None
            else given.eval
        )
        held_out, unused = held_out[: config.eval_size], held_out[config.eval_size :]
    check_disjoint(_found(train), test=_found(held_out))
    rest = f"questions of {config.eval_dataset_name} behind the first {config.eval_size}"
    warning = leak_warning(_found(train), _found(unused), rest) if unused else None
    if config.subset_size is not None:
        train = _subset(train, config)
    notices = () if warning is None else (warning,)
    return spread_questions(train), spread_questions(held_out), notices


def data_key(config: TrainConfig) -> tuple[Any, ...]:
    """Key of a run's data and scores: configurations with equal keys can share them.

    Example:
        >>> data_key(TrainConfig(lr=1e-3)) == data_key(TrainConfig(lr=1e-4))
        True
    """
    drawn = config.subset_size is not None or (config.eval_size and not config.eval_dataset_name)
    scored = needs_scores(config)
    return (
        *(getattr(config, name) for name in DATA_FIELDS),
        config.seed if drawn else None,
        (*teachers_of(config), config.fusion) if config.needs_teacher else None,
        tuple(config.teacher_reasoning or ()),
        config.matches_cache,
        (config.knockout_reach, config.kv_scores_path, config.dtype) if scored else None,
    )


def records_of(config: TrainConfig, name: str, split: str) -> list[Record]:
    """Read records with a configuration's fields, markers and form of reasoning.

    Raises:
        ValueError: data that cannot be read.
    """
    return load_records(name, split=split, rows=config, on_missing="report")


def needed_reasoning(config: TrainConfig) -> int | None:
    """The fewest reasoning tokens of a sample; None where a sample may have fewer than M."""
    matched = config.student == "latent" or config.matches_cache
    return config.target_len if matched and not config.keep_short else None


def _found(records: list[Record]) -> list[Record]:
    """The records whose segments were found; the encoder counts the others, or stops there."""
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


def encode_samples(
    config: TrainConfig,
    records: Sequence[Record],
    *,
    tokenizer: PreTrainedTokenizerBase,
    teacher: Reader,
    template: Template,
    readers: Readers,
    target_len: int | None,
) -> tuple[list[Encoded], EncodeReport]:
    """Encode records for the student and its teachers."""
    _, teacher_tokenizer, teacher_template = teacher
    own = teacher_tokenizer is not None or any(theirs is not None for _, theirs, _ in readers)
    own = own or bool(config.teacher_reasoning)
    own_positions = own and config.token_alignment == "none"
    encoded, report = encode_records(
        records,
        tokenizer,
        template,
        config.max_length,
        target_len=None if own_positions else target_len or None,
        overflow=config.overflow,  # type: ignore[arg-type]
        answer_alone=bool(config.keep_short),
    )
    pairing: dict[str, Any] = {
        "target_len": target_len or None if own_positions else None,
        "overflow": config.overflow,
        "answer_alone": bool(config.keep_short),
    }
    if teacher_tokenizer is not None:
        encoded, skipped = encode_for_teacher(
            records,
            encoded,
            teacher_tokenizer,
            template,
            config.max_length,
            own=teacher_template,
            **pairing,
        )
        for reason, ids in skipped.skipped.items():
            report.skipped[reason].extend(ids)
    if readers:
        encoded, reports = encode_for_teachers(
            records, encoded, readers, template, config.max_length, **pairing
        )
        for one, theirs in zip(teachers_of(config), reports):
            if theirs.skipped:
                print(f"teacher {one.label} reads {theirs}", flush=True)
        if config.teacher_reasoning:
            by_label = [(label, theirs or tokenizer, prompt) for label, theirs, prompt in readers]
            encoded, reports = with_own_reasoning(
                records,
                encoded,
                by_label,
                config.max_length,
                target_len=pairing["target_len"],
                overflow=pairing["overflow"],
            )
            for (label, _, _), written in zip(by_label, reports):
                print(f"teacher {label} reads its own chains of thought: {written}", flush=True)
        encoded = _named(config, records, encoded)
    if config.kv_method == "positions":
        kept = {item.id for item in encoded}
        encoded = with_oracle_positions(
            [r for r in records if r.id in kept], encoded, config.target_len
        )
    return encoded, report


def _named(
    config: TrainConfig, records: Sequence[Record], encoded: Sequence[Encoded]
) -> list[Encoded]:
    """The samples with the teacher that the data name for each, which `--fusion oracle` needs."""
    labels = [one.label for one in teachers_of(config)]
    needed = config.fusion == "oracle"
    named = {record.id: (record, record.meta.get("teacher_id")) for record in records}
    found = []
    for item in encoded:
        record, label = named[item.id]
        if label is None and needed:
            raise ValueError(
                f"--fusion oracle needs the column teacher_id, which {record.named} has not: add "
                f"it, or choose another fusion"
            )
        if label not in labels and needed:
            raise ValueError(
                f"{record.named} has the teacher_id {label!r}, and --teachers names "
                f"{listed(labels)}: label the teachers as the data do, LABEL=NAME"
            )
        index = labels.index(label) if label in labels else None
        found.append(replace(item, teacher_index=index))
    return found
