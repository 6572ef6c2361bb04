"""`kava layer-map`: compare two models layer by layer on real text, and write the map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kava import names
from kava.commands.reading import CHUNK_HELP, ReadingConfig, load_models, read_texts
from kava.files.outputs import check_output
from kava.flags import Usage, again, flag, needed
from kava.flags.aliases import COMPARING_LAYERS
from kava.format import counted
from kava.models.quiet import quiet_libraries
from kava.train.settings.memory import MemorySettings

if TYPE_CHECKING:
    from kava.fit.layer_map import LayerMapping


USUAL_SAMPLES = 200


@dataclass(kw_only=True)
class LayerMapConfig(ReadingConfig):
    """Which models, which text, and what map.

    Raises:
        ValueError: a value outside its range, or values that exclude each other; the message
            names the flag.
    """

    student_model: str = needed(
        "a hub id, a local folder, or a built-in kava/ name", group="models"
    )
    teacher_model: str = needed("the same of the teacher; it may have another tokenizer")
    num_samples: int | None = flag(
        None,
        "samples, taken at random",
        least=1,
        group="data",
        unset=f"{USUAL_SAMPLES}, or all where there are fewer",
    )
    strategy: str = flag(
        "top_k",
        "top_k: average the most similar teacher layers; monotone: one teacher layer each, in "
        "order, first and last reached",
        choices=names.CKA_LAYER_MAP_NAMES,
        group="alignment",
    )
    top_k: int | None = flag(
        None, "with --strategy top_k: how many layers are averaged", least=1, unset="2"
    )
    capture_chunk: int | None = again(
        MemorySettings,
        "capture_chunk",
        None,
        help=CHUNK_HELP,
        group="memory",
    )
    output: str = flag(
        "map.json", "where the map goes; the picture stands beside it, as .png", group="output"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k is not None and self.strategy != "top_k":
            raise ValueError(
                f"--top_k {self.top_k} belongs to --strategy top_k, but the strategy is "
                f"{self.strategy}; leave one out"
            )
        if Path(self.output).suffix != ".json":
            raise ValueError(f"--output {self.output} must end in .json")


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
    from kava.align.layers.cka import MIN_ROWS_DEBIASED
    from kava.data.splits import data_hash
    from kava.fit.layer_map import map_layers
    from kava.fit.layer_similarity import measure_layers
    from kava.student.checkpoint import library_versions

    # large models are loaded last: a wrong path or a bad sample shows at once
    names = config.student_model, config.teacher_model
    texts = read_texts(config, *names, config.num_samples, "num_samples", USUAL_SAMPLES)
    num_tokens = sum(sample.num_reasoning for sample in texts.samples)
    if num_tokens < MIN_ROWS_DEBIASED:
        raise ValueError(
            f"{counted(len(texts.samples), 'sample')} of {config.dataset_name} with "
            f"{counted(num_tokens, 'reasoning token')}: layers are compared by CKA, which needs "
            f"{MIN_ROWS_DEBIASED} or more; raise --num_samples"
        )
    print(f"data: {config.dataset_name}: {texts.report}")
    student, teacher = load_models(config, *names)
    similarity = measure_layers(
        teacher,
        student,
        texts.batches(texts.samples, config.batch_size),
        token_alignment=config.token_alignment,
        chunk=config.capture_chunk,
    )
    return map_layers(
        similarity,
        config.strategy,
        config.top_k,
        student_model=config.student_model,
        teacher_model=config.teacher_model,
        dataset_name=config.dataset_name,
        split=config.split,
        num_samples=len(texts.samples),
        data_hash=data_hash(texts.records),
        token_alignment=config.token_alignment,
        versions=library_versions(),
    )


def main(argv: list[str]) -> int:
    """Parse flags, measure, print the matrix and the map, and write both files."""
    config = parse(argv)
    check_output(config.output)
    quiet_libraries()

    from kava.files.locks import lock_file
    from kava.files.write import write_all
    from kava.pictures.layers import similarity_picture
    from kava.pictures.theme import drawing, to_png

    output = Path(config.output)
    picture = output.with_suffix(".png")
    with lock_file(output, "kava layer-map"):
        mapping = make_layer_map(config)
        with drawing():
            png = to_png(similarity_picture(mapping))
        write_all({picture: png, output: mapping.to_json()})
    print(f"student: {config.student_model}\nteacher: {config.teacher_model}")
    print(f"CKA of keys and values, mean, over {mapping.similarity.num_positions:,} tokens:")
    print(mapping)
    print(f"written to {output} and {picture}")
    return 0


def parse(argv: list[str]) -> LayerMapConfig:
    """Flags as a configuration; wrong usage leaves by `SystemExit(2)`, with one line."""
    return USAGE.parse(argv)


USAGE = Usage(
    prog="kava layer-map",
    kind=LayerMapConfig,
    summary="Measure how alike the layers of two models are, and map them.",
    example="kava layer-map --student_model gpt2 --teacher_model gpt2-medium --dataset_name gsm8k",
    known=COMPARING_LAYERS,
    common=(
        *("dataset_name", "split", "num_samples", "max_length", "overflow"),
        *("strategy", "top_k", "token_alignment", "batch_size", "dtype", "seed", "device"),
        "output",
    ),
)
