"""Keys are compared un-rotated, as both models cache them, or as the student caches its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from runs import distiller_and_batch, rows, small, weights
from transformers import LlamaConfig

from kava.models.rotary import rotary_of
from kava.rope import Rotary, rotate, unrotate_trace
from kava.student.latent import LatentStudent
from kava.train.objective import Distiller

TEACHER = {"teacher_name": "kava/shell-teacher"}
EXPLICIT = {"student": "explicit", **TEACHER}


def distiller_with(rope: dict[str, Any], **changes: Any) -> tuple[Distiller, Any]:
    """A student of another rotation than its teacher's."""
    distiller, batch = distiller_and_batch(small(**changes))
    config = LlamaConfig.from_dict(distiller.base.config.to_dict())
    config.rope_parameters = rope
    config.max_position_embeddings = 512
    base = type(distiller.base)(config)
    base.load_state_dict(distiller.base.state_dict())
    student = distiller.student
    if isinstance(student, LatentStudent):
        student.base = base
    else:
        student = base
    aligner, settings, teacher = distiller.map_aligner, distiller.settings, distiller.teacher
    return Distiller(student, settings, aligner, teacher), batch


@pytest.mark.parametrize("student", ["latent", "explicit"])
def test_the_target_is_rotated_as_the_students_keys_are(student: str) -> None:
    rope = {"rope_type": "yarn", "rope_theta": 1e5, "factor": 4.0}
    rope["original_max_position_embeddings"] = 128
    changes = {"student": student, "key_space": "student", **TEACHER}
    distiller, batch = distiller_with(rope, **changes)
    forward = distiller(batch)
    ours, theirs = forward.student, forward.target.trace
    assert ours.rotated
    assert theirs.rotated
    assert torch.equal(theirs.positions, ours.positions)
    distiller.settings.key_space = "unrotated"
    plain = distiller(batch)
    rotary = rotary_of(distiller.base)
    assert rotary is not None
    assert rotary.attention_scaling > 1
    expected = rotate(plain.target.trace.keys, ours.positions, rotary)
    torch.testing.assert_close(theirs.keys, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(theirs.values, plain.target.trace.values)
    torch.testing.assert_close(
        unrotate_trace(ours, rotary).keys, plain.student.keys, atol=1e-5, rtol=1e-4
    )


def test_the_squared_error_does_not_depend_on_a_common_rotation() -> None:
    """A rotation keeps distances: un-rotated and student's rotation differ in nothing else."""
    options = {"kv_loss": "mse", "kv_layer_std": False, **TEACHER}
    distiller, batch = distiller_and_batch(small(key_space="student", **options))
    rotated = distiller(batch)
    distiller.settings.key_space = "unrotated"
    torch.testing.assert_close(rotated.metrics["kv"], distiller(batch).metrics["kv"])
    distiller.settings.key_space = "rotated"
    assert not torch.allclose(rotated.metrics["kv"], distiller(batch).metrics["kv"], rtol=1e-3)


@pytest.mark.parametrize("name", ["kava/tiny-gpt2", "kava/tiny-llama"])
def test_a_student_without_a_rotation_is_compared_as_it_caches(name: str) -> None:
    """Learned positions stand in the keys themselves: nothing to rotate, the same target."""
    distiller, batch = distiller_and_batch(
        small(key_space="student", model_name=name, max_length=256)
    )
    rotated = distiller(batch).target.trace
    distiller.settings.key_space = "unrotated"
    plain = distiller(batch).target.trace
    assert torch.equal(rotated.keys, plain.keys) == (name == "kava/tiny-gpt2")


@pytest.mark.parametrize("changes", [TEACHER, EXPLICIT], ids=["latent", "explicit"])
@pytest.mark.parametrize("space", ["unrotated", "rotated", "student"])
def test_a_kv_step_trains_the_student_alone_in_every_space(
    space: str, changes: dict[str, Any]
) -> None:
    config = small(key_space=space, ce_weight=0.0, kv_weight=5.0, **changes)
    distiller, batch = distiller_and_batch(config)
    assert distiller.teacher is not None
    before = weights(distiller.student), weights(distiller.teacher)
    optimiser = torch.optim.SGD(distiller.student.parameters(), lr=0.1)
    distiller(batch).loss.backward()
    optimiser.step()
    moved = [n for n, w in weights(distiller.student).items() if not torch.equal(w, before[0][n])]
    assert any("k_proj" in name for name in moved)
    after = weights(distiller.teacher)
    assert all(torch.equal(w, after[name]) for name, w in before[1].items())


@pytest.mark.parametrize("changes", [TEACHER, EXPLICIT], ids=["latent", "explicit"])
def test_the_students_space_does_not_depend_on_the_batch(changes: dict[str, Any]) -> None:
    config = small(key_space="student", kv_method="right_crop", **changes)
    distiller, batch = distiller_and_batch(config)
    whole = distiller(batch).target.trace.keys
    half = distiller(rows(batch, slice(0, 4))).target.trace.keys
    torch.testing.assert_close(whole[:4], half, atol=1e-5, rtol=1e-5)


def test_a_student_whose_rotation_depends_on_the_text_is_read_at_its_length() -> None:
    """Dynamic scaling, beyond the original length: an explicit student in one forward."""
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    distiller, batch = distiller_with(rope, key_space="student", **EXPLICIT)
    distiller.base.config.max_position_embeddings = 8
    module = distiller.base.model.rotary_emb
    module.original_max_seq_len = module.max_seq_len_cached = 8
    rotary = rotary_of(distiller.base)
    assert rotary is not None
    assert rotary.num_positions == 8
    distiller.rotary = rotary
    forward = distiller(batch)
    length = int(batch["attention_mask"].sum(1).max())
    assert length > 8
    distiller.settings.key_space = "unrotated"
    plain = distiller(batch)
    positions = forward.student.positions
    expected = rotate(plain.target.trace.keys, positions, rotary.at_length(length))
    torch.testing.assert_close(forward.target.trace.keys, expected, atol=1e-5, rtol=1e-5)
    expected = rotate(plain.student.keys, positions, rotary.at_length(length))
    torch.testing.assert_close(forward.student.keys, expected, atol=1e-4, rtol=1e-4)


def test_latents_beyond_where_their_passes_would_differ_are_refused() -> None:
    distiller, batch = distiller_and_batch(small(**TEACHER))
    distiller.rotary = Rotary(inv_freq=torch.ones(8), rotary_dim=16, num_positions=10)
    with pytest.raises(ValueError, match="changes at 10 positions, and the passes"):
        distiller(batch)


def test_spaces_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="--key_space 'post' is unknown"):
        small(key_space="post")
    with pytest.raises(ValueError, match="compares them as the teacher's"):
        small(
            key_space="student",
            align_direction="student_to_teacher",
            alignment_mode="structured",
            **TEACHER,
        )
