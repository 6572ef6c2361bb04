"""Match the student's cache with its target: layers, parts and their weights.

    α₂ · L_KV(layer weights, position weights) + γ · L_CKA(layer weights)

over the layers of `--distill_layers`, for keys, values or both. The weights may change during the
run; they change the proportions, never the scale of the loss.

Shapes: B batch, L layers, M slots.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from kava.losses import (
    CKALoss,
    TrainingProgress,
    annealed_layer_weights,
    build_kv_loss,
    gated_weights,
    kv_loss_options,
    warmup_gate,
)
from kava.losses.base import KVLossFunction
from kava.losses.weights import unit_mean_weights
from kava.trace import KVTrace
from kava.train.layers import parse_layers

if TYPE_CHECKING:
    from kava.train.config import TrainConfig


class Term(NamedTuple):
    """One term of the loss."""

    name: str
    weight: float
    loss: Tensor
    metrics: dict[str, Tensor]


class Matching:
    """The terms between a student's trace and its target.

    Args:
        config: the run's configuration.
        num_layers: L of the student.

    Raises:
        ValueError: a layer that the student does not have, layer weights for one layer, or an
            option that the KV loss does not have.
    """

    def __init__(self, config: TrainConfig, num_layers: int):
        self.config = config
        self.layers = distilled_layers(config, num_layers)
        matched = num_layers if self.layers is None else len(self.layers)
        if config.layer_weight_annealing != "none" and matched < 2:
            raise ValueError(
                f"--layer_weight_annealing {config.layer_weight_annealing} needs two matched "
                f"layers or more, and there is {matched}; leave it out"
            )
        self.kv_loss = kv_loss_of(config)
        self.cka_loss = cka_loss_of(config)

    @property
    def guard_loss(self) -> KVLossFunction | CKALoss:
        """The loss that the collapse guard compares: the training loss without its weights; of a
        run that compares points of a shared space alone, the KV loss."""
        if self.config.kv_weight or not self.config.cka_weight:
            return self.kv_loss
        return cka_loss_of(self.config, debiased=True)

    def select(self, trace: KVTrace) -> KVTrace:
        """Select the matched layers of a trace."""
        return trace if self.layers is None else trace.layers(self.layers)

    def terms(
        self,
        student: KVTrace,
        target: KVTrace,
        num_slots: Tensor | float,
        progress: TrainingProgress,
        position_weights: Tensor | None = None,
    ) -> Iterator[Term]:
        """The loss terms of one step.

        Args:
            student: the selected layers; they carry the gradient.
            target: the same layers of the target.
            num_slots: pairs of sample and slot in the whole accumulated batch.
            progress: fraction of the run that is done.
            position_weights: [B, M] from the teacher's attention, before the warm-up's gate.
        """
        config = self.config
        layer_weights = annealed_layer_weights(
            config.layer_weight_annealing,
            student.num_layers,
            progress,
            config.layer_weight_annealing_steps,
        )
        if config.kv_weight:
            if position_weights is not None:
                valid_BM = student.valid_BT() & target.valid_BT()
                gate = warmup_gate(progress.step, config.attention_weighted_warmup)
                position_weights = gated_weights(
                    unit_mean_weights(position_weights, valid_BM), gate
                )
            loss, metrics = self.kv_loss(
                student, target, num_slots, position_weights, layer_weights
            )
            yield Term("kv", config.kv_weight, loss, metrics)
        if config.cka_weight:
            loss, metrics = self.cka_loss(student, target, num_slots, layer_weights)
            yield Term("cka", config.cka_weight, loss, metrics)


def distilled_layers(config: TrainConfig, num_layers: int) -> list[int] | None:
    """The matched layers of the student; None for all.

    Raises:
        ValueError: a layer that the student does not have.
    """
    given = config.distill_layers
    return None if given is None else parse_layers(given, num_layers)


def kv_loss_of(config: TrainConfig) -> KVLossFunction:
    """Build the configured KV loss with its options.

    Raises:
        ValueError: an option that the loss does not have.
    """
    no_keys, no_values = config.distill_v_only, config.distill_k_only
    values: dict[str, Any] = {
        "alpha_k": 0.0 if no_keys else config.alpha_k,
        "alpha_v": 0.0 if no_values else config.alpha_v,
        "alpha_attn": _alpha_attn(config),
        "key_weight": 0.0 if no_keys else 1.0,
        "value_weight": 0.0 if no_values else 1.0,
        "layer_std": config.kv_layer_std,
        "detach_target": not (config.trains_target or config.trains_fusion),
    }
    known = kv_loss_options(config.kv_loss)
    if config.kv_layer_std and "layer_std" not in known:
        raise ValueError(
            f"--kv_layer_std has no meaning for --kv_loss {config.kv_loss}; leave it out"
        )
    return build_kv_loss(config.kv_loss, **{k: v for k, v in values.items() if k in known})


def _alpha_attn(config: TrainConfig) -> float:
    # what the queries attend to depends on the keys only
    return 0.0 if config.distill_v_only else config.alpha_attn


def compares_queries(config: TrainConfig) -> bool:
    """Whether the KV loss compares the attention of student and target queries."""
    has_term = "alpha_attn" in kv_loss_options(config.kv_loss)
    return config.kv_weight > 0 and has_term and _alpha_attn(config) > 0


def cka_loss_of(config: TrainConfig, debiased: bool = False) -> CKALoss:
    """The CKA loss of keys, values or both."""
    return CKALoss(
        key_weight=0.0 if config.distill_v_only else 1.0,
        value_weight=0.0 if config.distill_k_only else 1.0,
        debiased=debiased,
        detach_target=not (config.trains_target or config.trains_fusion),
    )
