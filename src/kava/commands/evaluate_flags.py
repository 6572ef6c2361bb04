"""What `kava evaluate`, `kava generate` and `kava costs` are asked for."""

from __future__ import annotations

from dataclasses import dataclass

from kava import names
from kava.dataset_names import check_dataset_name
from kava.flags import Usage, check_fields, check_once, flag, needed
from kava.flags.aliases import ANSWERING, ANYWHERE, EVALUATING
from kava.models.devices import DEVICE_HELP, DTYPE_HELP, check_device_name, check_dtype_name

CHECKPOINT = (
    "a checkpoint, a run's output folder (its newest complete checkpoint), or a plain model: a "
    "folder, a built-in kava/ name or a hub id"
)
RECORD_FIELDS = (
    "question_field", "reasoning_field", "answer_field", "text_field", "reasoning_triggers",
    "answer_triggers",
)  # fmt: skip
NEW_TOKENS = "what the run evaluated with, else 32 for a latent student and 256 for a written one"
THE_RUNS = "the run's"


@dataclass(kw_only=True)
class EvaluateConfig:
    """What `kava evaluate` is asked for.

    Raises:
        ValueError: a value outside its range, or flags that exclude each other.
    """

    checkpoint: str = needed(CHECKPOINT, positional=True)
    best: bool = flag(False, "of an output folder, the checkpoint that the run found best")
    dataset_name: str | None = flag(
        None,
        "kava/shell-game, a task (gsm8k, svamp:PATH, …), or the path of a .jsonl, .json, .csv or "
        ".parquet file; left out, "
        "the data that the run evaluated on, or the held-out part of what it was trained on",
        check=check_dataset_name,
    )
    split: str | None = flag(
        None, "train or test; left out, the run's evaluation split or test", unset=THE_RUNS
    )
    subset_size: int | None = flag(
        None, "score this many records, taken at random", least=1, unset="all"
    )
    tasks: list[str] | None = flag(
        None,
        "score these tasks in place of one data set: gsm8k, gsm8k_aug, svamp, strategyqa, "
        "arc_easy, arc_challenge, arc (both); TASK:PATH reads a local file or folder",
        check=check_dataset_name,
    )
    task_data: str | None = flag(
        None, "folder of the tasks' local files, one folder each: gsm8k, svamp, strategyqa, arc, …"
    )
    question_field: str | None = flag(
        None, "field of a row that holds the question", unset=THE_RUNS
    )
    reasoning_field: str | None = flag(None, "field that holds the reasoning", unset=THE_RUNS)
    answer_field: str | None = flag(None, "field that holds the answer", unset=THE_RUNS)
    text_field: str | None = flag(None, "field of a raw text", unset=THE_RUNS)
    reasoning_triggers: list[str] | None = flag(
        None, "markers of the reasoning in a raw text", unset=THE_RUNS
    )
    answer_triggers: list[str] | None = flag(
        None, "markers of the answer in a raw text", unset=THE_RUNS
    )
    batch_size: int = flag(64, "questions at a time", least=1, most=names.MOST_BATCH)
    max_new_tokens: int | None = flag(
        None, "most tokens to generate per answer", least=1, unset=NEW_TOKENS
    )
    max_length: int | None = flag(
        None,
        "most positions of prompt, latents and answer; left out, as many as the model's "
        "configuration names. A model with rotary positions can read on past them",
        least=1,
        unset="the model's",
    )
    output: str | None = flag(
        None,
        "write every item to this jsonl file, and the figures to <output>.summary.json; with "
        "--tasks, a folder for a <task>.jsonl each",
    )
    dtype: str = flag("auto", DTYPE_HELP, check=check_dtype_name)
    device: str = flag("auto", DEVICE_HELP, check=check_device_name)
    json: bool = flag(False, "print the figures as JSON instead of a table")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.tasks is None:
            if self.task_data is not None:
                raise ValueError(
                    f"--task_data {self.task_data} is read by --tasks alone: pass it too"
                )
            return
        for name in (*RECORD_FIELDS, "dataset_name"):
            if getattr(self, name) is not None:
                raise ValueError(f"--tasks and --{name} exclude each other: a task knows its data")


@dataclass(kw_only=True)
class GenerateConfig:
    """What `kava generate` is asked for.

    Raises:
        ValueError: a value outside its range, or flags that exclude each other.
    """

    checkpoint: str = needed(CHECKPOINT, positional=True)
    best: bool = flag(False, "of an output folder, the checkpoint that the run found best")
    prompt: list[str] | None = flag(
        None, "a question; given several times, all are answered, in their order", repeat=True
    )
    input: str | None = flag(
        None,
        "a file of questions: one per line, or the field `question` of a .jsonl, .json, .csv or "
        ".parquet file; without --prompt and --input, they are read from stdin, one per line",
    )
    batch_size: int = flag(64, "questions at a time", least=1, most=names.MOST_BATCH)
    max_new_tokens: int | None = flag(
        None, "most tokens to generate per answer", least=1, unset=NEW_TOKENS
    )
    written: bool = flag(
        False, "show the written reasoning before the answer (not for a latent student)"
    )
    show_latents: bool = flag(
        False,
        "also print what each latent reads as through the output head, under its answer (not for "
        "a student that writes its reasoning)",
    )
    top_k: int | None = flag(
        None, "with --show_latents, tokens to print for each latent", least=1, unset="3"
    )
    stats: bool = flag(False, "also tell forward passes, tokens and time, on stderr")
    dtype: str = flag("auto", DTYPE_HELP, check=check_dtype_name)
    device: str = flag("auto", DEVICE_HELP, check=check_device_name)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.prompt is not None and self.input is not None:
            raise ValueError("--prompt and --input exclude each other")
        if self.top_k is not None and not self.show_latents:
            raise ValueError(f"--top_k {self.top_k} is read by --show_latents alone: pass it too")


@dataclass(kw_only=True)
class CostsConfig:
    """What `kava costs` is asked for.

    Raises:
        ValueError: a value outside its range, or one that stands twice.
    """

    models: list[str] = needed("checkpoints or models", positional=True, metavar="MODEL")
    labels: list[str] | None = flag(None, "what to call them", unset="their names")
    dataset_name: str | None = flag(
        None,
        "kava/shell-game, gsm8k, another data set, or the path of a file",
        check=check_dataset_name,
        unset="the evaluation data of the first model that kava trained",
    )
    split: str | None = flag(None, "train or test", unset="that run's, or test")
    subset_size: int | None = flag(
        None, "answer this many items, taken at random", least=1, unset="all"
    )
    batch_size: list[int] = flag(
        [1], "questions at a time, one or more numbers", least=1, most=names.MOST_BATCH
    )
    rounds: int = flag(5, "turns that the models take", least=1, most=10_000)
    max_new_tokens: int | None = flag(None, "most tokens per answer", least=1, unset=NEW_TOKENS)
    output: str | None = flag(None, "a folder for costs.json, costs.png and costs.svg")
    dtype: str = flag("auto", DTYPE_HELP, check=check_dtype_name)
    device: str = flag("auto", DEVICE_HELP, check=check_device_name)
    json: bool = flag(False, "print JSON instead of the table")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.labels is not None and len(self.labels) != len(self.models):
            raise ValueError(
                f"--labels names {len(self.labels)} models, and there are {len(self.models)}: "
                f"give one each"
            )
        check_once("the label", self.model_labels, "name each model by --labels")
        check_once("--batch_size", self.batch_size, "name each once")

    @property
    def model_labels(self) -> list[str]:
        """What the models are called."""
        return self.labels or [model.rstrip("/") for model in self.models]


EVALUATE = Usage(
    prog="kava evaluate",
    kind=EvaluateConfig,
    summary="Score a trained student.",
    example="kava evaluate outputs/run --dataset_name gsm8k --split test",
    known=EVALUATING,
)
GENERATE = Usage(
    prog="kava generate",
    kind=GenerateConfig,
    summary="Let a trained student answer questions.",
    example='kava generate outputs/run --prompt "How many?"',
    known=ANSWERING,
)
COSTS = Usage(
    prog="kava costs",
    kind=CostsConfig,
    summary="Compare what answers cost. Every model answers the same items, in turns.\n"
    "A model is a checkpoint, a run's output folder (its newest complete checkpoint), or a plain "
    "model, which writes its reasoning: a folder, a built-in kava/ name or a hub id. Costs are "
    "divided by those of the first model that writes its reasoning.",
    example="kava costs outputs/written outputs/latent --batch_size 1 32 --output outputs/costs",
    known=ANYWHERE,
)
