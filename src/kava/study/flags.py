"""Flags that `kava study` and `kava cluster` share: a plan, some of its runs, a study's folder."""

from __future__ import annotations

from dataclasses import dataclass

from kava import names
from kava.flags import check_fields, flag, needed


@dataclass(kw_only=True)
class PlanFlags:
    """A plan, where its runs are written, and which of them.

    Raises:
        ValueError: a value outside its range.
    """

    plan: str = needed(
        "a YAML file, or the name of a shipped plan", positional=True, metavar="PLAN"
    )
    output_dir: str | None = flag(None, "folder of the study", unset="outputs/study/NAME")
    arms: list[str] | None = flag(None, "only these arms", metavar="ARM", unset="all")
    seeds: list[int] | None = flag(
        None, "only these seeds", least=0, most=names.MOST_SEED, metavar="SEED", unset="all"
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(kw_only=True)
class FolderConfig:
    """The folder of a study, for commands that look at one."""

    folder: str = needed("of the study", positional=True, metavar="FOLDER")

    def __post_init__(self) -> None:
        check_fields(self)
