"""Build the models of a run: student, teacher, aligner and tokenizers."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from kava.align import MapProjectionAligner
from kava.data.chat import Chats
from kava.models.devices import choose_device
from kava.models.load import load_model, load_model_config, load_tokenizer
from kava.models.lora import ALL_LINEAR, LoraForm, add_lora
from kava.models.probe import probe_cache
from kava.models.recompute import recompute_layers
from kava.models.tokenizers import check_tokenizer
from kava.student.config import base_of
from kava.student.latent import LatentStudent
from kava.train.config import TrainConfig
from kava.train.limits import check_rank
from kava.train.loading import holds_query_maps
from kava.train.matching import compares_queries
from kava.train.objective import Distiller
from kava.train.start import load_start
from kava.train.stored import build_stored
from kava.train.teacher_names import TEACHER_CHATS, TeacherName, teachers_of
from kava.train.teaching import Teacher


def build_student(config: TrainConfig) -> PreTrainedModel:
    """Build the student; new weights are float32 and initialised from the seed.

    Raises:
        OSError, ValueError: as `kava.train.start.load_start`.
    """
    set_seed(config.seed)
    model = load_model(config.model_name, dtype=config.base_dtype)
    student = model
    if config.student == "latent":
        student = LatentStudent.wrap(
            model,
            num_latents=config.target_len,
            dtype=torch.float32,
            decoding=config.decoding,
            num_iterations=min(config.jacobi_iterations, config.target_len),
            projection_dropout=config.projection_dropout,
            thought_positions=config.thought_positions,
        )
    if config.lora_r:
        add_lora(model, lora_form(config), config.model_name)
    if config.gradient_checkpointing:
        recompute_layers(model)
    load_start(config, student)
    return student


def lora_form(config: TrainConfig) -> LoraForm:
    """The student's adapters."""
    targets = tuple(config.lora_targets or (ALL_LINEAR,))
    return LoraForm(config.lora_r, config.lora_alpha, config.lora_dropout, targets)


def build_aligner(
    config: TrainConfig,
    teacher: Teacher,
    student: PreTrainedModel,
    checkpoint: Path | None = None,
) -> MapProjectionAligner:
    """Build the aligner between two models; a random start uses the seed.

    Args:
        config: the run's configuration.
        teacher: its config is read.
        student: its config is read.
        checkpoint: the checkpoint to resume from. Its optimiser state covers the maps that were
            trained, and earlier releases also trained query maps that were never used.
    """
    check_rank(config, teacher.config, student.config)
    set_seed(config.seed)
    ranked = config.calibrates and config.alignment_mode == "structured"
    rank = int(config.map_rank) if config.map_rank not in (None, "auto") else 1
    return MapProjectionAligner.from_configs(
        teacher.config,
        student.config,
        mode=config.alignment_mode,
        share_dim_proj=config.map_proj_share_dim,
        init_uniform=config.map_proj_init_uniform,
        flat_variant=None if config.calibrates else config.flat_variant or "elastic",
        layer_map=Path(config.layer_mapping_path)
        if config.layer_mapping_path
        else config.layer_mapping or "ratio",
        direction=config.align_direction,
        map_queries=compares_queries(config)
        or (config.trains_aligner and checkpoint is not None and holds_query_maps(checkpoint)),
        per_layer=config.calibrates,
        rank=rank if ranked else None,
    )


def build_tokenizer(config: TrainConfig) -> PreTrainedTokenizerBase:
    """Load the student's tokenizer.

    Raises:
        OSError: a tokenizer that cannot be read.
        ValueError: one without what reading data needs.
    """
    return _tokenizer(config.model_name, "--model_name", config.chat_template)


def build_teacher_tokenizer(
    config: TrainConfig, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer of another teacher model; None in self-distillation.

    `load_data` finds out on the data whether both tokenizers give the same ids.

    Args:
        config: the run's configuration.
        tokenizer: the student's; a teacher of the same name shares it.

    Raises:
        OSError: a tokenizer that cannot be read.
        ValueError: one without what reading data needs.
    """
    if config.teacher_name is None or not config.needs_teacher or config.several:
        return None
    (one,) = teachers_of(config)
    if (one.model, one.chat) == (config.model_name, config.chat_template):
        return tokenizer
    return _tokenizer(one.model, "--teacher_name", one.chat)


def build_teacher_tokenizers(
    config: TrainConfig, tokenizer: PreTrainedTokenizerBase
) -> list[PreTrainedTokenizerBase]:
    """Load the tokenizer of each of several teachers; none with one teacher.

    Raises:
        OSError: a tokenizer that cannot be read.
        ValueError: one without what reading data needs.
    """
    if not config.several:
        return []
    loaded = {(config.model_name, config.chat_template): tokenizer}
    for one in teachers_of(config):
        if (one.model, one.chat) not in loaded:
            loaded[one.model, one.chat] = _tokenizer(one.model, "--teachers", one.chat)
    return [loaded[one.model, one.chat] for one in teachers_of(config)]


def _tokenizer(name: str, flag: str, chat: str) -> PreTrainedTokenizerBase:
    try:
        tokenizer = load_tokenizer(name)
    except OSError as error:
        raise OSError(f"{flag}: {error}") from error
    check_tokenizer(tokenizer, name, load_model_config(name, encoders=True).vocab_size)
    chat_flag = "--chat_template" if flag == "--model_name" else TEACHER_CHATS
    return Chats(tokenizer, chat, name, chat_flag).ending()


def load_teacher(one: TeacherName, config: TrainConfig) -> PreTrainedModel:
    """A frozen teacher as a run names it, with a cache that was looked at.

    Raises:
        OSError: it cannot be loaded.
        ValueError: a cache that KaVa does not read.
    """
    # weights are quantised by the device that will read them
    device = None if one.quantization == "none" else choose_device(config.device)
    teacher = load_model(
        one.model, dtype=one.dtype, device=device, encoders=True, quantization=one.quantization
    )
    probe_cache(teacher, one.model)
    return teacher


def build_distiller(config: TrainConfig, checkpoint: Path | None = None) -> Distiller:
    """Build student, teachers, aligners and losses.

    Args:
        config: the run's configuration.
        checkpoint: the checkpoint to resume from; its weights are not loaded here.

    Raises:
        ValueError: models that cannot be loaded, whose caches do not fit a trace, or that do not
            fit the configuration.
    """
    student = build_student(config)
    base = base_of(student)
    probe_cache(base, config.model_name, vectors=config.student == "latent")
    if not config.needs_teacher or config.teacher_name is None:
        return Distiller(student, config, build_aligner(config, base, base, checkpoint))
    if config.store:
        stored = build_stored(config)
        its = [build_aligner(config, teacher, base, checkpoint) for teacher in stored]
        if config.several:
            from kava.train.several import SeveralDistiller

            return SeveralDistiller(student, config, its, stored)
        return Distiller(student, config, its[0], stored[0])
    if config.adapter_off:
        return Distiller(student, config, build_aligner(config, base, base, checkpoint), base)
    loaded: dict[tuple[str, ...], PreTrainedModel] = {}
    for one in teachers_of(config):
        key = one.model, one.dtype, one.quantization
        if key not in loaded:
            loaded[key] = load_teacher(one, config)
    teachers = [loaded[one.model, one.dtype, one.quantization] for one in teachers_of(config)]
    aligners = [build_aligner(config, teacher, base, checkpoint) for teacher in teachers]
    if config.several:
        from kava.train.several import SeveralDistiller

        return SeveralDistiller(student, config, aligners, teachers)
    return Distiller(student, config, aligners[0], teachers[0])
