"""Flags of `kava cluster` and its parts."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import Any

from kava.cluster.options import SECTIONS, JobOptions
from kava.flags import Parts, Usage, again, check_fields, flag
from kava.study.flags import FolderConfig, PlanFlags

REPORT_FILE = "pre_deployment_check_report.txt"


@dataclass(kw_only=True)
class SubmitConfig(JobOptions, PlanFlags):
    """What `kava cluster submit` is asked for.

    Raises:
        ValueError: a value outside its range.
    """

    dry_run: bool = flag(False, "print the scripts; write and submit nothing")


@dataclass(kw_only=True)
class ChosenConfig(FolderConfig):
    """What `kava cluster cancel` is asked for."""

    arms: list[str] | None = again(PlanFlags, "arms", None)
    seeds: list[int] | None = again(PlanFlags, "seeds", None)


@dataclass(kw_only=True)
class LogsConfig(ChosenConfig):
    """What `kava cluster logs` is asked for."""

    lines: int = flag(10, "last lines of each log", least=1, most=100_000)


@dataclass(kw_only=True)
class MonitorConfig(FolderConfig):
    """What `kava cluster monitor` is asked for."""

    auto: bool = flag(False, "look again and again, until all runs have ended")
    every: float = flag(30.0, "seconds between two looks of --auto", above=0, most=86_400)


@dataclass(kw_only=True)
class CheckConfig(JobOptions):
    """What `kava cluster check` is asked for."""

    plan: str | None = again(PlanFlags, "plan", None, unset="the cluster alone")
    output_dir: str | None = again(PlanFlags, "output_dir", None)
    store: str | None = flag(
        None,
        "shared folder of models",
        unset="KAVA_MODEL_STORE, KAVA_MODEL_PATH or SHARED_MODEL_DIR",
    )
    only: list[str] | None = flag(
        None, "only these sections", choices=SECTIONS, metavar="SECTION", unset="all"
    )
    output: str = flag(REPORT_FILE, "file of the report")


@dataclass(kw_only=True)
class ModelsConfig:
    """What `kava cluster models` is asked for."""

    plan: str = again(PlanFlags, "plan", MISSING)
    store: str | None = again(CheckConfig, "store", None)

    def __post_init__(self) -> None:
        check_fields(self)


FOLDER_EXAMPLE = "outputs/study/flat_vs_structured"
PARTS: dict[str, Usage[Any]] = {
    "submit": Usage(
        prog="kava cluster submit",
        kind=SubmitConfig,
        summary="Submit the missing runs of a plan as an array of jobs, and the report behind it.",
        example="kava cluster submit flat_vs_structured --engine slurm --time 02:00:00",
    ),
    "status": Usage(
        prog="kava cluster status",
        kind=FolderConfig,
        summary="Say where the jobs and runs of a submitted study stand.",
        example=f"kava cluster status {FOLDER_EXAMPLE}",
    ),
    "logs": Usage(
        prog="kava cluster logs",
        kind=LogsConfig,
        summary="Print the last lines of the runs' logs.",
        example=f"kava cluster logs {FOLDER_EXAMPLE} --arms flat --seeds 0",
    ),
    "cancel": Usage(
        prog="kava cluster cancel",
        kind=ChosenConfig,
        summary="Cancel jobs; runs save their step, and go on when they are submitted again.",
        example=f"kava cluster cancel {FOLDER_EXAMPLE}",
    ),
    "monitor": Usage(
        prog="kava cluster monitor",
        kind=MonitorConfig,
        summary="Show jobs, last steps, losses, the time that is left and errors.",
        example=f"kava cluster monitor {FOLDER_EXAMPLE} --auto",
    ),
    "check": Usage(
        prog="kava cluster check",
        kind=CheckConfig,
        summary="Check the cluster, this Python, models, data and disk before a plan is submitted.",
        example="kava cluster check flat_vs_structured --partition gpu --gres gpu:1",
    ),
    "models": Usage(
        prog="kava cluster models",
        kind=ModelsConfig,
        summary="Say which models of a plan are here, and how to get the others.",
        example="kava cluster models gpt2_gsm8k --store /home/share/models",
    ),
}
USAGE = Parts(
    prog="kava cluster",
    summary="Run a study as jobs of Slurm or PBS.",
    parts=PARTS,
    example="kava cluster submit flat_vs_structured --dry_run",
)
