"""`kava layer-map`: compare two models layer by layer on real text, and write the map."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kava.align import CKA_LAYER_MAPS
from kava.align.cka_map import DEFAULT_TOP_K
from kava.quiet import quiet_libraries

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kava.data.encode import Encoded, EncodeReport
    from kava.data.records import Record, Template
    from kava.layers.mapping import LayerMapping


def _flag(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


def _needed(help: str) -> Any:
    return field(metadata={"help": help})


@dataclass(kw_only=True)
class LayerMapConfig:
    """Which models, which text, and what map.

    Raises:
        ValueError: a value outside its range, or values that exclude each other; the message
            names the flag.
    """

    student_model: str = _needed("a hub id, a local folder, or a built-in kava/ name")
    teacher_model: str = _needed("likewise; it may have another tokenizer")
    dataset_name: str = _needed(
        "gsm8k (from the hub), the path of a jsonl file, or kava/shell-game (built in)"
    )
    split: str = _flag("train", "split of the data, where the source has splits")
    num_samples: int = _flag(200, "so many samples, taken at random")
    strategy: str = _flag(
        "top_k",
        "top_k: average the most similar teacher layers; monotone: one teacher layer each, in "
        "order, first and last reached",
    )
    top_k: int | None = _flag(
        None, f"top_k: how many layers are averaged (default {DEFAULT_TOP_K})"
    )
    output: str = _flag("map.json", "where the map goes; the picture stands beside it, as .png")
    token_alignment: str = _flag(
        "hard", "tokenizers that differ: hard takes the teacher's last token, soft averages"
    )
    question_field: str = _flag("question", "field of a jsonl row that holds the question")
    reasoning_field: str = _flag("reasoning", "field that holds the reasoning")
    answer_field: str = _flag("answer", "field that holds the answer")
    reasoning_form: str = _flag("text", "calculator annotations: text, annotated or equations")
    keep_last_step: bool = _flag(False, "keep the last reasoning step, as in kava train")
    question_template: str | None = _flag(
        None, "the prompt with {question} in it; left out: the question and a line break"
    )
    reasoning_template: str | None = _flag(None, "likewise with {reasoning}")
    cue: str | None = _flag(None, "what stands before the answer; left out: that of the data set")
    max_length: int = _flag(512, "most tokens of a sample")
    overflow: str = _flag(
        "error",
        "a sample that is too long, or holds what a tokenizer does not know: error, or skip",
    )
    batch_size: int = _flag(16, "samples per forward")
    dtype: str = _flag("float32", "dtype in which weights are loaded: float32, bfloat16, float16")
    seed: int = _flag(0, "seed of the choice of samples")
    device: str = _flag("auto", "auto (an accelerator where there is one), or cpu")

    def __post_init__(self) -> None:
        choices = {
            "strategy": tuple(CKA_LAYER_MAPS),
            "token_alignment": ("hard", "soft"),
            "overflow": ("error", "skip"),
            "device": ("auto", "cpu"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"--{name} {getattr(self, name)!r} is unknown; choose {', '.join(allowed)}"
                )
        for name in ("num_samples", "max_length", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)} must be above 0")
        if self.top_k is not None and self.strategy != "top_k":
            raise ValueError(
                f"--top_k {self.top_k} belongs to --strategy top_k, but the strategy is "
                f"{self.strategy}; leave one out"
            )
        if Path(self.output).suffix != ".json":
            raise ValueError(f"--output {self.output} must end in .json")
        if not Path(self.output).parent.is_dir():
            raise ValueError(f"--output {self.output}: its folder does not exist; make it first")


def make_layer_map(config: LayerMapConfig) -> LayerMapping:
    """Read the data with both models, measure their layers, and read the map off that.

    Raises:
        ValueError: models or data that cannot be loaded, fewer records than asked for, a sample
            that does not fit, or a model whose layers hold no keys and values.
        OSError: a model or tokenizer that cannot be read.

    Example:
        >>> config = LayerMapConfig(
        ...     student_model="kava/tiny-llama", teacher_model="kava/tiny-gpt2",
        ...     dataset_name="kava/shell-game", num_samples=8,
        ... )
        >>> make_layer_map(config).weights.shape
        torch.Size([2, 2])
    """
    import torch

    from kava.data.collate import Collator
    from kava.data.splits import data_hash
    from kava.layers.mapping import map_layers
    from kava.layers.similarity import measure_layers
    from kava.models import load_model, load_tokenizer
    from kava.student.checkpoint import library_versions

    # large models are loaded last: a wrong path or a bad sample shows at once
    tokenizers = load_tokenizer(config.student_model), load_tokenizer(config.teacher_model)
    records = _records(config)
    samples, report = _encode(config, records, tokenizers)
    print(f"data: {config.dataset_name}: {report}")
    auto = config.device == "auto" and torch.accelerator.is_available()
    device = torch.accelerator.current_accelerator() if auto else torch.device("cpu")
    teacher, student = (
        load_model(name, dtype=config.dtype, device=device)
        for name in (config.teacher_model, config.student_model)
    )
    student_pad, teacher_pad = (tokenizer.pad_token_id for tokenizer in tokenizers)
    assert isinstance(student_pad, int)
    assert isinstance(teacher_pad, int)
    collate = Collator(student_pad, teacher_pad)
    similarity = measure_layers(
        teacher,
        student,
        (
            collate(samples[start : start + config.batch_size])
            for start in range(0, len(samples), config.batch_size)
        ),
        token_alignment=config.token_alignment,
    )
    return map_layers(
        similarity,
        config.strategy,
        config.top_k,
        student_model=config.student_model,
        teacher_model=config.teacher_model,
        dataset_name=config.dataset_name,
        split=config.split,
        num_samples=len(samples),
        data_hash=data_hash(records),
        token_alignment=config.token_alignment,
        versions=library_versions(),
    )


def _records(config: LayerMapConfig) -> list[Record]:
    from kava.data.sources import load_records
    from kava.data.splits import split_records

    records = load_records(
        config.dataset_name,
        split=config.split,
        question_field=config.question_field,
        reasoning_field=config.reasoning_field,
        answer_field=config.answer_field,
        reasoning_form=config.reasoning_form,  # type: ignore[arg-type]
    )
    rest = len(records) - config.num_samples
    if rest < 0:
        raise ValueError(
            f"--num_samples {config.num_samples} is more than the {len(records)} records of "
            f"{config.dataset_name}; lower it"
        )
    return split_records(records, {"taken": config.num_samples, "rest": rest}, seed=config.seed)[
        "taken"
    ]


def _encode(
    config: LayerMapConfig,
    records: list[Record],
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
) -> tuple[list[Encoded], EncodeReport]:
    """The records in the student's tokens and, where they are others, in the teacher's."""
    from kava.data.encode import encode_records
    from kava.data.pairing import encode_for_teacher

    template = _template(config)
    student, teacher = tokenizers
    overflow: Any = config.overflow
    samples, report = encode_records(
        records, student, template, config.max_length, overflow=overflow
    )
    if teacher.get_vocab() != student.get_vocab():
        samples, theirs = encode_for_teacher(
            records, samples, teacher, template, config.max_length, overflow=overflow
        )
        for reason, ids in theirs.skipped.items():
            report.skipped[reason].extend(ids)
    return samples, report


def _template(config: LayerMapConfig) -> Template:
    """The data set's, with the parts that are given."""
    from kava.data.sources import default_template

    own = default_template(config.dataset_name, drop_last_step=not config.keep_last_step)
    given: dict[str, Any] = {
        "question": config.question_template,
        "reasoning": config.reasoning_template,
        "cue": config.cue,
    }
    return replace(own, **{name: part for name, part in given.items() if part is not None})


def main(argv: list[str]) -> int:
    """Parse flags, measure, print the matrix and the map, and write both files."""
    quiet_libraries()
    config = parse(argv)
    mapping = make_layer_map(config)

    from kava.files import write_whole
    from kava.layers.picture import similarity_picture
    from kava.theme import drawing, to_png

    output = Path(config.output)
    picture = output.with_suffix(".png")
    with drawing():
        png = to_png(similarity_picture(mapping))
    mapping.save(output)
    write_whole(picture, png)
    print(f"student: {config.student_model}\nteacher: {config.teacher_model}")
    print(f"CKA of keys and values, mean, over {mapping.similarity.num_positions:,} tokens:")
    print(mapping)
    print(f"written to {output} and {picture}")
    return 0


def parse(argv: list[str]) -> LayerMapConfig:
    """Flags as a configuration; wrong usage leaves by `SystemExit(2)`, with one line."""
    from transformers import HfArgumentParser

    class Parser(HfArgumentParser):
        def error(self, message: str) -> NoReturn:
            self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")

    parser = Parser(
        LayerMapConfig,  # type: ignore[arg-type]
        prog="kava layer-map",
        description="Measure how alike the layers of two models are, and map them.",
        allow_abbrev=False,
    )
    return LayerMapConfig(**vars(parser.parse_args(argv)))
