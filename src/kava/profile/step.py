"""Build the models of a configuration, run some of its steps, and measure what they take."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from kava.align import CacheGeometry
from kava.data.collate import Batch, Collator
from kava.data.neighbours import check_neighbours, with_neighbours
from kava.models.builtin import RANDOM_MODELS
from kava.models.devices import choose_device
from kava.models.load import load_model_config
from kava.models.readable import Limits
from kava.profile.defaults import DEFAULT_STUDENT, LARGER_TEACHER
from kava.profile.measure import PeakMemory, StageClock
from kava.profile.report import Model, Profile
from kava.profile.staged import STAGES, StagedDistiller, check_step
from kava.student.config import base_of
from kava.train.config import TrainConfig
from kava.train.data import load_data
from kava.train.limits import Readers, check_models, fit_data
from kava.train.memory import check_device_memory
from kava.train.models import (
    build_aligner,
    build_distiller,
    build_student,
    build_teacher_tokenizer,
    build_tokenizer,
)
from kava.train.objective import Distiller
from kava.train.precision import autocast_dtype, check_device_precision

NUM_WARMUP_STEPS = 2


def larger_teacher() -> PreTrainedModel:
    """A model like `DEFAULT_STUDENT` with more layers, more heads and a larger head dim.

    Seeded random weights; it reads the same tokens.

    Example:
        >>> CacheGeometry.from_config(larger_teacher().config)
        CacheGeometry(num_layers=4, num_heads=6, num_query_heads=6, head_dim=32)
    """
    config = RANDOM_MODELS[DEFAULT_STUDENT][0]()
    config.update({"n_layer": 4, "n_head": 6, "n_embd": 192})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return AutoModelForCausalLM.from_config(config).eval()


def build(config: TrainConfig) -> tuple[Distiller, PreTrainedTokenizerBase]:
    """Student, teacher and aligner of a configuration, `LARGER_TEACHER` among them."""
    tokenizer = build_tokenizer(config)
    if config.teacher_name != LARGER_TEACHER:
        return build_distiller(config), tokenizer
    student = build_student(config)
    teacher = larger_teacher()
    aligner = build_aligner(config, teacher, base_of(student))
    return Distiller(student, config, aligner, teacher), tokenizer


def readers_of(config: TrainConfig) -> Readers:
    """What the models of a configuration can read, `LARGER_TEACHER` among them.

    Raises:
        ValueError: a model that the step cannot be made with.
        OSError: a model that cannot be read.
    """
    if config.teacher_name != LARGER_TEACHER:
        return check_models(config)
    # the larger teacher reads what the small student reads
    return Readers(Limits.of(config.model_name, load_model_config(config.model_name)), None)


def profile_step(config: TrainConfig, num_steps: int = 10) -> Profile:
    """Measure the step that a configuration trains with, on one of its batches.

    Args:
        config: as for training; `output_dir` and the optimiser's settings are not used.
        num_steps: measured steps, after `NUM_WARMUP_STEPS` that are not.

    Raises:
        ValueError: bad models or data, too few samples for a batch, or no KV loss to align for.
        KavaError: a value that is not finite, a shape that does not fit, or a student that gets
            no gradient.
    """
    if num_steps < 1:
        raise ValueError(f"--steps {num_steps} must be above 0")
    if not config.kv_weight:
        raise ValueError("--kv_weight 0 leaves nothing to align; give it a weight above 0")
    if config.store:
        raise ValueError(
            "--store leaves no teacher's forward to time: leave it out; benchmarks/store.py times "
            "a step that reads a store"
        )
    device = torch.device(choose_device(config.device))
    check_device_precision(config, device)
    check_device_memory(config, device)
    half = autocast_dtype(config)
    readers_of(config)
    built, tokenizer = build(config)
    batch = first_batch(config, tokenizer, device)
    clock = StageClock(device)
    distiller = StagedDistiller(built, clock).to(device).train()
    distiller.move_teacher(device)
    steps: list[dict[str, float]] = []
    peaks: list[int | None] = []
    shapes: dict[str, list[int]] = {}
    for _ in range(NUM_WARMUP_STEPS + num_steps):
        distiller.zero_grad(set_to_none=True)
        clock.seconds.clear()
        memory = PeakMemory(device)
        with torch.autocast(device.type, half, enabled=half is not None):
            forward = distiller(batch)
        with clock.stage("backward"):
            forward.loss.backward()
        peaks.append(memory.above_start())
        steps.append(dict(clock.seconds))
        shapes = check_step(distiller, forward)
    measured = steps[NUM_WARMUP_STEPS:]
    reader = distiller.readers[0]
    assert isinstance(reader, PreTrainedModel)
    told = [peak for peak in peaks if peak is not None]
    return Profile(
        mode=config.alignment_mode,
        teacher=_described(config.teacher_name or f"{config.model_name}, itself", reader),
        student=_described(config.model_name, distiller.base),
        aligner_parameters=distiller.map_aligner.num_parameters,
        layer_map=[list(row) for row in distiller.map_aligner.layer_rows],
        shapes=shapes,
        seconds={name: statistics.median(step[name] for step in measured) for name in STAGES},
        step_seconds=statistics.median(sum(step.values()) for step in measured),
        peak_bytes=max(told) if told else None,
        device=str(device),
        num_steps=num_steps,
    )


def first_batch(
    config: TrainConfig, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> Batch:
    """The first `batch_size` samples that a configuration trains on.

    Raises:
        ValueError: fewer samples than that, or no other one to take a wrong sample from.
    """
    larger = config.teacher_name == LARGER_TEACHER  # reads the student's tokens
    theirs = None if larger else build_teacher_tokenizer(config, tokenizer)
    data = load_data(config, tokenizer, theirs)
    samples = fit_data(config, data, tokenizer, readers_of(config)).train
    if len(samples) < config.batch_size:
        raise ValueError(
            f"--batch_size {config.batch_size} is more than the {len(samples)} samples of "
            f"{config.dataset_name} that fit; lower it"
        )
    if config.wrong_sample:
        check_neighbours(samples, "profile with", "--subset_size")
        samples = with_neighbours(samples)
    pad = tokenizer.pad_token_id
    assert isinstance(pad, int)
    collate = Collator(pad, None if theirs is None else theirs.pad_token_id)
    return _moved(collate(samples[: config.batch_size]), device)


def _moved(batch: Batch, device: torch.device) -> Batch:
    parts: dict[str, Any] = {
        name: part.to(device) if isinstance(part, Tensor) else part for name, part in batch.items()
    }
    if "before" in batch:
        parts["before"] = _moved(batch["before"], device)
    return Batch(**parts)  # type: ignore[typeddict-item]


def _described(name: str, model: PreTrainedModel) -> Model:
    layers, heads, _, dim = CacheGeometry.from_config(model.config)
    return Model(name, layers, heads, dim)
