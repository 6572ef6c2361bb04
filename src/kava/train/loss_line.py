"""Print the loss: the formula of its terms, and the line of a logging step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kava.train.config import TrainConfig

ALWAYS = {"ce": "CE", "kv": "KV", "codi": "CODI"}
"""Terms printed in every line, even with weight 0, and their names there."""
WHERE_USED = {
    "text_ce": "textCE",
    "inject_ce": "injectCE",
    "cka": "CKA",
    "shared_space": "sharedSpace",
    "latent_ce": "latentCE",
    "teacher_ce": "teacherCE",
    "route_likelihood": "routeLikelihood",
    "route_policy": "routePolicy",
    "route_entropy": "routeEntropy",
    "route_balance": "routeBalance",
}
"""Terms printed only if their weight is not 0."""


def loss_weights(config: TrainConfig) -> dict[str, float]:
    """The terms of a run's loss, by their names in metrics.jsonl, with their weights.

    Example:
        >>> loss_weights(TrainConfig(kv_weight=5.0, codi_weight=10.0))
        {'ce': 1.0, 'kv': 5.0, 'codi': 10.0, 'teacher_ce': 1.0}
    """
    writes = config.student == "latent" and config.self_distillation
    weights = {
        "ce": config.ce_weight,
        "kv": config.kv_weight,
        "codi": config.codi_weight,
        "text_ce": config.text_ce_weight,
        "inject_ce": config.inject_weight,
        "cka": config.cka_weight,
        "shared_space": config.shared_space_weight,
        "latent_ce": config.latent_ce_weight,
        "teacher_ce": config.teacher_ce_weight if writes else 0.0,
    }
    if config.trains_router:
        if config.router_learning != "gradient":
            weights[f"route_{config.router_learning}"] = config.router_weight
        weights["route_entropy"] = config.entropy_reg_strength
        weights["route_balance"] = config.balance_weight
    return {name: weight for name, weight in weights.items() if weight}


def formula(config: TrainConfig) -> str:
    """The loss as the sum of its terms.

    Example:
        >>> formula(TrainConfig(kv_weight=5.0, codi_weight=10.0))
        'CE + 5·KV + 10·CODI + teacherCE'
    """
    labels = ALWAYS | WHERE_USED
    terms = [
        labels[name] if weight == 1 else f"{weight:g}·{labels[name]}"
        for name, weight in loss_weights(config).items()
    ]
    return " + ".join(terms) or "0"


def log_line(step: int, logs: Mapping[str, float], mode: str) -> str:
    """The line that a logging step prints.

    Example:
        >>> log_line(10, {"loss": 2.5, "ce": 2.0, "kv": 0.5, "codi": 0.3}, "structured")
        'Step 10: loss=2.5, CE=2, KV=0.5, CODI=0.3 [Mode: structured]'
    """
    names = {"loss": "loss"} | ALWAYS
    names |= {name: label for name, label in WHERE_USED.items() if name in logs}
    terms = ", ".join(f"{label}={logs.get(name, 0.0):.4g}" for name, label in names.items())
    return f"Step {step}: {terms} [Mode: {mode}]"
