"""Names of strategies, to check a command line before torch is loaded.

A strategy is registered in its own file, which needs torch. A wrong name must be refused long
before that file is loaded, so the shipped names are also listed here; a test compares each list
with its registry. Choices without a registry, such as the alignment modes, are only here.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from typing import Literal

Scope = Literal["head", "layer", "model"]
SCOPES: tuple[Scope, ...] = ("head", "layer", "model")

CACHE_SCORES = ("rkv", "h2o", "recent")
"""By what a bounded cache keeps positions between its first and its newest ones."""

Reach = Literal["later_steps", "all"]
REACHES: tuple[Reach, ...] = ("later_steps", "all")

STUDENTS = ("latent", "explicit")
DECODINGS = ("sequential", "jacobi")
THOUGHT_POSITIONS = ("shared", "own")
ALIGNMENT_MODES = ("structured", "flat", "identity")
TEACHER_TO_STUDENT, STUDENT_TO_TEACHER = "teacher_to_student", "student_to_teacher"
ALIGN_DIRECTIONS = (TEACHER_TO_STUDENT, STUDENT_TO_TEACHER)
ALIGNER_FITS = ("calibrated", "frozen", "joint", "calibrated_joint")
FLAT_VARIANTS = ("elastic", "linear", "residual")
TOKEN_ALIGNMENTS = ("hard", "soft", "none")
KEY_SPACES = ("unrotated", "rotated", "student")
LAYER_EMPHASES = ("none", "deep_first", "shallow_first")
REASONING_FORMS = ("text", "annotated", "equations")
OVERFLOWS = ("error", "skip")
NO_CHAT, OWN_CHAT = "none", "tokenizer"
SCHEDULERS = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup",
    "inverse_sqrt",
)  # fmt: skip
"""Schedulers of transformers that need no further setting."""


METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
"""What a run writes into its output folder, beside its checkpoints."""

OWN_TRACKERS = ("none", "tensorboard")
TRACKERS = (
    *OWN_TRACKERS, "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte",
    "kubeflow", "mlflow", "neptune", "swanlab", "trackio", "wandb",
)  # fmt: skip
"""Trackers of transformers' trainer; TensorBoard's file is always written."""

MOST_BATCH = 65_536
MOST_LATENTS = 4_096
MOST_SEED = 2**32 - 1
"""Limits shared by several commands: batch size, number of latents, largest seed."""


_GIVEN = " (given in Python)"


def given(name: str, role: str = "") -> str:
    """The name, in records and messages, of an object that a run was given.

    Args:
        name: what the object calls itself.
        role: tells two objects of one name apart.

    Example:
        >>> given("gpt2"), given("gpt2", "teacher")
        ('gpt2 (given in Python)', 'gpt2, teacher (given in Python)')
    """
    return f"{name}, {role}{_GIVEN}" if role else name + _GIVEN


def is_given(name: str) -> bool:
    """Whether a name means an object that a run was given, which no name loads again.

    Example:
        >>> is_given(given("gpt2")), is_given("gpt2")
        (True, False)
    """
    return name.endswith(_GIVEN)


def without_given(name: str) -> str:
    """What an object that a run was given calls itself; other names as they are.

    Example:
        >>> without_given(given("gpt2", "teacher")), without_given("gpt2")
        ('gpt2', 'gpt2')
    """
    return name.removesuffix(_GIVEN).partition(", ")[0] if is_given(name) else name


class Names(Collection[str]):
    """The names of a registry: the shipped names or, once it is loaded, all its names.

    Args:
        registry: the registry as `module:dictionary`.
        *names: the shipped names.

    Example:
        >>> "uniform" in LAYER_MAP_NAMES
        True
    """

    def __init__(self, registry: str, *names: str):
        self.registry = registry
        self.shipped = names

    def _known(self) -> Collection[str]:
        module, _, attribute = self.registry.partition(":")
        return vars(sys.modules[module])[attribute] if module in sys.modules else self.shipped

    def __contains__(self, name: object) -> bool:
        return name in self._known()

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())


QUANTIZATIONS = ("none", "8bit", "4bit")
OPTIMISERS = ("adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_8bit", "adafactor")
ROUTERS = ("mlp", "gate", "attention")
ROUTER_LEARNING = ("gradient", "likelihood", "policy")
ENTROPY_TARGETS = ("diverse", "specialized")
PROTOTYPES = ("mean", "cls", "max", "kmeans")
SIMILARITIES = ("cosine", "dot", "l2")
DISAGREEMENTS = ("drop", "weigh")
SHARED_LOSSES = ("cosine", "mse", "barlow", "cca")
SPACE_FITS = ("calibrated", "joint")
STORE_TIERS = ("targets", "full")
STORE_FORMS = ("float32", "bfloat16", "float16", "int8")
STORE_EXTRAS = ("answer", "calibration", "codi", "queries", "weights")
"""What `kava extract` stores beside keys and values, where it is asked for."""
TEACHER_ORDERS = ("together", "in_turn")
FUSION_NAMES = Names(
    "kava.fuse.base:FUSIONS",
    "fixed", "similarity", "learnable", "confidence", "min_ce", "avg_ce", "oracle", "union",
    "disagreement",
)  # fmt: skip
EVICTION_NAMES = Names(
    "kava.eviction.base:EVICTIONS",
    "full", "h2o", "key_norm", "knockout", "knockout_gradient", "positions", "random",
    "right_crop", "rkv", "rkv_official", "snapkv", "streaming_llm", "tova", "uniform", "window",
)  # fmt: skip
KV_LOSS_NAMES = Names(
    "kava.losses.base:KV_LOSSES",
    "smooth_l1", "mse", "l1", "smooth_l1_alpha", "mercator", "structural",
)  # fmt: skip
LAYER_MAP_NAMES = Names("kava.align.layers.layer_map:LAYER_MAPS", "ratio", "uniform", "skip")
CKA_LAYER_MAP_NAMES = Names("kava.align.layers.cka_map:CKA_LAYER_MAPS", "top_k", "monotone")
