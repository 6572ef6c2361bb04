"""Losses between a student and its target: keys and values, attention, hidden states.

Pure tensor code: nothing here knows a model. `build_kv_loss` builds a KV loss by the name that
`--kv_loss` takes; `KV_LOSSES` lists the names.
"""

from kava.losses.attention import attention_weights
from kava.losses.base import (
    KV_LOSSES,
    KVLossFunction,
    build_kv_loss,
    kv_loss_options,
    register_kv_loss,
)
from kava.losses.cka import CKALoss
from kava.losses.codi import CODILoss, codi_loss, hidden_at
from kava.losses.guard import (
    CollapseReport,
    SlotLoss,
    collapse_report,
    effective_rank,
    trace_effective_rank,
    wrong_sample,
)
from kava.losses.kv import KVLoss
from kava.losses.latent_ce import latent_ce_loss, latent_of_tokens
from kava.losses.mercator import MercatorKVLoss
from kava.losses.schedule import (
    LAYER_EMPHASES,
    TrainingProgress,
    annealed_layer_weights,
    fading_share,
    gated_weights,
    warmup_gate,
    warmup_share,
)
from kava.losses.structural import StructuralKVLoss
from kava.losses.verdict import CollapseVerdict, InitialMetrics, verdict

__all__ = [
    "KV_LOSSES",
    "LAYER_EMPHASES",
    "CKALoss",
    "CODILoss",
    "CollapseReport",
    "CollapseVerdict",
    "InitialMetrics",
    "KVLoss",
    "KVLossFunction",
    "MercatorKVLoss",
    "SlotLoss",
    "StructuralKVLoss",
    "TrainingProgress",
    "annealed_layer_weights",
    "attention_weights",
    "build_kv_loss",
    "codi_loss",
    "collapse_report",
    "effective_rank",
    "fading_share",
    "gated_weights",
    "hidden_at",
    "kv_loss_options",
    "latent_ce_loss",
    "latent_of_tokens",
    "register_kv_loss",
    "trace_effective_rank",
    "verdict",
    "warmup_gate",
    "warmup_share",
    "wrong_sample",
]
