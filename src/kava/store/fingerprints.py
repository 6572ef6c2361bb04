"""Fingerprints: of a model's weights and files, of a tokenizer, and of what a sample says.

A stored number belongs to one teacher and one text. Both are named by hashes of all that the
number depends on, so that a renamed file or a changed template cannot pass for the old one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from kava.data.encoded import Encoded, TeacherText

DIGEST_SIZE = 16
"""Bytes of a sample's digest."""

# what a config says without changing a prediction
_UNIMPORTANT = frozenset(
    {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}
)
_PROBES = 256
_PROBE_BYTES = 4096


def config_fingerprint(config: PreTrainedConfig) -> str:
    """The sha256 of what a model's configuration says of its predictions."""
    return hashlib.sha256(_said(config)).hexdigest()


def weights_fingerprint(model: nn.Module) -> str:
    """The sha256 of a model's weights and of the config that they are read by, in hexadecimal.

    Example:
        >>> weights_fingerprint(model) == weights_fingerprint(model)
        True
    """
    digest = hashlib.sha256()
    config: Any = getattr(model, "config", None)
    if config is not None:
        digest.update(_said(config))
    for name, part in model.state_dict().items():
        digest.update(f"{name} {part.dtype} {tuple(part.shape)}".encode())
        flat = part.detach().contiguous().cpu().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def files_fingerprint(folder: str | Path | None) -> str | None:
    """A quick fingerprint of the weight files of a folder: names, lengths and evenly spread bytes.

    Training again changes all weights, which this sees without reading them; a few changed bytes
    it may miss, unlike `weights_fingerprint`.

    Args:
        folder: of a model; None, and a folder without safetensors, give None.
    """
    paths = [] if folder is None else sorted(Path(folder).glob("*.safetensors"))
    if not paths:
        return None
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for start in np.linspace(0, max(size - _PROBE_BYTES, 0), _PROBES).astype(int).tolist():
                file.seek(start)
                digest.update(file.read(_PROBE_BYTES))
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """The sha256 of a tokenizer: its vocabulary, its rules and its special tokens."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    rules = "" if backend is None else backend.to_str()
    vocabulary = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    special = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    return hashlib.sha256("\n".join((rules, vocabulary, special)).encode()).hexdigest()


def digest_of(*parts: np.ndarray | tuple[int, ...] | bytes) -> bytes:
    """The digest of integers, as they stand, and of bytes.

    Example:
        >>> digest_of((1, 2), b"a") == digest_of((1, 2), b"b")
        False
    """
    digest = hashlib.blake2b(digest_size=DIGEST_SIZE)
    for part in parts:
        if isinstance(part, bytes):
            digest.update(part)
        else:
            wide = isinstance(part, tuple)
            digest.update(np.ascontiguousarray(part, np.int64 if wide else np.int32).data)
    return digest.digest()


def text_digest(sample: Encoded, text: TeacherText | None) -> bytes:
    """The digest of the text that a teacher reads of a sample: tokens and segments.

    Args:
        sample: in the student's tokens.
        text: the teacher's own; None where it reads the student's tokens.
    """
    read = sample if text is None else text.encoded
    return digest_of((read.prompt_length, read.answer_start, read.value_start), read.input_ids)


def target_digest(sample: Encoded, text: TeacherText | None, *, tokens: str, named: bool) -> bytes:
    """The digest of what a sample's kept positions depend on, beside teacher and settings.

    Args:
        sample: in the student's tokens.
        text: the teacher's own text; None where it reads the student's tokens.
        tokens: how its tokens are brought to the student's: "hard", "soft" or "none".
        named: whether the sample's id decides too, as in a random choice.
    """
    parts: list[Any] = [text_digest(sample, text), sample.id.encode() if named else b""]
    if sample.positions is not None:
        parts.append(tuple(sample.positions))
    if text is not None and tokens != "none":
        alignment = text.alignment
        parts += [(sample.prompt_length, sample.answer_start), alignment.last, alignment.indptr]
        parts += [alignment.indices, np.asarray(alignment.weights, np.float32).tobytes()]
    return digest_of(*parts)


def _said(config: Any) -> bytes:
    said = {k: v for k, v in config.to_dict().items() if k not in _UNIMPORTANT}
    return json.dumps(said, sort_keys=True, default=str).encode()
