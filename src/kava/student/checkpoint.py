"""A trained student on disk: weights, tokenizer and prompt template.

    checkpoint-400/
        config.json, model.safetensors, …   the student
        tokenizer.json, …                   its tokenizer, with the prompt as its chat template
        kava.json                           the settings: kind of student, template, data, versions
        adapter/                            LoRA adapters, in place of their base's weights

`kava.json` is written last; a run adds the files that it needs to resume and a manifest. A folder
is damaged if `kava.json` is missing, the weights are truncated or a student file differs from the
manifest: it is named, and skipped if another checkpoint is complete.
"""

from __future__ import annotations

import json
import logging
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kava import __version__
from kava.data.builtin import template_of_model
from kava.data.chat import Chats
from kava.data.records import Template
from kava.inputs import read_json
from kava.models.devices import dtype_of
from kava.models.folders import check_folder
from kava.models.load import build_from, load_model, load_tokenizer
from kava.models.places import CONFIG_FILE
from kava.models.probe import probe_cache
from kava.models.tokenizers import check_tokenizer
from kava.models.weights import check_finite
from kava.names import NO_CHAT
from kava.student.adapted import load_adapted, save_weights
from kava.student.config import LatentStudentConfig, base_of
from kava.student.exported import is_exported, load_exported
from kava.student.latent import LatentStudent
from kava.student.manifest import MANIFEST_FILE
from kava.student.ready import settle_answers, with_prompt
from kava.student.settings import FORMAT, SETTINGS_FILE, read_settings, template_of
from kava.student.whole import (
    ALIGNER_FILE,
    RECORDING_FILE,
    STATE_FILE,
    WEIGHTS_FILE,
    is_adapted,
    student_damage,
)

_NAME = re.compile(r"checkpoint-(\d+)")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedStudent:
    """A student that is ready to answer.

    Attributes:
        model: a `LatentStudent`, or a causal model that writes its reasoning; in evaluation mode.
        tokenizer: its tokenizer.
        template: turns a question into a prompt, and gives the cue of the answer.
        settings: content of `kava.json`; empty for a model that this package did not train.
        path: the folder or name that was loaded.
        chat_template: of a plain model, how it is asked (`kava.data.chat`).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: Template
    settings: Mapping[str, Any]
    path: str
    chat_template: str = NO_CHAT

    def asked_by(self, template: Template) -> Template:
        """The template of a data set's questions: a trained student keeps that of its training."""
        if self.settings:
            return self.template
        return Chats(self.tokenizer, self.chat_template, self.path).template(template)


def library_versions() -> dict[str, str]:
    """Versions that can affect a result: Python, kava, torch, transformers."""
    libraries = {name: version(name) for name in ("torch", "transformers")}
    return {"python": platform.python_version(), "kava": __version__, **libraries}


def save_student(
    directory: str | Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: Mapping[str, Any],
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a student in the form that `load_student` reads.

    Args:
        directory: created if missing; other files in it are kept.
        model: a `LatentStudent` or any causal model.
        tokenizer: its tokenizer.
        settings: JSON values. "template" is required, as a dictionary of `Template`'s fields;
            "student" (latent or explicit), "format" and "versions" are filled in. `kava evaluate`
            reads "config" (a `TrainConfig` as a dictionary) for the data set, and "data_hash" to
            detect that it scores the training data.
        state: its weights, where the model holds a share of them.

    Raises:
        ValueError: no template, or a student of another kind than in the settings.
        OSError: it could not be written; the folder is not a checkpoint then, and is removed if it
            was created here.

    Example:
        >>> save_student("outputs/x", student, tokenizer, {"template": asdict(Template())})
    """
    directory = Path(directory)
    kind = _kind(model)
    if settings.get("student", kind) != kind:
        raise ValueError(
            f"settings say a student of kind {settings['student']!r}, but "
            f"{type(model).__name__} is {kind}"
        )
    text = {"format": FORMAT, "student": kind, "versions": library_versions(), **settings}
    template = template_of(text, directory / SETTINGS_FILE)
    settle_answers(model, tokenizer, text)
    made = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        for name in (SETTINGS_FILE, MANIFEST_FILE):  # remove what an earlier save left
            (directory / name).unlink(missing_ok=True)
        save_weights(directory, model, state)
        with_prompt(tokenizer, template).save_pretrained(directory)
        (directory / SETTINGS_FILE).write_text(
            json.dumps(text, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    except (OSError, SafetensorError) as error:
        if made:
            shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, OSError):
            raise
        raise OSError(f"{directory / WEIGHTS_FILE} could not be written: {error}") from error


def latest_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest complete checkpoint of a run, or None.

    Complete means: `kava.json` and the weights can be read, and the student's files have the sizes
    of the manifest. Only folders named `checkpoint-<step>` count; hidden and temporary ones do not.
    """
    for path in reversed(checkpoints_by_step(output_dir).values()):
        if _problem(path) is None:
            return path
    return None


def find_student(path: str | Path) -> Path:
    """The folder of a trained student: a checkpoint, or the newest whole one of a run's folder.

    Raises:
        OSError: no such folder, or no whole checkpoint of `kava train` in it.
        ValueError: a damaged one.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise OSError(
            f"the folder {str(path)!r} does not exist; name a checkpoint of kava train, or the "
            f"folder of a run"
        )
    if not (folder / SETTINGS_FILE).is_file():
        return _checkpoint_in(folder, best=False)
    problem = student_damage(folder)
    if problem is not None:
        raise ValueError(f"{problem}; take another checkpoint")
    return folder


def load_student(
    path: str | Path,
    *,
    best: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str = "auto",
    chat_template: str = NO_CHAT,
) -> LoadedStudent:
    """Load a student from a checkpoint, a run's folder or a model name.

    Args:
        path: a checkpoint; a run's output folder, for its newest complete checkpoint; what `kava
            export` wrote, as a folder or on the hub; or a name for `load_model` (a plain Hugging
            Face folder, a built-in name, a hub id), for a model that writes its reasoning, with the
            default template (its own task's for a built-in one).
        best: in an output folder, take the checkpoint that the run recorded as its best.
        device: where to put the model; None leaves it on the CPU.
        dtype: dtype of the weights, or its name; "auto" takes the files' dtype.
        chat_template: none, tokenizer or the path of a .jinja file, for a plain model; a trained
            student has the prompt of its training, whatever is said here.

    Raises:
        OSError: no such folder, no complete checkpoint in it, or a file that cannot be read.
        ValueError: damaged weights, settings that are damaged or of another version.

    Example:
        >>> student = load_student("outputs/run")
        >>> answer_records(student.model, student.tokenizer, records, student.template)
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / SETTINGS_FILE).exists() and not (folder / "config.json").exists():
            if not checkpoints_by_step(folder) and any(folder.iterdir()):
                check_folder(folder)  # the error names what the folder holds instead
            folder = _checkpoint_in(folder, best)
        if not _is_plain(folder):
            return _load_checkpoint(folder, device, dtype)
        path = folder
    if best:
        raise ValueError(f"{path} is not a run's output folder: it has no best checkpoint")
    if is_exported(path):
        student, settings = load_exported(path, dtype=dtype)
        student = student if device is None else student.to(device)  # type: ignore[arg-type]
        probe_cache(student.base, str(path))
        template = Template(**settings["template"])
        return LoadedStudent(student, _tokenizer_of(student, path), template, settings, str(path))
    model = load_model(path, dtype=dtype, device=device)
    probe_cache(model, str(path))
    chats = Chats(_tokenizer_of(model, path), chat_template, str(path))
    template = chats.template(template_of_model(str(path)))  # whose cue is in its vocabulary
    return LoadedStudent(model, chats.ending(), template, {}, str(path), chat_template)


def _load_checkpoint(
    folder: Path, device: torch.device | str | None, dtype: torch.dtype | str
) -> LoadedStudent:
    settings = read_settings(folder)
    template = template_of(settings, folder / SETTINGS_FILE)
    problem = student_damage(folder)
    if problem is not None:
        raise ValueError(f"{problem}; take another checkpoint")
    if is_adapted(folder):
        model: Any = load_adapted(folder, settings, LatentStudent, dtype=dtype_of(dtype))
        model = model.eval() if device is None else model.eval().to(device)
    elif settings["student"] == "latent":
        read_json(folder / CONFIG_FILE)  # transformers uses the last of two equal keys
        model = _load_latent(folder, dtype)
        model = model.eval() if device is None else model.eval().to(device)
    else:
        model = load_model(folder, dtype=dtype, device=device)
    probe_cache(base_of(model), str(folder))
    tokenizer = _tokenizer_of(model, folder)
    settle_answers(model, tokenizer, settings)
    return LoadedStudent(model, tokenizer, template, settings, str(folder))


def _tokenizer_of(model: PreTrainedModel, path: str | Path) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(path)
    check_tokenizer(tokenizer, str(path), base_of(model).config.vocab_size)
    return tokenizer


def _load_latent(folder: Path, dtype: torch.dtype | str) -> LatentStudent:
    student, loaded = build_from(str(folder), LatentStudent, dtype=dtype_of(dtype))
    strange = sorted(loaded["missing_keys"]) + sorted(loaded["unexpected_keys"])
    if strange:
        raise ValueError(
            f"{folder / WEIGHTS_FILE} does not fit the config.json beside it: {strange[0]!r} is "
            f"in one of them only"
        )
    check_finite(student.named_parameters(), folder)
    return student


def _checkpoint_in(folder: Path, best: bool) -> Path:
    newest, damaged = None, []
    for path in reversed(checkpoints_by_step(folder).values()):
        problem = _problem(path)
        if problem is None:
            newest = path
            break
        damaged.append(f"{path.name}: {problem}")
    if newest is None:
        reason = (
            damaged[0] if damaged else "there is no checkpoint-<step>, kava.json or config.json"
        )
        raise OSError(f"{folder} holds no complete checkpoint ({reason})")
    if damaged and not best:
        logger.warning("kava: warning: %s; taking %s", "; ".join(damaged), newest.name)
    if not best:
        return newest
    state = newest / STATE_FILE
    if not state.is_file():
        raise OSError(f"{state} is missing, which names the best checkpoint; leave out best")
    found = read_json(state)
    named = found.get("best_model_checkpoint") if isinstance(found, dict) else None
    if not isinstance(named, str):
        raise ValueError(f"{state} names no best checkpoint; leave out best, for the newest")
    chosen = folder / Path(named).name  # the folder may have been moved since
    if not chosen.is_dir():
        raise OSError(f"{chosen}, the run's best checkpoint, is not there any more")
    return chosen


def checkpoints_by_step(output_dir: str | Path) -> dict[int, Path]:
    """The folders named `checkpoint-<step>`, complete or not, oldest first.

    Example:
        >>> checkpoints_by_step("outputs/run")
        {500: PosixPath('outputs/run/checkpoint-500')}
    """
    output_dir = Path(output_dir)
    if not output_dir.is_dir():
        return {}
    steps = {
        int(match[1]): path
        for path in output_dir.iterdir()
        if (match := _NAME.fullmatch(path.name)) and path.is_dir()
    }
    return dict(sorted(steps.items()))


def _problem(folder: Path) -> str | None:
    """Why a folder is not a complete checkpoint; None if it is one."""
    try:
        read_settings(folder)
    except (OSError, ValueError) as error:
        return str(error)
    return student_damage(folder)


def _is_plain(folder: Path) -> bool:
    """Whether a folder is a model that this package did not train, whatever its name."""
    ours = (SETTINGS_FILE, MANIFEST_FILE, ALIGNER_FILE, RECORDING_FILE)
    if any((folder / name).exists() for name in ours):
        return False
    config = (folder / "config.json").read_text(encoding="utf-8", errors="replace")
    return f'"{LatentStudentConfig.model_type}"' not in config


def _kind(model: PreTrainedModel) -> str:
    return "latent" if isinstance(model, LatentStudent) else "explicit"
