"""What does not fit several teachers is refused, in one line that names the flag."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from train.test_several import GPT2, LLAMA, NAMED, SEVERAL, built, named, several

__all__ = ["named"]

REFUSED = [
    ({"teachers": [GPT2, GPT2]}, "two teachers are named 'shell-gpt2-teacher'"),
    ({"teachers": ["=x", LLAMA]}, "a labelled teacher is LABEL=NAME"),
    ({"teacher_name": "gpt2"}, "--teachers and --teacher_name gpt2 each name teachers"),
    ({"fixed_weights": [0.5]}, "--fixed_weights 0.5 are 1, and there are 2 teachers"),
    ({"fixed_weights": [0.5, 0.6]}, "--fixed_weights 0.5 0.6 sum to 1.1"),
    ({"fixed_weights": [1.5, -0.5]}, "--fixed_weights 1.5 must be from 0 to 1"),
    ({"fixed_weights": [0.5, 0.5], "fusion": "confidence"}, "is read by --fusion"),
    ({"teachers": None, "fixed_weights": [1.0]}, "--fixed_weights is about several teachers"),
    ({"teacher_dtypes": ["float32"]}, "--teacher_dtypes gives 1, and there are 2 teachers"),
    ({"teacher_dtypes": ["float32", "int8"]}, "--teacher_dtypes 'int8' is unknown"),
    ({"teacher_prompts": ["{question}", "no hole"]}, "must hold {question} exactly once"),
    ({"kv_weight": 0.0}, "give --kv_weight a value above 0"),
    ({"codi_weight": 1.0}, "--codi_weight matches the hidden state of one teacher"),
    ({"key_space": "rotated"}, "--key_space rotated compares keys that each teacher rotated"),
    ({"align_direction": "student_to_teacher"}, "compares in the geometry of one teacher"),
    ({"kv_method": "knockout"}, "--kv_method knockout keeps positions by scores of one teacher"),
    ({"map_rank": "auto"}, "--map_rank auto is chosen for one teacher"),
    ({"fusion": "union", "target_len": 1}, "raise it to 2 or more"),
    ({"fusion": "average"}, "--fusion 'average' is unknown"),
    ({"student": "explicit", "kv_method": "rkv"}, "an explicit student has one set of its own"),
    ({"student": "explicit", "fusion": "union"}, "choose another fusion"),
    ({"student": "explicit", "fusion": "learnable"}, "pass --router_learning gradient"),
    ({"fusion": "learnable", "router_learning": "policy", "fusion_per_layer": True},
     "leave --fusion_per_layer out"),
    ({"balance_weight": 0.1}, "--balance_weight is read by --fusion learnable, not by"),
    ({"fusion_temperature": 2.0}, "--fusion_temperature is read by --fusion similarity"),
    ({"fusion_temperature_end": 2.0}, "--fusion_temperature_end is read by --fusion similarity"),
    ({"prototype": "max"}, "--prototype is read by --fusion similarity"),
    ({"disagreement": "weigh"}, "--disagreement is read by --fusion disagreement"),
    ({"fusion": "confidence", "router_type": "gate"}, "--router_type is read by --fusion learn"),
    ({"fusion": "learnable", "entropy_target": "diverse"},
     "--entropy_target diverse is read where --entropy_reg_strength is above 0"),
    ({"teachers": None, "fusion": "confidence"}, "--fusion is about several teachers"),
    ({"teachers": [GPT2], "teacher_prompts": ["{question}"]},
     "--teacher_prompts is about several teachers"),
    ({"fusion": "learnable", "teacher_order": "in_turn"}, "has nothing to choose from"),
    ({"fixed_weights": [1.0, 0.0], "teacher_order": "in_turn"}, "steps without any teacher"),
    ({"fusion": "learnable", "router_learning": "gradient", "router_weight": 2.0},
     "--router_weight 2.0 is read by --router_learning likelihood or policy"),
    ({"fusion": "disagreement", "disagreement": "weigh", "disagreement_threshold": 0.5},
     "--disagreement_threshold 0.5 is read by --disagreement drop"),
    ({"fusion_temperature": 0.0}, "--fusion_temperature 0.0 must be above 0"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        several(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({**SEVERAL, "fusion": "oracle"}, "--fusion oracle needs the column teacher_id"),
        ({"teachers": ["a=kava/tiny-gpt2", "b=kava/tiny-llama"]}, "has the teacher_id 'gpt2', and"),
        ({"teachers": ["gpt2=kava/tiny-gpt2", "llama=no/such-folder"]}, "no/such-folder"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(
    tmp_path: Path, named: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises((ValueError, OSError)) as error:
        built(tmp_path / "run", **{"dataset_name": named, **NAMED, **changes})
    assert said in str(error.value)
    assert not list((tmp_path / "run").glob("checkpoint-*"))
