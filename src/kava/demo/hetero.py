"""Studies of the heterogeneous pair: how should another model's cache be brought to the student?

The teacher is a GPT-2 with learned positions, four layers of three heads of 32, that reads a state
in two tokens; the student a Llama with rotary positions, two layers of four heads of 16, that
reads it in one. The student starts from a model that can write its reasoning, so that there is
a cache for the maps to be fitted to.
"""

from __future__ import annotations

from typing import Any

from kava.demo.arms import COMMON, Arm, Group, Study

HETERO_TEACHER = "kava/shell-gpt2-teacher"

# the answer is learned at once, some time after the cache is matched: a rate that has decayed by
# then comes too late, and one that never does ends in a spike now and then
_COMMON: dict[str, Any] = {
    **COMMON,
    "lr": 2e-3,
    "max_new_tokens": 3,
    "token_alignment": "soft",
}
_STRUCTURED: dict[str, Any] = {"kv_weight": 5.0, "alignment_mode": "structured"}
_SHARED: dict[str, Any] = {**_STRUCTURED, "map_proj_share_dim": True}
_FLAT: dict[str, Any] = {"kv_weight": 5.0, "alignment_mode": "flat"}
_LINEAR: dict[str, Any] = {**_FLAT, "flat_variant": "linear"}
_FROZEN = {"aligner_fit": "frozen"}
_JOINT = {"aligner_fit": "joint"}
_BACK = {"align_direction": "student_to_teacher"}
_WRONG = {"wrong_sample": True}


def _arm(name: str, what: str, group: Group, *changes: dict[str, Any]) -> Arm:
    merged: dict[str, Any] = {}
    for change in changes:
        merged.update(change)
    return Arm(name=name, what=what, group=group, changes=merged, num_seeds=3)


_RANK_8 = {"map_rank": "8"}

HETERO = Study(
    name="demo-hetero",
    kind="maps",
    arms=(
        _arm("ce", "latents, the answer's loss alone", "without"),
        _arm("wrong_sample", "rank 8, another sample's cache", "without", _SHARED, _RANK_8, _WRONG),
        _arm("per_head", "calibrated, a dim map per head", "kv", _STRUCTURED),
        _arm("rank_8", "calibrated, eight shared terms", "kv", _SHARED, _RANK_8),
        _arm("flat", "calibrated, all to all", "kv", _FLAT),
        _arm("shared", "calibrated, one shared term", "kv", _SHARED),
        _arm(
            "uniform",
            "head groups, not fitted",
            "kv",
            _SHARED,
            _FROZEN,
            {"map_proj_init_uniform": True},
        ),
        _arm("random", "random heads and dims, not fitted", "kv", _SHARED, _FROZEN),
        _arm("joint", "one shared term, learned beside", "kv", _SHARED, _JOINT),
    ),
    task={},
    common=_COMMON,
    num_steps=1500,
    teacher_name=HETERO_TEACHER,
)
"""Which map from the teacher's heads and head dims to the student's lets it learn?"""

RANKS = (1, 2, 4, 6, 8, 12)

RANK = Study(
    name="demo-rank",
    kind="rank",
    arms=(
        *(
            _arm(f"rank_{rank}", f"shared terms: {rank}", "kv", _SHARED, {"map_rank": str(rank)})
            for rank in RANKS
        ),
        _arm("full", "all to all", "reference", _FLAT),
    ),
    task={},
    common=_COMMON,
    num_steps=1500,
    teacher_name=HETERO_TEACHER,
)
"""How many head-mix ⊗ dim-map terms does a map need?"""

JOINT = Study(
    name="demo-joint",
    kind="joint",
    arms=(
        _arm("joint", "teacher mapped, learned beside", "kv", _LINEAR, _JOINT),
        _arm("joint_wrong", "the same, wrong sample", "without", _LINEAR, _JOINT, _WRONG),
        _arm(
            "calibrated_joint",
            "teacher mapped, fitted, then learned",
            "kv",
            _FLAT,
            {"aligner_fit": "calibrated_joint"},
        ),
        _arm("calibrated", "teacher mapped, fitted, frozen", "kv", _FLAT),
        _arm("back_joint", "student mapped, learned beside", "kv", _LINEAR, _JOINT, _BACK),
        _arm(
            "back_joint_wrong",
            "the same, wrong sample",
            "without",
            _LINEAR,
            _JOINT,
            _BACK,
            _WRONG,
        ),
        _arm("back_calibrated", "student mapped, fitted, frozen", "kv", _FLAT, _BACK),
    ),
    task={},
    common=_COMMON,
    num_steps=1500,
    teacher_name=HETERO_TEACHER,
)
"""Can a map learn beside the student, in either direction?"""
