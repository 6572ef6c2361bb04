"""`kava extract`: read texts with a teacher once, and store what it leaves behind."""

from __future__ import annotations

from pathlib import Path

from kava.extract.request import ExtractConfig, Request, StoreFlags
from kava.files.outputs import check_output_folder
from kava.flags import Usage
from kava.flags.aliases import TRAINING
from kava.models.quiet import quiet_libraries
from kava.ranks import Ranks, ranks_of_launcher
from kava.train.flags import config_of, take_own

USAGE = Usage(
    prog="kava extract",
    kind=ExtractConfig,
    beside=StoreFlags,
    summary="Read texts with a teacher once, and store what it leaves behind for kava train "
    "--store.",
    example="kava extract --teacher_name gpt2-medium --model_name gpt2 --dataset_name gsm8k "
    "--target_len 24 --overflow skip --store outputs/store",
    known={name: meant for name, meant in TRAINING.items() if name != "teacher_kv_dir"},
    common=(
        *("teacher_name", "model_name", "dataset_name", "eval_size", "subset_size", "max_length"),
        *("overflow", "target_len", "kv_method", "kv_scope", "token_alignment", "key_space"),
        *("alignment_mode", "calibration_samples", "batch_size", "dtype", "seed", "device"),
        *("store", "full", "include", "store_form", "shard_mib", "overwrite", "config"),
        *("capture_chunk", "cache_budget"),
    ),
    more="It takes every flag of kava train, so that the flags of a run make the store of the run; "
    "those about training change nothing. A second call goes on where the first one stopped.",
)


def main(argv: list[str]) -> int:
    """Parse flags, extract, and say what the store holds."""
    with ranks_of_launcher("the same command goes on where this one stopped") as ranks:
        return _main(argv, ranks)


def _main(argv: list[str], ranks: Ranks) -> int:
    values = USAGE.read(argv)
    flags = take_own(values, StoreFlags)
    if "store" not in flags:
        USAGE.fail(f"--store is missing, as in: {USAGE.example}")
    if "store_tier" in values:
        USAGE.fail("--store_tier says what kava train reads of a store; leave it out")
    config = config_of(USAGE, values)
    check_output_folder(flags["store"], "--store")
    quiet_libraries()

    from kava.extract.run import extract
    from kava.store.manifest import describe, read_manifest

    for folder in extract(Request.of(config, flags), ranks=ranks):
        print("\n".join(describe(folder, read_manifest(folder))))
    print(f"next:     kava train --store {Path(flags['store'])}, with the flags of the run")
    return 0
