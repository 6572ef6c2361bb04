"""`kava train` with the flags and defaults of a known program for several teachers.

python experiments/train_multi_teacher_kv.py --student_model S --teacher_models A B --dataset_name D
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass

from kava.commands.train import train_as
from kava.dataset_names import check_dataset_name
from kava.flags import Usage, again, flag
from kava.flags.aliases import TRAINING
from kava.train.config import TrainConfig
from kava.train.flags import ConfigFile, config_of

PROGRAM = "python experiments/train_multi_teacher_kv.py"
NOT_KEPT = (
    "defaults that are others here: all samples (--max_samples), no cosine and attention terms "
    "beside the KV loss (--beta_cos, --gamma_kl), the mean of the losses of keys and values, not "
    "their sum (--lambda_k, --lambda_v: --kv_weight 2), each model's own rotation "
    "(--rope_scaling_method)"
)
USUAL_STRENGTH = 0.01


def check_has_reasoning(dataset_name: str) -> None:
    """Refuse the usual data set of the known program, and what `check_dataset_name` refuses.

    Raises:
        ValueError: names the mend.
    """
    if dataset_name == "wikitext":
        raise ValueError(
            "--dataset_name wikitext has no reasoning whose cache could be distilled: name data "
            "that has, such as gsm8k or a .jsonl file"
        )
    check_dataset_name(dataset_name)


@dataclass(kw_only=True)
class SeveralTeachersConfig(TrainConfig):
    """A run with the known program's defaults.

    Raises:
        ValueError: as `TrainConfig`.
    """

    model_name: str = again(TrainConfig, "model_name", MISSING)
    teachers: list[str] | None = again(TrainConfig, "teachers", MISSING)
    dataset_name: str = again(TrainConfig, "dataset_name", MISSING, check=check_has_reasoning)
    kv_loss: str = again(TrainConfig, "kv_loss", "mse")
    entropy_reg_strength: float = again(
        TrainConfig,
        "entropy_reg_strength",
        None,
        unset=f"{USUAL_STRENGTH} with --fusion learnable, else 0",
    )
    epochs: float = again(TrainConfig, "epochs", 3.0)
    batch_size: int = again(TrainConfig, "batch_size", 4)
    gradient_accumulation_steps: int = again(TrainConfig, "gradient_accumulation_steps", 8)
    lr: float = again(TrainConfig, "lr", 2e-5)
    warmup_steps: int = again(TrainConfig, "warmup_steps", 500)
    save_steps: int = again(TrainConfig, "save_steps", 1000)
    logging_steps: int = again(TrainConfig, "logging_steps", 100)
    output_dir: str = again(TrainConfig, "output_dir", "outputs/multi_teacher")

    def __post_init__(self) -> None:
        if self.entropy_reg_strength is None:
            self.entropy_reg_strength = USUAL_STRENGTH if self.fusion == "learnable" else 0.0
        super().__post_init__()


@dataclass(kw_only=True)
class PhaseFlag(ConfigFile):
    """The flag of a phase."""

    phase: int | None = flag(
        None,
        "what the other flags must say: 1 two teachers, fixed; 2 several, fixed; 3 several; 4 "
        "several, learnable; 5 several, with a shared space; it changes nothing. All in turn: kava "
        "curriculum run",
        choices=(1, 2, 3, 4, 5),
    )


def check_phase(phase: int, config: TrainConfig) -> None:
    """Refuse a phase that the other flags do not say.

    Raises:
        ValueError: names the mend.
    """
    number = len(config.teachers or ())
    holds: Mapping[int, tuple[bool, str]] = {
        1: (number == 2 and config.fusion == "fixed", "two --teachers with --fusion fixed"),
        2: (number > 1 and config.fusion == "fixed", "several --teachers with --fusion fixed"),
        3: (number > 1, "several --teachers"),
        4: (number > 1 and config.fusion == "learnable", "--teachers with --fusion learnable"),
        5: (
            number > 1 and config.shared_space_weight > 0,
            "several --teachers with --shared_space_weight above 0",
        ),
    }
    fits, means = holds[phase]
    if not fits:
        raise ValueError(
            f"--phase {phase} is {means}, and selects nothing by itself: the other flags ask for "
            f"{number} with --fusion {config.fusion}; change them, or let kava curriculum run go "
            f"through the phases"
        )


USAGE = Usage(
    prog="train_multi_teacher_kv.py",
    kind=SeveralTeachersConfig,
    beside=PhaseFlag,
    summary="Distil the caches of several teachers into a student: kava train, with the defaults "
    "of a known program.",
    example=f"{PROGRAM} --student_model gpt2 --teacher_models gpt2-medium gpt2-large "
    "--dataset_name gsm8k --overflow skip",
    known={name: meant for name, meant in TRAINING.items() if name != "phase"},
    common=(
        *("model_name", "teachers", "fusion", "fixed_weights", "router_type", "router_learning"),
        *("entropy_reg_strength", "entropy_target", "dataset_name", "subset_size", "max_length"),
        *("overflow", "target_len", "kv_method", "layer_mapping", "kv_loss", "kv_weight"),
        *("ce_weight", "epochs", "batch_size", "gradient_accumulation_steps", "lr"),
        *("warmup_steps", "save_steps", "logging_steps", "fp16", "bf16", "output_dir", "phase"),
    ),
)


def main(argv: list[str]) -> int:
    """Parse flags, train, and say where everything was written."""
    values = USAGE.read(argv)
    phase = values.pop("phase", None)
    config = config_of(USAGE, values)
    if phase is not None:
        with USAGE.refusing():
            check_phase(phase, config)
    print(NOT_KEPT, flush=True)
    train_as(PROGRAM, argv, config)
    return 0
