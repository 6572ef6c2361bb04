"""A teacher that was read before: its passes come from a store, and its weights are not needed.

It stands where a model stands. Of a batch it gives either the trace of the whole texts, as a
forward would have left it, or the positions that were kept of them.

Shapes: B batch, L layers, H key/value heads, T columns of the teacher's text, M slots, D head dim,
W hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from kava.attention import AttentionForm
from kava.data.encoded import Encoded
from kava.rope import Rotary
from kava.store.fingerprints import text_digest
from kava.store.forms import unpack
from kava.store.manifest import FULL, TARGETS, Manifest
from kava.store.reader import Tier, stored_names
from kava.store.tensor_file import DamagedFile, TensorFile
from kava.trace import KVTrace, Segment

TEACHER_FILE = "teacher.safetensors"

CODI, ANSWER, WEIGHTS, QUERIES, CALIBRATION = "codi", "answer", "weights", "queries", "calibration"
HIDDEN, ANSWER_PART, TEXT_PART = "hidden", "answer", "text"
"""Parts of a sample: hidden states before the answer; log-probability of the answer, and
cross-entropy of the text."""


class Kept(NamedTuple):
    """The positions that were kept of a teacher's texts."""

    trace: KVTrace
    """[B, L, H, M, D] in float32, in the key space of the target."""
    columns: Tensor
    """[B, M] or [B, L, H, M]: their columns."""
    weights: Tensor | None = None
    """[B, M]: how much the answer looks at each."""
    scores: Tensor | None = None
    """[B, L or 1, H or 1, M]: by which they were kept, where there was a score."""


class StoredPass(NamedTuple):
    """What a store holds of a pass of a teacher over its text."""

    trace: KVTrace | Kept
    hidden: Tensor | None = None
    """[B, L+1, W]: the hidden states at the token before the answer's value."""
    answer_B: Tensor | None = None
    """Log-probability of the answer, summed over its tokens."""
    text_B: Tensor | None = None
    """Cross-entropy of reasoning and answer, summed over their tokens."""
    writes: Literal[False] = False

    def before_answer(self) -> Tensor:
        """[B, L+1, W]: the hidden states at the token before the answer's value."""
        assert self.hidden is not None
        return self.hidden


class StoredTeacher:
    """A teacher whose passes come from a store.

    Args:
        store: the folder.
        manifest: its manifest.
        tier: whence a step reads: kept positions (`TARGETS`) or whole texts (`FULL`).
        config: the teacher's configuration.
        reads: what a step reads beside: of `CODI`, `ANSWER`, `WEIGHTS`, `QUERIES`.

    Raises:
        OSError, ValueError: as `Tier`.
    """

    def __init__(
        self,
        store: str | Path,
        manifest: Manifest,
        tier: str,
        config: PreTrainedConfig,
        reads: frozenset[str] = frozenset(),
    ):
        self.store = Path(store)
        self.manifest = manifest
        self.config = config
        self.reads = reads
        self.tier = tier
        self.steps = Tier(self.store, manifest, tier)
        self.wholes = self.steps if tier == FULL else Tier(self.store, manifest, FULL)
        self.rotary, self.attention = read_teacher_file(self.store, manifest)

    @property
    def weights(self) -> str:
        """The fingerprint of the weights that were read."""
        found: str = self.manifest.settings["teacher"]["weights"]
        return found

    def read(self, batch: Any, n: int = 0) -> StoredPass:
        """What the teacher left behind over a batch.

        Args:
            batch: as the collator makes it of samples with the rows of the store, `stored`.
            n: which of several teachers it is.
        """
        rows = batch["stored"][:, n].tolist()
        text = batch.get("teacher", batch)
        parts = self._parts(self.steps, rows)
        trace = self._whole(text, parts) if self.tier == FULL else self._kept(batch, rows, parts)
        device = text["input_ids"].device

        def of_sample(name: str, wanted: str) -> Tensor | None:
            if wanted not in self.reads:
                return None
            some = next((part[name] for part in parts if part), None)
            if some is None:
                return None
            stacked = torch.stack([p[name] if p else torch.zeros_like(some) for p in parts])
            return stacked.float().to(device)

        return StoredPass(
            trace,
            of_sample(HIDDEN, CODI),
            of_sample(ANSWER_PART, ANSWER),
            of_sample(TEXT_PART, ANSWER),
        )

    def whole(self, batch: Any, queries: bool = False) -> KVTrace:
        """The trace of whole texts, of samples that `mark_whole` has marked."""
        rows = batch["stored"][:, 0].tolist()
        trace = self._whole(batch.get("teacher", batch), self._parts(self.wholes, rows))
        return trace if queries else replace(trace, queries=None, attention=None)

    def mark_whole(self, samples: Sequence[Encoded], mend: str) -> list[Encoded]:
        """Samples as one teacher reads them, with the rows of their whole texts.

        Raises:
            ValueError: a text that is not stored whole.
        """
        rows = [self.wholes.row(text_digest(sample, sample.teacher)) for sample in samples]
        missing = [sample.id for sample, row in zip(samples, rows) if row is None]
        if missing:
            raise ValueError(
                f"--store {self.store} lacks the whole text of {len(missing):,} of the "
                f"{len(samples):,} samples that maps are fitted on (the first: {missing[0]!r}): "
                f"{mend}"
            )
        return [replace(s, stored=(row,)) for s, row in zip(samples, rows) if row is not None]

    def _parts(self, tier: Tier, rows: Sequence[int]) -> list[dict[str, Tensor]]:
        """The stored parts of samples; nothing of one that the teacher does not read."""
        names = ["keys", "values", "columns", "positions"]
        if tier.name == FULL:
            names += ["queries"] if self.manifest.settings["whole_queries"] else []
        else:
            names += ["queries"] if QUERIES in self.reads else []
            names += [WEIGHTS] if WEIGHTS in self.reads else []
        names += [HIDDEN] if CODI in self.reads else []
        names += [ANSWER_PART, TEXT_PART] if ANSWER in self.reads else []
        names = stored_names(names)
        there = [row for row in rows if row >= 0]
        tier.announce(there, names)
        return [tier.read(row, names) if row >= 0 else {} for row in rows]

    def _kept(self, batch: Any, rows: Sequence[int], parts: list[dict[str, Tensor]]) -> Kept:
        targets: Mapping[str, Any] = self.manifest.settings["targets"]
        own = targets["token_alignment"] == "none" and "teacher" in batch
        mask_BT = (batch["teacher"] if own else batch)["attention_mask"]
        device = mask_BT.device
        L, H, *_ = self.manifest.settings["geometry"]["keys"]
        lengths = [part["keys"].shape[2] if part else 0 for part in parts]
        M = max(*lengths, targets["slots"] or 1, 1)
        mask_BM = torch.arange(M) < torch.tensor(lengths)[:, None]
        shared = targets["scope"] == "model"
        empty = (M,) if shared else (L, H, M)

        def slots(name: str, shape: tuple[int, ...]) -> Tensor:
            return torch.stack([_filled(p.get(name), shape) for p in parts]).to(device).long()

        columns = slots("columns", empty)
        first_B = mask_BT.long().argmax(1)
        columns = columns + first_B.view(-1, *(1,) * (columns.ndim - 1))
        trace = KVTrace(
            self._stacked("keys", rows, parts, M).to(device),
            self._stacked("values", rows, parts, M).to(device),
            queries=self._stacked("queries", rows, parts, M).to(device)
            if QUERIES in self.reads
            else None,
            mask=mask_BM.to(device),
            segment_ids=torch.full_like(columns, int(Segment.REASONING)),
            positions=slots("positions", empty),
            scope=targets["scope"],
            rotated=targets["key_space"] == "rotated",
            attention=self.attention if QUERIES in self.reads else None,
        )
        weights = None
        if WEIGHTS in self.reads:
            weights = torch.stack([_filled(p.get(WEIGHTS), (M,)) for p in parts]).to(device)
        return Kept(trace, columns, weights)

    def _stacked(
        self, name: str, rows: Sequence[int], parts: list[dict[str, Tensor]], M: int
    ) -> Tensor:
        """[B, L, H, M, D] in float32: the slots behind a sample's own repeat its last."""
        L, H, D = self.manifest.settings["geometry"][name]
        out = torch.empty(len(parts), L, H, M, D)
        for row, row_LHMD, part in zip(rows, out, parts):
            if not part or not part["keys"].shape[2]:
                row_LHMD.zero_()
                continue
            length = part[name].shape[2]
            # float32 that fills its row comes straight from the file, not by way of mapped pages
            if length == M and part[name].dtype == row_LHMD.dtype:
                self.steps.read_into(row, name, row_LHMD)
                continue
            own = unpack(name, part)
            row_LHMD[:, :, :length] = own
            row_LHMD[:, :, length:] = own[:, :, -1:]
        return out

    def _whole(self, text: Any, parts: list[dict[str, Tensor]]) -> KVTrace:
        mask_BT = text["attention_mask"].bool()
        starts = mask_BT.long().argmax(1).tolist()
        dtype = getattr(torch, self.manifest.settings["teacher"]["dtype"])

        def placed(name: str) -> Tensor:
            L, H, D = self.manifest.settings["geometry"][name]
            out = torch.zeros(len(parts), L, H, mask_BT.shape[1], D, dtype=dtype)
            for row_LHTD, part, start in zip(out, parts, starts):
                if part:
                    own = unpack(name, part)
                    row_LHTD[:, :, start : start + own.shape[2]] = own
            return out.to(mask_BT.device)

        has_queries: bool = self.manifest.settings["whole_queries"]
        return KVTrace(
            placed("keys"),
            placed("values"),
            queries=placed("queries") if has_queries else None,
            mask=mask_BT,
            segment_ids=text["segment_ids"],
            positions=(mask_BT.long().cumsum(-1) - 1).clamp(min=0),
            attention=self.attention if has_queries else None,
        )


def _filled(part: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """A part [.., length] at M slots; the slots behind its own repeat its last."""
    if part is None or not part.shape[-1]:
        return torch.zeros(shape, dtype=torch.float32 if part is None else part.dtype)
    index = torch.arange(shape[-1]).clamp(max=part.shape[-1] - 1)
    return part[..., index]


def teacher_parts(
    rotary: Rotary | None, attention: AttentionForm | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Rotation and form of attention of a teacher, as tensors and as what JSON holds."""
    tensors: dict[str, Tensor] = {"none": torch.zeros(1)}
    about: dict[str, Any] = {"rotary": None, "attention": None}
    if rotary is not None:
        tensors["inv_freq"] = rotary.inv_freq.float().cpu().contiguous()
        about["rotary"] = {
            "rotary_dim": rotary.rotary_dim,
            "attention_scaling": rotary.attention_scaling,
            "layout": rotary.layout,
        }
    if attention is not None:
        names = ("scaling", "softcap", "window", "chunk")
        about["attention"] = {name: list(getattr(attention, name)) for name in names}
        if attention.sinks is not None:
            tensors["sinks"] = attention.sinks.float().cpu().contiguous()
    return tensors, about


def read_teacher_file(
    store: Path, manifest: Manifest
) -> tuple[Rotary | None, AttentionForm | None]:
    """Rotation and form of attention of a store's teacher.

    Raises:
        OSError, ValueError: the file is missing, damaged, or of another store.
    """
    again = "run kava extract again, which makes up for it"
    try:
        file = TensorFile(store / TEACHER_FILE)
    except (OSError, DamagedFile) as error:
        raise type(error)(f"{error}: {again}") from error
    if file.manifest.get("store") != manifest.store_id or "rotary" not in file.manifest:
        raise DamagedFile(f"{file.path} is not that of this store: {again}")
    rotary, attention = file.manifest["rotary"], file.manifest["attention"]
    if rotary is not None:
        scaling = rotary.pop("attention_scaling")
        rotary = Rotary(
            inv_freq=file.tensor("inv_freq").clone(),
            attention_scaling=tuple(scaling) if isinstance(scaling, list) else scaling,
            **rotary,
        )
    if attention is not None:
        sinks = file.tensor("sinks").clone() if "sinks" in file.places else None
        attention = AttentionForm(**{n: tuple(v) for n, v in attention.items()}, sinks=sinks)
    return rotary, attention


__all__ = ["FULL", "TARGETS", "Kept", "StoredPass", "StoredTeacher"]
