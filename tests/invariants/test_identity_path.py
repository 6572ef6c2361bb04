"""A teacher that is its student: tokens, layers, heads, dims, time and rotation change nothing.

The whole way of a cache, each part real and none left out, between two equal models of every
family that read the same text through the same tokenizer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from families import FAMILIES
from kava.align import MapProjectionAligner, align_trace
from kava.align.time.resample import SegmentResampling
from kava.align.tokens.aligner import TokenAligner
from kava.data import Template, load_records, shell_game_tokenizer
from kava.data.collate import Batch, Collator
from kava.data.encode import encode_records
from kava.data.pairing import encode_for_teacher
from kava.fit.paired_traces import to_student_tokens
from kava.models.capture import capture
from kava.models.rotary import rotary_of
from kava.rope import rotate_trace, unrotate_trace
from kava.trace import KVTrace
from kava.train.config import TrainConfig
from kava.train.objective import Distiller

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
ALIGNERS: dict[str, dict[str, Any]] = {
    "identity": {"mode": "identity"},
    "shared": {"init_uniform": True, "layer_map": "ratio"},
    "per_head": {"share_dim_proj": False, "init_uniform": True, "layer_map": "uniform"},
    "flat": {"mode": "flat", "flat_variant": "linear", "layer_map": "skip"},
    "warped": {"init_uniform": True, "alpha_map": {1: 0.5}, "ratio_map": {0: 1.0}},
}


def ragged_batch() -> Batch:
    """Texts of two lengths, whose teacher has a tokenizer of its own: the same one again."""
    tokenizer = shell_game_tokenizer()
    records = [
        replace(record, id=f"{record.id} of {moves}")
        for moves in (3, 6)
        for record in load_records(f"kava/shell-game?num_moves={moves}&num_train=2")
    ]
    encoded, _ = encode_records(records, tokenizer, Template(cue="Answer "), 64)
    paired, _ = encode_for_teacher(records, encoded, tokenizer, Template(cue="Answer "), 64)
    assert isinstance(tokenizer.pad_token_id, int)
    batch = Collator(tokenizer.pad_token_id, tokenizer.pad_token_id)(paired)
    assert (batch["attention_mask"] == 0).any()
    return batch


def read(model: PreTrainedModel, part: Any) -> KVTrace:
    with torch.no_grad():
        ids, mask, segments = (part[n] for n in ("input_ids", "attention_mask", "segment_ids"))
        return capture(model, ids, mask, segments, queries=True)[1]


def assert_same(found: KVTrace, expected: KVTrace) -> None:
    valid_BT = expected.valid_BT()
    for name in ("keys", "values", "queries"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(
            ours.movedim(3, 1)[valid_BT], theirs.movedim(3, 1)[valid_BT], **TOLERANCE, msg=name
        )
    for name in ("mask", "segment_ids", "positions"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert torch.equal(ours[valid_BT], theirs[valid_BT]), name


def test_the_same_tokenizer_aligns_every_token_with_itself() -> None:
    tokenizer = shell_game_tokenizer()
    text = "Cups abcd moves 3412 3142 order ?\ncdab\nAnswer acbd"
    for mode in ("hard", "soft"):
        weights = TokenAligner(tokenizer, tokenizer, mode=mode)(text)
        assert torch.equal(weights, torch.eye(len(weights)))


@pytest.mark.parametrize("aligner", ALIGNERS)
@pytest.mark.parametrize("tokens", ["hard", "soft"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_path_is_the_identity(family: str, tokens: str, aligner: str) -> None:
    model, batch = FAMILIES[family](), ragged_batch()
    teacher, student = read(model, batch["teacher"]), read(model, batch)
    rotary = rotary_of(model)
    path = unrotate_trace(teacher, rotary)
    path = to_student_tokens(path, batch, tokens)
    resampling = SegmentResampling(ratios={0: 1.0, 1: 1.0, 2: 1.0}, alphas={1: 0.5})
    path, columns = resampling.to_text(path, batch["segment_ids"], batch["attention_mask"])
    maps = MapProjectionAligner.from_configs(model.config, model.config, **ALIGNERS[aligner])
    if aligner == "warped":  # a warp fills all slots: one text at a time has none to spare
        parts = [path.samples(slice(i, i + 1)) for i in range(path.batch_size)]
        lengths = [int(part.valid_BT().sum()) for part in parts]
        warped = [align_trace(maps, part.slice(0, n), n) for part, n in zip(parts, lengths)]
        ours = [student.gather(columns).samples(slice(i, i + 1)) for i in range(len(parts))]
        for part, own, n in zip(warped, ours, lengths):
            assert_same(rotate_trace(part, rotary, own.slice(0, n).positions), own.slice(0, n))
        return
    path = align_trace(maps, path)
    ours = student.gather(columns, mask=path.mask)
    path = rotate_trace(path, rotary, ours.positions)
    assert path.length == int(batch["attention_mask"].sum(1).max())
    assert_same(path, ours)


@pytest.mark.parametrize("key_space", ["unrotated", "rotated", "student"])
@pytest.mark.parametrize("family", FAMILIES)
def test_in_training_the_target_is_the_students_own_cache(family: str, key_space: str) -> None:
    model, batch = FAMILIES[family](), ragged_batch()
    config = TrainConfig(
        student="explicit",
        teacher_name="itself again",
        kv_method="full",
        alignment_mode="structured",
        map_proj_init_uniform=True,
        aligner_fit="frozen",
        key_space=key_space,
        output_dir="unused",
    )
    aligner = MapProjectionAligner.from_configs(model.config, model.config)
    distiller = Distiller(model, config, aligner, FAMILIES[family]())
    with torch.no_grad():
        forward = distiller(batch)
    assert forward.student is not None
    assert forward.target is not None
    valid = forward.target.trace.valid_BT()
    for name in ("keys", "values"):
        ours, theirs = (getattr(t, name) for t in (forward.student, forward.target.trace))
        torch.testing.assert_close(
            ours.movedim(3, 1)[valid], theirs.movedim(3, 1)[valid], **TOLERANCE
        )
    assert forward.metrics["kv"] < 1e-8
