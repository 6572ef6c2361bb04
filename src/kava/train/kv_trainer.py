"""`KVDistillTrainer`: the run of `kava train`, called as transformers' and TRL's trainers are.

Models are names or loaded objects, data a `datasets.Dataset`; what is built, checked, logged and
saved is the same as on the command line (`kava.train.build`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_utils import TrainOutput

from kava.data.records import Record
from kava.data.sources import records_of_rows
from kava.files.locks import lock_folder
from kava.files.outputs import check_output, check_run_folder
from kava.flags import flags_of
from kava.flags.words import near
from kava.models.devices import DTYPES
from kava.models.given import GivenObjects, given_objects
from kava.names import METRICS_FILE, TENSORBOARD_FOLDER, given
from kava.ranks import is_first
from kava.train.build import finish, prepare
from kava.train.config import TrainConfig
from kava.train.further import ComputeMetrics
from kava.train.given import GivenRecords
from kava.train.trainer import RunTrainer

if TYPE_CHECKING:
    from datasets import Dataset

HOLDER = "KVDistillTrainer"

logger = logging.getLogger(__name__)


class KVDistillTrainer(RunTrainer):
    """Train a student on a teacher's key/value cache.

    Args:
        model: the student: a name as for `--model_name`, or a loaded causal language model, which
            is trained in place. None: what `args` names.
        teacher: the frozen teacher, in the same way. None: what `args` names, else
            self-distillation.
        args: a `TrainConfig`, or its values as a dictionary (which leaves checks that need model
            and data to this call). A flag's name is its key.
        train_dataset: rows of questions with their reasoning and answer, read as the rows of a file
            are (docs/data.md): columns `question`, `reasoning`, `answer`, or GSM8K's. None: what
            `args` names.
        eval_dataset: the same, held out; all of it, or the first `eval_size`. None: what `args`
            names.
        processing_class: the student's tokenizer, needed for a loaded model.
        teacher_processing_class: the tokenizer of a loaded teacher; None: the student's.
        callbacks: further callbacks of transformers.
        compute_metrics: gets an `EvalPrediction` of each evaluation, with the generated texts as
            `predictions` and the right answers as `label_ids`; its numbers are logged as `eval_…`.

    Raises:
        ValueError: as `kava train`: bad values, models, data, or an output folder in use.

    Example:
        >>> trainer = KVDistillTrainer(
        ...     model="kava/shell-llama",
        ...     teacher="kava/shell-teacher",
        ...     args=TrainConfig(target_len=2, max_length=64, output_dir="outputs/mine"),
        ...     train_dataset=dataset,
        ... )
        >>> trainer.train()
    """

    def __init__(
        self,
        model: str | PreTrainedModel | None = None,
        teacher: str | PreTrainedModel | None = None,
        args: TrainConfig | Mapping[str, Any] | None = None,
        train_dataset: Dataset | Sequence[Mapping[str, Any]] | None = None,
        eval_dataset: Dataset | Sequence[Mapping[str, Any]] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        *,
        teacher_processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]] = (),
        compute_metrics: ComputeMetrics | None = None,
    ):
        values = _values_of(args)
        models = {"model_name": model, "teacher_name": teacher}
        tokenizers = {
            "model_name": processing_class,
            "teacher_name": teacher_processing_class or processing_class,
        }
        if teacher_processing_class is not None and not isinstance(teacher, PreTrainedModel):
            raise ValueError(
                "teacher_processing_class is the tokenizer of a loaded teacher; leave it out"
            )
        objects = _name_models(values, models, tokenizers)
        _name_data(values, train_dataset, eval_dataset)
        config = TrainConfig(**values)
        if config.lora_r and config.model_name in objects.models:
            raise ValueError(
                f"lora_r={config.lora_r} stores adapters and the name of their base, by which it "
                f"is loaded again: pass model by its name, not as an object"
            )
        if compute_metrics is not None and not config.eval_size:
            raise ValueError(
                "compute_metrics is about evaluations: pass an eval_dataset, or eval_size in args"
            )
        check_run_folder(config.output_dir, files=(METRICS_FILE,), folders=(TENSORBOARD_FOLDER,))
        if config.kv_scores_path is not None:
            check_output(config.kv_scores_path, "--kv_scores_path")
        records = GivenRecords(
            train=_records(train_dataset, "train_dataset", config),
            eval=_records(eval_dataset, "eval_dataset", config),
        )
        with lock_folder(_locked(config), HOLDER), given_objects(objects):
            parts = prepare(config, given=records)
            super().__init__(
                **parts.arguments,
                callbacks=[*parts.trackers, *callbacks],
                compute_metrics=compute_metrics,
            )
            self.run = finish(self, parts)
        for notice in self.run.start.notices:
            logger.warning("%s", notice)

    @property
    def student(self) -> PreTrainedModel:
        """What is trained: a `LatentStudent`, or the model itself."""
        student: PreTrainedModel = self.accelerator.unwrap_model(self.model).student
        return student

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """Train to the end, from the checkpoint that `args` resumes from, if it does.

        Raises:
            ValueError: a checkpoint named here.
            KavaError: another run is at work in the output folder, or as `RunTrainer`.
        """
        if resume_from_checkpoint:
            raise ValueError(
                "a run goes on from a checkpoint where its args say so, which is checked before "
                "anything is loaded: TrainConfig(resume=True), or resume_from=…"
            )
        start = self.run.checkpoint
        with lock_folder(_locked(self.config), HOLDER):
            output = super().train(None if start is None else str(start), *args, **kwargs)
            self.writer.clear()  # of a run that had no step left
        return output

    def push_to_hub(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not here: a student is pushed with its model card by `kava export`.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"a student is pushed with a model card from its logs: kava export "
            f"{self.config.output_dir} --output_dir FOLDER --push user/name"
        )


def _locked(config: TrainConfig) -> str | None:
    """Of processes that train together the first writes."""
    return config.output_dir if is_first() else None


def _values_of(args: TrainConfig | Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings that were given; those that were left out are decided anew, with the models."""
    if isinstance(args, TrainConfig):
        return {n: getattr(args, n) for n in flags_of(TrainConfig) if n not in args.left_out}
    if not isinstance(args, Mapping | None):
        raise ValueError(
            f"args is a {type(args).__name__}; pass a kava.TrainConfig, or its values as a "
            f"dictionary"
        )
    values = dict(args or {})
    for name in values:
        if name not in flags_of(TrainConfig):
            raise ValueError(f"args has no {name!r}{near(name, flags_of(TrainConfig))}")
    return values


def _name_models(
    values: dict[str, Any],
    models: Mapping[str, str | PreTrainedModel | None],
    tokenizers: Mapping[str, PreTrainedTokenizerBase | None],
) -> GivenObjects:
    """Name the models in the settings; loaded ones get names of their own."""
    student, teacher = models.values()
    if student is not None and student is teacher and isinstance(student, PreTrainedModel):
        raise ValueError(
            "model and teacher are the same object, which would be trained and frozen at once: "
            "leave teacher out for self-distillation, or load it again"
        )
    loaded: dict[str, PreTrainedModel] = {}
    known: dict[str, PreTrainedTokenizerBase] = {}
    for flag, model in models.items():
        default = flags_of(TrainConfig)[flag].default
        if model is not None:
            _check_model(flag, model, values.get(flag, default), default, tokenizers[flag])
        if isinstance(model, PreTrainedModel):
            own = model.config.name_or_path or type(model).__name__
            values[flag] = given(own, "teacher" if given(own) in loaded else "")
            loaded[values[flag]] = model
        elif model is not None:
            values[flag] = model
        tokenizer, name = tokenizers[flag], values.get(flag, default)
        if tokenizer is not None and (name in loaded or flag == "model_name"):
            known[name] = tokenizer
    if isinstance(teacher, PreTrainedModel):
        _keep_dtype(values, teacher)
    return GivenObjects(loaded, known)


def _check_model(
    flag: str,
    model: object,
    named: object,
    default: object,
    tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    """Refuse an argument that is no model, or that `args` names too."""
    argument = flag.removesuffix("_name")
    if not isinstance(model, str | PreTrainedModel):
        raise ValueError(
            f"{argument} is a {type(model).__name__}; pass a name or a loaded PreTrainedModel"
        )
    if named not in (default, model):
        raise ValueError(
            f"args names {flag}={named!r}, and {argument} is given too: leave one of them out"
        )
    if isinstance(model, PreTrainedModel) and tokenizer is None:
        raise ValueError(f"{argument} is a loaded model: pass its tokenizer as processing_class")


def _keep_dtype(values: dict[str, Any], teacher: PreTrainedModel) -> None:
    """A loaded teacher keeps its dtype, where it is one that a teacher may have."""
    dtype = str(teacher.dtype).removeprefix("torch.")
    if dtype in DTYPES:
        values["dtype"] = dtype


def _name_data(values: dict[str, Any], train: Any, held_out: Any) -> None:
    """Name data that are given, in the settings, and evaluate on all that are held out."""
    for flag, rows in (("dataset_name", train), ("eval_dataset_name", held_out)):
        if rows is not None:
            info = getattr(rows, "info", None)  # of a datasets.Dataset
            own = None if info is None else info.dataset_name
            values[flag] = given(own or type(rows).__name__)
    if held_out is not None and not values.get("eval_size"):
        # what cannot be counted is refused where it is read
        values["eval_size"] = len(held_out) if hasattr(held_out, "__len__") else 1


def _records(rows: Any, name: str, config: TrainConfig) -> list[Record] | None:
    if rows is None:
        return None
    return records_of_rows(rows, name, settings=config, on_missing="report")
