"""Scores on disk: one safetensors file whose header holds its manifest as JSON.

    samples [N, 16] uint8     the digest of each sample: its tokens, its segments, its stages
    lengths [N] int32         its reasoning tokens, R
    scores  [ΣR] float32      sample after sample

The manifest says of which teacher and by which method. It stands in the file's own header, so
that one rename writes both, and neither can be of another time than the other. Samples are found
by what they say: their order, their number and their ids may change.

Shapes: N samples, R reasoning tokens of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kava.data.encoded import Encoded
from kava.models.weights import check_finite
from kava.store.fingerprints import DIGEST_SIZE, digest_of
from kava.store.tensor_file import DamagedFile, TensorFile, write_tensors

FORMAT = 1
"""Version of the file's layout; another one is refused."""


def sample_digest(sample: Encoded, stages: np.ndarray) -> bytes:
    """What a score depends on beside the teacher: tokens, segments and stages of a sample."""
    return digest_of((sample.prompt_length, sample.answer_start), sample.input_ids, stages)


@dataclass
class ScoreStore:
    """The scores of one teacher by one method, found by sample.

    Args:
        manifest: "method", "reach" and "teacher" (a fingerprint); whoever reads asks for the same.
        scores: digest → [R] float32.
    """

    manifest: Mapping[str, str]
    scores: dict[bytes, np.ndarray] = field(default_factory=dict)

    def missing(self, digests: Sequence[bytes]) -> list[int]:
        """The places, among `digests`, of samples that have no scores yet."""
        return [place for place, digest in enumerate(digests) if digest not in self.scores]

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: it could not be written; an earlier file is as it was.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = {
            "samples": torch.from_numpy(
                np.frombuffer(b"".join(self.scores), dtype=np.uint8).reshape(-1, DIGEST_SIZE).copy()
            ),
            "lengths": torch.tensor([len(s) for s in self.scores.values()], dtype=torch.int32),
            "scores": torch.from_numpy(np.concatenate(list(self.scores.values()))),
        }
        manifest = {"format": FORMAT, "num_samples": len(self.scores), **self.manifest}
        try:
            write_tensors(path, parts, manifest)
        except OSError as error:
            raise OSError(f"the scores could not be written to {path}: {error}") from error

    @classmethod
    def load(cls, path: str | Path, manifest: Mapping[str, str]) -> ScoreStore:
        """Read a file that was made for the same teacher and method.

        Raises:
            OSError: it is not there.
            ValueError: it is damaged, of another version, or was made by another teacher, method
                or reach than `manifest` asks for.
        """
        path = Path(path)
        if not path.is_file():
            raise OSError(f"{path} is missing: no scores are stored there")
        theirs, parts = _read(path)
        for name, value in {"format": FORMAT, **manifest}.items():
            if theirs.get(name) != value:
                raise ValueError(
                    f"{path} holds scores of {name} {theirs.get(name)!r}, this run needs "
                    f"{value!r}: remove it, or give another --kv_scores_path"
                )
        check_finite([("scores", parts["scores"])], path)
        lengths, flat = parts["lengths"].numpy(), parts["scores"].numpy()
        names, ends = parts["samples"].numpy(), np.cumsum(lengths)
        if names.shape != (len(lengths), DIGEST_SIZE) or int(lengths.sum()) != len(flat):
            raise ValueError(f"{path} is damaged: its parts do not fit together; remove it")
        rows = np.split(flat, ends[:-1])
        return cls(manifest, {name.tobytes(): row for name, row in zip(names, rows)})


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        file = TensorFile(path)
        return file.manifest, {n: file.tensor(n) for n in ("samples", "lengths", "scores")}
    except (DamagedFile, KeyError) as error:
        raise ValueError(f"{path} is damaged or holds no scores ({error}); remove it") from error
