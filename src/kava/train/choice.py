"""What KaVa chooses for a machine: device, precision, batch size and accumulation, with reasons.

A flag, a file and a variable of the environment go before what is found here. The batch size comes
from steps of the run itself (`kava.train.auto_batch`), and from no table of memory sizes.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any, NamedTuple

from kava.flags import Usage
from kava.models.accelerators import Accelerator, accelerators, why_no_cuda
from kava.models.devices import choose_device
from kava.train.build import prepare
from kava.train.config import TrainConfig
from kava.train.defaults import recipe_beneath
from kava.train.flags import Given
from kava.train.settings.optimisation import AUTO_BATCH

BATCH = ("batch_size", "gradient_accumulation_steps")
ANEW: Mapping[str, Any] = {
    "resume": False,
    "resume_from": None,
    "overwrite": False,
    "report_to": None,
    "kv_scores_path": None,
}
"""Of the steps that are measured: no run goes on, and nothing is left behind."""


class Choice(NamedTuple):
    """One setting, and why it is so.

    Attributes:
        name: of the setting; of the precision "precision".
        value: what it is.
        origin: a flag, `--config FILE`, a variable, or how KaVa found it: "detected", "measured",
            "default".
        reason: in words.
    """

    name: str
    value: Any
    origin: str
    reason: str


class Choices(NamedTuple):
    """All choices, the configuration that they make, and the settings that a command adds.

    Attributes:
        choices: one for each setting.
        config: the run's.
        added: settings by name, that `kava train` does not take by itself.
    """

    choices: tuple[Choice, ...]
    config: TrainConfig
    added: dict[str, Any]


def choose_settings(usage: Usage[Any], given: Given, *, measure: bool = True) -> Choices:
    """Choose what neither a flag nor a file nor a variable says.

    Args:
        usage: of the command, for its messages.
        given: what they say.
        measure: make the steps that find a batch size; they load models and data.

    Raises:
        ValueError, OSError: settings, models or data that `kava train` would refuse.
        KavaError: not even one sample fits into memory.
    """
    device = choose_device(given.values.get("device", "auto"))
    added = dict[str, Any]()
    first = _device_choice(given, device)
    precision = _precision_choice(given, device)
    if precision.value in ("bf16", "fp16") and precision.origin == "detected":
        added[precision.value] = True
    recipe, _ = recipe_beneath(given.values)
    asked = {**recipe, **given.values, **added}
    finds = given.values.get("batch_size", "auto") in ("auto", AUTO_BATCH)
    if "batch_size" not in given.values:
        asked["batch_size"] = "auto"
        if not {"effective_batch_size", "gradient_accumulation_steps"} & set(given.values):
            usual = {name: usage.settings[name].default for name in BATCH} | dict(recipe)
            asked["effective_batch_size"] = usual[BATCH[0]] * usual[BATCH[1]]
    config = usage.build(asked, given.origins)
    if not finds:
        sizes = _given_sizes(given, config)
    elif not measure:
        sizes = tuple(
            Choice(name, None, "not measured", "kava train --batch_size auto finds it by steps")
            for name in BATCH
        )
    else:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            parts = prepare(usage.build({**asked, **ANEW, "output_dir": folder}, given.origins))
        assert parts.batch_line is not None
        for name in BATCH:
            setattr(config, name, getattr(parts.config, name))
        found = parts.batch_line.partition("since ")[2]
        sizes = (
            Choice(BATCH[0], config.batch_size, "measured", found),
            Choice(
                BATCH[1],
                config.gradient_accumulation_steps,
                *_accumulation(given, config, asked.get("effective_batch_size")),
            ),
        )
        added |= {name: getattr(config, name) for name in BATCH}
    dtype = config.dtype
    frozen = Choice(
        "dtype", dtype, *_origin(given, "dtype", "default", "the dtype of frozen weights")
    )
    return Choices((first, precision, frozen, *sizes), config, added)


def _origin(given: Given, name: str, otherwise: str, reason: str) -> tuple[str, str]:
    """Where a setting comes from, and its reason."""
    if name not in given.values:
        return otherwise, reason
    origin = given.origins.get(name, f"--{name}")
    return origin, f"{origin} says so"


def _device_choice(given: Given, device: str) -> Choice:
    name = given.values.get("device", "auto")
    if name != "auto":
        return Choice("device", device, *_origin(given, "device", "", ""))
    missing = why_no_cuda()
    if device == "cpu" and missing is not None:
        return Choice("device", device, "detected", f"no CUDA device is visible ({missing.reason})")
    found = _accelerator(device)
    return Choice(
        "device", device, "detected", "the accelerator here" if found is None else str(found)
    )


def _accelerator(device: str) -> Accelerator | None:
    """The accelerator that a device's name means; None of the CPU."""
    name = "cuda:0" if device == "cuda" else device
    return next((one for one in accelerators() if one.device == name), None)


def _precision_choice(given: Given, device: str) -> Choice:
    asked = [name for name in ("bf16", "fp16") if name in given.values]
    for name in sorted(asked, key=lambda name: not given.values[name]):  # what is on first
        value = name if given.values[name] else "float32"
        return Choice("precision", value, *_origin(given, name, "", ""))
    return Choice("precision", *precision_for(_accelerator(device)))


def precision_for(one: Accelerator | None) -> tuple[str, str, str]:
    """The precision of the passes on a device: value, origin and reason.

    Args:
        one: the accelerator; None: the CPU.

    Example:
        >>> precision_for(None)[0]
        'float32'
    """
    if one is None:
        return "float32", "default", "the usual one on a CPU; --bf16 is possible too"
    if one.bfloat16:
        return "bf16", "detected", f"{one.model} computes in bfloat16; weights stay float32"
    if one.halves:
        reason = f"{one.model} has no bfloat16, and units for float16; the loss is scaled"
        return "fp16", "detected", reason
    return "float32", "default", f"{one.model} has neither bfloat16 nor units for float16"


def _given_sizes(given: Given, config: TrainConfig) -> tuple[Choice, ...]:
    return (
        Choice(BATCH[0], config.batch_size, *_origin(given, BATCH[0], "", "")),
        Choice(
            BATCH[1],
            config.gradient_accumulation_steps,
            *_accumulation(given, config, given.values.get("effective_batch_size")),
        ),
    )


def _accumulation(given: Given, config: TrainConfig, effective: int | None) -> tuple[str, str]:
    """Origin and reason of the batches of an optimiser step."""
    if BATCH[1] in given.values:
        return _origin(given, BATCH[1], "", "")
    if effective is None:
        return "default", "one batch a step; --effective_batch_size asks for another number"
    origin, reason = _origin(given, "effective_batch_size", "default", "")
    samples = f"{effective} samples a step"
    return origin, f"{samples}, since {reason}" if reason else f"{samples} are the default"
