"""`kava calibrate`: fit an aligner between two models on text, and show how good it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kava.commands.reading import CHUNK_HELP, ReadingConfig, Texts, load_models, read_texts
from kava.files.outputs import check_output_folder
from kava.flags import Usage, again, flag, needed
from kava.flags.aliases import CALIBRATING
from kava.models.gguf import gguf_name
from kava.models.limits import check_layer_map_file, check_map_rank, check_map_rank_fits
from kava.models.quiet import quiet_libraries
from kava.train.settings.memory import MemorySettings
from kava.train.settings.models import ModelSettings
from kava.train.settings.target import TargetSettings

if TYPE_CHECKING:
    from kava.align import CacheGeometry, MapProjectionAligner
    from kava.fit.report import CalibrationReport
    from kava.pictures.calibration import Draw


USUAL_SAMPLES = 1000


@dataclass(kw_only=True)
class CalibrateConfig(ReadingConfig):
    """Which models, which text, and what map.

    Raises:
        ValueError: a value outside its range, or values that exclude each other; the message
            names the flag.
    """

    model_name: str = needed(
        "the student: a hub id, a local folder, or a built-in kava/ name", group="models"
    )
    teacher_name: str = needed("the same of the teacher; it may have another tokenizer")
    gguf_file: str | None = again(ModelSettings, "gguf_file", None)
    teacher_gguf_file: str | None = again(ModelSettings, "teacher_gguf_file", None)
    calibration_samples: int | None = flag(
        None,
        "samples, taken at random; every fourth judges the maps",
        least=1,
        group="data",
        unset=f"{USUAL_SAMPLES}, or all where there are fewer",
    )
    alignment_mode: str = flag(
        "structured",
        "structured: terms of head mixes and dim maps; flat: full matrices",
        choices=("structured", "flat"),
        group="alignment",
    )
    map_rank: str = flag(
        "auto",
        "structured: number of terms, or auto (the fewest that lose little held-out R²)",
        check=check_map_rank,
    )
    map_proj_share_dim: bool = again(TargetSettings, "map_proj_share_dim", False)
    align_direction: str = again(
        TargetSettings, "align_direction", "teacher_to_student", help="which cache is mapped"
    )
    layer_mapping: str | None = again(TargetSettings, "layer_mapping", None)
    layer_mapping_path: str | None = again(TargetSettings, "layer_mapping_path", None)
    capture_chunk: int | None = again(
        MemorySettings,
        "capture_chunk",
        None,
        help=CHUNK_HELP,
        group="memory",
    )
    output_dir: str = needed(
        "folder of calibration.json, aligner.safetensors and the pictures", group="output"
    )
    overwrite: bool = flag(False, "write although output_dir holds a calibration")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.model_name = gguf_name(self.model_name, self.gguf_file, "--gguf_file") or ""
        self.teacher_name = (
            gguf_name(self.teacher_name, self.teacher_gguf_file, "--teacher_gguf_file") or ""
        )
        if self.layer_mapping is not None and self.layer_mapping_path is not None:
            raise ValueError(
                f"--layer_mapping {self.layer_mapping} and --layer_mapping_path "
                f"{self.layer_mapping_path} exclude each other; leave one out"
            )
        if self.alignment_mode == "flat" and (self.map_rank != "auto" or self.map_proj_share_dim):
            raise ValueError(
                "--map_rank and --map_proj_share_dim shape structured maps, but --alignment_mode "
                "is flat; leave them out"
            )


class Calibrated(NamedTuple):
    """What a calibration gave."""

    aligner: MapProjectionAligner
    options: dict[str, Any]
    """What the aligner is made with."""
    report: CalibrationReport
    texts: Texts
    facts: dict[str, Any]


def calibrate_models(config: CalibrateConfig) -> Calibrated:
    """Read the data with both models, and fit the aligner between them.

    Prints the geometry of both before it reads.

    Raises:
        ValueError: models or data that cannot be loaded, fewer records than asked for, a sample
            that does not fit, a model whose layers hold no keys and values, or too few samples.
        OSError: a model or tokenizer that cannot be read.

    Example:
        >>> config = CalibrateConfig(
        ...     model_name="kava/tiny-llama", teacher_name="kava/tiny-gpt2", map_rank="1",
        ...     dataset_name="kava/shell-game", calibration_samples=8, output_dir="out",
        ... )
        >>> print(calibrate_models(config).report)
    """
    from kava.align import CacheGeometry, MapProjectionAligner
    from kava.data.splits import data_hash
    from kava.fit.models import calibrate_on
    from kava.models.load import load_model_config
    from kava.student.checkpoint import library_versions

    # large models are loaded last: a wrong path or a bad sample shows at once
    names = config.model_name, config.teacher_name
    student_config = load_model_config(config.model_name)
    teacher_config = load_model_config(config.teacher_name, encoders=True)
    sides = [CacheGeometry.from_config(one) for one in (teacher_config, student_config)]
    check_map_rank_fits(
        config.map_rank,
        *sides,
        share_dim_proj=config.map_proj_share_dim,
        align_direction=config.align_direction,
    )
    if config.layer_mapping_path is not None:
        check_layer_map_file(config.layer_mapping_path, *sides)
    texts = read_texts(
        config, *names, config.calibration_samples, "calibration_samples", USUAL_SAMPLES
    )
    student, teacher = load_models(config, *names)
    structured = config.alignment_mode == "structured"
    rank = config.map_rank if config.map_rank == "auto" else int(config.map_rank)
    options: dict[str, Any] = {
        **_sizes(*sides),
        "mode": config.alignment_mode,
        "share_dim_proj": config.map_proj_share_dim,
        "direction": config.align_direction,
        "map_queries": False,
        "per_layer": True,
    }
    aligner = MapProjectionAligner(
        **options, layer_map=config.layer_mapping_path or config.layer_mapping or "ratio"
    ).to(student.device)
    print(f"data: {config.dataset_name}: {texts.report}")
    for role, name, geometry in zip(("teacher", "student"), reversed(names), sides):
        print(f"{role}: {name}: {_described(geometry)}")
    print("student layer ← teacher layers: " + _layers(aligner))
    report = calibrate_on(
        texts.samples,
        teacher,
        student,
        aligner,
        texts.collate,
        rank=rank if structured else None,
        token_alignment=config.token_alignment,
        batch_size=config.batch_size,
        chunk=config.capture_chunk,
    )
    if structured:
        options["rank"] = report.rank
    facts = {
        "model_name": config.model_name,
        "teacher_name": config.teacher_name,
        "dataset_name": config.dataset_name,
        "split": config.split,
        "num_samples": len(texts.samples),
        "data_hash": data_hash(texts.records),
        "token_alignment": config.token_alignment,
        "layer_weights": aligner.layer_weights.tolist(),
        "versions": library_versions(),
    }
    return Calibrated(aligner.cpu(), options, report, texts, facts)


def _sizes(teacher: CacheGeometry, student: CacheGeometry) -> dict[str, int]:
    return {
        "num_teacher_layers": teacher.num_layers,
        "num_student_layers": student.num_layers,
        "num_teacher_heads": teacher.num_heads,
        "num_student_heads": student.num_heads,
        "teacher_head_dim": teacher.head_dim,
        "student_head_dim": student.head_dim,
        "num_teacher_query_heads": teacher.num_query_heads,
        "num_student_query_heads": student.num_query_heads,
    }


def _described(geometry: CacheGeometry) -> str:
    return (
        f"{geometry.num_layers} layers, {geometry.num_query_heads} heads "
        f"({geometry.num_heads} of keys and values), head dim {geometry.head_dim}"
    )


def _layers(aligner: MapProjectionAligner) -> str:
    """Such as "0 ← 0; 1 ← 2 (0.67), 3 (0.33)"."""
    rows = []
    for layer, row in enumerate(aligner.layer_rows):
        read = [f"{index} ({weight:.2f})" if len(row) > 1 else f"{index}" for index, weight in row]
        rows.append(f"{layer} ← {', '.join(read)}")
    return "; ".join(rows)


def _draw(calibrated: Calibrated, config: CalibrateConfig) -> dict[str, Draw]:
    from kava.pictures.calibration import draw_aligner, draw_tokens

    draws = draw_aligner(calibrated.aligner)
    sample = calibrated.texts.samples[0]
    record = next(one for one in calibrated.texts.records if one.id == sample.id)
    text = calibrated.texts.template.render(record).text
    tokens = draw_tokens(sample, text, config.token_alignment)  # type: ignore[arg-type]
    return draws if tokens is None else {**draws, "time": tokens}


def main(argv: list[str]) -> int:
    """Parse flags, calibrate, print the table, and write report, aligner and pictures."""
    config = parse(argv)
    quiet_libraries()
    folder = Path(config.output_dir)
    check_output_folder(folder, "--output_dir")

    from kava.files.locks import lock_folder
    from kava.fit.files import ALIGNER_FILE, REPORT_FILE, save_calibration
    from kava.pictures.theme import drawing, to_png

    with lock_folder(folder, "kava calibrate"):
        if (folder / REPORT_FILE).exists() and not config.overwrite:
            raise ValueError(
                f"--output_dir {folder} holds a calibration already: pass --overwrite to replace "
                f"it, or another folder"
            )
        calibrated = calibrate_models(config)
        print(calibrated.report)
        with drawing():
            pictures = {name: to_png(draw()) for name, draw in _draw(calibrated, config).items()}
        aligner, options, report, _, facts = calibrated
        save_calibration(folder, aligner, options, report, facts, pictures)
    written = [REPORT_FILE, ALIGNER_FILE, *(f"{name}.png" for name in pictures)]
    print(f"written to {folder}: {', '.join(written)}")
    return 0


def parse(argv: list[str]) -> CalibrateConfig:
    """Flags as a configuration; wrong usage leaves by `SystemExit(2)`, with one line."""
    return USAGE.parse(argv)


USAGE = Usage(
    prog="kava calibrate",
    kind=CalibrateConfig,
    summary="Fit the map between two models' caches in closed form, and show how good it is.",
    example="kava calibrate --model_name gpt2 --teacher_name gpt2-medium --dataset_name gsm8k "
    "--output_dir outputs/calibration",
    known=CALIBRATING,
    common=(
        *("dataset_name", "split", "calibration_samples", "max_length", "overflow"),
        *("alignment_mode", "map_rank", "align_direction", "layer_mapping", "token_alignment"),
        *("batch_size", "dtype", "seed", "device", "output_dir", "overwrite"),
    ),
)
