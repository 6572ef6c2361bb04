"""Demos of the heterogeneous pair: how should another model's cache be brought to the student?

The teacher is a GPT-2 with learned positions, four layers of three heads of 32, that reads a state
in two tokens; the student a Llama with rotary positions, two layers of four heads of 16, that
reads it in one. The student starts from a model that can write its reasoning, so that there is
a cache for the maps to be fitted to.
"""

from __future__ import annotations

from typing import Any

from kava.demo.arms import COMMON, UNREAD, Demo, Kind, arm
from kava.study.plan import Arm

HETERO_TEACHER = "kava/shell-gpt2-teacher"

# the answer is learned at once, some time after the cache is matched: a rate that has decayed by
# then comes too late, and one that never does ends in a spike now and then
_COMMON: dict[str, Any] = {
    **COMMON,
    **UNREAD,
    "lr": 2e-3,
    "max_new_tokens": 3,
    "token_alignment": "soft",
}
_STRUCTURED: dict[str, Any] = {"kv_weight": 5.0, "alignment_mode": "structured"}
_SHARED: dict[str, Any] = {**_STRUCTURED, "map_proj_share_dim": True}
_FLAT: dict[str, Any] = {"kv_weight": 5.0, "alignment_mode": "flat"}
_LINEAR: dict[str, Any] = {**_FLAT, "flat_variant": "linear"}
_FROZEN = {"aligner_fit": "frozen"}
_UNIFORM = {"map_proj_init_uniform": True}
_JOINT = {"aligner_fit": "joint"}
_FITTED = {"aligner_fit": "calibrated_joint"}
_BACK = {"align_direction": "student_to_teacher"}
_WRONG = {"wrong_sample": True}


def _demo(name: str, kind: Kind, question: str, *arms: Arm) -> Demo:
    return Demo(
        name=name, kind=kind, question=question, arms=arms, common=_COMMON, num_steps=1500,
        teacher_name=HETERO_TEACHER,
    )  # fmt: skip


_RANK_8 = {"map_rank": "8"}

HETERO = _demo(
    "demo-hetero",
    "maps",
    "Which map brings another model's cache to the student?",
    arm("ce", "latents, the answer's loss alone", "baseline"),
    arm("wrong_sample", "rank 8, another sample's cache", "control", _SHARED, _RANK_8, _WRONG),
    arm("per_head", "calibrated, a dim map per head", "treatment", _STRUCTURED),
    arm("rank_8", "calibrated, eight shared terms", "treatment", _SHARED, _RANK_8),
    arm("flat", "calibrated, all to all", "treatment", _FLAT),
    arm("shared", "calibrated, one shared term", "treatment", _SHARED),
    arm("uniform", "head groups, not fitted", "treatment", _SHARED, _FROZEN, _UNIFORM),
    arm("random", "random heads and dims, not fitted", "treatment", _SHARED, _FROZEN),
    arm("joint", "one shared term, learned beside", "treatment", _SHARED, _JOINT),
)

RANKS = (1, 2, 4, 6, 8, 12)

RANK = _demo(
    "demo-rank",
    "rank",
    "How much structure may a map have?",
    *(
        arm(f"rank_{rank}", f"shared terms: {rank}", "treatment", _SHARED, {"map_rank": str(rank)})
        for rank in RANKS
    ),
    arm("full", "all to all", "baseline", _FLAT),
)

JOINT = _demo(
    "demo-joint",
    "joint",
    "Can a map learn beside the student?",
    arm("joint", "teacher mapped, learned beside", "treatment", _LINEAR, _JOINT),
    arm("joint_wrong", "the same, wrong sample", "control", _LINEAR, _JOINT, _WRONG),
    arm("calibrated_joint", "teacher mapped, fitted, then learned", "treatment", _FLAT, _FITTED),
    arm("calibrated", "teacher mapped, fitted, frozen", "baseline", _FLAT),
    arm("back_joint", "student mapped, learned beside", "treatment", _LINEAR, _JOINT, _BACK),
    arm("back_joint_wrong", "the same, wrong sample", "control", _LINEAR, _JOINT, _BACK, _WRONG),
    arm("back_calibrated", "student mapped, fitted, frozen", "treatment", _FLAT, _BACK),
)
