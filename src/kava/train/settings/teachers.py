"""Flags of `kava train`: several teachers, and how their caches become one target."""

from __future__ import annotations

from dataclasses import dataclass

from kava import names
from kava.flags import flag
from kava.train.settings.optimisation import DTYPES


@dataclass(kw_only=True)
class TeachersSettings:
    """The teachers, the fusion of their caches, and the router that is trained for it."""

    teachers: list[str] | None = flag(
        None,
        "several frozen teachers, in place of teacher_name: names of models, or LABEL=NAME where "
        "the label is what tables call it. Each has its own map, tokens and kept positions",
        metavar="TEACHER",
        group="teachers",
    )
    teacher_reasoning: list[str] | None = flag(
        None,
        "files of kava rationales with each teacher's own chain of thought, which it reads in "
        "place of the data's; left out: all read the data's",
        metavar="FILE",
    )
    fusion: str = flag(
        "fixed",
        "how their caches become one target. fixed: given weights; similarity: of the student's "
        "cache with theirs; learnable: a router; confidence: log-probability of the answer; "
        "min_ce, avg_ce: cross-entropy of the text; oracle: the column teacher_id of the data; "
        "union: side by side over the latents; disagreement: the mean where they agree",
        choices=names.FUSION_NAMES,
    )
    fixed_weights: list[float] | None = flag(
        None,
        "weight of each teacher, summing to 1, for fixed, union (shares of the latents) and "
        "disagreement; left out: equal",
        least=0,
        most=1,
        metavar="WEIGHT",
        unset="equal",
    )
    fusion_temperature: float = flag(
        1.0, "temperature of the softmax over teachers, at the start", above=0
    )
    fusion_temperature_end: float | None = flag(
        None, "and at the end of the run, reached linearly; left out: the same", above=0
    )
    fusion_per_layer: bool = flag(
        False, "similarity, learnable: weights of each layer, not of the whole sample"
    )
    prototype: str = flag(
        "mean", "similarity: what stands for a teacher's slots", choices=names.PROTOTYPES
    )
    similarity: str = flag("cosine", "similarity: measured by", choices=names.SIMILARITIES)
    router_type: str = flag("mlp", "learnable: form of the router", choices=names.ROUTERS)
    router_learning: str = flag(
        "likelihood",
        "learnable: what the router learns from. gradient: the KV loss; likelihood: the answer's "
        "cross-entropy with the target in place of the latents; policy: REINFORCE, where one "
        "teacher is drawn for each sample and no other reads it",
        choices=names.ROUTER_LEARNING,
    )
    router_weight: float = flag(1.0, "learnable: weight of likelihood's and policy's term", least=0)
    entropy_reg_strength: float = flag(
        0.0, "weight of the term on the entropy of the router's shares", least=0
    )
    entropy_target: str = flag(
        "specialized",
        "what that term prefers: diverse, all teachers alike; specialized, one for each sample",
        choices=names.ENTROPY_TARGETS,
    )
    balance_weight: float = flag(
        0.0, "weight of the term that spreads the samples over the teachers", least=0
    )
    disagreement: str = flag(
        "drop",
        "disagreement: slots where teachers pull apart are dropped, or weigh less",
        choices=names.DISAGREEMENTS,
    )
    disagreement_threshold: float = flag(
        0.0, "drop: slots below this mean cosine of the pulls are left out", least=-1, most=1
    )
    teacher_order: str = flag(
        "together",
        "together: all teachers at every step; in_turn: one at each step",
        choices=names.TEACHER_ORDERS,
    )
    teacher_dtypes: list[str] | None = flag(
        None,
        "dtype of each teacher's weights; left out: dtype for all",
        choices=DTYPES,
        metavar="DTYPE",
        unset="dtype",
    )
    teacher_prompts: list[str] | None = flag(
        None,
        "prompt of each teacher, with {question} in it: the same model under several prompts is "
        "several teachers; left out: the student's template",
        metavar="PROMPT",
        unset="the student's",
    )
