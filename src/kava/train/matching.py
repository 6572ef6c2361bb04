"""How the student's cache is matched with its target: which layers and parts, in which proportion.

    α₂ · L_KV(layer weights, position weights) + γ · L_CKA(layer weights)

over the layers of `--distill_layers`, keys alone, values alone or both. The weights may change
while the run goes on; what they change is the proportion, never the scale of the loss.

Shapes: B batch, L layers, M slots.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from kava.losses import (
    CKALoss,
    Progress,
    annealed_layer_weights,
    build_kv_loss,
    gated_weights,
    kv_loss_options,
    warmup_gate,
)
from kava.losses.base import KVLossFunction
from kava.losses.weights import unit_mean_weights
from kava.trace import KVTrace

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
        """What the collapse guard compares by: the loss that trains, without its weights."""
        return self.kv_loss if self.config.kv_weight else cka_loss_of(self.config, debiased=True)

    def select(self, trace: KVTrace) -> KVTrace:
        """The layers of a trace that are matched."""
        return trace if self.layers is None else trace.layers(self.layers)

    def terms(
        self,
        student: KVTrace,
        target: KVTrace,
        num_slots: Tensor | float,
        progress: Progress,
        position_weights: Tensor | None = None,
    ) -> Iterator[Term]:
        """The terms at one step.

        Args:
            student: the selected layers; they carry the gradient.
            target: the same layers of the target.
            num_slots: pairs of sample and slot in the whole accumulated batch.
            progress: of the run.
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


def distilled_layers(config: TrainConfig, num_layers: int | None = None) -> list[int] | None:
    """The student's layers that are matched; None for all.

    Args:
        config: the run's configuration.
        num_layers: of the student, where it is known.

    Raises:
        ValueError: text that names no layers, a layer named twice, or one that the student does
            not have.
    """
    given = config.distill_layers
    if given is None:
        return None
    parts = given.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ValueError(
            f"--distill_layers {given!r} must be numbers of the student's layers with commas "
            f"between them, such as 0,2,5"
        )
    layers = [int(part) for part in parts]
    if len(set(layers)) < len(layers):
        raise ValueError(f"--distill_layers {given} names a layer twice; name each once")
    if num_layers is not None and max(layers) >= num_layers:
        raise ValueError(
            f"--distill_layers {given}: the student has no layer {max(layers)}, its "
            f"{num_layers} layers are 0 to {num_layers - 1}"
        )
    return sorted(layers)


def check_matching(config: TrainConfig) -> None:
    """Refuse flags of the matching that exclude each other, or that nothing would read.

    Raises:
        ValueError: such flags.
    """
    distilled_layers(config)
    if config.distill_k_only and config.distill_v_only:
        raise ValueError(
            "--distill_k_only and --distill_v_only exclude each other: pass one, or neither to "
            "match both"
        )
    if config.layer_weight_annealing_steps is not None and config.layer_weight_annealing == "none":
        raise ValueError(
            f"--layer_weight_annealing_steps {config.layer_weight_annealing_steps} is read by "
            f"--layer_weight_annealing alone: pass deep_first or shallow_first too"
        )
    if not config.attention_weighted_kv:
        if config.attention_weighted_warmup:
            raise ValueError(
                f"--attention_weighted_warmup {config.attention_weighted_warmup} is read by "
                f"--attention_weighted_kv alone: pass it too"
            )
        return
    if not config.kv_weight:
        raise ValueError(
            "--attention_weighted_kv weighs the slots of the KV loss, which --kv_weight 0 leaves "
            "out; give it a weight above 0"
        )
    if config.use_segment_resampling:
        raise ValueError(
            "--attention_weighted_kv weighs the positions that are kept, but "
            "--use_segment_resampling reads between them: leave one of the two out"
        )


def kv_loss_of(config: TrainConfig) -> KVLossFunction:
    """The configured KV loss, with the options that it takes.

    Raises:
        ValueError: an option that it does not have.
    """
    no_keys, no_values = config.distill_v_only, config.distill_k_only
    values: dict[str, Any] = {
        "alpha_k": 0.0 if no_keys else config.alpha_k,
        "alpha_v": 0.0 if no_values else config.alpha_v,
        "alpha_attn": _alpha_attn(config),
        "key_weight": 0.0 if no_keys else 1.0,
        "value_weight": 0.0 if no_values else 1.0,
        "layer_std": config.kv_layer_std,
        "detach_target": not config.trains_target,
    }
    known = kv_loss_options(config.kv_loss)
    if config.kv_layer_std and "layer_std" not in known:
        raise ValueError(
            f"--kv_layer_std has no meaning for --kv_loss {config.kv_loss}; leave it out"
        )
    return build_kv_loss(config.kv_loss, **{k: v for k, v in values.items() if k in known})


def _alpha_attn(config: TrainConfig) -> float:
    # whom the queries attend to is a matter of the keys
    return 0.0 if config.distill_v_only else config.alpha_attn


def compares_queries(config: TrainConfig) -> bool:
    """Whether the KV loss compares whom the queries of student and target attend to."""
    has_term = "alpha_attn" in kv_loss_options(config.kv_loss)
    return config.kv_weight > 0 and has_term and _alpha_attn(config) > 0


def cka_loss_of(config: TrainConfig, debiased: bool = False) -> CKALoss:
    """The CKA loss of keys, values or both."""
    return CKALoss(
        key_weight=0.0 if config.distill_v_only else 1.0,
        value_weight=0.0 if config.distill_k_only else 1.0,
        debiased=debiased,
        detach_target=not config.trains_target,
    )
