"""Flags of `kava train`: the losses and their weights."""

from __future__ import annotations

from dataclasses import dataclass

from kava import names
from kava.flags import flag
from kava.train.layers import parse_layers


@dataclass(kw_only=True)
class LossSettings:
    """The losses that the student is trained on."""

    kv_loss: str = flag(
        "smooth_l1", "how keys and values are compared", choices=names.KV_LOSS_NAMES, group="losses"
    )
    kv_weight: float = flag(1.0, "α₂, weight of the KV loss; 0 leaves it out", least=0)
    kv_layer_std: bool = flag(False, "divide the KV error by the teacher's std, layer by layer")
    alpha_k: float = flag(1.0, "weight of keys (structural, smooth_l1_alpha)", least=0)
    alpha_v: float = flag(1.0, "weight of values (structural, smooth_l1_alpha)", least=0)
    alpha_attn: float = flag(0.5, "weight of the attention divergence (structural)", least=0)
    distill_layers: str | None = flag(
        None,
        "match these layers of the student alone, as 0,2,5; left out: all",
        check=parse_layers,
    )
    distill_k_only: bool = flag(False, "match keys alone")
    distill_v_only: bool = flag(False, "match values alone")
    attention_weighted_kv: bool = flag(
        False, "weigh the slots of the KV loss by the attention of the teacher's answer to them"
    )
    attention_weighted_warmup: int = flag(
        0,
        "steps with equal weights for all positions; over as many steps again, the weights by "
        "attention replace them",
        least=0,
    )
    layer_weight_annealing: str = flag(
        "none",
        "which of the student's layers weigh most at first, in the KV and CKA losses; linearly to "
        "all alike",
        choices=names.LAYER_EMPHASES,
    )
    layer_weight_annealing_steps: int | None = flag(
        None,
        "steps after which all layers weigh alike; left out: the whole run",
        least=1,
    )
    cka_weight: float = flag(
        0.0,
        "weight of 1 - CKA between the student's cache and its target; 0 leaves it out",
        least=0,
    )
    codi_weight: float = flag(0.0, "α₁, weight of the CODI loss; 0 leaves it out", least=0)
    latent_ce_weight: float = flag(
        0.0,
        "weight of the cross-entropy of what each latent reads as through the output head, on the "
        "reasoning tokens that it stands for; 0 leaves it out; needs no teacher",
        least=0,
    )
    shared_space_weight: float = flag(
        0.0,
        "weight of the loss in a latent space that encoders of the teachers' targets and of the "
        "student's cache map to; beside the KV loss, or in its place with kv_weight 0; 0 leaves "
        "it out",
        least=0,
    )
    shared_space_dim: int = flag(32, "its dimensions", least=2, most=4096)
    shared_space_loss: str = flag(
        "cosine",
        "how its points are compared: cosine, mse, or by how the dimensions vary together over a "
        "batch: barlow, cca",
        choices=names.SHARED_LOSSES,
    )
    shared_space_fit: str = flag(
        "calibrated",
        "calibrated: the encoders are fitted to texts that all models read, then frozen; joint: "
        "they learn beside the student, which can collapse",
        choices=names.SPACE_FITS,
    )
    ce_weight: float = flag(1.0, "weight of the student's cross-entropy on the answer", least=0)
    ce_warmup: int = flag(
        0, "steps over which the weight of that cross-entropy rises linearly to ce_weight", least=0
    )
    text_ce_weight: float = flag(
        None,
        "weight of the cross-entropy of the written chain of thought and the answer in the layout "
        "of the latents (prompt, begin-of-thought, chain of thought, end-of-thought, answer), from "
        "which a student learns to read there; 0 leaves it out",
        least=0,
        unset="1 for latents that a frozen teacher (--teacher_name) teaches, else 0",
    )
    text_ce_steps: int | None = flag(
        None,
        "steps after which that term has faded: its weight is full over the first half of them, "
        "then falls linearly to 0; left out: 80 % of the run",
        least=1,
    )
    inject_weight: float = flag(
        0.0,
        "weight of the answer's cross-entropy where the target's keys and values stand in place "
        "of the latents' (teacher forcing); 0 leaves it out",
        least=0,
    )
    inject_steps: int | None = flag(
        None, "the same for inject_weight as text_ce_steps for text_ce_weight", least=1
    )
    teacher_ce_weight: float = flag(
        1.0,
        "self-distillation: weight of the cross-entropy of the written reasoning",
        least=0,
    )
    wrong_sample: bool = flag(
        False,
        "control: all that the teacher gives comes from another sample: its cache, its hidden "
        "state (CODI) and the reasoning that latents read as",
    )
