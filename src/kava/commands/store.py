"""`kava store`: say what a store holds, look for damage, and keep other positions of its texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kava import names
from kava.extract.request import MIB, StoreFlags
from kava.flags import Parts, Usage, again, check_fields, flag, flags_of, needed
from kava.models.quiet import quiet_libraries
from kava.train.config import TrainConfig

_FIRST = "of kava extract"


@dataclass(kw_only=True)
class InfoConfig:
    """What `kava store info` and `verify` are asked for."""

    folder: str = needed(_FIRST, positional=True, metavar="STORE")

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(kw_only=True)
class RecompressConfig:
    """What `kava store recompress` is asked for; flags that are left out stay as they were."""

    folder: str = needed(_FIRST, positional=True, metavar="STORE")
    output: str = needed("folder of the new store", metavar="FOLDER")
    kv_method: str | None = again(TrainConfig, "kv_method", None, unset="the store's")
    target_len: int | None = again(TrainConfig, "target_len", None, unset="the store's")
    kv_scope: str | None = again(TrainConfig, "kv_scope", None, unset="the store's")
    rkv_lambda: float | None = again(TrainConfig, "rkv_lambda", None, unset="the store's")
    knockout_reach: str | None = again(TrainConfig, "knockout_reach", None, unset="the store's")
    token_alignment: str | None = again(TrainConfig, "token_alignment", None, unset="the store's")
    key_space: str | None = again(TrainConfig, "key_space", None, unset="the store's")
    model_name: str | None = again(TrainConfig, "model_name", None, unset="the store's")
    student: str | None = again(TrainConfig, "student", None, unset="the store's")
    alignment_mode: str | None = again(TrainConfig, "alignment_mode", None, unset="the store's")
    seed: int | None = again(TrainConfig, "seed", None, unset="the store's")
    batch_size: int | None = again(TrainConfig, "batch_size", None, unset="the store's")
    store_form: str | None = flag(
        None, "how numbers are stored", choices=names.STORE_FORMS, unset="the store's"
    )
    shard_mib: int = again(StoreFlags, "shard_mib", 64)
    overwrite: bool = flag(False, "start anew although output holds a store")
    no_progress: bool = again(TrainConfig, "no_progress", False)

    def __post_init__(self) -> None:
        check_fields(self)


def _info(config: InfoConfig) -> int:
    from kava.store.manifest import describe, read_manifest

    print("\n".join(describe(config.folder, read_manifest(config.folder, "kava store info"))))
    return 0


def _verify(config: InfoConfig) -> int:
    from kava.format import counted
    from kava.store.manifest import read_manifest
    from kava.store.teacher import read_teacher_file
    from kava.store.verify import foreign_files, whole_shards

    folder = Path(config.folder)
    manifest = read_manifest(folder, "kava store verify")
    whole, problems = whole_shards(folder, manifest)
    try:
        read_teacher_file(folder, manifest)
    except (OSError, ValueError) as error:
        problems.append(str(error))
    problems += foreign_files(folder, manifest)
    for problem in problems:
        print(problem)
    size = sum(shard.num_bytes for shard in whole)
    print(f"{folder}: {counted(len(whole), 'shard')} whole, {size:,} bytes read")
    if problems:
        raise ValueError(
            f"{folder} has {counted(len(problems), 'problem')}; run kava extract again, which "
            f"makes up for shards that are damaged or missing"
        )
    return 0


def _recompress(config: RecompressConfig) -> int:
    from kava.extract.recompress import recompress
    from kava.store.manifest import describe

    quiet_libraries()
    changes: dict[str, Any] = {}
    for name in flags_of(RecompressConfig):
        value = getattr(config, name)
        # 0 is a seed and a lambda of its own, and equals False
        if name in flags_of(TrainConfig) and value is not None and value is not False:
            changes[name] = value
    manifest = recompress(
        config.folder,
        config.output,
        changes,
        form=config.store_form,
        shard_bytes=config.shard_mib * MIB,
    )
    print("\n".join(describe(config.output, manifest)))
    return 0


_PARTS: dict[str, tuple[Callable[[Any], int], Usage[Any]]] = {
    "info": (
        _info,
        Usage(
            prog="kava store info",
            kind=InfoConfig,
            summary="Say what a store holds, of whom, and what its form lost.",
            example="kava store info outputs/store",
        ),
    ),
    "verify": (
        _verify,
        Usage(
            prog="kava store verify",
            kind=InfoConfig,
            summary="Read every byte of a store, and name shards that are damaged, missing or "
            "foreign.",
            example="kava store verify outputs/store",
        ),
    ),
    "recompress": (
        _recompress,
        Usage(
            prog="kava store recompress",
            kind=RecompressConfig,
            summary="Keep other positions of a store's whole texts, without the teacher.",
            example="kava store recompress outputs/store --kv_method h2o --target_len 12 "
            "--output outputs/store_h2o",
        ),
    ),
}

USAGE = Parts(
    prog="kava store",
    summary="Stores of kava extract: what they hold, whether they are whole, other positions.",
    parts={name: usage for name, (_, usage) in _PARTS.items()},
    example="kava store info outputs/store",
)


def main(argv: Sequence[str]) -> int:
    """Run a part of the command."""
    name, rest = USAGE.choose(argv)
    act, usage = _PARTS[name]
    return act(usage.parse(rest))
