"""Texts that two models read: the flags that say which, and how they are read.

For commands that compare a teacher with a student on text, without training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from kava import names
from kava.data_settings import DataConfig, Source
from kava.flags import again, check_fields, flag
from kava.models.devices import DEVICE_HELP, DTYPES, check_device, check_device_name, choose_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kava.data.collate import Batch, Collator
    from kava.data.encoded import Encoded, EncodeReport
    from kava.data.records import Record, Template


CHUNK_HELP = (
    "both models read a text this many tokens at a time, each over the cache of those before, so "
    "that no activations or attention of whole long texts are held"
)


@dataclass(kw_only=True)
class ReadingConfig(DataConfig, Source):
    """Which text is read, and how.

    Raises:
        ValueError: a value outside its range; the message names the flag.
    """

    dataset_name: str = again(Source, "dataset_name", MISSING)
    token_alignment: str = flag(
        "hard",
        "tokenizers that differ: hard takes the teacher's last token, soft averages",
        choices=("hard", "soft"),
        group="alignment",
    )
    question_template: str | None = flag(
        None,
        "the prompt with {question} in it; left out: the question and a line break",
        empty=True,
        group="data",
    )
    reasoning_template: str | None = flag(None, "the same with {reasoning}", empty=True)
    cue: str | None = flag(
        None, "what stands before the answer; left out: that of the data set", empty=True
    )
    batch_size: int = flag(
        16, "samples per forward", least=1, most=names.MOST_BATCH, group="running"
    )
    dtype: str = flag("float32", "dtype in which weights are loaded", choices=DTYPES)
    seed: int = flag(0, "seed of the choice of samples", least=0, most=names.MOST_SEED)
    device: str = flag("auto", DEVICE_HELP, check=check_device_name)

    def __post_init__(self) -> None:
        check_fields(self)


class Texts(NamedTuple):
    """Records as both models' tokens."""

    records: list[Record]
    samples: list[Encoded]
    collate: Collator
    report: EncodeReport
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]
    """The student's and the teacher's."""
    template: Template
    """The student's."""

    def batches(self, samples: Sequence[Encoded], size: int) -> Iterator[Batch]:
        """Samples, batch by batch, in their order."""
        for start in range(0, len(samples), size):
            yield self.collate(samples[start : start + size])


def read_texts(
    config: ReadingConfig,
    student: str,
    teacher: str,
    num_samples: int | None,
    flag: str,
    usual: int,
) -> Texts:
    """Take records at random, and encode them for both models.

    Args:
        config: which data.
        student: the name of the model whose tokens count.
        teacher: the name of the other.
        num_samples: how many records; None: `usual`, or all where there are fewer, and says so.
        flag: the flag that says how many, for messages.
        usual: how many are taken where none are asked for.

    Raises:
        ValueError: a device that is not there, data that cannot be loaded, fewer records than
            asked for, or a sample that does not fit.
        OSError: a tokenizer that cannot be read.

    Example:
        >>> config = ReadingConfig(dataset_name="kava/shell-game")
        >>> texts = read_texts(config, "kava/shell-llama", "kava/shell-gpt2", 8, "num_samples", 200)
        >>> len(texts.samples)
        8
    """
    from kava.data.chat import Chats
    from kava.data.collate import Collator
    from kava.models.load import load_model_config, load_tokenizer
    from kava.models.readable import Limits, fitting
    from kava.models.tokenizers import check_tokenizer

    check_device(config.device)
    configs = load_model_config(student), load_model_config(teacher, encoders=True)
    limits = [Limits.of(name, config) for name, config in zip((student, teacher), configs)]
    loaded = load_tokenizer(student), load_tokenizer(teacher)
    for tokenizer, limit in zip(loaded, limits):
        check_tokenizer(tokenizer, limit.name, limit.num_tokens)
    chats = [Chats(one, config.chat_template, limit.name) for one, limit in zip(loaded, limits)]
    tokenizers = chats[0].ending(), chats[1].ending()
    templates = [one.template(template_of(config)) for one in chats]
    records = _records(config, num_samples, flag, usual)
    for one, template in zip(chats, templates):
        one.check_replies(records, template)
    samples, report = _encode(config, records, tokenizers, templates)
    samples = fitting(samples, limits[0], limits[1], config.overflow, report=report)
    pads = [tokenizer.pad_token_id for tokenizer in tokenizers]
    assert all(isinstance(pad, int) for pad in pads)
    return Texts(records, samples, Collator(*pads), report, tokenizers, templates[0])


def load_models(
    config: ReadingConfig, student: str, teacher: str
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The student and the teacher, on their device.

    Raises:
        ValueError: a model that cannot be loaded.
        OSError: files that cannot be read.
    """
    return load_reader(config, student), load_reader(config, teacher, encoders=True)


def load_reader(config: ReadingConfig, name: str, *, encoders: bool = False) -> PreTrainedModel:
    """A model that reads texts, on its device, tried on a few tokens; or an encoder.

    Raises:
        ValueError: a model that cannot be loaded, or whose cache is not what a trace needs.
        OSError: files that cannot be read.
    """
    from kava.models.load import load_model
    from kava.models.probe import probe_cache

    model = load_model(
        name, dtype=config.dtype, device=choose_device(config.device), encoders=encoders
    )
    probe_cache(model, name)
    return model


def _records(config: ReadingConfig, num_samples: int | None, flag: str, usual: int) -> list[Record]:
    from kava.data.sources import load_records
    from kava.data.splits import split_records

    records = load_records(
        config.dataset_name,
        split=config.split,
        rows=config,
    )
    if num_samples is None:
        num_samples = min(usual, len(records))
        if num_samples < usual:
            print(f"default: --{flag} {num_samples}, all that {config.dataset_name} has")
    rest = len(records) - num_samples
    if rest < 0:
        raise ValueError(
            f"--{flag} {num_samples} is more than the {len(records)} records of "
            f"{config.dataset_name}; lower it"
        )
    return split_records(records, {"taken": num_samples, "rest": rest}, seed=config.seed)["taken"]


def _encode(
    config: ReadingConfig,
    records: list[Record],
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
    templates: Sequence[Template],
) -> tuple[list[Encoded], EncodeReport]:
    """The records in the student's tokens and, where they are others, in the teacher's."""
    from kava.data.encode import encode_records
    from kava.data.pairing import encode_for_teacher
    from kava.models.tokenizers import reads_alike

    template, own = templates
    student, teacher = tokenizers
    overflow: Any = config.overflow
    samples, report = encode_records(
        records, student, template, config.max_length, overflow=overflow
    )
    texts = (template.render(record).text for record in records)
    if own != template or not reads_alike(student, teacher, texts):
        samples, theirs = encode_for_teacher(
            records, samples, teacher, template, config.max_length, overflow=overflow, own=own
        )
        for reason, ids in theirs.skipped.items():
            report.skipped[reason].extend(ids)
    return samples, report


def template_of(config: ReadingConfig) -> Template:
    """The data set's, with the parts that are given; outside any chat."""
    from kava.data.sources import default_template

    own = default_template(config.dataset_name, drop_last_step=not config.keep_last_step)
    given: dict[str, Any] = {
        "question": config.question_template,
        "reasoning": config.reasoning_template,
        "cue": config.cue,
    }
    return replace(own, **{name: part for name, part in given.items() if part is not None})
