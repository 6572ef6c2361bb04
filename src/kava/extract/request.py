"""What an extraction is asked for: a run's settings, and what to store of its teachers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kava import names
from kava.flags import again, flag, flags_of, needed
from kava.train.config import TrainConfig
from kava.train.flags import ConfigFile
from kava.train.settings.lora import ADAPTER_OFF
from kava.train.settings.store import StoreSettings

MIB = 2**20


@dataclass(kw_only=True)
class ExtractConfig(TrainConfig):
    """The settings of the run that the store is for; those of its teachers and data are read.

    Raises:
        ValueError: as `TrainConfig`, or no frozen teacher is named.
    """

    model_name: str = again(
        TrainConfig,
        "model_name",
        None,
        help="the student, whose tokens the kept positions stand at where it has another "
        "tokenizer, and whose geometry decides whether heads may keep positions of their own",
        unset="the teacher",
    )

    def __post_init__(self) -> None:
        if self.model_name is None:
            if self.teacher_name in (None, ADAPTER_OFF) and not self.teachers:
                raise ValueError("name the teacher that reads, by --teacher_name or --teachers")
            first = self.teachers[0] if self.teachers else str(self.teacher_name)
            self.model_name = first.partition("=")[2] or first
        self.store, self.store_tier = None, "targets"  # of a run's file: this writes a store
        super().__post_init__()
        if self.teacher_name is None:
            raise ValueError("name the teacher that reads, by --teacher_name or --teachers")
        if self.auto_batch:
            raise ValueError(
                "--batch_size auto measures steps of training, and kava extract makes none: pass "
                "a number"
            )


@dataclass(kw_only=True)
class StoreFlags(ConfigFile):
    """What is stored, and where."""

    store: str = needed(
        "folder to write; of several teachers each has a store in it, called as its label",
        metavar="FOLDER",
        group="store",
    )
    full: bool = flag(
        False,
        "also store whole texts, from which kava store recompress keeps other positions, and which "
        "kava train reads with --store_tier full",
    )
    include: list[str] | None = flag(
        None,
        "what else: answer (log-probability of the answer, cross-entropy of the text, for "
        "--fusion), calibration (whole texts of the first calibration_samples, which maps are "
        "fitted on), codi (hidden states), queries (for --kv_loss structural), weights (for "
        "--attention_weighted_kv)",
        choices=names.STORE_EXTRAS,
        metavar="WHAT",
        unset="what the other flags say that the run reads",
    )
    store_form: str = flag(
        "float32",
        "how numbers are stored; int8 has a step for each vector of a head and position",
        choices=names.STORE_FORMS,
    )
    shard_mib: int = flag(64, "size of a shard", least=1, most=4096)


@dataclass(frozen=True, kw_only=True)
class Request:
    """An extraction.

    Args:
        config: the run's settings.
        store: the folder to write.
        full: store whole texts of all samples.
        include: of `kava.names.STORE_EXTRAS`.
        form: of `kava.names.STORE_FORMS`.
        shard_bytes: size of a shard.

    Raises:
        ValueError: nothing would be stored, or what a bounded cache does not leave behind.
    """

    config: TrainConfig
    store: Path
    full: bool = False
    include: frozenset[str] = frozenset()
    form: str = "float32"
    shard_bytes: int = 64 * MIB

    def __post_init__(self) -> None:
        if self.config.use_segment_resampling and not self.full:
            raise ValueError(
                "--use_segment_resampling reads whole texts and keeps no positions, so that "
                "nothing would be stored: pass --full"
            )
        if self.config.cache_budget is not None:
            from kava.extract.bounded_checks import check_budget

            check_budget(self.config, self.full, self.include)

    @classmethod
    def of(cls, config: TrainConfig, flags: Mapping[str, Any]) -> Request:
        """From a run's settings, and the values of `StoreFlags`."""
        known = flags_of(StoreFlags)
        values = {name: flags.get(name, one.default) for name, one in known.items()}
        return cls(
            config=config,
            store=Path(values["store"]),
            full=values["full"],
            include=frozenset(values["include"] or ()),
            form=values["store_form"],
            shard_bytes=values["shard_mib"] * MIB,
        )


def said(config: TrainConfig) -> dict[str, Any]:
    """The settings that are not as they come, to build the configuration of whole texts again."""
    flags = flags_of(TrainConfig)
    return {
        name: getattr(config, name)
        for name, one in flags.items()
        if name not in flags_of(StoreSettings) and getattr(config, name) != one.default
    }
