"""The configuration of a training run: one flat dataclass, one help text per field.

The same keys serve as command-line flags (`--kv_weight 5`), as keys of a YAML file (`--config`)
and as arguments in Python. Flags win over the file; an unknown key is refused in all three. The
fields stand in `kava.train.settings`.
"""

from __future__ import annotations

from dataclasses import dataclass

from kava.flags import check_fields
from kava.models.gguf import gguf_name
from kava.train.checks import check_config
from kava.train.defaults import settle
from kava.train.settings import Settings
from kava.train.settings.optimisation import AUTO_BATCH


@dataclass(kw_only=True)
class TrainConfig(Settings):
    """Everything that decides a run.

    Raises:
        ValueError: a value outside its range, or values that exclude each other; the message
            names the flag.

    Example:
        >>> TrainConfig(model_name="kava/tiny-gpt2", output_dir="outputs/x", target_len=4)
    """

    def __post_init__(self) -> None:
        if isinstance(self.report_to, str):  # as users of transformers write it
            self.report_to = [self.report_to]
        if isinstance(self.teacher_quantization, str):
            self.teacher_quantization = [self.teacher_quantization]
        if str(self.batch_size) == "auto":
            self.batch_size = AUTO_BATCH
        check_fields(self)
        self.model_name = gguf_name(self.model_name, self.gguf_file, "--gguf_file") or ""
        self.teacher_name = gguf_name(
            self.teacher_name, self.teacher_gguf_file, "--teacher_gguf_file"
        )
        self.gguf_file = self.teacher_gguf_file = None  # a run records the whole names
        self.left_out = settle(self)
        check_config(self)


# what a resumed run may change without becoming another run
RESUMABLE = frozenset(
    {"resume", "resume_from", "start_from", "overwrite", "no_progress", "output_dir", "device"}
    | {"save_steps", "save_total_limit", "save_only_model", "kv_scores_path", "report_to"}
    | {"store", "store_tier"}
)
